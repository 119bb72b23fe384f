/* safetensors: the header of one file, checked completely.  Read by weights alone;
 * written by traces and convert.
 *
 * A file is: u64 length n (little-endian), n bytes of JSON {name: {dtype, shape, data_offsets: [begin, end]}}, the
 * data. Accepted are exactly the files whose tensors cover the data without gap, overlap or rest (format:
 * https://github.com/huggingface/safetensors).
 */
#ifndef PROMPTFS_ENGINE_SAFETENSORS_H
#define PROMPTFS_ENGINE_SAFETENSORS_H

#include "engine/bytes.h"
#include "engine/json.h"
#include "engine/names.h"
#include "kernels/kernels.h"

/* More dimensions than a struct tensor has: such tensors may lie in a file, but not be asked for. */
enum { STORED_RANK_MAX = 8 };

struct stored_tensor {
	char *name;       /* owned */
	int file;         /* the caller's: which of its files */
	enum dtype dtype; /* DTYPE_OTHER for what the kernels do not know */
	const char *type; /* as the file names it: "BF16"; static */
	int rank;         /* 0..8 */
	int64_t dim[STORED_RANK_MAX];
	int64_t count;             /* elements */
	const unsigned char *data; /* inside the file's memory */
	size_t len;
	int coding;                 /* enum gguf_type when data holds blocks of a GGUF file; 0: it is as dtype says */
	enum names_how how;         /* what remains to be done to it (names.h): stored.h does it */
	const unsigned char *scale; /* factors of all rows, or of each, F32; NULL: none */
	int64_t n_scales;
};

/* file: `size` bytes.  *out is the caller's (stored_tensors_free).  STATUS_CORRUPT with a message that names no file:
 * the caller puts that before it. */
enum status safetensors_parse(const unsigned char *file, size_t size, struct stored_tensor **out, int64_t *count);

void stored_tensors_free(struct stored_tensor *list, int64_t count); /* NULL is allowed */

/* For writers: one tensor's entry of the header, and the header as it stands in a file, with its length in front,
 * padded so that the data is aligned. */
enum status safetensors_describe(json_t *header, const char *name, const char *dtype, int rank, const int64_t *dim,
	uint64_t offset, uint64_t len);
enum status safetensors_print(const json_t *header, struct bytes *out);

#endif
