/* The steps of the correction of latents (latent/correction.py, SPEC 6.8) that take the time. Plain C, as kernels.h. */
#ifndef ISOPRESS_CORRECTION_H
#define ISOPRESS_CORRECTION_H

#include <stdint.h>

enum {
    BESIDE_MAX = 2,     /* arrays that a product takes side by side */
    OUT_BLOCK = 16,     /* outputs whose weights lie together */
    SIDE_MAX = 3,       /* of a kernel */
    CHANNELS_MAX = 4096,
    CELL_MAX = 16,      /* values to a side */
    NORM_MAX = 2048,    /* channels of a token */
    HEAD_MAX = 128,     /* of a head: 128 * 4095 * 4095 < 2^31 */
    WINDOW_MAX = 65536, /* tokens of a window */
    ACTIVATION_MAX = 16383,
    QUERIES = 12        /* tokens of a window that are answered at a time */
};

enum { PLAIN, ROUNDED, GELU_ROUNDED }; /* what a product gives: float32; integers; integers after gelu */

/* out = f(sums * scale + bias), of the cross-correlation of x (height, width, channels) with side x side weights. */
typedef struct {
    int32_t count, side, outputs, kind, channels[BESIDE_MAX]; /* even */
    int64_t height, width;
    const int16_t *x[BESIDE_MAX], *weight; /* (blocks of outputs, side, inputs, side * channels / 2, OUT_BLOCK, 2) */
    const float *scale, *bias;             /* (blocks * OUT_BLOCK,) */
    float top, one;                        /* gelu is multiplied by `one`; integers end at `top` */
    void *out;                             /* (height - side + 1, width - side + 1, outputs) */
} ProductJob;

typedef struct {
    int64_t tokens;
    int32_t channels;
    const float *x, *weight, *bias;
    float part, epsilon, one, top; /* part: 1 / channels */
    int16_t *out;
} NormJob;

/* Cells of `cell` x `cell` values: each value, times `scale`, less the sum around its cell; then `beside` of the cell. */
typedef struct {
    int64_t height, width; /* in cells */
    int32_t cell, channels; /* cell * cell + 1, rounded up to even: the last may be 0 */
    const int64_t *units, *around, *beside;
    int64_t scale;
    float factor, beside_factor, one, top;
    int16_t *out; /* (height, width, channels) */
} FeatureJob;

/* out = bias + the 3 x 3 cross-correlation of x (height, width, channels), each channel by itself; 0 beyond edges. */
typedef struct {
    int64_t height, width;
    int32_t channels, wraps;
    const float *x, *weight, *bias; /* weight: (3, 3, channels) */
    float *out;
} DepthwiseJob;

/* Windows of one axis of n tokens: first one, how many, and how many of them are answered. */
typedef struct {
    int32_t start, size, answered;
} AxisWindow;

typedef struct {
    int64_t height, width;
    int32_t heads, head; /* channels of each */
    int32_t rows, columns;
    const AxisWindow *row, *column;
    const int16_t *qkv; /* (height, width, 3, heads, head) */
    float scale, share, one, top;
    int16_t *out;    /* (height, width, heads, head) */
    int16_t *packed; /* scratch, isopress_attention_scratch items */
    float *scores;   /* scratch, QUERIES rows of a window, rounded up to OUT_BLOCK */
} AttentionJob;

/* Each returns NULL, or what would leave a buffer or overflow. */
const char *isopress_check_product(const ProductJob *job);
const char *isopress_check_weights(const ProductJob *job); /* once they are there */
const char *isopress_check_features(const FeatureJob *job);
const char *isopress_check_depthwise(const DepthwiseJob *job);
const char *isopress_check_norm(const NormJob *job);
const char *isopress_check_attention(const AttentionJob *job);

/* Tokens of the largest window, rounded up to OUT_BLOCK. */
int64_t isopress_window(const AttentionJob *job);
int64_t isopress_attention_scratch(const AttentionJob *job);
/* Items of the weights of a product. */
int64_t isopress_weights(const ProductJob *job);

static inline int64_t rounded_up(int64_t n) { return (n + OUT_BLOCK - 1) / OUT_BLOCK * OUT_BLOCK; }

#endif
