/* Maps of a level of latents (latent/context_maps.py): what is known around every coefficient. Plain C, as kernels.h. */
#ifndef ISOPRESS_MAPS_H
#define ISOPRESS_MAPS_H

#include "contexts.h"

/* All maps are (rows, columns) with MAP_PAD cells around what they are of; `circle`: longitude closes on itself. */

/* to = the map smoothed by (1 2 1) x (1 2 1) / 16, or |from| + |other| so; where a cell stands for several columns, with
   those beside it. */
typedef struct {
    int64_t rows, columns;
    int32_t strips, circle;
    const Strip *strip;
    const float *from, *other; /* other may be NULL */
    float *to, *line;          /* line: room for `columns` */
} BoxJob;

/* Second differences of a low band (rows, columns) without padding, along longitude and across it. */
typedef struct {
    int64_t rows, columns;
    int32_t strips, circle;
    const Strip *strip;
    const double *low;
    float *along, *across; /* out: with padding, zeros on the way in */
    double *row;           /* room for 2 rows of `columns`, */
    float *line;           /* and for 3 */
} BendJob;

/* rest = what is known of the activity around every cell before its band; far = means of nine of them, three apart. */
typedef struct {
    int64_t rows, columns;
    const float *bend, *up[3], *earlier[2], *newest, *history; /* up: the band's own parent first; NULL: there is none */
    float *rest, *far;                                         /* far: zeros on the way in */
    float *line;                                               /* room for `columns` */
} RestJob;

/* Every cell of a coarser map, from two before its first on, repeated 2 x 2. */
typedef struct {
    int64_t parent_rows, parent_columns, rows, columns;
    int32_t circle;
    const float *from;
    float *to;
} UpsampleJob;

/* Enters mean + 64 * symbol of all points of a phase, and its magnitude, in all columns that they stand for. */
typedef struct {
    int64_t rows, columns, n;
    int32_t strips, circle, y, x; /* y, x: parity of the points */
    const Strip *strip;
    const float *mean;
    const int32_t *symbols;
    float *own, *magnitude;
} EnterJob;

/* The values of all points of a phase, of a map without padding. */
typedef struct {
    int64_t rows, columns, n;
    int32_t strips, y, x;
    const Strip *strip;
    const float *from;
    float *to;
} TakeJob;

/* Each NULL, or what is wrong. */
const char *isopress_check_box(const BoxJob *job);
const char *isopress_check_bends(const BendJob *job);
const char *isopress_check_rest(const RestJob *job);
const char *isopress_check_upsample(const UpsampleJob *job);
const char *isopress_check_enter(const EnterJob *job);
const char *isopress_check_take(const TakeJob *job);

#endif
