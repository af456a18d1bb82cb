/* Whether a step of the correction stays inside its buffers, and its sums inside 32 bits. */
#include "correction.h"

#include <stddef.h>
#include <stdlib.h>

int64_t isopress_weights(const ProductJob *p) {
    int64_t inputs = 0;
    for (int i = 0; i < p->count; i++) inputs += p->channels[i];
    return rounded_up(p->outputs) * p->side * p->side * inputs;
}

const char *isopress_check_product(const ProductJob *p) {
    if (p->count < 1 || p->count > BESIDE_MAX || p->side < 1 || p->side > SIDE_MAX) return "the shape of a product";
    if (p->outputs < 1 || p->outputs > CHANNELS_MAX || p->kind < PLAIN || p->kind > GELU_ROUNDED) return "the outputs of a product";
    if (p->height < p->side || p->width < p->side || p->height > INT32_MAX / p->width) return "the size of a product";
    for (int i = 0; i < p->count; i++)
        if (p->channels[i] < 2 || p->channels[i] > CHANNELS_MAX || p->channels[i] & 1) return "the channels of a product";
    return NULL;
}

/* Sums of a block's outputs, whatever the inputs are up to ACTIVATION_MAX. */
static int fits(const int16_t *weight, int64_t pairs) {
    for (int o = 0; o < OUT_BLOCK; o++) {
        int64_t sum = 0;
        for (int64_t k = 0; k < pairs; k++) sum += abs(weight[(k * OUT_BLOCK + o) * 2]) + abs(weight[(k * OUT_BLOCK + o) * 2 + 1]);
        if (sum * ACTIVATION_MAX > INT32_MAX) return 0;
    }
    return 1;
}

const char *isopress_check_weights(const ProductJob *p) {
    int64_t blocks = rounded_up(p->outputs) / OUT_BLOCK, size = isopress_weights(p) / blocks;
    for (int64_t b = 0; b < blocks; b++)
        if (!fits(p->weight + b * size, size / (2 * OUT_BLOCK))) return "the sums of a product";
    return NULL;
}

const char *isopress_check_features(const FeatureJob *p) {
    int32_t values = p->cell * p->cell;
    if (p->cell < 1 || p->cell > CELL_MAX || p->channels != (values + 2) / 2 * 2) return "the size of a cell";
    if (p->height < 1 || p->width < 1 || p->height > INT32_MAX / p->width / values) return "the size of a field";
    return NULL;
}

const char *isopress_check_depthwise(const DepthwiseJob *p) {
    int is_small = p->channels >= 1 && p->channels <= NORM_MAX && p->height >= 1 && p->width >= 1 && p->height <= INT32_MAX / p->width;
    return is_small ? NULL : "the size of a convolution";
}

const char *isopress_check_norm(const NormJob *p) {
    return p->tokens < 0 || p->channels < 1 || p->channels > NORM_MAX || p->tokens > INT64_MAX / 64 / p->channels ? "the size of a norm" : NULL;
}

static const char *check_windows(const AxisWindow *w, int32_t count, int64_t n) {
    if (count < 1 || n < 1 || n > INT32_MAX / 2) return "the number of windows";
    for (int i = 0; i < count; i++)
        if (w[i].start < 0 || w[i].start >= n || w[i].size < 1 || w[i].size > n || w[i].answered < 0 || w[i].answered > w[i].size)
            return "a window";
    return NULL;
}

static int64_t largest(const AxisWindow *w, int32_t count) {
    int64_t most = 0;
    for (int i = 0; i < count; i++) most = w[i].size > most ? w[i].size : most;
    return most;
}

int64_t isopress_window(const AttentionJob *p) { return rounded_up(largest(p->row, p->rows) * largest(p->column, p->columns)); }

/* Queries of QUERIES tokens, keys and values of a window, shares of QUERIES tokens; heads are filled up to OUT_BLOCK. */
int64_t isopress_attention_scratch(const AttentionJob *p) {
    int64_t tokens = isopress_window(p), head = rounded_up(p->head);
    return QUERIES * head + 2 * tokens * head + QUERIES * tokens;
}

const char *isopress_check_attention(const AttentionJob *p) {
    if (p->heads < 1 || p->head < 1 || p->head > HEAD_MAX || p->heads > CHANNELS_MAX / p->head) return "the heads of an attention";
    const char *wrong = check_windows(p->row, p->rows, p->height);
    if (!wrong) wrong = check_windows(p->column, p->columns, p->width);
    if (wrong) return wrong;
    if (largest(p->row, p->rows) * largest(p->column, p->columns) > WINDOW_MAX) return "the size of a window";
    return NULL;
}
