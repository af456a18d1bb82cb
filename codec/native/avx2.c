/* The kernels for AVX2. */
#include "references.h"

#include <stdlib.h>

#if BUILDS_AVX2
#pragma GCC target("avx2")
#include <immintrin.h>

#define VB 32
#define NV 2
#define LEVEL(name) name##_avx2

#define MIN_F(a, b) ((vf)_mm256_min_ps(a, b))
#define MAX_F(a, b) ((vf)_mm256_max_ps(a, b))
#define MIN_D(a, b) ((vd)_mm256_min_pd(a, b))
#define MAX_D(a, b) ((vd)_mm256_max_pd(a, b))
#define MIN_I(a, b) ((vi)_mm256_min_epi32((__m256i)(a), (__m256i)(b)))
#define MAX_I(a, b) ((vi)_mm256_max_epi32((__m256i)(a), (__m256i)(b)))
#define ABS_I(x) ((vi)_mm256_abs_epi32((__m256i)(x)))
#define PAIR(x, y) ((vi)_mm256_blend_epi16((__m256i)(x), _mm256_slli_epi32((__m256i)(y), 16), 0xaa))
#define CLIP_16(x) _mm256_max_epi16(_mm256_min_epi16((__m256i)(x), _mm256_set1_epi16(FEATURE_TOP)), _mm256_set1_epi16(-FEATURE_TOP))
#define PAIR_CLIPPED(x, y) ((vi)CLIP_16(PAIR(x, y)))
#define ADD_PRODUCTS(sum, a, b) ((sum) + (vi)_mm256_madd_epi16((__m256i)(a), (__m256i)(b)))
#define ROUND_I(x) ((vi)_mm256_cvtps_epi32((__m256)(x)))
#include "vectors.h"

/* A word in every lane, straight from memory: compilers would rather take two steps. */
INLINE vi broadcast(const int32_t *from) {
    vi all;
    __asm__("vpbroadcastd %1, %0" : "=x"(all) : "m"(*from));
    return all;
}
#define BROADCAST broadcast
#define MULTIPLY4(x, w) ((vs)_mm256_maddubs_epi16((__m256i)(x), (__m256i)(w)))
#define PAIRS(part) ((vi)_mm256_madd_epi16((__m256i)(part), _mm256_set1_epi16(1)))

/* Rounds to even; |sum * scale| < 2^24 * SCALE_MAX. */
INLINE __m256i activation(vi sum, float scale) { return _mm256_cvtps_epi32(__builtin_convertvector(sum, vf) * scale); }

/* Puts four bytes side by side, of lanes of 128 bits that are (a, a, a, a, b, ..). */
INLINE vi transpose4(__m256i bytes) {
    __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return (vi)_mm256_shuffle_epi8(bytes, order);
}

/* Clips to 0..127. */
INLINE vi pack4(vi a, vi b, vi c, vi d, const float *scale) {
    __m256i ab = _mm256_packs_epi32(activation(a, scale[0]), activation(b, scale[1]));
    __m256i cd = _mm256_packs_epi32(activation(c, scale[2]), activation(d, scale[3]));
    return transpose4(_mm256_max_epi8(_mm256_packs_epi16(ab, cd), _mm256_setzero_si256()));
}

/* Clips to -127..127 and adds 127. */
INLINE vi centre4(vi a, vi b, vi c, vi d) {
    __m256i ab = _mm256_packs_epi32((__m256i)a, (__m256i)b), cd = _mm256_packs_epi32((__m256i)c, (__m256i)d);
    __m256i bytes = _mm256_max_epi8(_mm256_packs_epi16(ab, cd), _mm256_set1_epi8(-FEATURE_TOP));
    return transpose4(_mm256_add_epi8(bytes, _mm256_set1_epi8(FEATURE_TOP)));
}
#define CENTRE4 centre4
#define PACK4 pack4
#define MADD2(sum, x, w) ((sum) + (vi)_mm256_madd_epi16((__m256i)(x), (__m256i)(w)))

#include "network.h"
#include "rows.h"
#include "look.h"
#include "predict.h"
#include "context_tiles.h"
#include "reference_fit.h"
#include "correction_tiles.h"
#include "wavelet_tiles.h"
#include "maps_tiles.h"

const Level isopress_avx2 = {
    "avx2", pack_avx2, look_avx2, predict_avx2, contexts_avx2, combine_avx2, fit_avx2, product_avx2, features_avx2, depthwise_avx2, norm_avx2, attention_avx2,
    lift_avx2, enter_avx2, box_avx2, rest_avx2, upsample_avx2, bends_avx2, take_avx2,
    analyse_avx2, synthesise_avx2,
};
#endif
