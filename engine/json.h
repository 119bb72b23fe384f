/* json: reading configuration files of models with jansson, every value checked.
 *
 * Errors are STATUS_CORRUPT and name the file, and the key with what was wanted: "vae/config.json: scaling_factor must
 * be a number above 0".  `where` is the file's path as the user should see it.
 */
#ifndef PROMPTFS_ENGINE_JSON_H
#define PROMPTFS_ENGINE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/status.h"

/* The object in a file of at most 64 MiB.  Duplicate keys, trailing text and invalid UTF-8 are refused.  A missing file
 * is STATUS_NO_MODEL.  *out is the caller's (json_decref). */
enum status json_read_object(const char *path, json_t **out);

/* The same from memory.  The message names no file: the caller puts that before it with status_prefix. */
enum status json_parse_object(const void *text, size_t len, json_t **out);

/* Opens a file and gives its object to `read` with the file's path; the object is closed again. */
enum status json_read_with(
	const char *path, enum status (*read)(const json_t *object, const char *path, void *out), void *out);

/* Values of `object` under `key`.  A missing or null key leaves *out as it is (the caller's default) unless it is
 * required, which _need says; a value of another type or outside [low, high] fails. */
enum status json_get_int(
	const json_t *object, const char *where, const char *key, int64_t low, int64_t high, int64_t *out);
enum status json_need_int(
	const json_t *object, const char *where, const char *key, int64_t low, int64_t high, int64_t *out);
enum status json_get_number(
	const json_t *object, const char *where, const char *key, double low, double high, double *out);
enum status json_get_bool(const json_t *object, const char *where, const char *key, bool *out);
enum status json_get_string(const json_t *object, const char *where, const char *key, const char **out); /* borrowed */

/* A list of 1..max integers; *count is its length. */
enum status json_need_ints(const json_t *object, const char *where, const char *key, int64_t low, int64_t high, int max,
	int64_t *out, int *count);

#endif
