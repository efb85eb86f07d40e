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

/* The first and second 32-bit number of a pair that was loaded as one. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LOW_HALF(x) ((int64_t)(int32_t)(x))
#define HIGH_HALF(x) ((x) >> 32)
#else
#define LOW_HALF(x) ((x) >> 32)
#define HIGH_HALF(x) ((int64_t)(int32_t)(x))
#endif

/* Pairs that are fetched ahead: the tables of a network are larger than the second-level cache. */
#define AHEAD 128

/* sum[] += one weight times its input row block. */
INLINE void add_row(vf *sum, const int registers, const char *in, int64_t offset, float weight) {
    const float *row = (const float *)(in + offset);
    const vf w = v_set(weight);
    UNROLL for (int j = 0; j < registers; j++) sum[j] += w * v_load(row + j * VL);
}

/* All `count` weights of one group, in `sets` (1, 2 or 4) independent sums. */
INLINE void accumulate(vf *sum, const int n, const int sets, const char *in, const tdc_pair *pair, uint32_t count) {
    const int registers = n * PARTS;
    vf extra[3][MAX_BLOCK * PARTS];
    UNROLL for (int s = 0; s < sets - 1; s++)
        UNROLL for (int j = 0; j < registers; j++) extra[s][j] = (vf){0};
    if (sets == 4) {
        for (; count >= 4; count -= 4, pair += 2) {
            __builtin_prefetch(pair + AHEAD);
            add_row(sum, registers, in, pair[0].offset[0], pair[0].weight[0]);
            add_row(extra[0], registers, in, pair[0].offset[1], pair[0].weight[1]);
            add_row(extra[1], registers, in, pair[1].offset[0], pair[1].weight[0]);
            add_row(extra[2], registers, in, pair[1].offset[1], pair[1].weight[1]);
        }
    }
    for (; count >= 2; count -= 2, pair++) {
        __builtin_prefetch(pair + AHEAD);
        int64_t offsets; /* both at once */
        memcpy(&offsets, pair->offset, sizeof offsets);
        add_row(sum, registers, in, LOW_HALF(offsets), pair->weight[0]);
        add_row(sets == 1 ? sum : extra[0], registers, in, HIGH_HALF(offsets), pair->weight[1]);
    }
    if (count == 1) add_row(sum, registers, in, pair->offset[0], pair->weight[0]);
    UNROLL for (int s = 0; s < sets - 1; s++)
        UNROLL for (int j = 0; j < registers; j++) sum[j] += extra[s][j];
}

/* Shift the lanes of a group's sums by its displacement, clear masked lanes. */
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
INLINE void displace(vf *sum, const int n, const tdc_group *g, int64_t phase, int64_t row_vectors) {
    (void)row_vectors;
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
    const tdc_pair *pair = c->pairs;
    const uint32_t *row = c->rows;
    const int64_t phase = start % c->row_vectors;
    for (int64_t f = 0; f < c->filters; f++) {
        const uint32_t *count = row + 1;
        vf total[MAX_BLOCK * PARTS];
        UNROLL for (int j = 0; j < n * PARTS; j++) total[j] = (vf){0};
        /* The first group's sums need no other register: there is nothing to add them to. */
        accumulate(total, n, sets, in, pair, count[0]);
        pair += (count[0] + 1) / 2;
        if (c->groups[0].bits != NULL) displace(total, n, &c->groups[0], phase, c->row_vectors);
        for (int64_t g = 1; g < c->group_count; g++) {
            const uint32_t entries = count[g];
            if (entries == 0) continue;
            if (c->groups[g].bits == NULL) {
                accumulate(total, n, sets, in, pair, entries);
            } else {
                vf sum[MAX_BLOCK * PARTS];
                UNROLL for (int j = 0; j < n * PARTS; j++) sum[j] = (vf){0};
                accumulate(sum, n, sets, in, pair, entries);
                displace(sum, n, &c->groups[g], phase, c->row_vectors);
                UNROLL for (int j = 0; j < n * PARTS; j++) total[j] += sum[j];
            }
            pair += (entries + 1) / 2;
        }
        finish_block(run, row[0], start, total, n); /* the number is read this late to keep a register: 2-5 % */
        row += 1 + c->group_count;
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
