/* Symbols of a phase <-> words of the range coder and bytes of escapes (SPEC, chapter 7): 32-bit words, 64-bit state,
   24 bits of precision. */
#ifndef ISOPRESS_ENTROPY_H
#define ISOPRESS_ENTROPY_H

#include <stdint.h>

#include "kernels.h"

enum {
    PRECISION = 24,
    SCALES = 72,
    TAILS = 4,
    TABLES = SCALES * TAILS,
    FIRST_SCALE = -11,
    SHIFT_MAX = 20,    /* raw low bits of a symbol */
    OFFSET_MAX = 31,   /* correction of the scale indexes of a phase */
    OFFSETS = 2 * OFFSET_MAX + 1,
    SYMBOL_MAX = 1 << 29,
    ESCAPE_MAX = 1 << 28,
    RATES = 24,        /* of symbols other than 0 among those that are nearly all 0 */
    RATE_BITS = 15,    /* a rate says how many of 2^15 they are */
    FIRST_RATE = 20,
    LONGEST = 64,      /* run of zeros */
    OTHERS = 4,        /* -2, -1, 1 and 2, the outer ones of which say "at least" */
    FEW_SIZES = 8,     /* magnitudes of symbols whose costs are kept by scale */
    BELOW = 2 * OFFSET_MAX, /* scales below the first, which are as the first */
    SCALES_SEEN = BELOW + SCALES,
    GUESS_BITS = 9     /* of a quantile, that tell about where in a table it lies */
};

/* What can go wrong. */
enum Outcome {
    FINE,
    NO_MEMORY,
    UNDECODABLE,  /* no encoder writes such words */
    ESCAPES_END,  /* within a varint */
    ESCAPE_LONG,  /* a varint is longer than it needs to be */
    ESCAPE_LARGE,
    SYMBOL_LARGE,
    VALUE_LARGE,
    A_BUG         /* arguments that no caller should pass */
};

/* Frequencies of all tables: of row t the first 2 * support[t] + 2 of `width` cumulative ones, from 0 to 2^24; what
   symbols cost, (TABLES, reach + 1) by magnitude, in 2^-20 bit; of offsets, cumulative: equally likely, and peaked; of
   rates after another one (RATES, RATES + 1), of runs by rate (RATES, LONGEST + 2), of other symbols (OTHERS + 1) and of
   how many classes are quiet (CLASSES + 2). */
typedef struct {
    int32_t width, reach;
    const uint32_t *cumulative, *offsets[2], *rates, *runs, *others, *limits;
    const int32_t *support, *cost;
    uint32_t cost_by_scale[TAILS][FEW_SIZES][SCALES_SEEN]; /* escapes included */
    uint16_t guess[TABLES][1 << GUESS_BITS]; /* the integer at the beginning of each part of a table */
} Tables;

/* What can follow in a stream: `inverted` words whose carry is not known yet, the first of them `first`. */
typedef struct {
    uint64_t lower, range, inverted, first;
    uint32_t *words;
    int64_t count, room;
    uint8_t *escapes;
    int64_t size, space;
    int32_t peaked; /* offsets near 0 are cheap */
} Writer;

typedef struct {
    uint64_t ahead, range, position; /* how far the words are beyond the interval's beginning; the next word's position */
    const uint32_t *words;
    uint64_t count;
    const uint8_t *escapes;
    int64_t size, at;
    int32_t peaked;
} Reader;

/* Room for the points of a phase while they are sorted by table; `table` and `shift` may be where scale indexes and tail
   classes are. */
typedef struct {
    int64_t room;
    int32_t *order;
    int16_t *table;
    int8_t *shift; /* raw low bits of each symbol */
} Sorted;

/* Returns the table of a scale index and tail class; beyond the last, `shift` low bits are coded raw. */
static inline int table_of(int scale, int tail, int *shift) {
    scale -= FIRST_SCALE, *shift = 0;
    if (scale >= SCALES) {
        *shift = (scale - SCALES) / 8 + 1;
        if (*shift > SHIFT_MAX) *shift = SHIFT_MAX;
        scale -= 8 * *shift;
        if (scale >= SCALES) scale = SCALES - 1;
    }
    return tail * SCALES + (scale < 0 ? 0 : scale);
}

static inline int64_t high_part(int64_t symbol, int shift) { return (symbol + ((1 << shift) >> 1)) >> shift; }

/* Fills in costs by scale and guesses. NULL if every row rises from 0 to 2^24 within the width, and costs are as many as symbols. */
const char *isopress_complete_tables(Tables *tables);

void isopress_begin_writing(Writer *writer, int peaked);
void isopress_begin_reading(Reader *reader, const uint32_t *words, uint64_t count, const uint8_t *escapes, int64_t size, int peaked);
/* Writes the words that seal the stream. */
int isopress_seal(Writer *writer);
/* Whether everything was read, and an encoder may have ended here. */
int isopress_is_exhausted(const Reader *reader);

/* n integers of one distribution: `cumulative` of `size` + 1 entries, or NULL for 2^bits equal ones. */
int isopress_write_row(Writer *writer, int64_t n, const int32_t *integers, const uint32_t *cumulative, int bits);
int isopress_read_row(Reader *reader, int64_t n, int32_t *integers, const uint32_t *cumulative, int32_t size, int bits);

/* All symbols of a phase; if `corrected` after the scale offset that suits them best. Tail classes are 0..3. */
int isopress_write_phase(Writer *writer, const Tables *tables, int64_t n, const int32_t *symbols, const int16_t *scale,
                         const int8_t *tail, int corrected, Sorted *room);
int isopress_read_phase(Reader *reader, const Tables *tables, int64_t n, int32_t *symbols, const int16_t *scale,
                        const int8_t *tail, int corrected, Sorted *room);

/* What every stride-th of n symbols costs with an offset of their scale indexes, in 2^-20 bit, as far as tables tell. */
int64_t isopress_cost_of_offset(const Tables *tables, int64_t n, int64_t stride, const int32_t *symbols, const int16_t *scale,
                                const int8_t *tail, int offset);

/* The symbols of the n points that `order` lists, n > 0, nearly all of them 0: runs of zeros, then the others; `rate` is the
   number of the rate that was coded before, and becomes their own. The reader enters only what is not 0. */
int isopress_write_runs(Writer *writer, const Tables *tables, int64_t n, const int32_t *order, const int32_t *symbols, int *rate);
int isopress_read_runs(Reader *reader, const Tables *tables, int64_t n, int32_t *order, int32_t *symbols, int *rate);

/* Makes room for n points. */
int isopress_make_room(Sorted *room, int64_t n);
void isopress_free_room(Sorted *room);

#endif
