/* onednn_api: the few places where the C API of oneDNN 2 (Debian 12: 2.6) and 3 differ, under one set of names.
 *
 * In both, a `desc` is a pointer to a memory description that desc_free ends.  NULL means failure.
 * Only the half for oneDNN 2 has been run.
 */
#ifndef PROMPTFS_KERNELS_CPU_ONEDNN_API_H
#define PROMPTFS_KERNELS_CPU_ONEDNN_API_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

/* The library's functions read whole arrays of DNNL_MAX_NDIMS. */
static inline void dims_widen(int rank, const int64_t *from, dnnl_dims_t to)
{
	for (int i = 0; i < DNNL_MAX_NDIMS; i++)
		to[i] = i < rank ? from[i] : 0;
}

/* Whether the implementation's name has this in it. */
static inline bool pd_is(const_dnnl_primitive_desc_t pd, const char *part)
{
	const char *name = NULL;

	return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name) == dnnl_success && name &&
	       strstr(name, part);
}

#if DNNL_VERSION_MAJOR < 3

typedef dnnl_memory_desc_t *desc;

static inline void desc_free(desc d)
{
	free(d);
}

static inline desc desc_copy(const dnnl_memory_desc_t *from)
{
	desc d = from ? malloc(sizeof *d) : NULL;

	if (d)
		*d = *from;
	return d;
}

/* strides NULL: oneDNN chooses the layout. */
static inline desc desc_new(int rank, const int64_t *dim, dnnl_data_type_t type, const int64_t *strides)
{
	dnnl_memory_desc_t d;
	dnnl_dims_t dims, steps;
	dnnl_status_t status;

	dims_widen(rank, dim, dims);
	dims_widen(strides ? rank : 0, strides, steps);
	status = strides ? dnnl_memory_desc_init_by_strides(&d, rank, dims, type, steps)
			 : dnnl_memory_desc_init_by_tag(&d, rank, dims, type, dnnl_format_tag_any);
	return status == dnnl_success ? desc_copy(&d) : NULL;
}

static inline desc desc_part(const dnnl_memory_desc_t *whole, int rank, const int64_t *dim, const int64_t *offset)
{
	dnnl_memory_desc_t d;
	dnnl_dims_t dims, offsets;

	dims_widen(rank, dim, dims);
	dims_widen(rank, offset, offsets);
	return dnnl_memory_desc_init_submemory(&d, whole, dims, offsets) == dnnl_success ? desc_copy(&d) : NULL;
}

static inline size_t desc_len(const dnnl_memory_desc_t *d)
{
	return dnnl_memory_desc_get_size(d);
}

static inline const dnnl_memory_desc_t *desc_of(const_dnnl_primitive_desc_t pd, dnnl_query_t what, int index)
{
	return dnnl_primitive_desc_query_md(pd, what, index);
}

static inline dnnl_status_t pd_reorder(
	dnnl_engine_t engine, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to, dnnl_primitive_desc_t *out)
{
	return dnnl_reorder_primitive_desc_create(out, from, engine, to, engine, NULL);
}

/* The first implementation without `avoided` in its name; NULL: the first. */
static inline dnnl_status_t pd_matmul(dnnl_engine_t engine, desc x, desc w, desc bias, desc y,
	dnnl_primitive_attr_t attr, const char *avoided, dnnl_primitive_desc_t *out)
{
	dnnl_matmul_desc_t d;
	dnnl_primitive_desc_iterator_t all;
	dnnl_primitive_desc_t pd = NULL;
	dnnl_status_t status = dnnl_matmul_desc_init(&d, x, w, bias, y);

	if (status == dnnl_success)
		status = dnnl_primitive_desc_iterator_create(&all, &d, attr, engine, NULL);
	if (status != dnnl_success)
		return status;
	pd = dnnl_primitive_desc_iterator_fetch(all);
	while (pd && avoided && pd_is(pd, avoided)) {
		dnnl_primitive_desc_destroy(pd);
		status = dnnl_primitive_desc_iterator_next(all);
		pd = status == dnnl_success ? dnnl_primitive_desc_iterator_fetch(all) : NULL;
	}
	dnnl_primitive_desc_iterator_destroy(all);
	if (status == dnnl_iterator_ends)
		status = dnnl_unimplemented;
	else if (status == dnnl_success && !pd)
		status = dnnl_out_of_memory;
	*out = pd;
	return status;
}

static inline dnnl_status_t pd_conv(dnnl_engine_t engine, desc x, desc w, desc bias, desc y, int stride,
	const dnnl_dims_t padding, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *out)
{
	const dnnl_dims_t strides = { stride, stride };
	dnnl_convolution_desc_t d;
	dnnl_status_t status = dnnl_convolution_forward_desc_init(
		&d, dnnl_forward_inference, dnnl_convolution_direct, x, w, bias, y, strides, padding, padding);

	return status == dnnl_success ? dnnl_primitive_desc_create(out, &d, attr, engine, NULL) : status;
}

static inline dnnl_status_t append_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t kind, float alpha)
{
	return dnnl_post_ops_append_eltwise(ops, 1.0f, kind, alpha, 0.0f);
}

static inline dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
	return dnnl_post_ops_append_sum(ops, 1.0f);
}

#else /* oneDNN 3: written from its documentation, neither compiled nor run yet */

typedef dnnl_memory_desc_t desc;

static inline void desc_free(desc d)
{
	if (d)
		dnnl_memory_desc_destroy(d);
}

static inline desc desc_copy(const_dnnl_memory_desc_t from)
{
	desc d = NULL;

	return from && dnnl_memory_desc_clone(&d, from) == dnnl_success ? d : NULL;
}

static inline desc desc_new(int rank, const int64_t *dim, dnnl_data_type_t type, const int64_t *strides)
{
	desc d = NULL;
	dnnl_dims_t dims, steps;
	dnnl_status_t status;

	dims_widen(rank, dim, dims);
	dims_widen(strides ? rank : 0, strides, steps);
	status = strides ? dnnl_memory_desc_create_with_strides(&d, rank, dims, type, steps)
			 : dnnl_memory_desc_create_with_tag(&d, rank, dims, type, dnnl_format_tag_any);
	return status == dnnl_success ? d : NULL;
}

static inline desc desc_part(const_dnnl_memory_desc_t whole, int rank, const int64_t *dim, const int64_t *offset)
{
	desc d = NULL;
	dnnl_dims_t dims, offsets;

	dims_widen(rank, dim, dims);
	dims_widen(rank, offset, offsets);
	return dnnl_memory_desc_create_submemory(&d, whole, dims, offsets) == dnnl_success ? d : NULL;
}

static inline size_t desc_len(const_dnnl_memory_desc_t d)
{
	return dnnl_memory_desc_get_size(d);
}

static inline const_dnnl_memory_desc_t desc_of(const_dnnl_primitive_desc_t pd, dnnl_query_t what, int index)
{
	return dnnl_primitive_desc_query_md(pd, what, index);
}

static inline dnnl_status_t pd_reorder(
	dnnl_engine_t engine, const_dnnl_memory_desc_t from, const_dnnl_memory_desc_t to, dnnl_primitive_desc_t *out)
{
	return dnnl_reorder_primitive_desc_create(out, from, engine, to, engine, NULL);
}

static inline dnnl_status_t pd_matmul(dnnl_engine_t engine, desc x, desc w, desc bias, desc y,
	dnnl_primitive_attr_t attr, const char *avoided, dnnl_primitive_desc_t *out)
{
	dnnl_status_t status = dnnl_matmul_primitive_desc_create(out, engine, x, w, bias, y, attr);

	while (status == dnnl_success && avoided && pd_is(*out, avoided))
		status = dnnl_primitive_desc_next_impl(*out);
	return status;
}

static inline dnnl_status_t pd_conv(dnnl_engine_t engine, desc x, desc w, desc bias, desc y, int stride,
	const dnnl_dims_t padding, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *out)
{
	const dnnl_dims_t strides = { stride, stride }, dilates = { 0, 0 };

	return dnnl_convolution_forward_primitive_desc_create(out, engine, dnnl_forward_inference,
		dnnl_convolution_direct, x, w, bias, y, strides, dilates, padding, padding, attr);
}

static inline dnnl_status_t append_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t kind, float alpha)
{
	return dnnl_post_ops_append_eltwise(ops, kind, alpha, 0.0f);
}

static inline dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
	return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

#endif
#endif
