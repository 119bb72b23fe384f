/* backend: what kernels.c and a backend share, and nobody else.
 *
 * A backend is one const `struct backend`.  kernels.c has checked every argument before it calls one of its functions:
 * shapes, strides and dtypes are as kernels.h says and no output is empty, so a backend only computes.
 * A backend in host memory takes its memory functions from memory.c and may take simple operations from ref/.
 */
#ifndef PROMPTFS_KERNELS_BACKEND_H
#define PROMPTFS_KERNELS_BACKEND_H

#include "kernels/kernels.h"

struct kernels {
	const struct backend *backend;
	void *state;             /* the backend's own */
	enum dtype dtype;        /* of operands */
	enum dtype weight_dtype; /* of what kernels_pack_block packs */
	int threads;             /* >= 1 */
	char device[16];
	size_t held; /* bytes of weights, buffers and arenas; see kernels_memory */
	size_t held_peak;
	double flops;
	uint64_t limit;        /* what a device may give out at most; 0: all it has */
	struct packed *packed; /* copies on disk; NULL: none */
	char about[192];       /* see kernels_about */
};

/* Every change of k->held goes through here. */
void kernels_hold(struct kernels *k, size_t more, size_t less);

enum weight_kind { WEIGHT_LINEAR, WEIGHT_CONV, WEIGHT_TABLE };

struct weight {
	enum weight_kind kind;
	enum dtype dtype;    /* of the packed values: the handle's dtype, or I8 or F8_E4M3 (linear only) */
	int64_t n, k;        /* linear [n, k]; conv [n, k, kernel, kernel] */
	int kernel;          /* 1 for linear */
	struct tensor table; /* a table's values */
	void *data;          /* packed values or the table, from backend->map */
	size_t len;          /* bytes of data */
	void *layout;        /* the backend's description of data, or NULL */
};

struct backend {
	const char *name;
	/* Fills k->state and, where k->dtype is DTYPE_OTHER, k->dtype.  k->weight_dtype is DTYPE_OTHER (it becomes
	 * k->dtype afterwards), or I8 or F8_E4M3: STATUS_UNSUPPORTED where the device has no products with such
	 * weights. */
	enum status (*open)(struct kernels *k);
	void (*close)(struct kernels *k); /* k->state may be NULL or half built */

	/* Zeroed, page-aligned memory on the device.  discard gives pages back and keeps the addresses. */
	enum status (*map)(struct kernels *k, size_t len, void **out);
	void (*unmap)(struct kernels *k, void *data, size_t len);
	void (*discard)(struct kernels *k, void *data, size_t len);
	/* Of a device with memory of its own, else NULL.  reserve takes addresses alone and commit puts memory behind
	 * those from `from` to `to` (some may have it already); unreserve gives back both. */
	enum status (*reserve)(struct kernels *k, size_t len, void **out);
	enum status (*commit)(struct kernels *k, void *data, size_t from, size_t to);
	void (*unreserve)(struct kernels *k, void *data, size_t len);
	/* Bytes that are free on the device, and all it has. */
	enum status (*memory)(struct kernels *k, uint64_t *free, uint64_t *total);
	/* Waits until everything enqueued before the call before the last one is done; NULL: nothing is ever enqueued.
	 */
	enum status (*pace)(struct kernels *k);
	/* kernels_repeat; NULL: run is called. */
	enum status (*repeat)(struct kernels *k, repeat_run *run, void *context, const void *key, size_t key_size);
	/* A dense run of `count` elements of one dtype, host to device and back. */
	enum status (*copy_in)(struct kernels *k, void *device, const void *host, size_t len);
	enum status (*copy_out)(struct kernels *k, void *host, const void *device, size_t len);

	/* Matrices and convolution kernels: begin sets data, len and layout; then every row [k * kernel * kernel] comes
	 * once, in order, in blocks of k->dtype in host memory, whatever w->dtype is: to 8 bits the backend brings
	 * them.  Where pack_rows is NULL, sources are not read at all.  `first` is a multiple of PACK_ALIGN for
	 * matrices; the rows of a convolution come in one block.  A failed pack is ended by weight_free. */
	enum status (*pack_begin)(struct kernels *k, struct weight *w);
	/* Where packed values may lie in a file: len and layout alone, as begin sets them; and what the bytes depend on
	 * besides the source.  Else NULL. */
	enum status (*pack_layout)(struct kernels *k, struct weight *w);
	void (*layout)(const struct kernels *k, char *out, size_t size);
	enum status (*pack_rows)(struct kernels *k, struct weight *w, int64_t first, int64_t count, const void *rows);
	void (*pack_free)(struct kernels *k, struct weight *w); /* frees layout */

	enum status (*linear)(struct kernels *k, const struct linear *op);
	enum status (*conv)(struct kernels *k, const struct conv *op);
	enum status (*attention)(struct kernels *k, const struct attention *op);
	enum status (*norm)(struct kernels *k, const struct norm *op);
	enum status (*norm_residual)(struct kernels *k, const struct norm_residual *op);
	enum status (*group_norm)(struct kernels *k, const struct group_norm *op);
	enum status (*qk_rope)(struct kernels *k, const struct qk_rope *op);
	enum status (*glu)(struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y);
	enum status (*gated_add)(struct kernels *k, struct tensor x, const float *gate, struct tensor stream);
	enum status (*add_row)(struct kernels *k, struct tensor row, struct tensor y);
	enum status (*clamp)(struct kernels *k, float low, float high, struct tensor y);
	enum status (*resize_nearest)(struct kernels *k, struct tensor x, struct tensor y);
	enum status (*halve)(struct kernels *k, struct tensor x, struct tensor y);
	enum status (*unary)(struct kernels *k, enum unary f, struct tensor x, struct tensor y);
	enum status (*axpby)(struct kernels *k, float a, struct tensor x, float b, struct tensor y);
	enum status (*fill_rows)(struct kernels *k, struct tensor row, struct tensor y);
	enum status (*patchify)(struct kernels *k, struct tensor latents, int patch, struct tensor rows);
	enum status (*unpatchify)(struct kernels *k, struct tensor rows, int patch, float scale, struct tensor latents);
	enum status (*to_nhwc)(struct kernels *k, struct tensor x, float scale, float shift, struct tensor y);
	enum status (*to_rgb8)(struct kernels *k, struct tensor x, uint8_t *rgb);
	enum status (*all_finite)(struct kernels *k, struct tensor x, bool *out);
};

/* A multiple of every block of output channels that oneDNN packs by (16, 24, 32, 48, 64, 96), and of ours. */
enum { PACK_ALIGN = 192 };

/* Most rows in one block, a multiple of PACK_ALIGN; the staging of the widest
 * matrices (10240 columns) takes 126 MB in f32. */
enum { PACK_ROWS = 3072 };

/* The codes' sums of a row must fit s32, also with one side shifted to unsigned: 255 * 127 * columns. */
enum { I8_COLUMNS_MAX = 65536 };

enum { HEAD_DIM_MAX = 1024 }; /* backends keep a head of qk_rope on the stack */

extern const struct backend backend_ref, backend_cpu;

/* Sets the calling thread's OpenMP thread count, which oneDNN goes by too; a handle may have moved between threads. */
void kernels_use_threads(const struct kernels *k);

/* Copies on disk (packed.c): the values of a new weight, if there; and what was packed, for the file. */
bool packed_take(struct kernels *k, struct weight *w);
void packed_add(struct kernels *k, const struct weight *w);
void packed_free(struct packed *p); /* NULL is allowed */

/* Host memory (memory.c). */
enum status memory_map(struct kernels *k, size_t len, void **out);
void memory_unmap(struct kernels *k, void *data, size_t len);
void memory_discard(struct kernels *k, void *data, size_t len);
enum status memory_copy(struct kernels *k, void *to, const void *from, size_t len);

/* Dense conversion between F32, BF16 and (source only) F16 in host memory (tensor.c). */
void tensor_convert(const void *from, enum dtype from_dtype, void *to, enum dtype to_dtype, int64_t count);

/* A row in I8 as kernels.h defines it; returns its scale, NaN for a row that is not finite (tensor.c). */
float tensor_quantise(const float *row, int64_t count, int8_t *codes);

/* Whether a dense run of F32 or BF16 has no NaN and no infinity (tensor.c). */
bool tensor_finite(const void *data, enum dtype dtype, int64_t count);

#endif
