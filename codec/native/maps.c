/* Whether maps of latents can be made without leaving a buffer. */
#include "maps.h"

#include <stddef.h>

#include "wavelet.h"

static const char *check_map(int64_t rows, int64_t columns) {
    if (rows <= 2 * MAP_PAD || columns <= 2 * MAP_PAD || columns > INT32_MAX || rows > INT32_MAX / columns) return "the shape of a map";
    return NULL;
}

const char *isopress_check_box(const BoxJob *p) {
    const char *wrong = check_map(p->rows, p->columns);
    return wrong ? wrong : isopress_check_strips(p->strip, p->strips, p->rows - 2 * MAP_PAD, p->columns - 2 * MAP_PAD);
}

const char *isopress_check_bends(const BendJob *p) {
    const char *wrong = check_map(p->rows + 2 * MAP_PAD, p->columns + 2 * MAP_PAD);
    if (!wrong) wrong = isopress_check_strips(p->strip, p->strips, p->rows, p->columns);
    for (int i = 0; !wrong && i < p->strips; i++) {
        const Strip *s = &p->strip[i];
        if (s->stop <= s->start || s->count < 1) return "an empty strip";
        if (i && (s[-1].stop != s->start || !isopress_fits(s[-1].count, s->count) || !isopress_fits(s->count, s[-1].count))) return "strips side by side";
    }
    return wrong;
}

const char *isopress_check_rest(const RestJob *p) { return check_map(p->rows, p->columns); }

const char *isopress_check_upsample(const UpsampleJob *p) {
    const char *wrong = check_map(p->rows, p->columns);
    if (!wrong) wrong = check_map(p->parent_rows, p->parent_columns);
    if (!wrong && (2 * (p->parent_rows - MAP_PAD) < p->rows || 2 * (p->parent_columns - MAP_PAD) < p->columns)) wrong = "the shape of a coarser map";
    return wrong;
}

/* Points of a phase of a band (rows, columns). */
static const char *check_points(const Strip *strip, int strips, int64_t rows, int64_t columns, int y, int x, int64_t n) {
    const char *wrong = isopress_check_strips(strip, strips, rows, columns);
    if (!wrong && (y < 0 || y > 1 || x < 0 || x > 1)) wrong = "a phase";
    if (!wrong && isopress_points(strip, strips, y, x) != n) wrong = "the number of points";
    return wrong;
}

const char *isopress_check_enter(const EnterJob *p) {
    const char *wrong = check_map(p->rows, p->columns);
    return wrong ? wrong : check_points(p->strip, p->strips, p->rows - 2 * MAP_PAD, p->columns - 2 * MAP_PAD, p->y, p->x, p->n);
}

const char *isopress_check_take(const TakeJob *p) { return check_points(p->strip, p->strips, p->rows, p->columns, p->y, p->x, p->n); }
