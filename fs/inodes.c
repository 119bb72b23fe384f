/* inodes: see inodes.h.  A chained hash table under one lock, which is a leaf. */
#include "fs/inodes.h"

#include <pthread.h>
#include <stdlib.h>

struct inodes {
	pthread_mutex_t mu;
	struct inode **buckets; /* guarded by mu, as the rest */
	size_t n_buckets, count;
	bool closing; /* set when only one thread is left */
};

static size_t slot(const struct inodes *t, uint64_t number)
{
	return (size_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (t->n_buckets - 1);
}

struct inodes *inodes_new(void)
{
	struct inodes *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->n_buckets = 1024;
	t->buckets = calloc(t->n_buckets, sizeof(*t->buckets));
	if (!t->buckets) {
		free(t);
		return NULL;
	}
	pthread_mutex_init(&t->mu, NULL);
	return t;
}

/* Every inode is freed once, by this walk; what an inode lets go of while it is freed was or will be met by it too. */
void inodes_free(struct inodes *t)
{
	if (!t)
		return;
	t->closing = true;
	for (size_t b = 0; b < t->n_buckets; b++) {
		for (struct inode *i = t->buckets[b], *next; i; i = next) {
			next = i->next;
			i->free(i);
		}
	}
	pthread_mutex_destroy(&t->mu);
	free(t->buckets);
	free(t);
}

size_t inodes_count(struct inodes *t)
{
	size_t count;

	pthread_mutex_lock(&t->mu);
	count = t->count;
	pthread_mutex_unlock(&t->mu);
	return count;
}

static struct inode *find_locked(const struct inodes *t, uint64_t number)
{
	struct inode *i = t->buckets[slot(t, number)];

	while (i && i->number != number)
		i = i->next;
	return i;
}

struct inode *inodes_find(struct inodes *t, uint64_t number)
{
	struct inode *found;

	pthread_mutex_lock(&t->mu);
	found = find_locked(t, number);
	pthread_mutex_unlock(&t->mu);
	return found;
}

/* Without memory the table stays as it is, only slower. */
static void grow_locked(struct inodes *t)
{
	size_t n_old = t->n_buckets;
	struct inode **old = t->buckets, **fresh = calloc(n_old * 2, sizeof(*fresh));

	if (!fresh)
		return;
	t->buckets = fresh;
	t->n_buckets = n_old * 2;
	for (size_t b = 0; b < n_old; b++) {
		for (struct inode *i = old[b], *next; i; i = next) {
			next = i->next;
			i->next = fresh[slot(t, i->number)];
			fresh[slot(t, i->number)] = i;
		}
	}
	free(old);
}

struct inode *inodes_intern(
	struct inodes *t, struct inode *fresh, bool (*same)(const struct inode *known, const struct inode *fresh))
{
	struct inode *known;

	pthread_mutex_lock(&t->mu);
	while ((known = find_locked(t, fresh->number)) && !same(known, fresh))
		fresh->number = inode_number(inode_tree(fresh->number), fresh->number + 1);
	if (known) {
		known->refs++;
	} else {
		if (++t->count > t->n_buckets)
			grow_locked(t);
		fresh->refs = 1;
		fresh->next = t->buckets[slot(t, fresh->number)];
		t->buckets[slot(t, fresh->number)] = fresh;
	}
	pthread_mutex_unlock(&t->mu);
	if (!known)
		return fresh;
	fresh->free(fresh);
	return known;
}

void inodes_hold(struct inodes *t, struct inode *i)
{
	pthread_mutex_lock(&t->mu);
	i->refs++;
	pthread_mutex_unlock(&t->mu);
}

static void unlink_locked(struct inodes *t, struct inode *i)
{
	struct inode **link = &t->buckets[slot(t, i->number)];

	while (*link != i)
		link = &(*link)->next;
	*link = i->next;
	t->count--;
}

void inodes_drop(struct inodes *t, struct inode *i, uint64_t n)
{
	bool last;

	if (t->closing)
		return;
	pthread_mutex_lock(&t->mu);
	i->refs -= n < i->refs ? n : i->refs;
	last = i->refs == 0;
	if (last)
		unlink_locked(t, i);
	pthread_mutex_unlock(&t->mu);
	if (last)
		i->free(i);
}
