/* What is cheaply known of all points of a phase, a tile at a time: how active it is around them, and an interpolation of
   the nearest values; written as predict.h is. Included after rows.h. Sums are modulo 2^32. */

INLINE vu load_u(const int32_t *from, int j) {
    vu x;
    memcpy(&x, from + j * LANES, sizeof x);
    return x;
}

/* What is looked at from a row's first point. */
typedef struct {
    const int32_t *bend[BENDS_MAX][4], *error[NEAR_MAX + WIDE_MAX], *nearest[4];
} Seen;

INLINE void find_seen(const Phase *p, int64_t row, Seen *seen) {
    const Geometry *g = p->geometry;
    for (int b = 0; b < g->bends; b++)
        for (int i = 0; i < 4; i++) seen->bend[b][i] = row_of(p, VALUES, &g->seen[g->bend[b].at[i]], row);
    for (int i = 0; i < g->near + g->wide; i++) seen->error[i] = row_of(p, ERRORS, &g->seen[g->n + i], row);
    for (int i = 0; i < 4; i++) seen->nearest[i] = row_of(p, VALUES, &g->seen[g->nearest[i]], row);
}

/* Looks at the points of a tile from `column` of a row on: their activity, and their interpolation. */
INLINE void look_tile(const Geometry *g, const Seen *seen, int64_t column, vu activity[VECTORS], vi value[VECTORS]) {
    vu bent[VECTORS] = {0}, total[VECTORS] = {0};
    for (int j = 0; j < VECTORS; j++) activity[j] = (vu){0};
    for (int b = 0; b < g->bends; b++) {
        const int32_t *const *x = seen->bend[b];
        for (int j = 0; j < VECTORS; j++) {
            vu one = load_u(x[0] + column, j) + load_u(x[1] + column, j) - load_u(x[2] + column, j) - load_u(x[3] + column, j);
            activity[j] += (uint32_t)g->bend[b].weight * (vu)abs_i((vi)one);
            if (b) bent[j] += one; /* the first one is the twist */
        }
    }
    for (int i = 0; i < g->near + g->wide; i++) {
        uint32_t weight = i < g->near ? NEAR_WEIGHT : WIDE_WEIGHT;
        for (int j = 0; j < VECTORS; j++) activity[j] += weight * (vu)abs_i((vi)load_u(seen->error[i] + column, j));
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < VECTORS; j++) total[j] += load_u(seen->nearest[i] + column, j);
    for (int j = 0; j < VECTORS; j++) {
        vi part = (vi)((total[j] & 3) * 8 + bent[j] + 16);
        value[j] = clip_i(((vi)total[j] >> 2) + (part >> 5), -(1 << 27), 1 << 27);
    }
}

/* Looks at a row, which begins at point `start`. */
INLINE void look_row(const Phase *p, int64_t row, int64_t start) {
    static const int32_t edges[CLASSES] = {QUIET_EDGES};
    Seen seen;
    find_seen(p, row, &seen);
    for (int64_t column = 0; column < p->columns; column += TILE) {
        int n = p->columns - column < TILE ? (int)(p->columns - column) : TILE;
        vu sum[VECTORS];
        vi found[VECTORS], class[VECTORS];
        look_tile(p->geometry, &seen, column, sum, found);
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
            if (row % QUIET_STRIDE == 0) look_row(p, row, start);
        }
    }
}
