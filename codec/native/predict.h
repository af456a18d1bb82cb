/* Prediction of one phase: gather, plane fit, features, integer network, scale index; written once over GCC's vector
   types and instantiated per instruction set. Included after vectors.h and network.h.

   Nothing here depends on the machine: sums of integers are exact (in binary64 below 2^53, in int32 below 2^24), and
   whatever is rounded is one product or quotient, rounded once, as numpy does it. Compile with -ffp-contract=off. */

/* One tile of points, and pieces of rows that it is made of. */
typedef struct {
    int32_t start, count;
    int64_t field, row, column;
} Piece;

typedef struct {
    vd values[OFFSETS_MAX + 1][WIDES];
    vf residual[OFFSETS_MAX + 1][VECTORS]; /* of the plane fit, or of a proxy's */
    vi own[OFFSETS_MAX][VECTORS];          /* features of the field's own neighbours */
    vi feature[INPUTS_MAX][VECTORS];
    vi errors[NEAR_MAX + WIDE_MAX][VECTORS];
    vd base[WIDES];
    vi rough[VECTORS], rough_proxy[VECTORS], near_index[VECTORS], wide_index[VECTORS], slope_index[VECTORS];
    vi output[OUTPUTS + 1][VECTORS];
} Work;

INLINE void put_half(vi *to, int j, vih x) { memcpy((vih *)to + j, &x, sizeof x); }

/* Copies `size` bytes of each point's neighbour `at` to `out`. */
INLINE void gather(const Phase *p, const Piece *pieces, int count, Neighbour at, const void *plane, int size, char *out) {
    const Plane *shape = &p->planes[at.plane];
    for (int i = 0; i < count; i++) {
        const Piece *c = &pieces[i];
        int64_t start = (c->field * shape->rows + c->row + at.row) * shape->columns + c->column + at.column;
        const char *from = (const char *)plane + start * size;
        if (c->count == TILE) memcpy(out, from, TILE * size); /* of a constant size: no call */
        else memcpy(out + c->start * size, from, c->count * size);
    }
}

/* Residuals from the weighted plane fit by its three sums; returns nothing but fills residual, and the roughness and
   slope indexes where asked for. */
INLINE void plane_fit(const Geometry *g, Work *w, vi *rough, vi *slope_index) {
    int n = g->n;
    for (int j = 0; j < WIDES; j++) {
        vd s0 = {0}, sy = {0}, sx = {0};
        for (int i = 0; i < n; i++) {
            vd v = w->values[i][j];
            s0 += g->weight[i] * v;
            sy += g->weight_y[i] * v;
            sx += g->weight_x[i] * v;
        }
        s0 *= g->mean, sy *= g->slope_y, sx *= g->slope_x; /* denominator times mean and slopes */
        vd size = {0};
        for (int i = 0; i < n; i++) {
            vd e = g->denominator * w->values[i][j] - (s0 + g->y[i] * sy + g->x[i] * sx);
            size += g->weight[i] * abs_d(e);
            ((vfh *)w->residual[i])[j] = __builtin_convertvector(e, vfh);
        }
        put_half(rough, j, log_index(size + g->floor) - g->first_index);
        if (slope_index) put_half(slope_index, j, log_index((abs_d(sy) + abs_d(sx)) / g->denominator + 1.0));
    }
    for (int j = 0; j < VECTORS; j++) rough[j] = clip_i(rough[j], 0, INDEXES - 1);
}

INLINE void cubic(const Geometry *g, Work *w) {
    for (int j = 0; j < WIDES; j++) {
        vd s = {0};
        for (int i = 0; i < g->n; i++)
            if (g->cubic[i]) s += g->cubic[i] * w->values[i][j];
        w->base[j] = s;
    }
}

INLINE vf look_up(const float *table, vi index) {
    vf out;
    for (int k = 0; k < LANES; k++) out[k] = table[index[k]];
    return out;
}

/* Sums of |error| near and further off, as logarithmic indexes. */
INLINE void error_sums(const Geometry *g, Work *w) {
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

INLINE void own_features(const Geometry *g, Work *w) {
    int n = g->n, near = g->near;
    plane_fit(g, w, w->rough, w->slope_index);
    cubic(g, w);
    error_sums(g, w);
    for (int j = 0; j < VECTORS; j++) {
        vf scale = look_up(g->residual, w->rough[j]), error = look_up(g->error, w->rough[j]);
        for (int i = 0; i < n; i++) w->feature[i][j] = w->own[i][j] = round_f(w->residual[i][j] * scale, -FEATURE_TOP, FEATURE_TOP);
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

/* Features of one proxy, whose value at the point is the last of its values. */
INLINE void proxy_features(const Geometry *g, Work *w, vi (*feature)[VECTORS]) {
    int n = g->n;
    plane_fit(g, w, w->rough_proxy, NULL);
    for (int j = 0; j < WIDES; j++) {
        vd detail = g->cubic_divisor * w->values[n][j];
        for (int i = 0; i < n; i++)
            if (g->cubic[i]) detail -= g->cubic[i] * w->values[i][j];
        ((vfh *)w->residual[n])[j] = __builtin_convertvector(detail, vfh);
    }
    float divisor = (float)g->cubic_divisor; /* a power of two: dividing by it rounds nothing */
    for (int j = 0; j < VECTORS; j++) {
        vf scale = look_up(g->residual, w->rough_proxy[j]);
        vi both = {0}, square = {0}, square_proxy = {0};
        for (int i = 0; i < n; i++) { /* |sums| <= 28 * 127^2 */
            vi f = round_f(w->residual[i][j] * scale, -FEATURE_TOP, FEATURE_TOP), own = w->own[i][j];
            both += own * f, square += own * own, square_proxy += f * f;
        }
        vf error = look_up(g->error, w->rough_proxy[j]) / divisor;
        vi detail = round_f(w->residual[n][j] * error, -FEATURE_TOP, FEATURE_TOP);
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

/* Turns outputs of the network into predictions and scale indexes. */
INLINE void finish(const Geometry *g, const Work *w, double *value, int16_t *scale, int8_t *tail) {
    const int32_t *mean = (const int32_t *)w->output[0], *rough = (const int32_t *)w->rough;
    double product[TILE];
    for (int k = 0; k < TILE; k++) product[k] = mean[k] * g->mean_of[rough[k]];
    for (int j = 0; j < WIDES; j++) {
        vd p, base = floor_d((w->base[j] + g->cubic_divisor / 2) / g->cubic_divisor);
        memcpy(&p, product + j * HALF, sizeof p);
        p = base + ((p + ROUND_D) - ROUND_D);
        p = clip_d(p, -LIMIT, LIMIT);
        memcpy(value + j * HALF, &p, sizeof p);
    }
    const int32_t *s = (const int32_t *)w->output[1], *t = (const int32_t *)w->output[2];
    for (int k = 0; k < TILE; k++) scale[k] = (int16_t)(rough[k] + s[k]), tail[k] = (int8_t)t[k];
}

/* Cuts the `count` points from `first` on, in order of (field, row, column), into pieces of rows. */
static int cut(const Phase *p, int64_t first, int count, Piece *pieces) {
    int made = 0, done = 0;
    int64_t column = first % p->columns, row = first / p->columns % p->rows, field = first / p->columns / p->rows;
    while (done < count) {
        int64_t left = p->columns - column;
        int n = left < count - done ? (int)left : count - done;
        pieces[made++] = (Piece){done, n, field, row, column};
        done += n, column = 0;
        if (++row == p->rows) row = 0, field++;
    }
    return made;
}

static void LEVEL(predict)(const Phase *p) {
    const Geometry *g = &p->geometry;
    int64_t total = p->fields * p->rows * p->columns;
    Packed packed;
    Work w;
    Piece pieces[TILE];
    pack(&packed, &p->network);
    memset(&w, 0, sizeof w);
    for (int64_t first = 0; first < total; first += TILE) {
        int count = total - first < TILE ? (int)(total - first) : TILE; /* the rest of the tile repeats old values */
        int made = cut(p, first, count, pieces);
        for (int i = 0; i < g->n; i++)
            gather(p, pieces, made, g->offsets[i], p->planes[g->offsets[i].plane].values, 8, (char *)w.values[i]);
        for (int i = 0; i < g->near; i++)
            gather(p, pieces, made, g->near_at[i], p->planes[g->near_at[i].plane].errors, 4, (char *)w.errors[i]);
        for (int i = 0; i < g->wide; i++)
            gather(p, pieces, made, g->wide_at[i], p->planes[g->wide_at[i].plane].errors, 4, (char *)w.errors[g->near + i]);
        own_features(g, &w);
        int inputs = g->n + g->near + 4;
        for (int k = 0; k < p->proxies; k++, inputs += PROXY_FEATURES) {
            for (int i = 0; i < g->n; i++)
                gather(p, pieces, made, g->offsets[i], p->planes[g->offsets[i].plane].proxies[k], 8, (char *)w.values[i]);
            gather(p, pieces, made, g->centre, p->planes[g->centre.plane].proxies[k], 8, (char *)w.values[g->n]);
            proxy_features(g, &w, &w.feature[inputs]);
        }
        run(&packed, w.feature, inputs, w.output);
        if (count == TILE) {
            finish(g, &w, p->value + first, p->scale + first, p->tail + first);
        } else {
            double value[TILE];
            int16_t scale[TILE];
            int8_t tail[TILE];
            finish(g, &w, value, scale, tail);
            memcpy(p->value + first, value, count * sizeof *value);
            memcpy(p->scale + first, scale, count * sizeof *scale);
            memcpy(p->tail + first, tail, count * sizeof *tail);
        }
    }
}
