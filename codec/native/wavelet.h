/* One level of the wavelet of latents (latent/reduced_grid.py, `Level`): a field <-> its low band and three details. */
#ifndef ISOPRESS_WAVELET_H
#define ISOPRESS_WAVELET_H

#include <stdint.h>

/* Rows start..stop, in which each of `count` cells stands for `stride` columns; `split`: in longitude too, and `circle`
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
