/* Final values: made, and held against the original ones: what is promised of them, and how far they are off. */
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

/* Values of n integers in 1/64 step: offset + v / 64 * step, each operation rounded; `out` may be where v is. */
void isopress_restore_f32(int64_t n, const int32_t *v, double step, double offset, float *out);
void isopress_restore_f64(int64_t n, const int32_t *v, double step, double offset, double *out);

#endif
