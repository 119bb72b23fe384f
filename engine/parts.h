/* parts: the components of an opened model in memory, each loaded when it is first needed.
 *
 *     static const struct part_kind kinds[] = {
 *             { "text_encoder", "text encoder", 0, open_text, close_text },
 *             { "transformer", "transformer", 1, open_transformer, close_transformer },
 *             { "vae", "autoencoder", 1, open_vae, close_vae },
 *     };
 *     TRY(parts_open(m, k, budget, kinds, 3, &parts));
 *     TRY(parts_need(parts, 1, run, &transformer));
 *
 * Parts of the same turn are in memory together.  Where all of a model exceeds the budget, the turns alternate: needing
 * a part of one closes those of the others.
 */
#ifndef PROMPTFS_ENGINE_PARTS_H
#define PROMPTFS_ENGINE_PARTS_H

#include "engine/component.h"
#include "engine/family.h"
#include "engine/memo.h"

enum { PARTS_MAX = 8 };

struct part_kind {
	const char *component; /* the folder's name */
	const char *label;     /* for messages: "text encoder" */
	int turn;
	enum status (*open)(struct kernels *k, const struct component *c, void **out);
	void (*close)(void *part); /* NULL is allowed */
};

/* Functions of these types for a module with NAME_open and NAME_close. */
#define PART_FUNCTIONS(name)                                                                                           \
	static enum status part_open_##name(struct kernels *k, const struct component *c, void **out)                  \
	{                                                                                                              \
		struct name *opened;                                                                                   \
                                                                                                                       \
		TRY(name##_open(k, c, &opened));                                                                       \
		*out = opened;                                                                                         \
		return STATUS_OK;                                                                                      \
	}                                                                                                              \
	static void part_close_##name(void *part)                                                                      \
	{                                                                                                              \
		name##_close(part);                                                                                    \
	}

struct parts;

/* Plans, loads nothing.  STATUS_NO_MEMORY with the figures when the largest turn exceeds budget->limit.  `kinds` must
 * outlive the result. */
enum status parts_open(const struct model *m, struct kernels *k, const struct memory_budget *budget,
	const struct part_kind *kinds, int n, struct parts **out);
void parts_close(struct parts *p); /* NULL is allowed */

/* Parts of a model that lie elsewhere: a LoRA's keys may name them too.  Nothing of them is loaded here. */
enum status parts_beside(struct parts *p, const struct model *m, const struct part_kind *kinds, int n);

/* What its text encoders made of prompts; borrowed. */
struct memo *parts_memo(struct parts *p);

/* For each_part of a family: the parts of these kinds. */
enum status parts_each(const struct model *m, const struct part_kind *kinds, int n, part_visit *visit, void *context);

/* The loaded part i, borrowed until a part of another turn is needed.  The time it takes is added to
 * run->load_seconds. */
enum status parts_need(struct parts *p, int i, struct run *run, void **out);

#endif
