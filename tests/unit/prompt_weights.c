/* prompt_weights: A1111's brackets, as its own examples have them, and what they do to the rows of a prompt. */
#include "engine/prompt_weights.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/check.h"

struct wanted {
	const char *text;
	int n;
	struct {
		const char *text;
		double weight;
	} span[10];
};

static const struct wanted cases[] = {
	{ "normal text", 1, { { "normal text", 1 } } },
	{ "an (important) word", 3, { { "an ", 1 }, { "important", 1.1 }, { " word", 1 } } },
	{ "(unbalanced", 1, { { "unbalanced", 1.1 } } },
	{ "\\(literal\\]", 1, { { "(literal]", 1 } } },
	{ "(unnecessary)(parens)", 1, { { "unnecessaryparens", 1.1 } } },
	{ "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", 9,
		{ { "a ", 1 }, { "house", 1.573 }, { " ", 1.1 }, { "on", 1 }, { " a ", 1.1 }, { "hill", 0.55 },
			{ ", sun, ", 1.1 }, { "sky", 1.4641 }, { ".", 1.1 } } },
	{ "", 1, { { "", 1 } } },
	{ "()", 1, { { "", 1 } } },
	{ "ratio 3:2, :) a:1.2) \\x \\", 1, { { "ratio 3:2, :) a:1.2) x ", 1 } } },
	{ "(a : -0.5 )b", 2, { { "a ", -0.5 }, { "b", 1 } } },
	{ "(a:+)", 1, { { "a:+", 1.1 } } },
	{ "[a](b:2", 2, { { "a", 1 / 1.1 }, { "b:2", 1.1 } } },
};

static void check_parse(const struct wanted *w)
{
	struct prompt_weights p = { 0 };
	bool good = prompt_weights_parse(w->text, strlen(w->text), &p) == STATUS_OK && p.n == (size_t)w->n;

	for (int i = 0; good && i < w->n; i++)
		good = p.span[i].len == strlen(w->span[i].text) &&
		       !memcmp((char *)p.text.data + p.span[i].start, w->span[i].text, p.span[i].len) &&
		       fabs(p.span[i].weight - w->span[i].weight) < 1e-12;
	check_case(good, "other spans", "parse '%s'", w->text);
	for (size_t i = 0; !good && i < p.n; i++)
		printf("# '%.*s' %.15g\n", (int)p.span[i].len, (char *)p.text.data + p.span[i].start, p.span[i].weight);
	prompt_weights_free(&p);
}

static void check_refused(const char *text)
{
	struct prompt_weights p = { 0 };

	check_case(prompt_weights_parse(text, strlen(text), &p) == STATUS_INVALID, "accepted", "refuse '%s'", text);
	prompt_weights_free(&p);
}

static void check_tokens(void)
{
	static const char text[] = "a (red:1.5) panda";
	float weights[77];
	struct prompt_weights p = { 0 };
	struct token_ids ids = { 0 }, plain = { 0 };
	struct tokenizer *t = NULL;
	char path[400];

	snprintf(path, sizeof path, "%s/../reference/tokenizers/clip", check_golden());
	if (access(path, R_OK) || tokenizer_open(path, &t) != STATUS_OK) {
		printf("skip - weights of tokens: no reference tokenizer\n");
		return;
	}
	CHECK("tokenize with weights", prompt_weights_parse(text, strlen(text), &p) == STATUS_OK &&
					       prompt_weights_tokenize(t, &p, 77, &ids, weights) == STATUS_OK &&
					       ids.count == 77);
	CHECK("the tokens are those of the text without brackets",
		tokenizer_encode_padded(t, "a red panda", 11, 77, &plain) == STATUS_OK &&
			!memcmp(plain.id, ids.id, 77 * sizeof *ids.id));
	CHECK("one token has the weight", weights[0] == 1 && weights[1] == 1 && weights[2] == 1.5f && weights[3] == 1 &&
						  weights[4] == 1 && weights[76] == 1);
	token_ids_free(&plain);
	plain = (struct token_ids){ 0 };
	CHECK("a cut text", prompt_weights_tokenize(t, &p, 4, &plain, weights) == STATUS_OK && plain.count == 4 &&
				    weights[1] == 1 && weights[2] == 1.5f && weights[3] == 1);
	token_ids_free(&plain);
	token_ids_free(&ids);
	prompt_weights_free(&p);
	tokenizer_close(t);
}

static void check_apply(void)
{
	float values[6] = { 1, 2, 3, 4, -1, 3 }, weights[3] = { 1, 2, 0.5f };
	static const float wanted[6] = { 1, 2, 6, 8, -0.5f, 1.5f }; /* mean 3, before 2 */
	struct kernels *k = NULL;
	bool good =
		kernels_open("ref", DTYPE_F32, 1, &k) == STATUS_OK &&
		prompt_weights_apply(k, tensor_view(values, DTYPE_F32, 2, (int64_t[]){ 3, 2 }), weights) == STATUS_OK;

	for (int i = 0; good && i < 6; i++)
		good = fabsf(values[i] - wanted[i] * 2 / 3) < 1e-6f;
	CHECK("rows are weighted and keep their mean", good);
	kernels_close(k);
}

int main(void)
{
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_parse(&cases[i]);
	check_refused("(a:1.2.3)");
	check_refused("(a:.)");
	check_refused("(a:1000000)");
	check_tokens();
	check_apply();
	return check_result();
}
