/* escape: names of files, which may hold any byte, in lines of text that people and terminals read; and back.
 *
 *     \n  \\  \x1b     newline, backslash, any other byte
 *
 * Escaped are control characters (C0, DEL, and C1, which some terminals obey too), what is no UTF-8, and the characters
 * that turn the direction of a line or break it (U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069).
 *
 * Threads: no shared state.
 */
#ifndef PROMPTFS_FS_ESCAPE_H
#define PROMPTFS_FS_ESCAPE_H

#include <stdbool.h>

#include "engine/bytes.h"

/* Appends the name as printable UTF-8 in one line. */
enum status escape_add(const char *name, struct bytes *out);

/* Replaces the escapes in place; false when one is malformed or stands for a NUL. */
bool escape_undo(char *name);

#endif
