/* content: hashes and identities of files and folders, and what a key hashes beside the model: files that sets name,
 * and the prior that lies beside Kandinsky's decoder. */
#include "engine/content.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/model.h"
#include "fs/contents.h"
#include "fs/key.h"
#include "tests/unit/check.h"

static char top[] = "/tmp/promptfs-content-XXXXXX";

static const char *path_of(const char *name)
{
	static char path[4][512];
	static int i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof path[i], "%s/%s", top, name);
	return path[i];
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(path_of(name), "we");

	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		check_case(false, NULL, "%s is written", name);
}

static bool hash_of(const char *name, char hash[CONTENT_LEN + 1])
{
	const char *path = path_of(name);

	return content_hash(1, &path, hash) == STATUS_OK && strlen(hash) == CONTENT_LEN;
}

static bool identity_of(const char *name, char identity[CONTENT_LEN + 1])
{
	const char *path = path_of(name);

	return content_identify(1, &path, identity, NULL) == STATUS_OK && strlen(identity) == CONTENT_LEN;
}

static void check_files(void)
{
	char a[CONTENT_LEN + 1], b[CONTENT_LEN + 1], c[CONTENT_LEN + 1];

	put("a", "one");
	put("b", "one");
	CHECK("equal content has equal hashes", hash_of("a", a) && hash_of("b", b) && strcmp(a, b) == 0);
	CHECK("but other identities", identity_of("a", a) && identity_of("b", b) && strcmp(a, b) != 0);
	CHECK("an identity lasts", identity_of("a", b) && strcmp(a, b) == 0);
	put("b", "two");
	rename(path_of("b"), path_of("a"));
	CHECK("a replaced file has another identity", identity_of("a", b) && strcmp(a, b) != 0);
	put("b", "one");
	CHECK("and another hash", hash_of("a", a) && hash_of("b", b) && strcmp(a, b) != 0);
	mkfifo(path_of("fifo"), 0600);
	CHECK("a FIFO is refused, not waited for", !hash_of("fifo", c));
	CHECK("what is not there has no hash", !hash_of("nothing", c) && !identity_of("nothing", c));
}

static void check_folders(void)
{
	char a[CONTENT_LEN + 1], b[CONTENT_LEN + 1];

	mkdir(path_of("m"), 0700);
	mkdir(path_of("m/part"), 0700);
	put("m/part/w.bin", "one");
	CHECK("a folder without an index", hash_of("m", a));
	put("m/part/w.bin", "two");
	CHECK("its parts count", hash_of("m", b) && strcmp(a, b) != 0);
	put("m/model_index.json", "{\"_class_name\": \"X\", \"part\": [\"a\", \"B\"]}");
	CHECK("so does an index", hash_of("m", a) && strcmp(a, b) != 0);
	put("m/README.md", "hello");
	CHECK("a note does not", hash_of("m", b) && strcmp(a, b) == 0);
	mkdir(path_of("m/other"), 0700);
	put("m/other/w.bin", "one");
	CHECK("nor what the index does not name", hash_of("m", b) && strcmp(a, b) == 0);
	symlink("m", path_of("link"));
	CHECK("a link gives the same hash", hash_of("link", b) && strcmp(a, b) == 0);
}

/* ---- keys ---- */

static struct model model = { .name = "m", .defaults = { 64, 64, 4, 0 }, .size_multiple = 1, .size_max = 4096 };

static bool key_of(const char *file, char key[RECIPE_KEY_LEN + 1])
{
	static const struct config config;
	struct recipe_fields fields = { .prompt = strdup("x"), .sampler = strdup("euler") };
	struct recipe r = { 0 };
	struct bytes text = { 0 };
	bool made = recipe_fields_set(&fields, "vae_file", file) == STATUS_OK &&
		    recipe_resolve(&fields, &model, &r) == STATUS_OK && contents_find(&config, false, &r) == STATUS_OK;

	made = made && (access(file, F_OK) != 0 || key_make(&r, "0123456789abcdef0123456789abcdef", DTYPE_F32, &text,
							   key) == STATUS_INTERNAL);
	check_case(made, NULL, "no key before it was hashed");
	made = made && contents_hash(top, &r) == STATUS_OK && !contents_changed(&r) &&
	       key_make(&r, "0123456789abcdef0123456789abcdef", DTYPE_F32, &text, key) == STATUS_OK;
	bytes_free(&text);
	recipe_fields_free(&fields);
	recipe_free(&r);
	return made;
}

static void check_keys(void)
{
	char a[RECIPE_KEY_LEN + 1], b[RECIPE_KEY_LEN + 1];

	put("v1", "weights");
	put("v2", "weights");
	CHECK("a file counts by its content, not its name",
		key_of(path_of("v1"), a) && key_of(path_of("v2"), b) && strcmp(a, b) == 0);
	put("v2", "others");
	CHECK("other content, another key", key_of(path_of("v2"), b) && strcmp(a, b) != 0);
	CHECK("one that is not there has a key of its own", key_of(path_of("v3"), a) && strcmp(a, b) != 0);
}

static void check_changed(void)
{
	struct recipe r = { 0 };
	static const struct config config;

	put("c", "one");
	CHECK("found", recipe_add_file(&r, "vae_file", path_of("c")) == STATUS_OK &&
			       contents_find(&config, false, &r) == STATUS_OK && !contents_changed(&r));
	put("d", "two");
	rename(path_of("d"), path_of("c"));
	CHECK("a replaced file is noticed", contents_changed(&r));
	recipe_free(&r);
}

/* ---- Kandinsky ---- */

static bool copy_tree(void)
{
	char command[1200];

	snprintf(command, sizeof command, "cp -rL '%s/units/kandinsky-beside' '%s/k'", check_golden(), top);
	return system(command) == 0;
}

static void check_prior(void)
{
	struct model m;
	char hash[MODEL_HASH_LEN + 1], other[MODEL_HASH_LEN + 1], identity[MODEL_HASH_LEN + 1];

	if (access(path_of("k"), F_OK) != 0 && !copy_tree()) {
		printf("skip - kandinsky: no golden configurations\n");
		return;
	}
	check_case(model_open(path_of("k/kandinsky-2-2-decoder-tiny"), NULL, &m) == STATUS_OK, status_text(),
		"a decoder is opened");
	CHECK("its prior lies beside it", strstr(m.beside, "kandinsky-2-2-prior-tiny") != NULL);
	CHECK("it is hashed", model_hash_files(&m, hash) == STATUS_OK);
	snprintf(identity, sizeof identity, "%s", m.identity);
	put("k/kandinsky-2-2-prior-tiny/prior/diffusion_pytorch_model.safetensors", "weights");
	CHECK("another prior, another model", model_hash_files(&m, other) == STATUS_OK && strcmp(hash, other) != 0 &&
						      model_open(m.path, NULL, &m) == STATUS_OK &&
						      strcmp(m.identity, identity) != 0);
}

int main(void)
{
	char command[64];

	if (!mkdtemp(top))
		return 1;
	check_files();
	check_folders();
	check_keys();
	check_changed();
	check_prior();
	snprintf(command, sizeof command, "rm -r '%s'", top);
	return system(command) != 0 || check_result();
}
