/* Symbols of the latents of one phase: the cheapest in squared steps + trade * bits, and the scale offset that suits them
   (latent/coefficients.py). Plain C, as kernels.h. */
#ifndef ISOPRESS_SYMBOLS_H
#define ISOPRESS_SYMBOLS_H

#include "entropy.h"

enum {
    MEAN_UNITS = 64,      /* of a mean, in one step */
    OFFSET_FROM = 192,    /* active points that are worth an offset */
    OFFSET_SAMPLE = 2048, /* of them that are looked at */
    OFFSET_REACH = 8
};

typedef struct {
    int64_t n, active;
    const float *y, *mean;  /* (n,): in steps; in units */
    const int32_t *point;   /* (active,), ascending: those that a network was asked about */
    const float *bits;      /* (TABLES, reach + 1): of symbols by magnitude */
    const int8_t *tail;
    float trade;
    int32_t last;           /* scale offset before this phase */
    int16_t *scale;         /* in, out: scale indexes, to which the offset is added where points are active */
    int32_t *symbols;       /* out */
} Choice;

/* NULL, or what is wrong. */
const char *isopress_check_choice(const Choice *choice);
/* Returns by how much the scale offset changes. */
int isopress_choose(const Tables *tables, const Choice *choice);

#endif
