/* Pooling over any plane layout: first down the rows of the window (vectors along the row), then along the row. */
#include <math.h>

#include "kernels.h"
#include "vec.h"

static int64_t taps_inside(int64_t start, int64_t kernel, int64_t dilation, int64_t size) {
    int64_t n = 0;
    for (int64_t k = 0; k < kernel; k++) n += start + k * dilation >= 0 && start + k * dilation < size;
    return n;
}

INLINE void fold(float *restrict line, const float *restrict row, int64_t n, int maximum) {
    if (maximum)
        for (int64_t x = 0; x < n; x++) line[x] = row[x] > line[x] || row[x] != row[x] ? row[x] : line[x];
    else
        for (int64_t x = 0; x < n; x++) line[x] += row[x];
}

/* The commonest window, 2x2 with stride 2 and no padding, in one pass. */
INLINE void pair(float *restrict to, const float *restrict upper, const float *restrict lower, int64_t n, int maximum) {
    for (int64_t x = 0; x < n; x++) {
        const float p = upper[2 * x], q = upper[2 * x + 1], r = lower[2 * x], s = lower[2 * x + 1];
        if (maximum) {
            const float top = p > q || p != p ? p : q, bottom = r > s || r != r ? r : s;
            to[x] = top > bottom || top != top ? top : bottom;
        } else {
            to[x] = 0.25f * ((p + q) + (r + s));
        }
    }
}

static void along(const tdc_pool *d, float *to, const float *line, int64_t rows, float empty) {
    const int64_t width = d->input.width;
    const int maximum = d->kind == POOL_MAX;
    for (int64_t x = 0; x < d->output.width; x++) {
        const int64_t start = x * d->stride_x - d->pad_left;
        float value = empty;
        int64_t columns = 0;
        for (int64_t k = 0; k < d->kernel_x; k++) {
            const int64_t column = start + k * d->dilation_x;
            if (column < 0 || column >= width) continue;
            const float v = line[column];
            value = maximum ? (v > value || v != v ? v : value) : value + v;
            columns++;
        }
        if (d->kind == POOL_AVERAGE && rows > 0 && columns > 0) value /= (float)(rows * columns); /* 0 for a window of nothing but padding */
        if (d->kind == POOL_AVERAGE_PADDED) {
            /* Padding counts, but not what a rounded-up last window reads beyond it. */
            const int64_t padded = taps_inside(start + d->pad_left, d->kernel_x, d->dilation_x, width + d->pad_left + d->pad_right);
            value /= (float)(rows * padded);
        }
        to[x] = value;
    }
}

void KERNEL(pool)(const void *descriptor, const tdc_context *context) {
    const tdc_pool *d = descriptor;
    const tdc_tensor *in = &d->input, *out = &d->output;
    const float *source = tensor_base(in, context);
    float *target = tensor_base(out, context), *line = tensor_base(&d->scratch, context);
    const int maximum = d->kind == POOL_MAX;
    const float empty = maximum ? -INFINITY : 0;
    const int simple = d->kernel_y == 2 && d->kernel_x == 2 && d->stride_y == 2 && d->stride_x == 2 && d->dilation_y == 1 && d->dilation_x == 1
                       && d->pad_top == 0 && d->pad_left == 0 && 2 * out->height <= in->height && 2 * out->width <= in->width;
    for (int64_t c = 0; c < out->channels; c++) {
        for (int64_t y = 0; y < out->height; y++) {
            float *to = target + row_offset(out, c, y);
            if (simple) {
                const float *upper = source + row_offset(in, c, 2 * y), *lower = source + row_offset(in, c, 2 * y + 1);
                if (maximum) pair(to, upper, lower, out->width, 1); else pair(to, upper, lower, out->width, 0);
                continue;
            }
            const int64_t start = y * d->stride_y - d->pad_top;
            int64_t rows = 0;
            for (int64_t x = 0; x < in->width; x++) line[x] = empty;
            for (int64_t k = 0; k < d->kernel_y; k++) {
                const int64_t row = start + k * d->dilation_y;
                if (row < 0 || row >= in->height) continue;
                fold(line, source + row_offset(in, c, row), in->width, maximum);
                rows++;
            }
            if (d->kind == POOL_AVERAGE_PADDED)
                rows = taps_inside(start + d->pad_top, d->kernel_y, d->dilation_y, in->height + d->pad_top + d->pad_bottom);
            along(d, to, line, rows, empty);
        }
    }
    close_planes(out, target);
}
