/* One lifting step of a wavelet (latent/wavelet.py): target += or -= (sum of two neighbours) * factor, rounded or not. */
#ifndef ISOPRESS_LIFTING_H
#define ISOPRESS_LIFTING_H

#include <stdint.h>

/* Neighbours of target i are i and i + 1 of `before` (if there is one), `near`, `after` (likewise), one after another. */
typedef struct {
    int64_t lines, count, near_count; /* lines side by side; samples of each, and of its neighbours */
    int32_t across, whole, minus;     /* across: arrays are (samples, lines), else (lines, samples) */
    double factor, *target;
    const double *near, *before, *after; /* before, after: (lines,) or NULL */
} LiftJob;

/* Whether a row of n values can be made one of `width` by halving and doubling. */
int isopress_fits(int64_t n, int64_t width);
/* NULL, or what is wrong. */
const char *isopress_check_lift(const LiftJob *job);

#endif
