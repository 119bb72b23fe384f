/* load: filling a struct of weights from a component's tensors by a table, so that a layer's names and shapes are data.
 *
 *     enum { D_DIM, D_FFN };                                     // indices into dims
 *     static const struct load_entry block[] = {
 *             { offsetof(struct block, norm), LOAD_VECTOR, 0, { { "norm.weight", D_DIM } } },
 *             { offsetof(struct block, gate_up), LOAD_LINEAR, D_DIM, { { "w1.weight", D_FFN }, { "w3.weight", D_FFN } }
 * },
 *     };
 *     TRY(load_table(&loader, "layers.3.", block, LOAD_COUNT(block), &layers[3]));
 *
 * Each field is a `struct weight *`.  Source pages are released as soon as a weight is packed.  In a survey (survey.h)
 * the tables say what they want, and nothing is packed.
 */
#ifndef PROMPTFS_ENGINE_LOAD_H
#define PROMPTFS_ENGINE_LOAD_H

#include <stddef.h>

#include "engine/weights.h"

enum load_kind {
	LOAD_VECTOR, /* [rows] */
	LOAD_ROW,    /* [1, rows], kept as [rows] */
	LOAD_TABLE,  /* [rows, columns], kept so */
	LOAD_TABLES, /* [1, rows, columns], kept as [rows, columns] */
	LOAD_LINEAR, /* up to 3 matrices [rows_i, columns], joined along rows */
	/* The same, in 8 bits where the handle keeps weights so (kernels_pack_block): the large matrices inside the
	 * blocks of what runs at every step.  Embedders, modulation and final layers stay exact: they take little
	 * memory and decide for all rows.  Text encoders stay exact too: they run once a prompt, and outliers of their
	 * activations need the bits. */
	LOAD_BLOCK,
	/* The same; a file may have either shape. */
	LOAD_LINEAR_1X1,  /* [rows_i, columns], or [rows_i, columns, 1, 1] */
	LOAD_CONV_LINEAR, /* [rows_i, columns, 1, 1], or [rows_i, columns] */
	LOAD_CONV_1,      /* [rows, columns, 1, 1] */
	LOAD_CONV_3,      /* [rows, columns, 3, 3] */
	/* Patches of 2 x 2 that the file orders (channel, dy, dx), packed in the order of kernels_patchify. */
	LOAD_PATCH_COLUMNS, /* [rows, columns], or [rows, columns / 4, 2, 2]: what reads patches */
	LOAD_PATCH_CONV,    /* [rows, columns / 4, 2, 2], or [rows, columns] */
	LOAD_PATCH_ROWS,    /* [rows, columns]: what gives them */
	LOAD_PATCH_VECTOR,  /* [rows]: its bias */
};

enum { LOAD_PARTS = 3 };

struct load_entry {
	size_t offset; /* of the struct weight * in the struct */
	enum load_kind kind;
	int columns; /* index into dims; not used by vectors */
	struct {
		const char *name; /* after the prefix; NULL ends the list */
		int rows;         /* index into dims */
	} part[LOAD_PARTS];
};

/* An entry of one tensor. */
/* clang-format off */
#define LOAD_ONE(type, member, kind, name, rows, columns) { offsetof(struct type, member), kind, columns, { { name, rows } } }
/* clang-format on */

#define LOAD_COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

struct loader {
	struct kernels *k;
	const struct weights *weights;
	const int64_t *dims;
};

/* On failure what was loaded so far stays in `base`, for load_free. */
enum status load_table(const struct loader *l, const char *prefix, const struct load_entry *table, int n, void *base);
void load_free(struct kernels *k, const struct load_entry *table, int n, void *base);

/* All of a component: the same table for each of `count` structs, under the prefix "LIST.0.", "LIST.1.", ...; with the
 * list "" one struct (or, with the count 0, none) under no prefix. */
struct load_group {
	const char *list;
	int64_t count;
	const struct load_entry *table;
	int n;
	void *base;  /* the first struct */
	size_t size; /* from one struct to the next */
};

enum status load_groups(const struct loader *l, const struct load_group *groups, int n);
void load_groups_free(struct kernels *k, const struct load_group *groups, int n);

#endif
