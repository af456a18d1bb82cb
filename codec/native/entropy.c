#include "entropy.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* --- one integer ---------------------------------------------------------------------------------------------- */

/* Codes an integer of cumulative frequencies low..high; there is room for the words. */
static inline void put(Writer *c, uint32_t low, uint32_t high) {
    uint64_t scale = c->range >> PRECISION, lower = c->lower + scale * low;
    c->range = scale * (high - low);
    if (c->inverted && lower + c->range > lower) { /* the carry is known now */
        int carry = lower < c->lower;
        c->words[c->count++] = (uint32_t)(c->first + carry);
        for (; c->inverted > 1; c->inverted--) c->words[c->count++] = carry ? 0 : UINT32_MAX;
        c->inverted = 0;
    }
    c->lower = lower;
    if (c->range < (uint64_t)1 << 32) {
        uint32_t word = (uint32_t)(lower >> 32);
        c->lower <<= 32, c->range <<= 32;
        if (c->inverted) c->inverted++;
        else if (c->lower + c->range > c->lower) c->words[c->count++] = word;
        else c->inverted = 1, c->first = word;
    }
}

/* Returns the quantile of the next integer, 2^24 or more where no encoder wrote this. */
static inline uint64_t peek(const Reader *c) { return c->ahead / (c->range >> PRECISION); }

static inline void take(Reader *c, uint32_t low, uint32_t high) {
    uint64_t scale = c->range >> PRECISION;
    c->ahead -= scale * low;
    c->range = scale * (high - low);
    if (c->range < (uint64_t)1 << 32) {
        c->range <<= 32;
        c->ahead = c->ahead << 32 | (c->position < c->count ? c->words[c->position] : 0);
        c->position += c->position < c->count;
    }
}

/* --- streams -------------------------------------------------------------------------------------------------- */

void isopress_begin_writing(Writer *w, int peaked) {
    memset(w, 0, sizeof *w);
    w->range = UINT64_MAX, w->peaked = peaked;
}

void isopress_begin_reading(Reader *r, const uint32_t *words, uint64_t count, const uint8_t *escapes, int64_t size, int peaked) {
    uint64_t first = count > 0 ? words[0] : 0, second = count > 1 ? words[1] : 0;
    *r = (Reader){first << 32 | second, UINT64_MAX, count < 2 ? count : 2, words, count, escapes, size, 0, peaked};
}

/* Makes room for the words of n more integers: at most one each, and those whose carry is not known. */
static int reserve(Writer *w, int64_t n) {
    int64_t needed = w->count + n + (int64_t)w->inverted + 3;
    if (needed <= w->room) return FINE;
    int64_t room = needed + w->room / 2;
    uint32_t *words = realloc(w->words, (size_t)room * sizeof *words);
    if (!words) return NO_MEMORY;
    w->words = words, w->room = room;
    return FINE;
}

int isopress_seal(Writer *w) {
    if (w->range == UINT64_MAX) return FINE; /* nothing was written */
    if (reserve(w, 0)) return NO_MEMORY;
    uint64_t point = w->lower + UINT32_MAX;
    if (w->inverted) {
        int carry = point < w->lower;
        w->words[w->count++] = (uint32_t)(w->first + carry);
        for (; w->inverted > 1; w->inverted--) w->words[w->count++] = carry ? 0 : UINT32_MAX;
    }
    w->words[w->count++] = (uint32_t)(point >> 32);
    if ((w->lower + w->range) >> 32 == point >> 32) w->words[w->count++] = 0;
    return FINE;
}

int isopress_is_exhausted(const Reader *r) {
    int words = r->position == r->count && (r->range == UINT64_MAX || r->ahead < ((uint64_t)1 << 33) - 1);
    return words && r->at == r->size;
}

int isopress_write_row(Writer *w, int64_t n, const int32_t *integers, const uint32_t *cumulative, int bits) {
    if (reserve(w, n)) return NO_MEMORY;
    for (int64_t i = 0; i < n; i++) {
        uint32_t k = (uint32_t)integers[i];
        if (cumulative) put(w, cumulative[k], cumulative[k + 1]);
        else put(w, k << (PRECISION - bits), (k + 1) << (PRECISION - bits));
    }
    return FINE;
}

int isopress_read_row(Reader *r, int64_t n, int32_t *integers, const uint32_t *cumulative, int32_t size, int bits) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t q = peek(r);
        int32_t k = 0;
        if (q >> PRECISION) return UNDECODABLE;
        if (cumulative) {
            while (k + 1 < size && cumulative[k + 1] <= q) k++;
            take(r, cumulative[k], cumulative[k + 1]);
        } else {
            k = (int32_t)(q >> (PRECISION - bits));
            take(r, (uint32_t)k << (PRECISION - bits), (uint32_t)(k + 1) << (PRECISION - bits));
        }
        integers[i] = k;
    }
    return FINE;
}

static int write_escape(Writer *w, uint32_t value) {
    if (w->size + 5 > w->space) {
        int64_t space = 2 * w->space + 64;
        uint8_t *escapes = realloc(w->escapes, (size_t)space);
        if (!escapes) return NO_MEMORY;
        w->escapes = escapes, w->space = space;
    }
    for (; value >= 0x80; value >>= 7) w->escapes[w->size++] = (uint8_t)(value & 0x7f) | 0x80;
    w->escapes[w->size++] = (uint8_t)value;
    return FINE;
}

static int read_escape(Reader *r, uint64_t *value) {
    *value = 0;
    for (int i = 0; i < 5; i++) {
        if (r->at >= r->size) return ESCAPES_END;
        uint8_t byte = r->escapes[r->at++];
        *value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) return !byte && i ? ESCAPE_LONG : FINE;
    }
    return ESCAPE_LONG;
}

/* --- the offset that suits a phase best ------------------------------------------------------------------------- */

enum { SAMPLE = 1024, NEARBY = 8 };

/* About 10 + log2(excess + 1) bits, in 2^-20 bit: the logarithm from the bits of a binary32 number. */
static inline int64_t cost_of_escape(int64_t excess) {
    float size = (float)(excess + 1);
    uint32_t bits;
    memcpy(&bits, &size, sizeof bits);
    int64_t m = (bits & 0x7fffff) >> 3;
    return ((int64_t)(bits >> 23) - 127 + 10) * (1 << 20) + m + ((m * ((1 << 20) - m) >> 20) * 11 >> 5);
}

/* What a symbol costs with a scale index and tail class. */
static inline int64_t cost_of(const Tables *t, int64_t symbol, int scale, int tail) {
    int shift, table = table_of(scale, tail, &shift);
    int64_t high = high_part(symbol, shift), limit = t->support[table];
    if (high < 0) high = -high;
    int64_t cost = t->cost[(int64_t)table * (t->reach + 1) + (high < limit ? high : limit)] + ((int64_t)shift << 20);
    return high >= limit ? cost + cost_of_escape(high - limit) : cost;
}

int64_t isopress_cost_of_offset(const Tables *t, int64_t n, int64_t stride, const int32_t *symbols, const int16_t *scale,
                                const int8_t *tail, int offset) {
    int64_t total = 0;
    for (int64_t i = 0; i < n; i += stride) total += cost_of(t, symbols[i], scale[i] + offset, tail[i]);
    return total;
}

/* Adds what a symbol costs with offsets of -reach to reach, a constant: next to each other in cost_by_scale. */
static inline __attribute__((always_inline)) void add_costs(const Tables *t, int64_t symbol, int scale, int tail, int reach, uint64_t *totals) {
    int64_t size = symbol < 0 ? -symbol : symbol;
    int first = scale - reach - FIRST_SCALE;
    if (first < -BELOW) first = -BELOW;
    if (size < FEW_SIZES && first + 2 * reach < SCALES) {
        const uint32_t *costs = t->cost_by_scale[tail][size] + BELOW + first;
        for (int k = 0; k <= 2 * reach; k++) totals[k] += costs[k];
    } else {
        for (int k = 0; k <= 2 * reach; k++) totals[k] += (uint64_t)cost_of(t, symbol, scale - reach + k, tail);
    }
}

/* As best_offset in coder.py: few symbols may need any offset, many do not. */
static int best_offset(const Tables *t, int64_t n, const int32_t *symbols, const int16_t *scale, const int8_t *tail, int peaked) {
    int64_t stride = (n + SAMPLE - 1) / SAMPLE, some = (n + stride - 1) / stride, least = INT64_MAX;
    int reach = some < SAMPLE / 4 ? OFFSET_MAX : NEARBY, best = 0;
    uint64_t totals[OFFSETS] = {0};
    for (int64_t i = 0; i < n; i += stride)
        if (reach == NEARBY) add_costs(t, symbols[i], scale[i], tail[i], NEARBY, totals);
        else add_costs(t, symbols[i], scale[i], tail[i], OFFSET_MAX, totals);
    for (int k = 0; k <= 2 * reach; k++) { /* 0, -1, 1, -2, 2, .. */
        int size = (k + 1) / 2, offset = k & 1 ? -size : size;
        int64_t total = (int64_t)totals[reach + offset];
        if (peaked && size) total += ((int64_t)(size + 2) << 20) * some / n;
        if (total < least) least = total, best = offset;
    }
    return best;
}

/* --- tables ----------------------------------------------------------------------------------------------------- */

/* Whether cumulative frequencies of so many integers rise from 0 to 2^24. */
static int rises(const uint32_t *row, int size) {
    int fine = !row[0] && row[size] == 1u << PRECISION;
    for (int k = 0; k < size; k++) fine &= row[k] < row[k + 1];
    return fine;
}

const char *isopress_complete_tables(Tables *t) {
    for (int i = 0; i < TABLES; i++) {
        const uint32_t *row = t->cumulative + (size_t)i * t->width;
        int a = t->support[i];
        if (a < 1 || a > t->reach || 2 * a + 2 > t->width || row[0] || row[2 * a + 1] != 1u << PRECISION) return "a table";
        for (int k = 0; k <= 2 * a; k++)
            if (row[k] >= row[k + 1]) return "a table";
    }
    for (int64_t i = 0; i < (int64_t)TABLES * (t->reach + 1); i++)
        if (t->cost[i] < 0 || t->cost[i] > 24 << 20) return "a cost";
    int fine = rises(t->offsets[0], OFFSETS) && rises(t->offsets[1], OFFSETS) && rises(t->others, OTHERS) && rises(t->limits, CLASSES + 1);
    for (int i = 0; i < RATES; i++) fine &= rises(t->rates + i * (RATES + 1), RATES) && rises(t->runs + i * (LONGEST + 2), LONGEST + 1);
    if (!fine) return "a distribution";
    for (int i = 0; i < TABLES; i++) {
        const uint32_t *row = t->cumulative + (size_t)i * t->width;
        for (int s = 0, k = 0; s < 1 << GUESS_BITS; s++) {
            while (row[k + 1] <= (uint32_t)s << (PRECISION - GUESS_BITS)) k++;
            t->guess[i][s] = (uint16_t)k;
        }
    }
    for (int tail = 0; tail < TAILS; tail++)
        for (int size = 0; size < FEW_SIZES; size++)
            for (int k = 0; k < SCALES_SEEN; k++)
                t->cost_by_scale[tail][size][k] = (uint32_t)cost_of(t, size, FIRST_SCALE - BELOW + k, tail);
    return NULL;
}

/* --- phases ------------------------------------------------------------------------------------------------------- */

int isopress_make_room(Sorted *room, int64_t n) {
    if (n <= room->room) return FINE;
    isopress_free_room(room);
    room->order = malloc((size_t)n * sizeof *room->order);
    room->table = malloc((size_t)n * sizeof *room->table);
    room->shift = malloc((size_t)n * sizeof *room->shift);
    if (!room->order || !room->table || !room->shift) {
        isopress_free_room(room);
        return NO_MEMORY;
    }
    room->room = n;
    return FINE;
}

void isopress_free_room(Sorted *room) {
    free(room->order), free(room->table), free(room->shift);
    memset(room, 0, sizeof *room);
}

enum { PARTS = 2 }; /* halves of the points, sorted side by side: neighbours mostly wait for the same table's counter */

/* The k-th point to be looked at, by turns of either half, and its part. */
static inline int64_t turn(int64_t k, int64_t n, int *part) {
    *part = k == n - 1 && n % 2 ? 1 : (int)(k & 1);
    return k / 2 + *part * (n / 2);
}

/* Finds the table of each point; those of table t come from starts[t] to starts[t + 1], in the order of the points: those
   of either part from next[part][t] on. Returns the largest shift. */
static int sort(Sorted *s, int64_t n, const int16_t *scale, const int8_t *tail, int offset, int64_t starts[TABLES + 1],
                int64_t next[PARTS][TABLES]) {
    int64_t sum = 0;
    int top = 0;
    memset(next, 0, PARTS * sizeof *next);
    for (int64_t k = 0; k < n; k++) {
        int part, shift;
        int64_t i = turn(k, n, &part);
        int table = table_of(scale[i] + offset, tail[i], &shift);
        s->shift[i] = (int8_t)shift;
        s->table[i] = (int16_t)table;
        next[part][table]++;
        if (shift > top) top = shift;
    }
    for (int t = 0; t < TABLES; t++) {
        int64_t first = next[0][t], second = next[1][t];
        starts[t] = next[0][t] = sum, next[1][t] = sum + first, sum += first + second;
    }
    starts[TABLES] = sum;
    return top;
}

int isopress_write_phase(Writer *w, const Tables *tables, int64_t n, const int32_t *symbols, const int16_t *scale,
                         const int8_t *tail, int corrected, Sorted *s) {
    int offset = corrected ? best_offset(tables, n, symbols, scale, tail, w->peaked) : 0;
    int64_t starts[TABLES + 1], next[PARTS][TABLES];
    int top = sort(s, n, scale, tail, offset, starts, next);
    if (reserve(w, n + 1)) return NO_MEMORY;
    if (corrected) {
        const uint32_t *row = tables->offsets[w->peaked ? 1 : 0] + offset + OFFSET_MAX;
        put(w, row[0], row[1]);
    }
    for (int64_t k = 0; k < n; k++) {
        int part;
        int64_t i = turn(k, n, &part);
        s->order[next[part][s->table[i]]++] = (int32_t)high_part(symbols[i], s->shift[i]);
    }
    for (int t = 0; t < TABLES; t++) {
        const uint32_t *row = tables->cumulative + (size_t)t * tables->width;
        int32_t a = tables->support[t];
        for (int64_t j = starts[t]; j < starts[t + 1]; j++) {
            int64_t high = s->order[j], size = high < 0 ? -high : high;
            if (size >= a) {
                if (write_escape(w, (uint32_t)(size - a))) return NO_MEMORY;
                high = high < 0 ? -a : a;
            }
            put(w, row[high + a], row[high + a + 1]);
        }
    }
    for (int bits = 1; bits <= top; bits++)
        for (int64_t i = 0; i < n; i++) {
            if (s->shift[i] != bits) continue;
            if (reserve(w, 1)) return NO_MEMORY;
            uint32_t low = ((uint32_t)symbols[i] + (1u << (bits - 1))) & ((1u << bits) - 1);
            put(w, low << (PRECISION - bits), (low + 1) << (PRECISION - bits));
        }
    return FINE;
}

enum { LIKELY = 10 << 20, AHEAD = 16 };

/* Returns the integer of a quantile below 2^24 by halving, of `size` integers. */
static inline int32_t search(const uint32_t *row, int32_t size, uint32_t q) {
    int32_t low = 0;
    while (size > 1) {
        int32_t half = size / 2;
        low += row[low + half] <= q ? half : 0;
        size -= half;
    }
    return low;
}

/* Reads the high parts of the n points of one table, which `order` lists; moves those that escape to its front. */
static int read_table(Reader *reader, const Tables *t, int table, int64_t n, int32_t *order, int32_t *symbols, int64_t *escapes) {
    Reader r = *reader; /* in registers */
    const uint32_t *row = t->cumulative + (size_t)table * t->width;
    const uint16_t *guess = t->guess[table];
    int32_t a = t->support[table];
    int wrong = FINE;
    /* Where 0 is likely, it is looked for first, which takes no division. */
    uint32_t zero = row[a], likely = row[a + 1] - zero >= LIKELY ? row[a + 1] - zero : 0;
    int64_t escaped = 0;
    for (int64_t j = 0; j < n; j++) {
        uint64_t scale = r.range >> PRECISION;
        int32_t k = a, i = order[j];
        __builtin_prefetch(&symbols[order[j + AHEAD < n ? j + AHEAD : j]], 1); /* they are far apart */
        if (r.ahead - scale * zero >= scale * likely) {
            uint64_t q = r.ahead / scale;
            if (q >> PRECISION) {
                wrong = UNDECODABLE;
                break;
            }
            k = guess[q >> (PRECISION - GUESS_BITS)];
            while (row[k + 1] <= q) k++; /* ends: the row's last entry is 2^24 */
        }
        take(&r, row[k], row[k + 1]);
        symbols[i] = k - a;
        if (k == 0 || k == 2 * a) order[escaped++] = i;
    }
    *reader = r, *escapes = escaped;
    return wrong;
}

/* Adds to the symbols that exceed their tables by how much they do. */
static int read_escapes(Reader *r, int64_t n, const int32_t *order, int32_t *symbols) {
    uint64_t largest = 0;
    for (int64_t j = 0; j < n; j++) {
        uint64_t beyond;
        int wrong = read_escape(r, &beyond);
        if (wrong) return wrong;
        if (beyond > largest) largest = beyond;
        if (beyond < ESCAPE_MAX) symbols[order[j]] += symbols[order[j]] < 0 ? -(int32_t)beyond : (int32_t)beyond;
    }
    return largest < ESCAPE_MAX ? FINE : ESCAPE_LARGE;
}

/* Reads the raw low bits of all symbols that have so many of them. */
static int read_low(Reader *r, int64_t n, int bits, const int8_t *shift, int32_t *symbols) {
    int too_large = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t low;
        if (shift[i] != bits) continue;
        if (isopress_read_row(r, 1, &low, NULL, 0, bits)) return UNDECODABLE;
        int64_t whole = (int64_t)symbols[i] * (1 << bits) + low - (1 << (bits - 1));
        if (whole > SYMBOL_MAX || whole < -SYMBOL_MAX) too_large = 1;
        else symbols[i] = (int32_t)whole;
    }
    return too_large ? SYMBOL_LARGE : FINE;
}

int isopress_read_phase(Reader *r, const Tables *tables, int64_t n, int32_t *symbols, const int16_t *scale, const int8_t *tail,
                        int corrected, Sorted *s) {
    int32_t offset = OFFSET_MAX;
    int wrong = corrected ? isopress_read_row(r, 1, &offset, tables->offsets[r->peaked ? 1 : 0], OFFSETS, 0) : FINE;
    if (wrong) return wrong;
    int64_t starts[TABLES + 1], next[PARTS][TABLES], escapes = 0;
    int top = sort(s, n, scale, tail, offset - OFFSET_MAX, starts, next);
    for (int64_t k = 0; k < n; k++) {
        int part;
        int64_t i = turn(k, n, &part);
        s->order[next[part][s->table[i]]++] = (int32_t)i;
    }
    for (int t = 0; t < TABLES && !wrong; t++) {
        int64_t count = starts[t + 1] - starts[t], more;
        if (!count) continue;
        wrong = read_table(r, tables, t, count, s->order + starts[t], symbols, &more);
        if (!wrong) memmove(s->order + escapes, s->order + starts[t], (size_t)more * sizeof *s->order), escapes += more;
    }
    if (!wrong) wrong = read_escapes(r, escapes, s->order, symbols);
    for (int bits = 1; bits <= top && !wrong; bits++) wrong = read_low(r, n, bits, s->shift, symbols);
    return wrong;
}

/* --- runs of zeros ------------------------------------------------------------------------------------------------ */

static inline int64_t of_rate(int rate) { return (int64_t)(4 - rate % 2) << (11 - rate / 2); }

/* As rate_of in runs.py. */
static int rate_of(int64_t others, int64_t count) {
    int rate = 0;
    while (rate < RATES - 1 && (others << (RATE_BITS + 3)) < 7 * of_rate(rate) * count) rate++;
    return rate;
}

static inline void put_of(Writer *w, const uint32_t *row, int integer) { put(w, row[integer], row[integer + 1]); }

int isopress_write_runs(Writer *w, const Tables *t, int64_t n, const int32_t *order, const int32_t *symbols, int *rate) {
    int64_t others = 0, zeros = 0;
    for (int64_t i = 0; i < n; i++) others += symbols[order[i]] != 0;
    const uint32_t *rates = t->rates + *rate * (RATES + 1), *runs = t->runs + (*rate = rate_of(others, n)) * (LONGEST + 2);
    if (reserve(w, 2 + n / LONGEST + 2 * others)) return NO_MEMORY;
    put_of(w, rates, *rate);
    for (int64_t i = 0; i < n; i++) {
        if (!symbols[order[i]] && ++zeros < LONGEST && i + 1 < n) continue;
        put_of(w, runs, symbols[order[i]] ? (int)zeros : LONGEST);
        zeros = 0;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t symbol = symbols[order[i]], size = symbol < 0 ? -symbol : symbol;
        if (!symbol) continue;
        if (size > 1 && write_escape(w, (uint32_t)(size - 2))) return NO_MEMORY;
        put_of(w, t->others, symbol < 0 ? size == 1 : 2 + (size > 1));
    }
    return FINE;
}

/* Reads an integer of a distribution, the last of which is likely. */
static inline int read_of(Reader *r, const uint32_t *row, int size) {
    uint64_t q = peek(r);
    if (q >> PRECISION) return -1;
    int k = q >= row[size - 1] ? size - 1 : search(row, size - 1, (uint32_t)q);
    take(r, row[k], row[k + 1]);
    return k;
}

int isopress_read_runs(Reader *r, const Tables *t, int64_t n, int32_t *order, int32_t *symbols, int *rate) {
    int64_t others = 0;
    if ((*rate = read_of(r, t->rates + *rate * (RATES + 1), RATES)) < 0) return UNDECODABLE;
    const uint32_t *runs = t->runs + *rate * (LONGEST + 2);
    for (int64_t i = 0; i < n;) {
        int run = read_of(r, runs, LONGEST + 1);
        if (run < 0) return UNDECODABLE;
        i += run;
        if (run < LONGEST && i < n) order[others++] = order[i++]; /* those before were zeros */
    }
    int64_t outer = 0;
    for (int64_t j = 0; j < others; j++) {
        int k = read_of(r, t->others, OTHERS);
        if (k < 0) return UNDECODABLE;
        symbols[order[j]] = k < 2 ? k - 2 : k - 1;
        if (k == 0 || k == OTHERS - 1) order[outer++] = order[j];
    }
    return read_escapes(r, outer, order, symbols);
}
