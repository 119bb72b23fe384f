/* promptfs mount, promptfs unmount. */
#include "fs/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "fs/daemon.h"
#include "fs/log.h"
#include "fs/mountpoint.h"

struct mount_words {
	bool foreground, nonempty, sandbox;
	struct bytes fuse_options; /* joined by commas */
	const char *mountpoint;
};

/* "nonempty" is ours: libfuse no longer knows it. */
static enum status add_options(struct mount_words *w, char *list)
{
	char *save, *option;

	for (option = strtok_r(list, ",", &save); option; option = strtok_r(NULL, ",", &save)) {
		if (strcmp(option, "nonempty") == 0)
			w->nonempty = true;
		else
			TRY(bytes_print(&w->fuse_options, "%s%s", w->fuse_options.len ? "," : "", option));
	}
	return STATUS_OK;
}

/* 0, or the exit status after saying why. */
static int read_words(int argc, char **argv, struct mount_words *w)
{
	static const struct option longs[] = { { "foreground", no_argument, NULL, 'f' },
		{ "sandbox", no_argument, NULL, 's' }, { NULL, 0, NULL, 0 } };
	int option;

	optind = 1;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":fo:", longs, NULL)) != -1) {
		if (option == 'f')
			w->foreground = true;
		else if (option == 's')
			w->sandbox = true;
		else if (option != 'o')
			return command_bad_option("mount", option, argv);
		else if (add_options(w, optarg) != STATUS_OK)
			return command_fail(STATUS_NO_MEMORY);
	}
	if (optind == argc)
		return command_usage("mount", "mount: no mount point given");
	if (optind + 1 < argc)
		return command_usage("mount", "mount: one mount point, not also %s", argv[optind + 1]);
	w->mountpoint = argv[optind];
	return 0;
}

/* Serves in this process. */
static int serve(const struct daemon_options *options, struct config *config)
{
	enum status ended = daemon_run(options, config);

	return ended == STATUS_OK ? 0 : command_fail(ended);
}

/* The child of a background mount: its own session, the journal for what it has to say once it is ready. */
static int serve_apart(struct daemon_options *options, struct config *config, int ready_fd)
{
	options->ready_fd = ready_fd;
	if (setsid() < 0)
		return command_fail(status_fail(STATUS_IO, "cannot leave the terminal: %s", strerror(errno)));
	if (chdir("/") < 0)
		return command_fail(status_fail(STATUS_IO, "/: %s", strerror(errno)));
	if (log_open(config->log_level, config->log_file, LOG_SINK_SYSLOG) != STATUS_OK)
		return command_fail(STATUS_IO);
	return serve(options, config);
}

/* Returns when requests are answered, or with the exit status of the child, which has said why. */
static int wait_ready(pid_t child, int ready_fd)
{
	ssize_t got;
	char byte;
	int ended;

	do
		got = read(ready_fd, &byte, 1);
	while (got < 0 && errno == EINTR);
	close(ready_fd);
	if (got == 1)
		return 0;
	while (waitpid(child, &ended, 0) < 0) {
		if (errno != EINTR)
			return 1;
	}
	if (WIFEXITED(ended) && WEXITSTATUS(ended) != 0)
		return WEXITSTATUS(ended);
	return command_fail(status_fail(STATUS_INTERNAL, "the daemon ended before it was ready"));
}

static int mount_apart(struct daemon_options *options, struct config *config)
{
	int ready[2];
	pid_t child;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return command_fail(status_fail(STATUS_IO, "pipe: %s", strerror(errno)));
	fflush(stdout);
	child = fork();
	if (child < 0)
		return command_fail(status_fail(STATUS_IO, "fork: %s", strerror(errno)));
	if (child == 0) {
		close(ready[0]);
		return serve_apart(options, config, ready[1]);
	}
	config_free(config);
	close(ready[1]);
	return wait_ready(child, ready[0]);
}

static int mount_words(const struct mount_words *w, struct daemon_options *options, struct config *config)
{
	char absolute[PATH_MAX], directory[PATH_MAX];
	enum status prepared = mountpoint_prepare(w->mountpoint, w->nonempty, absolute);

	if (prepared != STATUS_OK) {
		config_free(config);
		return command_fail(prepared);
	}
	options->mountpoint = absolute;
	options->sandbox = w->sandbox;
	options->fuse_options = (const char *)w->fuse_options.data;
	options->directory = getcwd(directory, sizeof(directory)) ? directory : "/";
	options->ready_fd = -1;
	return w->foreground ? serve(options, config) : mount_apart(options, config);
}

int cmd_mount(int argc, char **argv)
{
	char **given = calloc((size_t)argc + 1, sizeof(*given));
	struct daemon_options options = { .argc = argc, .argv = given };
	struct mount_words words = { 0 };
	struct config config;
	int result;

	if (!given)
		return command_fail(status_fail(STATUS_NO_MEMORY, "no memory to start"));
	/* the common options are taken out of argv, and wanted again by a reload */
	memcpy(given, argv, (size_t)argc * sizeof(*given));
	result = command_config(&argc, argv, &config);
	if (!result) {
		result = read_words(argc, argv, &words);
		if (!result)
			result = mount_words(&words, &options, &config);
		else
			config_free(&config);
	}
	bytes_free(&words.fuse_options);
	free(given);
	return result;
}

int cmd_unmount(int argc, char **argv)
{
	static const struct option longs[] = { { "lazy", no_argument, NULL, 'l' }, { NULL, 0, NULL, 0 } };
	enum status released;
	bool lazy = false;
	int option;

	optind = 1;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":l", longs, NULL)) != -1) {
		if (option != 'l')
			return command_bad_option("unmount", option, argv);
		lazy = true;
	}
	if (optind + 1 != argc)
		return command_usage("unmount", "unmount: one mount point");
	released = mountpoint_release(argv[optind], lazy);
	return released == STATUS_OK ? 0 : command_fail(released);
}
