/* memo: see memo.h. */
#include "engine/memo.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine/bytes.h"
#include "engine/memo_files.h"

struct entry {
	XXH128_hash_t key;
	int n;
	size_t len;                         /* of all tensors' bytes */
	struct tensor tensor[MEMO_TENSORS]; /* malloc'ed, host */
};

struct memo {
	int n;
	size_t len;
	struct entry entry[MEMO_ENTRIES]; /* the last used first */
};

enum status memo_new(struct memo **out)
{
	*out = calloc(1, sizeof **out);
	return *out ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for prompts");
}

static void entry_free(struct entry *e)
{
	for (int i = 0; i < e->n; i++)
		free(e->tensor[i].data);
}

void memo_free(struct memo *m)
{
	for (int i = 0; m && i < m->n; i++)
		entry_free(&m->entry[i]);
	free(m);
}

/* Of the recipe without what encoders do not read. */
static enum status make_key(const struct recipe *r, int sign, XXH128_hash_t *out)
{
	struct recipe words = *r;
	struct bytes text = { 0 };
	enum status s;

	words.prompt = sign == 0 ? r->prompt : r->negative;
	words.negative = NULL;
	words.width = words.height = words.steps = 0;
	words.guidance = 0;
	words.sampler[0] = 0;
	words.seed = 0;
	words.rng = 0;
	s = recipe_canonical(&words, sign == 0 ? "prompt" : "negative", "", RECIPE_BY_HASH, &text);
	if (s == STATUS_OK)
		*out = XXH3_128bits(text.data, text.len);
	bytes_free(&text);
	return s;
}

/* Moves entry i to the front. */
static void use(struct memo *m, int i)
{
	struct entry used = m->entry[i];

	memmove(&m->entry[1], &m->entry[0], (size_t)i * sizeof m->entry[0]);
	m->entry[0] = used;
}

static void forget_last(struct memo *m)
{
	struct entry *last = &m->entry[--m->n];

	m->len -= last->len;
	entry_free(last);
}

static void insert(struct memo *m, const struct entry *fresh)
{
	while (m->n == MEMO_ENTRIES || m->len + fresh->len > MEMO_BYTES)
		forget_last(m);
	m->entry[m->n++] = *fresh;
	m->len += fresh->len;
	use(m, m->n - 1);
}

/* ---- on disk ----------------------------------------------------------------------------------------------------- */

/* Whether the entry may be told apart by content alone: of every LoRA and file the hash is known. */
static bool is_hashed(const struct recipe *r)
{
	for (int i = 0; i < r->n_loras; i++)
		if (!*r->loras[i].hash)
			return false;
	for (int i = 0; i < r->n_files; i++)
		if (!*r->files[i].hash)
			return false;
	return true;
}

/* Of the words, the model's files (encoders, tokenizers, configurations) and what computes.  False: nothing of this
 * job is on disk. */
static bool file_key(const struct run *run, XXH128_hash_t words, int n, char out[MEMO_KEY_LEN + 1])
{
	char arithmetic[512], text[768];

	if (!run->texts || !is_hashed(run->recipe))
		return false;
	kernels_arithmetic(run->k, arithmetic, sizeof arithmetic);
	snprintf(text, sizeof text, "%s\n%s\n%d %016llx%016llx", arithmetic, run->identity, n,
		(unsigned long long)words.high64, (unsigned long long)words.low64);
	recipe_key(text, strlen(text), out);
	return true;
}

/* From disk into the memo; false: not there. */
static bool fetch(struct memo *m, const struct run *run, XXH128_hash_t words, int n)
{
	struct entry fresh = { .key = words, .n = n };
	char key[MEMO_KEY_LEN + 1];

	if (!file_key(run, words, n, key) || !memo_files_read(run->texts, key, n, fresh.tensor))
		return false;
	for (int i = 0; i < n; i++)
		fresh.len += (size_t)tensor_count(&fresh.tensor[i]) * dtype_size(fresh.tensor[i].dtype);
	if (fresh.len > MEMO_BYTES) {
		entry_free(&fresh);
		return false;
	}
	insert(m, &fresh);
	return true;
}

/* ---- the memo ---------------------------------------------------------------------------------------------------- */

enum status memo_recall(struct memo *m, struct run *run, int sign, int n, struct tensor *out, bool *found)
{
	struct tensor taken[MEMO_TENSORS];
	XXH128_hash_t key;
	int i = 0;

	*found = false;
	if (run->trace)
		return STATUS_OK;
	TRY(make_key(run->recipe, sign, &key));
	while (i < m->n && !(XXH128_isEqual(m->entry[i].key, key) && m->entry[i].n == n))
		i++;
	if (i < m->n)
		use(m, i);
	else if (!fetch(m, run, key, n))
		return STATUS_OK;
	for (int j = 0; j < n; j++) {
		const struct tensor *kept = &m->entry[0].tensor[j];

		TRY(arena_take(run->arena, kept->dtype, kept->rank, kept->dim, &taken[j]));
		TRY(kernels_upload(run->k, kept, taken[j]));
	}
	memcpy(out, taken, (size_t)n * sizeof *out);
	*found = true;
	return STATUS_OK;
}

/* The tensors on the host; on failure e is as far as it got. */
static enum status copy(struct kernels *k, int n, const struct tensor *tensors, struct entry *e)
{
	for (int i = 0; i < n; i++) {
		struct tensor *t = &e->tensor[i];

		*t = tensors[i];
		t->data = malloc((size_t)tensor_count(t) * dtype_size(t->dtype) + 1);
		if (!t->data)
			return status_fail(STATUS_NO_MEMORY, "no memory to keep a prompt");
		e->n++;
		TRY(kernels_download(k, tensors[i], t));
	}
	return STATUS_OK;
}

enum status memo_keep(struct memo *m, struct run *run, int sign, int n, const struct tensor *tensors)
{
	struct entry fresh = { 0 };
	char key[MEMO_KEY_LEN + 1];
	enum status s;

	for (int i = 0; i < n; i++)
		fresh.len += (size_t)tensor_count(&tensors[i]) * dtype_size(tensors[i].dtype);
	if (run->trace || fresh.len > MEMO_BYTES)
		return STATUS_OK;
	TRY(make_key(run->recipe, sign, &fresh.key));
	s = copy(run->k, n, tensors, &fresh);
	if (s != STATUS_OK) {
		entry_free(&fresh);
		return s;
	}
	if (file_key(run, fresh.key, n, key))
		memo_files_write(run->texts, key, n, fresh.tensor);
	insert(m, &fresh);
	return STATUS_OK;
}
