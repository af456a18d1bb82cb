/* Whether a lifting step stays inside its buffers. */
#include "lifting.h"

#include <stddef.h>

const char *isopress_check_lift(const LiftJob *p) {
    if (p->lines < 1 || p->count < 1 || p->near_count < 0 || p->lines > INT32_MAX || p->count > INT32_MAX / p->lines) return "the size of a lifting step";
    if (p->near_count + (p->before != NULL) + (p->after != NULL) != p->count + 1) return "the neighbours of a lifting step";
    return NULL;
}
