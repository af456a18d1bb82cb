/* The kernels for AVX-512 with VNNI, which adds up products of four bytes in 32 bits. */
#include "references.h"

#include <stdlib.h>

#if BUILDS_AVX512
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")
#include <immintrin.h>

#define VB 64
#define NV 2
#define LEVEL(name) name##_avx512

#define MIN_F(a, b) ((vf)_mm512_min_ps(a, b))
#define MAX_F(a, b) ((vf)_mm512_max_ps(a, b))
#define MIN_D(a, b) ((vd)_mm512_min_pd(a, b))
#define MAX_D(a, b) ((vd)_mm512_max_pd(a, b))
#define MIN_I(a, b) ((vi)_mm512_min_epi32((__m512i)(a), (__m512i)(b)))
#define MAX_I(a, b) ((vi)_mm512_max_epi32((__m512i)(a), (__m512i)(b)))
#define ABS_I(x) ((vi)_mm512_abs_epi32((__m512i)(x)))
#define ANY_LEAST(x, least) (_mm512_cmpge_epu32_mask((__m512i)(x), _mm512_set1_epi32(least)) != 0)
#define PAIR(x, y) ((vi)_mm512_mask_blend_epi16(0xaaaaaaaa, (__m512i)(x), _mm512_slli_epi32((__m512i)(y), 16)))
#define CLIP_16(x) _mm512_max_epi16(_mm512_min_epi16((__m512i)(x), _mm512_set1_epi16(FEATURE_TOP)), _mm512_set1_epi16(-FEATURE_TOP))
#define PAIR_CLIPPED(x, y) ((vi)CLIP_16(PAIR(x, y)))
#define ADD_PRODUCTS(sum, a, b) ((vi)_mm512_dpwssd_epi32((__m512i)(sum), (__m512i)(a), (__m512i)(b)))
#define ROUND_I(x) ((vi)_mm512_cvtps_epi32((__m512)(x)))
#include "vectors.h"

#define BROADCAST(from) ((vi)_mm512_set1_epi32(*(from)))
#define NEURONS_HELD 8
#define DOT(sum, x, w) ((vi)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w)))

/* Rounds to even; |sum * scale| < 2^24 * SCALE_MAX. */
INLINE __m512i activation(vi sum, float scale) { return _mm512_cvtps_epi32(__builtin_convertvector(sum, vf) * scale); }

/* Puts four bytes side by side, of lanes of 128 bits that are (a, a, a, a, b, ..). */
INLINE vi transpose4(__m512i bytes) {
    __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return (vi)_mm512_shuffle_epi8(bytes, order);
}

/* Clips to 0..127. */
INLINE vi pack4(vi a, vi b, vi c, vi d, const float *scale) {
    __m512i ab = _mm512_packs_epi32(activation(a, scale[0]), activation(b, scale[1]));
    __m512i cd = _mm512_packs_epi32(activation(c, scale[2]), activation(d, scale[3]));
    return transpose4(_mm512_max_epi8(_mm512_packs_epi16(ab, cd), _mm512_setzero_si512()));
}

/* Clips to -127..127 and adds 127. */
INLINE vi centre4(vi a, vi b, vi c, vi d) {
    __m512i ab = _mm512_packs_epi32((__m512i)a, (__m512i)b), cd = _mm512_packs_epi32((__m512i)c, (__m512i)d);
    __m512i bytes = _mm512_max_epi8(_mm512_packs_epi16(ab, cd), _mm512_set1_epi8(-FEATURE_TOP));
    return transpose4(_mm512_add_epi8(bytes, _mm512_set1_epi8(FEATURE_TOP)));
}
#define CENTRE4 centre4
#define PACK4 pack4
#define MADD2 ADD_PRODUCTS

#include "network.h"
#include "rows.h"
#include "look.h"
#include "predict.h"
#include "context_tiles.h"
#include "reference_fit.h"
#include "correction_tiles.h"
#include "wavelet_tiles.h"
#include "maps_tiles.h"

const Level isopress_avx512 = {
    "avx512", pack_avx512, look_avx512, predict_avx512, contexts_avx512, combine_avx512, fit_avx512, product_avx512, features_avx512, depthwise_avx512, norm_avx512, attention_avx512,
    lift_avx512, enter_avx512, box_avx512, rest_avx512, upsample_avx512, bends_avx512, take_avx512,
    analyse_avx512, synthesise_avx512,
};
#endif
