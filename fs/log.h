/* log: the one sink of everything that is not the result of a command.
 *
 *     error   work was lost
 *     warn    something to look at
 *     info    once per job
 *     debug   once per step
 *     trace   once per operation
 *
 * Before log_open, and where it was told so, lines go to stderr.  What a user must see whatever the level (the reason
 * why a command failed) is no log: see commands.h.
 *
 * Threads: any.
 */
#ifndef PROMPTFS_FS_LOG_H
#define PROMPTFS_FS_LOG_H

#include "engine/bytes.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG, LOG_LEVEL_TRACE };

enum log_sink { LOG_SINK_STDERR, LOG_SINK_SYSLOG };

/* level: a name as in the configuration; file: "" for the sink.  STATUS_IO when the file cannot be opened.  May be
 * called again: the new settings count. */
enum status log_open(const char *level, const char *file, enum log_sink sink);
void log_close(void);

enum log_level log_level(void);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_trace(...) log_write(LOG_LEVEL_TRACE, __VA_ARGS__)

/* Appends the last lines (up to 64 KiB) that were errors, warnings or infos, whatever the level. */
enum status log_recent(struct bytes *out);

#endif
