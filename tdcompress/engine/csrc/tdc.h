/* What the planner (Python) hands to the kernels (C).
 *
 * In the library every field is 8 bytes wide (an integer, a double or a TABLE), so that the ctypes mirror in binding.py cannot drift by
 * padding, and plan files are the same for processors with addresses of 32 bits.
 * The planner has checked every shape and offset; kernels trust them.
 */
#ifndef TDC_H
#define TDC_H

#include <stddef.h>
#include <stdint.h>

/* Lanes of a logical vector. All tables are made for 16 lanes, whatever the machine has; narrower machines use several registers. */
#define LANES 16

/* The address of a table, in the library in 8 bytes on every processor. In a plan file it is an offset, until check.h has made the address of it. */
#define TABLE(type, name) \
    union { \
        type *name; \
        int64_t name##_offset; \
    }

/* Where one tensor of one image lies, as planes of rows.
 *
 * Row y of channel c starts at  offset + c*plane_stride + (y % rows)*row_stride + (y / rows)*pitch  (all in elements).
 * A plain (row-major, contiguous) tensor has pitch = row_stride = width, segments = 1, rows = height.
 * Planes for convolution have rows padded to 16 lanes; planes narrower than 9 put several rows into one vector ("segments"):
 * vector r holds rows r, r + rows, r + 2*rows, ... so that a step in y is a step of one whole, aligned vector. */
typedef struct {
    int64_t space;        /* 0: the thread's arena; k > 0: the caller's k-th array */
    int64_t offset;       /* elements from the start of the space to the first row of channel 0 */
    int64_t image_stride; /* elements between images (0 in the arena) */
    int64_t dtype;        /* DTYPE_*; everything in the arena is float32 */
    int64_t channels, height, width;
    int64_t pitch, segments, rows, row_stride, plane_stride;
    int64_t halo_top, halo_bottom; /* row slots above and below that readers expect to hold zeros or the neighbouring segment */
} tdc_tensor;

enum { DTYPE_F32, DTYPE_U8, DTYPE_I8, DTYPE_I32, DTYPE_I64, DTYPE_F64 };

enum {
    ACT_NONE,
    ACT_RELU,
    ACT_CLIP,         /* min(max(x, a), b) */
    ACT_LEAKY,        /* x < 0 ? a*x : x */
    ACT_HARDSIGMOID,  /* min(max(a*x + b, 0), 1) */
    ACT_HARDSWISH,    /* x * min(max(a*x + b, 0), 1) */
    ACT_SIGMOID,
    ACT_TANH,
    ACT_EXP,
    ACT_SQRT,
    ACT_ERF,
    ACT_ABS,
    ACT_NEG,
    ACT_RECIPROCAL,
    ACT_LOG,
};

typedef struct {
    int64_t kind;
    double a, b;
} tdc_act;

/* Two kept weights: where their input rows lie (bytes from the input's base at output vector 0) and their values. Pairs, because one
 * load then fetches two offsets: 10 % in the inner loop. A group of an odd number ends with a pair of which only the first half counts. */
typedef struct {
    int32_t offset[2];
    float weight[2];
} tdc_pair;

/* Entries that share a horizontal displacement. Rows are read where they lie; `shift` lanes are applied once to the sums, then lanes
 * whose source column is outside the image are cleared. bits and lanes hold the same masks, one per vector of a row, repeated so that
 * a block may start at any vector of a row; NULL: nothing to clear. */
typedef struct {
    int64_t shift;
    TABLE(const uint16_t, bits);
    TABLE(const int32_t, lanes);
} tdc_group;

/* What happens to a finished sum before it is stored:
 *   y = act(sum + bias[f] + residual), stored to `output`;  z = act2(scale2[f]*y + shift2[f]), stored to `output2`. */
typedef struct {
    TABLE(const float, bias);
    int64_t has_residual, has_output, has_output2;
    tdc_tensor residual, output, output2;
    TABLE(const float, scale2);
    TABLE(const float, shift2);
    tdc_act act, act2;
} tdc_epilogue;

/* Convolution of stride 1 over planes, both kernels. `vectors` output vectors per plane; `row_vectors` per row. */
typedef struct {
    tdc_tensor input;
    tdc_epilogue epilogue;
    int64_t filters, vectors, row_vectors;
    int64_t group_count;
    TABLE(const tdc_group, groups);
    /* sparse kernel: pairs filter after filter, group after group; rows[i] = a filter's number, then its kept weights in each group */
    TABLE(const tdc_pair, pairs);
    TABLE(const uint32_t, rows);
    /* dense kernel: blocks of filters that read the same rows; offsets[set][k] in bytes, group_counts[set][group],
     * weights[block][k][DENSE_FILTERS] */
    TABLE(const int32_t, offsets);
    TABLE(const uint32_t, group_counts);
    TABLE(const float, weights);
    int64_t taps, sets, blocks_per_set, filters_per_set;
} tdc_conv;

/* y[t, n] = act(sum_k x[t, k] w[n, k] + bias[n]). LINEAR_DENSE: weights[n][k]. LINEAR_ROWS: CSR with 16- or 32-bit columns.
 * LINEAR_TOKENS: weights[k][n]. LINEAR_LANES: 16 outputs side by side; per 16 outputs and 32 features, step_counts[] steps of 16 weights and 16 positions (0..31). */
enum { LINEAR_DENSE, LINEAR_ROWS, LINEAR_LANES, LINEAR_TOKENS };

typedef struct {
    tdc_tensor input, output;
    int64_t kind, tokens, features, outputs;
    TABLE(const float, weights);
    TABLE(const uint32_t, row_starts);
    TABLE(const uint16_t, columns16);
    TABLE(const uint32_t, columns32);
    TABLE(const uint8_t, positions);
    TABLE(const uint8_t, step_counts);
    TABLE(const float, bias);
    tdc_act act;
} tdc_linear;

typedef struct {
    tdc_tensor input, output;
} tdc_copy;

/* Plane (c, p, q) of the output holds input rows y = p + stride_y*i and columns x = q + stride_x*j; missing ones are zero. */
typedef struct {
    tdc_tensor input, output;
    int64_t stride_y, stride_x;
} tdc_split;

typedef struct {
    tdc_tensor input, output;
    TABLE(const float, scale); /* per channel, or NULL */
    TABLE(const float, shift);
    tdc_act act;
} tdc_map;

/* Comparisons give 1 or 0. KEEP: b where a is not 0, else 0; DROP: b where a is 0, else 0; Where is the sum of both. */
enum {
    BINARY_ADD,
    BINARY_SUB,
    BINARY_MUL,
    BINARY_DIV,
    BINARY_MAX,
    BINARY_MIN,
    BINARY_POW,
    BINARY_EQUAL,
    BINARY_LESS,
    BINARY_LESS_EQUAL,
    BINARY_KEEP,
    BINARY_DROP
};

#define MAX_DIMS 8

/* out[i...] = a[i...] op b[i...] with broadcasting: strides are 0 along broadcast axes. A constant operand has its pointer set. */
typedef struct {
    tdc_tensor a, b, output;
    TABLE(const float, constant_a);
    TABLE(const float, constant_b);
    int64_t operation, ndim;
    int64_t dims[MAX_DIMS], stride_a[MAX_DIMS], stride_b[MAX_DIMS];
    tdc_act act;
} tdc_binary;

/* The same shape and any plane layout: row by row. */
typedef struct {
    tdc_tensor a, b, output;
    int64_t operation;
    tdc_act act;
} tdc_binary_rows;

enum { POOL_MAX, POOL_AVERAGE, POOL_AVERAGE_PADDED };

typedef struct {
    tdc_tensor input, output, scratch; /* scratch: one input row */
    int64_t kind;
    int64_t kernel_y, kernel_x, stride_y, stride_x, pad_top, pad_left, pad_bottom, pad_right, dilation_y, dilation_x;
} tdc_pool;

enum { REDUCE_MEAN, REDUCE_SUM, REDUCE_MAX, REDUCE_MIN };

/* Over the whole plane of each channel. */
typedef struct {
    tdc_tensor input, output;
    int64_t kind;
} tdc_reduce_planes;

/* Over some axes of a plain tensor: kept axes first in dims/strides (their number is `kept`), then the reduced ones. */
typedef struct {
    tdc_tensor input, output;
    int64_t kind, kept, ndim;
    int64_t dims[MAX_DIMS], strides[MAX_DIMS];
} tdc_reduce;

typedef struct {
    tdc_tensor input, output;
    int64_t outer, size, inner, logarithm;
} tdc_softmax;

/* Strided copy: transpose, slice, pad and concat of plain tensors. */
typedef struct {
    tdc_tensor input, output;
    int64_t input_start, output_start, ndim;
    int64_t dims[MAX_DIMS], stride_in[MAX_DIMS], stride_out[MAX_DIMS];
} tdc_permute;

typedef struct {
    tdc_tensor output;
    double value;
} tdc_fill;

/* out[m, n] = sum_k a[m, k] b[k, n] for each of `batch` pairs; both computed from the input. */
typedef struct {
    tdc_tensor a, b, output;
    int64_t batch, rows, inner, columns, stride_a, stride_b;
} tdc_matmul;

/* Along the middle one of three axes: out[o, i, n] = sum over k < taps of weights[i][k] * in[o, indices[i][k], n]. A weight of 0 adds
 * nothing. weights NULL: one tap, copied as it is. */
typedef struct {
    tdc_tensor input, output;
    int64_t outer, size_in, size_out, inner, taps;
    TABLE(const int32_t, indices);
    TABLE(const float, weights);
} tdc_resample;

/* Rows of a table by their computed numbers; a negative one counts from the end. A number that names no row is the context's fault. */
typedef struct {
    tdc_tensor input, output;
    int64_t count, rows, width;
    TABLE(const float, table);
} tdc_lookup;

enum {
    OP_CONV_SPARSE,
    OP_CONV_DENSE,
    OP_LINEAR,
    OP_COPY,
    OP_SPLIT,
    OP_MAP,
    OP_BINARY,
    OP_BINARY_ROWS,
    OP_POOL,
    OP_REDUCE_PLANES,
    OP_REDUCE,
    OP_SOFTMAX,
    OP_PERMUTE,
    OP_FILL,
    OP_MATMUL,
    OP_RESAMPLE,
    OP_LOOKUP,
    OP_COUNT
};

typedef struct {
    int64_t kind;
    const void *descriptor;
} tdc_op;

/* One image in flight: spaces[0] is the arena, the rest the caller's arrays; image: which image of them; fault: set where a number that
 * was computed names something that is not there. */
typedef struct {
    void *const *spaces;
    int64_t image;
    int64_t *fault;
} tdc_context;

typedef void (*tdc_kernel)(const void *descriptor, const tdc_context *context);

/* Everything about one call of tdc_execute but the first input; made once, only `batch` and the addresses in `spaces` change. */
typedef struct {
    int64_t isa, op_count, space_count, threads, batch, arena_bytes;
    const tdc_op *ops;
    void *const *spaces; /* entries 0 and 1 are not used: each thread puts its arena and the first input there */
    void *const *arenas; /* one per thread */
} tdc_job;

/* One instruction set's kernels, in the order of the OP_* names. */
typedef struct {
    const char *name;
    int64_t max_block;     /* the most vectors one pass of the sparse kernel holds */
    int64_t dense_filters; /* filters that share a loaded row in the dense kernel */
    int64_t linear_lanes;  /* whether LINEAR_LANES is there */
    tdc_kernel kernels[OP_COUNT];
} tdc_isa;

#define MAX_SPACES 65
#define ISA_SLOTS 3 /* instruction sets that a library can hold */

/* run.c, for Python and for model.c. */
const tdc_isa *tdc_isa_at(int64_t index);
int64_t tdc_sizeof(int64_t kind);
int64_t tdc_execute(const tdc_job *job, void *first_input);

#endif
