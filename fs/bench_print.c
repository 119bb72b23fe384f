/* bench_print: results of a benchmark as tables for people. */
#include <stdio.h>

#include "fs/bench.h"
#include "fs/commands.h"

static double number(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "-";
}

static double largest(const json_t *array)
{
	double most = 0;

	for (size_t i = 0; i < json_array_size(array); i++)
		if (json_number_value(json_array_get(array, i)) > most)
			most = json_number_value(json_array_get(array, i));
	return most;
}

static void print_stage(const char *name, const json_t *stage)
{
	double share = number(stage, "share");

	printf("%-10s %10.4f", name, number(stage, "seconds"));
	if (json_object_get(stage, "gflop"))
		printf(" %10.2f %10.1f", number(stage, "gflop"), number(stage, "gflops"));
	if (share > 0)
		printf(" %9.0f %%", 100 * share);
	putchar('\n');
}

static void print_run(const json_t *run)
{
	const json_t *stages = json_object_get(run, "stages"), *stage;
	char process[COMMAND_BYTES_LEN], device[COMMAND_BYTES_LEN];
	const char *name;

	printf("\n%.0fx%.0f, %.0f steps, median of %.0f; others took up to %.0f %% of the processors\n",
		number(run, "width"), number(run, "height"), number(run, "steps"), number(run, "repeats"),
		100 * largest(json_object_get(run, "others")));
	printf("%-10s %10s %10s %10s %11s\n", "stage", "seconds", "GFLOP", "GFLOP/s", "of limit");
	json_object_foreach ((json_t *)stages, name, stage)
		print_stage(name, stage);
	printf("%-10s %10.4f\n", "picture", number(run, "seconds"));
	command_print_bytes((uint64_t)number(run, "peak_memory"), process);
	command_print_bytes((uint64_t)number(run, "device_memory"), device);
	printf("peak memory %s, of which %s weights and tensors\n", process, device);
}

static void print_comparison(const json_t *c)
{
	const json_t *own = json_object_get(c, "promptfs"), *peer = json_object_get(c, "peer"), *ratio;
	const char *name;

	printf("%.0f turns; others took up to %.0f %% and %.0f %% of the processors\n", number(c, "turns"),
		100 * largest(json_object_get(own, "others")), 100 * largest(json_object_get(peer, "others")));
	printf("%-12s %12s %12s %8s\n", "", "promptfs", "peer", "ratio");
	json_object_foreach (json_object_get(c, "ratios"), name, ratio) {
		bool stage = json_object_get(json_object_get(own, "stages"), name) != NULL;
		const json_t *a = stage ? json_object_get(own, "stages") : own;
		const json_t *b = stage ? json_object_get(peer, "stages") : peer;

		printf("%-12s %12.4g %12.4g %8.2f\n", name, number(a, name), number(b, name), json_number_value(ratio));
	}
}

void bench_print(const json_t *result)
{
	const json_t *runs = json_object_get(result, "runs");

	if (json_object_get(result, "comparison"))
		print_comparison(json_object_get(result, "comparison"));
	if (!runs)
		return;
	printf("%s (%s), %s, %s, %.0f threads", text(result, "model"), text(result, "family"), text(result, "device"),
		text(result, "dtype"), number(result, "threads"));
	if (number(result, "limit_gflops") > 0)
		printf("; limit %.0f GFLOP/s", number(result, "limit_gflops"));
	putchar('\n');
	for (size_t i = 0; i < json_array_size(runs); i++)
		print_run(json_array_get(runs, i));
}
