/* conv_bands: the residual blocks of conv_blocks.h by bands of rows, for pictures whose normed and enlarged copies do
 * not fit in memory.
 *
 *     struct band_source x = { .whole = stream, .doubled = &upsampler };
 *     TRY(bands_residual(&pass, 32, &block, &x, y));     // y = block(conv_double(stream)), 32 rows at a time
 *
 * Nothing is approximated and there are no seams: group norms go by the moments of the whole picture, each band brings
 * the rows beyond its edge that its convolutions reach, and attention is not done here.  Results differ from those of
 * conv_blocks.h by the rounding of the moments.  In memory as a whole are x.whole, y, and the block's hidden picture as
 * operand; a picture that is doubled first is made twice, a band at a time.
 */
#ifndef PROMPTFS_ENGINE_CONV_BANDS_H
#define PROMPTFS_ENGINE_CONV_BANDS_H

#include "engine/conv_blocks.h"

/* A picture whose rows are there, or made when they are needed. */
struct band_source {
	struct tensor whole;                /* [h, w, channels] any */
	const struct conv_sampler *doubled; /* NULL: `whole` is the picture; else what conv_double makes of it is */
};

/* y [h, w, out] F32; it may be x->whole where the block has no shortcut.  Group norms and no time embedding only. */
enum status bands_residual(const struct conv_pass *p, int64_t rows, const struct residual *r,
	const struct band_source *x, struct tensor y);

/* y = conv(silu(norm(x))), y [h, w, out] F32 */
enum status bands_normed_conv(const struct conv_pass *p, int64_t rows, const struct conv_norm *norm,
	const struct conv_sampler *conv, const struct band_source *x, struct tensor y);

#endif
