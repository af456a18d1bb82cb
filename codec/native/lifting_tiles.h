/* Lifting steps. Included after vectors.h. */

INLINE double lifted(const LiftJob *p, double value, double a, double b) {
    double d = (a + b) * p->factor;
    if (p->whole) {
        double x = d + 0.5, r = (x + ROUND_D) - ROUND_D; /* sums of coefficients are below 2^51 */
        d = r > x ? r - 1 : r;
    }
    return p->minus ? value - d : value + d;
}

/* n values that lie side by side, and so do their neighbours. */
INLINE void lift_row(const LiftJob *p, double *target, const double *a, const double *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) target[i] = lifted(p, target[i], a[i], b[i]);
}

/* One of the neighbours of all lines, by number. */
INLINE const double *beside(const LiftJob *p, int64_t i) {
    i -= p->before != NULL;
    return i < 0 ? p->before : i < p->near_count ? p->near + i * p->lines : p->after;
}

INLINE void lift_all(const LiftJob *p) {
    if (p->across) {
        for (int64_t i = 0; i < p->count; i++) lift_row(p, p->target + i * p->lines, beside(p, i), beside(p, i + 1), p->lines);
        return;
    }
    int64_t first = p->before != NULL, inner = p->near_count - 1 < 0 ? 0 : p->near_count - 1;
    for (int64_t line = 0; line < p->lines; line++) {
        double *target = p->target + line * p->count;
        const double *near = p->near + line * p->near_count;
        if (first) target[0] = lifted(p, target[0], p->before[line], p->near_count ? near[0] : p->after[line]);
        lift_row(p, target + first, near, near + 1, inner);
        if (p->after && p->near_count) target[first + inner] = lifted(p, target[first + inner], near[inner], p->after[line]);
    }
}

static __attribute__((noinline)) void LEVEL(lift)(const LiftJob *p) {
    LiftJob whole = *p, plain = *p; /* so that each loop is compiled for one of the two */
    whole.whole = 1, plain.whole = 0;
    if (p->whole) lift_all(&whole);
    else lift_all(&plain);
}
