/* opened: see opened.h. */
#include "fs/opened.h"

#include <stddef.h>

void opened_init(struct opened_list *list)
{
	pthread_mutex_init(&list->mu, NULL);
	list->first = NULL;
}

void opened_fini(struct opened_list *list)
{
	while (list->first) {
		struct opened *o = list->first;

		opened_remove(o);
		o->free(o);
	}
	pthread_mutex_destroy(&list->mu);
}

void opened_add(struct opened_list *list, struct opened *o, void (*free_it)(struct opened *))
{
	o->list = list;
	o->free = free_it;
	pthread_mutex_lock(&list->mu);
	o->next = list->first;
	o->link = &list->first;
	if (o->next)
		o->next->link = &o->next;
	list->first = o;
	pthread_mutex_unlock(&list->mu);
}

void opened_remove(struct opened *o)
{
	struct opened_list *list = o->list;

	if (!list)
		return;
	pthread_mutex_lock(&list->mu);
	*o->link = o->next;
	if (o->next)
		o->next->link = o->link;
	pthread_mutex_unlock(&list->mu);
	o->list = NULL;
}
