/* Rows of planes, padded, held in a ring; included after vectors.h. */

INLINE int32_t beyond(int64_t edge, int64_t next, int64_t steps) {
    int64_t x = edge + steps * (edge - next);
    return (int32_t)(x > PAD_TOP ? PAD_TOP : x < -PAD_TOP ? -PAD_TOP : x);
}

/* A row inside a plane, padded: periodic columns, or the line of the two outermost ones; `zero`, for coding errors, with
   zeros in place of lines. */
INLINE void load_inside(const View *v, int64_t field, int64_t row, int wraps, int zero, int32_t *out) {
    int64_t start = field * v->field + row * v->row, n = v->columns;
    const int32_t *at = v->at + start, *minus = v->minus ? v->minus + start : NULL;
    int32_t *in = out + PAD;
    if (v->column == 2 && minus) /* the finest level: of a constant step, so that compilers know what to do */
        for (int64_t c = 0; c < n; c++) in[c] = at[2 * c] - minus[2 * c];
    else if (v->column == 2)
        for (int64_t c = 0; c < n; c++) in[c] = at[2 * c];
    else if (minus)
        for (int64_t c = 0; c < n; c++) in[c] = at[c * v->column] - minus[c * v->column];
    else
        for (int64_t c = 0; c < n; c++) in[c] = at[c * v->column];
    int64_t second = n > 1 ? 1 : 0;
    for (int64_t k = 1; k <= PAD; k++) {
        in[-k] = wraps ? in[((-k) % n + n) % n] : zero ? 0 : beyond(in[0], in[second], k);
        in[n - 1 + k] = wraps ? in[(k - 1) % n] : zero ? 0 : beyond(in[n - 1], in[n - 1 - second], k);
    }
}

/* Any row: beyond the plane, the line of its two outermost rows. `spare` has room for them. */
INLINE void load(const View *v, int64_t field, int64_t row, int wraps, int zero, int32_t *out, int32_t *spare, int64_t width) {
    int inside = row >= 0 && row < v->rows;
    if (inside && v->at) {
        load_inside(v, field, row, wraps, zero, out);
    } else if (zero) {
        memset(out, 0, (size_t)(v->columns + 2 * PAD) * sizeof *out);
    } else {
        int64_t edge = row < 0 ? 0 : v->rows - 1, k = row < 0 ? -row : row - edge;
        int64_t next = v->rows == 1 ? edge : row < 0 ? 1 : v->rows - 2;
        int32_t *first = spare, *second = spare + width;
        load_inside(v, field, edge, wraps, 0, first);
        load_inside(v, field, next, wraps, 0, second);
        for (int64_t c = 0; c < v->columns + 2 * PAD; c++) out[c] = beyond(first[c], second[c], k);
    }
}

enum { VALUES, ERRORS, FIRST_PROXY }; /* sets of planes */

/* Where the rows of a plane are held. */
INLINE int32_t *held(const Phase *p, int set, int plane, int64_t row) {
    return p->rows_held + ((set * PLANES + plane) * RING + (row + RING) % RING) * p->width;
}

/* Where a neighbour of a row's first point is held. */
INLINE const int32_t *row_of(const Phase *p, int set, const Neighbour *at, int64_t row) {
    return held(p, set, at->plane, row + at->row - PAD) + at->column;
}

/* Which planes a phase looks at, bit by bit. */
INLINE int planes_of(const Neighbour *seen, int count) {
    int planes = 0;
    for (int i = 0; i < count; i++) planes |= 1 << seen[i].plane;
    return planes;
}

/* Loads one row of every plane that is looked at, those of some proxies too. */
INLINE void load_row(const Phase *p, int64_t field, int64_t row, int proxies) {
    const Geometry *g = p->geometry;
    const Neighbour *centre = g->seen + g->n + g->near + g->wide;
    int32_t *spare = held(p, FIRST_PROXY + p->proxies, 0, 0);
    int values = planes_of(g->seen, g->n), errors = planes_of(g->seen + g->n, g->near + g->wide);
    for (int plane = 0; plane < PLANES; plane++) {
        if (values >> plane & 1) load(&p->values[plane], field, row, p->wraps, 0, held(p, VALUES, plane, row), spare, p->width);
        if (errors >> plane & 1) load(&p->errors[plane], field, row, p->wraps, 1, held(p, ERRORS, plane, row), spare, p->width);
        for (int k = 0; k < proxies; k++)
            if ((values | 1 << centre->plane) >> plane & 1)
                load(&p->proxy[k][plane], field, row, p->wraps, 0, held(p, FIRST_PROXY + k, plane, row), spare, p->width);
    }
}
