/* What the kernels work on. Plain C: nothing here knows of Python, so that readers in other languages can be built on
   it. What comes from outside is checked in check.c, once; the kernels trust it. */
#ifndef ISOPRESS_KERNELS_H
#define ISOPRESS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Instruction sets that files of their own are compiled for, by GCC: others do not know its pragmas. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define BUILDS_AVX2 1
#define BUILDS_AVX512 (__GNUC__ >= 9)
#else
#define BUILDS_AVX2 0
#define BUILDS_AVX512 0
#endif

#include "contexts.h"
#include "correction.h"
#include "maps.h"
#include "wavelet.h"

enum {
    TILE = 32,        /* points that a kernel works on at once */
    PAD = 3,          /* cells of padding around a plane */
    PAD_TOP = (1 << 30) - 1, /* magnitude of what stands there */
    PLANES = 4,       /* of a level, by the parity of their points: 2 * y + x */
    PHASES = 3,       /* D, H and V: the order in which a level is coded */
    OFFSETS_MAX = 28, /* neighbours of a point */
    NEAR_MAX = 8,     /* neighbours whose coding errors are inputs */
    WIDE_MAX = 8,     /* neighbours further off whose coding errors are only summed */
    SEEN_MAX = OFFSETS_MAX + NEAR_MAX + WIDE_MAX + 1,
    PROXIES_MAX = 4,
    PROXY_FEATURES = 4,
    INPUTS_MAX = 56,  /* of a pyramid: 28 + 8 + 4 + 4 * 4 */
    NETWORK_INPUTS_MAX = SLOTS_MAX,
    WIDTH_MAX = 128,  /* neurons of a layer */
    LAYERS_MAX = 4,
    OUTPUTS = 3,      /* mean, scale, tail */
    SCALE_MAX = 64,   /* of a layer: its sums, below 2^24, times that are integers of 32 bits */
    INDEXES = 320,    /* roughness indexes */
    CLASSES = 6,      /* of activity that can be quiet */
    QUIET_LEAST = 4096, /* points of a phase in a stream: of fewer all pass a network */
    QUIET_STRIDE = 4, QUIET_WORTH = 8, QUIET_RATE = 64, QUIET_SHARE = 2, /* as in quiet.py */
    NEAR_WEIGHT = 4,  /* of coding errors in the activity of a point */
    WIDE_WEIGHT = 2,
    BENDS_MAX = 5
};
#define QUIET_EDGES 256, 512, 724, 1024, 1448, 2048 /* activity is of a class below its edge */

/* Integers of one plane, where they lie among those of whole fields. */
typedef struct {
    const int32_t *at, *minus;  /* minus: subtracted, of the same places, or NULL; at NULL stands for zeros */
    int64_t field, row, column; /* steps from one to the next */
    int64_t rows, columns;
} View;

/* A neighbour: which plane, and its row and column there, padded, seen from the first point of a phase. */
typedef struct {
    int32_t plane, row, column;
} Neighbour;

/* The values at two neighbours less those at two others, whose magnitude counts `weight` times. */
typedef struct {
    int32_t weight, at[4];
} Bend;

/* Geometry of one phase, as geometry.py derives it. */
typedef struct {
    int32_t n, near, wide;
    Neighbour seen[SEEN_MAX]; /* n whose values are looked at, then near and wide ones, then the point itself */
    double weight[OFFSETS_MAX], weight_y[OFFSETS_MAX], weight_x[OFFSETS_MAX]; /* of the plane fit's three sums */
    double mean, slope_y, slope_x;                                           /* denominator / their totals */
    double y[OFFSETS_MAX], x[OFFSETS_MAX];                                   /* offsets in fine cells */
    double cubic[OFFSETS_MAX];
    double denominator, cubic_divisor, floor;
    int32_t first_index;
    /* The same as integers, for neighbours that differ by less than `narrow`: then no sum leaves 32 bits. Offsets are
       symmetric: of each pair (place, opposite place), the first. */
    int32_t narrow, cubic_shift, whole_mean, whole_slope_y, whole_slope_x, whole_denominator;
    int32_t pair[OFFSETS_MAX / 2][2], whole[OFFSETS_MAX / 2][4]; /* weight_y, weight_x, y, x */
    int32_t rings; /* of pairs one after the other, alike in weight and cubic */
    struct { int32_t end, weight, cubic; } ring[OFFSETS_MAX / 2];
    int32_t nearest[4], bends; /* what activity and interpolation are made of; the first bend is only in the former */
    Bend bend[BENDS_MAX];
    float residual[INDEXES], error[INDEXES]; /* multipliers by roughness index */
    double mean_of[INDEXES];
} Geometry;

/* One layer of the integer network: outputs = round((weight . inputs + bias) * scale), scale a power of two. */
typedef struct {
    int32_t inputs, outputs;
    const int8_t *weight; /* (outputs, inputs) */
    const int32_t *bias;  /* (outputs,) */
    const float *scale;   /* (outputs,) */
} Layer;

typedef struct {
    int32_t layers;
    Layer layer[LAYERS_MAX];
} Network;

typedef struct Packed Packed; /* a network as one instruction set wants it; one piece of memory, to be freed */

/* All points (fields, rows, columns) of one phase, and what is known around them. */
typedef struct {
    int64_t fields, rows, columns;
    int32_t wraps, proxies;
    View values[PLANES], errors[PLANES], proxy[PROXIES_MAX][PLANES];
    const Geometry *geometry;
    const Packed *network;
    int32_t *wanted;           /* out: ascending, the points that are predicted, with room for all; or NULL for all */
    const int32_t *limit;      /* of every `fields_of_limit` fields: which classes are not wanted, those below it */
    int64_t fields_of_limit;
    int32_t *rows_held;        /* room for (2 + proxies) * PLANES * RING + 2 rows of `width`, and a tile more */
    int64_t width;             /* of such a row */
    int32_t *value;            /* out: predictions in units, of all points, or where wanted points lie */
    int16_t *scale;            /* out: scale indexes, of as many points as are predicted */
    int8_t *tail;              /* out: tail classes, likewise */
    int8_t *activity;          /* classes of all points, CLASSES of those that are never quiet */
} Phase;

enum { RING = 2 * PAD + 1 }; /* rows of a plane that are held at once */

typedef struct Combination Combination; /* references.h */
typedef struct Fit Fit;

typedef struct {
    const char *name;
    Packed *(*pack)(const Network *); /* NULL without memory */
    void (*look)(const Phase *);    /* fills activity, and value with interpolations, of every QUIET_STRIDE-th row */
    int64_t (*predict)(const Phase *); /* returns how many points were predicted */
    int64_t (*contexts)(const ContextPhase *); /* returns how many points a network was asked about */
    void (*combine)(const Combination *);
    int (*fit)(const Fit *); /* returns 0, or 1 without memory */
    void (*product)(const ProductJob *);
    void (*features)(const FeatureJob *);
    void (*depthwise)(const DepthwiseJob *);
    void (*norm)(const NormJob *);
    void (*attention)(const AttentionJob *);
    void (*lift)(const LiftJob *);
    void (*enter)(const EnterJob *);
    void (*box)(const BoxJob *);
    void (*rest)(const RestJob *);
    void (*upsample)(const UpsampleJob *);
    void (*bends)(const BendJob *);
    void (*take)(const TakeJob *);
    void (*analyse)(const WaveletJob *);
    void (*synthesise)(const WaveletJob *);
} Level;

/* The levels that this build has and this machine can run, best first; NULL ends the list. */
const Level *const *isopress_levels(void);

/* Derives from the other members what the integers of a geometry are; NULL, or what is wrong with it. */
const char *isopress_complete_geometry(Geometry *geometry);

/* Each returns NULL if every index lies inside its buffers and every sum inside its type, else what does not. */
const char *isopress_check_network(const Network *network);
const char *isopress_check_phase(const Phase *phase, int inputs);

/* Inputs of the network of a phase. */
static inline int inputs_of(const Geometry *g, int proxies) { return g->n + g->near + 4 + PROXY_FEATURES * proxies; }

#endif
