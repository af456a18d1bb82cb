/* Maps of latents. Included after vectors.h and wavelet_tiles.h: plain loops that compilers make vectors of. */

/* Repeats columns around the edge of a map. */
INLINE void wrap_map(float *map, int64_t rows, int64_t columns) {
    int64_t width = columns - 2 * MAP_PAD;
    for (float *row = map; rows--; row += columns)
        for (int64_t i = 0; i < MAP_PAD; i++) {
            row[i] = row[MAP_PAD + (width - (MAP_PAD - i) % width) % width];
            row[MAP_PAD + width + i] = row[MAP_PAD + i % width];
        }
}

/* Writes a value to all `stride` columns that it stands for, of which a row has `width`. */
INLINE void fill_columns(float *row, int64_t column, int64_t stride, int64_t width, float value) {
    int64_t stop = column + stride < width ? column + stride : width;
    for (int64_t i = column; i < stop; i++) row[i] = value;
}

static __attribute__((noinline)) void LEVEL(enter)(const EnterJob *p) {
    int64_t width = p->columns - 2 * MAP_PAD, point = 0;
    for (int i = 0; i < p->strips; i++) {
        const Strip *s = &p->strip[i];
        for (int64_t row = s->start + ((p->y ^ s->start) & 1); row < s->stop; row += 2) {
            int64_t first = (row + MAP_PAD) * p->columns + MAP_PAD;
            float *own = p->own + first, *magnitude = p->magnitude + first;
            for (int64_t value = p->x; value < s->count; value += 2, point++) {
                float x = p->mean[point] + (float)p->symbols[point] * (float)UNITS_PER_STEP;
                if (s->stride == 1) {
                    own[value] = x, magnitude[value] = __builtin_fabsf(x);
                    continue;
                }
                fill_columns(own, value * s->stride, s->stride, width, x);
                fill_columns(magnitude, value * s->stride, s->stride, width, __builtin_fabsf(x));
            }
        }
    }
    if (!p->circle) return;
    wrap_map(p->own, p->rows, p->columns);
    wrap_map(p->magnitude, p->rows, p->columns);
}

static __attribute__((noinline)) void LEVEL(take)(const TakeJob *p) {
    float *restrict to = p->to;
    for (int i = 0; i < p->strips; i++) {
        const Strip *s = &p->strip[i];
        for (int64_t row = s->start + ((p->y ^ s->start) & 1); row < s->stop; row += 2) {
            const float *from = p->from + row * p->columns;
            for (int64_t value = p->x; value < s->count; value += 2) *to++ = from[value * s->stride];
        }
    }
}

/* Fills the line with what a row and those above and below add up to. */
INLINE void box_line(const BoxJob *p, int64_t row) {
    int64_t n = p->columns;
    float *restrict line = p->line;
    const float *at = p->from + row * n, *above = at - n, *below = at + n;
    if (!p->other) {
        for (int64_t i = 0; i < n; i++) line[i] = ((above[i] + below[i]) + at[i]) + at[i];
        return;
    }
    const float *other = p->other + row * n, *up = other - n, *down = other + n;
    for (int64_t i = 0; i < n; i++) {
        float middle = __builtin_fabsf(at[i]) + __builtin_fabsf(other[i]);
        float above_it = __builtin_fabsf(above[i]) + __builtin_fabsf(up[i]), below_it = __builtin_fabsf(below[i]) + __builtin_fabsf(down[i]);
        line[i] = ((above_it + below_it) + middle) + middle;
    }
}

INLINE float box_of(float left, float middle, float right) { return (((left + right) + middle) + middle) * (1.0f / 16); }

INLINE void box_row(const BoxJob *p, int64_t row) {
    float *restrict to = p->to + row * p->columns;
    const float *line = p->line;
    box_line(p, row);
    to[0] = to[p->columns - 1] = 0;
    for (int64_t i = 1; i < p->columns - 1; i++) to[i] = box_of(line[i - 1], line[i], line[i + 1]);
}

/* Rows of a strip whose cells stand for several columns; there is nothing beyond them. */
INLINE void box_strip(const BoxJob *p, const Strip *s) {
    int64_t width = p->columns - 2 * MAP_PAD;
    for (int64_t row = MAP_PAD + s->start; row < MAP_PAD + s->stop; row++) {
        float *to = p->to + row * p->columns;
        const float *line = p->line;
        box_line(p, row);
        memset(to, 0, p->columns * sizeof *to);
        for (int64_t k = 0; k < s->count; k++) {
            int64_t at = MAP_PAD + k * s->stride, next = at + s->stride < MAP_PAD + width ? at + s->stride : MAP_PAD + width;
            fill_columns(to + MAP_PAD, k * s->stride, s->stride, width, box_of(line[at - 1], line[at], line[next]));
        }
    }
}

static __attribute__((noinline)) void LEVEL(box)(const BoxJob *p) {
    int broad = 0;
    int64_t row = 1;
    memset(p->to, 0, p->columns * sizeof *p->to);
    memset(p->to + (p->rows - 1) * p->columns, 0, p->columns * sizeof *p->to);
    for (int i = 0; i < p->strips; i++) {
        const Strip *s = &p->strip[i];
        if (s->stride == 1) continue;
        broad = 1;
        for (; row < MAP_PAD + s->start; row++) box_row(p, row);
        box_strip(p, s);
        row = MAP_PAD + s->stop;
    }
    for (; row < p->rows - 1; row++) box_row(p, row);
    if (broad && p->circle) wrap_map(p->to, p->rows, p->columns);
}

static __attribute__((noinline)) void LEVEL(upsample)(const UpsampleJob *p) {
    for (int64_t row = 0; row < p->rows; row++) {
        const float *from = p->from + (row / 2 + MAP_PAD / 2) * p->parent_columns + MAP_PAD / 2;
        float *restrict to = p->to + row * p->columns;
        for (int64_t i = 0; i < p->columns / 2; i++) to[2 * i] = to[2 * i + 1] = from[i];
        if (p->columns % 2) to[p->columns - 1] = from[p->columns / 2];
    }
    if (p->circle) wrap_map(p->to, p->rows, p->columns);
}

static __attribute__((noinline)) void LEVEL(rest)(const RestJob *p) {
    int64_t n = p->rows * p->columns, width = p->columns;
    float *restrict rest = p->rest, *restrict line = p->line;
    for (int64_t from = 0; from < n; from += width) { /* a row at a time: it stays in the cache */
        const float *bend = p->bend + from, *own = p->up[0] + from, *second = p->up[1] + from, *third = p->up[2] + from;
        float *restrict to = rest + from;
        for (int64_t i = 0; i < width; i++) to[i] = (bend[i] * 0.25f + own[i]) + (second[i] + third[i]) * 0.25f;
        for (int k = 0; k < 2; k++)
            if (p->earlier[k])
                for (int64_t i = 0; i < width; i++) to[i] += p->earlier[k][from + i];
        if (p->newest)
            for (int64_t i = 0; i < width; i++) to[i] = (to[i] + p->newest[from + i]) + p->history[from + i] * 0.5f;
    }
    for (int64_t row = 3; row < p->rows - 3; row++) {
        const float *at = rest + row * width, *above = at - 3 * width, *below = at + 3 * width;
        float *restrict far = p->far + row * width;
        for (int64_t i = 0; i < width; i++) line[i] = (above[i] + below[i]) + at[i];
        for (int64_t i = 3; i < width - 3; i++) far[i] = ((line[i - 3] + line[i + 3]) + line[i]) * (1.0f / 9);
    }
}

/* Fills a line with the cells of a row of a strip, */
INLINE void bend_cells(const BendJob *p, const Strip *s, int64_t row, float *line) {
    const double *from = p->low + row * p->columns;
    for (int64_t i = 0; i < s->count; i++) line[i] = (float)from[i * s->stride];
}

/* and with those of a row of the strip beside it, as many as this one has. */
INLINE void bend_fitted(const BendJob *p, const Strip *beside, int64_t row, int64_t count, float *line) {
    const double *from = p->low + row * p->columns;
    for (int64_t i = 0; i < beside->count; i++) p->row[i] = from[i * beside->stride];
    const double *fitted = fitted_row(p->row, p->row + p->columns, beside->count, count, p->circle);
    for (int64_t i = 0; i < count; i++) line[i] = (float)fitted[i];
}

INLINE float bend_of(float before, float at, float after) { return ((at + at) - before) - after; }

INLINE void bend_along(const BendJob *p, const Strip *s, const float *line, float *to) {
    int64_t n = s->count;
    if (n <= 2) return;
    for (int64_t i = 0; i < n; i++) {
        if (!p->circle && (i == 0 || i == n - 1)) continue;
        float before = line[i ? i - 1 : n - 1], after = line[i < n - 1 ? i + 1 : 0];
        fill_columns(to, i * s->stride, s->stride, p->columns, bend_of(before, line[i], after));
    }
}

static __attribute__((noinline)) void LEVEL(bends)(const BendJob *p) {
    int64_t pitch = p->columns + 2 * MAP_PAD, rows = p->rows + 2 * MAP_PAD;
    float *before = p->line, *at = before + p->columns, *after = at + p->columns;
    for (int i = 0; i < p->strips; i++) {
        const Strip *s = &p->strip[i];
        int has_before = i > 0, has_after;
        if (has_before) bend_fitted(p, s - 1, s->start - 1, s->count, before);
        bend_cells(p, s, s->start, at);
        for (int64_t row = s->start; row < s->stop; row++) {
            has_after = row + 1 < s->stop || i + 1 < p->strips;
            if (row + 1 < s->stop) bend_cells(p, s, row + 1, after);
            else if (has_after) bend_fitted(p, s + 1, s->stop, s->count, after);
            int64_t first = (row + MAP_PAD) * pitch + MAP_PAD;
            bend_along(p, s, at, p->along + first);
            if (has_before && has_after)
                for (int64_t k = 0; k < s->count; k++) fill_columns(p->across + first, k * s->stride, s->stride, p->columns, bend_of(before[k], at[k], after[k]));
            float *free_line = before;
            before = at, at = after, after = free_line, has_before = 1;
        }
    }
    if (!p->circle) return;
    wrap_map(p->along, rows, pitch);
    wrap_map(p->across, rows, pitch);
}
