/* Lifting steps. Included after vectors.h. */

/* What every value takes: `whole` and `minus` are known when this is compiled, so that loops have no branches. */
typedef struct {
    double factor;
    int whole, minus;
} Lifting;

INLINE double lifted(Lifting l, double value, double a, double b) {
    double d = (a + b) * l.factor;
    if (l.whole) {
        double x = d + 0.5, r = (x + ROUND_D) - ROUND_D; /* sums of coefficients are below 2^51 */
        d = r > x ? r - 1 : r;
    }
    return l.minus ? value - d : value + d;
}

/* n values that lie side by side, and so do their neighbours. */
INLINE void lift_row(Lifting l, double *restrict target, const double *restrict a, const double *restrict b, int64_t n) {
    int64_t i = 0;
    for (; i + HALF <= n; i += HALF) {
        vd x, y, z;
        memcpy(&x, target + i, sizeof x), memcpy(&y, a + i, sizeof y), memcpy(&z, b + i, sizeof z);
        vd d = (y + z) * l.factor;
        if (l.whole) d = floor_d(d + 0.5);
        x = l.minus ? x - d : x + d;
        memcpy(target + i, &x, sizeof x);
    }
    for (; i < n; i++) target[i] = lifted(l, target[i], a[i], b[i]);
}

/* One of the neighbours of all lines, by number. */
INLINE const double *beside(const LiftJob *p, int64_t i) {
    i -= p->before != NULL;
    return i < 0 ? p->before : i < p->near_count ? p->near + i * p->lines : p->after;
}

INLINE void lift_all(const LiftJob *p, Lifting l) {
    if (p->across) {
        for (int64_t i = 0; i < p->count; i++) lift_row(l, p->target + i * p->lines, beside(p, i), beside(p, i + 1), p->lines);
        return;
    }
    int64_t first = p->before != NULL, inner = p->near_count - 1 < 0 ? 0 : p->near_count - 1;
    for (int64_t line = 0; line < p->lines; line++) {
        double *target = p->target + line * p->count;
        const double *near = p->near + line * p->near_count;
        if (first) target[0] = lifted(l, target[0], p->before[line], p->near_count ? near[0] : p->after[line]);
        lift_row(l, target + first, near, near + 1, inner);
        if (p->after && p->near_count) target[first + inner] = lifted(l, target[first + inner], near[inner], p->after[line]);
    }
}

static __attribute__((noinline)) void LEVEL(lift)(const LiftJob *p) {
    if (p->whole && p->minus) lift_all(p, (Lifting){p->factor, 1, 1});
    else if (p->whole) lift_all(p, (Lifting){p->factor, 1, 0});
    else if (p->minus) lift_all(p, (Lifting){p->factor, 0, 1});
    else lift_all(p, (Lifting){p->factor, 0, 0});
}

#define HALF_ROOT (1.4142135623730951 / 2)

/* Halves a row: 1 2 1 and every second one. Magnitudes change by the square root of 2, as those of low bands do. */
INLINE int64_t thinned(const double *restrict from, double *restrict to, int64_t n, int circle) {
    int64_t half = (n + 1) / 2, closes = circle && n % 2 == 0;
    for (int64_t i = 0; i < half; i++) {
        double before = from[i ? 2 * i - 1 : closes ? n - 1 : 0], after = from[2 * i + 1 < n ? 2 * i + 1 : n - 1];
        to[i] = ((before + after) + (from[2 * i] + from[2 * i])) * (HALF_ROOT / 2);
    }
    return half;
}

/* Doubles a row to `size` values: means in between. */
INLINE void thickened(const double *restrict from, double *restrict to, int64_t size, int circle) {
    int64_t n = (size + 1) / 2, closes = circle && size % 2 == 0;
    for (int64_t i = 0; i < n; i++) {
        to[2 * i] = from[i] * HALF_ROOT;
        if (2 * i + 1 < size) to[2 * i + 1] = (from[i] + from[i + 1 < n ? i + 1 : closes ? 0 : n - 1]) * (HALF_ROOT / 2);
    }
}

/* Fits a row of n values to one of `width`, which `isopress_fits`: wavelet.py. Both have room for the longer one and are used
   up; returns the one that has the result. */
INLINE const double *fitted_row(double *row, double *other, int64_t n, int64_t width, int circle) {
    double *swap;
    while (n > width) n = thinned(row, other, n, circle), swap = row, row = other, other = swap;
    while (n < width) {
        int64_t size = width;
        while ((size + 1) / 2 > n) size = (size + 1) / 2;
        thickened(row, other, size, circle), n = size, swap = row, row = other, other = swap;
    }
    return row;
}
