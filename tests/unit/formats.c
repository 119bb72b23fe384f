/* formats: GGUF blocks and 8-bit floats against units/gguf and units/fp8, and files in the layouts of the original
 * code against the same weights in the layout of diffusers.
 */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/fp8.h"
#include "engine/gguf_blocks.h"
#include "engine/weights.h"
#include "tests/unit/check.h"

static const char *golden_path(const char *name)
{
	static char path[2][PATH_MAX];
	static int next;

	next = !next;
	snprintf(path[next], sizeof path[next], "%s/%s", check_golden(), name);
	return path[next];
}

static struct weights *open_golden(const char *name)
{
	struct weights *w = NULL;
	enum status status = weights_open_file(golden_path(name), &w);

	check_case(status == STATUS_OK, status_text(), "%s opens", name);
	return w;
}

/* ---- GGUF -------------------------------------------------------------------------------------------------------- */

/* types.gguf says it is of the architecture "test", which paints nothing: a copy that says otherwise. */
static struct weights *open_types(void)
{
	static char path[] = "/tmp/promptfs-types-XXXXXX.gguf";
	static unsigned char bytes[1 << 20];
	FILE *from = fopen(golden_path("units/gguf/types.gguf"), "rb");
	size_t n = from ? fread(bytes, 1, sizeof bytes, from) : 0;
	unsigned char *word = n ? memmem(bytes, n, "test", 4) : NULL;
	int fd = mkstemps(path, 5);
	struct weights *w = NULL;

	if (from)
		fclose(from);
	if (word)
		memcpy(word, "flux", 4);
	CHECK("a copy of types.gguf", word && fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	check_case(weights_open_file(path, &w) == STATUS_OK, status_text(), "types.gguf opens");
	close(fd);
	unlink(path);
	return w;
}

static double number_at(const struct tensor *t, int64_t i)
{
	switch (t->dtype) {
	case DTYPE_F32:
		return (double)((const float *)t->data)[i];
	case DTYPE_BF16:
		return (double)bf16_to_f32(((const uint16_t *)t->data)[i]);
	case DTYPE_F16:
		return (double)f16_to_f32(((const uint16_t *)t->data)[i]);
	case DTYPE_I64:
		return (double)((const int64_t *)t->data)[i];
	default:
		return NAN;
	}
}

/* How many values are further off than one rounding to float. */
static int64_t count_off(const struct tensor *got, const struct tensor *want)
{
	int64_t off = 0;

	for (int64_t i = 0; i < tensor_count(want); i++) {
		double x = number_at(got, i), y = number_at(want, i);

		off += !(x == y || fabs(x - y) <= 1e-6 * fabs(y) || (isnan(x) && isnan(y)));
	}
	return off;
}

static void check_types(void)
{
	struct weights *w = open_types(), *expect = open_golden("units/gguf/types.safetensors");

	for (int64_t i = 0; w && expect && i < weights_count(w); i++) {
		const char *name = weights_name(w, i);
		struct tensor got, want;
		enum status status;

		/* plain integers of other widths have no dtype of their own to compare with */
		if (weights_view(expect, name, &want) != STATUS_OK)
			continue;
		status = weights_find(w, name, want.rank, want.dim, &got);
		check_case(status == STATUS_OK && !count_off(&got, &want),
			status == STATUS_OK ? "values differ" : status_text(), "decoded: %s", name);
		weights_release(w, &got);
	}
	weights_close(w);
	weights_close(expect);
}

/* The raw blocks of a tensor of types.gguf: the same bytes must come from its source. */
static void check_encoded(const unsigned char *file, size_t len, const char *name, const struct tensor *source)
{
	static unsigned char out[1 << 16];
	const struct gguf_block *block = NULL;
	int64_t n = tensor_count(source);
	uint32_t type = 0;

	for (; type <= GGUF_BF16; type++) {
		block = gguf_block(type);
		if (block && !strcmp(block->name, name))
			break;
	}
	gguf_encode((enum gguf_type)type, source->data, n, out);
	check_case(memmem(file, len, out, (size_t)(n / block->values * block->bytes)) != NULL,
		"these bytes are not in the file", "encoded: %s", name);
}

static void check_encoders(void)
{
	static const char *const names[] = { "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0" };
	static unsigned char file[1 << 20];
	FILE *from = fopen(golden_path("units/gguf/types.gguf"), "rb");
	size_t len = from ? fread(file, 1, sizeof file, from) : 0;
	struct weights *expect = open_golden("units/gguf/types.safetensors");
	struct tensor source;

	if (from)
		fclose(from);
	if (!expect || weights_find(expect, "source", 0, NULL, &source) != STATUS_OK)
		return;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		check_encoded(file, len, names[i], &source);
	weights_close(expect);
}

/* Nothing else makes Q4_K here: its error must be that of 4 bits and smaller than that of Q4_0. */
static double encoding_error(enum gguf_type type, const struct tensor *source)
{
	static unsigned char blocks[1 << 16];
	static float back[1 << 12];
	const float *x = source->data;
	double error = 0;

	gguf_encode(type, x, tensor_count(source), blocks);
	gguf_decode(type, blocks, tensor_count(source), back);
	for (int64_t i = 0; i < tensor_count(source); i++)
		error += ((double)back[i] - (double)x[i]) * ((double)back[i] - (double)x[i]);
	return sqrt(error);
}

static void check_q4_k(void)
{
	struct weights *expect = open_golden("units/gguf/types.safetensors");
	struct tensor source;

	if (expect && weights_find(expect, "source", 0, NULL, &source) == STATUS_OK)
		CHECK("Q4_K is closer than Q4_0",
			encoding_error(GGUF_Q4_K, &source) < encoding_error(GGUF_Q4_0, &source));
	weights_close(expect);
}

static void check_metadata(void)
{
	struct weights *w = open_golden("units/gguf/metadata.gguf");
	struct tensor t;

	CHECK("offsets count from the aligned data section",
		w && weights_find(w, "seven", 0, NULL, &t) == STATUS_OK && number_at(&t, 6) == 6 &&
			weights_find(w, "eleven", 0, NULL, &t) == STATUS_OK && number_at(&t, 10) == 10);
	weights_close(w);
}

/* ---- 8-bit floats ------------------------------------------------------------------------------------------------ */

static bool same_float(float x, float y)
{
	return memcmp(&x, &y, sizeof x) == 0 || (isnan(x) && isnan(y));
}

static void check_codes(const struct weights *w, const char *name, float (*decode)(uint8_t))
{
	char path[64];
	struct tensor values;
	int wrong = 0;

	snprintf(path, sizeof path, "%s.f32", name);
	if (weights_find(w, path, 1, (int64_t[]){ 256 }, &values) != STATUS_OK) {
		check_case(false, status_text(), "%s", path);
		return;
	}
	for (int i = 0; i < 256; i++)
		wrong += !same_float(decode((uint8_t)i), ((const float *)values.data)[i]);
	check_case(!wrong, "codes differ", "%s: 256 codes", name);
}

static void check_rounding(
	const struct weights *w, const char *name, uint8_t (*encode)(float), float (*decode)(uint8_t))
{
	struct tensor values, codes;
	int wrong = 0;

	if (weights_find(w, "round.f32", 0, NULL, &values) != STATUS_OK || weights_view(w, name, &codes) != STATUS_OK) {
		check_case(false, status_text(), "%s", name);
		return;
	}
	for (int64_t i = 0; i < tensor_count(&values); i++) {
		float x = ((const float *)values.data)[i];

		wrong += !same_float(decode(encode(x)), decode(((const uint8_t *)codes.data)[i]));
	}
	check_case(!wrong, "values differ", "%s: %lld values", name, (long long)tensor_count(&values));
}

static void check_halves(void)
{
	int wrong = 0;

	for (uint32_t i = 0; i < 0x10000; i++)
		wrong += f16_from_f32(f16_to_f32((uint16_t)i)) != i && !isnan(f16_to_f32((uint16_t)i));
	CHECK("every half returns", !wrong);
	CHECK("halves round to even", f16_from_f32(1.00048828125f) == 0x3c00 &&
					      f16_from_f32(1.00146484375f) == 0x3c02 &&
					      f16_from_f32(65519.0f) == 0x7bff && f16_from_f32(65520.0f) == 0x7c00);
}

static void check_fp8(void)
{
	struct weights *w = open_golden("units/fp8/codes.safetensors");

	if (w) {
		check_codes(w, "e4m3fn", e4m3_to_f32);
		check_codes(w, "e5m2", e5m2_to_f32);
		check_rounding(w, "round.e4m3fn", e4m3_from_f32, e4m3_to_f32);
		check_rounding(w, "round.e5m2", e5m2_from_f32, e5m2_to_f32);
	}
	weights_close(w);
	check_halves();
}

/* ---- layouts of the original code -------------------------------------------------------------------------------- */

/* The tensor under this name, or under its newer spelling. */
static enum status find_either(const struct weights *w, const char *name, const struct tensor *want, struct tensor *out)
{
	static const char *const spelling[][2] = {
		{ ".query.", ".to_q." },
		{ ".key.", ".to_k." },
		{ ".value.", ".to_v." },
		{ ".proj_attn.", ".to_out.0." },
	};
	char other[300];

	for (size_t i = 0; i < 4 && !weights_has(w, name); i++) {
		const char *at = strstr(name, spelling[i][0]);

		if (at) {
			snprintf(other, sizeof other, "%.*s%s%s", (int)(at - name), name, spelling[i][1],
				at + strlen(spelling[i][0]));
			name = other;
		}
	}
	return weights_find(w, name, want->rank, want->dim, out);
}

/* Every floating tensor of the model's part must be in the file. */
static void check_part(const char *file, const char *model, const char *part, double tolerance)
{
	struct component original = { 0 }, diffusers = { 0 };
	struct weights *got = NULL, *want = NULL;
	int64_t n = 0;
	const char *why = NULL;

	snprintf(original.name, sizeof original.name, "%s", part);
	snprintf(diffusers.name, sizeof diffusers.name, "%s", part);
	snprintf(original.weights, sizeof original.weights, "%s/%s", check_golden(), file);
	snprintf(diffusers.weights, sizeof diffusers.weights, "%s/models/%s/%s", check_golden(), model, part);
	if (access(original.weights, R_OK) || access(diffusers.weights, R_OK)) {
		printf("skip - %s: not there\n", file);
		return;
	}
	if (weights_open_component(&original, &got) != STATUS_OK ||
		weights_open_component(&diffusers, &want) != STATUS_OK)
		why = status_text();
	for (int64_t i = 0; !why && i < weights_count(want); i++) {
		struct tensor x, y;

		if (weights_find(want, weights_name(want, i), 0, NULL, &y) != STATUS_OK)
			continue; /* position_ids */
		if (find_either(got, weights_name(want, i), &y, &x) != STATUS_OK)
			why = status_text();
		else if (tolerance == 0 && count_off(&x, &y))
			why = weights_name(want, i);
		if (!why)
			weights_release(got, &x);
		n++;
	}
	check_case(!why && n > 10, why, "%s of %s: %lld tensors", part, file, (long long)n);
	weights_close(got);
	weights_close(want);
}

static void check_layouts(void)
{
	static const char *const parts[] = { "unet", "vae", "text_encoder" };

	for (int i = 0; i < 3; i++)
		check_part("units/single-file/sd15-tiny.safetensors", "sd15-tiny", parts[i], 0);
	for (int i = 0; i < 3; i++)
		check_part("units/single-file/sd15-tiny.ckpt", "sd15-tiny", parts[i], 0);
	for (int i = 0; i < 3; i++)
		check_part("units/single-file/sdxl-tiny.safetensors", "sdxl-tiny", parts[i], 0);
	check_part("units/single-file/sdxl-tiny.safetensors", "sdxl-tiny", "text_encoder_2", 0);
	check_part("models/flux-dev-tiny-bfl/flux1-dev.safetensors", "flux-dev-tiny", "transformer", 0);
	check_part("models/flux-dev-tiny-bfl/ae.safetensors", "flux-dev-tiny", "vae", 0);
	check_part("models/zimage-tiny-comfy/transformer", "zimage-tiny", "transformer", 0);
	check_part("models/zimage-tiny-comfy/text_encoder", "zimage-tiny", "text_encoder", 0);
	check_part("models/zimage-tiny-fp8-scaled/transformer", "zimage-tiny", "transformer", 1);
	check_part("models/zimage-tiny-gguf-mixed/transformer", "zimage-tiny", "transformer", 1);
}

int main(void)
{
	check_types();
	check_encoders();
	check_q4_k();
	check_metadata();
	check_fp8();
	check_layouts();
	return check_result();
}
