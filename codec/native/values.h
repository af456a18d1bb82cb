/* Final values against original ones: what is promised of them, and how far they are off. */
#ifndef ISOPRESS_VALUES_H
#define ISOPRESS_VALUES_H

#include <stdint.h>

/* Whether every decoded value surely keeps a tolerance: equal bits, or a finite value other than -0.0 that is missed by
   less. Where the answer is no, a tie may be all there is. */
int isopress_keep_f32(int64_t n, const float *x, const float *decoded, double tolerance);
int isopress_keep_f64(int64_t n, const double *x, const double *decoded, double tolerance);

enum { SQUARE_BITS = 52, HALF_BITS = 26 };

/* The largest error over the finite values of x, their number, and if it is not 0 the sum of squares of errors / largest
   in 2^-52, each cut off, as two sums: of what is above 26 bits, and of the rest. */
typedef struct {
    double largest;
    int64_t finite;
    uint64_t high, low;
} Errors;

Errors isopress_measure_f32(int64_t n, const float *x, const float *decoded);
Errors isopress_measure_f64(int64_t n, const double *x, const double *decoded);

#endif
