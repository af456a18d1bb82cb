/* Whether steps and levels of the wavelet stay inside their buffers. */
#include "wavelet.h"

#include <stddef.h>

const char *isopress_check_lift(const LiftJob *p) {
    if (p->lines < 1 || p->count < 1 || p->near_count < 0 || p->lines > INT32_MAX || p->count > INT32_MAX / p->lines) return "the size of a lifting step";
    if (p->near_count + (p->before != NULL) + (p->after != NULL) != p->count + 1) return "the neighbours of a lifting step";
    return NULL;
}

int isopress_fits(int64_t n, int64_t width) {
    if (n < 1 || width < 1) return 0;
    while (n > width) n = (n + 1) / 2;
    while (width > n) width = (width + 1) / 2;
    return width == n;
}

static int64_t low_cells(const Zone *z) { return z->split ? (z->count + 1) / 2 : z->count; }

/* Whether so many cells begin inside a band of this width. */
static int fits_band(int64_t cells, int64_t stride, int64_t width) { return cells < 1 || (cells - 1) * stride < width; }

const char *isopress_check_wavelet(const WaveletJob *p) {
    int64_t next = 0, half = (p->columns + 1) / 2;
    if (p->rows < 1 || p->columns < 1 || p->columns > INT32_MAX || p->rows > INT32_MAX / p->columns || p->zones < 1) return "the shape of a field";
    for (int i = 0; i < p->zones; i++) {
        const Zone *z = &p->zone[i];
        if (z->start != next || z->start % 2 || z->stop <= z->start || z->stop > p->rows) return "the rows of a zone";
        if (z->stride < 1 || z->stride & (z->stride - 1) || z->count < 1 || !fits_band(z->count, z->stride, p->columns)) return "the cells of a zone";
        if (!z->split && z->stride < 2) return "the stride of a zone";
        int64_t stride = z->split ? z->stride : z->stride / 2;
        if (!fits_band(low_cells(z), stride, half) || (z->split && !fits_band(z->count / 2, stride, p->columns / 2))) return "the cells of a zone";
        if (i && (!isopress_fits(low_cells(z - 1), low_cells(z)) || !isopress_fits(low_cells(z), low_cells(z - 1)))) return "zones side by side";
        next = z->stop;
    }
    return next == p->rows ? NULL : "the rows of zones";
}
