/* Contexts of one phase: activity of every point, features of those that are not quiet, tile by tile through the network.
   Included after vectors.h and network.h. Every feature is one chain of binary32 operations in numpy's order. */

/* Points of a tile: places in the maps, of the first and of the last column that they stand for, and in their parents'. */
typedef struct {
    int32_t filled, point[TILE], rough[TILE];
    int64_t at[TILE], right[TILE], parent[TILE], parent_right[TILE];
    float smooth[TILE];
    vf value[SLOTS_MAX][VECTORS];
    vi feature[SLOTS_MAX][VECTORS], output[OUTPUTS][VECTORS];
} Points;

INLINE int32_t log_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 20;
}

INLINE float round_even(float x) {
    const float whole = 8388608.0f; /* 2^23: from there on all are integers */
    if (x >= whole || x <= -whole) return x;
    return x < 0 ? (x - whole) + whole : (x + whole) - whole;
}

INLINE void gather_feature(const ContextPhase *p, Points *w, int i) {
    int map = p->plan->gather[i].map, dx = p->plan->gather[i].dx, is_parent = map >= PARENT_FIRST && map < PARENT_FIRST + PARENT_COUNT;
    const float *from = p->map[map] + p->plan->gather[i].dy * (is_parent ? p->parent_columns : p->columns) + dx;
    const int64_t *at = is_parent ? (dx > 0 ? w->parent_right : w->parent) : (dx > 0 ? w->right : w->at);
    float *to = (float *)w->value[p->plan->gather[i].slot];
    for (int k = 0; k < TILE; k++) to[k] = from[at[k]];
}

INLINE vf abs_f(vf x) { return (vf)((vi)x & INT32_MAX); }

INLINE void pool_feature(const ContextPlan *plan, Points *w, int i) {
    const int32_t *of = plan->pool[i].of, count = plan->pool[i].count;
    for (int j = 0; j < VECTORS; j++) {
        vf sum = abs_f(w->value[of[0]][j]);
        if (count > 1) {
            sum += abs_f(w->value[of[1]][j]);
            if (count > 2) sum += abs_f(w->value[of[2]][j]) + abs_f(w->value[of[3]][j]);
            sum *= count > 2 ? 0.25f : 0.5f;
        }
        w->value[plan->pool[i].slot][j] = sum;
    }
}

INLINE void log_feature(const ContextPhase *p, Points *w, int i) {
    int map = p->plan->log[i].map;
    int32_t *to = (int32_t *)w->feature[p->plan->log[i].slot];
    for (int k = 0; k < TILE; k++) {
        if (map == LOG_ACTIVITY) to[k] = w->rough[k] - LOG_MIDDLE;
        else to[k] = log_of((map == LOG_SMOOTH ? w->smooth[k] : p->map[map][w->at[k]]) + (float)LOG_FLOOR) - w->rough[k] - FLOOR_LOG;
    }
    for (int j = 0; j < VECTORS; j++)
        w->feature[p->plan->log[i].slot][j] = clip_i(w->feature[p->plan->log[i].slot][j], -FEATURE_TOP, FEATURE_TOP);
}

/* Features of a whole tile, and what the network says of its first `filled` points. */
INLINE void finish_tile(const ContextPhase *p, Points *w) {
    vf scale[VECTORS];
    for (int i = 0; i < p->plan->gathered; i++) gather_feature(p, w, i);
    for (int i = 0; i < p->plan->pooled; i++) pool_feature(p->plan, w, i);
    for (int k = 0; k < TILE; k++) ((float *)scale)[k] = p->feature_of[w->rough[k]];
    for (int s = 0; s < p->plan->slots; s++) {
        int is_scaled = 0;
        for (int i = 0; i < 2; i++) is_scaled |= s >= p->plan->scaled[i][0] && s < p->plan->scaled[i][1];
        for (int j = 0; j < VECTORS; j++) {
            vf x = is_scaled ? w->value[s][j] * scale[j] : w->value[s][j];
            w->feature[s][j] = round_f(x, -FEATURE_TOP, FEATURE_TOP);
        }
    }
    for (int i = 0; i < p->plan->logs; i++) log_feature(p, w, i);
    run(p->network, (const vi(*)[VECTORS])w->feature, w->output);
    const int32_t *mean = (const int32_t *)w->output[0], *index = (const int32_t *)w->output[1], *tail = (const int32_t *)w->output[2];
    for (int k = 0; k < w->filled; k++) {
        int32_t i = w->point[k], rough = w->rough[k];
        p->mean[i] = round_even((float)mean[k] * p->mean_of[rough]);
        p->scale[i] = (int16_t)(rough + index[k]);
        p->tail[i] = (int8_t)tail[k];
    }
    w->filled = 0;
}

/* Returns the smoothed magnitude at a place whose values stand for the columns up to `right`. */
INLINE float smooth_at(const ContextPhase *p, int64_t at, int64_t right) {
    const float *m = p->magnitude + at;
    int64_t pitch = p->columns, next = right + 1 - at;
    float middle = ((m[-pitch] + m[pitch]) + m[0]) + m[0];
    float left = ((m[-pitch - 1] + m[pitch - 1]) + m[-1]) + m[-1];
    float after = ((m[next - pitch] + m[next + pitch]) + m[next]) + m[next];
    return (((left + after) + middle) + middle) * (1.0f / 16);
}

INLINE int32_t parent_stride(const ContextPhase *p, int64_t row) {
    for (int i = 0; i < p->parent_strips; i++)
        if (row < p->parent_strip[i].stop || i + 1 == p->parent_strips) return p->parent_strip[i].stride;
    return 1;
}

/* Adds a point to the tile if it is not quiet. Returns whether it did. */
INLINE int look(const ContextPhase *p, Points *w, int64_t row, int64_t column, int stride, int parents, int32_t point) {
    int64_t width = p->columns - 2 * MAP_PAD, beyond = width - column < stride ? width - column : stride;
    int64_t at = (row + MAP_PAD) * p->columns + column + MAP_PAD, right = at + beyond - 1;
    float smooth = p->first ? 0 : smooth_at(p, at, right);
    float activity = smooth * 2 + p->rest[at];
    int32_t rough = log_of(activity + (float)FLOOR_UNITS) - FLOOR_LOG;
    rough = rough < 0 ? 0 : rough < ACTIVITIES ? rough : ACTIVITIES - 1;
    p->mean[point] = 0;
    if (rough < p->quiet) {
        p->scale[point] = p->quiet_scale[rough], p->tail[point] = (int8_t)p->quiet_tail[rough];
        return 0;
    }
    int64_t half = (width + 1) / 2, above = column >> 1 & -(int64_t)parents;
    int k = w->filled++;
    w->point[k] = point, w->rough[k] = rough, w->smooth[k] = smooth, w->at[k] = at, w->right[k] = right;
    w->parent[k] = ((row >> 1) + MAP_PAD) * p->parent_columns + above + MAP_PAD;
    w->parent_right[k] = w->parent[k] + (half - above < parents ? half - above : parents) - 1;
    return 1;
}

static __attribute__((noinline)) int64_t LEVEL(contexts)(const ContextPhase *p) {
    Points w;
    int32_t point = 0;
    int64_t active = 0;
    memset(&w, 0, sizeof w);
    for (int k = 0; k < TILE; k++) w.at[k] = w.right[k] = p->columns + 1, w.parent[k] = w.parent_right[k] = p->parent_columns + 1;
    for (int i = 0; i < p->strips; i++) {
        const Strip *s = &p->strip[i];
        for (int64_t row = s->start + ((p->y ^ s->start) & 1); row < s->stop; row += 2) {
            int parents = parent_stride(p, row >> 1);
            for (int64_t value = p->x; value < s->count; value += 2, point++) {
                if (!look(p, &w, row, value * s->stride, s->stride, parents, point)) continue;
                p->active[active++] = point;
                if (w.filled == TILE) finish_tile(p, &w);
            }
        }
    }
    if (w.filled) finish_tile(p, &w); /* the rest of the tile repeats old points */
    return active;
}
