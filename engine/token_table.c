/* token_table: rows of a mapped table. */
#include "engine/token_table.h"

enum status token_table_find(
	struct weights *w, const char *name, int64_t vocabulary, int64_t width, struct token_table *out)
{
	out->weights = w;
	return weights_find(w, name, 2, (int64_t[]){ vocabulary, width }, &out->table);
}

enum status token_table_rows(
	struct kernels *k, const struct token_table *t, const int64_t *ids, int64_t n, struct tensor stream)
{
	int64_t vocabulary = t->table.dim[0], width = t->table.dim[1];
	size_t row_len = (size_t)width * dtype_size(t->table.dtype);
	bool finite;

	for (int64_t i = 0; i < n; i++) {
		struct tensor row;

		if (ids[i] < 0 || ids[i] >= vocabulary)
			return status_fail(STATUS_CORRUPT,
				"token %lld is outside the text encoder's vocabulary of %lld: tokenizer "
				"and text encoder do not belong together",
				(long long)ids[i], (long long)vocabulary);
		row = tensor_view(
			(char *)t->table.data + (size_t)ids[i] * row_len, t->table.dtype, 2, (int64_t[]){ 1, width });
		TRY(kernels_upload(k, &row, tensor_slice(stream, 0, i, 1)));
	}
	TRY(kernels_all_finite(k, stream, &finite));
	if (!finite)
		return status_fail(STATUS_CORRUPT, "%s: the token table holds NaN or infinity",
			weights_path(t->weights, weights_name(t->weights, 0)));
	return STATUS_OK;
}
