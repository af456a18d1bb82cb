/* The kernels for AVX2. */
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx2")
#include <immintrin.h>

#define VB 32
#define NV 2
#define LEVEL(name) name##_avx2

#define MIN_F(a, b) ((vf)_mm256_min_ps(a, b))
#define MAX_F(a, b) ((vf)_mm256_max_ps(a, b))
#define MIN_D(a, b) ((vd)_mm256_min_pd(a, b))
#define MAX_D(a, b) ((vd)_mm256_max_pd(a, b))
#include "vectors.h"

#define DOT2(sum, x, w) ((sum) + (vi)_mm256_madd_epi16((__m256i)(x), (__m256i)(w)))
/* 2 * 127 * 127 < 2^15: no pair of products is cut off. */
#define DOT4(sum, x, w) \
    ((sum) + (vi)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)(x), (__m256i)(w)), _mm256_set1_epi16(1)))

#include "network.h"
#include "predict.h"

const Level isopress_avx2 = {"avx2", predict_avx2};
#endif
