/* Sparse convolution: every kept weight adds (weight x input row block) to a block of output sums held in registers.
 *
 * The weights are a table, not code: per filter, entries (byte offset, weight), grouped by horizontal displacement. Inside a group
 * all loads are whole aligned vectors (a load that crosses a cache line costs twice), and the displacement is applied once, to the
 * sums: shift the lanes, clear those whose source column is outside the image, add to the filter's total. Rows above and below the
 * image are zero rows in memory. Output is written once, with bias, residual, activation and a second, affine output fused.
 *
 * Blocks are the outer loop, filters the inner one: the input rows of one block stay in the first-level cache while all filters
 * read them. A block of few vectors would wait for the latency of its own additions, so it has several independent sets of sums. */
#include "displace.h"
#include "epilogue.h"
#include "kernels.h"

typedef struct {
    int64_t first, second;
} pair_offsets;

/* Where the rows of a pair lie. Registers of 64 bits take both offsets by one load. */
INLINE pair_offsets offsets_of(const tdc_pair *pair) {
#if defined(TDC_NARROW)
    return (pair_offsets){pair->offset[0], pair->offset[1]};
#else
    int64_t both;
    memcpy(&both, pair->offset, sizeof both);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (pair_offsets){(int32_t)both, both >> 32};
#else
    return (pair_offsets){both >> 32, (int32_t)both};
#endif
#endif
}

/* Both weights of a pair, each in all lanes. */
INLINE void weights_of(const tdc_pair *pair, vf *first, vf *second) {
#if VL == 8 /* by one load: two loads a cycle are what the loop waits for */
    double both;
    memcpy(&both, pair->weight, sizeof both);
    const __m256 alternating = _mm256_castpd_ps(_mm256_set1_pd(both));
    *first = (vf)_mm256_moveldup_ps(alternating), *second = (vf)_mm256_movehdup_ps(alternating);
#else
    *first = v_set(pair->weight[0]), *second = v_set(pair->weight[1]);
#endif
}

/* Fetches what lies 128 pairs ahead: the tables of a network are larger than the second-level cache. */
INLINE void fetch_ahead(const tdc_pair *pair) {
#if VL == 8
    __asm__ volatile("" : "+r"(pair)); /* its own number: gcc would count in pairs ahead, and load all others from 2 KB below: 5-10 % */
#endif
    PREFETCH(pair + 128);
}

/* sum[] += one weight, in all lanes, times its input row block. */
INLINE void add_row(vf *sum, const int registers, const char *in, int64_t offset, vf weight) {
    const float *row = (const float *)(in + offset);
    UNROLL for (int j = 0; j < registers; j++) sum[j] += weight * v_load(row + j * VL);
}

/* All `count` weights of one group, in `sets` (1, 2 or 4) independent sums. */
INLINE void accumulate(vf *sum, const int n, const int sets, const char *in, const tdc_pair *pair, uint32_t count) {
    const int registers = n * PARTS;
    vf extra[3][MAX_BLOCK * PARTS];
    UNROLL for (int s = 0; s < sets - 1; s++)
        UNROLL for (int j = 0; j < registers; j++) extra[s][j] = (vf){0};
    if (sets == 4) {
        for (; count >= 4; count -= 4, pair += 2) {
            fetch_ahead(pair);
            add_row(sum, registers, in, pair[0].offset[0], v_set(pair[0].weight[0]));
            add_row(extra[0], registers, in, pair[0].offset[1], v_set(pair[0].weight[1]));
            add_row(extra[1], registers, in, pair[1].offset[0], v_set(pair[1].weight[0]));
            add_row(extra[2], registers, in, pair[1].offset[1], v_set(pair[1].weight[1]));
        }
    }
    for (; count >= 2; count -= 2, pair++) {
        const pair_offsets at = offsets_of(pair);
        vf first, second;
        weights_of(pair, &first, &second);
        add_row(sum, registers, in, at.first, first);
        fetch_ahead(pair);
        add_row(sets == 1 ? sum : extra[0], registers, in, at.second, second);
    }
    if (count == 1) add_row(sum, registers, in, pair->offset[0], v_set(pair->weight[0]));
    UNROLL for (int s = 0; s < sets - 1; s++)
        UNROLL for (int j = 0; j < registers; j++) sum[j] += extra[s][j];
}

/* All filters on output vectors [start, start + n). */
INLINE void block(const tdc_conv *c, const epilogue_state *run, const float *input, int64_t start, const int n, const int sets) {
    const char *in = (const char *)(input + start * LANES);
    __asm__("" : "+r"(in)); /* one number: gcc would add `start` at every load, which takes a register per vector: 2-6 % with AVX2 */
    const tdc_pair *pair = c->pairs;
    const uint32_t *row = c->rows;
    const int64_t phase = start % c->row_vectors;
    for (int64_t f = 0; f < c->filters; f++) {
        const uint32_t *count = row + 1;
        vf total[MAX_BLOCK * PARTS];
        UNROLL for (int j = 0; j < n * PARTS; j++) total[j] = (vf){0};
        accumulate(total, n, sets, in, pair, count[0]);
        pair += (count[0] + 1) / 2;
        if (c->groups[0].bits != NULL) displace(total, n, &c->groups[0], phase, c->row_vectors);
        for (int64_t g = 1; g < c->group_count; g++) {
            const uint32_t entries = count[g];
            if (entries == 0) continue;
            if (c->groups[g].bits == NULL) {
                accumulate(total, n, sets, in, pair, entries);
            } else {
                /* The groups before make room: the registers are for the sums that are being added to. */
                vf before[MAX_BLOCK * PARTS];
                UNROLL for (int j = 0; j < n * PARTS; j++) before[j] = total[j], total[j] = (vf){0};
                accumulate(total, n, sets, in, pair, entries);
                displace(total, n, &c->groups[g], phase, c->row_vectors);
                UNROLL for (int j = 0; j < n * PARTS; j++) total[j] += before[j];
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
    const epilogue_state run = epilogue_start(&c->epilogue, context);
    int64_t start = 0;
#if MAX_BLOCK >= 16
    for (; start + 16 <= c->vectors; start += 16) block(c, &run, input, start, 16, 1);
#endif
#if MAX_BLOCK >= 8
    for (; start + 8 <= c->vectors; start += 8) block(c, &run, input, start, 8, 1);
#endif
#if MAX_BLOCK >= 4
    for (; start + 4 <= c->vectors; start += 4) block(c, &run, input, start, 4, VL == 16 ? 2 : 1);
#endif
#if MAX_BLOCK >= 2
    for (; start + 2 <= c->vectors; start += 2) block(c, &run, input, start, 2, VL == 16 ? 4 : VL == 8 ? 2 : 1);
#endif
    for (; start < c->vectors; start++) block(c, &run, input, start, 1, MAX_BLOCK <= 2 ? 1 : VL == 4 ? 2 : 4);
    epilogue_end(&run);
}
