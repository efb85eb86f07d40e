/* exp, and what is made of it, for a whole register at once; the largest errors are a few units in the last place (erf: 2e-7). */
#ifndef TDC_FUNCTIONS_H
#define TDC_FUNCTIONS_H

#include "vec.h"

INLINE vf v_abs(vf x) { return v_number(v_bits(x) & 0x7fffffff); }
INLINE vf v_sign_of(vf size, vf x) { return v_number(v_bits(size) | (v_bits(x) & v_bits(v_set(-0.0f)))); }

/* 2^n * exp(r), |r| <= ln(2)/2. Rounding by a large addend needs no conversion, so that NaN stays NaN. The factor is applied in two
 * halves: 2^128 alone is no float32. */
INLINE vf v_exp(vf x) {
    const vf lowest = v_set(-104.0f), highest = v_set(89.0f), round = v_set(12582912.0f);
    x = v_select((vi)(x < lowest), lowest, x);
    x = v_select((vi)(x > highest), highest, x);
    const vf shifted = x * 1.44269504f + round, n = shifted - round;
    const vf r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vf y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    const vi power = (vi)((vu)v_bits(shifted) - (vu)v_bits(round)), half = power >> 1;
    return y * v_number((vi)(((vu)half + 127) << 23)) * v_number((vi)(((vu)(power - half) + 127) << 23));
}

INLINE vf v_sigmoid(vf x) { return 1.0f / (1.0f + v_exp(-x)); }

INLINE vf v_tanh(vf x) {
    const vf size = v_abs(x), square = x * x;
    vf p = square * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * square - 5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square - 3.33332819422e-1f;
    const vf far = 1.0f - 2.0f / (v_exp(2.0f * size) + 1.0f);
    return v_select((vi)(size < 0.625f), x * (1.0f + square * p), v_sign_of(far, x));
}

/* A series below 1, then Abramowitz and Stegun 7.1.26. */
INLINE vf v_erf(vf x) {
    const vf size = v_abs(x), square = x * x, t = 1.0f / (1.0f + 0.3275911f * size);
    vf p = square * 7.853861353153693e-5f - 8.010193625184903e-4f;
    p = p * square + 5.188327685732524e-3f;
    p = p * square - 2.685381193529856e-2f;
    p = p * square + 1.128358514861418e-1f;
    p = p * square - 3.761262582423300e-1f;
    p = p * square + 1.128379165726710f;
    vf q = t * 1.061405429f - 1.453152027f;
    q = q * t + 1.421413741f;
    q = q * t - 0.284496736f;
    q = q * t + 0.254829592f;
    return v_select((vi)(size < 1.0f), x * p, v_sign_of(1.0f - q * t * v_exp(-(x * x)), x));
}

#endif
