/* Names of one instruction set's kernels: KERNEL(conv_sparse) is conv_sparse_avx512 when compiled with -DTDC_SUFFIX=avx512. */
#ifndef TDC_KERNELS_H
#define TDC_KERNELS_H

#include "tdc.h"

#define TDC_JOIN2(name, suffix) name##_##suffix
#define TDC_JOIN(name, suffix) TDC_JOIN2(name, suffix)
#define KERNEL(name) TDC_JOIN(name, TDC_SUFFIX)
/* planes.c is called from the other kernels and is compiled per instruction set as well. */
#define close_planes KERNEL(close_planes)

#ifndef TDC_NARROW /* a file of engine/emit.py has its own kernels alone */
void KERNEL(conv_sparse)(const void *descriptor, const tdc_context *context);
void KERNEL(conv_dense)(const void *descriptor, const tdc_context *context);
void KERNEL(linear)(const void *descriptor, const tdc_context *context);
void KERNEL(copy)(const void *descriptor, const tdc_context *context);
void KERNEL(split)(const void *descriptor, const tdc_context *context);
void KERNEL(map)(const void *descriptor, const tdc_context *context);
void KERNEL(binary)(const void *descriptor, const tdc_context *context);
void KERNEL(binary_rows)(const void *descriptor, const tdc_context *context);
void KERNEL(pool)(const void *descriptor, const tdc_context *context);
void KERNEL(reduce_planes)(const void *descriptor, const tdc_context *context);
void KERNEL(reduce)(const void *descriptor, const tdc_context *context);
void KERNEL(softmax)(const void *descriptor, const tdc_context *context);
void KERNEL(permute)(const void *descriptor, const tdc_context *context);
void KERNEL(fill)(const void *descriptor, const tdc_context *context);
void KERNEL(matmul)(const void *descriptor, const tdc_context *context);
void KERNEL(resample)(const void *descriptor, const tdc_context *context);
void KERNEL(lookup)(const void *descriptor, const tdc_context *context);
#endif

#endif
