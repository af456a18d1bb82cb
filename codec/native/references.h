/* What decoded fields say of a field of a block: proxies, and the coefficients of a guess that suit it
   (reference_prediction.py, reference_fit.py). Plain C, as kernels.h. */
#ifndef ISOPRESS_REFERENCES_H
#define ISOPRESS_REFERENCES_H

#include "kernels.h"

enum {
    TERMS_MAX = 8,        /* fields that a proxy is made of */
    WEIGHT_MAX = 8,       /* of such a field, in quarters */
    EXPONENT_MAX = 30,
    FIT_LEVELS = 3,
    LOGS = 1024,          /* entries of a table of logarithms */
    UNITS_PER_STEP = 64
};

/* A proxy: out = round(clip(sum of weight . from / 4 . 2^exponent)). */
struct Combination {
    int64_t points;
    int32_t terms, exponent;
    const int32_t *from[TERMS_MAX];
    int32_t weight[TERMS_MAX];
    int32_t *out;
};

/* A field (height, width) in steps and its proxies in units. */
struct Fit {
    int64_t height, width;
    const double *y;
    int32_t proxies;
    const int32_t *proxy[PROXIES_MAX];
    int32_t prior[PROXIES_MAX]; /* coefficients that are expected */
    const int32_t *logs;            /* (LOGS,): log2(1 + (i + 1/2) / LOGS) in 2^-20 */
    int8_t *exponent;               /* out, (proxies,) */
    int8_t *coefficient;            /* out, (FIT_LEVELS, proxies) */
};

#endif
