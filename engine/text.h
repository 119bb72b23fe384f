/* text: small readers and printers of values, the same for prompt files, configurations, options and recipes.
 *
 * White space is ASCII's: space, tab, newline, carriage return, vertical tab, form feed.
 * Threads: no shared state.
 */
#ifndef PROMPTFS_ENGINE_TEXT_H
#define PROMPTFS_ENGINE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/bytes.h"

bool text_is_space(char c);

/* Strict UTF-8 without NUL; *bad (may be NULL) is the offset of the first byte that is not. */
bool text_is_utf8(const char *text, size_t len, size_t *bad);

/* The whole text must be the number: decimal, no sign tricks, no white space, no infinity.  False leaves *out alone. */
bool text_read_int(const char *text, int64_t low, int64_t high, int64_t *out);
bool text_read_seed(const char *text, uint64_t *out);
bool text_read_double(const char *text, double *out);
bool text_read_size(const char *text, int64_t max, int64_t *width, int64_t *height); /* "768x512", each 1..max */

/* The shortest decimal that reads back as the same double. */
enum { TEXT_DOUBLE_LEN = 32 };
void text_print_double(double value, char out[TEXT_DOUBLE_LEN]);

/* Appends the text as a JSON string, quotes included. */
enum status text_quote(const char *text, struct bytes *out);

/* malloc'ed copy with a NUL; STATUS_NO_MEMORY.  The old *out is freed. */
enum status text_copy(const char *text, size_t len, char **out);

/* Narrows the range to what stands between white space. */
void text_trim(const char **text, size_t *len);

#endif
