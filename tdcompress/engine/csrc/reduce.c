/* Means, sums, maxima and minima over planes or over any axes, and softmax. */
#include <math.h>

#include "functions.h"
#include "kernels.h"
#include "vec.h"

INLINE float join(float x, float y, int64_t kind) {
    if (kind == REDUCE_MAX) return y > x || y != y ? y : x;
    if (kind == REDUCE_MIN) return y < x || y != y ? y : x;
    return x + y;
}

INLINE int extreme(int64_t kind) { return kind == REDUCE_MAX || kind == REDUCE_MIN; }

/* What changes nothing when it is joined. */
INLINE float neutral(int64_t kind) { return kind == REDUCE_MAX ? -INFINITY : kind == REDUCE_MIN ? INFINITY : 0; }

static float reduce_row(const float *row, int64_t n, int64_t kind, float start) {
    if (extreme(kind)) {
        for (int64_t i = 0; i < n; i++) start = join(start, row[i], kind);
        return start;
    }
    float parts[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) parts[j] += row[i + j];
    for (int j = 0; i < n; i++, j++) parts[j] += row[i];
    for (int step = 8; step > 0; step /= 2)
        for (int j = 0; j < step; j++) parts[j] += parts[j + step];
    return start + parts[0];
}

void KERNEL(reduce_planes)(const void *descriptor, const tdc_context *context) {
    const tdc_reduce_planes *d = descriptor;
    const tdc_tensor *in = &d->input;
    const float *source = tensor_base(in, context);
    float *target = tensor_base(&d->output, context);
    for (int64_t c = 0; c < in->channels; c++) {
        float total = neutral(d->kind);
        if (gapless(in))
            total = reduce_row(source + c * in->plane_stride, in->height * in->width, d->kind, total);
        else
            for (int64_t y = 0; y < in->height; y++) total = reduce_row(source + row_offset(in, c, y), in->width, d->kind, total);
        target[row_offset(&d->output, c, 0)] = d->kind == REDUCE_MEAN ? total / (float)(in->height * in->width) : total;
    }
    close_planes(&d->output, target);
}

static double reduce_inner(const tdc_reduce *d, int64_t dim, const float *in, double total) {
    if (dim == d->ndim) return extreme(d->kind) ? join((float)total, *in, d->kind) : total + *in;
    if (dim == d->ndim - 1 && d->strides[dim] == 1)
        return extreme(d->kind) ? reduce_row(in, d->dims[dim], d->kind, (float)total) : total + reduce_row(in, d->dims[dim], d->kind, 0);
    for (int64_t i = 0; i < d->dims[dim]; i++) total = reduce_inner(d, dim + 1, in + i * d->strides[dim], total);
    return total;
}

static void reduce_outer(const tdc_reduce *d, int64_t dim, const float *in, float **out, float divisor) {
    if (dim == d->kept) {
        *(*out)++ = (float)(reduce_inner(d, dim, in, neutral(d->kind)) / divisor);
        return;
    }
    for (int64_t i = 0; i < d->dims[dim]; i++) reduce_outer(d, dim + 1, in + i * d->strides[dim], out, divisor);
}

void KERNEL(reduce)(const void *descriptor, const tdc_context *context) {
    const tdc_reduce *d = descriptor;
    float *out = tensor_base(&d->output, context);
    float divisor = 1;
    if (d->kind == REDUCE_MEAN)
        for (int64_t i = d->kept; i < d->ndim; i++) divisor *= (float)d->dims[i];
    reduce_outer(d, 0, tensor_base(&d->input, context), &out, divisor);
}

static float largest_of(const float *row, int64_t n, int64_t step) {
    float largest = -INFINITY;
    int64_t i = 0;
#if VL > 1
    if (step == 1) {
        vf most = v_set(-INFINITY);
        vi nan = {0};
        for (; i + VL <= n; i += VL) {
            const vf x = v_load(row + i);
            nan |= (vi)(x != x);
            most = v_max(most, x);
        }
        for (int j = 0; j < VL; j++) largest = nan[j] ? NAN : join(largest, most[j], REDUCE_MAX);
    }
#endif
    for (; i < n; i++) largest = join(largest, row[i * step], REDUCE_MAX);
    return largest;
}

#define SUMS (VL == 1 ? 4 : 1) /* registers that hold them */

/* exp(x - largest) of one row, and its sum: by lanes, which are joined often enough that long rows keep their precision. */
static double exp_row(float *out, const float *in, int64_t n, float largest) {
    double total = 0;
    int64_t i = 0;
    while (i + SUMS * VL <= n) {
        vf sums[SUMS];
        for (int r = 0; r < SUMS; r++) sums[r] = (vf){0};
        for (int64_t last = i + 64 * SUMS * VL; i + SUMS * VL <= n && i < last; i += SUMS * VL) {
            for (int r = 0; r < SUMS; r++) {
                const vf y = v_exp(v_load(in + i + r * VL) - largest);
                v_store(out + i + r * VL, y);
                sums[r] += y;
            }
        }
        for (int r = 0; r < SUMS; r++)
            for (int j = 0; j < VL; j++) total += v_lane(sums[r], j);
    }
    for (; i < n; i++) total += out[i] = expf(in[i] - largest);
    return total;
}

void KERNEL(softmax)(const void *descriptor, const tdc_context *context) {
    const tdc_softmax *d = descriptor;
    const float *in = tensor_base(&d->input, context);
    float *out = tensor_base(&d->output, context);
    for (int64_t o = 0; o < d->outer; o++) {
        for (int64_t i = 0; i < d->inner; i++) {
            const int64_t at = o * d->size * d->inner + i;
            const float largest = largest_of(in + at, d->size, d->inner);
            double total = 0;
            if (d->inner == 1)
                total = exp_row(out + at, in + at, d->size, largest);
            else
                for (int64_t k = 0; k < d->size; k++) total += out[at + k * d->inner] = expf(in[at + k * d->inner] - largest);
            const float log_total = (float)log(total), factor = (float)(1 / total);
            if (d->logarithm)
                for (int64_t k = 0, j = at; k < d->size; k++, j += d->inner) out[j] = in[j] - largest - log_total;
            else if (d->inner == 1)
                for (int64_t j = at; j < at + d->size; j++) out[j] *= factor;
            else
                for (int64_t k = 0, j = at; k < d->size; k++, j += d->inner) out[j] *= factor;
        }
    }
}
