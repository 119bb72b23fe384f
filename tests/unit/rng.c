/* rng: the golden draws of PyTorch, call after call on one generator. */
#include "engine/rng.h"

#include <math.h>
#include <string.h>

#include "engine/json.h"
#include "engine/weights.h"
#include "tests/unit/check.h"

/* A value of a 16-bit type may differ by one unit in the last place. */
static double tolerance_of(enum dtype dtype, double value, double tolerance)
{
	int exponent;

	frexp(value, &exponent);
	if (dtype == DTYPE_BF16)
		return ldexp(1, exponent - 8);
	if (dtype == DTYPE_F16)
		return ldexp(1, exponent > -13 ? exponent - 11 : -24);
	return tolerance;
}

static enum dtype dtype_of(const json_t *draw)
{
	const char *name = json_string_value(json_object_get(draw, "dtype"));

	if (!name || !strcmp(name, "float32"))
		return DTYPE_F32;
	return strcmp(name, "bfloat16") ? DTYPE_F16 : DTYPE_BF16;
}

/* The worst distance of a call's values from those of the file, in tolerances.  Of a large draw only some values are
 * kept; `at` says which (I64), or has no data. */
static double distance(
	const float *x, const struct tensor *wanted, const struct tensor *at, enum dtype dtype, double tolerance)
{
	const float *y = wanted->data;
	const int64_t *index = at->data;
	double worst = 0;

	for (int64_t i = 0; i < tensor_count(wanted); i++) {
		double d = fabs((double)x[index ? index[i] : i] - y[i]) / tolerance_of(dtype, y[i], tolerance);

		if (!(d <= worst)) /* NaN too */
			worst = d;
	}
	return worst;
}

/* One call on a generator that the calls before it have moved on. */
static void check_call(struct rng *r, const struct weights *w, const json_t *draw, size_t call, double tolerance)
{
	const char *name = json_string_value(json_array_get(json_object_get(draw, "tensors"), call));
	int64_t n = json_integer_value(json_array_get(json_object_get(draw, "sizes"), call));
	const json_t *next = json_array_get(json_object_get(draw, "next_offset"), call);
	struct tensor wanted = { 0 }, at = { 0 };
	float *x = malloc((size_t)n * sizeof *x);
	char kept[80];
	double d;

	snprintf(kept, sizeof kept, "%s.at", name);
	rng_normal(r, dtype_of(draw), n, x);
	if (weights_view(w, name, &wanted) != STATUS_OK ||
		(weights_has(w, kept) && weights_view(w, kept, &at) != STATUS_OK)) {
		check_case(false, status_text(), "%s: draw %s", rng_name(r->kind), name);
	} else {
		d = distance(x, &wanted, &at, dtype_of(draw), tolerance);
		check_case(d <= 1 && (at.data || tensor_count(&wanted) == n), "too far",
			"%s: draw %s of %lld: %.2f of the tolerance", rng_name(r->kind), name, (long long)n, d);
	}
	if (next)
		check_case((uint64_t)json_integer_value(next) == r->offset, NULL, "philox: offset after draw %s", name);
	free(x);
}

static void check_draw(enum rng_kind kind, const struct weights *w, const json_t *draw, double tolerance)
{
	const json_t *threads = json_object_get(draw, "device_threads"), *offset = json_object_get(draw, "offset");
	struct rng r;

	rng_seed(&r, kind, (uint64_t)json_integer_value(json_object_get(draw, "seed")));
	if (threads)
		r.device_threads = (uint64_t)json_integer_value(threads);
	if (offset)
		r.offset = (uint64_t)json_integer_value(offset);
	for (size_t call = 0; call < json_array_size(json_object_get(draw, "sizes")); call++)
		check_call(&r, w, draw, call, tolerance);
}

static void check_answer(const json_t *answer)
{
	static const char *const keys[] = { "counter", "key", "out" };
	uint32_t x[3][4] = { 0 }, got[4];

	for (int i = 0; i < 3; i++) {
		const json_t *list = json_object_get(answer, keys[i]);

		for (size_t j = 0; j < json_array_size(list) && j < 4; j++)
			x[i][j] = (uint32_t)strtoul(json_string_value(json_array_get(list, j)), NULL, 16);
	}
	rng_philox(x[0], x[1], got);
	check_case(!memcmp(got, x[2], sizeof got), NULL, "philox: known answer %08x", x[2][0]);
}

/* JSON of the cases.  One seed is 2^64 - 1, too large for jansson: it is written as -1, the same 64 bits. */
static enum status read_cases(const char *path, json_t **out)
{
	static const char seed[] = "18446744073709551615", same[] = "                  -1";
	static char text[1 << 20];
	FILE *file = fopen(path, "r");
	size_t len;

	if (!file)
		return status_fail(STATUS_NO_MODEL, "%s is not there", path);
	len = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	for (char *at = text; (at = strstr(at, seed));)
		memcpy(at, same, sizeof same - 1);
	return json_parse_object(text, len, out);
}

static void check_golden_draws(enum rng_kind kind)
{
	char path[300];
	struct weights *w = NULL;
	json_t *cases = NULL;
	const json_t *one;
	size_t i;
	double tolerance = 0;
	enum status status;

	snprintf(path, sizeof path, "%s/units/rng/%s.json", check_golden(), rng_name(kind));
	status = read_cases(path, &cases);
	if (status == STATUS_NO_MODEL) {
		printf("skip - %s: %s\n", rng_name(kind), status_text());
		return;
	}
	snprintf(path, sizeof path, "%s/units/rng/%s.safetensors", check_golden(), rng_name(kind));
	if (status != STATUS_OK || weights_open_file(path, &w) != STATUS_OK ||
		json_get_number(cases, path, "tolerance", 0, 1, &tolerance) != STATUS_OK) {
		check_case(false, status_text(), "%s", rng_name(kind));
	} else {
		json_array_foreach (json_object_get(cases, "draws"), i, one)
			check_draw(kind, w, one, tolerance);
		check_case(i > 0, "none", "%s has draws", rng_name(kind));
		json_array_foreach (json_object_get(cases, "known_answers"), i, one)
			check_answer(one);
	}
	weights_close(w);
	json_decref(cases);
}

/* What needs no golden file. */
static void check_rules(void)
{
	struct rng a, b;
	enum rng_kind kind = RNG_COUNT;
	float x[64], y[64];

	rng_seed(&a, RNG_TORCH_CPU, 42);
	rng_normal(&a, DTYPE_F32, 16, x);
	CHECK("seed 42 begins as torch documents everywhere",
		fabsf(x[0] - 1.9269f) < 1e-4f && fabsf(x[1] - 1.4873f) < 1e-4f);
	rng_seed(&b, RNG_TORCH_CPU, (1ull << 32) + 42);
	rng_normal(&b, DTYPE_F32, 16, y);
	CHECK("torch-cpu takes 32 bits of the seed", !memcmp(x, y, 16 * sizeof *x));
	b = a;
	rng_normal(&a, DTYPE_F32, 33, x);
	rng_normal(&b, DTYPE_F32, 33, y);
	CHECK("a copy goes its own way", !memcmp(x, y, 33 * sizeof *x));
	rng_seed(&a, RNG_PHILOX, 5);
	rng_seed(&b, RNG_PHILOX, (1ull << 32) + 5);
	rng_normal(&a, DTYPE_F32, 16, x);
	rng_normal(&b, DTYPE_F32, 16, y);
	CHECK("philox takes 64 bits of the seed", memcmp(x, y, 16 * sizeof *x) != 0);
	rng_normal(&a, DTYPE_F32, 0, x);
	CHECK("an empty draw draws nothing", a.offset == 4);
	CHECK("names", rng_find("philox", &kind) && kind == RNG_PHILOX && rng_find(rng_name(RNG_TORCH_CPU), &kind) &&
			       kind == RNG_TORCH_CPU);
	CHECK("an unknown name", !rng_find("mt", &kind) && kind == RNG_TORCH_CPU);
}

int main(void)
{
	check_rules();
	check_golden_draws(RNG_TORCH_CPU);
	check_golden_draws(RNG_PHILOX);
	return check_result();
}
