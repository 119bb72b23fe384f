/* kernels: the arithmetic of promptfs on one device, behind one handle.
 *
 * A backend is a const table of functions ("ref": plain loops, the definition of every operation; "cpu": oneDNN and
 * SIMD; "cuda:N" later), chosen once by kernels_open.  Nothing above this header knows which one runs.
 *
 *     struct kernels *k;
 *     TRY(kernels_open("cpu", DTYPE_BF16, 2, &k));
 *     TRY(kernels_pack_linear(k, 1, &host_weight, &w));      // once, at load
 *     TRY(arena_open(k, 1 << 30, &arena));
 *     TRY(arena_take(arena, kernels_dtype(k), 2, (int64_t[]){rows, n}, &y));
 *     TRY(kernels_linear(k, &(struct linear){.x = x, .w = w, .y = y}));
 *
 * Numbers.  The handle computes in one dtype: F32 or BF16.  The operands of matrix products, convolutions and attention
 * ("operands" below) are stored in that dtype and products accumulate in f32; residual streams, statistics, tables,
 * latents and biases are F32 in either case.  Where an operation says "any", each of its tensors may be F32 or BF16.
 *
 * Weights in 8 bits.  A handle opened in I8 or F8_E4M3 has operands in the device's default dtype, and keeps those
 * matrices in 8 bits that kernels_pack_block packed: each row w of a matrix as codes and one F32 scale.  A product with
 * such a matrix brings each row x of its input to 8 bits in the same way, sums codes exactly (I8: in s32), and gives
 *
 *     y[i, j] = activation(sum * scale_x[i] * scale_w[j] + bias[j]) (+ y)
 *
 *     I8       scale = max |row| / 127; code = round_half_even(row * (127 / max |row|)); a row with max |row| < 1e-30
 * is all zeros; a row of x with NaN or infinity gives NaN.  Codes run from -127 to 127, zero is zero. F8_E4M3  scale =
 * max |row| / 448; code = e4m3(row * (448 / max |row|)); the device says whether it has it.
 *
 * Convolutions, attention and everything packed by kernels_pack_linear stay in the operands' dtype.
 *
 * Tensors are views: they own nothing.  Element (i,j,..) is at data + (i*stride[0] + j*stride[1] + ..) * size; the last
 * stride is 1 unless an operation says otherwise.  Pictures are [height, width, channels] (NHWC with one picture).
 * Outputs must not overlap inputs unless the operation says "in place".
 *
 * Threads: a handle and what was made with it belong to one thread at a time; the backend's own threads are its
 * business. Errors: wrong shapes or dtypes are STATUS_INTERNAL with the operation's name; STATUS_UNSUPPORTED where a
 * device lacks something; STATUS_NO_MEMORY.  Arguments are checked in kernels.c, once for every backend.
 */
#ifndef PROMPTFS_KERNELS_H
#define PROMPTFS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

enum dtype {
	DTYPE_F32,
	DTYPE_BF16,
	DTYPE_F16,
	DTYPE_U8,
	DTYPE_I64,
	DTYPE_F8_E4M3,
	DTYPE_F8_E5M2,
	DTYPE_I8,
	DTYPE_OTHER,
	DTYPE_COUNT
};

enum { TENSOR_RANK_MAX = 4 };

struct tensor {
	void *data; /* in the memory of the handle's device (host memory for ref and cpu) */
	enum dtype dtype;
	int rank;                        /* 1..4 */
	int64_t dim[TENSOR_RANK_MAX];    /* dimensions beyond rank are 1 */
	int64_t stride[TENSOR_RANK_MAX]; /* in elements */
};

size_t dtype_size(enum dtype dtype);      /* bytes; 0 for DTYPE_OTHER */
const char *dtype_name(enum dtype dtype); /* "f32", "bf16", ... */
float bf16_to_f32(uint16_t x);
uint16_t bf16_from_f32(float x); /* to nearest even; NaN stays NaN */
float f16_to_f32(uint16_t x);

struct tensor tensor_view(void *data, enum dtype dtype, int rank, const int64_t *dim); /* contiguous */
struct tensor tensor_slice(struct tensor t, int axis, int64_t start, int64_t count);   /* the view of a range */
int64_t tensor_count(const struct tensor *t);                                          /* elements */
bool tensor_contiguous(const struct tensor *t);

/* ---- handle ----------------------------------------------------------------------------------------------------- */

struct kernels;

/* device: "ref", "cpu", "auto" (the best present), "cuda:N" (STATUS_UNSUPPORTED without one).  dtype: DTYPE_F32,
 * DTYPE_BF16, or DTYPE_OTHER for the device's default (bf16 where the processor computes in it, else f32), or DTYPE_I8
 * or DTYPE_F8_E4M3: the default with block weights in 8 bits; a dtype that the device lacks is STATUS_UNSUPPORTED.
 * threads: 0 = as many as processors that the process may run on. */
enum status kernels_open(const char *device, enum dtype dtype, int threads, struct kernels **out);
void kernels_close(struct kernels *k);             /* NULL is allowed */
enum dtype kernels_dtype(const struct kernels *k); /* what operands are stored in */
/* What kernels_pack_block stores: kernels_dtype, I8 or F8_E4M3.  It names the arithmetic as a whole: what --dtype says.
 */
enum dtype kernels_weight_dtype(const struct kernels *k);
const char *kernels_device(const struct kernels *k); /* "ref", "cpu", "cuda:0" */
size_t kernels_memory(const struct kernels *k);      /* bytes held now by packed weights, buffers and arenas */
size_t kernels_memory_peak(const struct kernels *k); /* the most of it */
/* The arithmetic of all products, convolutions and attentions so far, two operations a multiply-add, as their
 * definitions have it: an implementation that saves some counts the same. */
double kernels_flops(const struct kernels *k);

/* "NVIDIA H200, sm_90, 139.8 GiB"; of "auto" that came to the cpu, why: "no GPU: there is no NVIDIA driver". */
const char *kernels_about(const struct kernels *k);
/* What there is on this machine, a device a line, or why there is no GPU. */
void kernels_list(char *out, size_t size);

/* The folder where devices keep what they measured, made if need be: $XDG_CACHE_HOME/promptfs/tuning.  False: none. */
bool kernels_tuning_folder(char *out, size_t size);
/* Where the backend of GPUs lies, a shared object of its own.  False: nowhere. */
bool kernels_plugin_file(char *out, size_t size);

/* What results depend on, bit by bit, besides what is computed: the program's file, device, dtypes, libraries. */
void kernels_arithmetic(const struct kernels *k, char *out, size_t size);

/* Whether the device has memory of its own; then the bytes that are free there and all it has, else those of the host.
 * The limit is kept by the device's memory functions: STATUS_NO_MEMORY with the figures. */
bool kernels_own_memory(const struct kernels *k);
enum status kernels_free_memory(struct kernels *k, uint64_t *free, uint64_t *total);
/* A handle that computes nothing and reads no weights, but takes memory as `like` would: kernels_memory_peak says how
 * much.  It has the device's name; results are mostly zeros, and all are finite. */
enum status kernels_open_dry(const struct kernels *like, struct kernels **out);
void kernels_limit_memory(struct kernels *k, uint64_t bytes); /* 0: no limit of ours */

/* Operations may run later than they are called, in order.  Whoever asks for results waits for them (download, to_rgb8,
 * all_finite); pace, called once a step, keeps the caller at most two steps ahead of the device. */
enum status kernels_pace(struct kernels *k);

/* The same operations again: calls run, or lets the device repeat what it recorded of an earlier call with this key.
 * Every operation of run and all its arguments (addresses, sizes, numbers) must follow from run and the bytes of key;
 * what changes from one time to the next lies in the memory that they read.  run leaves its arena as it was, changes
 * nothing that it reads, and may be called twice. */
enum { REPEAT_KEY_MAX = 768 };
typedef enum status repeat_run(void *context);
enum status kernels_repeat(struct kernels *k, repeat_run *run, void *context, const void *key, size_t key_size);

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* A stack of 64-byte aligned tensors; releasing to a mark frees everything taken since and gives the pages back.
 * arena_open reserves `capacity` bytes of address space; pages cost memory when first touched. */
struct arena;
enum status arena_open(struct kernels *k, size_t capacity, struct arena **out);
void arena_close(struct arena *a); /* NULL is allowed */
enum status arena_take(struct arena *a, enum dtype dtype, int rank, const int64_t *dim, struct tensor *out);
size_t arena_mark(const struct arena *a);
void arena_release(struct arena *a, size_t mark);
size_t arena_peak(const struct arena *a); /* bytes, since open */

/* Host to device and back, converting between F32, BF16 and (source only) F16; host tensors are contiguous. */
enum status kernels_upload(struct kernels *k, const struct tensor *host, struct tensor device);
enum status kernels_download(struct kernels *k, struct tensor device, const struct tensor *host);

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Matrices and convolution kernels packed once in the layout the backend likes best, in the handle's dtype.
 * Sources are host tensors (F32, BF16 or F16), read once, row by row in order; the caller may drop their pages
 * afterwards.  Every value is checked: NaN or infinity is STATUS_CORRUPT. */
struct weight;

/* n_parts matrices [n_i, k] of one k, joined along n: one product serves to_q, to_k and to_v. */
enum status kernels_pack_linear(struct kernels *k, int n_parts, const struct tensor *parts, struct weight **out);

/* The same in kernels_weight_dtype: for the large matrices inside a network's blocks, where 8 bits cost little (the
 * projections of attention, the feed-forward).  Not for what few values pass through, or what decides for a whole
 * layer: embedders, modulation, final layers. */
enum status kernels_pack_block(struct kernels *k, int n_parts, const struct tensor *parts, struct weight **out);

/* [out, in, kernel, kernel], kernel 1 or 3. */
enum status kernels_pack_conv(struct kernels *k, const struct tensor *source, struct weight **out);

/* A vector or small table as F32 in device memory ([n] or [m, n]; F32, BF16 or F16 source), owned by the weight. */
enum status kernels_pack_table(struct kernels *k, const struct tensor *source, struct weight **out);

/* Copies of packed matrices and convolutions on disk, for devices in host memory; others do nothing.  Between begin and
 * end every weight is mapped from the file of this identity (of the sources; how this device packs is added to it),
 * where there is a good one, and its source is not read; else it is packed, and an end with `keep` puts a new file in
 * place, whole.  The weights must come in the same order each time.  All files together stay within `limit` bytes:
 * those unused for longest go.  Weights below PACKED_MIN bytes together are packed as fast as a file is opened. */
static const uint64_t PACKED_MIN = (uint64_t)64 << 20;
void kernels_keep_packed(struct kernels *k, const char *dir, uint64_t limit);
void kernels_packed_begin(struct kernels *k, const char *identity, uint64_t bytes);
void kernels_packed_end(struct kernels *k, bool keep);

const struct tensor *weight_table(const struct weight *w); /* the tensor of a packed table; borrowed */
void weight_free(struct kernels *k, struct weight *w);     /* NULL is allowed */

/* ---- products ---------------------------------------------------------------------------------------------------- */

enum activation {
	ACTIVATION_NONE,
	ACTIVATION_SILU,
	ACTIVATION_GELU /* erf */,
	ACTIVATION_GELU_TANH,
	ACTIVATION_QUICK_GELU
};

/* y = activation(x w^T + bias) (+ y when accumulate). */
struct linear {
	struct tensor x;           /* [m, k] operand; rows may be strided, at the cost of a copy on cpu */
	const struct weight *w;    /* [n, k] */
	const struct weight *bias; /* [n] table, or NULL */
	enum activation activation;
	bool accumulate; /* adds to y (y is F32 then) */
	struct tensor y; /* [m, n] any */
};
enum status kernels_linear(struct kernels *k, const struct linear *op);

/* Convolution with zero padding kernel/2 on each side.  x may first be enlarged twice by repetition (upsample); y may
 * then be a row or a column shorter than twice x, which crops the enlarged picture before the padding.  stride 2 takes
 * every second place: y is [(h + 1) / 2, (w + 1) / 2, out]. */
struct conv {
	struct tensor x;           /* [h, w, in] operand, contiguous */
	const struct weight *w;    /* [out, in, kernel, kernel] */
	const struct weight *bias; /* [out] table, or NULL */
	bool upsample;             /* nearest neighbour, x 2, before the convolution */
	int stride;                /* 0 or 1: every place; 2 (without upsample): every second one */
	bool accumulate;           /* adds to y: a residual connection (y is F32 then) */
	struct tensor y;           /* [rows, columns, out] any, contiguous */
};
enum status kernels_conv(struct kernels *k, const struct conv *op);

/* out = softmax(q k^T * scale + bias) v for every head; query head h reads key head h / (heads / kv_heads). */
struct attention {
	struct tensor q;    /* [rows, heads, head_dim] operand; rows and heads may be strided */
	struct tensor k, v; /* [keys, kv_heads, head_dim] operand */
	float scale;
	bool causal;        /* row i sees keys 0..i (rows == keys) */
	struct tensor bias; /* [heads or 1, rows, keys] F32, last stride 1; data NULL: none */
	struct tensor out;  /* [rows, heads, head_dim] operand */
};
enum status kernels_attention(struct kernels *k, const struct attention *op);

/* ---- norms and positions ----------------------------------------------------------------------------------------- */

/* y = norm(x) * weight (* (1 + scale)) (+ bias) (+ shift), row by row over the last dimension.
 * rms: x / sqrt(mean(x^2) + eps); else LayerNorm (x - mean) / sqrt(variance + eps). */
struct norm {
	bool rms;
	struct tensor x;             /* [rows, dim] any */
	const struct weight *weight; /* [dim] or NULL for 1 */
	const struct weight *bias;   /* [dim] or NULL */
	const float *scale, *shift;  /* [dim] device memory, or NULL */
	float eps;
	struct tensor y; /* [rows, dim] any; may be x itself */
};
enum status kernels_norm(struct kernels *k, const struct norm *op);

/* stream += gate * rms_norm(x) * weight: the sandwich norm and gated residual of a Z-Image block. */
struct norm_residual {
	struct tensor x;             /* [rows, dim] any */
	const struct weight *weight; /* [dim] */
	const float *gate;           /* [dim] device memory, or NULL for 1 */
	float eps;
	struct tensor stream; /* [rows, dim] F32, in place */
};
enum status kernels_norm_residual(struct kernels *k, const struct norm_residual *op);

/* Group normalisation of a picture over (rows, columns, channels of a group):
 * y = norm(x) * weight + bias (* (1 + scale)) (+ shift), then SiLU if asked.  In two steps, for a picture that is not
 * in memory as a whole: without y, weight and bias the moments of x are written; with them and y, x is normed by the
 * moments given instead of its own. */
struct group_norm {
	struct tensor x;                    /* [h, w, channels] any, contiguous */
	int groups;                         /* divides channels */
	const struct weight *weight, *bias; /* [channels] */
	const float *scale, *shift;         /* [channels] device memory, or NULL */
	float eps;
	bool silu;
	struct tensor moments; /* [groups, 2] F32: mean and variance of each group; data NULL: none */
	struct tensor y;       /* [h, w, channels] any, contiguous; may be x itself; data NULL: only moments */
};
enum status kernels_group_norm(struct kernels *k, const struct group_norm *op);

/* RMS norm of every head (skipped when weight is NULL), then rotary position embedding, in place.
 * table[row][i] = (cos, sin) of pair i.  interleaved: pairs are elements (2i, 2i+1), else (i, i + head_dim/2). */
struct qk_rope {
	struct tensor x;             /* [rows, heads, head_dim] operand, in place; rows may be strided */
	const struct weight *weight; /* [head_dim] or NULL */
	float eps;
	bool interleaved;
	struct tensor table; /* [rows, head_dim / 2, 2] F32 */
};
enum status kernels_qk_rope(struct kernels *k, const struct qk_rope *op);

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

/* y = f(gate) * up; all [rows, dim], any dtype, rows may be strided (halves of one product); y may be gate. */
enum status kernels_glu(struct kernels *k, enum activation f, struct tensor gate, struct tensor up, struct tensor y);

enum unary {
	UNARY_COPY,
	UNARY_SILU,
	UNARY_TANH,
	UNARY_GELU, /* erf */
	UNARY_QUICK_GELU,
	UNARY_ADD,     /* y += x */
	UNARY_MULTIPLY /* y *= x */
};

/* y = f(x) element by element, converting dtypes; [rows, dim] any, rows may be strided; y may be x. */
enum status kernels_unary(struct kernels *k, enum unary f, struct tensor x, struct tensor y);

/* y *= x element by element: UNARY_MULTIPLY. */
enum status kernels_multiply(struct kernels *k, struct tensor x, struct tensor y);

/* stream += gate * x: a gated residual; x [rows, dim] any, gate [dim] device memory or NULL for 1, stream F32. */
enum status kernels_gated_add(struct kernels *k, struct tensor x, const float *gate, struct tensor stream);

/* Every row of y += row; row [dim] F32, y [rows, dim] any. */
enum status kernels_add_row(struct kernels *k, struct tensor row, struct tensor y);

/* y = max(low, min(high, y)), F32, contiguous, in place; NaN stays NaN. */
enum status kernels_clamp(struct kernels *k, float low, float high, struct tensor y);

/* [h, w, c] any to another size [H, W, c] any: y[i, j] = x[floor(i h / H), floor(j w / W)] in f32, PyTorch's "nearest".
 */
enum status kernels_resize_nearest(struct kernels *k, struct tensor x, struct tensor y);

/* [h, w, c] any to [h / 2, w / 2, c] any: the mean of each 2 x 2 places; an odd last row or column is left out. */
enum status kernels_halve(struct kernels *k, struct tensor x, struct tensor y);

/* y = a x + b y, F32, same count, contiguous, in place: the Euler step and guidance. */
enum status kernels_axpby(struct kernels *k, float a, struct tensor x, float b, struct tensor y);

/* Every row of y = row (a padding token); row [dim] F32, y [rows, dim] F32. */
enum status kernels_fill_rows(struct kernels *k, struct tensor row, struct tensor y);

/* Latents [c, h, w] F32 to rows of patches [h/p * w/p, p * p * c] any, elements in (dy, dx, channel) order; and back:
 * y = scale * patches. */
enum status kernels_patchify(struct kernels *k, struct tensor latents, int patch, struct tensor rows);
enum status kernels_unpatchify(struct kernels *k, struct tensor rows, int patch, float scale, struct tensor latents);

/* [c, h, w] F32 to [h, w, c] any: y = x * scale + shift. */
enum status kernels_to_nhwc(struct kernels *k, struct tensor x, float scale, float shift, struct tensor y);

/* 8-bit pixels on the host: round_half_even((clamp(x/2 + 0.5, 0, 1)) * 255).  x [h, w, 3] any; rgb: h * w * 3 bytes. */
enum status kernels_to_rgb8(struct kernels *k, struct tensor x, uint8_t *rgb);

/* Whether every value is finite.  x F32 or BF16, contiguous. */
enum status kernels_all_finite(struct kernels *k, struct tensor x, bool *out);

#ifdef __cplusplus
}
#endif
#endif
