/* tokenizer_clip: vocab.json and merges.txt as a tokenizer.json.
 *
 * Reference: transformers, models/clip/tokenization_clip.py, which builds the fast tokenizer the same way.  The older
 * Python tokenizer (and OpenAI's own) differs on many texts: it undoes mojibake and HTML entities and sets Chinese
 * characters apart.
 */
#include "engine/tokenizer_clip.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "engine/bytes.h"
#include "engine/json.h"

enum { MERGES_MAX_MIB = 16 };

static enum status no_memory(const char *dir)
{
	return status_fail(STATUS_NO_MEMORY, "%s: no memory for a tokenizer", dir);
}

static enum status join(char path[PATH_MAX], const char *dir, const char *name)
{
	if (snprintf(path, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
		return status_fail(STATUS_INVALID, "%.100s...: the path is too long", dir);
	return STATUS_OK;
}

/* One pair a line, after a line with the version. */
static enum status split_merges(const char *path, const struct bytes *text, json_t *list)
{
	const char *line = (char *)text->data, *end = line + text->len, *next;

	for (int number = 1; line < end; line = next + 1, number++) {
		next = memchr(line, '\n', (size_t)(end - line));
		if (!next)
			next = end;
		if (next == line || (number == 1 && next - line > 8 && !strncmp(line, "#version", 8)))
			continue;
		if (json_array_append_new(list, json_stringn(line, (size_t)(next - line))))
			return status_fail(STATUS_CORRUPT, "%s: line %d is no UTF-8", path, number);
	}
	return STATUS_OK;
}

static enum status read_merges(const char *path, json_t **out)
{
	struct bytes text = { 0 };
	json_t *list = json_array();
	enum status status = list ? bytes_read_file(&text, path, MERGES_MAX_MIB) : no_memory(path);

	if (status == STATUS_OK)
		status = split_merges(path, &text, list);
	bytes_free(&text);
	if (status != STATUS_OK) {
		json_decref(list);
		return status;
	}
	*out = list;
	return STATUS_OK;
}

static enum status token_id(const char *path, const json_t *vocab, const json_t *special, const char *key,
	const char *usual, const char **token, int64_t *id)
{
	const char *named = json_string_value(json_object_get(special, key));
	const json_t *value;

	*token = named ? named : usual;
	value = json_object_get(vocab, *token);
	if (!json_is_integer(value))
		return status_fail(STATUS_CORRUPT, "%s: the %s %.40s is not in the vocabulary", path, key, *token);
	*id = json_integer_value(value);
	return STATUS_OK;
}

/* Takes over vocab and merges. */
static enum status build(const char *path, const json_t *special, json_t *vocab, json_t *merges, json_t **out)
{
	static const char pattern[] =
		"<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
	const char *begin, *end;
	int64_t begin_id = 0, end_id = 0;
	enum status status = token_id(path, vocab, special, "bos_token", "<|startoftext|>", &begin, &begin_id);

	if (status == STATUS_OK)
		status = token_id(path, vocab, special, "eos_token", "<|endoftext|>", &end, &end_id);
	if (status != STATUS_OK) {
		json_decref(vocab);
		json_decref(merges);
		return status;
	}
	*out = json_pack("{s:{s:s,s:s,s:o,s:o},"
			 "s:{s:s,s:[{s:s},{s:s,s:{s:s},s:s},{s:s}]},"
			 "s:{s:s,s:[{s:s,s:{s:s},s:s,s:b},{s:s,s:b,s:b}]},"
			 "s:{s:s,s:[s,I],s:[s,I]}}",
		"model", "type", "BPE", "end_of_word_suffix", "</w>", "vocab", vocab, "merges", merges, "normalizer",
		"type", "Sequence", "normalizers", "type", "NFC", "type", "Replace", "pattern", "Regex", "\\s+",
		"content", " ", "type", "Lowercase", "pre_tokenizer", "type", "Sequence", "pretokenizers", "type",
		"Split", "pattern", "Regex", pattern, "behavior", "Removed", "invert", 1, "type", "ByteLevel",
		"add_prefix_space", 0, "use_regex", 1, "post_processor", "type", "RobertaProcessing", "sep", end,
		(json_int_t)end_id, "cls", begin, (json_int_t)begin_id);
	return *out ? STATUS_OK : no_memory(path);
}

enum status tokenizer_clip_json(const char *dir, const json_t *special, json_t **out)
{
	char vocab_path[PATH_MAX], merges_path[PATH_MAX];
	json_t *vocab = NULL, *merges = NULL;
	enum status status;

	TRY(join(vocab_path, dir, "vocab.json"));
	TRY(join(merges_path, dir, "merges.txt"));
	TRY(json_read_object(vocab_path, &vocab));
	status = read_merges(merges_path, &merges);
	if (status != STATUS_OK) {
		json_decref(vocab);
		return status;
	}
	return build(vocab_path, special, vocab, merges, out);
}
