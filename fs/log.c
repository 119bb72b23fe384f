/* log: levels, sinks and the recent lines. */
#include "fs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { LINE_LEN = 2048, RECENT_LEN = 64 << 10 };

static const char *const names[] = { "error", "warn", "info", "debug", "trace" };
static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG, LOG_DEBUG };

/* A leaf: nothing else is locked while it is held. */
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static enum log_level limit = LOG_LEVEL_WARN; /* guarded by mu, as what follows */
static enum log_sink sink = LOG_SINK_STDERR;
static int fd = -1; /* of the log file */
static char recent[RECENT_LEN];
static size_t recent_len;

enum status log_open(const char *level, const char *file, enum log_sink fallback)
{
	int opened = *file ? open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600) : -1;

	if (*file && opened < 0)
		return status_fail(STATUS_IO, "%s: the log file cannot be opened: %s", file, strerror(errno));
	log_close();
	pthread_mutex_lock(&mu);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(names[i], level) == 0)
			limit = (enum log_level)i;
	sink = fallback;
	fd = opened;
	if (sink == LOG_SINK_SYSLOG)
		openlog("promptfs", LOG_PID, LOG_DAEMON);
	pthread_mutex_unlock(&mu);
	return STATUS_OK;
}

void log_close(void)
{
	pthread_mutex_lock(&mu);
	if (fd >= 0)
		close(fd);
	fd = -1;
	pthread_mutex_unlock(&mu);
}

enum log_level log_level(void)
{
	enum log_level now;

	pthread_mutex_lock(&mu);
	now = limit;
	pthread_mutex_unlock(&mu);
	return now;
}

static void stamp(char out[40])
{
	struct timespec now;
	struct tm utc;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	len = strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(out + len, 40 - len, ".%03ldZ", now.tv_nsec / 1000000);
}

/* Keeps the newest lines, dropping whole old ones. Called with mu. */
static void remember(const char *line, size_t len)
{
	if (recent_len + len > RECENT_LEN) {
		size_t need = recent_len + len - RECENT_LEN;
		const char *cut = memchr(recent + need, '\n', recent_len - need);
		size_t drop = cut ? (size_t)(cut + 1 - recent) : recent_len;

		memmove(recent, recent + drop, recent_len - drop);
		recent_len -= drop;
	}
	memcpy(recent + recent_len, line, len);
	recent_len += len;
}

/* Called with mu. A log that cannot be written has nowhere to say so. */
static void emit(enum log_level level, const char *text, const char *line, size_t len)
{
	ssize_t written = 0;

	if (fd >= 0)
		written = write(fd, line, len);
	else if (sink == LOG_SINK_SYSLOG)
		syslog(priorities[level], "%s", text);
	else
		fprintf(stderr, "promptfs: %s: %s\n", names[level], text);
	(void)written;
}

void log_write(enum log_level level, const char *format, ...)
{
	char text[LINE_LEN], when[40], line[LINE_LEN + 64];
	va_list args;
	size_t len;

	if (level > LOG_LEVEL_INFO && level > log_level())
		return;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	status_clean(text); /* what comes from outside may not forge other lines */
	stamp(when);
	len = (size_t)snprintf(line, sizeof line, "%s %s %s\n", when, names[level], text);
	pthread_mutex_lock(&mu);
	if (level <= LOG_LEVEL_INFO)
		remember(line, len);
	if (level <= limit)
		emit(level, text, line, len);
	pthread_mutex_unlock(&mu);
}

enum status log_recent(struct bytes *out)
{
	enum status s;

	pthread_mutex_lock(&mu);
	s = bytes_add(out, recent, recent_len);
	pthread_mutex_unlock(&mu);
	return s;
}
