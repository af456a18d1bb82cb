/* Lifting steps and levels of the wavelet. Included after vectors.h. */

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

static const double LIFT_BY[4] = {-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971}; /* odd, even, odd, even */
#define NORM_BY 1.149604398860241

INLINE double times_norm(double x, double factor, int whole) {
    double y = x * factor;
    if (!whole) return y;
    y += 0.5;
    double r = (y + ROUND_D) - ROUND_D; /* coefficients are below 2^51 */
    return r > y ? r - 1 : r;
}

/* One step along a row whose low and high cells lie apart. */
INLINE void lift_within(Lifting l, double *low, double *high, int64_t count, int step, int circle) {
    int64_t half = (count + 1) / 2, other = count / 2, even = count % 2 == 0;
    if (step % 2 == 0) {
        lift_row(l, high, low, low + 1, half - 1);
        if (even) high[half - 1] = lifted(l, high[half - 1], low[half - 1], low[circle ? 0 : half - 1]);
        return;
    }
    low[0] = lifted(l, low[0], high[circle && even ? other - 1 : 0], high[0]);
    lift_row(l, low + 1, high, high + 1, other - 1);
    if (!even) low[half - 1] = lifted(l, low[half - 1], high[other - 1], high[other - 1]);
}

/* A row as wide as another one; `work` has room for two. */
INLINE const double *fitted_to(const WaveletJob *p, const Row *row, int64_t count, double *work) {
    if (row->count == count) return row->at;
    memcpy(work, row->at, row->count * sizeof *work);
    return fitted_row(work, work + p->columns, row->count, count, p->circle);
}

/* One step of one of n rows that lie below one another; nothing where there is no such row. */
INLINE void lift_beside(const WaveletJob *p, Lifting l, const Row *row, int64_t n, int64_t r) {
    if (r < 0 || r >= n) return;
    const double *above = fitted_to(p, &row[r ? r - 1 : 1], row[r].count, p->line);
    const double *below = fitted_to(p, &row[r + 1 < n ? r + 1 : r - 1], row[r].count, p->line + 2 * p->columns);
    lift_row(l, row[r].at, above, below, row[r].count);
}

/* All four steps in one pass: each follows the one before it by a row. */
INLINE void lift_down(const WaveletJob *p, const Row *row, int64_t n) {
    if (n < 2) return;
    for (int64_t r = 1; r < n + 3; r += 2)
        for (int step = 0; step < 4; step++) lift_beside(p, (Lifting){LIFT_BY[step], 0, 0}, row, n, r - step);
}

INLINE void unlift_down(const WaveletJob *p, const Row *row, int64_t n, int whole) {
    if (n < 2) return;
    for (int64_t r = 0; r < n + 3; r += 2)
        for (int step = 3; step >= 0; step--) lift_beside(p, (Lifting){LIFT_BY[step], whole, 1}, row, n, r - 3 + step);
}

/* Low and high cells of a row of a zone. */
INLINE int64_t lows(const Zone *z) { return z->split ? (z->count + 1) / 2 : z->count; }
INLINE int64_t highs(const Zone *z) { return z->split ? z->count / 2 : 0; }

/* Points at the low cells of all rows of the field, or at the high ones, behind them, of one zone; returns how many rows. */
INLINE int64_t point_at(const WaveletJob *p, const Zone *only) {
    for (int i = 0; i < p->zones; i++) {
        const Zone *z = &p->zone[i];
        if (only && z != only) continue;
        for (int64_t r = z->start; r < z->stop; r++)
            p->row[only ? r - z->start : r] = (Row){p->field + r * p->columns + (only ? lows(z) : 0), only ? highs(z) : lows(z)};
    }
    return only ? only->stop - only->start : p->rows;
}

INLINE void analyse_row(const Zone *z, double *to, double *from) {
    int64_t low = lows(z), high = highs(z);
    memcpy(from, to, ((z->count - 1) * (int64_t)z->stride + 1) * sizeof *from);
    if (!high) {
        for (int64_t i = 0; i < z->count; i++) to[i] = from[i * z->stride];
        return;
    }
    for (int64_t i = 0; i < low; i++) to[i] = from[2 * i * z->stride];
    for (int64_t i = 0; i < high; i++) to[low + i] = from[(2 * i + 1) * z->stride];
    for (int step = 0; step < 4; step++) lift_within((Lifting){LIFT_BY[step], 0, 0}, to, to + low, z->count, step, z->circle);
    for (int64_t i = 0; i < low; i++) to[i] *= NORM_BY;
    for (int64_t i = 0; i < high; i++) to[low + i] *= 1 / NORM_BY;
}

/* Writes cells times a factor to a row of a band, each in all columns that it stands for. */
INLINE void put_cells(const double *from, int64_t count, double factor, int64_t stride, void *band, int64_t row, int64_t width, int single) {
    float *narrow = (float *)band + (single ? row * width : 0);
    double *wide = (double *)band + (single ? 0 : row * width);
    for (int64_t i = 0; i < count; i++) {
        double x = from[i] * factor;
        int64_t stop = (i + 1) * stride < width ? (i + 1) * stride : width;
        for (int64_t k = i * stride; k < stop; k++) {
            if (single) narrow[k] = (float)x;
            else wide[k] = x;
        }
    }
}

INLINE void analyse_as(const WaveletJob *p, int single) {
    int64_t half = (p->columns + 1) / 2, other = p->columns / 2;
    for (int i = 0; i < p->zones; i++)
        for (int64_t r = p->zone[i].start; r < p->zone[i].stop; r++)
            analyse_row(&p->zone[i], p->field + r * p->columns, p->line);
    lift_down(p, p->row, point_at(p, NULL));
    for (int i = 0; i < p->zones; i++)
        if (highs(&p->zone[i])) lift_down(p, p->row, point_at(p, &p->zone[i]));
    for (int i = 0; i < p->zones; i++) {
        const Zone *z = &p->zone[i];
        int64_t stride = z->split ? z->stride : z->stride / 2;
        for (int64_t r = z->start; r < z->stop; r++) {
            const double *from = p->field + r * p->columns;
            double factor = r % 2 ? 1 / NORM_BY : NORM_BY, low = p->rows > 1 ? factor : 1, high = z->stop - z->start > 1 ? factor : 1;
            if (r % 2) put_cells(from, lows(z), low, stride, p->detail[1], r / 2, half, single);
            else put_cells(from, lows(z), low, stride, p->low, r / 2, half, 0);
            if (highs(z)) put_cells(from + lows(z), highs(z), high, stride, p->detail[r % 2 ? 2 : 0], r / 2, other, single);
        }
    }
}

static __attribute__((noinline)) void LEVEL(analyse)(const WaveletJob *p) {
    if (p->single) analyse_as(p, 1);
    else analyse_as(p, 0);
}

/* Reads cells times a factor from a row of a band; factor 1: as they are. */
INLINE void take_cells(double *to, int64_t count, double factor, int64_t stride, const void *band, int64_t row, int64_t width, int single, int whole) {
    const float *narrow = (const float *)band + (single ? row * width : 0);
    const double *wide = (const double *)band + (single ? 0 : row * width);
    if (factor == 1) whole = 0;
    for (int64_t i = 0; i < count; i++) to[i] = times_norm(single ? (double)narrow[i * stride] : wide[i * stride], factor, whole);
}

INLINE void synthesise_row(const WaveletJob *p, const Zone *z, double *at, int whole) {
    int64_t low = lows(z), high = highs(z), first = 0;
    double *line = p->line;
    memcpy(line, at, z->count * sizeof *line);
    if (high) {
        for (int64_t i = 0; i < low; i++) line[i] = times_norm(line[i], 1 / NORM_BY, whole);
        for (int64_t i = low; i < z->count; i++) line[i] = times_norm(line[i], NORM_BY, whole);
        for (int step = 3; step >= 0; step--) lift_within((Lifting){LIFT_BY[step], whole, 1}, line, line + low, z->count, step, z->circle);
    }
    if (high && z->stride == 1) {
        for (int64_t i = 0; i < high; i++) at[2 * i] = line[i], at[2 * i + 1] = line[low + i];
        if (low > high) at[2 * high] = line[high];
        first = z->count;
    } else {
        for (int64_t i = 0; i < z->count; i++) {
            double x = !high ? line[i] : i % 2 ? line[low + i / 2] : line[i / 2];
            int64_t stop = (i + 1) * z->stride < p->columns ? (i + 1) * z->stride : p->columns;
            for (first = i * z->stride; first < stop; first++) at[first] = x;
        }
    }
    for (; first < p->columns; first++) at[first] = 0;
}

INLINE void synthesise_as(const WaveletJob *p, int single, int whole) {
    int64_t half = (p->columns + 1) / 2, other = p->columns / 2;
    for (int i = 0; i < p->zones; i++) {
        const Zone *z = &p->zone[i];
        int64_t stride = z->split ? z->stride : z->stride / 2;
        for (int64_t r = z->start; r < z->stop; r++) {
            double *to = p->field + r * p->columns;
            double factor = r % 2 ? NORM_BY : 1 / NORM_BY, low = p->rows > 1 ? factor : 1, high = z->stop - z->start > 1 ? factor : 1;
            if (r % 2) take_cells(to, lows(z), low, stride, p->detail[1], r / 2, half, single, whole);
            else take_cells(to, lows(z), low, stride, p->low, r / 2, half, 0, whole);
            if (highs(z)) take_cells(to + lows(z), highs(z), high, stride, p->detail[r % 2 ? 2 : 0], r / 2, other, single, whole);
        }
    }
    unlift_down(p, p->row, point_at(p, NULL), whole);
    for (int i = 0; i < p->zones; i++)
        if (highs(&p->zone[i])) unlift_down(p, p->row, point_at(p, &p->zone[i]), whole);
    for (int i = 0; i < p->zones; i++)
        for (int64_t r = p->zone[i].start; r < p->zone[i].stop; r++) synthesise_row(p, &p->zone[i], p->field + r * p->columns, whole);
}

static __attribute__((noinline)) void LEVEL(synthesise)(const WaveletJob *p) {
    if (p->single && p->whole) synthesise_as(p, 1, 1);
    else if (p->whole) synthesise_as(p, 0, 1);
    else if (p->single) synthesise_as(p, 1, 0);
    else synthesise_as(p, 0, 0);
}
