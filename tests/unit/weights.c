/* weights: reading and writing safetensors, shards, and every malformed file of the golden cases. */
#include "engine/weights.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/json.h"
#include "tests/unit/check.h"

static char root[] = "/tmp/promptfs-weights-XXXXXX";

/* ---- folders for cases ------------------------------------------------------------------------------------------- */

/* A new, empty component folder in the place of the last one. */
static const char *new_folder(const char *component)
{
	static char dir[200];
	char command[300];

	snprintf(command, sizeof command, "rm -rf '%s' && mkdir -p '%s/%s'", root, root, component);
	if (system(command))
		exit(1);
	snprintf(dir, sizeof dir, "%s/%s", root, component);
	return dir;
}

static void write_bytes(const char *dir, const char *name, const void *data, size_t len)
{
	char path[400];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	file = fopen(path, "w");
	if (!file || fwrite(data, 1, len, file) != len || fclose(file))
		exit(1);
}

/* A safetensors file of this header and `len` bytes of data, each the number of its place. */
static void write_file(const char *dir, const char *name, const char *header, size_t len)
{
	unsigned char file[4096];
	uint64_t header_len = strlen(header);

	memcpy(file, &header_len, 8);
	memcpy(file + 8, header, header_len);
	for (size_t i = 0; i < len; i++)
		file[8 + header_len + i] = (unsigned char)i;
	write_bytes(dir, name, file, 8 + header_len + len);
}

static void check_open_fails(const char *dir, enum status wanted, const char *word, const char *name)
{
	struct weights *w = NULL;
	enum status status = weights_open(dir, &w);

	check_case(status == wanted && !w && strstr(status_text(), word) && !strchr(status_text(), '\n'), status_text(),
		"%s", name);
	weights_close(w);
}

/* ---- round trips ------------------------------------------------------------------------------------------------- */

static void check_written(void)
{
	const char *dir = new_folder("trace");
	float values[6] = { 1, -0.0f, INFINITY, 4, 5, NAN };
	int64_t ids[2] = { -1, INT64_MAX };
	uint8_t byte = 7;
	struct named_tensor list[] = {
		{ "z.byte", tensor_view(&byte, DTYPE_U8, 1, (int64_t[]){ 1 }) },
		{ "a.values", tensor_view(values, DTYPE_F32, 2, (int64_t[]){ 2, 3 }) },
		{ "ids", tensor_view(ids, DTYPE_I64, 1, (int64_t[]){ 2 }) },
	};
	char path[300];
	struct weights *w = NULL;
	struct tensor t;

	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	CHECK("write", weights_write(path, 3, list) == STATUS_OK);
	CHECK("open what was written", weights_open(dir, &w) == STATUS_OK);
	if (!w)
		return;
	CHECK("names in order", weights_count(w) == 3 && !strcmp(weights_name(w, 0), "a.values") &&
					!strcmp(weights_name(w, 2), "z.byte"));
	CHECK("values return",
		weights_find(w, "a.values", 2, (int64_t[]){ 2, 3 }, &t) == STATUS_OK && !memcmp(t.data, values, 24));
	CHECK("data is aligned, though a byte lies before it", (uintptr_t)t.data % 4 == 0);
	weights_release(w, &t);
	CHECK("values stay readable when released", !memcmp(t.data, values, 24));
	CHECK("bytes and parameters",
		weights_bytes(w) == 41 && weights_parameters(w) == 9 && weights_dtype(w) == DTYPE_F32);
	CHECK("path", !strcmp(weights_path(w, "ids"), path));
	CHECK("has", weights_has(w, "ids") && !weights_has(w, "id"));
	CHECK("a wrong shape names both", weights_find(w, "a.values", 2, (int64_t[]){ 3, 2 }, &t) == STATUS_CORRUPT &&
						  strstr(status_text(), "a.values") &&
						  strstr(status_text(), "[2, 3]") && strstr(status_text(), "[3, 2]"));
	CHECK("no floats",
		weights_find(w, "ids", 1, (int64_t[]){ 2 }, &t) == STATUS_CORRUPT && strstr(status_text(), "I64"));
	CHECK("a view of numbers that are no floats",
		weights_view(w, "ids", &t) == STATUS_OK && !memcmp(t.data, ids, sizeof ids));
	CHECK("a missing tensor",
		weights_find(w, "b", 0, NULL, &t) == STATUS_CORRUPT && strstr(status_text(), "tensor b is missing"));
	weights_close(w);
	list[1] = list[0];
	CHECK("a name twice is not written", weights_write(path, 2, list) == STATUS_INTERNAL);
	CHECK("a folder that is not there", weights_write("/nowhere/at/all", 1, list) == STATUS_IO);
}

/* Pages are given back only where the tensor has them alone. */
static void check_release(void)
{
	enum { N = 100000 };
	const char *dir = new_folder("big");
	float *values = calloc(N, sizeof *values);
	struct named_tensor list[2] = {
		{ "a", tensor_view(values, DTYPE_F32, 1, (int64_t[]){ N }) },
		{ "b", tensor_view(values, DTYPE_F32, 1, (int64_t[]){ N }) },
	};
	char path[300];
	struct weights *w = NULL;
	struct tensor t;
	bool same = true;

	for (int i = 0; i < N; i++)
		values[i] = (float)i;
	snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", dir);
	if (weights_write(path, 2, list) != STATUS_OK || weights_open(dir, &w) != STATUS_OK) {
		CHECK("large tensors", false);
		return;
	}
	for (int i = 0; i < 2; i++) {
		same = weights_find(w, list[i].name, 0, NULL, &t) == STATUS_OK &&
		       !memcmp(t.data, values, N * sizeof *values) && same;
		weights_release(w, &t);
		same = !memcmp(t.data, values, N * sizeof *values) && same;
	}
	CHECK("large tensors are the same after release", same);
	weights_close(w);
	free(values);
}

static void check_odd_headers(void)
{
	const char *dir = new_folder("odd");
	struct weights *w = NULL;
	struct tensor t;

	/* 57 bytes of header: the data is not aligned in the file */
	write_file(dir, "model.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
	CHECK("unpadded header",
		weights_open(dir, &w) == STATUS_OK && weights_find(w, "a", 1, (int64_t[]){ 2 }, &t) == STATUS_OK);
	if (w) {
		weights_release(w, &t);
		CHECK("its values", (uintptr_t)t.data % 4 == 0 && !memcmp(t.data, "\0\1\2\3\4\5\6\7", 8));
	}
	weights_close(w);
	w = NULL;
	write_file(dir, "model.safetensors",
		"{\"__metadata__\":{\"format\":\"pt\"},\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
		"\"e\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[4,4]},"
		"\"five\":{\"dtype\":\"BF16\",\"shape\":[1,1,1,1,2],\"data_offsets\":[4,8]}}   ",
		8);
	CHECK("scalars, empty tensors, five dimensions", weights_open(dir, &w) == STATUS_OK);
	if (w) {
		CHECK("a scalar is a vector of one",
			weights_find(w, "s", 0, NULL, &t) == STATUS_OK && t.rank == 1 && t.dim[0] == 1);
		CHECK("an empty tensor",
			weights_find(w, "e", 2, (int64_t[]){ 0, 3 }, &t) == STATUS_OK && tensor_count(&t) == 0);
		CHECK("five dimensions are not found", weights_find(w, "five", 0, NULL, &t) == STATUS_CORRUPT);
	}
	weights_close(w);
}

/* ---- shards ------------------------------------------------------------------------------------------------------ */

static const char header_a[] = "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}  ";
static const char header_b[] = "{\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}  ";

static void write_shards(const char *dir, const char *index, const char *second)
{
	write_bytes(dir, "model.safetensors.index.json", index, strlen(index));
	write_file(dir, "1.safetensors", header_a, 4);
	write_file(dir, "2.safetensors", second, 4);
}

static void check_shards(void)
{
	const char *dir = new_folder("text_encoder");
	struct weights *w = NULL;
	struct tensor t;

	write_shards(
		dir, "{\"metadata\":{},\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"1.safetensors\"}}", header_b);
	CHECK("two shards", weights_open(dir, &w) == STATUS_OK && weights_count(w) == 2);
	if (w)
		CHECK("a tensor's shard", weights_find(w, "b", 1, (int64_t[]){ 2 }, &t) == STATUS_OK &&
						  strstr(weights_path(w, "b"), "/text_encoder/2.safetensors") &&
						  strstr(weights_path(w, "a"), "/1.safetensors"));
	weights_close(w);
	write_shards(dir, "{\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"1.safetensors\"}}", header_a);
	check_open_fails(dir, STATUS_CORRUPT, "as well", "a tensor in two shards");
	write_shards(dir, "{\"weight_map\":{\"b\":\"1.safetensors\",\"a\":\"2.safetensors\"}}", header_b);
	check_open_fails(dir, STATUS_CORRUPT, "/1.safetensors: tensor b", "shards exchanged");
	write_shards(dir, "{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\"}}", header_b);
	check_open_fails(dir, STATUS_CORRUPT, "/2.safetensors: tensor c", "a tensor of the index is nowhere");
	write_shards(dir, "{\"weight_map\":{\"a\":\"1.safetensors\"}}", header_b);
	CHECK("a shard that no tensor needs is not opened",
		weights_open(dir, &w) == STATUS_OK && weights_count(w) == 1);
	weights_close(w);
	write_shards(dir, "{\"weight_map\":{\"a\":\"2.safetensors\"}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"x\":{\"dtype\":\"U8\",\"shape\":[2],"
		"\"data_offsets\":[2,4]}}");
	check_open_fails(dir, STATUS_CORRUPT, "tensor x is not in the index", "a tensor that the index lacks");
	write_shards(dir, "{\"weight_map\":{}}", header_b);
	check_open_fails(dir, STATUS_CORRUPT, "weight_map", "an empty index");
	write_shards(dir, "{\"weight_map\":{\"a\":\"..\"}}", header_b);
	check_open_fails(dir, STATUS_CORRUPT, "plain file name", "an index that names the folder above");
}

/* {"state_dict": {"a": float32 0 .. 11 as [3, 4], "row": a[1], "half": [1.5, -2] in bfloat16, "parameter": [[7]]}}, by
 * torch 2.15 with _use_new_zipfile_serialization=False. */
static void check_old_pickle(void)
{
	static const char file[] = "tests/fuzz/seeds/pickle/old.pt";
	struct weights *w = NULL;
	struct tensor t;
	float row[4], a[12];
	char path[300];

	CHECK("a pickle without zip", weights_open_file(file, &w) == STATUS_OK && weights_count(w) == 4);
	if (!w)
		return;
	CHECK("its shapes", weights_find(w, "a", 2, (int64_t[]){ 3, 4 }, &t) == STATUS_OK &&
				    weights_find(w, "parameter", 2, (int64_t[]){ 1, 1 }, &t) == STATUS_OK &&
				    weights_find(w, "half", 1, (int64_t[]){ 2 }, &t) == STATUS_OK &&
				    t.dtype == DTYPE_BF16);
	weights_floats(w, "a", a);
	weights_floats(w, "row", row);
	CHECK("its values", a[0] == 0 && a[11] == 11 && row[0] == 4 && row[3] == 7);
	weights_close(w);
	snprintf(path, sizeof path, "%s/named.safetensors", new_folder("content"));
	CHECK("... whatever its name", !symlink(realpath(file, (char[4096]){ 0 }), path) &&
					       weights_open_file(path, &w) == STATUS_OK && weights_count(w) == 4);
	weights_close(w);
}

static void check_folders(void)
{
	const char *dir = new_folder("vae");
	struct weights *w = NULL;
	char path[300];

	check_open_fails("/nowhere/at/all", STATUS_NO_MODEL, "/nowhere/at/all", "no folder");
	check_open_fails(dir, STATUS_NO_MODEL, "model.safetensors", "an empty folder");
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	CHECK("a folder under the name of a file", !mkdir(path, 0700));
	check_open_fails(dir, STATUS_CORRUPT, "regular", "a folder in the place of the file");
	rmdir(path);
	CHECK("a link into nothing", !symlink("nothing", path));
	check_open_fails(
		dir, STATUS_NO_MODEL, "model.safetensors: cannot open: No such file", "a link into nothing is named");
	unlink(path);
	CHECK("a FIFO under the name of a file", !mkfifo(path, 0600));
	check_open_fails(dir, STATUS_CORRUPT, "regular", "a FIFO does not hang");
	unlink(path);
	write_file(dir, "diffusion_pytorch_model.fp16.safetensors", header_a, 4);
	CHECK("a file of another name", weights_open(dir, &w) == STATUS_OK);
	weights_close(w);
	write_file(dir, "diffusion_pytorch_model.fp32.safetensors", header_a, 4);
	check_open_fails(dir, STATUS_NO_MODEL, "2 files with weights", "two files of other names");
	new_folder("vae");
	write_file(dir, "model.safetensors", "{}", 0);
	check_open_fails(dir, STATUS_CORRUPT, "no tensors", "a file without tensors");
	write_file(dir, "model.safetensors", "{\"a\\nb\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1);
	check_open_fails(dir, STATUS_CORRUPT, "control character", "a name of two lines");
	write_file(dir, "model.safetensors", "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1);
	check_open_fails(dir, STATUS_CORRUPT, "tensor a", "half a byte");
}

/* ---- golden files ------------------------------------------------------------------------------------------------ */

/* Puts one file of a case in its place: a file, a larger (sparse) copy, or a link. */
static void place(const char *golden, const char *path, const json_t *how)
{
	const char *source = json_string_value(json_object_get(how, "file"));
	const char *link = json_string_value(json_object_get(how, "link"));
	char target[400], command[1200];

	snprintf(target, sizeof target, "%s/%s", root, path);
	if (link) {
		if (symlink(link, target))
			exit(1);
		return;
	}
	if (!source)
		return;
	snprintf(command, sizeof command, "cp --no-preserve=mode '%s/%s' '%s'", golden, source, target);
	if (system(command))
		exit(1);
	if (json_object_get(how, "size") && truncate(target, json_integer_value(json_object_get(how, "size"))))
		exit(1);
}

static bool any_word(const json_t *words, bool all)
{
	size_t found = 0;

	for (size_t i = 0; i < json_array_size(words); i++)
		found += strcasestr(status_text(), json_string_value(json_array_get(words, i))) != NULL;
	return all ? found == json_array_size(words) : found > 0;
}

/* What a model does with a component: opens it and asks for its tensors. */
static enum status open_and_find(const char *dir)
{
	struct weights *w = NULL;
	struct tensor t;
	enum status status = weights_open(dir, &w);

	if (status == STATUS_OK)
		status = weights_find(w, "decoder.conv_in.weight", 4, (int64_t[]){ 8, 16, 3, 3 }, &t);
	weights_close(w);
	return status;
}

static bool ends_with(const char *name, const char *suffix)
{
	size_t len = strlen(name), suffix_len = strlen(suffix);

	return len >= suffix_len && !strcmp(name + len - suffix_len, suffix);
}

/* Tokenizers and configurations have tests of their own; NaN is found when the kernels pack a tensor. */
static bool about_weights(const json_t *bad)
{
	const char *path;
	json_t *how;

	json_object_foreach (json_object_get(bad, "replace"), path, how)
		if (!strchr(path, '/') || (ends_with(path, ".json") && !ends_with(path, ".index.json")))
			return false;
	return strcmp(json_string_value(json_object_get(bad, "name")), "weights-nan") != 0;
}

static void check_bad_case(const char *golden, const json_t *bad)
{
	const char *name = json_string_value(json_object_get(bad, "name"));
	const json_t *answer = json_object_get(bad, "answer");
	const char *path = NULL, *dir;
	char component[40] = "";
	json_t *how;
	enum status status;
	bool good;

	json_object_foreach (json_object_get(bad, "replace"), path, how)
		snprintf(component, sizeof component, "%.*s", (int)strcspn(path, "/"), path);
	dir = new_folder(component);
	json_object_foreach (json_object_get(bad, "replace"), path, how)
		place(golden, path, how);
	status = open_and_find(dir);
	good = status != STATUS_OK && any_word(json_object_get(answer, "names"), true) &&
	       any_word(json_object_get(answer, "says"), false) && !strncmp(status_text(), dir, strlen(dir)) &&
	       !strchr(status_text(), '\n');
	check_case(good, status == STATUS_OK ? "accepted" : status_text(), "%s", name);
}

static void check_bad_files(void)
{
	char golden[300], path[400];
	json_t *manifest = NULL;
	const json_t *bad;
	size_t i;
	int n = 0;

	snprintf(golden, sizeof golden, "%s/units/safetensors_bad", check_golden());
	snprintf(path, sizeof path, "%s/manifest.json", golden);
	if (json_read_object(path, &manifest) == STATUS_NO_MODEL) {
		printf("skip - malformed files: %s\n", status_text());
		return;
	}
	json_array_foreach (json_object_get(manifest, "cases"), i, bad) {
		if (about_weights(bad)) {
			check_bad_case(golden, bad);
			n++;
		}
	}
	CHECK("the manifest has the known cases", n >= 68);
	snprintf(path, sizeof path, "%s/base/vae", golden);
	CHECK("the model without a fault", open_and_find(path) == STATUS_OK);
	json_decref(manifest);
}

int main(void)
{
	if (!mkdtemp(root))
		return 1;
	check_written();
	check_release();
	check_odd_headers();
	check_shards();
	check_folders();
	check_old_pickle();
	check_bad_files();
	new_folder(".");
	rmdir(root);
	return check_result();
}
