/* Prediction of one phase: gather, plane fit, features, integer network, scale index; written once over
   GCC's vector types and instantiated per instruction set. Included after vectors.h, network.h, rows.h and look.h.

   Nothing here depends on the machine: sums of integers are exact (in binary64 below 2^53, in int32 below 2^24), and
   whatever is rounded is one product or quotient, rounded once, as numpy does it. Compile with -ffp-contract=off. */

/* One tile of points, and all that is known of them. */
typedef struct {
    vi values[OFFSETS_MAX + 1][VECTORS]; /* the last, at the points themselves, is known of proxies alone */
    vi proxy[PROXIES_MAX][OFFSETS_MAX + 1][VECTORS];
    vi errors[NEAR_MAX + WIDE_MAX][VECTORS];
    vf residual[OFFSETS_MAX][VECTORS]; /* of the plane fit, or of a proxy's */
    vi base[VECTORS];                  /* cubic prediction */
    vf detail[VECTORS];                /* what it misses of a proxy, times cubic_divisor */
    vi feature[INPUTS_MAX][VECTORS];
    vi own[OFFSETS_MAX / 2][VECTORS], square[VECTORS]; /* residuals as features, in pairs, and the sum of their squares */
    vi rough[VECTORS], rough_proxy[VECTORS], near_index[VECTORS], wide_index[VECTORS], slope_index[VECTORS];
    vi output[OUTPUTS][VECTORS];
    const int32_t *row[SEEN_MAX], *proxy_row[PROXIES_MAX][OFFSETS_MAX + 1]; /* where what is seen from a row's first point lies */
} Work;

INLINE void put_half(vi *to, int j, vih x) { memcpy((vih *)to + j, &x, sizeof x); }

INLINE vd half(const vi *x, int j) {
    vih h;
    memcpy(&h, (const vih *)x + j, sizeof h);
    return __builtin_convertvector(h, vd);
}

/* Fills residuals from the weighted plane fit, by its three sums, and the indexes of roughness and slope. */
INLINE void plane_fit_wide(const Geometry *g, Work *w, vi (*values)[VECTORS], vi *rough, vi *slope_index) {
    int n = g->n;
    for (int j = 0; j < WIDES; j++) {
        vd s0 = {0}, sy = {0}, sx = {0};
        for (int i = 0; i < n; i++) {
            vd v = half(values[i], j);
            s0 += g->weight[i] * v;
            sy += g->weight_y[i] * v;
            sx += g->weight_x[i] * v;
        }
        s0 *= g->mean, sy *= g->slope_y, sx *= g->slope_x; /* denominator times mean and slopes */
        vd size = {0};
        for (int i = 0; i < n; i++) {
            vd e = g->denominator * half(values[i], j) - (s0 + g->y[i] * sy + g->x[i] * sx);
            size += g->weight[i] * abs_d(e);
            ((vfh *)w->residual[i])[j] = __builtin_convertvector(e, vfh);
        }
        put_half(rough, j, log_index(size + g->floor));
        put_half(slope_index, j, log_index((abs_d(sy) + abs_d(sx)) / g->denominator + 1.0));
    }
}

/* Fills the cubic prediction, and what it misses. */
INLINE void cubic_wide(const Geometry *g, Work *w, vi (*values)[VECTORS]) {
    for (int j = 0; j < WIDES; j++) {
        vd s = {0};
        for (int i = 0; i < g->n; i++)
            if (g->cubic[i]) s += g->cubic[i] * half(values[i], j);
        put_half(w->base, j, __builtin_convertvector(floor_d((s + g->cubic_divisor / 2) / g->cubic_divisor), vih));
        ((vfh *)w->detail)[j] = __builtin_convertvector(g->cubic_divisor * half(values[g->n], j) - s, vfh);
    }
}

/* Both where neighbours differ by less than g->narrow: from the first of them, in 32 bits, pair by pair of a ring. */
INLINE void fit_narrow(const Geometry *g, Work *w, vi (*values)[VECTORS], vi *rough, vi *slope_index) {
    for (int j = 0; j < VECTORS; j++) {
        vu first = (vu)values[0][j], s0 = {0}, sy = {0}, sx = {0}, cubic = {0};
        for (int r = 0, p = 0; r < g->rings; r++) {
            vu sum = {0};
            for (; p < g->ring[r].end; p++) {
                vu a = (vu)values[g->pair[p][0]][j] - first, b = (vu)values[g->pair[p][1]][j] - first, difference = a - b;
                sum += a + b, sy += difference * (uint32_t)g->whole[p][0], sx += difference * (uint32_t)g->whole[p][1];
            }
            s0 += sum * (uint32_t)g->ring[r].weight, cubic += sum * (uint32_t)g->ring[r].cubic;
        }
        s0 *= (uint32_t)g->whole_mean, sy *= (uint32_t)g->whole_slope_y, sx *= (uint32_t)g->whole_slope_x;
        vu low = {0}, high = {0}; /* of the roughness: what is below 2^12, and the rest */
        for (int r = 0, p = 0; r < g->rings; r++) {
            vu low_sum = {0}, high_sum = {0};
            for (; p < g->ring[r].end; p++) {
                int at = g->pair[p][0], opposite = g->pair[p][1];
                vu a = (vu)values[at][j] - first, b = (vu)values[opposite][j] - first;
                vu slope = sy * (uint32_t)g->whole[p][2] + sx * (uint32_t)g->whole[p][3];
                vi e = (vi)(a * (uint32_t)g->whole_denominator - s0 - slope), f = (vi)(b * (uint32_t)g->whole_denominator - s0 + slope);
                vu size = (vu)abs_i(e) + (vu)abs_i(f);
                low_sum += size & 4095, high_sum += size >> 12;
                w->residual[at][j] = __builtin_convertvector(e, vf), w->residual[opposite][j] = __builtin_convertvector(f, vf);
            }
            low += low_sum * (uint32_t)g->ring[r].weight, high += high_sum * (uint32_t)g->ring[r].weight;
        }
        vi slopes = (vi)((vu)abs_i((vi)sy) + (vu)abs_i((vi)sx)), l = (vi)low, h = (vi)high;
        for (int k = 0; k < 2; k++) {
            put_half(&rough[j], k, log_index(half(&h, k) * 4096.0 + half(&l, k) + g->floor));
            put_half(&slope_index[j], k, log_index(half(&slopes, k) / g->denominator + 1.0));
        }
        w->base[j] = values[0][j] + ((vi)(cubic + (uint32_t)g->cubic_divisor / 2) >> g->cubic_shift);
        vu point = (vu)values[g->n][j] - first;
        w->detail[j] = __builtin_convertvector((vi)(point * (uint32_t)g->cubic_divisor - cubic), vf);
    }
}

/* Fills residuals, base, detail, and the indexes of roughness and slope; `count` of the values are known. */
INLINE void plane_fit(const Geometry *g, Work *w, vi (*values)[VECTORS], int count, vi *rough, vi *slope_index) {
    vi reach = {0};
    for (int i = 1; i < count; i++)
        for (int j = 0; j < VECTORS; j++) reach |= abs_i(values[i][j] - values[0][j]);
    if (any_least(reach, g->narrow)) {
        plane_fit_wide(g, w, values, rough, slope_index);
        cubic_wide(g, w, values);
    } else {
        fit_narrow(g, w, values, rough, slope_index);
    }
    for (int j = 0; j < VECTORS; j++) rough[j] = clip_i(rough[j] - g->first_index, 0, INDEXES - 1);
}

INLINE vf look_up(const float *table, vi index) {
    vf out;
    for (int k = 0; k < LANES; k++) out[k] = table[index[k]];
    return out;
}

/* Sums of |error| near and further off, as logarithmic indexes. */
INLINE void error_sums_wide(const Geometry *g, Work *w) {
    for (int j = 0; j < WIDES; j++) {
        vd near = {0}, wide = {0};
        for (int i = 0; i < g->near + g->wide; i++) {
            vd e = abs_d(__builtin_convertvector(((vih *)w->errors[i])[j], vd));
            if (i < g->near) near += e;
            else wide += e;
        }
        put_half(w->near_index, j, log_index(near + 4.0));
        put_half(w->wide_index, j, log_index(wide + 4.0));
    }
}

/* The same, in 32 bits where sums fit into them. */
INLINE void error_sums(const Geometry *g, Work *w) {
    vi all = {0};
    for (int j = 0; j < VECTORS; j++) {
        vu near = {0}, wide = {0};
        for (int i = 0; i < g->near; i++) {
            vi e = abs_i(w->errors[i][j]);
            all |= e, near += (vu)e;
        }
        for (int i = g->near; i < g->near + g->wide; i++) {
            vi e = abs_i(w->errors[i][j]);
            all |= e, wide += (vu)e;
        }
        w->near_index[j] = (vi)__builtin_convertvector((vi)(near + 4), vf) >> 20;
        w->wide_index[j] = (vi)__builtin_convertvector((vi)(wide + 4), vf) >> 20;
    }
    if (any_least(all, 1 << 27)) error_sums_wide(g, w); /* below, at most 8 of either kind: less than 2^30 */
}

INLINE void own_features(const Geometry *g, Work *w) {
    int n = g->n, near = g->near;
    plane_fit(g, w, w->values, n, w->rough, w->slope_index);
    error_sums(g, w);
    for (int j = 0; j < VECTORS; j++) {
        vf scale = look_up(g->residual, w->rough[j]), error = look_up(g->error, w->rough[j]);
        for (int i = 0; i < n; i++) w->feature[i][j] = ROUND_I(w->residual[i][j] * scale); /* clipped later; check.c: of 16 bits */
        for (int i = 0; i < near; i++)
            w->feature[n + i][j] = round_f(__builtin_convertvector(w->errors[i][j], vf) * error, -FEATURE_TOP, FEATURE_TOP);
        vi centre = w->rough[j] + LOG_CENTRE, *f = &w->feature[n + near][j];
        f[0] = clip_i(w->rough[j] - 64, -FEATURE_TOP, FEATURE_TOP);
        f[1 * VECTORS] = clip_i(w->near_index[j] - centre, -FEATURE_TOP, FEATURE_TOP);
        f[2 * VECTORS] = clip_i(w->wide_index[j] - centre, -FEATURE_TOP, FEATURE_TOP);
        f[3 * VECTORS] = clip_i(w->slope_index[j] - centre, -FEATURE_TOP, FEATURE_TOP);
    }
}

/* Rounds quotients to even and clips. */
INLINE vih ratio(vd numerator, vd denominator) {
    vd q = numerator / denominator;
    q = clip_d(q, -FEATURE_TOP, FEATURE_TOP);
    return __builtin_convertvector((q + ROUND_D) - ROUND_D, vih);
}

/* What all proxies are compared with. */
INLINE void pair_own(const Geometry *g, Work *w) {
    for (int j = 0; j < VECTORS; j++) {
        vi square = {0};
        for (int i = 0; i < g->n; i += 2) {
            vi f = PAIR_CLIPPED(w->feature[i][j], w->feature[i + 1][j]);
            w->own[i / 2][j] = f, square = ADD_PRODUCTS(square, f, f);
        }
        w->square[j] = square;
    }
}

/* Features of one proxy, whose value at the point is the last of its values. */
INLINE void proxy_features(const Geometry *g, Work *w, vi (*values)[VECTORS], vi (*feature)[VECTORS]) {
    int n = g->n;
    plane_fit(g, w, values, n + 1, w->rough_proxy, w->slope_index);
    float divisor = (float)g->cubic_divisor; /* a power of two: dividing by it rounds nothing */
    for (int j = 0; j < VECTORS; j++) {
        vf scale = look_up(g->residual, w->rough_proxy[j]);
        vi both = {0}, square_proxy = {0}, square = w->square[j];
        for (int i = 0; i < n; i += 2) { /* |sums| <= 28 * 127^2; check.c: residuals times `scale` have 16 bits */
            vi f = PAIR_CLIPPED(ROUND_I(w->residual[i][j] * scale), ROUND_I(w->residual[i + 1][j] * scale));
            both = ADD_PRODUCTS(both, w->own[i / 2][j], f), square_proxy = ADD_PRODUCTS(square_proxy, f, f);
        }
        vf error = look_up(g->error, w->rough_proxy[j]) / divisor;
        vi detail = round_f(w->detail[j] * error, -FEATURE_TOP, FEATURE_TOP);
        feature[0][j] = detail;
        for (int k = 0; k < 2; k++) {
            vih half[4] = {((vih *)&both)[k], ((vih *)&detail)[k], ((vih *)&square)[k], ((vih *)&square_proxy)[k]};
            vd b = __builtin_convertvector(half[0], vd), d = __builtin_convertvector(half[1], vd);
            vd s = __builtin_convertvector(half[2], vd), t = __builtin_convertvector(half[3], vd);
            put_half(&feature[1][j], k, ratio(b * d, t + RIDGE));
            put_half(&feature[2][j], k, ratio(2.0 * FEATURE_TOP * b, s + t + RIDGE));
        }
        feature[3][j] = clip_i(w->rough_proxy[j] - w->rough[j], -FEATURE_TOP, FEATURE_TOP);
    }
}

/* Turns outputs of the network into predictions and scale indexes of the first `count` points; values of points that are
   not all points go to their places. */
INLINE void finish(const Geometry *g, const Work *w, int count, const vi *base, const int32_t *places, int32_t *value,
                   int16_t *scale, int8_t *tail) {
    const int32_t *mean = (const int32_t *)w->output[0], *rough = (const int32_t *)w->rough;
    const int32_t *s = (const int32_t *)w->output[1], *t = (const int32_t *)w->output[2];
    double product[TILE];
    int32_t whole[TILE];
    for (int k = 0; k < TILE; k++) product[k] = mean[k] * g->mean_of[rough[k]];
    for (int j = 0; j < WIDES; j++) {
        vd p;
        memcpy(&p, product + j * HALF, sizeof p);
        p = half(base, j) + ((p + ROUND_D) - ROUND_D);
        vih i = __builtin_convertvector(clip_d(p, -LIMIT, LIMIT), vih);
        memcpy(whole + j * HALF, &i, sizeof i);
    }
    if (places)
        for (int k = 0; k < count; k++) value[places[k]] = whole[k];
    else memcpy(value, whole, count * sizeof *value);
    for (int k = 0; k < count; k++) scale[k] = (int16_t)(rough[k] + s[k]), tail[k] = (int8_t)t[k];
}

/* --- a phase ------------------------------------------------------------------------------------------------------ */

/* Finds what is seen from the points of a row. */
INLINE void find_rows(const Phase *p, int64_t row, Work *w) {
    const Geometry *g = p->geometry;
    int n = g->n, others = g->near + g->wide;
    for (int i = 0; i < n + others; i++) w->row[i] = row_of(p, i < n ? VALUES : ERRORS, &g->seen[i], row);
    for (int k = 0; k < p->proxies; k++)
        for (int i = 0; i <= n; i++) w->proxy_row[k][i] = row_of(p, FIRST_PROXY + k, &g->seen[i < n ? i : n + others], row);
}

/* Copies `count` integers to the points of a tile from `filled` on. */
INLINE void take(const int32_t *from, int count, int filled, vi *to) {
    if (count == TILE) memcpy(to, from, TILE * sizeof *from); /* of a constant size: no call */
    else memcpy((int32_t *)to + filled, from, count * sizeof *from);
}

/* Copies what lies around `count` points from `column` of a row on to the points of a tile from `filled` on. */
INLINE void gather(const Phase *p, int64_t column, int count, Work *w, int filled) {
    const Geometry *g = p->geometry;
    for (int i = 0; i < g->n; i++) take(w->row[i] + column, count, filled, w->values[i]);
    for (int i = 0; i < g->near + g->wide; i++) take(w->row[g->n + i] + column, count, filled, w->errors[i]);
    for (int k = 0; k < p->proxies; k++)
        for (int i = 0; i <= g->n; i++) take(w->proxy_row[k][i] + column, count, filled, w->proxy[k][i]);
}

/* The same for points in any columns of a row. */
INLINE void take_some(const int32_t *from, const int32_t *columns, int count, int filled, vi *to) {
    for (int k = 0; k < count; k++) ((int32_t *)to)[filled + k] = from[columns[k]];
}

INLINE void gather_some(const Phase *p, const int32_t *columns, int count, Work *w, int filled) {
    const Geometry *g = p->geometry;
    for (int i = 0; i < g->n; i++) take_some(w->row[i], columns, count, filled, w->values[i]);
    for (int i = 0; i < g->near + g->wide; i++) take_some(w->row[g->n + i], columns, count, filled, w->errors[i]);
    for (int k = 0; k < p->proxies; k++)
        for (int i = 0; i <= g->n; i++) take_some(w->proxy_row[k][i], columns, count, filled, w->proxy[k][i]);
}

/* Gathers what lies around points of a row that begins at point `start`. */
INLINE void gather_places(const Phase *p, const int32_t *places, int64_t start, int count, Work *w, int filled) {
    int32_t columns[TILE];
    int64_t first = places[0] - start;
    if (places[count - 1] - places[0] == count - 1) {
        gather(p, first, count, w, filled);
    } else {
        for (int k = 0; k < count; k++) columns[k] = (int32_t)(places[k] - start);
        gather_some(p, columns, count, w, filled);
    }
}

/* Predicts the points of a tile. */
INLINE void predict_tile(const Phase *p, Work *w, int count, int64_t done) {
    const Geometry *g = p->geometry;
    vi base[VECTORS];
    own_features(g, w);
    memcpy(base, w->base, sizeof base);
    int inputs = inputs_of(g, 0);
    if (p->proxies) pair_own(g, w);
    for (int k = 0; k < p->proxies; k++, inputs += PROXY_FEATURES) proxy_features(g, w, w->proxy[k], &w->feature[inputs]);
    run(p->network, (const vi(*)[VECTORS])w->feature, w->output);
    const int32_t *places = p->wanted ? p->wanted + done : NULL;
    finish(g, w, count, base, places, p->value + (places ? 0 : done), p->scale + done, p->tail + done);
}

/* Lists which points of a row are not quiet, from place `count` of p->wanted on; returns how many are listed then. */
INLINE int64_t list_wanted(const Phase *p, int64_t field, int64_t start, int64_t count) {
    int limit = p->limit[field / p->fields_of_limit];
    for (int64_t i = start; i < start + p->columns; i++) p->wanted[count] = (int32_t)i, count += p->activity[i] >= limit;
    return count;
}

static __attribute__((noinline)) int64_t LEVEL(predict)(const Phase *p) {
    Work w;
    int filled = 0;
    int64_t done = 0, next = 0, listed = 0, start = 0; /* `next` is the wanted point to come */
    memset(&w, 0, sizeof w);
    for (int64_t field = 0; field < p->fields; field++) {
        int64_t loaded = -PAD; /* rows before this one are held, as far as they are needed */
        for (int64_t row = 0; row < p->rows; row++, start += p->columns) {
            for (loaded = loaded < row - PAD ? row - PAD : loaded; loaded <= row + PAD; loaded++) load_row(p, field, loaded, p->proxies);
            if (p->wanted) look_row(p, row, start), listed = list_wanted(p, field, start, listed);
            find_rows(p, row, &w);
            for (int64_t at = 0, end = p->wanted ? listed - next : p->columns, n; at < end; at += n) {
                n = end - at < TILE - filled ? end - at : TILE - filled;
                if (p->wanted) gather_places(p, p->wanted + next + at, start, (int)n, &w, filled);
                else gather(p, at, (int)n, &w, filled);
                filled += (int)n;
                if (filled < TILE) continue;
                predict_tile(p, &w, TILE, done);
                filled = 0, done += TILE;
            }
            next = listed;
        }
    }
    if (filled) predict_tile(p, &w, filled, done); /* the rest of the tile repeats old values */
    return done + filled;
}
