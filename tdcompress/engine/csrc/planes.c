/* Moving tensors between layouts: copies with type conversion, phases for strided convolutions, halo rows. */
#include "kernels.h"
#include "vec.h"

#if VL == 16
/* The usual case, planes of eight columns in two whole segments: half a vector is moved, the other half is zero. */
static void close_halves(const tdc_tensor *t, float *base) {
    const __m256 zero = _mm256_setzero_ps();
    for (int64_t c = 0; c < t->channels; c++, base += t->plane_stride) {
        for (int64_t k = 1; k <= t->halo_top; k++) {
            _mm256_storeu_ps(base - k * LANES, zero);
            _mm256_storeu_ps(base - k * LANES + LANES / 2, _mm256_loadu_ps(base + (t->rows - k) * LANES));
        }
        for (int64_t k = 0; k < t->halo_bottom; k++) {
            float *slot = base + (t->rows + k) * LANES;
            _mm256_storeu_ps(slot, _mm256_loadu_ps(base + k * LANES + LANES / 2));
            _mm256_storeu_ps(slot + LANES / 2, zero);
        }
    }
}
#endif

void close_planes(const tdc_tensor *t, float *base) {
    const int whole = t->height == t->rows * t->segments;
    if (t->halo_top == 0 && t->halo_bottom == 0 && whole) return;
#if VL == 16
    if (whole && t->segments == 2 && t->halo_top <= t->rows && t->halo_bottom <= t->rows) {
        close_halves(t, base);
        return;
    }
#endif
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

/* even[x] = from[2x] and odd[x] = from[2x + 1] for `width` numbers of `from`; the rest of the n outputs is zero. */
INLINE void deinterleave(float *restrict even, float *restrict odd, const float *restrict from, int64_t width, int64_t n) {
    int64_t x = 0;
#if VL == 16
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
    for (; x + LANES <= n && 2 * (x + LANES) <= width; x += LANES) {
        const __m512 a = _mm512_loadu_ps(from + 2 * x), b = _mm512_loadu_ps(from + 2 * x + LANES);
        _mm512_storeu_ps(even + x, _mm512_permutex2var_ps(a, evens, b));
        _mm512_storeu_ps(odd + x, _mm512_permutex2var_ps(a, odds, b));
    }
    for (; x + LANES / 2 <= n && 2 * x + LANES <= width; x += LANES / 2) { /* planes of eight columns */
        const __m512 a = _mm512_loadu_ps(from + 2 * x);
        _mm256_storeu_ps(even + x, _mm512_castps512_ps256(_mm512_permutexvar_ps(evens, a)));
        _mm256_storeu_ps(odd + x, _mm512_castps512_ps256(_mm512_permutexvar_ps(odds, a)));
    }
#endif
    for (; x < n; x++) {
        even[x] = 2 * x < width ? from[2 * x] : 0;
        odd[x] = 2 * x + 1 < width ? from[2 * x + 1] : 0;
    }
}

/* One input row (NULL: a row outside the image) to the phases of its columns; `to` is where phase 0 goes, planes are `stride` apart. */
static void split_row(float *to, int64_t stride, const float *from, int64_t width, int64_t n, int64_t phases) {
    if (from == NULL) {
        for (int64_t q = 0; q < phases; q++) memset(to + q * stride, 0, (size_t)n * sizeof(float));
    } else if (phases == 2) {
        deinterleave(to, to + stride, from, width, n);
    } else {
        for (int64_t q = 0; q < phases; q++)
            for (int64_t x = 0; x < n; x++) to[q * stride + x] = x * phases + q < width ? from[x * phases + q] : 0;
    }
}

#if VL == 16
/* Planes of 16 columns to phases of 8 columns in two segments: output vector r holds rows r and r + rows, so each pair of input rows
 * makes one vector per phase. Rows outside the image are zero (close_planes repeats that for slots beyond the output's height). */
static void split_segments(const tdc_split *d, float *target, const float *source) {
    const tdc_tensor *in = &d->input, *out = &d->output;
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
    for (int64_t c = 0; c < in->channels; c++) {
        const float *plane = source + c * in->plane_stride;
        for (int64_t p = 0; p < d->stride_y; p++) {
            float *to = target + (c * d->stride_y + p) * 2 * out->plane_stride;
            for (int64_t r = 0; r < out->rows; r++, to += out->row_stride) {
                const int64_t upper = r * d->stride_y + p, lower = (r + out->rows) * d->stride_y + p;
                const __m512 a = upper < in->height ? _mm512_loadu_ps(plane + upper * in->row_stride) : _mm512_setzero_ps();
                const __m512 b = lower < in->height ? _mm512_loadu_ps(plane + lower * in->row_stride) : _mm512_setzero_ps();
                _mm512_storeu_ps(to, _mm512_permutex2var_ps(a, evens, b));
                _mm512_storeu_ps(to + out->plane_stride, _mm512_permutex2var_ps(a, odds, b));
            }
        }
    }
}
#endif

void KERNEL(split)(const void *descriptor, const tdc_context *context) {
    const tdc_split *d = descriptor;
    const tdc_tensor *in = &d->input, *out = &d->output;
    const float *source = tensor_base(in, context);
    float *target = tensor_base(out, context);
#if VL == 16
    if (d->stride_x == 2 && in->segments == 1 && in->width == LANES && out->segments == 2) {
        split_segments(d, target, source);
        close_planes(out, target);
        return;
    }
#endif
    for (int64_t c = 0; c < in->channels; c++) {
        for (int64_t y = 0; y < out->height; y++) {
            for (int64_t p = 0; p < d->stride_y; p++) {
                const int64_t row = y * d->stride_y + p;
                const float *from = row < in->height ? source + row_offset(in, c, row) : NULL;
                float *to = target + row_offset(out, (c * d->stride_y + p) * d->stride_x, y);
                split_row(to, out->plane_stride, from, in->width, out->width, d->stride_x);
            }
        }
    }
    close_planes(out, target);
}
