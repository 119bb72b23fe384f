/* daemon: see daemon.h. */
#include "fs/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/confine.h"
#include "fs/images.h"
#include "fs/log.h"
#include "fs/prompts.h"
#include "fs/serve.h"
#include "fs/statusfs.h"
#include "fs/tree.h"

/* ---- libfuse's own messages ---- */

/* Before requests are answered, libfuse's last word explains why mounting failed; afterwards its words are log lines.
 */
static char fuse_words[512];
static bool fuse_words_kept;

__attribute__((format(printf, 2, 0))) static void on_fuse_log(
	enum fuse_log_level level, const char *format, va_list args)
{
	char text[sizeof(fuse_words)];

	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	if (fuse_words_kept)
		memcpy(fuse_words, text, sizeof(text));
	else if (level <= FUSE_LOG_WARNING)
		log_warn("%s", text);
	else
		log_debug("%s", text);
}

/* ---- signals ---- */

static void ending_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

/* Threads started from here on leave them to the main thread, which waits for requests to end. */
static void block_signals(void)
{
	sigset_t set;

	ending_signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void unblock_signals(void)
{
	sigset_t set;

	ending_signals(&set);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- opening, in this order ---- */

/* As many descriptors as we may have, for the prompts that the kernel knows; returns how many those are. */
static long raise_limits(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return 1024;
	if (geteuid() == 0 && files.rlim_max < 1 << 20) {
		struct rlimit more = { 1 << 20, 1 << 20 };

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			return 1 << 20;
	}
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	return files.rlim_max > 1 << 20 ? 1 << 20 : (long)files.rlim_max;
}

/* Our own files must not be looked for through our own mount. */
static enum status check_outside(const char *mountpoint, const char *what, const char *path)
{
	char absolute[PATH_MAX];
	size_t len = strlen(mountpoint);

	if (!realpath(path, absolute))
		return status_fail(STATUS_IO, "%s %s: %s", what, path, strerror(errno));
	if (strncmp(absolute, mountpoint, len) == 0 && (absolute[len] == '/' || absolute[len] == '\0'))
		return status_fail(STATUS_INVALID, "mount point %s: the %s %s lies inside; choose another folder",
			mountpoint, what, absolute);
	return STATUS_OK;
}

static enum status open_store(struct daemon *d, const struct config *config)
{
	char proc[32];
	ssize_t len;

	TRY(store_open(config->store, &d->store));
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", d->store.prompts_fd);
	len = readlink(proc, d->prompts_path, sizeof(d->prompts_path) - 1);
	if (len < 0)
		return status_fail(STATUS_IO, "/proc is needed and cannot be read: %s", strerror(errno));
	d->prompts_path[len] = '\0';
	TRY(check_outside(d->options->mountpoint, "store", d->store.path));
	return records_open(d->store.fd, &d->records);
}

static enum status open_cache(struct daemon *d, const struct config *config)
{
	if (cache_open(config->cache, config->cache_limit, &d->cache) != 0)
		return status_fail(STATUS_IO, "%s", cache_text());
	return check_outside(d->options->mountpoint, "cache", config->cache);
}

static enum status open_trees(struct daemon *d)
{
	d->inodes = inodes_new();
	d->outcomes = outcomes_new();
	if (!d->inodes || !d->outcomes)
		return status_fail(STATUS_NO_MEMORY, "no memory to start");
	d->prompts = prompts_open_root(d);
	if (!d->prompts)
		return status_fail(STATUS_IO, "cannot open prompts/ in the store: %s", strerror(errno));
	TRY(images_open(d, &d->images));
	return statusfs_open(d);
}

static enum status open_jobs(struct daemon *d)
{
	TRY(jobs_open(&resolver_catalog(d->resolver)->config, d->cache, "/proc/self/exe", &d->jobs));
	return parked_open_list(d->jobs, images_interrupted, &d->parked);
}

/* ---- the session ---- */

/* Nobody must wait for our end at the other end of a pipe. */
static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR);

	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	if (null > STDERR_FILENO)
		close(null);
}

static void report_ready(const struct daemon_options *options)
{
	if (options->ready_fd < 0)
		return;
	leave_terminal();
	if (write(options->ready_fd, "r", 1) < 0)
		log_debug("nobody waits for the mount any more");
	close(options->ready_fd);
}

/* What -o max_read=N says; 0: nothing. */
static unsigned max_read_given(const struct daemon_options *options)
{
	const char *at = options->fuse_options ? strstr(options->fuse_options, "max_read=") : NULL;

	return at ? (unsigned)strtoul(at + strlen("max_read="), NULL, 10) : 0;
}

static void on_init(void *userdata, struct fuse_conn_info *connection)
{
	struct daemon *d = userdata;

	/* libfuse gives up the session unless both are the same */
	connection->max_read = max_read_given(d->options);

	/* the kernel asks for set-id bits to be cleared, as we could not know when to */
	connection->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
	fuse_words_kept = false;
	report_ready(d->options);
}

static enum status open_session(struct daemon *d)
{
	const char *own = "default_permissions,fsname=promptfs,subtype=promptfs";
	const char *given = d->options->fuse_options;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_lowlevel_ops ops = tree_ops;

	ops.init = on_init;
	if (fuse_opt_add_arg(&args, "promptfs") || fuse_opt_add_arg(&args, "-o") || fuse_opt_add_arg(&args, own) ||
		(given && *given && (fuse_opt_add_arg(&args, "-o") || fuse_opt_add_arg(&args, given))))
		return status_fail(STATUS_NO_MEMORY, "no memory to start");
	fuse_words_kept = true;
	fuse_words[0] = '\0';
	fuse_set_log_func(on_fuse_log);
	d->session = fuse_session_new(&args, &ops, sizeof(ops), d);
	fuse_opt_free_args(&args);
	if (!d->session)
		return status_fail(STATUS_INVALID, "-o %s: %s", given ? given : "",
			*fuse_words ? fuse_words : "not accepted by libfuse");
	return STATUS_OK;
}

static enum status mount_session(struct daemon *d)
{
	if (access("/dev/fuse", F_OK) < 0)
		return status_fail(STATUS_IO,
			"/dev/fuse is missing: load the kernel's fuse module, or give the container the device");
	if (fuse_session_mount(d->session, d->options->mountpoint) == 0)
		return STATUS_OK;
	return status_fail(
		STATUS_IO, "cannot mount on %s%s%s", d->options->mountpoint, *fuse_words ? ": " : "", fuse_words);
}

/* Before any thread is started, which would stay outside. */
static enum status enter_sandbox(struct daemon *d)
{
	TRY(unmounter_start(d->options->mountpoint, d->store.lock_fd, &d->unmounter));
	return confine_daemon(&resolver_catalog(d->resolver)->config);
}

/* Requests wait in the kernel from the mounting on. */
static enum status open_all(struct daemon *d, struct config *config)
{
	struct catalog *catalog;
	enum status opened = open_store(d, config);

	if (opened == STATUS_OK)
		opened = open_cache(d, config);
	if (opened != STATUS_OK) {
		config_free(config);
		return opened;
	}
	TRY(catalog_open(config, &catalog));
	TRY(resolver_open(catalog, d->store.prompts_fd, d->records, &d->resolver));
	TRY(open_session(d));
	TRY(mount_session(d));
	if (d->options->sandbox)
		TRY(enter_sandbox(d));
	TRY(open_jobs(d));
	return open_trees(d);
}

/* In a sandbox nothing can be unmounted: the closed device makes the mount a dead one, which the unmounter takes away.
 */
static void close_session(struct daemon *d)
{
	if (!d->session)
		return;
	if (d->unmounter.socket < 0)
		fuse_session_unmount(d->session);
	fuse_session_destroy(d->session);
	unmounter_finish(&d->unmounter);
}

/* In reverse.  Waiting opens are answered before the mount goes, or it would wait for them. */
static void close_all(struct daemon *d)
{
	parked_stop(d->parked);
	jobs_close(d->jobs);
	close_session(d);
	parked_close_list(d->parked);
	inodes_free(d->inodes);
	opened_fini(&d->opened);
	images_close(d->images);
	outcomes_free(d->outcomes);
	resolver_close(d->resolver);
	cache_close(d->cache);
	records_close(d->records);
	store_close(&d->store);
}

/* ---- serving ---- */

static void warm_models(struct daemon *d)
{
	const struct catalog *catalog = resolver_catalog(d->resolver);

	for (int i = 0; i < catalog->n_models; i++) {
		const struct catalog_model *m = &catalog->models[i];

		if (m->status != STATUS_OK)
			log_warn("model %s cannot be used: %s", m->where->name, m->why);
		else if (m->where->preload && jobs_warm(d->jobs, &m->model, m->where) != STATUS_OK)
			log_warn("model %s cannot be loaded: %s", m->where->name, status_text());
	}
}

static enum status run_session(struct daemon *d)
{
	enum status served;

	if (fuse_set_signal_handlers(d->session) != 0)
		return status_fail(STATUS_INTERNAL, "cannot set the signal handlers");
	log_info("serving %s at %s", d->store.path, d->options->mountpoint);
	warm_models(d);
	unblock_signals();
	served = serve_session(d->session);
	block_signals();
	log_info("%s: ending", d->options->mountpoint);
	fuse_remove_signal_handlers(d->session);
	return served;
}

enum status daemon_run(const struct daemon_options *options, struct config *config)
{
	struct daemon d = { .options = options, .owner = geteuid(), .group = getegid(), .unmounter = { -1 } };
	enum status ended;

	d.store.fd = d.store.lock_fd = d.store.prompts_fd = -1;
	clock_gettime(CLOCK_REALTIME, &d.started);
	umask(0); /* the kernel applies each caller's own */
	signal(SIGPIPE, SIG_IGN);
	places_init(&d.places, raise_limits() / 2);
	opened_init(&d.opened);
	block_signals();
	ended = open_all(&d, config);
	if (ended == STATUS_OK)
		ended = run_session(&d);
	close_all(&d);
	places_fini(&d.places);
	return ended;
}

/* Relative paths in the options count from where the command was started. */
static enum status load_config(const struct daemon_options *options, struct config *out)
{
	char **argv = calloc((size_t)options->argc + 1, sizeof(*argv));
	int argc = options->argc;
	enum status s;

	if (!argv)
		return status_fail(STATUS_NO_MEMORY, "no memory to read the configuration");
	memcpy(argv, options->argv, (size_t)argc * sizeof(*argv));
	if (chdir(options->directory) < 0)
		log_warn("%s: %s", options->directory, strerror(errno));
	s = config_load(&argc, argv, out);
	if (chdir("/") < 0)
		log_warn("/: %s", strerror(errno));
	free(argv);
	return s;
}

static enum status reload(struct daemon *d)
{
	const struct config *now = &resolver_catalog(d->resolver)->config;
	struct catalog *catalog;
	struct config config;

	TRY(load_config(d->options, &config));
	if (strcmp(config.store, now->store) != 0 || strcmp(config.cache, now->cache) != 0)
		log_warn("reload: another store or cache counts from the next mount on");
	TRY(catalog_open(&config, &catalog));
	resolver_reload(d->resolver, catalog);
	log_info("the configuration was read again");
	return STATUS_OK;
}

/* One at a time: the working folder is the process's. */
enum status daemon_reload(struct daemon *d)
{
	static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
	enum status s;

	pthread_mutex_lock(&mu);
	s = reload(d);
	pthread_mutex_unlock(&mu);
	return s;
}
