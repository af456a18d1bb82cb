/* Symbols of latents: rate against distortion, then the scale offset. */
#include "symbols.h"

#include <math.h>
#include <stddef.h>

const char *isopress_check_choice(const Choice *p) {
    if (p->last < -OFFSET_MAX || p->last > OFFSET_MAX) return "a scale offset";
    for (int64_t i = 0; i < p->n; i++)
        if (p->tail[i] < 0 || p->tail[i] >= TAILS) return "a tail class";
    for (int64_t i = 0; i < p->active; i++)
        if (p->point[i] < 0 || p->point[i] >= p->n || (i && p->point[i] <= p->point[i - 1])) return "an active point";
    return NULL;
}

/* Returns the cheapest of the nearest integer k and the two next to it towards 0; operations in the order of numpy. */
static inline int32_t cheapest_symbol(const Tables *t, const Choice *p, int64_t i, float x, int32_t k) {
    int shift, table = table_of(p->scale[i], p->tail[i], &shift);
    int32_t magnitude = k < 0 ? -k : k, best = k;
    double least = INFINITY;
    for (int fewer = 0; fewer < 3; fewer++) {
        int32_t size = magnitude > fewer ? magnitude - fewer : 0, symbol = k < 0 ? -size : size;
        int64_t high = high_part(size, shift), limit = t->support[table];
        double missed = (double)x - symbol;
        float bits = p->trade * p->bits[(int64_t)table * (t->reach + 1) + (high < limit ? high : limit)];
        double cost = missed * missed + bits;
        if (cost < least) least = cost, best = symbol;
    }
    return best;
}

static void quantise(const Tables *t, const Choice *p) {
    for (int64_t i = 0; i < p->n; i++) {
        float x = p->y[i] - p->mean[i] * (1.0f / MEAN_UNITS), nearest = rintf(x);
        nearest = nearest < -SYMBOL_MAX ? -SYMBOL_MAX : nearest > SYMBOL_MAX ? SYMBOL_MAX : nearest;
        int32_t k = nearest == nearest ? (int32_t)nearest : 0;
        p->symbols[i] = k && p->trade != 0 ? cheapest_symbol(t, p, i, x, k) : k;
    }
}

/* Returns the change of the offset that makes a sample of the active points cheapest, its own bits included. */
static int best_change(const Tables *t, const Choice *p) {
    int32_t symbols[OFFSET_SAMPLE];
    int16_t scale[OFFSET_SAMPLE];
    int8_t tail[OFFSET_SAMPLE];
    int64_t stride = (p->active + OFFSET_SAMPLE - 1) / OFFSET_SAMPLE, some = 0, least = INT64_MAX;
    for (int64_t i = 0; i < p->active; i += stride, some++) {
        int32_t at = p->point[i];
        symbols[some] = p->symbols[at], scale[some] = p->scale[at], tail[some] = p->tail[at];
    }
    int first = -OFFSET_MAX - p->last, end = OFFSET_MAX - p->last, best = 0;
    for (int change = first > -OFFSET_REACH ? first : -OFFSET_REACH; change <= (end < OFFSET_REACH ? end : OFFSET_REACH); change++) {
        int size = change < 0 ? -change : change;
        int64_t total = isopress_cost_of_offset(t, some, 1, symbols, scale, tail, change);
        if (size) total += ((int64_t)(size + 2) << 20) * some / p->active;
        if (total < least) least = total, best = change;
    }
    return best;
}

static void add_offset(const Choice *p, int offset) {
    for (int64_t i = 0; i < p->active; i++) p->scale[p->point[i]] = (int16_t)(p->scale[p->point[i]] + offset);
}

int isopress_choose(const Tables *t, const Choice *p) {
    if (p->active < OFFSET_FROM) {
        quantise(t, p);
        return 0;
    }
    add_offset(p, p->last);
    quantise(t, p);
    int change = best_change(t, p);
    add_offset(p, change);
    return change;
}
