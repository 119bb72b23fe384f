/* json: values of configuration files, and what is said about wrong ones. */
#include "engine/json.h"

#include <float.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/check.h"

static json_t *object(const char *text)
{
	json_t *out = NULL;

	if (json_parse_object(text, strlen(text), &out) != STATUS_OK)
		check_case(false, status_text(), "parse %s", text);
	return out;
}

static void check_values(void)
{
	json_t *o = object("{\"i\": 7, \"n\": 0.5, \"b\": true, \"s\": \"x\", \"z\": null, \"l\": [1, 2, 3]}");
	int64_t i = -1, list[4] = { 0 };
	double n = -1;
	bool b = false;
	const char *s = NULL;
	int count = 0;

	CHECK("int", json_get_int(o, "f", "i", 0, 7, &i) == STATUS_OK && i == 7);
	CHECK("int as a number", json_get_number(o, "f", "i", 0, 7, &n) == STATUS_OK && n == 7);
	CHECK("number", json_get_number(o, "f", "n", 0, 1, &n) == STATUS_OK && n == 0.5);
	CHECK("bool", json_get_bool(o, "f", "b", &b) == STATUS_OK && b);
	CHECK("string", json_get_string(o, "f", "s", &s) == STATUS_OK && !strcmp(s, "x"));
	CHECK("list", json_need_ints(o, "f", "l", 1, 3, 4, list, &count) == STATUS_OK && count == 3 && list[2] == 3);
	i = 5;
	CHECK("null leaves the default", json_get_int(o, "f", "z", 0, 9, &i) == STATUS_OK && i == 5);
	CHECK("a missing key leaves the default", json_get_int(o, "f", "q", 0, 9, &i) == STATUS_OK && i == 5);
	json_decref(o);
}

/* The failure has this text, and out-parameters are as before. */
static void check_text(enum status status, const char *text)
{
	check_case(status == STATUS_CORRUPT && !strcmp(status_text(), text), status_text(), "says: %s", text);
}

static void check_wrong_values(void)
{
	json_t *o = object("{\"i\": 7, \"n\": 0.5, \"s\": \"x\\n\", \"l\": [1, \"2\"], \"e\": [], \"z\": null}");
	int64_t i = 3, list[4] = { 0 };
	double n = 3;
	bool b = true;
	const char *s = "before";
	int count = 9;

	check_text(json_get_int(o, "a/f.json", "i", 0, 6, &i), "a/f.json: i must be an integer from 0 to 6, not 7");
	check_text(json_get_int(o, "f", "n", 0, 6, &i), "f: n must be an integer from 0 to 6, not 0.5");
	check_text(json_get_int(o, "f", "s", 0, 6, &i), "f: s must be an integer from 0 to 6, not \"x\\n\"");
	check_text(json_need_int(o, "f", "q", 0, 6, &i), "f: q is missing");
	check_text(json_need_int(o, "f", "z", 0, 6, &i), "f: z is missing");
	check_text(json_get_number(o, "f", "n", 1, 2, &n), "f: n must be a number from 1 to 2, not 0.5");
	check_text(json_get_number(o, "f", "s", DBL_MIN, DBL_MAX, &n), "f: s must be a number above 0, not \"x\\n\"");
	check_text(json_get_bool(o, "f", "i", &b), "f: i must be true or false, not 7");
	check_text(json_get_string(o, "f", "i", &s), "f: i must be a string, not 7");
	check_text(json_need_ints(o, "f", "l", 1, 3, 4, list, &count),
		"f: l must be a list of 1 to 4 integers from 1 to 3, not [1,\"2\"]");
	check_text(json_need_ints(o, "f", "e", 1, 3, 4, list, &count),
		"f: e must be a list of 1 to 4 integers from 1 to 3, not []");
	CHECK("failures leave the results alone",
		i == 3 && n == 3 && b && !strcmp(s, "before") && !list[0] && count == 9);
	json_decref(o);
}

static void check_refused(const char *text, size_t len, const char *word)
{
	json_t *o = NULL;
	enum status status = json_parse_object(text, len, &o);
	bool good = status == STATUS_CORRUPT && !o && strstr(status_text(), word) && !strchr(status_text(), '\n');

	check_case(good, status_text(), "%zu bytes of bad JSON: %s", len, word);
	json_decref(o);
}

static void check_syntax(void)
{
	static char deep[20002], wide[10 << 20];

	check_refused("[1]", 3, "not a JSON object");
	check_refused("{\"a\":1,\"a\":2}", 13, "duplicate");
	check_refused("{\"a\":1} {}", 10, "not valid JSON");
	check_refused("{\"a\":\n\n", 7, "not valid JSON");
	check_refused("{\"a\":1e999}", 11, "out of range");
	check_refused("{\"a\":99999999999999999999}", 26, "out of range");
	check_refused("{\"a\":\"\xff\"}", 9, "not valid JSON");
	check_refused("{\"a\\u0000b\":1}", 14, "NUL");
	check_refused("", 0, "not valid JSON");
	memset(deep, '[', 10000);
	memset(deep + 10000, ']', 10000);
	check_refused(deep, 20000, "depth");
	for (size_t i = 0; i < sizeof wide; i++)
		wide[i] = "[],"[i % 3];
	check_refused(wide, sizeof wide, "values");
}

/* Python's spelling of what JSON does not have, as diffusers writes it. */
static void check_infinities(void)
{
	static const char text[] = "{\"a\": -Infinity, \"b\": [Infinity, 1], \"c\": \"\\\"-Infinity\"}";
	json_t *o = NULL;
	double a = 7;

	CHECK("infinities are read", json_parse_object(text, sizeof text - 1, &o) == STATUS_OK);
	CHECK("as if they were not there", o && json_get_number(o, "x", "a", 0, 1, &a) == STATUS_OK && a == 7);
	CHECK("but in strings", o && strcmp(json_string_value(json_object_get(o, "c")), "\"-Infinity") == 0);
	json_decref(o);
}

static void check_files(void)
{
	char dir[] = "/tmp/promptfs-json-XXXXXX", path[80];
	json_t *o = NULL;
	FILE *file;

	if (!mkdtemp(dir)) {
		CHECK("a folder for files", false);
		return;
	}
	snprintf(path, sizeof path, "%s/x.json", dir);
	CHECK("a missing file", json_read_object(path, &o) == STATUS_NO_MODEL && strstr(status_text(), path));
	file = fopen(path, "w");
	fputs("{\"a\": 1}\n", file);
	fclose(file);
	CHECK("a file", json_read_object(path, &o) == STATUS_OK && json_object_size(o) == 1);
	json_decref(o);
	CHECK("a huge file", !truncate(path, 65 << 20) && json_read_object(path, &o) == STATUS_CORRUPT);
	CHECK("an empty file", !truncate(path, 0) && json_read_object(path, &o) == STATUS_CORRUPT);
	CHECK("a folder", json_read_object(dir, &o) == STATUS_CORRUPT && strstr(status_text(), "regular"));
	unlink(path);
	CHECK("a FIFO does not hang", !mkfifo(path, 0600) && json_read_object(path, &o) == STATUS_CORRUPT);
	unlink(path);
	rmdir(dir);
}

int main(void)
{
	check_values();
	check_wrong_values();
	check_syntax();
	check_infinities();
	check_files();
	return check_result();
}
