#include "walk.h"

#include <string.h>

enum { LIMIT_UNITS = 1 << 27, ALIGNED = 64 };

/* The parts of a walk that change from phase to phase, and room for them. */
typedef struct {
    const Walk *walk;
    int level;
    int64_t height, width; /* of the level's grid */
    int32_t *guess;        /* (fields, H, W), or NULL; at the points of the level and of all coarser ones */
    int32_t *coarse;       /* coding errors of the grid of level 1 (fields, (H + 1) / 2, (W + 1) / 2) */
    int32_t *fine[2];      /* of the finest level's D and H */
    int32_t *stand_in;     /* for a plane D that has no points */
    int32_t *symbols;
    int32_t *order;        /* of a phase: points that pass a network, then per stream and class the quiet ones */
    int32_t *limit;        /* per stream, how many classes are quiet */
    int64_t (*count)[CLASSES + 1]; /* per stream, how many points of each are, and how many are not */
    int32_t *sorted;       /* points of a phase by table */
    Phase phase;
} State;

static int64_t half_up(int64_t n) { return (n + 1) / 2; }

/* --- room ------------------------------------------------------------------------------------------------------- */

/* A part of the room for `n` things of some size, or NULL where only sizes are asked for. */
static void *part(char *room, int64_t *used, int64_t n, size_t size) {
    void *at = room ? room + *used : NULL;
    *used += (n * (int64_t)size + ALIGNED - 1) / ALIGNED * ALIGNED;
    return at;
}

/* Divides the room; returns how many bytes of it there must be. */
static int64_t divide(State *s, const Walk *w) {
    char *room = w->room;
    int64_t h = half_up(w->height), x = half_up(w->width), n = w->fields * h * x, used = 0;
    int64_t longest = h > x ? h : x, width = x + 2 * PAD, rows = (2 + w->proxies) * PLANES * RING + 2;
    s->coarse = part(room, &used, n, sizeof *s->coarse);
    s->fine[0] = part(room, &used, n, sizeof **s->fine);
    s->fine[1] = part(room, &used, n, sizeof **s->fine);
    s->stand_in = part(room, &used, w->fields * longest, sizeof *s->stand_in);
    s->symbols = part(room, &used, n, sizeof *s->symbols);
    s->phase.value = part(room, &used, n, sizeof *s->phase.value);
    s->phase.scale = part(room, &used, n, sizeof *s->phase.scale);
    s->phase.tail = part(room, &used, n, sizeof *s->phase.tail);
    s->phase.activity = part(room, &used, n, sizeof *s->phase.activity);
    s->phase.rows_held = part(room, &used, rows * width + TILE, sizeof *s->phase.rows_held);
    s->order = part(room, &used, n + 1, sizeof *s->order); /* one more: what is listed next is written first */
    s->sorted = part(room, &used, n, sizeof *s->sorted);
    s->limit = part(room, &used, w->streams, sizeof *s->limit);
    s->count = part(room, &used, w->streams, sizeof *s->count);
    if (w->proxies) s->guess = part(room, &used, w->fields * w->height * w->width, sizeof *s->guess);
    s->phase.width = width;
    return used;
}

int64_t isopress_walk_room(int64_t fields, int64_t height, int64_t width, int32_t proxies, int32_t streams) {
    State s;
    Walk w = {.fields = fields, .height = height, .width = width, .proxies = proxies, .streams = streams};
    return divide(&s, &w);
}

/* --- planes of a level ------------------------------------------------------------------------------------------- */

/* Points of the plane of this parity, of `grid`: one of the arrays that hold whole fields. */
static View plane_of(const State *s, const int32_t *grid, const int32_t *minus, int plane) {
    const Walk *w = s->walk;
    int64_t y = plane >> 1, x = plane & 1, step = (int64_t)1 << s->level, at = (y * w->width + x) * step;
    View v = {grid + at, minus ? minus + at : NULL, w->height * w->width, 2 * step * w->width, 2 * step, 0, 0};
    v.rows = (s->height - y + 1) / 2, v.columns = (s->width - x + 1) / 2;
    if (v.rows < 1 || v.columns < 1) v.at = NULL;
    return v;
}

/* Coding errors of the points of a plane; those of the finest level's V are not kept. */
static View errors_of(const State *s, int plane) {
    View v = plane_of(s, s->walk->v, NULL, plane);
    int64_t width = half_up(s->walk->width), height = half_up(s->walk->height), step = ((int64_t)1 << s->level) / 2;
    v.field = width * height;
    if (s->level) {
        v.at = v.at ? s->coarse + ((plane >> 1) * width + (plane & 1)) * step : NULL;
        v.row = 2 * step * width, v.column = 2 * step;
    } else {
        const int32_t *const held[PLANES] = {s->coarse, s->fine[1], NULL, s->fine[0]};
        v.at = v.at ? held[plane] : NULL;
        v.row = width, v.column = 1;
    }
    return v;
}

/* Fills in what stands for a plane D without points (of a grid one cell high or wide): means of the points before. */
static View stand_in(State *s, int wraps) {
    View k = plane_of(s, s->walk->v, NULL, 0);
    int64_t n = s->height == 1 ? s->width / 2 : s->height / 2, line = s->height == 1 ? k.columns : k.rows;
    int64_t step = s->height == 1 ? k.column : k.row;
    for (int64_t field = 0; field < s->walk->fields; field++) {
        const int32_t *at = k.at + field * k.field;
        for (int64_t i = 0; i < n; i++) {
            int64_t a = at[i * step], b;
            if (i + 1 < line) b = at[(i + 1) * step];
            else if (wraps && s->height == 1) b = at[0];
            else b = line > 1 ? 2 * a - at[(i - 1) * step] : a;
            s->stand_in[field * n + i] = (int32_t)((a + b) >> 1);
        }
    }
    int64_t columns = s->height == 1 ? n : 1;
    return (View){s->stand_in, NULL, n, columns, 1, n / columns, columns};
}

/* Describes the planes of a level that a phase can look at. */
static void set_planes(State *s) {
    Phase *p = &s->phase;
    const Walk *w = s->walk;
    int thin = s->height == 1 || s->width == 1;
    p->wraps = w->wrap && w->width % ((int64_t)2 << s->level) == 0;
    p->proxies = thin ? 0 : w->proxies;
    for (int plane = 0; plane < PLANES; plane++) {
        p->values[plane] = plane_of(s, w->v, p->proxies ? s->guess : NULL, plane);
        p->errors[plane] = errors_of(s, plane);
        for (int k = 0; k < p->proxies; k++) p->proxy[k][plane] = plane_of(s, w->proxy[k], NULL, plane);
    }
    if (!thin) return;
    p->values[3] = stand_in(s, p->wraps);
    if (s->width == 1) p->values[1] = p->values[0];
    for (int plane = 1; plane < PLANES; plane++) /* there are no errors where there are no points */
        if (!p->errors[plane].at) p->errors[plane].rows = p->values[plane].rows, p->errors[plane].columns = p->values[plane].columns;
}

/* --- references --------------------------------------------------------------------------------------------------- */

/* Computes the guess at the points of a level: proxies times coefficients, in sums of 1/64, rounded to even. */
static void make_guess(State *s, int level) {
    const Walk *w = s->walk;
    int set = level < COEFFICIENT_SETS ? level : COEFFICIENT_SETS - 1;
    int64_t step = (int64_t)1 << level;
    for (int64_t field = 0; field < w->fields; field++) {
        const int8_t *c = w->coefficients + (field * COEFFICIENT_SETS + set) * w->proxies;
        for (int64_t y = 0; y < w->height; y += step)
            for (int64_t i = (field * w->height + y) * w->width, end = i + w->width; i < end; i += step) {
                int64_t sum = 0;
                for (int k = 0; k < w->proxies; k++) sum += (int64_t)c[k] * w->proxy[k][i];
                int64_t whole = (sum + 31 + (sum >> 6 & 1)) >> 6;
                s->guess[i] = (int32_t)(whole > LIMIT_UNITS ? LIMIT_UNITS : whole < -LIMIT_UNITS ? -LIMIT_UNITS : whole);
            }
    }
}

/* --- symbols ------------------------------------------------------------------------------------------------------- */

/* What symbols add to a prediction: whole quanta, with `snap` to a whole step. */
static inline int64_t added(int64_t symbol, int64_t predicted, int64_t quantum, int snap) {
    if (!snap) return symbol * quantum;
    int64_t odd = (predicted >> 1) * 2 + 1;
    return ((symbol * quantum + odd + UNITS / 2) >> 6) * UNITS - predicted;
}

/* Rounds to even, of |x| < 2^51. */
static inline double round_even(double x) { return (x + 6755399441055744.0) - 6755399441055744.0; }

/* Returns value i of the fields in steps. */
static inline double steps_of(const Walk *w, int64_t i) {
    if (w->y) return w->y[i];
    double y = ((double)w->single[i] - w->offset) / w->step;
    return w->snap ? round_even(y) : y;
}

/* Returns the symbol of value i of the fields. */
static inline int32_t symbol_of(const Walk *w, int64_t i, int32_t predicted, int64_t quantum) {
    int32_t from = w->snap ? (predicted >> 1) * 2 + 1 : predicted;
    int32_t symbol = (int32_t)round_even((steps_of(w, i) * UNITS - from) / quantum);
    return w->valid && !w->valid[i] ? 0 : symbol;
}

/* Quantises what the predictions of a phase miss, and enters the values that come of it; symbols take the place of
   predictions, and pages that are never written take no memory. */
static void quantise(State *s, const View *plane, const View *errors) {
    const Walk *w = s->walk;
    Phase *p = &s->phase;
    const int32_t *guess = plane->minus;
    int64_t quantum = w->quantum[s->level], done = 0;
    for (int64_t field = 0; field < p->fields; field++)
        for (int64_t row = 0; row < p->rows; row++, done += p->columns) {
            int64_t start = field * plane->field + row * plane->row, place = plane->at - w->v + start;
            int64_t error_at = field * errors->field + row * errors->row;
            for (int64_t c = 0; c < p->columns; c++) {
                int64_t i = place + c * plane->column;
                int32_t predicted = p->value[done + c] + (guess ? guess[start + c * plane->column] : 0);
                int32_t symbol = symbol_of(w, i, predicted, quantum);
                int32_t more = (int32_t)added(symbol, predicted, quantum, w->snap);
                p->value[done + c] = symbol;
                w->v[i] = predicted + more;
                if (errors->at) ((int32_t *)errors->at)[error_at + c * errors->column] = more;
            }
        }
}

/* Enters the values that the symbols of a phase stand for. */
static int dequantise(State *s, const View *plane, const View *errors) {
    const Walk *w = s->walk;
    Phase *p = &s->phase;
    const int32_t *guess = plane->minus;
    int64_t quantum = w->quantum[s->level], done = 0;
    int inside = 1;
    for (int64_t field = 0; field < p->fields; field++)
        for (int64_t row = 0; row < p->rows; row++, done += p->columns) {
            int64_t start = field * plane->field + row * plane->row, place = plane->at - w->v + start;
            int64_t error_at = field * errors->field + row * errors->row;
            for (int64_t c = 0; c < p->columns; c++) {
                int32_t predicted = p->value[done + c] + (guess ? guess[start + c * plane->column] : 0);
                int64_t more = added(s->symbols[done + c], predicted, quantum, w->snap), whole = predicted + more;
                inside &= whole <= 2 * LIMIT_UNITS && whole >= -2 * LIMIT_UNITS;
                w->v[place + c * plane->column] = (int32_t)whole;
                if (errors->at) ((int32_t *)errors->at)[error_at + c * errors->column] = (int32_t)more;
            }
        }
    return inside ? FINE : VALUE_LARGE;
}

/* --- quiet points --------------------------------------------------------------------------------------------------- */

/* Chooses how many classes of a stream's points are quiet, by the symbols of some rows if all were: as choose_limit in
   quiet.py. The stream has `fields` fields from the first on. */
static int choose_limit(const State *s, const View *plane, int64_t first, int64_t fields) {
    const Walk *w = s->walk;
    const Phase *p = &s->phase;
    int64_t count[CLASSES + 1] = {0}, others[CLASSES + 1] = {0}, some = 0, gain = 0, most = 0, lost = 0, all = 0;
    for (int64_t field = first; field < first + fields; field++)
        for (int64_t row = 0; row < p->rows; row += QUIET_STRIDE, some += p->columns) {
            int64_t start = field * plane->field + row * plane->row, done = (field * p->rows + row) * p->columns;
            for (int64_t c = 0; c < p->columns; c++) {
                int64_t at = start + c * plane->column;
                int32_t predicted = p->value[done + c] + (plane->minus ? plane->minus[at] : 0);
                int class = p->activity[done + c];
                count[class]++, others[class] += symbol_of(w, plane->at - w->v + at, predicted, w->quantum[s->level]) != 0;
            }
        }
    int limit = 0;
    for (int k = 0; k <= CLASSES; k++) all += others[k];
    for (int k = 0; k < CLASSES; k++) {
        gain += count[k] - QUIET_RATE * others[k], lost += others[k];
        if (QUIET_SHARE * lost > all) break;
        if (gain > most) most = gain, limit = k + 1;
    }
    return QUIET_WORTH * most >= some ? limit : 0;
}

/* Codes or decodes how many classes are quiet in each stream; returns whether any are, or a number below 0. */
static int do_limits(State *s, const Level *level, const View *plane) {
    const Walk *w = s->walk;
    int64_t fields = w->fields / w->streams;
    int any = 0;
    if (!w->readers) level->look(&s->phase);
    for (int64_t i = 0; i < w->streams; i++) {
        int32_t *limit = &s->limit[i];
        if (!w->readers) *limit = choose_limit(s, plane, i * fields, fields);
        int wrong = w->readers ? isopress_read_row(w->readers[i], 1, limit, w->tables->limits, CLASSES + 1, 0)
                               : isopress_write_row(w->writers[i], 1, limit, w->tables->limits, 0);
        if (wrong) return -wrong;
        any |= *limit;
    }
    return any != 0;
}

/* Lists the quiet points of a phase, n points in each stream, per stream and class, and counts them. */
static void list_quiet(State *s, int64_t n, int32_t *order) {
    for (int64_t i = 0; i < s->walk->streams; i++) {
        const int8_t *activity = s->phase.activity + i * n;
        int limit = s->limit[i];
        int64_t *count = s->count[i];
        int32_t nowhere, *next[CLASSES + 1];
        memset(count, 0, sizeof *s->count);
        for (int64_t k = 0; k < n; k++) count[activity[k]]++;
        for (int class = limit; class < CLASSES; class++) count[CLASSES] += count[class], count[class] = 0;
        for (int class = 0, at = 0; class <= CLASSES; class++) {
            next[class] = class < limit ? order + at : &nowhere;
            if (class < limit) at += (int)count[class];
        }
        for (int64_t k = 0; k < n; k++) { /* without branches: they would be guessed wrong */
            int class = activity[k];
            *next[class] = (int32_t)(i * n + k), next[class] += class < limit;
        }
        order += n - count[CLASSES];
    }
}

/* Brings the symbols of points that are not quiet to their places among all, and sets those of the others to 0. */
static void spread(State *s, int64_t loud, int64_t all) {
    for (int64_t end = all, at; end; end = at) { /* from the last one on: no symbol lies beyond its place */
        at = loud ? s->order[loud - 1] : 0;
        int32_t symbol = loud ? s->symbols[--loud] : 0;
        for (int64_t i = at + 1; i < end; i++) s->symbols[i] = 0;
        s->symbols[at] = symbol;
    }
}

/* Codes or decodes the symbols of quiet points, stream by stream. */
static int do_runs(State *s, int64_t loud, int32_t *symbols) {
    const Walk *w = s->walk;
    int32_t *order = s->order + loud;
    for (int64_t i = 0; i < w->streams; i++) {
        int rate = FIRST_RATE;
        for (int class = 0; class < CLASSES; class++) {
            int64_t n = s->count[i][class];
            if (!n) continue;
            int wrong = w->readers ? isopress_read_runs(w->readers[i], w->tables, n, order, symbols, &rate)
                                   : isopress_write_runs(w->writers[i], w->tables, n, order, symbols, &rate);
            if (wrong) return wrong;
            order += n;
        }
    }
    return FINE;
}

/* --- the walk ------------------------------------------------------------------------------------------------------- */

/* Codes or decodes the symbols of the points that passed a network, whose scale indexes and tail classes are used up. */
static int do_symbols(State *s, int32_t *symbols, int64_t n) {
    const Walk *w = s->walk;
    const Phase *p = &s->phase;
    int64_t start = 0;
    for (int64_t i = 0; i < w->streams; i++) {
        int64_t count = p->wanted ? s->count[i][CLASSES] : n;
        int16_t *scale = p->scale + start;
        int8_t *tail = p->tail + start;
        Sorted sorted = {count, s->sorted, scale, tail};
        int wrong = !count       ? FINE
                    : w->readers ? isopress_read_phase(w->readers[i], w->tables, count, symbols + start, scale, tail, 1, &sorted)
                                 : isopress_write_phase(w->writers[i], w->tables, count, symbols + start, scale, tail, 1, &sorted);
        if (wrong) return wrong;
        start += count;
    }
    return FINE;
}

/* Codes or decodes one phase, whose points are those of `plane`. */
static int do_phase(State *s, const Level *level, int phase, int plane) {
    const Walk *w = s->walk;
    Phase *p = &s->phase;
    View own = p->values[plane], errors = p->errors[plane];
    p->fields = w->fields, p->rows = own.rows, p->columns = own.columns;
    p->geometry = w->geometry[phase], p->network = w->network[s->level][phase];
    if (isopress_check_phase(p, w->inputs[s->level][phase])) return A_BUG;
    int64_t all = p->fields * p->rows * p->columns, n = all / w->streams, loud;
    int quiet = n < QUIET_LEAST ? 0 : do_limits(s, level, &own), wrong;
    if (quiet < 0) return -quiet;
    p->wanted = quiet ? s->order : NULL, p->limit = s->limit, p->fields_of_limit = w->fields / w->streams;
    loud = level->predict(p);
    if (quiet) list_quiet(s, n, s->order + loud);
    for (int64_t i = 0; i < loud; i++) p->scale[i] = (int16_t)(p->scale[i] + w->finer[s->level]);
    if (w->readers) {
        if ((wrong = do_symbols(s, s->symbols, n))) return wrong;
        if (quiet) spread(s, loud, all);
        if (quiet && (wrong = do_runs(s, loud, s->symbols))) return wrong;
        return dequantise(s, &own, &errors);
    }
    quantise(s, &own, &errors);
    if (!quiet) return do_symbols(s, p->value, n);
    for (int64_t i = 0; i < loud; i++) s->symbols[i] = p->value[s->order[i]];
    if ((wrong = do_symbols(s, s->symbols, n))) return wrong;
    return do_runs(s, loud, p->value);
}

int isopress_walk(const Level *level, const Walk *w) {
    static const int planes[PHASES] = {3, 1, 2};
    State s = {.walk = w};
    int wrong = FINE;
    divide(&s, w);
    memset(s.coarse, 0, (size_t)(w->fields * half_up(w->height) * half_up(w->width)) * sizeof *s.coarse);
    for (s.level = w->depth - 1; s.level >= 0 && !wrong; s.level--) {
        s.height = ((w->height - 1) >> s.level) + 1, s.width = ((w->width - 1) >> s.level) + 1;
        /* The grid of level 2 holds those of all coarser ones, and their coefficients are the same. */
        if (s.guess && (s.level == w->depth - 1 || s.level < COEFFICIENT_SETS - 1))
            make_guess(&s, s.level < COEFFICIENT_SETS - 1 ? s.level : COEFFICIENT_SETS - 1);
        set_planes(&s);
        for (int phase = 0; phase < PHASES && !wrong; phase++) {
            int has_rows = s.height > planes[phase] >> 1, has_columns = s.width > (planes[phase] & 1);
            if (has_rows && has_columns) wrong = do_phase(&s, level, phase, planes[phase]);
        }
    }
    return wrong;
}
