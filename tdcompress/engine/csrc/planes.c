/* Moving tensors between layouts: copies with type conversion, phases for strided convolutions, halo rows. */
#include "kernels.h"
#include "vec.h"

void close_planes(const tdc_tensor *t, float *base) {
    if (t->halo_top == 0 && t->halo_bottom == 0 && t->height == t->rows * t->segments) return;
    for (int64_t c = 0; c < t->channels; c++) {
        float *plane = base + c * t->plane_stride;
        if (t->segments == 1) {
            memset(plane - t->halo_top * t->row_stride, 0, (size_t)(t->halo_top * t->row_stride) * sizeof(float));
            memset(plane + t->height * t->row_stride, 0, (size_t)((t->rows - t->height + t->halo_bottom) * t->row_stride) * sizeof(float));
            continue;
        }
        /* Slot (r, s) stands for row r + s*rows: a copy of that row, or zeros outside the image. */
        for (int64_t s = 0; s < t->segments; s++) {
            for (int64_t r = -t->halo_top; r < t->rows + t->halo_bottom; r++) {
                const int64_t y = r + s * t->rows;
                float *slot = plane + r * t->row_stride + s * t->pitch;
                if (y < 0 || y >= t->height) {
                    memset(slot, 0, (size_t)t->pitch * sizeof(float));
                } else if (r < 0 || r >= t->rows) {
                    memcpy(slot, plane + row_offset(t, 0, y), (size_t)t->pitch * sizeof(float));
                }
            }
        }
    }
}

#define CONVERT(type)                                                              \
    {                                                                              \
        const type *in = (const type *)source + from;                              \
        for (int64_t x = 0; x < n; x++) out[x] = (float)in[x];                     \
        return;                                                                    \
    }

static void convert_row(float *out, const void *source, int64_t dtype, int64_t from, int64_t n) {
    switch (dtype) {
    case DTYPE_F32: memcpy(out, (const float *)source + from, (size_t)n * sizeof(float)); return;
    case DTYPE_U8: CONVERT(uint8_t)
    case DTYPE_I8: CONVERT(int8_t)
    case DTYPE_I32: CONVERT(int32_t)
    case DTYPE_I64: CONVERT(int64_t)
    case DTYPE_F64: CONVERT(double)
    default: return;
    }
}

void KERNEL(copy)(const void *descriptor, const tdc_context *context) {
    const tdc_copy *d = descriptor;
    const tdc_tensor *in = &d->input, *out = &d->output;
    const void *source = context->spaces[in->space];
    const int64_t origin = in->offset + in->image_stride * context->image;
    float *target = tensor_base(out, context);
    for (int64_t c = 0; c < out->channels; c++)
        for (int64_t y = 0; y < out->height; y++)
            convert_row(target + row_offset(out, c, y), source, in->dtype, origin + row_offset(in, c, y), out->width);
    close_planes(out, target);
}

/* to[x] = from[2x]; reads nothing beyond from[2n - 2]. */
INLINE void every_second(float *restrict to, const float *restrict from, int64_t n) {
    int64_t x = 0;
#if VL == 16
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    for (; x < n; x += LANES) {
        const int64_t left = 2 * (n - x) - 1; /* floats that may be read */
        const __mmask16 low = left >= LANES ? 0xFFFF : (__mmask16)((1u << left) - 1);
        const __mmask16 high = left >= 2 * LANES ? 0xFFFF : left <= LANES ? 0 : (__mmask16)((1u << (left - LANES)) - 1);
        const __mmask16 out = n - x >= LANES ? 0xFFFF : (__mmask16)((1u << (n - x)) - 1);
        const __m512 a = _mm512_maskz_loadu_ps(low, from + 2 * x), b = _mm512_maskz_loadu_ps(high, from + 2 * x + LANES);
        _mm512_mask_storeu_ps(to + x, out, _mm512_permutex2var_ps(a, even, b));
    }
#endif
    for (; x < n; x++) to[x] = from[2 * x];
}

void KERNEL(split)(const void *descriptor, const tdc_context *context) {
    const tdc_split *d = descriptor;
    const tdc_tensor *in = &d->input, *out = &d->output;
    const float *source = tensor_base(in, context);
    float *target = tensor_base(out, context);
    const int64_t sy = d->stride_y, sx = d->stride_x;
    for (int64_t c = 0; c < in->channels; c++) {
        for (int64_t y = 0; y < out->height; y++) {
            for (int64_t p = 0; p < sy; p++) {
                const int64_t row = y * sy + p;
                for (int64_t q = 0; q < sx; q++) {
                    float *to = target + row_offset(out, (c * sy + p) * sx + q, y);
                    if (row >= in->height) {
                        memset(to, 0, (size_t)out->width * sizeof(float));
                        continue;
                    }
                    const float *from = source + row_offset(in, c, row) + q;
                    const int64_t whole = (in->width - q + sx - 1) / sx;
                    const int64_t n = whole < 0 ? 0 : whole < out->width ? whole : out->width;
                    if (sx == 2)
                        every_second(to, from, n);
                    else
                        for (int64_t x = 0; x < n; x++) to[x] = from[sx * x];
                    for (int64_t x = n; x < out->width; x++) to[x] = 0;
                }
            }
        }
    }
    close_planes(out, target);
}
