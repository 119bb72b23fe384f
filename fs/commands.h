/* commands: `promptfs COMMAND`, one function and one file fs/cmd_COMMAND.c each, and what they share.
 *
 * A command gets argv[0] = its name and argv[1..] = its words, NULL at the end, and returns the exit status: 0 done, 1
 * failed, 2 wrong usage, 130 interrupted.  Results go to stdout; one line on stderr says why something failed.
 *
 * Threads: commands run on the main thread.
 */
#ifndef PROMPTFS_FS_COMMANDS_H
#define PROMPTFS_FS_COMMANDS_H

#include <stdio.h>

#include "fs/config.h"

int cmd_mount(int argc, char **argv);
int cmd_unmount(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_models(int argc, char **argv);
int cmd_cache(int argc, char **argv);
int cmd_worker(int argc, char **argv);
int cmd_help(int argc, char **argv);

/* "promptfs: <status_text()>" on stderr; 130 for STATUS_CANCELLED, else 1. */
int command_fail(enum status s);

/* "promptfs: <what> (see `promptfs help COMMAND`)" on stderr; 2. */
int command_usage(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* config_load, then the log to stderr or --log-file.  0, or the exit status after saying why. */
int command_config(int *argc, char **argv, struct config *out);

/* For a getopt_long that returned '?' or ':' (opterr is 0, the options begin with ':'); 2. */
int command_bad_option(const char *command, int result, char **argv);

/* Whether everything written to stdout has arrived; says why not. 0 or 1. */
int command_finish(void);

/* "1.23 GB". */
enum { COMMAND_BYTES_LEN = 24 };
void command_print_bytes(uint64_t bytes, char out[COMMAND_BYTES_LEN]);

/* Copies one line of text for people, without control characters, cut to `columns` bytes at a character. */
void command_print_line(const char *text, size_t columns, FILE *out);

/* The help of a command or topic; false when there is none. */
bool command_help(const char *topic, FILE *out);
void command_overview(FILE *out);

#endif
