/* What is cheaply known of all points of a phase, a tile at a time: how active it is around them, and an interpolation of
   the nearest values; written as predict.h is. Included after rows.h. Sums are modulo 2^32. */

/* Where the values at a neighbour of a row's first point are held. */
INLINE const int32_t *row_of(const Phase *p, int set, const Neighbour *at, int64_t row) {
    return held(p, set, at->plane, row + at->row - PAD) + at->column;
}

INLINE vu load_u(const int32_t *from, int j) {
    vu x;
    memcpy(&x, from + j * LANES, sizeof x);
    return x;
}

/* Looks at the points of a tile from `column` of a row on: their activity, and their interpolation. */
INLINE void look_tile(const Phase *p, int64_t row, int64_t column, vu activity[VECTORS], vi value[VECTORS]) {
    const Geometry *g = p->geometry;
    vu bent[VECTORS] = {0}, total[VECTORS] = {0};
    for (int j = 0; j < VECTORS; j++) activity[j] = (vu){0};
    for (int b = 0; b < g->bends; b++) {
        const Bend *bend = &g->bend[b];
        const int32_t *x[4];
        for (int i = 0; i < 4; i++) x[i] = row_of(p, VALUES, &g->seen[bend->at[i]], row) + column;
        for (int j = 0; j < VECTORS; j++) {
            vu one = load_u(x[0], j) + load_u(x[1], j) - load_u(x[2], j) - load_u(x[3], j);
            activity[j] += (uint32_t)bend->weight * (vu)abs_i((vi)one);
            if (b) bent[j] += one; /* the first one is the twist */
        }
    }
    for (int i = 0; i < g->near + g->wide; i++) {
        const int32_t *x = row_of(p, ERRORS, &g->seen[g->n + i], row) + column;
        uint32_t weight = i < g->near ? NEAR_WEIGHT : WIDE_WEIGHT;
        for (int j = 0; j < VECTORS; j++) activity[j] += weight * (vu)abs_i((vi)load_u(x, j));
    }
    for (int i = 0; i < 4; i++) {
        const int32_t *x = row_of(p, VALUES, &g->seen[g->nearest[i]], row) + column;
        for (int j = 0; j < VECTORS; j++) total[j] += load_u(x, j);
    }
    for (int j = 0; j < VECTORS; j++) {
        vi part = (vi)((total[j] & 3) * 8 + bent[j] + 16);
        value[j] = clip_i(((vi)total[j] >> 2) + (part >> 5), -(1 << 27), 1 << 27);
    }
}

/* Looks at a row, which begins at point `start`. */
INLINE void look_row(const Phase *p, int64_t row, int64_t start) {
    static const int32_t edges[CLASSES] = {QUIET_EDGES};
    for (int64_t column = 0; column < p->columns; column += TILE) {
        int n = p->columns - column < TILE ? (int)(p->columns - column) : TILE;
        vu sum[VECTORS];
        vi found[VECTORS], class[VECTORS];
        look_tile(p, row, column, sum, found);
        for (int j = 0; j < VECTORS; j++) {
            vi half = (vi)(sum[j] >> 1); /* edges are even */
            class[j] = (vi){0};
            for (int c = 0; c < CLASSES; c++) class[j] -= half >= edges[c] / 2;
        }
        int8_t *activity = p->activity + start + column;
        for (int k = 0; k < n; k++) activity[k] = (int8_t)((const int32_t *)class)[k];
        memcpy(p->value + start + column, found, n * sizeof *p->value);
    }
}

static __attribute__((noinline)) void LEVEL(look)(const Phase *p) {
    int64_t start = 0;
    for (int64_t field = 0; field < p->fields; field++) {
        for (int64_t row = -PAD; row < PAD; row++) load_row(p, field, row, 0);
        for (int64_t row = 0; row < p->rows; row++, start += p->columns) {
            load_row(p, field, row + PAD, 0);
            look_row(p, row, start);
        }
    }
}
