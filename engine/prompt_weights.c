/* prompt_weights: parsing brackets, and weighting the rows that a text encoder gives. */
#include "engine/prompt_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/settings.h"

static enum status read_wanted(const struct recipe *r, bool *out)
{
	const char *value = setting_text(r, PROMPT_WEIGHTS_SETTING, "none");

	*out = !strcmp(value, "a1111");
	if (*out || !strcmp(value, "none"))
		return STATUS_OK;
	return status_fail(STATUS_INVALID, "Set: " PROMPT_WEIGHTS_SETTING " must be a1111 or none, not '%.40s'", value);
}

enum status prompt_weights_check(const struct recipe *r)
{
	bool wanted;

	return read_wanted(r, &wanted);
}

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

/* Where brackets were opened that are not closed yet: numbers of spans. */
struct open_brackets {
	size_t *at;
	size_t n, room;
};

struct parser {
	struct prompt_weights *out;
	struct open_brackets round, square;
};

static const double round_weight = 1.1, square_weight = 1 / 1.1;

static enum status grow(void **list, size_t *room, size_t n, size_t size)
{
	void *grown;

	if (n < *room)
		return STATUS_OK;
	grown = realloc(*list, (2 * n + 16) * size);
	if (!grown)
		return status_fail(STATUS_NO_MEMORY, "no memory for a prompt's weights");
	*list = grown;
	*room = 2 * n + 16;
	return STATUS_OK;
}

static enum status open_bracket(struct parser *p, struct open_brackets *b)
{
	void *at = b->at;
	enum status status = grow(&at, &b->room, b->n, sizeof *b->at);

	b->at = at;
	if (status == STATUS_OK)
		b->at[b->n++] = p->out->n;
	return status;
}

static enum status add_span(struct prompt_weights *w, const char *text, size_t len)
{
	void *span = w->span;
	enum status status = grow(&span, &w->room, w->n, sizeof *w->span);

	w->span = span;
	TRY(status);
	w->span[w->n++] = (struct prompt_span){ w->text.len, len, 1 };
	return bytes_add(&w->text, text, len);
}

static void multiply_from(struct prompt_weights *w, size_t first, double by)
{
	for (size_t i = first; i < w->n; i++)
		w->span[i].weight *= by;
}

/* A closing bracket without an opening one is text. */
static enum status close_bracket(struct parser *p, struct open_brackets *b, const char *text, double by)
{
	if (!b->n)
		return add_span(p->out, text, 1);
	multiply_from(p->out, b->at[--b->n], by);
	return STATUS_OK;
}

static size_t count_spaces(const char *text, size_t len)
{
	size_t n = 0;

	while (n < len && strchr(" \t\n\v\f\r", text[n]) && text[n])
		n++;
	return n;
}

/* ":1.3)" at the beginning of text: its length, or 0. */
static size_t find_weight(const char *text, size_t len, const char **number, size_t *number_len)
{
	size_t at = 1 + count_spaces(text + 1, len - 1), start = at;

	if (at < len && (text[at] == '+' || text[at] == '-'))
		at++;
	while (at < len && (text[at] == '.' || (text[at] >= '0' && text[at] <= '9')))
		at++;
	*number = text + start;
	*number_len = at - start;
	if (at == start || text[at - 1] == '+' || text[at - 1] == '-')
		return 0;
	at += count_spaces(text + at, len - at);
	return at < len && text[at] == ')' ? at + 1 : 0;
}

static enum status read_weight(const char *number, size_t len, double *out)
{
	char copy[40], *end = copy;

	if (len < sizeof copy) {
		memcpy(copy, number, len);
		copy[len] = 0;
		*out = strtod(copy, &end);
	}
	if (end == copy || *end || !isfinite(*out) || fabs(*out) > 1000)
		return status_fail(STATUS_INVALID, "the prompt has a weight that is no number up to 1000: '%.*s'",
			len < 40 ? (int)len : 40, number);
	return STATUS_OK;
}

/* A colon begins a weight, or it is text. */
static enum status take_colon(struct parser *p, const char *text, size_t len, size_t *used)
{
	const char *number;
	size_t number_len, n = find_weight(text, len, &number, &number_len);
	double weight = 1;

	*used = n ? n : 1;
	if (!n || !p->round.n)
		return add_span(p->out, text, *used);
	TRY(read_weight(number, number_len, &weight));
	return close_bracket(p, &p->round, text, weight);
}

/* What stands at the beginning of text; *used: its length. */
static enum status take(struct parser *p, const char *text, size_t len, size_t *used)
{
	bool escape = *text == '\\';

	*used = 1;
	switch (*text) {
	case '\\':
		*used = len > 1 && text[1] && strchr("()[]\\", text[1]) ? 2 : 1;
		return add_span(p->out, text + escape, *used - 1);
	case '(':
		return open_bracket(p, &p->round);
	case '[':
		return open_bracket(p, &p->square);
	case ')':
		return close_bracket(p, &p->round, text, round_weight);
	case ']':
		return close_bracket(p, &p->square, text, square_weight);
	case ':':
		return take_colon(p, text, len, used);
	default:
		while (*used < len && (!text[*used] || !strchr("\\()[]:", text[*used])))
			++*used;
		return add_span(p->out, text, *used);
	}
}

static void join_equal(struct prompt_weights *w)
{
	size_t n = 0;

	for (size_t i = 1; i < w->n; i++) {
		if (w->span[i].weight == w->span[n].weight)
			w->span[n].len += w->span[i].len;
		else
			w->span[++n] = w->span[i];
	}
	w->n = n + 1;
}

static enum status parse(struct parser *p, const char *text, size_t len)
{
	for (size_t at = 0, used; at < len; at += used)
		TRY(take(p, text + at, len - at, &used));
	for (size_t i = 0; i < p->round.n; i++)
		multiply_from(p->out, p->round.at[i], round_weight);
	for (size_t i = 0; i < p->square.n; i++)
		multiply_from(p->out, p->square.at[i], square_weight);
	if (!p->out->n)
		TRY(add_span(p->out, "", 0));
	join_equal(p->out);
	return STATUS_OK;
}

enum status prompt_weights_parse(const char *text, size_t len, struct prompt_weights *out)
{
	enum { TEXT_MAX = 64 << 10 }; /* brackets in brackets take time by the square of their number */
	struct parser p = { .out = out };
	enum status status;

	if (len > TEXT_MAX)
		return status_fail(STATUS_INVALID, "a prompt with weights may have %d bytes, not %zu", TEXT_MAX, len);
	status = parse(&p, text, len);
	free(p.round.at);
	free(p.square.at);
	return status;
}

void prompt_weights_free(struct prompt_weights *p)
{
	bytes_free(&p->text);
	free(p->span);
	*p = (struct prompt_weights){ 0 };
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static enum status tokenize_spans(const struct tokenizer *t, const struct prompt_weights *p, int64_t length,
	struct token_ids *text, float *weights)
{
	for (size_t i = 0; i < p->n; i++) {
		int64_t before = text->count;

		TRY(tokenizer_encode(t, (const char *)p->text.data + p->span[i].start, p->span[i].len, text));
		for (int64_t j = before; j < text->count && j < length; j++)
			weights[j] = (float)p->span[i].weight;
	}
	return STATUS_OK;
}

static enum status tokenize(const struct tokenizer *t, const struct prompt_weights *p, int64_t length,
	struct token_ids *text, struct token_ids *ids, float *weights)
{
	struct token_range range;

	TRY(tokenize_spans(t, p, length, text, weights));
	TRY(tokenizer_pad(t, text, length, ids, &range));
	memmove(weights + range.first, weights, (size_t)range.count * sizeof *weights);
	for (int64_t i = 0; i < length; i++)
		if (i < range.first || i >= range.first + range.count)
			weights[i] = 1;
	return STATUS_OK;
}

enum status prompt_weights_tokenize(const struct tokenizer *t, const struct prompt_weights *p, int64_t length,
	struct token_ids *ids, float *weights)
{
	struct token_ids text = { 0 };
	enum status status = tokenize(t, p, length, &text, ids, weights);

	token_ids_free(&text);
	return status;
}

static enum status encode_weighted(
	const struct tokenizer *t, const char *text, int64_t length, struct token_ids *ids, float *weights)
{
	struct prompt_weights p = { 0 };
	enum status status = prompt_weights_parse(text, strlen(text), &p);

	if (status == STATUS_OK)
		status = prompt_weights_tokenize(t, &p, length, ids, weights);
	prompt_weights_free(&p);
	return status;
}

enum status prompt_weights_encode(const struct recipe *r, const struct tokenizer *t, const char *text, int64_t length,
	struct token_ids *ids, float **weights)
{
	float *values;
	enum status status;
	bool wanted;

	*weights = NULL;
	TRY(read_wanted(r, &wanted));
	if (!wanted)
		return tokenizer_encode_padded(t, text, strlen(text), length, ids);
	values = calloc((size_t)length + 1, sizeof *values);
	if (!values)
		return status_fail(STATUS_NO_MEMORY, "no memory for a prompt's weights");
	status = encode_weighted(t, text, length, ids, values);
	if (status == STATUS_OK)
		*weights = values;
	else
		free(values);
	return status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static double mean(const float *values, int64_t n)
{
	double sum = 0;

	for (int64_t i = 0; i < n; i++)
		sum += values[i];
	return sum / (double)n;
}

static void weigh(float *values, int64_t rows, int64_t width, const float *weights)
{
	double before = mean(values, rows * width), after, scale;

	for (int64_t i = 0; i < rows * width; i++)
		values[i] *= weights[i / width];
	after = mean(values, rows * width);
	scale = before / after;
	for (int64_t i = 0; i < rows * width && isfinite(scale); i++)
		values[i] = (float)(values[i] * scale);
}

enum status prompt_weights_apply(struct kernels *k, struct tensor hidden, const float *weights)
{
	int64_t rows = hidden.dim[0], width = hidden.dim[1];
	float *values = malloc((size_t)(rows * width) * sizeof *values);
	struct tensor host = tensor_view(values, DTYPE_F32, 2, (int64_t[]){ rows, width });
	enum status status = values ? kernels_download(k, hidden, &host)
				    : status_fail(STATUS_NO_MEMORY, "no memory to weigh a prompt");

	if (status == STATUS_OK) {
		weigh(values, rows, width, weights);
		status = kernels_upload(k, &host, hidden);
	}
	free(values);
	return status;
}
