/* Vectors of VB bytes, tiles of points, and the few operations on them whose results are defined to the last bit. */

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES (VB / 4)         /* of 32 bits */
#define HALF (VB / 8)          /* of 64 bits */
#define WIDES (TILE / HALF)    /* vectors of binary64 in a tile */
#define VECTORS (TILE / LANES) /* vectors of 32 bits in a tile */

typedef double vd __attribute__((vector_size(VB)));
typedef int64_t vl __attribute__((vector_size(VB)));
typedef float vf __attribute__((vector_size(VB)));
typedef int32_t vi __attribute__((vector_size(VB)));
typedef uint32_t vu __attribute__((vector_size(VB))); /* for sums that may leave 32 bits on their way */
typedef int16_t vs __attribute__((vector_size(VB)));
typedef float vfh __attribute__((vector_size(VB / 2)));
typedef int32_t vih __attribute__((vector_size(VB / 2)));

#define ROUND_F 12582912.0f          /* 1.5 * 2^23: adding it rounds |x| < 2^22 to even */
#define ROUND_D 6755399441055744.0   /* 1.5 * 2^52 */
enum { FEATURE_TOP = 127, ACTIVATION_TOP = 127, MEAN_REACH = 1024, SCALE_REACH = 256, TAIL_TOP = 3, LOG_CENTRE = 1016 + 26 };
#define LIMIT 134217728.0
#define RIDGE 4096.0

INLINE vd abs_d(vd x) { return (vd)((vl)x & INT64_MAX); }
#ifndef MIN_F /* an instruction set may bring its own */
#define MIN_F(a, b) ((vf)(((vi)(a) & ((a) < (b))) | ((vi)(b) & ~((a) < (b)))))
#define MAX_F(a, b) ((vf)(((vi)(a) & ((a) > (b))) | ((vi)(b) & ~((a) > (b)))))
#define MIN_D(a, b) ((vd)(((vl)(a) & ((a) < (b))) | ((vl)(b) & ~((a) < (b)))))
#define MAX_D(a, b) ((vd)(((vl)(a) & ((a) > (b))) | ((vl)(b) & ~((a) > (b)))))
#endif
#ifndef ABS_I
INLINE vi abs_i(vi x) {
    vi negative = x < 0;
    return (x ^ negative) - negative;
}
#else
INLINE vi abs_i(vi x) { return ABS_I(x); }
#endif
#ifdef MIN_I
INLINE vi clip_i(vi x, int low, int high) {
    vi l = low - (vi){0}, h = high - (vi){0};
    x = MIN_I(x, h);
    return MAX_I(x, l);
}
#else
INLINE vi clip_i(vi x, int low, int high) {
    vi below = x < low, above = x > high;
    return (x & ~(below | above)) | (below & low) | (above & high);
}
#endif
/* Whether any magnitude, of up to 2^31, is at least so large. */
INLINE int any_least(vi x, int least) {
#ifdef ANY_LEAST
    return ANY_LEAST(x, least);
#else
    vi all = (vi)((vu)x >= (uint32_t)least);
    int any = 0;
    for (int k = 0; k < LANES; k++) any |= all[k];
    return any;
#endif
}
INLINE vd clip_d(vd x, double low, double high) {
    vd l = low - (vd){0}, h = high - (vd){0};
    x = MIN_D(x, h);
    return MAX_D(x, l);
}
INLINE vf clip_f(vf x, float low, float high) {
    vf l = low - (vf){0}, h = high - (vf){0};
    x = MIN_F(x, h);
    return MAX_F(x, l);
}
INLINE vd floor_d(vd x) {
    vd r = (x + ROUND_D) - ROUND_D;
    vd one = 1.0 - (vd){0};
    return r - (vd)((vl)(r > x) & (vl)one);
}
/* Clips to -top..top and rounds to even. */
INLINE vi round_f(vf x, float low, float high) {
    return (vi)(clip_f(x, low, high) + ROUND_F) - (vi)(ROUND_F - (vf){0});
}
INLINE vih log_index(vd x) { return (vih)__builtin_convertvector(x, vfh) >> 20; }

/* Numbers of 16 bits, two side by side in 32 bits: of |x| < 2^15 as they are, or clipped to -127..127. */
#ifndef PAIR
#define PAIR(x, y) (((x) & 0xffff) | ((y) << 16))
#endif
#ifndef PAIR_CLIPPED
#define PAIR_CLIPPED(x, y) PAIR(clip_i(x, -FEATURE_TOP, FEATURE_TOP), clip_i(y, -FEATURE_TOP, FEATURE_TOP))
#endif
/* Adds the products of both. */
#ifndef ADD_PRODUCTS
#define ADD_PRODUCTS(sum, a, b) ((sum) + ((a) << 16 >> 16) * ((b) << 16 >> 16) + ((a) >> 16) * ((b) >> 16))
#endif
/* Rounds |x| < 2^22 to even. */
#ifndef ROUND_I
#define ROUND_I(x) ((vi)((x) + ROUND_F) - (vi)(ROUND_F - (vf){0}))
#endif
