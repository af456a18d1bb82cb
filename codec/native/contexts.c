/* Whether contexts can be computed without leaving a buffer: proven once for a plan, and for every phase. */
#include "contexts.h"

#include <stddef.h>

const char *isopress_check_plan(const ContextPlan *p) {
    int made[SLOTS_MAX] = {0};
    if (p->slots < 1 || p->slots > SLOTS_MAX || p->gathered < 0 || p->gathered > SLOTS_MAX || p->pooled < 0 || p->pooled > POOLS_MAX ||
        p->logs < 0 || p->logs > LOGS_MAX)
        return "the number of features";
    for (int i = 0; i < p->gathered; i++) {
        if (p->gather[i].slot < 0 || p->gather[i].slot >= p->slots || p->gather[i].map < 0 || p->gather[i].map >= CONTEXT_MAPS ||
            p->gather[i].dy < -1 || p->gather[i].dy > 1 || p->gather[i].dx < -1 || p->gather[i].dx > 1)
            return "a gathered feature";
        made[p->gather[i].slot] = 1;
    }
    for (int i = 0; i < p->pooled; i++) {
        int count = p->pool[i].count;
        if (p->pool[i].slot < 0 || p->pool[i].slot >= p->slots || (count != 1 && count != 2 && count != 4)) return "a pooled feature";
        for (int k = 0; k < count; k++)
            if (p->pool[i].of[k] < 0 || p->pool[i].of[k] >= p->slots || !made[p->pool[i].of[k]]) return "a pooled feature";
    }
    for (int i = 0; i < p->pooled; i++) made[p->pool[i].slot] = 1;
    for (int i = 0; i < p->logs; i++) {
        if (p->log[i].slot < 0 || p->log[i].slot >= p->slots || p->log[i].map < 0 || p->log[i].map > LOG_SMOOTH) return "a logarithm";
        if (p->log[i].map >= PARENT_FIRST && p->log[i].map < PARENT_FIRST + PARENT_COUNT) return "a logarithm";
        made[p->log[i].slot] = 1;
    }
    for (int i = 0; i < p->slots; i++)
        if (!made[i]) return "a feature that nothing makes";
    for (int i = 0; i < 2; i++)
        if (p->scaled[i][0] < 0 || p->scaled[i][1] < p->scaled[i][0] || p->scaled[i][1] > p->slots) return "a stretch of features";
    return NULL;
}

const char *isopress_check_strips(const Strip *strip, int n, int64_t height, int64_t width) {
    for (int i = 0; i < n; i++) {
        const Strip *s = &strip[i];
        if (s->start < 0 || s->stop < s->start || s->stop > height || s->count < 0 || s->stride < 1 || s->stride & (s->stride - 1) ||
            s->count > (width + s->stride - 1) / s->stride)
            return "a strip";
    }
    return NULL;
}

int64_t isopress_points(const Strip *strip, int n, int y, int x) {
    int64_t points = 0;
    for (const Strip *s = strip; s < strip + n; s++) {
        int32_t first = s->start + ((y ^ s->start) & 1);
        if (first < s->stop && x < s->count) points += (int64_t)((s->stop - first + 1) / 2) * ((s->count - x + 1) / 2);
    }
    return points;
}

const char *isopress_check_contexts(const ContextPhase *p, int inputs) {
    int64_t height = p->rows - 2 * MAP_PAD, width = p->columns - 2 * MAP_PAD;
    int64_t upper = p->parent_rows - 2 * MAP_PAD, across = p->parent_columns - 2 * MAP_PAD;
    if (inputs != p->plan->slots) return "the inputs of the network";
    if (height < 1 || width < 1 || upper < (height + 1) / 2 || across < (width + 1) / 2) return "the shape of a map";
    if (p->y < 0 || p->y > 1 || p->x < 0 || p->x > 1 || p->quiet < 0 || p->quiet > ACTIVITIES) return "a phase";
    const char *wrong = isopress_check_strips(p->strip, p->strips, height, width);
    if (!wrong) wrong = isopress_check_strips(p->parent_strip, p->parent_strips, upper, across);
    if (wrong) return wrong;
    if (isopress_points(p->strip, p->strips, p->y, p->x) != p->n) return "the number of points";
    for (int i = 0; i < p->plan->gathered; i++)
        if (!p->map[p->plan->gather[i].map]) return "a map is missing";
    for (int i = 0; i < p->plan->logs; i++)
        if (p->plan->log[i].map < CONTEXT_MAPS && !p->map[p->plan->log[i].map]) return "a map is missing";
    for (int i = 0; i < p->quiet; i++)
        if (p->quiet_tail[i] < 0 || p->quiet_tail[i] > 3) return "a tail class";
    return NULL;
}
