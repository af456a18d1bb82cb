/* The kernels for any machine whose compiler knows GCC's vector types. */
#include "references.h"

#include <stdlib.h>

#define VB 16
#define NV 2
#define LEVEL(name) name##_generic

#if defined(__SSE2__)
#include <emmintrin.h>
#define MIN_F(a, b) ((vf)_mm_min_ps(a, b))
#define MAX_F(a, b) ((vf)_mm_max_ps(a, b))
#define MIN_D(a, b) ((vd)_mm_min_pd(a, b))
#define MAX_D(a, b) ((vd)_mm_max_pd(a, b))
#define CLIP_16(x) _mm_max_epi16(_mm_min_epi16((__m128i)(x), _mm_set1_epi16(FEATURE_TOP)), _mm_set1_epi16(-FEATURE_TOP))
#define PAIR_CLIPPED(x, y) ((vi)CLIP_16(PAIR(x, y)))
#define ADD_PRODUCTS(sum, a, b) ((sum) + (vi)_mm_madd_epi16((__m128i)(a), (__m128i)(b)))
#define ROUND_I(x) ((vi)_mm_cvtps_epi32((__m128)(x)))
#endif
#include "vectors.h"

#define NEURONS_HELD 4
#define DOT ADD_PRODUCTS
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

const Level isopress_generic = {
    "generic", pack_generic, look_generic, predict_generic, contexts_generic, combine_generic, fit_generic, product_generic, features_generic, depthwise_generic, norm_generic, attention_generic,
    lift_generic, enter_generic, box_generic, rest_generic, upsample_generic, bends_generic, take_generic,
    analyse_generic, synthesise_generic,
};
