/* bench: what `promptfs bench` measures with.  Results are jansson objects, which are printed as they are (--json) or
 * as a table; a result of one size ("run"):
 *
 *     { "width": 256, "height": 256, "steps": 8, "repeats": 5, "others": [0.01, ...],
 *       "stages": { "load": { "seconds": 0.4 }, "step": { "seconds": 0.01, "gflop": 3.1, "gflops": 310, "share": 0.7 },
 * ... }, "seconds": 0.2, "peak_memory": 130000000, "device_memory": 98000000 }
 *
 * "others" is the share of all processors that other processes took during each repeat.
 */
#ifndef PROMPTFS_FS_BENCH_H
#define PROMPTFS_FS_BENCH_H

#include <jansson.h>

#include "engine/engine.h"

enum { BENCH_REPEATS_MAX = 99, BENCH_SIZES_MAX = 8 };

/* Sorts; 0 of none. */
double bench_median(double *values, int n);

/* Watches what other processes take of the processors; own children count as own once they have ended. */
struct bench_watch {
	double at, busy, own; /* seconds */
};
void bench_watch_start(struct bench_watch *w);
double bench_watch_others(const struct bench_watch *w); /* 0..1 */

/* What the device does at most, in operations a second, as a large product of its own dtype shows; STATUS_* of
 * kernels_open. */
enum status bench_limit(const struct engine_options *options, double *flops);

/* One job of a size, measured. */
struct bench_job {
	struct engine *engine;
	const struct model *model;
	struct recipe
		*recipe; /* its prompt ends with three digits, which change: nothing of an earlier run is of use */
	int first;       /* these digits of the first run */
	int repeats;     /* 0: the first run counts, loading and all; else one more than these is made */
	double limit;    /* operations a second; 0: unknown */
};
enum status bench_run(const struct bench_job *job, json_t **run);

/* Our own program with these words and `command` (for sh) in turn, `turns` times each.  Ours prints one result of
 * `bench --json`; the command may print lines "stage NAME SECONDS".  *out: both sides' medians and ratios. */
enum status bench_compare(char *const *words, const char *command, int turns, json_t **out);

/* For people. */
void bench_print(const json_t *result);

#endif
