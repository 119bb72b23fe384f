/* trace: the stages of a job, kept on the host and written as one safetensors file (names: golden/FORMAT.md).
 *
 * Every function accepts a NULL trace and then does nothing, so that callers need not ask.
 */
#ifndef PROMPTFS_ENGINE_TRACE_H
#define PROMPTFS_ENGINE_TRACE_H

#include "kernels/kernels.h"

struct trace;

enum status trace_new(struct trace **out);
void trace_free(struct trace *t);

/* Copies; name is printf-style.  A device tensor arrives as F32. */
enum status trace_tensor(struct trace *t, struct kernels *k, struct tensor device, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
enum status trace_floats(struct trace *t, const char *name, const float *values, int64_t count);
enum status trace_ids(struct trace *t, const char *name, const int64_t *ids, int64_t count);
/* [height, width, 3] F32 on the device, stored as [3, height, width]. */
enum status trace_picture(struct trace *t, struct kernels *k, struct tensor device, const char *name);
enum status trace_pixels(struct trace *t, const char *name, const uint8_t *rgb, int64_t height, int64_t width);

enum status trace_write(const struct trace *t, const char *path);

#endif
