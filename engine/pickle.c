/* pickle: a stack machine whose values are described, never made.
 *
 * Opcodes: Lib/pickletools.py of Python; how torch uses them: torch/serialization.py, torch/_utils.py.
 */
#include "engine/pickle.h"

#include <stdlib.h>
#include <string.h>

#include "engine/gguf_blocks.h"
#include "engine/zip.h"

/* A byte may cost a node; checkpoints of 2,000 tensors have 300 kB. */
enum { NAME_LEN_MAX = 255, PROGRAM_MAX = 8 << 20 };

enum kind { NONE, NUMBER, FRACTION, TEXT, TUPLE, LIST, DICT, GLOBAL, STORAGE, TENSOR };

/* Nodes refer to each other by number; 0 is none. */
struct node {
	enum kind kind;
	int64_t number;                  /* NUMBER, GLOBAL: which; STORAGE: how many elements; TENSOR: first element */
	const char *text;                /* TEXT; STORAGE: its member */
	size_t text_len;                 /* not closed by a NUL */
	uint32_t first, last;            /* TUPLE, LIST, DICT: links (a key, then its value) */
	uint32_t type;                   /* STORAGE: a GLOBAL's number */
	uint32_t storage, shape, stride; /* TENSOR */
};

struct link {
	uint32_t node, next;
};

struct machine {
	const unsigned char *at, *end;
	size_t len;
	struct node *node;
	struct link *link;
	uint32_t *stack, *mark, *memo;
	size_t n_nodes, n_links, n_stack, n_marks; /* all arrays have room for len + 2 */
	size_t memo_next;
};

/* ---- what may be named ------------------------------------------------------------------------------------------- */

enum global_use { USE_DICT, USE_TENSOR, USE_PARAMETER, USE_STORAGE };

static const struct global {
	const char *module, *name;
	enum global_use use;
	int size; /* of an element */
	enum dtype dtype;
	const char *type;
	int coding;
} globals[] = {
	{ "collections", "OrderedDict", USE_DICT, 0, 0, NULL, 0 },
	{ "torch._utils", "_rebuild_tensor_v2", USE_TENSOR, 0, 0, NULL, 0 },
	{ "torch._utils", "_rebuild_parameter", USE_PARAMETER, 0, 0, NULL, 0 },
	{ "torch", "FloatStorage", USE_STORAGE, 4, DTYPE_F32, "F32", 0 },
	{ "torch", "HalfStorage", USE_STORAGE, 2, DTYPE_F16, "F16", 0 },
	{ "torch", "BFloat16Storage", USE_STORAGE, 2, DTYPE_BF16, "BF16", 0 },
	{ "torch", "DoubleStorage", USE_STORAGE, 8, DTYPE_OTHER, "F64", GGUF_F64 },
	{ "torch", "LongStorage", USE_STORAGE, 8, DTYPE_I64, "I64", 0 },
	{ "torch", "IntStorage", USE_STORAGE, 4, DTYPE_OTHER, "I32", GGUF_I32 },
	{ "torch", "ShortStorage", USE_STORAGE, 2, DTYPE_OTHER, "I16", GGUF_I16 },
	{ "torch", "CharStorage", USE_STORAGE, 1, DTYPE_OTHER, "I8", GGUF_I8 },
	{ "torch", "ByteStorage", USE_STORAGE, 1, DTYPE_U8, "U8", 0 },
	{ "torch", "BoolStorage", USE_STORAGE, 1, DTYPE_OTHER, "BOOL", GGUF_I8 },
};

static bool text_is(const char *text, size_t len, const char *word)
{
	return len == strlen(word) && !memcmp(text, word, len);
}

/* Text for a message: only what is printable. */
static const char *printable(const char *text, size_t len, char out[80])
{
	size_t n = len < 79 ? len : 79;

	for (size_t i = 0; i < n; i++)
		out[i] = text[i] > ' ' && text[i] < 127 ? text[i] : '?';
	out[n] = 0;
	return out;
}

/* ---- building ---------------------------------------------------------------------------------------------------- */

static enum status fail_damaged(void)
{
	return status_fail(STATUS_CORRUPT, "the pickle in it is damaged");
}

static uint32_t new_node(struct machine *m, enum kind kind)
{
	m->node[++m->n_nodes] = (struct node){ .kind = kind };
	return (uint32_t)m->n_nodes;
}

static enum status push(struct machine *m, uint32_t node)
{
	/* never more than opcodes read */
	if (m->n_stack > m->len)
		return fail_damaged();
	m->stack[m->n_stack++] = node;
	return STATUS_OK;
}

static enum status pop(struct machine *m, uint32_t *out)
{
	/* values below the last mark belong to it */
	if (m->n_stack == 0 || (m->n_marks && m->n_stack <= m->mark[m->n_marks - 1]))
		return fail_damaged();
	*out = m->stack[--m->n_stack];
	return STATUS_OK;
}

static enum status top(struct machine *m, enum kind kind, struct node **out)
{
	if (!m->n_stack || m->node[m->stack[m->n_stack - 1]].kind != kind)
		return fail_damaged();
	*out = &m->node[m->stack[m->n_stack - 1]];
	return STATUS_OK;
}

static void append(struct machine *m, struct node *list, uint32_t node)
{
	uint32_t link = (uint32_t)++m->n_links;

	m->link[link] = (struct link){ node, 0 };
	if (list->last)
		m->link[list->last].next = link;
	else
		list->first = link;
	list->last = link;
}

static enum status push_number(struct machine *m, enum kind kind, int64_t number)
{
	uint32_t node = new_node(m, kind);

	m->node[node].number = number;
	return push(m, node);
}

/* The i-th item of a tuple, list or dictionary; NULL beyond its end. */
static const struct node *item(const struct machine *m, const struct node *list, int i)
{
	uint32_t link = list->first;

	for (; link && i; i--)
		link = m->link[link].next;
	return link ? &m->node[m->link[link].node] : NULL;
}

static const struct node *item_of(const struct machine *m, const struct node *list, int i, enum kind kind)
{
	const struct node *n = item(m, list, i);

	return n && n->kind == kind ? n : NULL;
}

static uint32_t number_of(const struct machine *m, const struct node *n)
{
	return (uint32_t)(n - m->node);
}

/* Moves `n` values of the stack's top into a list. */
static enum status take_items(struct machine *m, struct node *list, size_t n)
{
	if (n > m->n_stack)
		return fail_damaged();
	if (m->n_links + n > m->len)
		return fail_damaged();
	for (size_t i = m->n_stack - n; i < m->n_stack; i++)
		append(m, list, m->stack[i]);
	m->n_stack -= n;
	return STATUS_OK;
}

static enum status push_tuple(struct machine *m, size_t n)
{
	uint32_t tuple = new_node(m, TUPLE);

	TRY(take_items(m, &m->node[tuple], n));
	return push(m, tuple);
}

static enum status take_mark(struct machine *m, size_t *n)
{
	if (!m->n_marks || m->mark[m->n_marks - 1] > m->n_stack)
		return fail_damaged();
	*n = m->n_stack - m->mark[--m->n_marks];
	return STATUS_OK;
}

/* Moves what lies above the mark into the list or dictionary below it. */
static enum status fill(struct machine *m, enum kind kind, size_t n)
{
	struct node *list;

	if (n >= m->n_stack || (kind == DICT && n % 2))
		return fail_damaged();
	list = &m->node[m->stack[m->n_stack - n - 1]];
	if (list->kind != kind)
		return fail_damaged();
	return take_items(m, list, n);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static enum status take_bytes(struct machine *m, size_t len, const unsigned char **out)
{
	if (len > (size_t)(m->end - m->at))
		return status_fail(STATUS_CORRUPT, "the pickle in it is truncated");
	*out = m->at;
	m->at += len;
	return STATUS_OK;
}

static enum status take_uint(struct machine *m, size_t len, uint64_t *out)
{
	const unsigned char *bytes = NULL;

	TRY(take_bytes(m, len, &bytes));
	*out = 0;
	while (len--)
		*out = *out << 8 | bytes[len];
	return STATUS_OK;
}

static enum status take_text(struct machine *m, size_t len_bytes)
{
	const unsigned char *text = NULL;
	uint64_t len = 0;
	uint32_t node;

	TRY(take_uint(m, len_bytes, &len));
	if (len > (size_t)(m->end - m->at))
		return status_fail(STATUS_CORRUPT, "a text in the pickle is truncated");
	TRY(take_bytes(m, (size_t)len, &text));
	node = new_node(m, TEXT);
	m->node[node].text = (const char *)text;
	m->node[node].text_len = (size_t)len;
	return push(m, node);
}

/* A signed number of up to 8 bytes. */
static enum status take_long(struct machine *m)
{
	uint64_t len = 0, x = 0;

	TRY(take_uint(m, 1, &len));
	if (len > 8)
		return status_fail(STATUS_UNSUPPORTED, "the pickle holds a number of %d bytes", (int)len);
	TRY(take_uint(m, (size_t)len, &x));
	if (len && len < 8 && x >> (8 * len - 1))
		x |= ~(uint64_t)0 << 8 * len;
	return push_number(m, NUMBER, (int64_t)x);
}

static enum status take_int(struct machine *m, size_t len)
{
	uint64_t x = 0;

	TRY(take_uint(m, len, &x));
	return push_number(m, NUMBER, len == 4 ? (int32_t)x : (int64_t)x);
}

static enum status take_line(struct machine *m, const char **text, size_t *len)
{
	const unsigned char *end = memchr(m->at, '\n', (size_t)(m->end - m->at));

	if (!end)
		return status_fail(STATUS_CORRUPT, "a name in the pickle is truncated");
	*text = (const char *)m->at;
	*len = (size_t)(end - m->at);
	m->at = end + 1;
	return STATUS_OK;
}

static enum status push_global(
	struct machine *m, const char *module, size_t module_len, const char *name, size_t name_len)
{
	char a[80], b[80];

	for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
		if (text_is(module, module_len, globals[i].module) && text_is(name, name_len, globals[i].name))
			return push_number(m, GLOBAL, (int64_t)i);
	return status_fail(STATUS_UNSUPPORTED,
		"refused: the pickle names %s.%s, which is no part of a tensor; use safetensors",
		printable(module, module_len, a), printable(name, name_len, b));
}

static enum status take_global(struct machine *m)
{
	const char *module = NULL, *name = NULL;
	size_t module_len = 0, name_len = 0;

	TRY(take_line(m, &module, &module_len));
	TRY(take_line(m, &name, &name_len));
	return push_global(m, module, module_len, name, name_len);
}

static enum status stack_global(struct machine *m)
{
	const struct node *module, *name;
	uint32_t a = 0, b = 0;

	TRY(pop(m, &b));
	TRY(pop(m, &a));
	module = &m->node[a];
	name = &m->node[b];
	if (module->kind != TEXT || name->kind != TEXT)
		return fail_damaged();
	return push_global(m, module->text, module->text_len, name->text, name->text_len);
}

static enum status memo_put(struct machine *m, uint64_t i)
{
	if (i > m->len || !m->n_stack)
		return fail_damaged();
	m->memo[i] = m->stack[m->n_stack - 1];
	m->memo_next = i + 1;
	return STATUS_OK;
}

static enum status memo_get(struct machine *m, size_t len)
{
	uint64_t i = 0;

	TRY(take_uint(m, len, &i));
	if (i > m->len || !m->memo[i])
		return fail_damaged();
	return push(m, m->memo[i]);
}

static enum status take_memo_put(struct machine *m, size_t len)
{
	uint64_t i = 0;

	TRY(take_uint(m, len, &i));
	return memo_put(m, i);
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* ("storage", type, member, device, elements) */
static enum status make_storage(struct machine *m)
{
	const struct node *word, *type, *key, *count;
	uint32_t id = 0, node;

	TRY(pop(m, &id));
	if (m->node[id].kind != TUPLE)
		return fail_damaged();
	word = item_of(m, &m->node[id], 0, TEXT);
	type = item_of(m, &m->node[id], 1, GLOBAL);
	key = item_of(m, &m->node[id], 2, TEXT);
	count = item_of(m, &m->node[id], 4, NUMBER);
	if (!word || !text_is(word->text, word->text_len, "storage") || !type || !key || !count || count->number < 0 ||
		globals[type->number].use != USE_STORAGE)
		return status_fail(STATUS_CORRUPT, "the pickle describes a storage in an unknown way");
	node = new_node(m, STORAGE);
	m->node[node].type = (uint32_t)type->number;
	m->node[node].text = key->text;
	m->node[node].text_len = key->text_len;
	m->node[node].number = count->number;
	return push(m, node);
}

/* _rebuild_tensor_v2(storage, offset, shape, stride, ...) */
static enum status make_tensor(struct machine *m, const struct node *args)
{
	const struct node *storage = item_of(m, args, 0, STORAGE), *offset = item_of(m, args, 1, NUMBER);
	const struct node *shape = item_of(m, args, 2, TUPLE), *stride = item_of(m, args, 3, TUPLE);
	uint32_t node;

	if (!storage || !offset || !shape || !stride)
		return status_fail(STATUS_CORRUPT, "the pickle describes a tensor in an unknown way");
	node = new_node(m, TENSOR);
	m->node[node].number = offset->number;
	m->node[node].storage = number_of(m, storage);
	m->node[node].shape = number_of(m, shape);
	m->node[node].stride = number_of(m, stride);
	return push(m, node);
}

static enum status reduce(struct machine *m)
{
	const struct node *tensor;
	uint32_t function = 0, args = 0;

	TRY(pop(m, &args));
	TRY(pop(m, &function));
	if (m->node[function].kind != GLOBAL || m->node[args].kind != TUPLE)
		return fail_damaged();
	switch (globals[m->node[function].number].use) {
	case USE_DICT:
		return push(m, new_node(m, DICT));
	case USE_TENSOR:
		return make_tensor(m, &m->node[args]);
	case USE_PARAMETER:
		tensor = item_of(m, &m->node[args], 0, TENSOR);
		return tensor ? push(m, number_of(m, tensor)) : fail_damaged();
	default:
		return status_fail(STATUS_UNSUPPORTED, "refused: the pickle calls a storage");
	}
}

/* Attributes of a dictionary (OrderedDict's _metadata) say nothing about tensors. */
static enum status build(struct machine *m)
{
	struct node *dict;
	uint32_t state = 0;

	TRY(pop(m, &state));
	return top(m, DICT, &dict);
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

static enum status fill_from_mark(struct machine *m, enum kind kind)
{
	size_t n = 0;

	TRY(take_mark(m, &n));
	return fill(m, kind, n);
}

static enum status tuple_from_mark(struct machine *m)
{
	size_t n = 0;

	TRY(take_mark(m, &n));
	return push_tuple(m, n);
}

static enum status push_mark(struct machine *m)
{
	m->mark[m->n_marks++] = (uint32_t)m->n_stack;
	return STATUS_OK;
}

static enum status skip_bytes(struct machine *m, size_t len)
{
	const unsigned char *ignored;

	return take_bytes(m, len, &ignored);
}

static enum status take_fraction(struct machine *m)
{
	TRY(skip_bytes(m, 8));
	return push_number(m, FRACTION, 0);
}

/* Everything but STOP. */
static enum status run_opcode(struct machine *m, unsigned char opcode)
{
	switch (opcode) {
	case 0x80: /* PROTO */
		return skip_bytes(m, 1);
	case 0x95: /* FRAME */
		return skip_bytes(m, 8);
	case '(':
		return push_mark(m);
	case 'N':
		return push(m, new_node(m, NONE));
	case 0x88: /* NEWTRUE */
	case 0x89: /* NEWFALSE */
		return push_number(m, NUMBER, opcode == 0x88);
	case 'K':
		return take_int(m, 1);
	case 'M':
		return take_int(m, 2);
	case 'J':
		return take_int(m, 4);
	case 0x8a: /* LONG1 */
		return take_long(m);
	case 'G':
		return take_fraction(m);
	case 'X':
	case 'T':
	case 'B':
		return take_text(m, 4);
	case 0x8c: /* SHORT_BINUNICODE */
	case 'U':
	case 'C':
		return take_text(m, 1);
	case '}':
		return push(m, new_node(m, DICT));
	case ']':
		return push(m, new_node(m, LIST));
	case ')':
		return push_tuple(m, 0);
	case 0x85: /* TUPLE1, 2, 3 */
	case 0x86:
	case 0x87:
		return push_tuple(m, (size_t)(opcode - 0x84));
	case 't':
		return tuple_from_mark(m);
	case 'a':
		return fill(m, LIST, 1);
	case 'e':
		return fill_from_mark(m, LIST);
	case 's':
		return fill(m, DICT, 2);
	case 'u':
		return fill_from_mark(m, DICT);
	case 'q':
		return take_memo_put(m, 1);
	case 'r':
		return take_memo_put(m, 4);
	case 0x94: /* MEMOIZE */
		return memo_put(m, m->memo_next);
	case 'h':
		return memo_get(m, 1);
	case 'j':
		return memo_get(m, 4);
	case 'c':
		return take_global(m);
	case 0x93: /* STACK_GLOBAL */
		return stack_global(m);
	case 'Q':
		return make_storage(m);
	case 'R':
		return reduce(m);
	case 'b':
		return build(m);
	default:
		return status_fail(
			STATUS_UNSUPPORTED, "refused: the pickle has opcode %#x, which tensors do not need", opcode);
	}
}

/* The value that the program leaves. */
static enum status run(struct machine *m, uint32_t *out)
{
	while (m->at < m->end) {
		unsigned char opcode = *m->at++;

		if (opcode == '.')
			return pop(m, out);
		TRY(run_opcode(m, opcode));
	}
	return status_fail(STATUS_CORRUPT, "the pickle in it is truncated");
}

/* ---- the tensors of a dictionary --------------------------------------------------------------------------------- */

/* The data of a storage, under the key by which tensors name it. */
struct storage {
	const char *key;
	size_t key_len;
	const unsigned char *data;
	size_t len;
};

struct checkpoint {
	struct zip zip;
	const struct zip_member *program;
	struct machine m;
	struct storage *storage; /* of a file that is no zip: sorted by key */
	size_t n_storages;
};

/* Row-major; a dimension of 1 may have any stride. */
static bool contiguous(const struct machine *m, const struct node *stride, const struct stored_tensor *t)
{
	int64_t want = 1;

	if (!t->count)
		return true;
	for (int i = t->rank - 1; i >= 0; i--) {
		const struct node *n = item_of(m, stride, i, NUMBER);

		if (!n || (t->dim[i] != 1 && n->number != want))
			return false;
		want *= t->dim[i]; /* at most t->count */
	}
	return true;
}

static enum status take_shape(const struct machine *m, const struct node *shape, struct stored_tensor *t)
{
	t->count = 1;
	for (uint32_t link = shape->first; link; link = m->link[link].next) {
		const struct node *n = &m->node[m->link[link].node];

		if (t->rank == STORED_RANK_MAX || n->kind != NUMBER || n->number < 0 ||
			__builtin_mul_overflow(t->count, n->number, &t->count))
			return status_fail(STATUS_CORRUPT, "tensor %s: an impossible shape", t->name);
		t->dim[t->rank++] = n->number;
	}
	return STATUS_OK;
}

/* TOP/data.pkl stands beside TOP/data/KEY. */
static bool find_member(const struct checkpoint *c, const struct node *storage, struct storage *out)
{
	size_t folder = c->program->name_len - strlen(".pkl");
	const struct zip_member *member;
	char name[600];

	if (folder + 1 + storage->text_len > sizeof name)
		return false;
	memcpy(name, c->program->name, folder);
	name[folder] = '/';
	memcpy(name + folder + 1, storage->text, storage->text_len);
	member = zip_find(&c->zip, name, folder + 1 + storage->text_len);
	if (member)
		*out = (struct storage){ storage->text, storage->text_len, member->data, member->len };
	return member != NULL;
}

static int compare_keys(const void *a, const void *b)
{
	const struct storage *x = a, *y = b;
	size_t len = x->key_len < y->key_len ? x->key_len : y->key_len;
	int order = len ? memcmp(x->key, y->key, len) : 0;

	return order ? order : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

static bool find_storage(const struct checkpoint *c, const struct node *storage, struct storage *out)
{
	const struct storage key = { .key = storage->text, .key_len = storage->text_len }, *found;

	if (c->program)
		return find_member(c, storage, out);
	found = c->n_storages ? bsearch(&key, c->storage, c->n_storages, sizeof key, compare_keys) : NULL;
	if (!found || !found->data)
		return false;
	*out = *found;
	return true;
}

static enum status take_data(const struct checkpoint *c, const struct node *tensor, struct stored_tensor *t)
{
	const struct node *storage = &c->m.node[tensor->storage];
	const struct global *g = &globals[storage->type];
	struct storage data = { .len = 0 };
	char key[80];
	int64_t elements;

	if (!find_storage(c, storage, &data))
		return status_fail(STATUS_CORRUPT, "tensor %s: its storage %s is not in the file", t->name,
			printable(storage->text, storage->text_len, key));
	elements = (int64_t)(data.len / (size_t)g->size);
	if (storage->number > elements || tensor->number < 0 || tensor->number > storage->number ||
		t->count > storage->number - tensor->number)
		return status_fail(STATUS_CORRUPT, "tensor %s: its data ends beyond its storage", t->name);
	t->dtype = g->dtype;
	t->type = g->type;
	t->coding = g->coding;
	t->data = data.data + tensor->number * g->size;
	t->len = (size_t)(t->count * g->size);
	return STATUS_OK;
}

static enum status take_name(const struct node *key, struct stored_tensor *t)
{
	char shown[80];

	if (key->text_len < 1 || key->text_len > NAME_LEN_MAX)
		return status_fail(STATUS_CORRUPT, "a tensor's name has %zu bytes; 1 to %d are possible", key->text_len,
			NAME_LEN_MAX);
	for (size_t i = 0; i < key->text_len; i++)
		if ((unsigned char)key->text[i] < ' ' || key->text[i] == 127)
			return status_fail(STATUS_CORRUPT, "tensor %s: its name holds a control character",
				printable(key->text, key->text_len, shown));
	t->name = strndup(key->text, key->text_len);
	return t->name ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
}

static enum status take_tensor(
	const struct checkpoint *c, const struct node *key, const struct node *tensor, struct stored_tensor *t)
{
	TRY(take_name(key, t));
	TRY(take_shape(&c->m, &c->m.node[tensor->shape], t));
	if (!contiguous(&c->m, &c->m.node[tensor->stride], t))
		return status_fail(STATUS_UNSUPPORTED, "tensor %s: it is not stored row by row", t->name);
	return take_data(c, tensor, t);
}

static const struct node *find_key(const struct machine *m, const struct node *dict, const char *name)
{
	for (uint32_t key = dict->first; key; key = m->link[m->link[key].next].next) {
		const struct node *k = &m->node[m->link[key].node];

		if (k->kind == TEXT && text_is(k->text, k->text_len, name))
			return &m->node[m->link[m->link[key].next].node];
	}
	return NULL;
}

static enum status take_all(
	const struct checkpoint *c, const struct node *dict, struct stored_tensor *list, int64_t *count)
{
	const struct machine *m = &c->m;

	for (uint32_t key = dict->first; key; key = m->link[m->link[key].next].next) {
		const struct node *k = &m->node[m->link[key].node];
		const struct node *value = &m->node[m->link[m->link[key].next].node];

		if (k->kind == TEXT && value->kind == TENSOR)
			TRY(take_tensor(c, k, value, &list[(*count)++]));
	}
	return STATUS_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void free_machine(struct machine *m)
{
	free(m->node);
	free(m->link);
	free(m->stack);
	free(m->mark);
	free(m->memo);
}

static enum status new_machine(const unsigned char *program, size_t len, struct machine *m)
{
	size_t room = len + 3;

	if (len > PROGRAM_MAX)
		return status_fail(STATUS_UNSUPPORTED, "a pickle of %zu bytes; at most 8 MiB are possible", len);
	*m = (struct machine){ .at = program, .end = program + len, .len = len };
	m->node = calloc(room, sizeof *m->node);
	m->link = calloc(room, sizeof *m->link);
	m->stack = calloc(room, sizeof *m->stack);
	m->mark = calloc(room, sizeof *m->mark);
	m->memo = calloc(room, sizeof *m->memo);
	if (m->node && m->link && m->stack && m->mark && m->memo)
		return STATUS_OK;
	free_machine(m);
	return status_fail(STATUS_NO_MEMORY, "no memory for a pickle of %zu bytes", len);
}

/* value: what the program left. */
static enum status take_tensors(const struct checkpoint *c, uint32_t value, struct stored_tensor **out, int64_t *count)
{
	const struct node *dict = &c->m.node[value], *inner;
	struct stored_tensor *list;
	int64_t n = 0;
	enum status status;

	if (dict->kind != DICT)
		return status_fail(STATUS_CORRUPT, "the pickle holds no dictionary of tensors");
	inner = find_key(&c->m, dict, "state_dict");
	if (inner && inner->kind == DICT)
		dict = inner;
	list = calloc(c->m.n_links / 2 + 1, sizeof *list);
	if (!list)
		return status_fail(STATUS_NO_MEMORY, "no memory for the list of tensors");
	status = take_all(c, dict, list, &n);
	if (status != STATUS_OK) {
		stored_tensors_free(list, n);
		return status;
	}
	*out = list;
	*count = n;
	return STATUS_OK;
}

/* TOP/data.pkl, whatever TOP is. */
static const struct zip_member *find_program(const struct zip *z)
{
	static const char ending[] = "/data.pkl";

	for (int64_t i = 0; i < z->count; i++) {
		const struct zip_member *m = &z->member[i];

		if (m->name_len > strlen(ending) &&
			!memcmp(m->name + m->name_len - strlen(ending), ending, strlen(ending)))
			return m;
	}
	return NULL;
}

static enum status open_program(struct checkpoint *c)
{
	size_t folder;
	const struct zip_member *order;
	char name[600];

	c->program = find_program(&c->zip);
	if (!c->program)
		return status_fail(STATUS_CORRUPT, "a zip file without data.pkl: no PyTorch checkpoint");
	folder = c->program->name_len - strlen("data.pkl");
	if (folder + strlen("byteorder") < sizeof name) {
		memcpy(name, c->program->name, folder);
		memcpy(name + folder, "byteorder", strlen("byteorder"));
		order = zip_find(&c->zip, name, folder + strlen("byteorder"));
		if (order && !text_is((const char *)order->data, order->len, "little"))
			return status_fail(
				STATUS_UNSUPPORTED, "a big-endian checkpoint; only little-endian ones are known");
	}
	return new_machine(c->program->data, c->program->len, &c->m);
}

/* ---- files of old versions --------------------------------------------------------------------------------------- */

/* Before 1.6, torch wrote pickles one after the other: a magic number, a version, sizes of numbers, the tensors, the
 * list of storages; then each storage in that order: how many elements (8 bytes), and the elements. */
static const unsigned char old_magic[] = { 0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50,
	0x19, '.' };

/* The storages that tensors name, without data yet; nodes up to `last` are those of the tensors. */
static enum status list_storages(struct checkpoint *c, uint32_t last)
{
	const struct machine *m = &c->m;

	c->storage = calloc((size_t)last + 1, sizeof *c->storage);
	if (!c->storage)
		return status_fail(STATUS_NO_MEMORY, "no memory for a list of storages");
	for (uint32_t i = 1; i <= last; i++)
		if (m->node[i].kind == STORAGE)
			c->storage[c->n_storages++] = (struct storage){ m->node[i].text, m->node[i].text_len, NULL,
				(size_t)globals[m->node[i].type].size };
	qsort(c->storage, c->n_storages, sizeof *c->storage, compare_keys);
	return STATUS_OK;
}

/* Takes the data of one storage; several tensors may name it. */
static enum status take_storage(struct checkpoint *c, const struct node *key)
{
	const struct storage wanted = { .key = key->text, .key_len = key->text_len };
	struct storage *first = c->n_storages ? bsearch(&wanted, c->storage, c->n_storages, sizeof wanted, compare_keys)
					      : NULL,
		       *end = c->storage + c->n_storages;
	const unsigned char *data = NULL;
	uint64_t elements = 0;
	size_t len;

	TRY(take_uint(&c->m, 8, &elements));
	if (!first || first->data || elements > (size_t)(c->m.end - c->m.at) / first->len)
		return status_fail(STATUS_CORRUPT, "a storage of the pickle is truncated or unknown");
	len = (size_t)elements * first->len;
	TRY(take_bytes(&c->m, len, &data));
	while (first > c->storage && !compare_keys(first - 1, &wanted))
		first--;
	for (; first < end && !compare_keys(first, &wanted); first++) {
		first->data = data;
		first->len = len;
	}
	return STATUS_OK;
}

/* The next of the pickles; what the one before it left is forgotten. */
static enum status run_next(struct machine *m, uint32_t *out)
{
	m->n_stack = m->n_marks = m->memo_next = 0;
	return run(m, out);
}

static enum status parse_old(struct checkpoint *c, const unsigned char *end, struct stored_tensor **out, int64_t *count)
{
	struct machine *m = &c->m;
	uint32_t version = 0, about = 0, tensors = 0, keys = 0, last;
	const struct node *little;

	TRY(run_next(m, &version));
	TRY(run_next(m, &about));
	little = m->node[about].kind == DICT ? find_key(m, &m->node[about], "little_endian") : NULL;
	if (little && little->number == 0)
		return status_fail(STATUS_UNSUPPORTED, "a big-endian checkpoint; only little-endian ones are known");
	TRY(run_next(m, &tensors));
	last = (uint32_t)m->n_nodes;
	TRY(run_next(m, &keys));
	if (m->node[keys].kind != LIST)
		return status_fail(STATUS_CORRUPT, "the pickle has no list of storages");
	TRY(list_storages(c, last));
	m->end = end;
	for (uint32_t link = m->node[keys].first; link; link = m->link[link].next) {
		if (m->node[m->link[link].node].kind != TEXT)
			return fail_damaged();
		TRY(take_storage(c, &m->node[m->link[link].node]));
	}
	return take_tensors(c, tensors, out, count);
}

static enum status open_old(const unsigned char *file, size_t size, struct stored_tensor **out, int64_t *count)
{
	struct checkpoint c = { .program = NULL };
	enum status status;

	if (size < sizeof old_magic || memcmp(file, old_magic, sizeof old_magic) != 0)
		return status_fail(STATUS_UNSUPPORTED, "refused: a pickle, but none that torch.save wrote");
	file += sizeof old_magic;
	size -= sizeof old_magic;
	TRY(new_machine(file, size < PROGRAM_MAX ? size : PROGRAM_MAX, &c.m));
	status = parse_old(&c, file + size, out, count);
	free(c.storage);
	free_machine(&c.m);
	return status;
}

bool pickle_is(const unsigned char *file, size_t size)
{
	return (size >= 4 && !memcmp(file, "PK\3\4", 4)) ||
	       (size >= sizeof old_magic && !memcmp(file, old_magic, sizeof old_magic));
}

enum status pickle_parse(const unsigned char *file, size_t size, struct stored_tensor **out, int64_t *count)
{
	struct checkpoint c = { .program = NULL };
	uint32_t value = 0;
	enum status status;

	if (size >= 2 && file[0] == 0x80)
		return open_old(file, size, out, count);
	TRY(zip_open(file, size, &c.zip));
	status = open_program(&c);
	if (status == STATUS_OK) {
		status = run(&c.m, &value);
		if (status == STATUS_OK)
			status = take_tensors(&c, value, out, count);
		free_machine(&c.m);
	}
	zip_free(&c.zip);
	return status;
}
