/* The sums of a group, moved by its horizontal displacement: shift the lanes of a block, clear those whose source column is outside
 * the image. In registers: a line that was just stored cannot be forwarded to loads that are not aligned with it. */
#ifndef TDC_DISPLACE_H
#define TDC_DISPLACE_H

#include "vec.h"

#if VL == 16
/* `period`: masks repeat after so many vectors. Rows of one or two vectors, the usual ones, need two mask registers and not one per vector. */
INLINE void displace_masked(vf *sum, const int n, int64_t shift, const uint16_t *bits, const int period) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vf zero = {0};
    if (shift < 0) {
        const __m512i index = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)shift + LANES));
        UNROLL for (int j = n - 1; j >= 0; j--)
            sum[j] = (vf)_mm512_maskz_permutex2var_ps(bits[j % period], (__m512)(j > 0 ? sum[j - 1] : zero), index, (__m512)sum[j]);
    } else if (shift > 0) {
        const __m512i index = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)shift));
        UNROLL for (int j = 0; j < n; j++)
            sum[j] = (vf)_mm512_maskz_permutex2var_ps(bits[j % period], (__m512)sum[j], index, (__m512)(j + 1 < n ? sum[j + 1] : zero));
    } else {
        UNROLL for (int j = 0; j < n; j++) sum[j] = (vf)_mm512_maskz_mov_ps(bits[j % period], (__m512)sum[j]);
    }
}

INLINE void displace(vf *sum, const int n, const tdc_group *g, int64_t phase, int64_t row_vectors) {
    if (row_vectors <= 2)
        displace_masked(sum, n, g->shift, g->bits + phase, 2);
    else
        displace_masked(sum, n, g->shift, g->bits + phase, MAX_BLOCK);
}
#else
#if VL == 1
INLINE vf neighbours(vf low, vf high, const int first) {
    (void)high, (void)first;
    return low;
}
#else
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

/* Lanes first, first + 1, ... of `low` and `high` side by side, for the steps that are needed: powers of two, forwards and back. */
INLINE vf neighbours(vf low, vf high, const int first) {
#if VL == 8
    const __m256i a = (__m256i)low, b = (__m256i)high, middle = _mm256_permute2x128_si256(a, b, 0x21); /* upper half of a, lower of b */
    switch (first) {
    case 1: return (vf)_mm256_alignr_epi8(middle, a, 4);
    case 2: return (vf)_mm256_alignr_epi8(middle, a, 8);
    case 4: return (vf)middle;
    case 6: return (vf)_mm256_alignr_epi8(b, middle, 8);
    case 7: return (vf)_mm256_alignr_epi8(b, middle, 12);
    default: return low;
    }
#else
    switch (first) {
    case 1: return SHUFFLE(low, high, 1, 2, 3, 4);
    case 2: return SHUFFLE(low, high, 2, 3, 4, 5);
    case 3: return SHUFFLE(low, high, 3, 4, 5, 6);
    default: return low;
    }
#endif
}
#endif

/* line[i] = line[i + by] for the lanes of `registers` registers, zero beyond their ends. */
INLINE void move_lanes(vf *line, const int registers, const int by) {
    const vf zero = {0};
    if (by > 0) {
        UNROLL for (int j = 0; j < registers; j++) {
            const int from = j + by / VL;
            line[j] = neighbours(from < registers ? line[from] : zero, from + 1 < registers ? line[from + 1] : zero, by % VL);
        }
    } else {
        UNROLL for (int j = registers - 1; j >= 0; j--) {
            const int from = j - (VL - 1 - by) / VL;
            line[j] = neighbours(from >= 0 ? line[from] : zero, from + 1 >= 0 ? line[from + 1] : zero, (VL - -by % VL) % VL);
        }
    }
}

/* In steps of 1, 2, 4 and 8 lanes: 3x3 kernels take one of them, and every distance below LANES is a sum of some. */
INLINE void displace(vf *sum, const int n, const tdc_group *g, int64_t phase, int64_t row_vectors) {
    (void)row_vectors;
    const int registers = n * PARTS;
    const int64_t distance = g->shift < 0 ? -g->shift : g->shift;
    if (g->shift > 0) {
        if (distance & 1) move_lanes(sum, registers, 1);
        if (distance & 2) move_lanes(sum, registers, 2);
        if (distance & 4) move_lanes(sum, registers, 4);
        if (distance & 8) move_lanes(sum, registers, 8);
    } else {
        if (distance & 1) move_lanes(sum, registers, -1);
        if (distance & 2) move_lanes(sum, registers, -2);
        if (distance & 4) move_lanes(sum, registers, -4);
        if (distance & 8) move_lanes(sum, registers, -8);
    }
    const int32_t *masks = g->lanes + phase * LANES;
    UNROLL for (int j = 0; j < registers; j++) sum[j] = v_keep(sum[j], (vi) * (const viu *)(masks + j * VL));
}
#endif

#endif
