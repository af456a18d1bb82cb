/* Whether a lifting step stays inside its buffers. */
#include "lifting.h"

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
