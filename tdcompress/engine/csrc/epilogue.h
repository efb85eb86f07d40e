/* What both convolution kernels do with a finished block of sums: bias, residual, activation, first store; then, for networks that
 * normalise before the next convolution, a second output act2(scale2 * y + shift2). */
#ifndef TDC_EPILOGUE_H
#define TDC_EPILOGUE_H

#include "vec.h"

typedef struct {
    const tdc_epilogue *e;
    const float *residual;
    float *output, *output2;
    float a, b, a2, b2;
} epilogue_state;

INLINE epilogue_state epilogue_start(const tdc_epilogue *e, const tdc_context *context) {
    epilogue_state run = {.e = e};
    if (e->has_residual) run.residual = tensor_base(&e->residual, context);
    if (e->has_output) run.output = tensor_base(&e->output, context);
    if (e->has_output2) run.output2 = tensor_base(&e->output2, context);
    run.a = (float)e->act.a, run.b = (float)e->act.b;
    run.a2 = (float)e->act2.a, run.b2 = (float)e->act2.b;
    return run;
}

INLINE void epilogue_end(const epilogue_state *run) {
    if (run->output) close_planes(&run->e->output, run->output);
    if (run->output2) close_planes(&run->e->output2, run->output2);
}

INLINE void activate(vf *y, const int registers, int64_t kind, float a, float b) {
    if (kind == ACT_NONE) return;
    if (kind == ACT_RELU) { /* the common one, without a switch per register */
        UNROLL for (int j = 0; j < registers; j++) y[j] = act_vector(y[j], ACT_RELU, 0, 0);
    } else {
        UNROLL for (int j = 0; j < registers; j++) y[j] = act_vector(y[j], kind, a, b);
    }
}

INLINE void finish_block(const epilogue_state *run, int64_t filter, int64_t start, vf *y, const int n) {
    const tdc_epilogue *e = run->e;
    const int registers = n * PARTS;
    const vf bias = v_set(e->bias[filter]);
    UNROLL for (int j = 0; j < registers; j++) y[j] += bias;
    if (run->residual) {
        const float *r = run->residual + filter * e->residual.plane_stride + start * LANES;
        UNROLL for (int j = 0; j < registers; j++) y[j] += v_load(r + j * VL);
    }
    activate(y, registers, e->act.kind, run->a, run->b);
    if (run->output) {
        float *out = run->output + filter * e->output.plane_stride + start * LANES;
        UNROLL for (int j = 0; j < registers; j++) v_store(out + j * VL, y[j]);
    }
    if (run->output2) {
        float *out = run->output2 + filter * e->output2.plane_stride + start * LANES;
        const vf scale = v_set(e->scale2[filter]), shift = v_set(e->shift2[filter]);
        UNROLL for (int j = 0; j < registers; j++) y[j] = y[j] * scale + shift;
        activate(y, registers, e->act2.kind, run->a2, run->b2);
        UNROLL for (int j = 0; j < registers; j++) v_store(out + j * VL, y[j]);
    }
}

#endif
