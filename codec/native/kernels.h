/* What the kernels work on. Plain C: nothing here knows of Python, so that readers in other languages can be built on
   it. All sizes are checked in check.c before a kernel runs; the kernels trust what they are given. */
#ifndef ISOPRESS_KERNELS_H
#define ISOPRESS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    TILE = 32,         /* points that a kernel works on at once */
    OFFSETS_MAX = 28,  /* neighbours of a point */
    NEAR_MAX = 8,      /* neighbours whose coding errors are inputs */
    WIDE_MAX = 8,      /* neighbours further off whose coding errors are only summed */
    PROXIES_MAX = 4,
    PROXY_FEATURES = 4,
    INPUTS_MAX = 56,   /* 28 + 8 + 4 + 4 * 4 */
    WIDTH_MAX = 128,   /* neurons of a layer */
    LAYERS_MAX = 4,
    OUTPUTS = 3,       /* mean, scale, tail */
    INDEXES = 320      /* roughness indexes */
};

/* One of the four planes of a level by the parity of its points, padded, for all fields of a batch. */
typedef struct {
    const double *values;  /* (fields, rows, columns); NULL where the phase does not look */
    const int32_t *errors; /* likewise */
    const double *proxies[PROXIES_MAX];
    int64_t rows, columns; /* padding included */
} Plane;

/* A neighbour: which plane, and where in it seen from a point of the phase. */
typedef struct {
    int32_t plane, row, column;
} Neighbour;

/* Geometry of one phase, as geometry.py derives it. */
typedef struct {
    int32_t n, near, wide;
    Neighbour offsets[OFFSETS_MAX], near_at[NEAR_MAX], wide_at[WIDE_MAX], centre;
    double weight[OFFSETS_MAX], weight_y[OFFSETS_MAX], weight_x[OFFSETS_MAX]; /* of the plane fit's three sums */
    double mean, slope_y, slope_x;                                           /* denominator / their totals */
    double y[OFFSETS_MAX], x[OFFSETS_MAX];                                   /* offsets in fine cells */
    double cubic[OFFSETS_MAX];
    double denominator, cubic_divisor, floor;
    int32_t first_index;
    const float *residual, *error; /* INDEXES multipliers each */
    const double *mean_of;         /* INDEXES */
} Geometry;

/* One layer of the integer network: outputs = round(weight . inputs + bias) * scale, scale a power of two. */
typedef struct {
    int32_t inputs, outputs;
    const int8_t *weight;  /* (outputs, inputs) */
    const int32_t *bias;   /* (outputs,) */
    const float *scale;    /* (outputs,) */
} Layer;

typedef struct {
    int32_t layers;
    Layer layer[LAYERS_MAX];
} Network;

/* All points (fields, rows, columns) of one phase. */
typedef struct {
    int64_t fields, rows, columns;
    int32_t proxies;
    Plane planes[4];
    Geometry geometry;
    Network network;
    double *value;  /* out: predictions in units, integers */
    int16_t *scale; /* out: scale indexes */
    int8_t *tail;   /* out: tail classes */
} Phase;

typedef struct {
    const char *name;
    void (*predict)(const Phase *);
} Level;

/* The levels that this build has and this machine can run, best first; NULL ends the list. */
const Level *const *isopress_levels(void);

/* Returns NULL if every index of the phase lies inside its buffers and every sum inside its type, else what does not. */
const char *isopress_check_phase(const Phase *phase);

#endif
