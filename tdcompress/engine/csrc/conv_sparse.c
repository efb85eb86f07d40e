/* Sparse convolution: every kept weight adds (weight x input row block) to a block of output sums held in registers.
 *
 * The weights are a table, not code: per filter, entries (byte offset, weight), grouped by horizontal displacement. Inside a group
 * all loads are whole aligned vectors (a load that crosses a cache line costs twice), and the displacement is applied once, to the
 * sums: shift the lanes, clear those whose source column is outside the image, add to the filter's total. Rows above and below the
 * image are zero rows in memory. Output is written once, with bias, residual, activation and a second, affine output fused.
 *
 * Blocks are the outer loop, filters the inner one: the input rows of one block stay in the first-level cache while all filters
 * read them. A block of few vectors would wait for the latency of its own additions, so it has several independent sets of sums. */
#include "epilogue.h"
#include "kernels.h"

INLINE void accumulate(vf *sum, const int n, const int sets, const char *in, const tdc_entry *e, uint32_t count) {
    const int registers = n * PARTS;
    vf extra[3][MAX_BLOCK * PARTS];
    uint32_t i = 0;
    if (sets > 1 && count >= (uint32_t)sets) {
        for (int s = 0; s < sets - 1; s++)
            UNROLL for (int j = 0; j < registers; j++) extra[s][j] = (vf){0};
        for (; i + sets <= count; i += sets) {
            UNROLL for (int s = 0; s < sets; s++) {
                const float *row = (const float *)(in + e[i + s].offset);
                const vf w = v_set(e[i + s].weight);
                vf *target = s == 0 ? sum : extra[s - 1];
                UNROLL for (int j = 0; j < registers; j++) target[j] += w * v_load(row + j * VL);
            }
        }
        UNROLL for (int s = 0; s < sets - 1; s++)
            UNROLL for (int j = 0; j < registers; j++) sum[j] += extra[s][j];
    }
    for (; i < count; i++) {
        const float *row = (const float *)(in + e[i].offset);
        const vf w = v_set(e[i].weight);
        UNROLL for (int j = 0; j < registers; j++) sum[j] += w * v_load(row + j * VL);
    }
}

/* Shift the lanes of a group's sums by its displacement, clear masked lanes. */
#if VL == 16
INLINE void displace(vf *sum, const int n, const tdc_group *g, int64_t phase) {
    const uint16_t *bits = g->bits + phase;
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vf zero = {0};
    if (g->shift < 0) {
        const __m512i index = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)g->shift + LANES));
        UNROLL for (int j = n - 1; j >= 0; j--)
            sum[j] = (vf)_mm512_maskz_permutex2var_ps(bits[j], (__m512)(j > 0 ? sum[j - 1] : zero), index, (__m512)sum[j]);
    } else if (g->shift > 0) {
        const __m512i index = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)g->shift));
        UNROLL for (int j = 0; j < n; j++)
            sum[j] = (vf)_mm512_maskz_permutex2var_ps(bits[j], (__m512)sum[j], index, (__m512)(j + 1 < n ? sum[j + 1] : zero));
    } else {
        UNROLL for (int j = 0; j < n; j++) sum[j] = (vf)_mm512_maskz_mov_ps(bits[j], (__m512)sum[j]);
    }
}
#else
INLINE void displace(vf *sum, const int n, const tdc_group *g, int64_t phase) {
    float line[LANES + MAX_BLOCK * LANES + LANES] __attribute__((aligned(64)));
    const int32_t *masks = g->lanes + phase * LANES;
    if (g->shift != 0) {
        memset(line, 0, LANES * sizeof(float));
        memset(line + LANES + n * LANES, 0, LANES * sizeof(float));
        UNROLL for (int j = 0; j < n * PARTS; j++) v_store(line + LANES + j * VL, sum[j]);
        UNROLL for (int j = 0; j < n * PARTS; j++) sum[j] = v_load(line + LANES + g->shift + j * VL);
    }
    UNROLL for (int j = 0; j < n * PARTS; j++) sum[j] = (vf)((vi)sum[j] & (vi) * (const viu *)(masks + j * VL));
}
#endif

/* All filters on output vectors [start, start + n). */
INLINE void block(const tdc_conv *c, const epilogue_run *run, const float *input, int64_t start, const int n, const int sets) {
    const char *in = (const char *)(input + start * LANES);
    const tdc_entry *entry = c->entries;
    const uint32_t *count = c->counts;
    const int64_t phase = start % c->row_vectors;
    for (int64_t f = 0; f < c->filters; f++) {
        vf total[MAX_BLOCK * PARTS];
        UNROLL for (int j = 0; j < n * PARTS; j++) total[j] = (vf){0};
        for (int64_t g = 0; g < c->group_count; g++) {
            const uint32_t entries = *count++;
            if (entries == 0) continue;
            if (c->groups[g].bits == NULL) {
                accumulate(total, n, sets, in, entry, entries);
            } else {
                vf sum[MAX_BLOCK * PARTS];
                UNROLL for (int j = 0; j < n * PARTS; j++) sum[j] = (vf){0};
                accumulate(sum, n, sets, in, entry, entries);
                displace(sum, n, &c->groups[g], phase);
                UNROLL for (int j = 0; j < n * PARTS; j++) total[j] += sum[j];
            }
            entry += entries;
        }
        finish_block(run, f, start, total, n);
    }
}

void KERNEL(conv_sparse)(const void *descriptor, const tdc_context *context) {
    const tdc_conv *c = descriptor;
    const float *input = tensor_base(&c->input, context);
    const epilogue_run run = epilogue_start(&c->epilogue, context);
    int64_t start = 0;
    while (start < c->vectors) {
        const int64_t left = c->vectors - start;
#if MAX_BLOCK >= 16
        if (left >= 16) { block(c, &run, input, start, 16, 1); start += 16; continue; }
#endif
#if MAX_BLOCK >= 8
        if (left >= 8) { block(c, &run, input, start, 8, 1); start += 8; continue; }
#endif
#if MAX_BLOCK >= 4
        if (left >= 4) { block(c, &run, input, start, 4, VL == 16 ? 2 : 1); start += 4; continue; }
#endif
        if (left >= 2) { block(c, &run, input, start, 2, VL == 16 ? 4 : VL == 8 ? 2 : 1); start += 2; continue; }
        block(c, &run, input, start, 1, VL == 4 ? 2 : 4);
        start += 1;
    }
    epilogue_end(&run);
}
