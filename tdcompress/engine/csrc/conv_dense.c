/* Dense convolution for layers with few zeros: the same planes and offsets as the sparse kernel, but DENSE_FILTERS filters share every
 * loaded row, so that the arithmetic and not the loads is the limit. Rows are then loaded at their displaced address (the cost of
 * crossing a cache line is shared too), and a group only clears the lanes whose source column is outside the image. */
#include "epilogue.h"
#include "kernels.h"

/* One block of DENSE_FILTERS filters on output vectors [start, start + n). */
INLINE void tile(const tdc_conv *c, const epilogue_run *run, const float *input, const float *weight, const int32_t *offset,
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
                UNROLL for (int i = 0; i < F; i++) sum[i][j] = (vf)((vi)sum[i][j] & mask);
            }
        }
        UNROLL for (int i = 0; i < F; i++)
            UNROLL for (int j = 0; j < registers; j++) total[i][j] += sum[i][j];
    }
    for (int64_t i = 0; i < filters; i++) finish_block(run, filter + i, start, total[i], n);
}

/* A set: the filters that read the same input channels (one convolution group). */
INLINE void block(const tdc_conv *c, const epilogue_run *run, const float *input, int64_t start, const int n) {
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

void KERNEL(conv_dense)(const void *descriptor, const tdc_context *context) {
    const tdc_conv *c = descriptor;
    const float *input = tensor_base(&c->input, context);
    const epilogue_run run = epilogue_start(&c->epilogue, context);
    int64_t start = 0;
    while (start < c->vectors) {
#if DENSE_BLOCK >= 4
        const int64_t left = c->vectors - start;
        if (left >= 4) { block(c, &run, input, start, 4); start += 4; continue; }
        if (left >= 2) { block(c, &run, input, start, 2); start += 2; continue; }
#endif
        block(c, &run, input, start, 1);
        start += 1;
    }
    epilogue_end(&run);
}
