#include "values.h"

#include <math.h>
#include <string.h>

enum { PIECE = 256 };

#define DEFINE(SUFFIX, FLOAT, BITS, SIGN, INFINITE)                                                                    \
    int isopress_keep_##SUFFIX(int64_t n, const FLOAT *x, const FLOAT *decoded, double tolerance) {                    \
        int kept = 1;                                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            BITS a, b;                                                                                                 \
            memcpy(&a, x + i, sizeof a), memcpy(&b, decoded + i, sizeof b);                                            \
            int ordinary = (a & ~SIGN) < INFINITE && a != SIGN;                                                        \
            kept &= a == b || (ordinary && fabs((double)x[i] - (double)decoded[i]) < tolerance);                       \
        }                                                                                                              \
        return kept;                                                                                                   \
    }                                                                                                                  \
                                                                                                                       \
    Errors isopress_measure_##SUFFIX(int64_t n, const FLOAT *x, const FLOAT *decoded) {                                \
        Errors e = {0, 0, 0, 0};                                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            int finite = isfinite(x[i]) != 0;                                                                          \
            double error = finite ? fabs((double)x[i] - (double)decoded[i]) : 0;                                       \
            e.finite += finite;                                                                                        \
            e.largest = error > e.largest ? error : e.largest;                                                         \
        }                                                                                                              \
        if (!(e.largest > 0) || isinf(e.largest)) return e;                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            double error = isfinite(x[i]) ? fabs((double)x[i] - (double)decoded[i]) / e.largest : 0;                   \
            uint64_t square = (uint64_t)(int64_t)(error * error * ((int64_t)1 << SQUARE_BITS));                        \
            e.high += square >> HALF_BITS, e.low += square & (((uint64_t)1 << HALF_BITS) - 1);                         \
        }                                                                                                              \
        return e;                                                                                                      \
    }                                                                                                                  \
                                                                                                                       \
    void isopress_restore_##SUFFIX(int64_t n, const int32_t *v, double step, double offset, FLOAT *out) {              \
        int32_t some[PIECE]; /* a copy: both may be in one place */                                                    \
        for (int64_t start = 0; start < n; start += PIECE) {                                                           \
            int count = n - start < PIECE ? (int)(n - start) : PIECE;                                                  \
            memcpy(some, v + start, (size_t)count * sizeof *some);                                                     \
            for (int i = 0; i < count; i++) out[start + i] = (FLOAT)(some[i] / 64.0 * step + offset);                  \
        }                                                                                                              \
    }

DEFINE(f32, float, uint32_t, UINT32_C(0x80000000), UINT32_C(0x7f800000))
DEFINE(f64, double, uint64_t, UINT64_C(0x8000000000000000), UINT64_C(0x7ff0000000000000))
