/* parity: every golden case of a supported family, run by the real program with --trace, against the reference's
 * tensors.
 *
 * For each case and each of ref f32, cpu f32 and cpu bf16 (where the processor has it).  f32 is judged by the case's
 * tolerances, bf16 by twice the distance that the reference itself moves in bfloat16, but never by less than 0.01.
 * A picture in bf16 has to be what the decoder gave, which is judged so, in whole levels: no fixed distance fits every
 * case (the reference's own picture moves by 5 levels at most in kandinsky/no-guidance, by 57 in guidance-differs).
 */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/json.h"
#include "engine/safetensors.h"
#include "tests/unit/check.h"
#include "tests/unit/program.h"

struct file {
	void *data;
	size_t size;
	struct stored_tensor *tensors;
	int64_t count;
};

static char scratch[] = "/tmp/promptfs-parity-XXXXXX";

/* ---- files ---- */

static bool file_open(const char *path, struct file *f)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		return false;
	f->size = (size_t)st.st_size;
	f->data = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (f->data == MAP_FAILED)
		return false;
	return safetensors_parse(f->data, f->size, &f->tensors, &f->count) == STATUS_OK;
}

static void file_close(struct file *f)
{
	stored_tensors_free(f->tensors, f->count);
	munmap(f->data, f->size);
}

static const struct stored_tensor *find(const struct file *f, const char *name)
{
	for (int64_t i = 0; i < f->count; i++)
		if (strcmp(f->tensors[i].name, name) == 0)
			return &f->tensors[i];
	return NULL;
}

/* ---- comparing ---- */

static double float_at(const struct stored_tensor *t, int64_t i)
{
	float x;

	memcpy(&x, t->data + i * 4, 4);
	return (double)x;
}

/* Relative L2 distance; infinite when a value is not finite. */
static double distance(const struct stored_tensor *got, const struct stored_tensor *want)
{
	double off = 0, length = 0;

	for (int64_t i = 0; i < want->count; i++) {
		double x = float_at(got, i), y = float_at(want, i);

		if (!isfinite(x))
			return INFINITY;
		off += (x - y) * (x - y);
		length += y * y;
	}
	return sqrt(off) / fmax(sqrt(length), 1e-30);
}

/* The picture [H, W, 3] of a decoder's output [3, H, W], about -1..1; NULL without memory or with other shapes. */
static unsigned char *picture_of(const struct stored_tensor *decoded, const struct stored_tensor *picture)
{
	const int64_t pixels = picture->dim[0] * picture->dim[1];
	unsigned char *out = NULL;

	if (decoded->rank == 3 && decoded->dim[1] == picture->dim[0] && decoded->dim[2] == picture->dim[1])
		out = malloc((size_t)picture->count);
	for (int64_t i = 0; out && i < picture->count; i++) {
		double x = float_at(decoded, i % 3 * pixels + i / 3);

		out[i] = (unsigned char)lrint(255 * fmin(1, fmax(0, x / 2 + 0.5)));
	}
	return out;
}

/* Largest difference of a pixel value; *mean is the average. */
static double pixel_difference(const unsigned char *got, const unsigned char *want, int64_t count, double *mean)
{
	double most = 0, sum = 0;

	for (int64_t i = 0; i < count; i++) {
		double d = fabs((double)got[i] - (double)want[i]);

		most = fmax(most, d);
		sum += d;
	}
	*mean = sum / (double)count;
	return most;
}

static bool same_shape(const struct stored_tensor *a, const struct stored_tensor *b)
{
	return a->dtype == b->dtype && a->rank == b->rank &&
	       memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}

/* A schedule of whole numbers, which the reference of some families keeps as integers and the trace as floats. */
static bool same_numbers(const struct stored_tensor *got, const struct stored_tensor *want)
{
	if (got->dtype != DTYPE_F32 || want->dtype != DTYPE_I64 || got->count != want->count)
		return false;
	for (int64_t i = 0; i < want->count; i++) {
		int64_t x;

		memcpy(&x, want->data + i * 8, 8);
		if (float_at(got, i) != (double)x)
			return false;
	}
	return true;
}

/* Of a picture in bf16.  NULL when it is what was decoded, else why not. */
static const char *judge_rounding(const struct stored_tensor *picture, const struct stored_tensor *decoded)
{
	unsigned char *want = decoded ? picture_of(decoded, picture) : NULL;
	double mean = 0, d = want ? pixel_difference(picture->data, want, picture->count, &mean) : 0;
	const bool right = want && d <= 1 && mean <= 0.3;

	free(want);
	return right ? NULL : "the picture is not what was decoded";
}

/* NULL when `got` passes, else why not. */
static const char *judge(const json_t *golden, bool bf16, const struct file *all, const struct stored_tensor *want)
{
	const struct stored_tensor *got = find(all, want->name);
	static char why[256];
	double limit = json_number_value(json_object_get(json_object_get(golden, "tolerance"), want->name)), mean, d;

	if (got && same_numbers(got, want))
		return NULL;
	if (!got || !same_shape(got, want)) {
		snprintf(why, sizeof why, "%s is %s", want->name, got ? "of another shape" : "missing");
		return why;
	}
	if (want->dtype == DTYPE_I64)
		return memcmp(got->data, want->data, want->len) == 0 ? NULL : want->name;
	if (want->dtype == DTYPE_U8 && bf16)
		return judge_rounding(got, find(all, "decoded"));
	if (want->dtype == DTYPE_U8) {
		d = pixel_difference(got->data, want->data, want->count, &mean);
		snprintf(why, sizeof why, "%s differs by up to %g, %.3f on average", want->name, d, mean);
		/* one level off nearly everywhere means pixels cut off instead of rounded */
		return d <= limit && mean <= 0.3 ? NULL : why;
	}
	if (bf16)
		limit = fmax(0.01,
			2 * json_number_value(json_object_get(json_object_get(golden, "bf16_distance"), want->name)));
	d = distance(got, want);
	snprintf(why, sizeof why, "%s is off by %.3g (limit %.3g)", want->name, d, limit);
	return d <= limit ? NULL : why;
}

static void compare(const json_t *golden, bool bf16, const char *wanted, const char *traced, const char *label)
{
	struct file want = { 0 }, got = { 0 };
	const char *why = NULL;

	if (!file_open(wanted, &want) || !file_open(traced, &got)) {
		check_case(false, "no trace", "%s", label);
		return;
	}
	for (int64_t i = 0; i < want.count && !why; i++)
		why = judge(golden, bf16, &got, &want.tensors[i]);
	check_case(!why, why, "%s", label);
	file_close(&want);
	file_close(&got);
}

/* ---- running ---- */

enum { ARGS_MAX = 64, TEXT_MAX = 8192 };

struct command {
	char *argv[ARGS_MAX];
	int n;
};

static void add(struct command *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct command *c, const char *format, ...)
{
	char *text = malloc(TEXT_MAX);
	va_list args;

	va_start(args, format);
	vsnprintf(text, TEXT_MAX, format, args);
	va_end(args);
	c->argv[c->n++] = text;
	c->argv[c->n] = NULL;
}

static void add_loras(struct command *c, const json_t *list)
{
	const json_t *lora;
	size_t i;

	json_array_foreach (list, i, lora) {
		add(c, "--lora");
		add(c, "%s/%s:%.17g", check_golden(), json_string_value(json_object_get(lora, "path")),
			json_number_value(json_object_get(lora, "scale")));
	}
}

/* A golden argument as an option of `promptfs generate`. */
static void add_argument(struct command *c, const char *key, const json_t *value)
{
	static const char *const plain[] = { "width", "height", "steps", "seed", "sampler", "rng" };
	char text[TEXT_MAX];

	if (json_is_null(value) || strcmp(key, "prompt") == 0 || (json_is_array(value) && json_array_size(value) == 0))
		return;
	if (json_is_string(value))
		snprintf(text, sizeof text, "%s", json_string_value(value));
	else if (json_is_integer(value))
		snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
	else if (json_is_array(value)) /* a size or a place: height first */
		snprintf(text, sizeof text, "%lldx%lld", (long long)json_integer_value(json_array_get(value, 0)),
			(long long)json_integer_value(json_array_get(value, 1)));
	else
		snprintf(text, sizeof text, "%.17g", json_number_value(value));
	if (strcmp(key, "negative_prompt") == 0) {
		add(c, "--negative");
		add(c, "%s", text);
		return;
	}
	if (strcmp(key, "guidance_scale") == 0) {
		add(c, "--guidance");
		add(c, "%s", text);
		return;
	}
	for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
		if (strcmp(key, plain[i]) == 0) {
			add(c, "--%s", key);
			add(c, "%s", text);
			return;
		}
	if (strcmp(key, "loras") == 0) {
		add_loras(c, value);
		return;
	}
	add(c, "--set");
	if (strlen(key) > 5 && strcmp(key + strlen(key) - 5, "_file") == 0)
		add(c, "%s=%s/%s", key, check_golden(), text);
	else
		add(c, "%s=%s", key, text);
}

static bool run(const struct command *c)
{
	struct rusage used;
	int state;

	return program_run((const char *const *)c->argv, -1, 0, &state, &used) && WIFEXITED(state) &&
	       WEXITSTATUS(state) == 0;
}

static void run_case(const json_t *golden, const char *device, const char *dtype, const char *tensors)
{
	const json_t *args = json_object_get(golden, "args"), *value;
	char trace[128], picture[128], label[256];
	struct command c = { .n = 0 };
	const char *key;

	snprintf(trace, sizeof trace, "%s/trace.safetensors", scratch);
	snprintf(picture, sizeof picture, "%s/picture.png", scratch);
	snprintf(label, sizeof label, "%s on %s %s", json_string_value(json_object_get(golden, "id")), device, dtype);
	add(&c, "promptfs");
	add(&c, "generate");
	add(&c, "--model");
	add(&c, "%s/models/%s", check_golden(), json_string_value(json_object_get(golden, "model")));
	add(&c, "--device");
	add(&c, "%s", device);
	add(&c, "--dtype");
	add(&c, "%s", dtype);
	add(&c, "--trace");
	add(&c, "%s", trace);
	add(&c, "-o");
	add(&c, "%s", picture);
	json_object_foreach ((json_t *)args, key, value)
		add_argument(&c, key, value);
	add(&c, "--");
	add(&c, "%s", json_string_value(json_object_get(args, "prompt")));
	unlink(trace);
	if (run(&c))
		compare(golden, strcmp(dtype, "bf16") == 0, tensors, trace, label);
	else
		check_case(false, "the program failed", "%s", label);
	for (int i = 0; i < c.n; i++)
		free(c.argv[i]);
	unlink(trace);
	unlink(picture);
}

/* How many cases of a family to check: PARITY_CASES, or all. */
static int wanted_cases(int n)
{
	const char *most = getenv("PARITY_CASES");

	return most && *most && atoi(most) < n ? atoi(most) : n;
}

/* PARITY_DEVICE: the device to check in place of ref and cpu, in f32 and bf16. */
static void check_file(const char *json_path, bool bf16)
{
	const char *device = getenv("PARITY_DEVICE");
	char tensors[4096];
	json_t *golden = NULL;

	if (json_read_object(json_path, &golden) != STATUS_OK) {
		check_case(false, status_text(), "%s", json_path);
		return;
	}
	snprintf(tensors, sizeof tensors, "%.*s.safetensors", (int)strlen(json_path) - 5, json_path);
	if (device && *device) {
		run_case(golden, device, "f32", tensors);
		run_case(golden, device, "bf16", tensors);
	} else {
		run_case(golden, "ref", "f32", tensors);
		run_case(golden, "cpu", "f32", tensors);
		if (bf16)
			run_case(golden, "cpu", "bf16", tensors);
	}
	json_decref(golden);
}

static int is_case(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return len > 5 && strcmp(entry->d_name + len - 5, ".json") == 0;
}

static void check_family(const char *family, bool bf16)
{
	char path[4096], file[4096 + 256];
	struct dirent **names = NULL;
	int n;

	snprintf(path, sizeof path, "%s/cases/%s", check_golden(), family);
	n = scandir(path, &names, is_case, alphasort);
	if (n <= 0)
		printf("skip - %s: no golden cases\n", family);
	for (int i = 0; i < n; i++) {
		snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
		if (i < wanted_cases(n))
			check_file(file, bf16);
		free(names[i]);
	}
	free(names);
}

/* A case with every part from a checkpoint of the whole model. */
static void check_checkpoint(const char *file, const char *id)
{
	static const char *const parts[] = { "unet_file", "vae_file", "text_encoder_file", "text_encoder_2_file" };
	char path[4096], tensors[4096], where[512], label[512];
	json_t *golden = NULL, *args;

	snprintf(path, sizeof path, "%s/cases/%s.json", check_golden(), id);
	snprintf(tensors, sizeof tensors, "%s/cases/%s.safetensors", check_golden(), id);
	snprintf(where, sizeof where, "units/single-file/%s", file);
	snprintf(label, sizeof label, "%s from %s", id, file);
	if (json_read_object(path, &golden) != STATUS_OK) {
		check_case(false, status_text(), "%s", path);
		return;
	}
	args = json_object_get(golden, "args");
	json_object_set_new(golden, "id", json_string(label));
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		if (i < 3 || strncmp(id, "sdxl", 4) == 0)
			json_object_set_new(args, parts[i], json_string(where));
	run_case(golden, "ref", "f32", tensors);
	run_case(golden, "cpu", "f32", tensors);
	json_decref(golden);
}

static void check_checkpoints(void)
{
	char path[4096];
	const char *model;
	json_t *names = NULL, *about, *file;
	size_t i;

	snprintf(path, sizeof path, "%s/units/single-file/names.json", check_golden());
	if (json_read_object(path, &names) != STATUS_OK) {
		printf("skip - checkpoints of whole models: none are there\n");
		return;
	}
	json_object_foreach (names, model, about)
		json_array_foreach (json_object_get(about, "files"), i, file)
			check_checkpoint(json_string_value(file), json_string_value(json_object_get(about, "case")));
	json_decref(names);
}

/* Arguments: the families to check, or checkpoints; none: all. */
int main(int argc, char **argv)
{
	static const char *const families[] = {
		"zimage",
		"sd3",
		"flux",
		"kandinsky",
		"sd15",
		"sdxl",
		"playground",
		"lora",
	};
	struct kernels *k = NULL;
	bool bf16 = kernels_open("cpu", DTYPE_BF16, 1, &k) == STATUS_OK;

	kernels_close(k);
	if (access(program(), X_OK) != 0) {
		printf("skip - parity: %s is not built\n", program());
		return 0;
	}
	if (!bf16)
		printf("skip - parity in bf16: %s\n", status_text());
	if (!mkdtemp(scratch))
		return 1;
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "checkpoints") == 0)
			check_checkpoints();
		else
			check_family(argv[i], bf16);
	for (size_t i = 0; argc == 1 && i < sizeof families / sizeof families[0]; i++)
		check_family(families[i], bf16);
	if (argc == 1)
		check_checkpoints();
	rmdir(scratch);
	return check_result();
}
