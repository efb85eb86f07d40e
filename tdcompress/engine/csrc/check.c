/* Every call of a plan file, once, when it is loaded: kernels trust their descriptors, and a file may be damaged or hostile. */
#include "check.h"

static int copy(const plan_limits *limits, tdc_copy *d) {
    return inside(limits, &d->input) && writable(limits, &d->output) && apart(&d->input, &d->output) && same_sizes(&d->input, &d->output);
}

static int split(const plan_limits *limits, tdc_split *d) {
    const tdc_tensor *in = &d->input, *out = &d->output;
    if (!in_out(limits, in, out) || !between(d->stride_y, 1, LARGEST) || !between(d->stride_x, 1, LARGEST)) return 0;
    return out->channels == PRODUCT(in->channels, d->stride_y, d->stride_x) && out->height == (in->height + d->stride_y - 1) / d->stride_y
           && out->width == (in->width + d->stride_x - 1) / d->stride_x;
}

static int map(const plan_limits *limits, tdc_map *d) {
    return in_out(limits, &d->input, &d->output) && same_sizes(&d->input, &d->output) && act(&d->act)
           && optional(limits, &d->scale, d->input.channels, 4) && optional(limits, &d->shift, d->input.channels, 4);
}

/* One operand: a constant, or a tensor. */
static int operand(const plan_limits *limits, const tdc_binary *d, const tdc_tensor *t, const int64_t *strides, void *constant) {
    for (int64_t i = 0; i < d->ndim; i++)
        if (!between(strides[i], 0, LARGEST)) return 0;
    if (!given(constant)) return in_out(limits, t, &d->output) && plain(t) && walks(d->dims, strides, d->ndim, 0, elements(t));
    int64_t offset;
    memcpy(&offset, constant, sizeof offset);
    return table(limits, constant, 0, 4) && walks(d->dims, strides, d->ndim, 0, (limits->data_bytes - offset) / 4);
}

static int binary(const plan_limits *limits, tdc_binary *d) {
    if (!writable(limits, &d->output) || !plain(&d->output) || !between(d->ndim, 1, MAX_DIMS) || !act(&d->act)) return 0;
    if (!between(d->operation, BINARY_ADD, BINARY_DROP) || elements(&d->output) < 0 || product(d->dims, d->ndim) != elements(&d->output)) return 0;
    return operand(limits, d, &d->a, d->stride_a, &d->constant_a) && operand(limits, d, &d->b, d->stride_b, &d->constant_b);
}

static int binary_rows(const plan_limits *limits, tdc_binary_rows *d) {
    return in_out(limits, &d->a, &d->output) && in_out(limits, &d->b, &d->output) && same_sizes(&d->a, &d->b)
           && same_sizes(&d->a, &d->output) && between(d->operation, BINARY_ADD, BINARY_DROP) && act(&d->act);
}

static int pool(const plan_limits *limits, tdc_pool *d) {
    const tdc_tensor *in = &d->input, *out = &d->output, *scratch = &d->scratch;
    if (!in_out(limits, in, out) || !in_out(limits, in, scratch) || !apart(out, scratch)) return 0;
    const int64_t sizes[] = {d->kernel_y, d->kernel_x, d->stride_y, d->stride_x, d->dilation_y, d->dilation_x};
    const int64_t pads[] = {d->pad_top, d->pad_left, d->pad_bottom, d->pad_right};
    for (int i = 0; i < 6; i++)
        if (!between(sizes[i], 1, LARGEST)) return 0;
    for (int i = 0; i < 4; i++)
        if (!between(pads[i], 0, LARGEST)) return 0;
    return between(d->kind, POOL_MAX, POOL_AVERAGE_PADDED) && in->channels == out->channels && scratch->width >= in->width;
}

static int reduce_planes(const plan_limits *limits, tdc_reduce_planes *d) {
    return in_out(limits, &d->input, &d->output) && d->input.channels == d->output.channels && between(d->kind, REDUCE_MEAN, REDUCE_MIN);
}

static int reduce(const plan_limits *limits, tdc_reduce *d) {
    if (!in_out(limits, &d->input, &d->output) || !plain(&d->input) || !plain(&d->output) || !between(d->kind, REDUCE_MEAN, REDUCE_MIN)) return 0;
    if (!between(d->ndim, 0, MAX_DIMS) || !between(d->kept, 0, d->ndim)) return 0;
    const int64_t read = elements(&d->input), written = elements(&d->output);
    return read > 0 && written > 0 && product(d->dims, d->ndim) == read && product(d->dims, d->kept) == written
           && walks(d->dims, d->strides, d->ndim, 0, read);
}

static int softmax(const plan_limits *limits, tdc_softmax *d) {
    const int64_t count = PRODUCT(d->outer, d->size, d->inner);
    return in_out(limits, &d->input, &d->output) && plain(&d->input) && plain(&d->output) && count > 0 && elements(&d->input) == count
           && elements(&d->output) == count;
}

static int permute(const plan_limits *limits, tdc_permute *d) {
    if (!in_out(limits, &d->input, &d->output) || !plain(&d->input) || !plain(&d->output) || !between(d->ndim, 1, MAX_DIMS)) return 0;
    if (!between(d->input_start, 0, LARGEST) || !between(d->output_start, 0, LARGEST)) return 0;
    return between(product(d->dims, d->ndim), 1, elements(&d->output))
           && walks(d->dims, d->stride_in, d->ndim, d->input_start, elements(&d->input))
           && walks(d->dims, d->stride_out, d->ndim, d->output_start, elements(&d->output));
}

static int fill(const plan_limits *limits, tdc_fill *d) { return writable(limits, &d->output); }

static int matmul(const plan_limits *limits, tdc_matmul *d) {
    const tdc_tensor *tensors[] = {&d->a, &d->b, &d->output};
    const int64_t counts[] = {PRODUCT(d->batch, d->rows, d->inner), PRODUCT(d->batch, d->inner, d->columns), PRODUCT(d->batch, d->rows, d->columns)};
    if (!in_out(limits, &d->a, &d->output) || !in_out(limits, &d->b, &d->output)) return 0;
    for (int i = 0; i < 3; i++)
        if (counts[i] < 0 || !plain(tensors[i]) || elements(tensors[i]) != counts[i]) return 0;
    return d->stride_a == d->rows * d->inner && d->stride_b == d->inner * d->columns;
}

static int resample(const plan_limits *limits, tdc_resample *d) {
    const int64_t read = PRODUCT(d->outer, d->size_in, d->inner), written = PRODUCT(d->outer, d->size_out, d->inner);
    const int64_t taps = PRODUCT(d->size_out, d->taps);
    if (!in_out(limits, &d->input, &d->output) || !plain(&d->input) || !plain(&d->output) || read < 0 || written < 0) return 0;
    if (elements(&d->input) != read || elements(&d->output) != written || !table(limits, &d->indices, taps, 4)) return 0;
    for (int64_t i = 0; i < taps; i++)
        if (!between(d->indices[i], 0, d->size_in - 1)) return 0;
    return given(&d->weights) ? table(limits, &d->weights, taps, 4) : d->taps == 1;
}

static int lookup(const plan_limits *limits, tdc_lookup *d) {
    const int64_t written = PRODUCT(d->count, d->width);
    return in_out(limits, &d->input, &d->output) && plain(&d->input) && plain(&d->output) && written > 0 && elements(&d->input) == d->count
           && elements(&d->output) == written && between(d->rows, 1, 1 << 24) /* float32 has no others */
           && table(limits, &d->table, PRODUCT(d->rows, d->width), 4);
}

int plan_check(int64_t kind, void *descriptor, const plan_limits *limits) {
    switch (kind) {
    case OP_CONV_SPARSE: return check_conv_sparse(limits, descriptor);
    case OP_CONV_DENSE: return check_conv_dense(limits, descriptor);
    case OP_LINEAR: return check_linear(limits, descriptor);
    case OP_COPY: return copy(limits, descriptor);
    case OP_SPLIT: return split(limits, descriptor);
    case OP_MAP: return map(limits, descriptor);
    case OP_BINARY: return binary(limits, descriptor);
    case OP_BINARY_ROWS: return binary_rows(limits, descriptor);
    case OP_POOL: return pool(limits, descriptor);
    case OP_REDUCE_PLANES: return reduce_planes(limits, descriptor);
    case OP_REDUCE: return reduce(limits, descriptor);
    case OP_SOFTMAX: return softmax(limits, descriptor);
    case OP_PERMUTE: return permute(limits, descriptor);
    case OP_FILL: return fill(limits, descriptor);
    case OP_MATMUL: return matmul(limits, descriptor);
    case OP_RESAMPLE: return resample(limits, descriptor);
    case OP_LOOKUP: return lookup(limits, descriptor);
    default: return 0;
    }
}
