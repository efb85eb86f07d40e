/* Vectors: the compiler's vector extension, with intrinsics only for the lane shift (the one thing it cannot say well).
 *
 * VL lanes per register; a logical vector of 16 lanes is PARTS registers. Compiled once per instruction set; TDC_SUFFIX is its name.
 * TDC_NARROW: for processors without vectors (engine/emit.py); a "register" is one number, and sums come in the same order as of "scalar". */
#ifndef TDC_VEC_H
#define TDC_VEC_H

#include <stdint.h>
#include <string.h>

#include "kernels.h"

#if defined(TDC_NARROW)
#define VL 1
#define MAX_BLOCK 1
#define DENSE_FILTERS 2
#define DENSE_BLOCK 1
#elif defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>
#define VL 16
#define MAX_BLOCK 8 /* logical vectors whose sums stay in registers */
#define DENSE_FILTERS 4
#define DENSE_BLOCK 4
#elif defined(__AVX2__)
#include <immintrin.h>
#define VL 8
#define MAX_BLOCK 4
#define DENSE_FILTERS 6
#define DENSE_BLOCK 1
#elif defined(__aarch64__) || defined(__wasm_simd128__)
#define VL 4
#define MAX_BLOCK 4
#define DENSE_FILTERS 4
#define DENSE_BLOCK 1
#else
#define VL 4
#define MAX_BLOCK 2
#define DENSE_FILTERS 2
#define DENSE_BLOCK 1
#endif

#define PARTS (LANES / VL)
#define INLINE static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("GCC unroll 32")
#ifndef PREFETCH
#define PREFETCH(address) __builtin_prefetch(address)
#endif

#if VL == 1
typedef float vf, vfu;
typedef int32_t vi, viu;
typedef uint32_t vu;

INLINE vi v_bits(vf x) { return ((union { vf number; vi bits; }){x}).bits; }
INLINE vf v_number(vi bits) { return ((union { vi bits; vf number; }){bits}).number; }
INLINE float v_lane(vf x, int lane) { (void)lane; return x; }
INLINE vf v_keep(vf x, vi mask) { return mask ? x : 0; }
INLINE vf v_select(vi mask, vf yes, vf no) { return mask ? yes : no; }
#else
typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
/* the same, at any address */
typedef float vfu __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t viu __attribute__((vector_size(VL * 4), aligned(4), may_alias));

INLINE vi v_bits(vf x) { return (vi)x; }
INLINE vf v_number(vi bits) { return (vf)bits; }
INLINE float v_lane(vf x, int lane) { return x[lane]; }
INLINE vf v_keep(vf x, vi mask) { return (vf)((vi)x & mask); } /* 0 where the mask is 0 */
INLINE vf v_select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
#endif

INLINE vf v_load(const float *p) { return (vf) * (const vfu *)p; }
INLINE void v_store(float *p, vf x) { *(vfu *)p = (vfu)x; }
INLINE vf v_set(float x) { return x - (vf){0}; }
/* Comparisons keep NaN: max(NaN, b) = NaN, as the ONNX reference has it. */
#if VL == 16 /* one instruction, which gives its second operand when either is NaN */
INLINE vf v_max(vf x, vf bound) { return (vf)_mm512_max_ps((__m512)bound, (__m512)x); }
INLINE vf v_min(vf x, vf bound) { return (vf)_mm512_min_ps((__m512)bound, (__m512)x); }
#elif VL == 8
INLINE vf v_max(vf x, vf bound) { return (vf)_mm256_max_ps((__m256)bound, (__m256)x); }
INLINE vf v_min(vf x, vf bound) { return (vf)_mm256_min_ps((__m256)bound, (__m256)x); }
#else
INLINE vf v_max(vf x, vf bound) { return v_select((vi)(x < bound), bound, x); }
INLINE vf v_min(vf x, vf bound) { return v_select((vi)(x > bound), bound, x); }
#endif

/* The row accessor of tdc_tensor. */
INLINE int64_t row_offset(const tdc_tensor *t, int64_t channel, int64_t y) {
    if (t->segments == 1) return channel * t->plane_stride + y * t->row_stride;
    const uint32_t segment = (uint32_t)y / (uint32_t)t->rows; /* 32 bits: a 64-bit division would cost as much as a short row */
    return channel * t->plane_stride + (y - segment * t->rows) * t->row_stride + segment * t->pitch;
}

/* Whether the numbers of a plane lie one after another (in some order), without gaps. */
INLINE int gapless(const tdc_tensor *t) {
    return t->segments == 1 ? t->row_stride == t->width : t->pitch == t->width && t->rows * t->segments == t->height;
}

INLINE float *tensor_base(const tdc_tensor *t, const tdc_context *context) {
    return (float *)context->spaces[t->space] + t->offset + t->image_stride * context->image;
}

/* Activations cheap enough for the epilogue of a convolution; the rest run as separate maps (map.c). */
INLINE vf act_vector(vf x, int64_t kind, float a, float b) {
    const vf zero = {0};
    switch (kind) {
    case ACT_RELU: return v_max(x, zero);
    case ACT_CLIP: return v_min(v_max(x, v_set(a)), v_set(b));
    case ACT_LEAKY: return v_select((vi)(x < zero), x * a, x);
    case ACT_HARDSIGMOID: return v_min(v_max(x * a + b, zero), v_set(1));
    case ACT_HARDSWISH: return x * v_min(v_max(x * a + b, zero), v_set(1));
    default: return x;
    }
}

/* planes.c: restore what readers expect in the halo rows of a tensor that has just been written. */
void close_planes(const tdc_tensor *t, float *base);

#endif
