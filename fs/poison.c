/* poison: a short list of notes, one for each recipe and name. */
#include "fs/poison.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { NOTES_MAX = 4096 };

struct poison_note {
	struct poison_note *next;
	char *id, *name, *reason;
};

static void free_note(struct poison_note *n)
{
	free(n->id);
	free(n->name);
	free(n->reason);
	free(n);
}

static struct poison_note *new_note(const char *id, const char *name, const char *reason)
{
	struct poison_note *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	n->id = strdup(id);
	n->name = strdup(name);
	n->reason = strdup(reason);
	if (n->id && n->name && n->reason)
		return n;
	free_note(n);
	return NULL;
}

static bool is_noted(const struct poison *p, const char *id, const char *name)
{
	for (const struct poison_note *n = p->first; n; n = n->next)
		if (strcmp(n->id, id) == 0 && strcmp(n->name, name) == 0)
			return true;
	return false;
}

static void drop_last(struct poison *p)
{
	struct poison_note **link = &p->first;

	while ((*link)->next)
		link = &(*link)->next;
	free_note(*link);
	*link = NULL;
	p->count--;
}

void poison_add(struct poison *p, const char *id, const char *name, const char *reason)
{
	struct poison_note *n = is_noted(p, id, name) ? NULL : new_note(id, name, reason);

	if (!n)
		return;
	n->next = p->first;
	p->first = n;
	if (++p->count > NOTES_MAX)
		drop_last(p);
}

const char *poison_find(const struct poison *p, const char *id)
{
	for (const struct poison_note *n = p->first; n; n = n->next)
		if (strcmp(n->id, id) == 0)
			return n->reason;
	return NULL;
}

/* id NULL: all. */
static void remove_id(struct poison *p, const char *id)
{
	struct poison_note **link = &p->first, *n;

	while ((n = *link)) {
		if (id && strcmp(n->id, id) != 0) {
			link = &n->next;
			continue;
		}
		*link = n->next;
		free_note(n);
		p->count--;
	}
}

static char *id_of_name(const struct poison *p, const char *name)
{
	for (const struct poison_note *n = p->first; n; n = n->next)
		if (strcmp(n->name, name) == 0)
			return strdup(n->id);
	return NULL;
}

void poison_forgive(struct poison *p, const char *name)
{
	char *id;

	if (!name) {
		remove_id(p, NULL);
		return;
	}
	while ((id = id_of_name(p, name))) {
		remove_id(p, id);
		free(id);
	}
}
