/* Elementwise kernels: scale, shift and activation; two operands of one shape; two operands with broadcasting. */
#include <math.h>

#include "functions.h"
#include "kernels.h"
#include "vec.h"

#define EACH(expression) \
    for (int64_t i = 0; i < n; i++) { const float x = row[i]; row[i] = (expression); } \
    return;

/* Whole registers, then what is left of the row in one more. */
#define VECTORS(expression)                                                     \
    {                                                                           \
        int64_t i = 0;                                                          \
        for (; i + VL <= n; i += VL) {                                          \
            const vf x = v_load(row + i);                                       \
            v_store(row + i, (expression));                                     \
        }                                                                       \
        if (i < n) {                                                            \
            float rest[VL] = {0};                                               \
            memcpy(rest, row + i, (size_t)(n - i) * sizeof(float));             \
            const vf x = v_load(rest);                                          \
            v_store(rest, (expression));                                        \
            memcpy(row + i, rest, (size_t)(n - i) * sizeof(float));             \
        }                                                                       \
        return;                                                                 \
    }

static void act_row(float *row, int64_t n, const tdc_act *act) {
    const float a = (float)act->a, b = (float)act->b;
    switch (act->kind) {
    case ACT_NONE: return;
    case ACT_RELU: EACH(x < 0 ? 0 : x)
    case ACT_SIGMOID: VECTORS(v_sigmoid(x))
    case ACT_TANH: VECTORS(v_tanh(x))
    case ACT_EXP: VECTORS(v_exp(x))
    case ACT_SQRT: EACH(sqrtf(x))
    case ACT_ERF: VECTORS(v_erf(x))
    case ACT_ABS: EACH(fabsf(x))
    case ACT_NEG: EACH(-x)
    case ACT_RECIPROCAL: EACH(1.0f / x)
    case ACT_LOG: EACH(logf(x))
    default: VECTORS(act_vector(x, act->kind, a, b))
    }
}

INLINE int contiguous(const tdc_tensor *t) {
    return t->segments == 1 && t->row_stride == t->width && t->plane_stride == t->height * t->width;
}

void KERNEL(map)(const void *descriptor, const tdc_context *context) {
    const tdc_map *d = descriptor;
    const tdc_tensor *in = &d->input, *out = &d->output;
    const float *source = tensor_base(in, context);
    float *target = tensor_base(out, context);
    const int affine = d->scale != NULL || d->shift != NULL;
    if (!affine && contiguous(in) && contiguous(out)) {
        const int64_t n = out->channels * out->height * out->width;
        memcpy(target, source, (size_t)n * sizeof(float));
        act_row(target, n, &d->act);
        return;
    }
    for (int64_t c = 0; c < out->channels; c++) {
        const float scale = d->scale ? d->scale[c] : 1, shift = d->shift ? d->shift[c] : 0;
        for (int64_t y = 0; y < out->height; y++) {
            const float *from = source + row_offset(in, c, y);
            float *to = target + row_offset(out, c, y);
            if (affine)
                for (int64_t x = 0; x < out->width; x++) to[x] = from[x] * scale + shift;
            else /* times 1, plus 0 would take the sign of -0 away */
                memcpy(to, from, (size_t)out->width * sizeof(float));
            act_row(to, out->width, &d->act);
        }
    }
    close_planes(out, target);
}

#define COMBINE(expression)                                                     \
    for (int64_t i = 0; i < n; i++) {                                           \
        const float x = a[i * step_a], y = b[i * step_b];                       \
        out[i] = (expression);                                                  \
    }                                                                           \
    return;

INLINE void combine_steps(float *restrict out, const float *a, const float *b, int64_t n, int64_t step_a, int64_t step_b, int64_t operation) {
    switch (operation) {
    case BINARY_ADD: COMBINE(x + y)
    case BINARY_SUB: COMBINE(x - y)
    case BINARY_MUL: COMBINE(x * y)
    case BINARY_DIV: COMBINE(x / y)
    case BINARY_MAX: COMBINE(x != x || x > y ? x : y)
    case BINARY_MIN: COMBINE(x != x || x < y ? x : y)
    case BINARY_POW: COMBINE(powf(x, y))
    case BINARY_EQUAL: COMBINE(x == y ? 1.0f : 0.0f)
    case BINARY_LESS: COMBINE(x < y ? 1.0f : 0.0f)
    case BINARY_LESS_EQUAL: COMBINE(x <= y ? 1.0f : 0.0f)
    case BINARY_KEEP: COMBINE(x != 0 ? y : 0.0f)
    case BINARY_DROP: COMBINE(x != 0 ? 0.0f : y)
    default: return;
    }
}

static void combine(float *out, const float *a, const float *b, int64_t n, int64_t step_a, int64_t step_b, int64_t operation) {
    if (step_a == 1 && step_b == 1)
        combine_steps(out, a, b, n, 1, 1, operation);
    else if (step_a == 1 && step_b == 0)
        combine_steps(out, a, b, n, 1, 0, operation);
    else
        combine_steps(out, a, b, n, step_a, step_b, operation);
}

void KERNEL(binary_rows)(const void *descriptor, const tdc_context *context) {
    const tdc_binary_rows *d = descriptor;
    const tdc_tensor *out = &d->output;
    const float *a = tensor_base(&d->a, context), *b = tensor_base(&d->b, context);
    float *target = tensor_base(out, context);
    for (int64_t c = 0; c < out->channels; c++) {
        for (int64_t y = 0; y < out->height; y++) {
            float *row = target + row_offset(out, c, y);
            combine(row, a + row_offset(&d->a, c, y), b + row_offset(&d->b, c, y), out->width, 1, 1, d->operation);
            act_row(row, out->width, &d->act);
        }
    }
    close_planes(out, target);
}

static void binary_dims(const tdc_binary *d, int64_t dim, const float *a, const float *b, float **out) {
    if (dim == d->ndim - 1) {
        combine(*out, a, b, d->dims[dim], d->stride_a[dim], d->stride_b[dim], d->operation);
        act_row(*out, d->dims[dim], &d->act);
        *out += d->dims[dim];
        return;
    }
    for (int64_t i = 0; i < d->dims[dim]; i++) binary_dims(d, dim + 1, a + i * d->stride_a[dim], b + i * d->stride_b[dim], out);
}

void KERNEL(binary)(const void *descriptor, const tdc_context *context) {
    const tdc_binary *d = descriptor;
    const float *a = d->constant_a ? d->constant_a : tensor_base(&d->a, context);
    const float *b = d->constant_b ? d->constant_b : tensor_base(&d->b, context);
    float *out = tensor_base(&d->output, context);
    binary_dims(d, 0, a, b, &out);
}

void KERNEL(fill)(const void *descriptor, const tdc_context *context) {
    const tdc_fill *d = descriptor;
    const tdc_tensor *out = &d->output;
    float *target = tensor_base(out, context);
    for (int64_t c = 0; c < out->channels; c++)
        for (int64_t y = 0; y < out->height; y++)
            for (int64_t x = 0; x < out->width; x++) target[row_offset(out, c, y) + x] = (float)d->value;
}

/* The last two axes where the first of them lies densely in the input: in tiles, so that each line that was fetched is used up. */
static void transpose(const tdc_permute *d, int64_t dim, const float *in, float *out) {
    const int64_t rows = d->dims[dim], columns = d->dims[dim + 1], step = d->stride_in[dim + 1];
    const int64_t so = d->stride_out[dim], sp = d->stride_out[dim + 1];
    for (int64_t r = 0; r < rows; r += LANES) {
        const int64_t last = r + LANES < rows ? r + LANES : rows;
        for (int64_t c = 0; c < columns; c++)
            for (int64_t i = r; i < last; i++) out[i * so + c * sp] = in[i + c * step];
    }
}

static void permute_dims(const tdc_permute *d, int64_t dim, const float *in, float *out) {
    const int64_t n = d->dims[dim], si = d->stride_in[dim], so = d->stride_out[dim];
    if (dim == d->ndim - 2 && si == 1 && d->stride_in[dim + 1] != 1) {
        transpose(d, dim, in, out);
        return;
    }
    if (dim == d->ndim - 1) {
        if (si == 1 && so == 1)
            memcpy(out, in, (size_t)n * sizeof(float));
        else
            for (int64_t i = 0; i < n; i++) out[i * so] = in[i * si];
        return;
    }
    for (int64_t i = 0; i < n; i++) permute_dims(d, dim + 1, in + i * si, out + i * so);
}

void KERNEL(permute)(const void *descriptor, const tdc_context *context) {
    const tdc_permute *d = descriptor;
    permute_dims(d, 0, tensor_base(&d->input, context) + d->input_start, tensor_base(&d->output, context) + d->output_start);
}
