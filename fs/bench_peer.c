/* bench_peer: our program and another one in turn. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "engine/family.h"
#include "fs/bench.h"

/* One side of the comparison; stages whose name a side does not tell are left out. */
enum { STAGES_MAX = 16 };
struct side {
	int n; /* turns so far */
	double seconds[BENCH_REPEATS_MAX], memory[BENCH_REPEATS_MAX], others[BENCH_REPEATS_MAX];
	int n_stages;
	struct {
		char name[24];
		int n;
		double seconds[BENCH_REPEATS_MAX];
	} stage[STAGES_MAX];
};

static void add_stage(struct side *side, const char *name, double seconds)
{
	int i = 0;

	while (i < side->n_stages && strcmp(side->stage[i].name, name) != 0)
		i++;
	if (i == STAGES_MAX)
		return;
	if (i == side->n_stages) {
		snprintf(side->stage[i].name, sizeof side->stage[i].name, "%s", name);
		side->n_stages++;
	}
	if (side->stage[i].n < BENCH_REPEATS_MAX)
		side->stage[i].seconds[side->stage[i].n++] = seconds;
}

/* ---- a process --------------------------------------------------------------------------------------------------- */

static enum status read_all(int fd, struct bytes *out)
{
	char block[65536];
	ssize_t n;

	while ((n = read(fd, block, sizeof block)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return status_fail(STATUS_IO, "reading a program's output: %s", strerror(errno));
		TRY(bytes_add(out, block, (size_t)n));
	}
	return bytes_add(out, "", 1);
}

static enum status start(const char *file, char *const *words, int out, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t defaults;
	int failed;

	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE); /* main ignores it, which programs do not expect */
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
	failed = posix_spawn(pid, file, &actions, &attributes, words, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return failed ? status_fail(STATUS_IO, "%s: cannot be run: %s", file, strerror(failed)) : STATUS_OK;
}

/* Waits for it and books its time and memory. */
static enum status finish(pid_t pid, const char *what, struct rusage *usage)
{
	int result;

	while (wait4(pid, &result, 0, usage) < 0)
		if (errno != EINTR)
			return status_fail(STATUS_IO, "%s: %s", what, strerror(errno));
	if (WIFSIGNALED(result))
		return status_fail(STATUS_IO, "%s: killed by signal %d", what, WTERMSIG(result));
	if (WEXITSTATUS(result) != 0)
		return status_fail(STATUS_IO, "%s: exit status %d", what, WEXITSTATUS(result));
	return STATUS_OK;
}

/* Runs a program to its end; its output is the caller's to free. */
static enum status run(const char *file, char *const *words, const char *what, struct side *side, struct bytes *output)
{
	struct bench_watch watch;
	struct rusage usage = { 0 };
	enum status s, ended;
	int fd[2];
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC) != 0)
		return status_fail(STATUS_IO, "a pipe: %s", strerror(errno));
	bench_watch_start(&watch);
	s = start(file, words, fd[1], &pid);
	close(fd[1]);
	if (s == STATUS_OK) {
		s = read_all(fd[0], output);
		ended = finish(pid, what, &usage);
		s = s == STATUS_OK ? ended : s;
	}
	close(fd[0]);
	if (s != STATUS_OK)
		return s;
	side->seconds[side->n] = run_clock() - watch.at;
	side->memory[side->n] = (double)usage.ru_maxrss * 1024;
	side->others[side->n] = bench_watch_others(&watch);
	side->n++;
	return STATUS_OK;
}

/* ---- the two sides ----------------------------------------------------------------------------------------------- */

static enum status run_own(char *const *words, struct side *side)
{
	struct bytes output = { 0 };
	enum status s = run("/proc/self/exe", words, "promptfs bench", side, &output);
	json_t *result = s == STATUS_OK ? json_loads((char *)output.data, 0, NULL) : NULL;
	json_t *stages = json_object_get(json_array_get(json_object_get(result, "runs"), 0), "stages"), *stage;
	const char *name;

	if (s == STATUS_OK && !stages)
		s = status_fail(STATUS_INTERNAL, "promptfs bench printed no result");
	json_object_foreach (stages, name, stage)
		add_stage(side, name, json_number_value(json_object_get(stage, "seconds")));
	json_decref(result);
	bytes_free(&output);
	return s;
}

/* Its lines "stage NAME SECONDS". */
static void read_stages(char *text, struct side *side)
{
	char *rest = NULL;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char name[24];
		double seconds;

		if (sscanf(line, "stage %23s %lf", name, &seconds) == 2 && seconds >= 0)
			add_stage(side, name, seconds);
	}
}

static enum status run_peer(const char *command, struct side *side)
{
	char *words[] = { (char *)"sh", (char *)"-c", (char *)command, NULL };
	struct bytes output = { 0 };
	enum status s = run("/bin/sh", words, command, side, &output);

	if (s == STATUS_OK)
		read_stages((char *)output.data, side);
	bytes_free(&output);
	return s;
}

/* ---- result ------------------------------------------------------------------------------------------------------ */

static json_t *side_json(struct side *side)
{
	json_t *out = json_object(), *stages = json_object(), *others = json_array();

	for (int i = 0; i < side->n; i++)
		json_array_append_new(others, json_real(side->others[i]));
	for (int i = 0; i < side->n_stages; i++)
		json_object_set_new(
			stages, side->stage[i].name, json_real(bench_median(side->stage[i].seconds, side->stage[i].n)));
	json_object_set_new(out, "seconds", json_real(bench_median(side->seconds, side->n)));
	json_object_set_new(out, "peak_memory", json_integer((json_int_t)bench_median(side->memory, side->n)));
	json_object_set_new(out, "stages", stages);
	json_object_set_new(out, "others", others);
	return out;
}

static void add_ratio(json_t *ratios, const char *name, const json_t *own, const json_t *peer)
{
	if (json_number_value(own) > 0 && peer)
		json_object_set_new(ratios, name, json_real(json_number_value(peer) / json_number_value(own)));
}

/* The peer's figures over ours. */
static json_t *ratios_json(const json_t *own, const json_t *peer)
{
	json_t *out = json_object(), *stages = json_object_get(own, "stages"), *value;
	const char *name;

	add_ratio(out, "seconds", json_object_get(own, "seconds"), json_object_get(peer, "seconds"));
	add_ratio(out, "peak_memory", json_object_get(own, "peak_memory"), json_object_get(peer, "peak_memory"));
	json_object_foreach (stages, name, value)
		add_ratio(out, name, value, json_object_get(json_object_get(peer, "stages"), name));
	return out;
}

enum status bench_compare(char *const *words, const char *command, int turns, json_t **out)
{
	json_t *result = json_object(), *own, *peer;
	struct side *sides = calloc(2, sizeof *sides);
	enum status s = STATUS_OK;

	unsetenv("OMP_WAIT_POLICY"); /* main set it, and does so again for ours; the peer's threads wait as it chose */
	if (!sides)
		s = status_fail(STATUS_NO_MEMORY, "no memory for a comparison");
	else if (json_object_set_new(result, "command", json_string(command)) != 0)
		s = status_fail(STATUS_INVALID, "--peer: the command is no UTF-8");
	for (int i = 0; i < turns && s == STATUS_OK; i++) {
		s = run_own(words, &sides[0]);
		if (s == STATUS_OK)
			s = run_peer(command, &sides[1]);
	}
	if (s == STATUS_OK) {
		own = side_json(&sides[0]);
		peer = side_json(&sides[1]);
		json_object_set_new(result, "turns", json_integer(turns));
		json_object_set_new(result, "ratios", ratios_json(own, peer));
		json_object_set_new(result, "promptfs", own);
		json_object_set_new(result, "peer", peer);
		*out = json_incref(result);
	}
	json_decref(result);
	free(sides);
	return s;
}
