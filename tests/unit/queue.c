/* The queue's turns, against the rule said in another way; and the notes on poisoned recipes. */
#include "fs/queue.h"

#include <stdint.h>
#include <string.h>

#include "fs/poison.h"
#include "tests/unit/check.h"

enum { ENTRIES = 4000, UIDS = 4, PIDS = 3 };

struct item {
	struct queue_entry entry; /* first */
	int number;               /* of arrival */
	bool waits;
};

static struct item items[ENTRIES];
static uint32_t random_state = 12345;

static uint32_t random_below(uint32_t n)
{
	random_state = random_state * 1664525 + 1013904223;
	return (random_state >> 8) % n;
}

static bool waits_for(int uid, int pid, int *first)
{
	for (int i = 0; i < ENTRIES; i++) {
		if (items[i].waits && (int)items[i].entry.uid == uid && (pid < 0 || (int)items[i].entry.pid == pid)) {
			*first = i;
			return true;
		}
	}
	return false;
}

/* When each line last had a turn or, if later, began to wait; the least is next. */
static int clock_now, uid_since[UIDS], pid_since[UIDS][PIDS];

static int next_by_rule(void)
{
	int uid = -1, pid = -1, first = -1, unused;

	for (int u = 0; u < UIDS; u++)
		if (waits_for(u, -1, &unused) && (uid < 0 || uid_since[u] < uid_since[uid]))
			uid = u;
	for (int p = 0; uid >= 0 && p < PIDS; p++)
		if (waits_for(uid, p, &unused) && (pid < 0 || pid_since[uid][p] < pid_since[uid][pid]))
			pid = p;
	if (uid >= 0)
		waits_for(uid, pid, &first);
	return first;
}

static bool add(struct queue *q, int i)
{
	int uid = (int)random_below(UIDS), pid = (int)random_below(PIDS), unused;

	items[i].entry = (struct queue_entry){ .uid = (uid_t)uid, .pid = pid };
	clock_now++;
	if (!waits_for(uid, -1, &unused))
		uid_since[uid] = clock_now;
	if (!waits_for(uid, pid, &unused))
		pid_since[uid][pid] = clock_now;
	items[i].waits = true;
	return queue_add(q, &items[i].entry) == STATUS_OK;
}

static bool take(struct queue *q)
{
	int expected = next_by_rule();
	struct item *taken = (struct item *)queue_take(q);

	if (!taken || expected < 0)
		return !taken && expected < 0;
	clock_now++;
	taken->waits = false;
	uid_since[taken->entry.uid] = clock_now;
	pid_since[taken->entry.uid][taken->entry.pid] = clock_now;
	return taken == &items[expected];
}

static bool drop(struct queue *q, int i)
{
	bool waited = items[i].waits;

	items[i].waits = false;
	return queue_remove(q, &items[i].entry) == waited;
}

static void test_turns(void)
{
	struct queue q = { 0 };
	int n = 0, taken_wrong = 0, dropped_wrong = 0;

	while (n < ENTRIES) {
		uint32_t what = random_below(10);

		if (what < 5)
			taken_wrong += !add(&q, n++);
		else if (what < 9)
			taken_wrong += !take(&q);
		else if (n)
			dropped_wrong += !drop(&q, (int)random_below((uint32_t)n));
	}
	while (q.count)
		taken_wrong += !take(&q);
	CHECK("4000 entries come in the order of turns", taken_wrong == 0);
	CHECK("entries are removed where they wait", dropped_wrong == 0);
	CHECK("an empty queue holds nothing", !q.head && !q.tail && !queue_take(&q));
}

static void test_poison(void)
{
	struct poison p = { 0 };
	char name[16];

	poison_add(&p, "id1", "a.png", "the worker died");
	poison_add(&p, "id1", "b.png", "the worker died");
	poison_add(&p, "id1", "b.png", "the worker died");
	poison_add(&p, "id2", "c.png", "another reason");
	CHECK("notes are kept once", p.count == 3);
	CHECK("a recipe is found", strcmp(poison_find(&p, "id1"), "the worker died") == 0 && !poison_find(&p, "id3"));
	poison_forgive(&p, "x.png");
	CHECK("an unknown name forgives nothing", p.count == 3);
	poison_forgive(&p, "b.png");
	CHECK("a name forgives its recipe for all names", !poison_find(&p, "id1") && poison_find(&p, "id2"));
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof name, "%d", i);
		poison_add(&p, "id3", name, "again");
	}
	CHECK("there is a limit, and the oldest goes", p.count == 4096 && !poison_find(&p, "id2"));
	poison_forgive(&p, NULL);
	CHECK("all is forgiven", p.count == 0 && !p.first);
}

int main(void)
{
	test_turns();
	test_poison();
	return check_result();
}
