/* token_table: the first step of a text encoder: the rows of its token table that a prompt needs.
 *
 * The table stays in the mapped file; a prompt touches some rows of it only.
 */
#ifndef PROMPTFS_ENGINE_TOKEN_TABLE_H
#define PROMPTFS_ENGINE_TOKEN_TABLE_H

#include "engine/weights.h"

struct token_table {
	struct weights *weights; /* borrowed, open as long as this is used */
	struct tensor table;     /* [vocabulary, width] in the file */
};

enum status token_table_find(
	struct weights *w, const char *name, int64_t vocabulary, int64_t width, struct token_table *out);

/* stream [n, width] F32.  Ids outside the table and rows that are not finite are STATUS_CORRUPT. */
enum status token_table_rows(
	struct kernels *k, const struct token_table *t, const int64_t *ids, int64_t n, struct tensor stream);

#endif
