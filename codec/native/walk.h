/* The walk of a pyramid: from anchors to all values of some fields, level by level, each in three phases. The encoder
   walks as the decoder does; what it puts into the fields is what the decoder gets (traversal.py, pyramid.py). */
#ifndef ISOPRESS_WALK_H
#define ISOPRESS_WALK_H

#include "entropy.h"
#include "kernels.h"

enum { DEPTH_MAX = 40, COEFFICIENT_SETS = 3, UNITS = 64 };

typedef struct {
    int64_t fields, height, width;
    int32_t depth, wrap, snap;
    int32_t quantum[DEPTH_MAX], finer[DEPTH_MAX]; /* quantiser width in units, and by how much scale indexes are less */
    const Geometry *geometry[PHASES];
    const Packed *network[DEPTH_MAX][PHASES];     /* per level, the finest first */
    int32_t inputs[DEPTH_MAX][PHASES];            /* that they have */
    const Tables *tables;
    int32_t proxies;
    const int32_t *proxy[PROXIES_MAX];            /* (fields, height, width) each */
    const int8_t *coefficients;                   /* of the guess, in 1/64: (fields, COEFFICIENT_SETS, proxies) */
    int32_t *v;                                   /* (fields, height, width) in units; the anchors are there */
    int32_t streams;                              /* 1, or one per field */
    void *room;                                   /* scratch, isopress_walk_room bytes, aligned as int64_t is */
    /* The encoder's: y in steps, or NULL and values of which (value - offset) / step are y, rounded with `snap`; and which
       of them count, or NULL. */
    const double *y;
    const float *single;
    double offset, step;
    const uint8_t *valid;
    Writer *const *writers;
    /* The decoder's. */
    Reader *const *readers;
} Walk;

/* Returns the bytes of scratch of a walk, of fields whose values are fewer than 2^31. */
int64_t isopress_walk_room(int64_t fields, int64_t height, int64_t width, int32_t proxies, int32_t streams);

/* Codes all phases, or decodes them if there are readers. */
int isopress_walk(const Level *level, const Walk *walk);

#endif
