/* tokenizer_kinds: T5 and CLIP tokenizers in files of our own: what the golden ones do not reach, and malformed files.
 */
#include <string.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "engine/json.h"
#include "engine/tokenizer.h"
#include "tests/unit/check.h"

/* A folder with one or two files; `folder` is filled in. */
struct made {
	char folder[40], path[2][80];
};

static void make_file(char *path, const char *folder, const char *name, const void *data, size_t len)
{
	FILE *file;

	snprintf(path, 80, "%s/%s", folder, name);
	file = fopen(path, "wb");
	if (file) {
		fwrite(data, 1, len, file);
		fclose(file);
	}
}

static void make(struct made *m, const char *name, const void *data, size_t len)
{
	*m = (struct made){ .folder = "/tmp/promptfs-kinds-XXXXXX" };
	if (mkdtemp(m->folder))
		make_file(m->path[0], m->folder, name, data, len);
}

static void add(struct made *m, const char *name, const char *text)
{
	make_file(m->path[1], m->folder, name, text, strlen(text));
}

static void unmake(struct made *m)
{
	for (int i = 0; i < 2; i++)
		if (*m->path[i])
			unlink(m->path[i]);
	rmdir(m->folder);
}

struct wanted {
	const char *name, *text;
	int count;
	int64_t id[8];
};

static void check_padded(const struct tokenizer *t, const struct wanted *w, int n)
{
	for (int i = 0; i < n; i++) {
		struct token_ids ids = { 0 };
		bool good = tokenizer_encode_padded(t, w[i].text, strlen(w[i].text), w[i].count, &ids) == STATUS_OK &&
			    ids.count == w[i].count;

		for (int j = 0; good && j < w[i].count; j++)
			good = ids.id[j] == w[i].id[j];
		check_case(good, "other ids", "%s", w[i].name);
		for (int j = 0; !good && j < ids.count; j++)
			printf("# %lld\n", (long long)ids.id[j]);
		token_ids_free(&ids);
	}
}

/* ---- Unigram ----------------------------------------------------------------------------------------------------- */

/* The table has one entry: A becomes a. */
#define VOCAB                                                                                                          \
	"[[\"<pad>\",0],[\"</s>\",0],[\"<unk>\",0],[\"\\u2581\",-2],[\"\\u2581a\",-1.5],[\"a\",-3],[\"b\",-3.5],"      \
	"[\"ab\",-2.5],[\"\\u2581ab\",-4],[\"c\",-3.2]]"
#define UNIGRAM(more, vocab)                                                                                           \
	"{\"added_tokens\":[{\"id\":1,\"content\":\"</s>\"},"                                                          \
	"{\"id\":10,\"content\":\"<x>\",\"lstrip\":true,\"rstrip\":true}]," more "\"model\":{\"type\":\"Unigram\","    \
	"\"unk_id\":2,\"vocab\":" vocab "}}"

static void check_unigram(void)
{
	static const struct wanted cases[] = {
		{ "the likeliest way, cut before </s>", "ab abab", 5, { 8, 8, 7, 1, 0 } },
		{ "cutting keeps </s>", "ab ab", 2, { 8, 1 } },
		{ "only </s>", "ab", 1, { 1 } },
		{ "neighbours that are unknown make one", "axyzb", 6, { 4, 2, 6, 1, 0, 0 } },
		{ "no space, one mark",
			"a\xe2\x96\x81"
			"a",
			4, { 4, 4, 1, 0 } },
		{ "a token takes the spaces around it", "a <x> \t ab", 5, { 4, 10, 8, 1, 0 } },
		{ "the empty text", "", 2, { 1, 0 } },
		{ "spaces alone", " \n\xe3\x80\x80", 2, { 1, 0 } },
	};
	struct tokenizer *t = NULL;
	struct token_ids ids = { 0 };
	struct made m;

	make(&m, "tokenizer.json", UNIGRAM("", VOCAB), sizeof UNIGRAM("", VOCAB) - 1);
	if (tokenizer_open(m.folder, &t) == STATUS_OK) {
		check_padded(t, cases, (int)(sizeof cases / sizeof cases[0]));
		CHECK("no room for </s>", tokenizer_encode_padded(t, "a", 1, 0, &ids) == STATUS_INVALID);
		CHECK("size", tokenizer_size(t) == 11);
	} else {
		check_case(false, status_text(), "open a Unigram tokenizer");
	}
	tokenizer_close(t);
	unmake(&m);
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void add_base64(struct bytes *out, const unsigned char *data, size_t len)
{
	for (size_t i = 0; i < len; i += 3) {
		unsigned bits = data[i] << 16 | (i + 1 < len ? data[i + 1] << 8 : 0) | (i + 2 < len ? data[i + 2] : 0);

		for (size_t j = 0; j < 4; j++)
			bytes_print(out, "%c", i + j > len ? '=' : base64_digits[bits >> (18 - 6 * j) & 63]);
	}
}

/* A double array with one entry, "A" -> "a": the root's children begin at 1, A's unit is 1 ^ 0x41, its value next to
 * that. */
static void make_table(struct bytes *out)
{
	enum { UNITS = 0x42 };
	unsigned char table[4 + 4 * UNITS + 2] = { 4 * UNITS & 255, 4 * UNITS >> 8 };
	unsigned char *unit = table + 4;

	unit[1] = 4;            /* offset 1 */
	unit[4 * 0x40] = 'A';   /* label */
	unit[4 * 0x40 + 1] = 5; /* a leaf, offset 1 */
	unit[4 * 0x41 + 3] = 0x80;
	memcpy(table + sizeof table - 2, "a", 2);
	add_base64(out, table, sizeof table);
}

static void check_charsmap(void)
{
	static const struct wanted cases[] = {
		{ "a character of the table", "Ab", 3, { 8, 1, 0 } },
		{ "a short grapheme loses what follows its entry",
			"A\xcc\x81"
			"b",
			3, { 8, 1, 0 } },
		{ "a long one does not", "A\xcc\x81\xcc\x81\xcc\x81", 4, { 4, 2, 1, 0 } },
	};
	struct bytes table = { 0 }, text = { 0 };
	struct tokenizer *t = NULL;
	struct made m;

	make_table(&table);
	bytes_print(&text, "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"%s\"},%s", table.data,
		&UNIGRAM("", VOCAB)[1]);
	make(&m, "tokenizer.json", text.data, text.len);
	if (tokenizer_open(m.folder, &t) == STATUS_OK)
		check_padded(t, cases, (int)(sizeof cases / sizeof cases[0]));
	else
		check_case(false, status_text(), "open a tokenizer with a table");
	tokenizer_close(t);
	unmake(&m);
	bytes_free(&text);
	bytes_free(&table);
}

/* ---- SentencePiece ----------------------------------------------------------------------------------------------- */

/* The same model from both of its files. */
static void check_spiece(void)
{
	static const char text[] =
		"A photo of caf\xc3\xa9s \xef\xbc\xa1\xe4\xb8\xad\xe6\x96\x87, 85mm f/1.8\n\xef\xac\x81x";
	struct token_ids ids[2] = { { 0 }, { 0 } };
	struct tokenizer *t[2] = { NULL, NULL };
	struct bytes file = { 0 };
	char path[400];
	struct made m;

	snprintf(path, sizeof path, "%s/../reference/tokenizers/t5/spiece.model", check_golden());
	if (bytes_read_file(&file, path, 4) != STATUS_OK) {
		printf("skip - SentencePiece: no reference tokenizer\n");
		return;
	}
	make(&m, "spiece.model", file.data, file.len);
	snprintf(path, sizeof path, "%s/../reference/tokenizers/t5", check_golden());
	CHECK("open spiece.model", tokenizer_open(m.folder, &t[0]) == STATUS_OK);
	CHECK("open its tokenizer.json", tokenizer_open(path, &t[1]) == STATUS_OK);
	for (int i = 0; i < 2 && t[0] && t[1]; i++)
		check_case(tokenizer_encode_padded(t[i], text, strlen(text), 40, &ids[i]) == STATUS_OK, status_text(),
			"encode by file %d", i);
	CHECK("both give the same ids",
		ids[0].count == 40 && ids[1].count == 40 && !memcmp(ids[0].id, ids[1].id, 40 * sizeof *ids[0].id));
	CHECK("both have the same tokens",
		t[0] && t[1] && tokenizer_size(t[0]) == tokenizer_size(t[1]) &&
			tokenizer_find(t[0], "<extra_id_7>") == tokenizer_find(t[1], "<extra_id_7>"));
	for (int i = 0; i < 2; i++) {
		token_ids_free(&ids[i]);
		tokenizer_close(t[i]);
	}
	unmake(&m);
	bytes_free(&file);
}

/* ---- malformed files --------------------------------------------------------------------------------------------- */

struct bad {
	const char *name, *file, *text;
	size_t len; /* 0: up to the NUL */
	const char *second, *second_text;
	enum status status;
	const char *says;
};

#define CLIP_VOCAB "{\"<|startoftext|>\":0,\"<|endoftext|>\":1,\"a\":2,\"a</w>\":3}"

static const struct bad bad[] = {
	{ "vocab is an object", "tokenizer.json", UNIGRAM("", "{}"), 0, NULL, NULL, STATUS_CORRUPT, "list" },
	{ "a token without score", "tokenizer.json", UNIGRAM("", "[[\"a\"]]"), 0, NULL, NULL, STATUS_CORRUPT,
		"token 0" },
	{ "an empty token", "tokenizer.json", UNIGRAM("", "[[\"\",0]]"), 0, NULL, NULL, STATUS_CORRUPT, "0 bytes" },
	{ "a huge score", "tokenizer.json", UNIGRAM("", "[[\"a\",1e300]]"), 0, NULL, NULL, STATUS_CORRUPT, "score" },
	{ "unk_id beyond the vocab", "tokenizer.json", UNIGRAM("", "[[\"a\",0]]"), 0, NULL, NULL, STATUS_CORRUPT,
		"unk_id" },
	{ "a table that is no base64", "tokenizer.json",
		UNIGRAM("\"normalizer\":{\"precompiled_charsmap\":\"?\"},", VOCAB), 0, NULL, NULL, STATUS_CORRUPT,
		"base64" },
	{ "a table longer than its text", "tokenizer.json",
		UNIGRAM("\"normalizer\":{\"precompiled_charsmap\":\"//8AAAAA\"},", VOCAB), 0, NULL, NULL,
		STATUS_CORRUPT, "precompiled_charsmap" },
	{ "byte_fallback", "tokenizer.json", "{\"model\":{\"type\":\"Unigram\",\"byte_fallback\":true}}", 0, NULL, NULL,
		STATUS_UNSUPPORTED, "byte_fallback" },
	{ "a piece longer than the file", "spiece.model", "\x0a\x7f\x0a\x01", 0, NULL, NULL, STATUS_CORRUPT,
		"SentencePiece" },
	{ "a number without end", "spiece.model", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 0, NULL, NULL,
		STATUS_CORRUPT, "SentencePiece" },
	{ "no unknown piece", "spiece.model", "\x0a\x03\x0a\x01\x61", 0, NULL, NULL, STATUS_CORRUPT, "unknown" },
	{ "a piece without text", "spiece.model", "\x0a\x02\x18\x02", 0, NULL, NULL, STATUS_CORRUPT, "0 bytes" },
	{ "a BPE model", "spiece.model", "\x12\x02\x18\x02", 0, NULL, NULL, STATUS_UNSUPPORTED, "Unigram" },
	{ "a malformed table", "spiece.model", "\x1a\x06\x12\x04\x01\x00\x00\x00", 8, NULL, NULL, STATUS_CORRUPT,
		"charsmap" },
	{ "no merges.txt", "vocab.json", CLIP_VOCAB, 0, NULL, NULL, STATUS_NO_MODEL, "merges.txt" },
	{ "no token to begin with", "vocab.json", "{\"a\":0}", 0, "merges.txt", "", STATUS_CORRUPT, "bos_token" },
	{ "a merge of one", "vocab.json", CLIP_VOCAB, 0, "merges.txt", "#version: 0.2\na\n", STATUS_CORRUPT,
		"merge 0" },
	{ "a merge of tokens that are none", "vocab.json", CLIP_VOCAB, 0, "merges.txt", "a b\n", STATUS_CORRUPT,
		"merge 0" },
	{ "merges that are no UTF-8", "vocab.json", CLIP_VOCAB, 0, "merges.txt", "a \xff\n", STATUS_CORRUPT, "UTF-8" },
	{ "bytes without a token", "vocab.json", CLIP_VOCAB, 0, "merges.txt", "", STATUS_UNSUPPORTED, "byte" },
	{ "a special token that is a number", "tokenizer.json", UNIGRAM("", VOCAB), 0, "tokenizer_config.json",
		"{\"pad_token\":3}", STATUS_CORRUPT, "pad_token" },
	{ "an id that is no number", "tokenizer.json", UNIGRAM("", VOCAB), 0, "tokenizer_config.json",
		"{\"added_tokens_decoder\":{\"x\":{\"content\":\"a\"}}}", STATUS_CORRUPT, "added_tokens_decoder" },
	{ "a special token that nothing knows", "tokenizer.json", UNIGRAM("", VOCAB), 0, "special_tokens_map.json",
		"{\"pad_token\":\"<nothing>\"}", STATUS_CORRUPT, "<nothing>" },
	{ "another id for a token", "tokenizer.json", UNIGRAM("", VOCAB), 0, "tokenizer_config.json",
		"{\"added_tokens_decoder\":{\"4\":{\"content\":\"<pad>\"}}}", STATUS_CORRUPT, "<pad>" },
	{ "no file that we know", "vocab.txt", "a", 0, NULL, NULL, STATUS_NO_MODEL, "spiece.model" },
};

static void check_bad(const struct bad *b)
{
	struct tokenizer *t = NULL;
	enum status status;
	struct made m;

	make(&m, b->file, b->text, b->len ? b->len : strlen(b->text));
	if (b->second)
		add(&m, b->second, b->second_text);
	status = tokenizer_open(m.folder, &t);
	check_case(status == b->status && strstr(status_text(), b->says) &&
			   !strncmp(status_text(), m.folder, strlen(m.folder)),
		status ? status_text() : "accepted", "refused: %s", b->name);
	tokenizer_close(t);
	unmake(&m);
}

int main(void)
{
	check_unigram();
	check_charsmap();
	check_spiece();
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		check_bad(&bad[i]);
	return check_result();
}
