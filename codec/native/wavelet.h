/* The wavelet of latents: single lifting steps (latent/wavelet.py) and whole levels (latent/reduced_grid.py, `Level`). */
#ifndef ISOPRESS_WAVELET_H
#define ISOPRESS_WAVELET_H

#include <stdint.h>

/* A lifting step: target += or -= (sum of two neighbours) * factor, rounded or not.
   Neighbours of target i are i and i + 1 of `before` (if there is one), `near`, `after` (likewise), one after another. */
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

/* A level: a field <-> its low band and three details.
   Rows start..stop, in which each of `count` cells stands for `stride` columns; `split`: in longitude too, and `circle`
   whether that closes on itself. */
typedef struct {
    int32_t start, stop, count, stride, split, circle;
} Zone;

typedef struct {
    double *at;
    int64_t count;
} Row;

enum { WAVELET_LINES = 4 };

/* Bands are (rows, columns) halved, rounded up where low: low, then high in longitude, in latitude, in both. */
typedef struct {
    int64_t rows, columns;
    int32_t zones, circle, single, whole; /* circle: of rows that are fitted; single: details are binary32; whole: synthesis in integers */
    const Zone *zone;
    double *field, *low; /* field: used up by analysis */
    void *detail[3];
    double *line;        /* room for WAVELET_LINES * columns */
    Row *row;            /* room for `rows` */
} WaveletJob;

/* NULL, or what is wrong. */
const char *isopress_check_wavelet(const WaveletJob *job);

#endif
