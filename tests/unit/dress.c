/* finished pictures: the size that stat promises, what they carry, and that it pastes back; the remembered hashes. */
#include "fs/dress.h"

#include <string.h>
#include <unistd.h>

#include "engine/png.h"
#include "fs/hashes.h"
#include "fs/key.h"
#include "fs/prompt.h"
#include "tests/unit/check.h"

static struct model model = { .name = "zit", .defaults = { 64, 32, 4, 0 }, .size_multiple = 1, .size_max = 4096 };

/* The text of an iTXt chunk, malloc'ed; NULL when there is none. */
static char *text_of(const struct bytes *png, const char *keyword)
{
	for (size_t at = 8; at + 12 <= png->len;) {
		const unsigned char *c = png->data + at;
		size_t len = (size_t)c[0] << 24 | (size_t)c[1] << 16 | (size_t)c[2] << 8 | c[3],
		       head = strlen(keyword) + 5;

		if (memcmp(c + 4, "iTXt", 4) == 0 && len >= head && strcmp((const char *)c + 8, keyword) == 0)
			return strndup((const char *)c + 8 + head, len - head);
		at += len + 12;
	}
	return NULL;
}

static enum status make(const char *prompt, struct recipe *r, struct bytes *bare)
{
	static unsigned char pixels[64 * 32 * 3];

	for (size_t i = 0; i < sizeof pixels; i++)
		pixels[i] = (unsigned char)(i * 7);
	TRY(recipe_resolve(&(struct recipe_fields){ .prompt = (char *)prompt, .sampler = (char *)"euler" }, &model, r));
	return png_encode(pixels, r->width, r->height, bare);
}

static void check_prompt(const char *label, const char *prompt)
{
	struct bytes bare = { 0 }, png = { 0 }, text = { 0 };
	struct recipe_fields fields = { 0 };
	struct recipe r = { 0 }, back = { 0 };
	uint64_t unknown = 0, known = 0;
	char key[RECIPE_KEY_LEN + 1] = "", again[RECIPE_KEY_LEN + 1] = "?", *parameters, *json;

	*model.hash = 0;
	check_case(make(prompt, &r, &bare) == STATUS_OK && dress_size(&r, &model, &unknown) == STATUS_OK, status_text(),
		"made: %s", label);
	strcpy(model.hash, "0123456789abcdef0123456789abcdef");
	check_case(dress_size(&r, &model, &known) == STATUS_OK && known == unknown, NULL,
		"the hash does not move the size: %s", label);
	check_case(dress_png(&r, &model, bare.data, bare.len, &png) == STATUS_OK && png.len == known, NULL,
		"the size is exact: %s", label);
	parameters = text_of(&png, "parameters");
	json = text_of(&png, "promptfs");
	check_case(parameters && json && strstr(json, model.hash) && text_of(&png, "Other") == NULL, NULL,
		"it carries texts: %s", label);
	check_case(parameters && prompt_parse(parameters, strlen(parameters), &fields) == STATUS_OK &&
			   recipe_resolve(&fields, &model, &back) == STATUS_OK &&
			   key_make(&r, model.hash, DTYPE_F32, &text, key) == STATUS_OK &&
			   key_make(&back, model.hash, DTYPE_F32, &text, again) == STATUS_OK && strcmp(key, again) == 0,
		status_text(), "what it carries gives the same key: %s", label);
	free(parameters);
	free(json);
	recipe_free(&r);
	recipe_free(&back);
	recipe_fields_free(&fields);
	bytes_free(&bare);
	bytes_free(&png);
	bytes_free(&text);
}

static void check_keys(void)
{
	struct recipe r = { .prompt = (char *)"a", .width = 1, .height = 1, .steps = 1, .sampler = "euler" };
	struct bytes text = { 0 };
	char one[RECIPE_KEY_LEN + 1], two[RECIPE_KEY_LEN + 1];

	CHECK("no key without a hash", key_make(&r, "", DTYPE_F32, &text, one) == STATUS_INTERNAL);
	key_make(&r, "0123456789abcdef0123456789abcdef", DTYPE_F32, &text, one);
	key_make(&r, "0123456789abcdef0123456789abcdef", DTYPE_BF16, &text, two);
	CHECK("precisions have keys of their own", strcmp(one, two) != 0);
	key_make(&r, "1123456789abcdef0123456789abcdef", DTYPE_F32, &text, two);
	CHECK("models have keys of their own", strcmp(one, two) != 0);
	bytes_free(&text);
}

static void check_hashes(void)
{
	char dir[] = "/tmp/promptfs-hashes-XXXXXX", path[64], hash[MODEL_HASH_LEN + 1], id[MODEL_HASH_LEN + 1],
	     value[MODEL_HASH_LEN + 1];
	bool good = true;
	FILE *f;

	if (!mkdtemp(dir))
		exit(2);
	snprintf(path, sizeof path, "%s/models", dir);
	CHECK("hashes: none yet", !hashes_recall(dir, "0123456789abcdef0123456789abcdef", hash));
	for (unsigned i = 0; i < 300; i++) {
		snprintf(id, sizeof id, "%032x", i % 200);
		snprintf(value, sizeof value, "%032x", i * 3);
		good &= hashes_remember(dir, id, value) == STATUS_OK && hashes_recall(dir, id, hash) &&
			strcmp(hash, value) == 0;
	}
	CHECK("hashes: remembered", good);
	snprintf(id, sizeof id, "%032x", 150);
	CHECK("hashes: old ones too", hashes_recall(dir, id, hash) && strtoul(hash, NULL, 16) == 450);
	f = fopen(path, "a");
	fputs("garbage\n\xff\xff", f);
	fclose(f);
	CHECK("hashes: garbage is passed over", hashes_recall(dir, id, hash) &&
							hashes_remember(dir, id, id) == STATUS_OK &&
							hashes_recall(dir, id, hash) && strcmp(hash, id) == 0);
	CHECK("hashes: what is none is refused",
		hashes_remember(dir, id, "../etc") == STATUS_INTERNAL && !hashes_recall(dir, "x", hash));
	CHECK("hashes: a missing folder is said", hashes_remember("/nonexistent", id, id) == STATUS_IO);
	unlink(path);
	CHECK("hashes: nothing else is left", rmdir(dir) == 0);
}

int main(void)
{
	check_prompt("plain", "a red panda");
	check_prompt("empty", "");
	check_prompt("awkward", "a\nNegative prompt: b ");
	check_prompt("not ASCII", "\xe7\x86\x8a\xe7\x8c\xab \"quoted\", commas");
	check_keys();
	check_hashes();
	return check_result();
}
