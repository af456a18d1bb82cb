/* What is known of the latents of one phase before they are coded (context_features.py, context_model.py): features of
   decoded neighbours, an integer network, scale indexes. Plain C, as kernels.h. */
#ifndef ISOPRESS_CONTEXTS_H
#define ISOPRESS_CONTEXTS_H

#include <stdint.h>

enum {
    MAP_PAD = 4,       /* cells of zeros, or of what closes the circle, around every map */
    CONTEXT_MAPS = 19, /* that features are gathered from */
    PARENT_FIRST = 3, PARENT_COUNT = 3, /* of them, those of the coarser level, which have a shape of their own */
    LOG_ACTIVITY = 19, LOG_SMOOTH = 20, /* what logarithms are taken of beside them: known for the points alone */
    SLOTS_MAX = 96,    /* features of a phase */
    POOLS_MAX = 48,
    LOGS_MAX = 12,
    ACTIVITIES = 192,  /* activity indexes */
    FLOOR_UNITS = 8, FLOOR_LOG = 1016 + 3 * 8, /* added to every activity, and its index */
    LOG_FLOOR = 4,     /* added to what logarithms are taken of */
    LOG_MIDDLE = 48    /* activity index that is the feature 0 */
};

/* Rows start..stop, in which each of `count` values stands for `stride` columns and lies in the first of them. */
typedef struct {
    int32_t start, stop, count, stride;
} Strip;

/* Which features a phase has, and how they are made (Plan in context_features.py). */
typedef struct {
    int32_t slots, gathered, pooled, logs;
    struct { int32_t slot, map, dy, dx; } gather[SLOTS_MAX];
    struct { int32_t slot, count, of[4]; } pool[POOLS_MAX];
    struct { int32_t slot, map; } log[LOGS_MAX];
    int32_t scaled[2][2]; /* stretches of slots in units of the activity; empty ones are 0, 0 */
} ContextPlan;

typedef struct {
    const ContextPlan *plan;
    const struct Packed *network;
    int64_t rows, columns, parent_rows, parent_columns; /* of maps, with their padding */
    const float *map[CONTEXT_MAPS], *magnitude, *rest;  /* maps that the plan does not need are NULL */
    int32_t strips, parent_strips;                      /* without parent strips every column has its own parent */
    const Strip *strip, *parent_strip;
    int32_t y, x, first; /* parity of the points; whether nothing of the band is decoded yet */
    int32_t quiet;       /* activity indexes below ask no network: */
    const int16_t *quiet_scale, *quiet_tail;
    const float *feature_of, *mean_of; /* (ACTIVITIES,) */
    int64_t n;
    float *mean; /* out, (n,): integers in units */
    int16_t *scale;
    int8_t *tail;
    int32_t *active; /* out: the points that a network was asked about */
} ContextPhase;

/* NULL if strips lie inside a map (height, width). */
const char *isopress_check_strips(const Strip *strip, int n, int64_t height, int64_t width);
/* Returns how many points of a phase strips have that were checked. */
int64_t isopress_points(const Strip *strip, int n, int y, int x);
const char *isopress_check_plan(const ContextPlan *plan);
/* NULL if all that the kernel reads and writes lies in its buffers; `inputs` of the network. */
const char *isopress_check_contexts(const ContextPhase *phase, int inputs);

#endif
