/* main: finds the command and runs it.
 *
 *     promptfs [common options] COMMAND [common options] [its words]
 */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/commands.h"
#include "kernels/kernels.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	bool computes; /* in threads, in this process */
} commands[] = {
	{ "mount", cmd_mount, false },
	{ "unmount", cmd_unmount, false },
	{ "generate", cmd_generate, true },
	{ "export", cmd_export, false },
	{ "convert", cmd_convert, true },
	{ "bench", cmd_bench, true },
	{ "models", cmd_models, false },
	{ "cache", cmd_cache, false },
	{ "help", cmd_help, false },
	{ "worker", cmd_worker, true },
};

/* Moves the common options that stand before the command behind it; argv[0] becomes the command. */
static int take_command(int argc, char **argv)
{
	int at = 1, words;
	char *command;

	while (at < argc && (words = config_option_words(argv[at])) > 0)
		at += words;
	if (at >= argc)
		return 0;
	command = argv[at];
	memmove(argv + 2, argv + 1, (size_t)(at - 1) * sizeof *argv);
	argv[1] = command;
	return 1;
}

/* Threads that wait for each other should sleep: libgomp's spin, which beside other work costs ten times the picture
 * (kernels/NOTES.md). libgomp reads the environment before main, so a command that computes is started again with all
 * its words; what `mount` starts inherits it. */
static void sleep_while_waiting(char **words, bool computes)
{
	char program[PATH_MAX];
	ssize_t len;

	if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || setenv("OMP_WAIT_POLICY", "PASSIVE", 1) != 0 ||
		!computes)
		return;
	len = readlink("/proc/self/exe", program, sizeof program - 1);
	if (len <= 0)
		return;
	program[len] = 0;
	execv(program, words); /* where that fails, it only takes longer */
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0)
			return true;
	return false;
}

static int run_command(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
		if (strcmp(commands[i].name, argv[1]) != 0)
			continue;
		if (wants_help(argc - 1, argv + 1)) {
			command_help(argv[1], stdout);
			return command_finish();
		}
		sleep_while_waiting(argv, commands[i].computes);
		return commands[i].run(argc - 1, argv + 1);
	}
	return command_usage("", "no command '%.40s'", argv[1]);
}

/* The version, and the devices of this machine. */
static void print_version(void)
{
	char devices[1024];

	kernels_list(devices, sizeof devices);
	printf("promptfs " PROMPTFS_VERSION "\n%s", devices);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN); /* writes fail instead, and are looked at */
	if (argc < 2 || !take_command(argc, argv)) {
		command_overview(stderr);
		return 2;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		print_version();
		return command_finish();
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		command_overview(stdout);
		return command_finish();
	}
	return run_command(argc, argv);
}
