/* Dense convolution for layers with few zeros: the same planes and offsets as the sparse kernel, but DENSE_FILTERS filters share every
 * loaded row, so that the arithmetic and not the loads is the limit.
 *
 * Large register files hold blocks of several vectors: rows are loaded at their displaced address (the cost of crossing a cache line is
 * shared too), and a group only clears the lanes whose source column is outside the image. Small ones hold one vector, for which
 * the rows of all channels, met once per block of filters, would push each other out of the first-level cache: there the rows of DENSE_CHUNK taps
 * are copied side by side, aligned and cleared, and PANEL blocks of filters read the copy. */
#include "epilogue.h"
#include "kernels.h"

#if DENSE_BLOCK > 1
/* One block of DENSE_FILTERS filters on output vectors [start, start + n). */
INLINE void tile(const tdc_conv *c, const epilogue_state *run, const float *input, const float *weight, const int32_t *offset,
                 const uint32_t *group_count, int64_t filter, int64_t filters, int64_t start, const int n) {
    enum { F = DENSE_FILTERS };
    const char *in = (const char *)(input + start * LANES);
    const int64_t phase = start % c->row_vectors;
    const int registers = n * PARTS;
    vf total[F][DENSE_BLOCK * PARTS];
    UNROLL for (int i = 0; i < F; i++)
        UNROLL for (int j = 0; j < registers; j++) total[i][j] = (vf){0};
    for (int64_t g = 0; g < c->group_count; g++) {
        vf sum[F][DENSE_BLOCK * PARTS];
        UNROLL for (int i = 0; i < F; i++)
            UNROLL for (int j = 0; j < registers; j++) sum[i][j] = (vf){0};
        for (uint32_t k = 0; k < group_count[g]; k++, weight += F) {
            const float *row = (const float *)(in + *offset++);
            vf x[DENSE_BLOCK * PARTS];
            UNROLL for (int j = 0; j < registers; j++) x[j] = v_load(row + j * VL);
            UNROLL for (int i = 0; i < F; i++) {
                const vf w = v_set(weight[i]);
                UNROLL for (int j = 0; j < registers; j++) sum[i][j] += w * x[j];
            }
        }
        const int32_t *lanes = c->groups[g].lanes;
        if (lanes != NULL) {
            lanes += phase * LANES;
            UNROLL for (int j = 0; j < registers; j++) {
                const vi mask = (vi) * (const viu *)(lanes + j * VL);
                UNROLL for (int i = 0; i < F; i++) sum[i][j] = v_keep(sum[i][j], mask);
            }
        }
        UNROLL for (int i = 0; i < F; i++)
            UNROLL for (int j = 0; j < registers; j++) total[i][j] += sum[i][j];
    }
    for (int64_t i = 0; i < filters; i++) finish_block(run, filter + i, start, total[i], n);
}

/* A set: the filters that read the same input channels (one convolution group). */
INLINE void block(const tdc_conv *c, const epilogue_state *run, const float *input, int64_t start, const int n) {
    const float *weight = c->weights;
    for (int64_t set = 0; set < c->sets; set++) {
        for (int64_t b = 0; b < c->blocks_per_set; b++) {
            const int64_t first = b * DENSE_FILTERS, left = c->filters_per_set - first;
            tile(c, run, input, weight, c->offsets + set * c->taps, c->group_counts + set * c->group_count,
                 set * c->filters_per_set + first, left < DENSE_FILTERS ? left : DENSE_FILTERS, start, n);
            weight += c->taps * DENSE_FILTERS;
        }
    }
}
#else
/* Taps whose rows are packed at a time: 16 KB of the stack. */
#ifndef DENSE_CHUNK
#define DENSE_CHUNK 256
#endif
/* Blocks of filters that then read them, weights that are fetched ahead. */
enum { PANEL = 16, WEIGHTS_AHEAD = 256 };
#define TILE (VL == 1 ? 1 : DENSE_FILTERS)

/* A set's rows for the taps [from, to) on output vector `start`, one after another, lanes outside the image cleared. */
static void pack(float *packed, const tdc_conv *c, const float *input, int64_t set, int64_t from, int64_t to, int64_t start) {
    const int32_t *offset = c->offsets + set * c->taps;
    const uint32_t *group_count = c->group_counts + set * c->group_count;
    const char *in = (const char *)(input + start * LANES);
    const int64_t phase = start % c->row_vectors;
    int64_t k = from, end = 0;
    for (int64_t g = 0; g < c->group_count; g++) {
        end += group_count[g];
        const int32_t *lanes = c->groups[g].lanes;
        vi mask[PARTS];
        UNROLL for (int j = 0; j < PARTS; j++) mask[j] = lanes == NULL ? ~(vi){0} : (vi) * (const viu *)(lanes + phase * LANES + j * VL);
        for (; k < end && k < to; k++, packed += LANES) {
            const float *row = (const float *)(in + offset[k]);
            UNROLL for (int j = 0; j < PARTS; j++) v_store(packed + j * VL, v_keep(v_load(row + j * VL), mask[j]));
        }
    }
}

/* sum[] += `count` taps of the next `filters` of one block: as many as there are registers for. */
INLINE void tile(vf (*sum)[PARTS], const float *packed, const float *weight, int64_t count, const int filters) {
    vf s[DENSE_FILTERS][PARTS];
    UNROLL for (int i = 0; i < filters; i++)
        UNROLL for (int j = 0; j < PARTS; j++) s[i][j] = sum[i][j];
    for (int64_t k = 0; k < count; k++, packed += LANES, weight += DENSE_FILTERS) {
        PREFETCH(weight + WEIGHTS_AHEAD);
        vf x[PARTS];
        UNROLL for (int j = 0; j < PARTS; j++) x[j] = v_load(packed + j * VL);
        UNROLL for (int i = 0; i < filters; i++) {
            const vf w = v_set(weight[i]);
            UNROLL for (int j = 0; j < PARTS; j++) s[i][j] += w * x[j];
        }
    }
    UNROLL for (int i = 0; i < filters; i++)
        UNROLL for (int j = 0; j < PARTS; j++) sum[i][j] = s[i][j];
}

/* The blocks of filters [first, last) of one set on output vector `start`. */
static void panel(const tdc_conv *c, const epilogue_state *run, const float *input, int64_t set, int64_t first, int64_t last, int64_t start) {
    float packed[DENSE_CHUNK * LANES] __attribute__((aligned(64)));
    vf sum[PANEL][DENSE_FILTERS][PARTS];
    memset(sum, 0, (size_t)(last - first) * sizeof sum[0]);
    for (int64_t from = 0; from < c->taps; from += DENSE_CHUNK) {
        const int64_t to = from + DENSE_CHUNK < c->taps ? from + DENSE_CHUNK : c->taps;
        pack(packed, c, input, set, from, to, start);
        for (int64_t b = first; b < last; b++) {
            const float *weight = c->weights + ((set * c->blocks_per_set + b) * c->taps + from) * DENSE_FILTERS;
            for (int i = 0; i < DENSE_FILTERS; i += TILE) tile(sum[b - first] + i, packed, weight + i, to - from, TILE);
        }
    }
    for (int64_t f = first * DENSE_FILTERS; f < last * DENSE_FILTERS && f < c->filters_per_set; f++)
        finish_block(run, set * c->filters_per_set + f, start, sum[f / DENSE_FILTERS - first][f % DENSE_FILTERS], 1);
}
#endif

void KERNEL(conv_dense)(const void *descriptor, const tdc_context *context) {
    const tdc_conv *c = descriptor;
    const float *input = tensor_base(&c->input, context);
    const epilogue_state run = epilogue_start(&c->epilogue, context);
#if DENSE_BLOCK > 1
    int64_t start = 0;
    while (start < c->vectors) {
        const int64_t left = c->vectors - start;
        if (left >= 4) { block(c, &run, input, start, 4); start += 4; continue; }
        if (left >= 2) { block(c, &run, input, start, 2); start += 2; continue; }
        block(c, &run, input, start, 1);
        start += 1;
    }
#else
    for (int64_t set = 0; set < c->sets; set++) {
        for (int64_t first = 0; first < c->blocks_per_set; first += PANEL) {
            const int64_t last = first + PANEL < c->blocks_per_set ? first + PANEL : c->blocks_per_set;
            for (int64_t start = 0; start < c->vectors; start++) panel(c, &run, input, set, first, last, start);
        }
    }
#endif
    epilogue_end(&run);
}
