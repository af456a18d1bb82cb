#include "entropy.h"

#include <stddef.h>
#include <string.h>

int isopress_group(Group *g) {
    int64_t counts[TABLES] = {0};
    int top = 0;
    for (int64_t i = 0; i < g->n; i++) {
        int scale = g->scale[i] + g->offset - FIRST_SCALE, tail = g->tail[i], shift = 0;
        if (tail < 0 || tail >= TAILS) return -1;
        if (scale >= SCALES) {
            shift = (scale - SCALES) / 8 + 1;
            if (shift > SHIFT_MAX) shift = SHIFT_MAX;
            scale -= 8 * shift;
            if (scale >= SCALES) scale = SCALES - 1;
            if (shift > top) top = shift;
        }
        if (scale < 0) scale = 0;
        g->shift[i] = (int8_t)shift;
        g->table[i] = (int16_t)(tail * SCALES + scale);
        counts[g->table[i]]++;
    }
    int64_t next[TABLES], sum = 0;
    for (int t = 0; t < TABLES; t++) g->starts[t] = next[t] = sum, sum += counts[t];
    g->starts[TABLES] = sum;
    for (int64_t i = 0; i < g->n; i++) g->order[next[g->table[i]]++] = (int32_t)i;
    return top;
}

const char *isopress_check_tables(const Tables *t) {
    for (int i = 0; i < TABLES; i++) {
        const uint32_t *row = t->cumulative + (size_t)i * t->width;
        int a = t->support[i];
        if (a < 1 || 2 * a + 2 > t->width || row[0] || row[2 * a + 1] != 1u << PRECISION) return "a table";
        for (int k = 0; k <= 2 * a; k++)
            if (row[k] >= row[k + 1]) return "a table";
    }
    return NULL;
}

/* Codes one integer of cumulative frequencies low..high; returns where the next word goes. */
static inline uint32_t *put(Encoder *c, uint32_t low, uint32_t high, uint32_t *out) {
    uint64_t scale = c->range >> PRECISION, lower = c->lower + scale * low;
    c->range = scale * (high - low);
    if (c->inverted && lower + c->range > lower) { /* the carry is known now */
        int carry = lower < c->lower;
        *out++ = (uint32_t)(c->first + carry);
        for (; c->inverted > 1; c->inverted--) *out++ = carry ? 0 : UINT32_MAX;
        c->inverted = 0;
    }
    c->lower = lower;
    if (c->range < (uint64_t)1 << 32) {
        uint32_t word = (uint32_t)(lower >> 32);
        c->lower <<= 32, c->range <<= 32;
        if (c->inverted) c->inverted++;
        else if (c->lower + c->range > c->lower) *out++ = word;
        else c->inverted = 1, c->first = word;
    }
    return out;
}

/* Returns the quantile of the next integer, 2^24 or more where no encoder wrote this. */
static inline uint64_t peek(const Decoder *c) { return (c->point - c->lower) / (c->range >> PRECISION); }

static inline void take(Decoder *c, uint32_t low, uint32_t high, const uint32_t *words, uint64_t count) {
    uint64_t scale = c->range >> PRECISION;
    c->lower += scale * low;
    c->range = scale * (high - low);
    if (c->range < (uint64_t)1 << 32) {
        c->lower <<= 32, c->range <<= 32;
        c->point = c->point << 32 | (c->position < count ? words[c->position] : 0);
        c->position += c->position < count;
    }
}

static inline int64_t high_part(int64_t symbol, int shift) { return (symbol + ((1 << shift) >> 1)) >> shift; }

int64_t isopress_encode_phase(Encoder *c, const Group *g, const Tables *tables, const int32_t *symbols, uint32_t *words,
                              int32_t *excess, int64_t *escapes) {
    uint32_t *out = words;
    *escapes = 0;
    for (int t = 0; t < TABLES; t++) {
        const uint32_t *row = tables->cumulative + (size_t)t * tables->width;
        int32_t a = tables->support[t];
        for (int64_t j = g->starts[t]; j < g->starts[t + 1]; j++) {
            int32_t i = g->order[j];
            int64_t high = high_part(symbols[i], g->shift[i]);
            if (high >= a) excess[(*escapes)++] = (int32_t)(high - a), high = a;
            else if (high <= -a) excess[(*escapes)++] = (int32_t)(-high - a), high = -a;
            out = put(c, row[high + a], row[high + a + 1], out);
        }
    }
    return out - words;
}

enum { GUESS_BITS = 10, FEW = 64 };

int64_t isopress_decode_phase(Decoder *c, const Group *g, const Tables *tables, const uint32_t *words, uint64_t count,
                              int32_t *symbols, int32_t *escaped) {
    int64_t escapes = 0;
    uint16_t guess[1 << GUESS_BITS];
    for (int t = 0; t < TABLES; t++) {
        const uint32_t *row = tables->cumulative + (size_t)t * tables->width;
        int32_t a = tables->support[t];
        int guessed = g->starts[t + 1] - g->starts[t] >= FEW;
        if (guessed) /* the integer at the beginning of each 1024th */
            for (int s = 0, k = 0; s < 1 << GUESS_BITS; s++) {
                while (row[k + 1] <= (uint32_t)s << (PRECISION - GUESS_BITS)) k++;
                guess[s] = (uint16_t)k;
            }
        for (int64_t j = g->starts[t]; j < g->starts[t + 1]; j++) {
            uint64_t q = peek(c);
            if (q >> PRECISION) return -1;
            int32_t k = guessed ? guess[q >> (PRECISION - GUESS_BITS)] : 0;
            while (row[k + 1] <= q) k++; /* ends: the row's last entry is 2^24 */
            take(c, row[k], row[k + 1], words, count);
            int32_t i = g->order[j];
            symbols[i] = k - a;
            if (k == 0 || k == 2 * a) escaped[escapes++] = i;
        }
    }
    return escapes;
}

int64_t isopress_encode_row(Encoder *c, int64_t n, const int32_t *integers, const uint32_t *cumulative, int32_t bits, uint32_t *words) {
    uint32_t *out = words;
    for (int64_t i = 0; i < n; i++) {
        uint32_t k = (uint32_t)integers[i];
        if (cumulative) out = put(c, cumulative[k], cumulative[k + 1], out);
        else out = put(c, k << (PRECISION - bits), (k + 1) << (PRECISION - bits), out);
    }
    return out - words;
}

int isopress_decode_row(Decoder *c, int64_t n, int32_t *integers, const uint32_t *cumulative, int32_t size, int32_t bits,
                        const uint32_t *words, uint64_t count) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t q = peek(c);
        int32_t k = 0;
        if (q >> PRECISION) return -1;
        if (cumulative) {
            while (k + 1 < size && cumulative[k + 1] <= q) k++;
            take(c, cumulative[k], cumulative[k + 1], words, count);
        } else {
            k = (int32_t)(q >> (PRECISION - bits));
            take(c, (uint32_t)k << (PRECISION - bits), (uint32_t)(k + 1) << (PRECISION - bits), words, count);
        }
        integers[i] = k;
    }
    return 0;
}
