/* stored: values computed, names mapped. */
#include "engine/stored.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fp8.h"
#include "engine/gguf_blocks.h"

/* ---- values ------------------------------------------------------------------------------------------------------ */

static bool is_fp8(const struct stored_tensor *t)
{
	return t->dtype == DTYPE_F8_E4M3 || t->dtype == DTYPE_F8_E5M2;
}

bool stored_needs_work(const struct stored_tensor *t)
{
	return t->coding || is_fp8(t) || t->scale || t->how == NAMES_SWAP || t->how == NAMES_TRANSPOSE;
}

bool stored_can_be_floats(const struct stored_tensor *t)
{
	return t->coding || is_fp8(t) || t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16 || t->dtype == DTYPE_F16;
}

static float value_at(const struct stored_tensor *t, int64_t i)
{
	uint16_t half;
	float x;

	switch (t->dtype) {
	case DTYPE_F8_E4M3:
		return e4m3_to_f32(t->data[i]);
	case DTYPE_F8_E5M2:
		return e5m2_to_f32(t->data[i]);
	case DTYPE_F32:
		memcpy(&x, t->data + 4 * i, sizeof x);
		return x;
	default:
		memcpy(&half, t->data + 2 * i, sizeof half);
		return t->dtype == DTYPE_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
	}
}

/* Where value i of the file belongs. */
static int64_t place(const struct stored_tensor *t, int64_t i)
{
	/* dim is already that of the result: its rows are the file's columns */
	if (t->how == NAMES_TRANSPOSE && t->rank == 2)
		return i % t->dim[0] * t->dim[1] + i / t->dim[0];
	if (t->how == NAMES_SWAP)
		return (i + t->count / 2) % t->count;
	return i;
}

static void apply_scale(const struct stored_tensor *t, float *values)
{
	for (int64_t i = 0; i < t->count; i++) {
		float scale;

		memcpy(&scale, t->scale + 4 * (t->n_scales == 1 ? 0 : i / (t->count / t->n_scales)), sizeof scale);
		values[i] *= scale;
	}
}

static void decode_blocks(const struct stored_tensor *t, float *out)
{
	const struct gguf_block *block = gguf_block((uint32_t)t->coding);
	float values[GGUF_BLOCK_MAX];

	for (int64_t i = 0; i < t->count; i += block->values) {
		gguf_decode(
			(enum gguf_type)t->coding, t->data + i / block->values * block->bytes, block->values, values);
		for (int j = 0; j < block->values; j++)
			out[place(t, i + j)] = values[j];
	}
}

void stored_to_floats(const struct stored_tensor *t, float *out)
{
	if (t->coding)
		decode_blocks(t, out);
	for (int64_t i = 0; i < t->count && !t->coding; i++)
		out[place(t, i)] = value_at(t, i);
	if (t->scale)
		apply_scale(t, out);
}

/* ---- factors ----------------------------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct stored_tensor *)a)->name, ((const struct stored_tensor *)b)->name);
}

static struct stored_tensor *find(struct stored_tensor *list, int64_t count, const char *name)
{
	struct stored_tensor key = { .name = (char *)name };

	return bsearch(&key, list, (size_t)count, sizeof key, compare_names);
}

/* The 8-bit matrix that a tensor with this ending belongs to; NULL if there is none. */
static struct stored_tensor *matrix_of(
	struct stored_tensor *list, int64_t count, const struct stored_tensor *t, const char *ending)
{
	size_t len = strlen(t->name), ending_len = strlen(ending);
	char name[NAMES_LEN];
	struct stored_tensor *matrix;

	if (len <= ending_len || strcmp(t->name + len - ending_len, ending) != 0)
		return NULL;
	snprintf(name, sizeof name, "%.*s.weight", (int)(len - ending_len), t->name);
	matrix = find(list, count, name);
	return matrix && is_fp8(matrix) ? matrix : NULL;
}

static bool take_scale(struct stored_tensor *list, int64_t count, const struct stored_tensor *t)
{
	static const char *const factors[] = { ".scale_weight", ".weight_scale" };
	static const char *const others[] = { ".scale_input", ".input_scale", ".comfy_quant" };

	for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
		struct stored_tensor *matrix = matrix_of(list, count, t, factors[i]);
		bool fits = matrix && t->dtype == DTYPE_F32 && (t->count == 1 || t->count == matrix->dim[0]);

		if (fits) {
			matrix->scale = t->data;
			matrix->n_scales = t->count;
			return true;
		}
	}
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		if (matrix_of(list, count, t, others[i]))
			return true;
	return strcmp(t->name, "scaled_fp8") == 0 || strcmp(t->name, "model.diffusion_model.scaled_fp8") == 0;
}

void stored_take_scales(struct stored_tensor *list, int64_t *count)
{
	bool *taken = calloc((size_t)*count + 1, sizeof *taken);
	int64_t kept = 0;

	for (int64_t i = 0; taken && i < *count; i++)
		taken[i] = take_scale(list, *count, &list[i]);
	for (int64_t i = 0; taken && i < *count; i++) {
		if (taken[i])
			free(list[i].name);
		else
			list[kept++] = list[i];
	}
	if (taken)
		*count = kept;
	free(taken);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

struct renaming {
	const struct names_source *source;
	struct names_sizes sizes;
	struct stored_tensor *from;
	int64_t n_from;
	struct stored_tensor *to;
	int64_t n_to, capacity;
};

static bool has(const void *file, const char *name)
{
	const struct renaming *r = file;

	return find(r->from, r->n_from, name) != NULL;
}

/* One more than the largest number that follows `list` in a name. */
static int count_blocks(const struct renaming *r, const char *list)
{
	char prefix[NAMES_LEN];
	size_t len = (size_t)snprintf(prefix, sizeof prefix, "%s%s", r->source->prefix, list);
	int most = -1;

	for (int64_t i = 0; i < r->n_from; i++)
		if (strncmp(r->from[i].name, prefix, len) == 0 && atoi(r->from[i].name + len) > most)
			most = atoi(r->from[i].name + len);
	return most + 1;
}

/* The UNet's first block ends where the picture is first halved. */
static int unet_stride(const struct renaming *r)
{
	char name[NAMES_LEN];

	for (int i = 1; i < 20; i++) {
		snprintf(name, sizeof name, "%sinput_blocks.%d.0.op.weight", r->source->prefix, i);
		if (has(r, name))
			return i;
	}
	return names_usual.unet_stride;
}

static enum status take_rows(const struct mapped_name *m, struct stored_tensor *t)
{
	const struct gguf_block *block = gguf_block((uint32_t)t->coding);
	int64_t share, rows = t->rank ? t->dim[0] : 1;
	size_t share_len;

	if (!m->of)
		return STATUS_OK;
	share = rows / m->of;
	if (rows % m->of || !share || t->rank > TENSOR_RANK_MAX || (t->rank == 1 && share % block->values))
		return status_fail(STATUS_CORRUPT, "tensor %s: its %lld rows cannot be shared by %d", t->name,
			(long long)rows, m->of);
	share_len = t->len / (size_t)m->of;
	t->data += (size_t)m->from * share_len;
	t->len = (size_t)m->count * share_len;
	t->dim[0] = m->count * share;
	t->count = t->count / m->of * m->count;
	if (t->n_scales > 1) {
		t->scale += 4 * m->from * share;
		t->n_scales = m->count * share;
	}
	return STATUS_OK;
}

static enum status take_shape(const struct mapped_name *m, struct stored_tensor *t)
{
	int64_t rows = t->dim[0];

	t->how = m->how;
	if (m->how == NAMES_SQUEEZE && t->rank == 4 && t->dim[2] == 1 && t->dim[3] == 1)
		t->rank = 2;
	if (m->how == NAMES_SWAP && (!t->rank || t->dim[0] % 2 || t->n_scales > 1))
		return status_fail(STATUS_CORRUPT, "tensor %s: it has no two halves", t->name);
	if (m->how == NAMES_TRANSPOSE && t->rank == 2) {
		t->dim[0] = t->dim[1];
		t->dim[1] = rows;
	}
	return STATUS_OK;
}

static enum status add(struct renaming *r, const struct stored_tensor *from, const struct mapped_name *m)
{
	struct stored_tensor *t;

	if (r->n_to == r->capacity) {
		struct stored_tensor *grown =
			realloc(r->to, (size_t)(r->capacity = 2 * r->capacity + 64) * sizeof *grown);

		if (!grown)
			return status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
		r->to = grown;
	}
	t = &r->to[r->n_to];
	*t = *from;
	TRY(take_rows(m, t));
	TRY(take_shape(m, t));
	t->name = strdup(m->name);
	if (!t->name)
		return status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
	r->n_to++;
	return STATUS_OK;
}

static enum status rename_all(struct renaming *r)
{
	size_t prefix_len = strlen(r->source->prefix);

	for (int64_t i = 0; i < r->n_from; i++) {
		struct mapped_name to[NAMES_MAX];
		int n;

		if (strncmp(r->from[i].name, r->source->prefix, prefix_len) != 0)
			continue;
		n = names_map(r->source->layout, &r->sizes, r->from[i].name + prefix_len, to);
		for (int j = 0; j < n; j++)
			TRY(add(r, &r->from[i], &to[j]));
	}
	return STATUS_OK;
}

enum status stored_rename(const char *part, struct stored_tensor **list, int64_t *count)
{
	struct renaming r = { .from = *list, .n_from = *count };
	enum status status;
	int blocks;

	r.source = names_find_source(part, has, &r);
	if (!r.source)
		return STATUS_OK;
	blocks = count_blocks(&r, "decoder.up.");
	r.sizes = (struct names_sizes){ unet_stride(&r), blocks ? blocks : names_usual.vae_blocks,
		count_blocks(&r, "joint_blocks.") };
	status = rename_all(&r);
	if (status != STATUS_OK) {
		stored_tensors_free(r.to, r.n_to);
		return status;
	}
	stored_tensors_free(*list, *count);
	*list = r.to;
	*count = r.n_to;
	return STATUS_OK;
}
