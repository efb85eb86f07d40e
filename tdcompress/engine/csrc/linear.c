/* Fully connected layers on one image (or a few tokens): bound by reading the weights, so each is read once, in order. */
#include "gemm.h"
#include "kernels.h"
#include "vec.h"

INLINE float sum_lanes(vf x) {
    float total = 0;
    for (int i = 0; i < VL; i++) total += v_lane(x, i);
    return total;
}

INLINE float act_scalar(float x, const tdc_act *act) { return v_lane(act_vector(v_set(x), act->kind, (float)act->a, (float)act->b), 0); }

/* Sums of one output: two registers, or eight where a register is one number. */
#define HALF (VL == 1 ? 4 : 1)
#define SHARING (VL == 1 ? 1 : 4)

/* Four outputs share every load of x, if there are registers for their sums. */
static void dense(const tdc_linear *d, const float *x, float *y) {
    const int64_t k = d->features;
    for (int64_t n = 0; n < d->outputs; n += SHARING) {
        const int rows = d->outputs - n < SHARING ? (int)(d->outputs - n) : SHARING;
        const float *w[SHARING];
        for (int i = 0; i < SHARING; i++) w[i] = d->weights + (n + (i < rows ? i : 0)) * k;
        vf sum[SHARING][2 * HALF];
        UNROLL for (int i = 0; i < SHARING; i++)
            UNROLL for (int r = 0; r < 2 * HALF; r++) sum[i][r] = (vf){0};
        int64_t j = 0;
        for (; j + 2 * HALF * VL <= k; j += 2 * HALF * VL)
            UNROLL for (int i = 0; i < SHARING; i++)
                UNROLL for (int r = 0; r < 2 * HALF; r++) sum[i][r] += v_load(w[i] + j + r * VL) * v_load(x + j + r * VL);
        for (int i = 0; i < rows; i++) {
            float total = 0;
            UNROLL for (int r = 0; r < HALF; r++) total += sum_lanes(sum[i][r] + sum[i][r + HALF]);
            for (int64_t r = j; r < k; r++) total += w[i][r] * x[r];
            y[n + i] = act_scalar(total + d->bias[n + i], &d->act);
        }
    }
}

#define SPARSE(columns)                                                                                     \
    for (int64_t n = 0; n < d->outputs; n++) {                                                              \
        const uint32_t end = d->row_starts[n + 1];                                                          \
        uint32_t i = d->row_starts[n];                                                                      \
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;                                                               \
        for (; i + 4 <= end; i += 4) {                                                                      \
            PREFETCH(d->weights + i + 512);                                                                 \
            s0 += d->weights[i] * x[columns[i]];                                                            \
            s1 += d->weights[i + 1] * x[columns[i + 1]];                                                    \
            s2 += d->weights[i + 2] * x[columns[i + 2]];                                                    \
            s3 += d->weights[i + 3] * x[columns[i + 3]];                                                    \
        }                                                                                                   \
        for (; i < end; i++) s0 += d->weights[i] * x[columns[i]];                                           \
        y[n] = act_scalar((s0 + s1) + (s2 + s3) + d->bias[n], &d->act);                                     \
    }

#if VL == 16
/* Sixteen outputs in the lanes; 32 features of x stay in two registers and are picked by position. No load depends on another, so it is
 * several times faster than CSR, at about twice the bytes (lanes wait for the fullest of the sixteen). */
static void lanes(const tdc_linear *d, const float *x, float *y) {
    const float *weight = d->weights;
    const uint8_t *position = d->positions, *steps = d->step_counts;
    for (int64_t n = 0; n < d->outputs; n += LANES) {
        vf sum[2] = {{0}, {0}};
        for (int64_t k = 0; k < d->features; k += 2 * LANES) {
            const int64_t left = d->features - k;
            const __mmask16 low = left >= LANES ? 0xFFFF : (__mmask16)((1u << left) - 1);
            const __mmask16 high = left >= 2 * LANES ? 0xFFFF : left <= LANES ? 0 : (__mmask16)((1u << (left - LANES)) - 1);
            const __m512 x0 = _mm512_maskz_loadu_ps(low, x + k), x1 = _mm512_maskz_loadu_ps(high, x + k + LANES);
            int count = *steps++;
            for (; count >= 2; count -= 2, weight += 2 * LANES, position += 2 * LANES) {
                const __m512i first = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)position));
                const __m512i second = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(position + LANES)));
                sum[0] += (vf)_mm512_permutex2var_ps(x0, first, x1) * v_load(weight);
                sum[1] += (vf)_mm512_permutex2var_ps(x0, second, x1) * v_load(weight + LANES);
            }
            if (count == 1) {
                const __m512i first = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)position));
                sum[0] += (vf)_mm512_permutex2var_ps(x0, first, x1) * v_load(weight);
                weight += LANES, position += LANES;
            }
        }
        float out[LANES];
        const int64_t rows = d->outputs - n < LANES ? d->outputs - n : LANES;
        memcpy(out, d->bias + n, (size_t)rows * sizeof(float));
        memset(out + rows, 0, (size_t)(LANES - rows) * sizeof(float));
        v_store(out, act_vector(sum[0] + sum[1] + v_load(out), d->act.kind, (float)d->act.a, (float)d->act.b));
        memcpy(y + n, out, (size_t)rows * sizeof(float));
    }
}
#else
static void lanes(const tdc_linear *d, const float *x, float *y) { (void)d, (void)x, (void)y; }
#endif

/* Many tokens: the weights stand by columns, and every one that is loaded serves four tokens. */
static void tokens(const tdc_linear *d, const float *x, float *y) {
    gemm(x, d->weights, y, d->tokens, d->features, d->outputs);
    const float a = (float)d->act.a, b = (float)d->act.b;
    for (int64_t t = 0; t < d->tokens; t++, y += d->outputs) {
        int64_t n = 0;
        for (; n + VL <= d->outputs; n += VL) v_store(y + n, act_vector(v_load(y + n) + v_load(d->bias + n), d->act.kind, a, b));
        for (; n < d->outputs; n++) y[n] = act_scalar(y[n] + d->bias[n], &d->act);
    }
}

void KERNEL(linear)(const void *descriptor, const tdc_context *context) {
    const tdc_linear *d = descriptor;
    const float *x = tensor_base(&d->input, context);
    float *y = tensor_base(&d->output, context);
    if (d->kind == LINEAR_TOKENS) {
        tokens(d, x, y);
        return;
    }
    for (int64_t t = 0; t < d->tokens; t++, x += d->features, y += d->outputs) {
        if (d->kind == LINEAR_DENSE) {
            dense(d, x, y);
        } else if (d->kind == LINEAR_LANES) {
            lanes(d, x, y);
        } else if (d->columns16 != NULL) {
            SPARSE(d->columns16)
        } else {
            SPARSE(d->columns32)
        }
    }
}

/* Two computed operands (attention). */
void KERNEL(matmul)(const void *descriptor, const tdc_context *context) {
    const tdc_matmul *d = descriptor;
    const float *a = tensor_base(&d->a, context), *b = tensor_base(&d->b, context);
    float *y = tensor_base(&d->output, context);
    for (int64_t i = 0; i < d->batch; i++, a += d->stride_a, b += d->stride_b, y += d->rows * d->columns)
        gemm(a, b, y, d->rows, d->inner, d->columns);
}
