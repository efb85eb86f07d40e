/* The table of one instruction set's kernels. */
#include "kernels.h"
#include "vec.h"

#define TDC_STRING2(x) #x
#define TDC_STRING(x) TDC_STRING2(x)

const tdc_isa KERNEL(tdc_isa) = {
    .name = TDC_STRING(TDC_SUFFIX),
    .max_block = MAX_BLOCK,
    .dense_filters = DENSE_FILTERS,
    .linear_lanes = VL == 16,
    .kernels = {
        [OP_CONV_SPARSE] = KERNEL(conv_sparse),
        [OP_CONV_DENSE] = KERNEL(conv_dense),
        [OP_LINEAR] = KERNEL(linear),
        [OP_COPY] = KERNEL(copy),
        [OP_SPLIT] = KERNEL(split),
        [OP_MAP] = KERNEL(map),
        [OP_BINARY] = KERNEL(binary),
        [OP_BINARY_ROWS] = KERNEL(binary_rows),
        [OP_POOL] = KERNEL(pool),
        [OP_REDUCE_PLANES] = KERNEL(reduce_planes),
        [OP_REDUCE] = KERNEL(reduce),
        [OP_SOFTMAX] = KERNEL(softmax),
        [OP_PERMUTE] = KERNEL(permute),
        [OP_FILL] = KERNEL(fill),
        [OP_MATMUL] = KERNEL(matmul),
        [OP_RESAMPLE] = KERNEL(resample),
        [OP_LOOKUP] = KERNEL(lookup),
    },
};
