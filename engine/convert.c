/* convert: first a plan of what lies where, then the header, then tensor by tensor. */
#include "engine/convert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/bytes.h"
#include "engine/fp8.h"
#include "engine/gguf_blocks.h"
#include "engine/json.h"
#include "engine/names.h"
#include "engine/new_file.h"
#include "engine/safetensors.h"

enum { ALIGNMENT = 32, SMALL = 1024 /* a matrix of fewer values is not worth blocks */, CHUNK = 1 << 15 };

static const struct {
	const char *name;
	enum gguf_type matrix; /* GGUF files */
	bool gguf;
} types[CONVERT_COUNT] = {
	[CONVERT_F32] = { "f32", GGUF_F32, false },
	[CONVERT_BF16] = { "bf16", GGUF_BF16, false },
	[CONVERT_FP8] = { "fp8", GGUF_BF16, false },
	[CONVERT_Q8_0] = { "q8_0", GGUF_Q8_0, true },
	[CONVERT_Q4_0] = { "q4_0", GGUF_Q4_0, true },
	[CONVERT_Q4_K] = { "q4_k", GGUF_Q4_K, true },
};

enum convert_type convert_type_find(const char *name)
{
	int i = 0;

	while (i < CONVERT_COUNT && strcasecmp(types[i].name, name) != 0)
		i++;
	return (enum convert_type)i;
}

bool convert_is_gguf(enum convert_type type)
{
	return types[type].gguf;
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

enum source { SOURCE_FLOATS, SOURCE_RAW, SOURCE_SCALE, SOURCE_MARK };

struct item {
	char *name;
	const char *tensor; /* of the source */
	enum source source;
	enum gguf_type coding; /* how floats are written, unless as 8-bit floats */
	bool fp8;
	const char *dtype; /* as safetensors calls it */
	int rank;
	int64_t dim[TENSOR_RANK_MAX];
	uint64_t offset, len;
};

struct plan {
	const struct weights *w;
	enum convert_type type;
	struct item *item;
	int64_t n;
	uint64_t end;
	float *scale; /* of item i, once its matrix is written */
};

static bool is_matrix(const char *name, const struct tensor *t)
{
	size_t len = strlen(name);

	return t->rank == 2 && t->dim[0] > 1 && tensor_count(t) >= SMALL && len > 7 &&
	       strcmp(name + len - 7, ".weight") == 0;
}

static void choose_coding(const struct plan *p, const struct tensor *t, struct item *i)
{
	const struct gguf_block *block = gguf_block((uint32_t)types[p->type].matrix);
	bool matrix = is_matrix(i->tensor, t);

	i->fp8 = p->type == CONVERT_FP8 && matrix;
	if (!convert_is_gguf(p->type))
		i->coding = types[p->type].matrix;
	else if (matrix && t->dim[1] % block->values == 0)
		i->coding = types[p->type].matrix;
	else
		i->coding = matrix || t->rank > 2 ? GGUF_BF16 : GGUF_F32;
	i->dtype = i->fp8 ? "F8_E4M3" : gguf_block((uint32_t)i->coding)->name;
	block = gguf_block((uint32_t)i->coding);
	i->len = (uint64_t)tensor_count(t) * (i->fp8 ? 1 : (uint64_t)block->bytes) /
		 (uint64_t)(i->fp8 ? 1 : block->values);
}

static enum status add(struct plan *p, const struct item *item, const char *name)
{
	struct item *i = &p->item[p->n];

	*i = *item;
	i->name = strdup(name);
	if (!i->name)
		return status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
	if (convert_is_gguf(p->type))
		p->end = (p->end + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	i->offset = p->end;
	p->end += i->len;
	p->n++;
	return STATUS_OK;
}

/* The factor of the matrix that was added last. */
static enum status add_scale(struct plan *p, const char *name)
{
	struct item item = { .tensor = name, .source = SOURCE_SCALE, .dtype = "F32", .rank = 0, .len = 4 };
	char scale[320];

	snprintf(scale, sizeof scale, "%.*s.scale_weight", (int)(strlen(name) - strlen(".weight")), name);
	return add(p, &item, scale);
}

/* Numbers that are no floats (position_ids) stay as they are. */
static enum status add_raw(struct plan *p, const char *name)
{
	struct item item = { .tensor = name, .source = SOURCE_RAW };
	struct tensor t;

	TRY(weights_view(p->w, name, &t));
	if (t.dtype != DTYPE_I64 && t.dtype != DTYPE_U8)
		return status_fail(STATUS_UNSUPPORTED, "%s: tensor %s has a dtype that cannot be converted",
			weights_path(p->w, name), name);
	if (convert_is_gguf(p->type) && t.dtype == DTYPE_U8)
		return status_fail(STATUS_UNSUPPORTED, "%s: tensor %s holds U8, which GGUF does not know",
			weights_path(p->w, name), name);
	item.coding = GGUF_I64;
	item.dtype = t.dtype == DTYPE_I64 ? "I64" : "U8";
	item.rank = t.rank;
	memcpy(item.dim, t.dim, sizeof item.dim);
	item.len = (uint64_t)tensor_count(&t) * dtype_size(t.dtype);
	return add(p, &item, name);
}

static enum status add_tensor(struct plan *p, const char *name)
{
	struct item item = { .tensor = name, .source = SOURCE_FLOATS };
	struct tensor t;

	if (!weights_has_floats(p->w, name))
		return add_raw(p, name);
	TRY(weights_shape(p->w, name, &item.rank, item.dim));
	t = tensor_view(NULL, DTYPE_F32, item.rank ? item.rank : 1, item.rank ? item.dim : (int64_t[]){ 1 });
	choose_coding(p, &t, &item);
	TRY(add(p, &item, name));
	return item.fp8 ? add_scale(p, name) : STATUS_OK;
}

static enum status make_plan(struct plan *p)
{
	struct item mark = { .source = SOURCE_MARK, .dtype = "F8_E4M3", .rank = 1, .dim = { 0 }, .len = 0 };

	p->item = calloc((size_t)weights_count(p->w) * 2 + 1, sizeof *p->item);
	p->scale = calloc((size_t)weights_count(p->w) * 2 + 1, sizeof *p->scale);
	if (!p->item || !p->scale)
		return status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
	for (int64_t i = 0; i < weights_count(p->w); i++)
		TRY(add_tensor(p, weights_name(p->w, i)));
	return p->type == CONVERT_FP8 ? add(p, &mark, "scaled_fp8") : STATUS_OK;
}

static void free_plan(struct plan *p)
{
	for (int64_t i = 0; i < p->n; i++)
		free(p->item[i].name);
	free(p->item);
	free(p->scale);
}

/* ---- headers ----------------------------------------------------------------------------------------------------- */

static enum status safetensors_header(const struct plan *p, struct bytes *out)
{
	json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
	enum status status = header ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for a header");

	for (int64_t n = 0; n < p->n && status == STATUS_OK; n++) {
		const struct item *i = &p->item[n];

		status = safetensors_describe(header, i->name, i->dtype, i->rank, i->dim, i->offset, i->len);
	}
	if (status == STATUS_OK)
		status = safetensors_print(header, out);
	json_decref(header);
	return status;
}

static enum status put_number(struct bytes *out, uint64_t x, size_t len)
{
	return bytes_add(out, &x, len); /* little-endian, as the machine */
}

static enum status put_text(struct bytes *out, const char *text)
{
	TRY(put_number(out, strlen(text), 8));
	return bytes_add(out, text, strlen(text));
}

static bool has(const void *file, const char *name)
{
	return weights_has(file, name);
}

/* What other programs call the family, where the names tell it. */
static const char *architecture(const struct weights *w)
{
	static const char *const names[NAMES_COUNT] = {
		[NAMES_ZIMAGE] = "lumina2",
		[NAMES_FLUX] = "flux",
		[NAMES_SD3] = "sd3",
		[NAMES_QWEN_GGUF] = "qwen3",
		[NAMES_T5_GGUF] = "t5encoder",
	};
	static const char *const parts[] = { "transformer", "unet", "text_encoder" };

	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		const struct names_source *source = names_find_source(parts[i], has, w);

		if (source && source->layout == NAMES_UNET)
			return weights_has(w, "label_emb.0.0.weight") ||
					       weights_has(w, "model.diffusion_model.label_emb.0.0.weight")
				       ? "sdxl"
				       : "sd1";
		if (source && names[source->layout])
			return names[source->layout];
	}
	return NULL;
}

static enum status put_info(struct bytes *out, const struct item *i)
{
	int rank = i->rank ? i->rank : 1;

	TRY(put_text(out, i->name));
	TRY(put_number(out, (uint64_t)rank, 4));
	for (int d = rank - 1; d >= 0; d--)
		TRY(put_number(out, i->rank ? (uint64_t)i->dim[d] : 1, 8));
	TRY(put_number(out, i->coding, 4));
	return put_number(out, i->offset, 8);
}

static enum status gguf_header(const struct plan *p, struct bytes *out)
{
	enum { VERSION = 3, STRING = 8, U32 = 4 };
	const char *family = architecture(p->w);

	TRY(bytes_add(out, "GGUF", 4));
	TRY(put_number(out, VERSION, 4));
	TRY(put_number(out, (uint64_t)p->n, 8));
	TRY(put_number(out, family ? 2 : 1, 8));
	if (family) {
		TRY(put_text(out, "general.architecture"));
		TRY(put_number(out, STRING, 4));
		TRY(put_text(out, family));
	}
	TRY(put_text(out, "general.quantization_version"));
	TRY(put_number(out, U32, 4));
	TRY(put_number(out, 2, 4));
	for (int64_t i = 0; i < p->n; i++)
		TRY(put_info(out, &p->item[i]));
	while (out->len % ALIGNMENT)
		TRY(bytes_add(out, "", 1));
	return STATUS_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static float value_at(const struct tensor *t, int64_t i)
{
	if (t->dtype == DTYPE_F32)
		return ((const float *)t->data)[i];
	return t->dtype == DTYPE_BF16 ? bf16_to_f32(((const uint16_t *)t->data)[i])
				      : f16_to_f32(((const uint16_t *)t->data)[i]);
}

static float largest(const struct tensor *t)
{
	float most = 0;

	for (int64_t i = 0; i < tensor_count(t); i++)
		most = fmaxf(most, fabsf(value_at(t, i)));
	return most;
}

static void encode(const struct item *item, const float *values, int64_t n, float scale, unsigned char *out)
{
	if (!item->fp8) {
		gguf_encode(item->coding, values, n, out);
		return;
	}
	for (int64_t i = 0; i < n; i++)
		out[i] = e4m3_from_f32(values[i] / scale);
}

static bool write_floats(const struct item *item, const struct tensor *t, float scale, FILE *file)
{
	static const int64_t step = CHUNK;
	float *values = malloc(CHUNK * sizeof *values);
	unsigned char *out = malloc(CHUNK * sizeof *values);
	bool good = values && out;

	for (int64_t at = 0, n; at < tensor_count(t) && good; at += n) {
		uint64_t len;

		n = tensor_count(t) - at < step ? tensor_count(t) - at : step;
		for (int64_t i = 0; i < n; i++)
			values[i] = value_at(t, at + i);
		encode(item, values, n, scale, out);
		len = item->len * (uint64_t)n / (uint64_t)tensor_count(t);
		good = fwrite(out, 1, len, file) == len;
	}
	free(values);
	free(out);
	return good;
}

static enum status write_tensor(const struct plan *p, int64_t index, FILE *file)
{
	const struct item *item = &p->item[index];
	struct tensor t;
	float scale = 1;
	bool good;

	if (item->source == SOURCE_MARK)
		return STATUS_OK;
	if (item->source == SOURCE_SCALE) /* stands behind its matrix */
		return fwrite(&p->scale[index - 1], 4, 1, file) == 1 ? STATUS_OK : new_file_fail();
	if (item->source == SOURCE_RAW) {
		TRY(weights_view(p->w, item->tensor, &t));
		return fwrite(t.data, 1, item->len, file) == item->len ? STATUS_OK : new_file_fail();
	}
	TRY(weights_find(p->w, item->tensor, 0, NULL, &t));
	if (item->fp8) {
		scale = largest(&t) / 448;
		scale = scale > 0 ? scale : 1;
		p->scale[index] = scale;
	}
	good = write_floats(item, &t, scale, file);
	weights_release(p->w, &t);
	return good ? STATUS_OK : new_file_fail();
}

static enum status write_all(
	const struct plan *p, const struct bytes *header, FILE *file, void (*step)(void *, double), void *context)
{
	static const char zeros[ALIGNMENT];
	uint64_t at = 0;

	if (fwrite(header->data, 1, header->len, file) != header->len)
		return new_file_fail();
	for (int64_t i = 0; i < p->n; i++) {
		uint64_t gap = p->item[i].offset - at;

		if (gap && fwrite(zeros, 1, gap, file) != gap)
			return new_file_fail();
		TRY(write_tensor(p, i, file));
		at = p->item[i].offset + p->item[i].len;
		if (step)
			step(context, (double)at / (double)(p->end ? p->end : 1));
	}
	return STATUS_OK;
}

/* ---- the file -----------------------------------------------------------------------------------------------------
 */

enum status convert_write(const struct weights *w, enum convert_type type, const char *path,
	void (*step)(void *context, double done), void *context)
{
	struct plan p = { .w = w, .type = type };
	struct bytes header = { 0 };
	struct new_file file;
	enum status status = make_plan(&p);

	if (status == STATUS_OK)
		status = convert_is_gguf(type) ? gguf_header(&p, &header) : safetensors_header(&p, &header);
	if (status == STATUS_OK)
		status = new_file_open(path, &file);
	if (status == STATUS_OK)
		status = new_file_close(&file, write_all(&p, &header, file.file, step, context));
	bytes_free(&header);
	free_plan(&p);
	return status;
}
