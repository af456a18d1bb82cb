/* Proxies, and the fit of their coefficients; reference_fit.py says why. Included after references.h and vectors.h.

   Sums are of integers below 2^53, exact in binary64 and the same in any order; all else are single operations of binary64
   in numpy's order. */

enum { SAMPLED_ROWS = 96, STRIP = 16, AT_ONCE = 1 << 14, LEAST_DETAILS = 32, COEFFICIENT_ONE = 64, COEFFICIENT_TOP = 127, CHEAP = 10 };
#define NOISE 20.0
#define PRODUCT_ONE 268435456.0 /* 2^28 */
#define HALF_OCTAVE 0.7071067811865476

INLINE vd vd_at(const double *x) {
    vd v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE double sum_of(vd x) {
    double sum = 0;
    for (int k = 0; k < HALF; k++) sum += x[k];
    return sum;
}

INLINE double round_even_d(double x) { return (x + ROUND_D) - ROUND_D; }

INLINE double power_of_two(int e) {
    int64_t bits = (int64_t)(1023 + e) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

enum { COMBINED = 4 * HALF }; /* points of a proxy that are computed at once, their sums in registers */

INLINE void combine_some(const Combination *c, const int32_t *const *from, double factor, int32_t *out) {
    vd sum[4] = {{0}};
    for (int t = 0; t < c->terms; t++)
        for (int k = 0; k < 4; k++) {
            vih x;
            memcpy(&x, from[t] + k * HALF, sizeof x);
            sum[k] += (double)c->weight[t] * __builtin_convertvector(x, vd);
        }
    for (int k = 0; k < 4; k++) {
        vd x = clip_d(sum[k] * factor, -LIMIT, LIMIT);
        vih whole = __builtin_convertvector((x + ROUND_D) - ROUND_D, vih);
        memcpy(out + k * HALF, &whole, sizeof whole);
    }
}

static __attribute__((noinline)) void LEVEL(combine)(const Combination *c) {
    double factor = power_of_two(c->exponent - 2);
    const int32_t *from[TERMS_MAX];
    int64_t start = 0;
    for (; start + COMBINED <= c->points; start += COMBINED) {
        for (int t = 0; t < c->terms; t++) from[t] = c->from[t] + start;
        combine_some(c, from, factor, c->out + start);
    }
    if (start == c->points) return;
    int32_t last[TERMS_MAX][COMBINED] = {0}, out[COMBINED];
    size_t size = (size_t)(c->points - start) * sizeof *out;
    for (int t = 0; t < c->terms; t++) from[t] = memcpy(last[t], c->from[t] + start, size);
    combine_some(c, from, factor, out);
    memcpy(c->out + start, out, size);
}

/* --- details of a level: what cubic interpolation along rows and along columns misses of some of its rows ----------- */

typedef struct {
    double *grid;                         /* the rows that are looked at */
    double *detail[PROXIES_MAX + 1];  /* of the proxies, then of the field; followed by zeros up to whole vectors */
    int64_t count, padded;
} Details;

INLINE double missed(const double *at, int64_t step) {
    return at[0] - (9 * (at[-step] + at[step]) - (at[-3 * step] + at[3 * step])) / 16;
}

/* Fills `out` with details of what stands in the grid; returns how many there are. */
static int64_t details(const double *grid, int64_t rows, int64_t columns, double *out) {
    int64_t n = 0;
    for (int64_t row = 3; row + 3 < rows; row += 2)
        for (int64_t c = 0; c < columns; c++) out[n++] = missed(grid + row * columns + c, columns);
    for (int64_t row = 0; row < rows && columns > 6; row++)
        for (int64_t c = 3; c + 3 < columns; c += 2) out[n++] = missed(grid + row * columns + c, 1);
    return n;
}

/* Looks at one level of all proxies and of the field. */
static void look_at(const Fit *f, int level, Details *d) {
    int64_t step = (int64_t)1 << level, height = ((f->height - 1) >> level) + 1, columns = ((f->width - 1) >> level) + 1;
    int64_t rows = height < SAMPLED_ROWS ? height : SAMPLED_ROWS;
    for (int k = 0; k <= f->proxies; k++) {
        for (int64_t r = 0; r < rows; r++) {
            int64_t row = height <= SAMPLED_ROWS ? r : r / STRIP * (height - STRIP) / (SAMPLED_ROWS / STRIP - 1) + r % STRIP;
            double *to = d->grid + r * columns;
            int64_t start = row * step * f->width;
            if (k < f->proxies)
                for (int64_t c = 0; c < columns; c++) to[c] = f->proxy[k][start + c * step];
            else
                for (int64_t c = 0; c < columns; c++) to[c] = f->y[start + c * step] * UNITS_PER_STEP;
        }
        d->count = details(d->grid, rows, columns, d->detail[k]);
        d->padded = (d->count + HALF - 1) / HALF * HALF;
        for (int64_t i = d->count; i < d->padded; i++) d->detail[k][i] = 0;
    }
}

/* --- sizes ------------------------------------------------------------------------------------------------------------ */

/* Sum of |detail| in sixteenths. */
static int64_t size_of(const Details *d, int k) {
    int64_t total = 0;
    for (int64_t start = 0; start < d->padded; start += AT_ONCE) {
        int64_t end = start + AT_ONCE < d->padded ? start + AT_ONCE : d->padded;
        vd sum = {0};
        for (int64_t i = start; i < end; i += HALF) sum += (abs_d(vd_at(d->detail[k] + i)) * 16 + ROUND_D) - ROUND_D;
        total += (int64_t)sum_of(sum);
    }
    return total;
}

/* The power of two between two sizes, 0 if they are less than two apart, or noise. */
static int exponent_of(int64_t own, int64_t other, int64_t count) {
    if (own < 256 * count || other < 256 * count) return 0;
    double ratio = (double)own / (double)other;
    int e = 0;
    for (; ratio >= 2 * HALF_OCTAVE; ratio /= 2) e++;
    for (; ratio < HALF_OCTAVE; ratio *= 2) e--;
    if (e > -2 && e < 2) return 0;
    return e > EXPONENT_MAX ? EXPONENT_MAX : e < -EXPONENT_MAX ? -EXPONENT_MAX : e;
}

/* Finds exponents at the finest level. */
static void find_exponents(const Fit *f, const Details *d) {
    int64_t own = d->count ? size_of(d, f->proxies) : 0;
    for (int k = 0; k < f->proxies; k++) f->exponent[k] = (int8_t)(d->count ? exponent_of(own, size_of(d, k), d->count) : 0);
}

static void scale_details(const Fit *f, const Details *d) {
    for (int k = 0; k < f->proxies; k++) {
        double factor = power_of_two(f->exponent[k]);
        for (int64_t i = 0; i < d->count && factor != 1; i++) d->detail[k][i] *= factor;
    }
}

/* --- least squares ---------------------------------------------------------------------------------------------------- */

/* Adds up products of proxies with each other and with the field, of a constant number of proxies. */
INLINE void add_products(const Details *d, int proxies, int64_t start, int64_t end, vd (*sum)[PROXIES_MAX + 1]) {
    for (int64_t i = start; i < end; i += HALF) {
        vd x[PROXIES_MAX + 1];
        for (int k = 0; k <= proxies; k++) x[k] = vd_at(d->detail[k] + i);
        vd size = x[proxies] * x[proxies] + NOISE * NOISE;
        for (int k = 0; k < proxies; k++) size += x[k] * x[k];
        vd weight = 1.0 / size;
        for (int k = 0; k < proxies; k++) {
            vd weighted = x[k] * weight;
            for (int l = k; l <= proxies; l++) sum[k][l] += (weighted * x[l] * PRODUCT_ONE + ROUND_D) - ROUND_D;
        }
    }
}

static void products(const Details *d, int proxies, double (*gram)[PROXIES_MAX + 1]) {
    int64_t total[PROXIES_MAX][PROXIES_MAX + 1] = {0};
    for (int64_t start = 0; start < d->padded; start += AT_ONCE) {
        int64_t end = start + AT_ONCE < d->padded ? start + AT_ONCE : d->padded;
        vd sum[PROXIES_MAX][PROXIES_MAX + 1];
        memset(sum, 0, sizeof sum);
        if (proxies == 1) add_products(d, 1, start, end, sum);
        else if (proxies == 2) add_products(d, 2, start, end, sum);
        else if (proxies == 3) add_products(d, 3, start, end, sum);
        else add_products(d, 4, start, end, sum);
        for (int k = 0; k < proxies; k++)
            for (int l = k; l <= proxies; l++) total[k][l] += (int64_t)sum_of(sum[k][l]);
    }
    for (int k = 0; k < proxies; k++)
        for (int l = k; l <= proxies; l++) {
            gram[k][l] = (double)total[k][l] / PRODUCT_ONE;
            if (l < proxies) gram[l][k] = gram[k][l];
        }
}

/* Solves (n, n) equations, whose right side is the last column, by elimination. */
static void solve(int n, double (*a)[PROXIES_MAX + 1], double *x) {
    for (int p = 0; p < n; p++)
        for (int r = p + 1; r < n; r++) {
            double factor = a[r][p] / a[p][p];
            for (int c = p; c <= n; c++) a[r][c] -= factor * a[p][c];
        }
    for (int r = n - 1; r >= 0; r--) {
        x[r] = a[r][n];
        for (int c = r + 1; c < n; c++) x[r] -= a[r][c] * x[c];
        x[r] /= a[r][r];
    }
}

/* About the bits that all details of the field take less the guess, in 2^-20 bit. */
static int64_t spread(const Fit *f, const Details *d, const int32_t *coefficient) {
    int64_t total = 0;
    for (int64_t i = 0; i < d->padded; i += HALF) {
        vd left = vd_at(d->detail[f->proxies] + i);
        for (int k = 0; k < f->proxies; k++) left -= (coefficient[k] / (double)COEFFICIENT_ONE) * vd_at(d->detail[k] + i);
        left = abs_d(left) + NOISE;
        vl bits;
        memcpy(&bits, &left, sizeof bits);
        for (int k = 0; k < HALF; k++) total += (((bits[k] >> 52) - 1023) << 20) + f->logs[(bits[k] >> 42) & (LOGS - 1)];
    }
    return total;
}

/* Lets `coefficient` be what makes the details of the field small, or as they are if little is gained. */
static void least_squares(const Fit *f, const Details *d, int level, int32_t *coefficient) {
    if (d->count < LEAST_DETAILS) return;
    double gram[PROXIES_MAX][PROXIES_MAX + 1], x[PROXIES_MAX];
    products(d, f->proxies, gram);
    for (int k = 0; k < f->proxies; k++) gram[k][k] += 1e-3 * (double)d->count;
    solve(f->proxies, gram, x);
    int32_t fitted[PROXIES_MAX];
    for (int k = 0; k < f->proxies; k++) {
        double c = x[k] * COEFFICIENT_ONE;
        c = c < COEFFICIENT_TOP ? c : COEFFICIENT_TOP;
        fitted[k] = (int32_t)round_even_d(c > -COEFFICIENT_TOP ? c : -COEFFICIENT_TOP);
    }
    double saved = (double)(spread(f, d, coefficient) - spread(f, d, fitted)), count = (double)d->count;
    int64_t points = (f->height * f->width * 3 / 4) >> 2 * level;
    if ((double)points * saved > CHEAP * f->proxies * 1048576.0 * count) memcpy(coefficient, fitted, sizeof fitted);
}

/* Fits exponents and coefficients; returns 0, or 1 without memory. */
static __attribute__((noinline)) int LEVEL(fit)(const Fit *f) {
    Details d = {0};
    int64_t rows = f->height < SAMPLED_ROWS ? f->height : SAMPLED_ROWS, room = rows * f->width + HALF; /* details: fewer than points */
    double *memory = malloc((size_t)(room * (f->proxies + 2)) * sizeof *memory);
    if (!memory) return 1;
    d.grid = memory + room * (f->proxies + 1);
    int32_t coefficient[PROXIES_MAX];
    memcpy(coefficient, f->prior, sizeof coefficient);
    for (int k = 0; k <= f->proxies; k++) d.detail[k] = memory + room * k;
    for (int level = 0; level < FIT_LEVELS; level++) {
        look_at(f, level, &d);
        if (!level) find_exponents(f, &d);
        scale_details(f, &d);
        least_squares(f, &d, level, coefficient);
        for (int k = 0; k < f->proxies; k++) f->coefficient[level * f->proxies + k] = (int8_t)coefficient[k];
    }
    free(memory);
    return 0;
}
