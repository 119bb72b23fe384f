/* main: finds the command and runs it.
 *
 *     promptfs [common options] COMMAND [common options] [its words]
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/commands.h"
#include "kernels/kernels.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "mount", cmd_mount },
	{ "unmount", cmd_unmount },
	{ "generate", cmd_generate },
	{ "export", cmd_export },
	{ "convert", cmd_convert },
	{ "bench", cmd_bench },
	{ "models", cmd_models },
	{ "cache", cmd_cache },
	{ "help", cmd_help },
	{ "worker", cmd_worker },
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
		if (strcmp(commands[i].name, argv[0]) != 0)
			continue;
		if (!wants_help(argc, argv))
			return commands[i].run(argc, argv);
		command_help(argv[0], stdout);
		return command_finish();
	}
	return command_usage("", "no command '%.40s'", argv[0]);
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
	return run_command(argc - 1, argv + 1);
}
