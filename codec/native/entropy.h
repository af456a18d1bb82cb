/* Symbols of a phase <-> words of the range coder (SPEC, chapter 7): 32-bit words, 64-bit state, 24 bits of precision. */
#ifndef ISOPRESS_ENTROPY_H
#define ISOPRESS_ENTROPY_H

#include <stdint.h>

enum { PRECISION = 24, SCALES = 72, TAILS = 4, TABLES = SCALES * TAILS, FIRST_SCALE = -11, SHIFT_MAX = 20 };

/* What can follow in a stream: `inverted` words whose carry is not known yet, the first of them `first`. */
typedef struct {
    uint64_t lower, range, inverted, first;
} Encoder;

typedef struct {
    uint64_t lower, range, point, position; /* position: of the next word */
} Decoder;

/* Cumulative frequencies of all tables, (TABLES, width): of row t the first 2 * support[t] + 2, from 0 to 2^24. */
typedef struct {
    int32_t width;
    const uint32_t *cumulative;
    const int32_t *support;
} Tables;

/* The points of a phase by table: order (n,) lists them, those of table t from starts[t] to starts[t + 1]. */
typedef struct {
    int64_t n;
    const int16_t *scale;
    const int8_t *tail;
    int32_t offset;
    int32_t *order;
    int16_t *table;
    int8_t *shift; /* raw low bits of each symbol */
    int64_t starts[TABLES + 1];
} Group;

/* Sorts points by table; returns the largest shift, or -1 if a tail class is none. */
int isopress_group(Group *group);

/* NULL if every row rises from 0 to 2^24 within the width. */
const char *isopress_check_tables(const Tables *tables);

/* Writes the high parts of all symbols; returns the number of words, and puts what exceeds tables into `excess`. At
   most n + inverted + 1 words are written. */
int64_t isopress_encode_phase(Encoder *coder, const Group *group, const Tables *tables, const int32_t *symbols, uint32_t *words,
                              int32_t *excess, int64_t *escapes);

/* Reads the high parts of all symbols; `escaped` lists the points that exceed their table. Returns their number, or
   -1 if no encoder writes this. */
int64_t isopress_decode_phase(Decoder *coder, const Group *group, const Tables *tables, const uint32_t *words, uint64_t count,
                              int32_t *symbols, int32_t *escaped);

/* The same for n integers of one distribution: `cumulative` of `size` + 1 entries, or NULL for 2^bits equal ones. */
int64_t isopress_encode_row(Encoder *coder, int64_t n, const int32_t *integers, const uint32_t *cumulative, int32_t bits,
                            uint32_t *words);
int isopress_decode_row(Decoder *coder, int64_t n, int32_t *integers, const uint32_t *cumulative, int32_t size, int32_t bits,
                        const uint32_t *words, uint64_t count);

#endif
