/* Products, norms and attention of the correction of latents, written once. Included after vectors.h; wants MADD2, which
   adds the products of two int16 side by side to a sum. Floats are operations of binary32 in the order of correction.py. */

enum { COLUMNS = OUT_BLOCK / LANES, POINTS = 12 / COLUMNS }; /* vectors of a block of outputs; points at once: 12 sums in registers */
enum { PIECE = 96, TOGETHER = 8 * POINTS }; /* pairs of weights, and points, that are in the cache together */

typedef int16_t vsh __attribute__((vector_size(VB / 2)));
typedef int32_t word __attribute__((may_alias, aligned(2)));

INLINE vi load_i(const void *from) {
    vi x;
    memcpy(&x, from, sizeof x);
    return x;
}
INLINE vf load_f(const float *from) {
    vf x;
    memcpy(&x, from, sizeof x);
    return x;
}
INLINE vf fill_f(float x) { return x - (vf){0}; }

INLINE vf polynomial_f(vf x, const float *c, int n) {
    vf y = fill_f(c[n - 1]);
    for (int i = n - 2; i >= 0; i--) y = y * x + c[i];
    return y;
}

INLINE vf gelu_f(vf x) {
    static const float c[] = {1.407592f, 0.7327393f, -0.22679299f, 0.15627347f, -0.117204614f, 0.067298606f, -0.043379508f, 0.043590862f, -0.02027177f};
    vf size = (vf)((vi)x & INT32_MAX), reach = fill_f(4.0f), t = MIN_F(size, reach);
    vf h = polynomial_f(t * t * 0.125f - 1.0f, c, sizeof c / sizeof *c);
    return x * 0.5f + (h + (size - t) * 0.5f);
}

/* Of -40..0. */
INLINE vf exp2_f(vf x) {
    static const float c[] = {0.9999999f, 0.69315463f, 0.24014077f, 0.055863284f, 0.008946215f, 0.0018951073f};
    vf whole = (x + ROUND_F) - ROUND_F;
    whole += __builtin_convertvector((vi)(whole > x), vf); /* a true comparison is -1 */
    vf y = polynomial_f(x - whole, c, sizeof c / sizeof *c);
    return (vf)((vi)y + (__builtin_convertvector(whole, vi) << 23));
}

/* Adds to sums the products of POINTS rows of pairs with a block of weights (pairs, OUT_BLOCK, 2). */
INLINE void add_pairs(vi sum[POINTS][COLUMNS], const int16_t *const x[POINTS], const int16_t *weight, int64_t pairs) {
    for (int64_t k = 0; k < pairs; k++) {
        vi w[COLUMNS];
        for (int j = 0; j < COLUMNS; j++) w[j] = load_i(weight + (k * COLUMNS + j) * 2 * LANES);
        for (int p = 0; p < POINTS; p++) {
            vi two = *(const word *)(x[p] + 2 * k) - (vi){0};
            for (int j = 0; j < COLUMNS; j++) sum[p][j] = MADD2(sum[p][j], two, w[j]);
        }
    }
}

/* Writes a block of outputs of one point, of which the first `count` exist. */
INLINE void put_outputs(const ProductJob *p, const vi *sum, int64_t at, int first, int count) {
    vf y[COLUMNS];
    for (int j = 0; j < COLUMNS; j++)
        y[j] = __builtin_convertvector(sum[j], vf) * load_f(p->scale + first + j * LANES) + load_f(p->bias + first + j * LANES);
    if (p->kind == PLAIN) {
        float *out = (float *)p->out + at;
        if (count == OUT_BLOCK) memcpy(out, y, sizeof y);
        else memcpy(out, y, count * sizeof *out);
        return;
    }
    vsh whole[COLUMNS];
    int16_t *out = (int16_t *)p->out + at;
    if (p->kind == GELU_ROUNDED)
        for (int j = 0; j < COLUMNS; j++) y[j] = gelu_f(y[j]) * p->one;
    for (int j = 0; j < COLUMNS; j++) whole[j] = __builtin_convertvector(round_f(y[j], -p->top, p->top), vsh);
    if (count == OUT_BLOCK) memcpy(out, whole, sizeof whole);
    else memcpy(out, whole, count * sizeof *out);
}

/* Points `group`.. of a row of outputs, the last one again where there are no more: adds what some pairs give. */
INLINE void add_group(vi sum[POINTS][COLUMNS], const int16_t *from, int channels, const int16_t *weight, int64_t group, int64_t columns, int64_t pairs) {
    const int16_t *x[POINTS];
    vi held[POINTS][COLUMNS];
    for (int k = 0; k < POINTS; k++) x[k] = from + (group + k < columns ? group + k : columns - 1) * channels;
    memcpy(held, sum, sizeof held);
    add_pairs(held, x, weight, pairs);
    memcpy(sum, held, sizeof held);
}

/* A block of outputs, from `first` on, of up to TOGETHER points of a row. Weights come in pieces that stay in the cache. */
INLINE void product_block(const ProductJob *p, const int16_t *weight, int64_t y, int64_t start, int64_t stop, int first) {
    vi sum[TOGETHER][COLUMNS];
    int64_t columns = p->width - p->side + 1;
    memset(sum, 0, sizeof sum);
    for (int row = 0; row < p->side; row++)
        for (int i = 0; i < p->count; i++) {
            const int16_t *from = p->x[i] + (y + row) * p->width * p->channels[i];
            int64_t pairs = p->side * p->channels[i] / 2;
            for (int64_t k = 0; k < pairs; k += PIECE) {
                int64_t some = pairs - k < PIECE ? pairs - k : PIECE;
                for (int64_t c = start; c < stop; c += POINTS) add_group(sum + (c - start), from + 2 * k, p->channels[i], weight, c, columns, some);
                weight += some * 2 * OUT_BLOCK;
            }
        }
    int count = p->outputs - first < OUT_BLOCK ? p->outputs - first : OUT_BLOCK;
    for (int64_t c = start; c < stop; c++) put_outputs(p, sum[c - start], (y * columns + c) * p->outputs + first, first, count);
}

static __attribute__((noinline)) void LEVEL(product)(const ProductJob *p) {
    int64_t rows = p->height - p->side + 1, columns = p->width - p->side + 1, size = isopress_weights(p) / rounded_up(p->outputs);
    for (int64_t y = 0; y < rows; y++)
        for (int64_t start = 0; start < columns; start += TOGETHER) {
            int64_t stop = start + TOGETHER < columns ? start + TOGETHER : columns;
            for (int first = 0; first < p->outputs; first += OUT_BLOCK) product_block(p, p->weight + first * size, y, start, stop, first);
        }
}

/* Natural logarithm of normal numbers. */
INLINE vf log_f(vf x) {
    static const float c[] = {3.1969782e-07f, 1.4426521f, -0.7203866f, 0.47249952f, -0.32311594f, 0.19042084f, -0.07684872f, 0.014778721f};
    vf mantissa = (vf)(((vi)x & 0x7fffff) | 0x3f800000), whole = __builtin_convertvector(((vi)x >> 23) - 127, vf);
    return (whole + polynomial_f(mantissa - 1.0f, c, sizeof c / sizeof *c)) * 0.6931472f;
}

INLINE int64_t times(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
INLINE int64_t less(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }

static __attribute__((noinline)) void LEVEL(features)(const FeatureJob *p) {
    int values = p->cell * p->cell, vectors = (values + LANES) / LANES; /* of values and one more */
    float d[CELL_MAX * CELL_MAX + LANES] = {0}, factor[CELL_MAX * CELL_MAX + LANES];
    int16_t whole[CELL_MAX * CELL_MAX + LANES];
    for (int i = 0; i < vectors * LANES; i++) factor[i] = i < values ? p->factor : p->beside_factor;
    for (int64_t at = 0; at < p->height * p->width; at++) {
        int64_t y = at / p->width, x = at % p->width, pitch = p->width * p->cell, around = p->around[at];
        const int64_t *from = p->units + y * p->cell * pitch + x * p->cell;
        for (int i = 0; i < p->cell; i++)
            for (int j = 0; j < p->cell; j++) d[i * p->cell + j] = (float)less(times(from[i * pitch + j], p->scale), around);
        d[values] = (float)p->beside[at];
        for (int v = 0; v < vectors; v++) {
            vf part = load_f(d + v * LANES), size = (vf)((vi)part & INT32_MAX) * load_f(factor + v * LANES) + 1.0f;
            vf f = (vf)((vi)log_f(size) | ((vi)part & INT32_MIN));
            vsh rounded = __builtin_convertvector(round_f(f * p->one, -p->top, p->top), vsh);
            memcpy(whole + v * LANES, &rounded, sizeof rounded);
        }
        if (p->channels > values + 1) whole[values + 1] = 0;
        memcpy(p->out + at * p->channels, whole, p->channels * sizeof *whole);
    }
}

static __attribute__((noinline)) void LEVEL(depthwise)(const DepthwiseJob *p) {
    int64_t n = p->channels;
    for (int64_t y = 0; y < p->height; y++)
        for (int64_t x = 0; x < p->width; x++) {
            float *out = p->out + (y * p->width + x) * n;
            memcpy(out, p->bias, n * sizeof *out);
            for (int i = 0; i < 9; i++) {
                int64_t row = y + i / 3 - 1, column = x + i % 3 - 1;
                if (p->wraps) column = (column + p->width) % p->width;
                if (row < 0 || row >= p->height || column < 0 || column >= p->width) continue;
                const float *from = p->x + (row * p->width + column) * n, *weight = p->weight + i * n;
                for (int64_t c = 0; c < n; c++) out[c] += from[c] * weight[c];
            }
        }
}

/* The sum of n values, a power of two: of halves, until one is left. Uses them up. */
INLINE float halved_sum(float *x, int n) {
    for (n /= 2; n; n /= 2)
        for (int i = 0; i < n; i++) x[i] += x[i + n];
    return x[0];
}

INLINE float root_f(float x) { return __builtin_sqrtf(x); }

static __attribute__((noinline)) void LEVEL(norm)(const NormJob *p) {
    int size = 1, n = p->channels;
    while (size < n) size *= 2;
    float d[NORM_MAX], work[NORM_MAX] = {0};
    for (int64_t t = 0; t < p->tokens; t++) {
        const float *x = p->x + t * n;
        memcpy(work, x, n * sizeof *x);
        for (int i = n; i < size; i++) work[i] = 0;
        float mean = halved_sum(work, size) * p->part;
        for (int i = 0; i < n; i++) d[i] = x[i] - mean, work[i] = d[i] * d[i];
        for (int i = n; i < size; i++) work[i] = 0;
        float root = 1.0f / root_f(halved_sum(work, size) * p->part + p->epsilon);
        for (int i = 0; i < n; i++) {
            float y = (d[i] * root * p->weight[i] + p->bias[i]) * p->one;
            y = y < -p->top ? -p->top : y > p->top ? p->top : y;
            p->out[t * n + i] = (int16_t)(int32_t)((y + ROUND_F) - ROUND_F);
        }
    }
}

/* The tokens of one window, and where its parts lie in the scratch. */
typedef struct {
    const AxisWindow *row, *column;
    int64_t tokens, filled;     /* rounded up to OUT_BLOCK */
    int16_t *query, *key, *value, *share;
} Window;

INLINE int64_t token_at(const AttentionJob *p, const Window *w, int64_t t) {
    int64_t y = (w->row->start + t / w->column->size) % p->height, x = (w->column->start + t % w->column->size) % p->width;
    return y * p->width + x;
}

/* Lays keys and values of a head out as weights: keys by blocks of tokens, values by blocks of channels. */
INLINE void pack_window(const AttentionJob *p, const Window *w, int head) {
    int64_t width = rounded_up(p->head), third = (int64_t)p->heads * p->head;
    memset(w->key, 0, 2 * w->filled * width * sizeof *w->key); /* and values, which follow */
    for (int64_t t = 0; t < w->tokens; t++) {
        const int16_t *k = p->qkv + token_at(p, w, t) * 3 * third + third + head * p->head, *v = k + third;
        int16_t *key = w->key + t / OUT_BLOCK * width * OUT_BLOCK + t % OUT_BLOCK * 2;
        int16_t *value = w->value + t / 2 * 2 * OUT_BLOCK + (t & 1);
        for (int i = 0; i < p->head; i++) {
            key[(i / 2 * OUT_BLOCK) * 2 + (i & 1)] = k[i];
            value[i / OUT_BLOCK * w->filled * OUT_BLOCK + i % OUT_BLOCK * 2] = v[i];
        }
    }
}

/* Turns the scores of one token into its shares of all tokens. */
INLINE void share_out(const AttentionJob *p, const Window *w, float *score, int16_t *share) {
    float most = score[0];
    for (int64_t t = 1; t < w->tokens; t++) most = score[t] > most ? score[t] : most;
    for (int64_t t = w->tokens; t < w->filled; t++) score[t] = most;
    int64_t total = 0;
    for (int64_t t = 0; t < w->filled; t += LANES) {
        vf x = load_f(score + t) - most, lowest = fill_f(-40.0f);
        vi e = round_f(exp2_f(MAX_F(x, lowest)) * 32768.0f, 0, 32768.0f);
        vf back = __builtin_convertvector(e, vf);
        memcpy(score + t, &back, sizeof back);
        for (int i = 0; i < LANES; i++) total += t + i < w->tokens ? e[i] : 0;
    }
    float part = p->share / (float)total;
    for (int64_t t = 0; t < w->filled; t += LANES) {
        vsh rounded = __builtin_convertvector(round_f(load_f(score + t) * part, 0, 32767.0f), vsh);
        memcpy(share + t, &rounded, sizeof rounded);
    }
    for (int64_t t = w->tokens; t < w->filled; t++) share[t] = 0;
}

/* Answers up to POINTS tokens of a window, from `first` on, for one head. */
INLINE void answer(const AttentionJob *p, const Window *w, int head, int64_t first) {
    int64_t width = rounded_up(p->head), third = (int64_t)p->heads * p->head, at[POINTS];
    const int16_t *x[POINTS];
    for (int k = 0; k < POINTS; k++) {
        at[k] = token_at(p, w, first + k < w->tokens ? first + k : w->tokens - 1);
        memset(w->query + k * width, 0, width * sizeof *w->query);
        memcpy(w->query + k * width, p->qkv + at[k] * 3 * third + head * p->head, p->head * sizeof *w->query);
        x[k] = w->query + k * width;
    }
    for (int64_t t = 0; t < w->filled; t += OUT_BLOCK) {
        vi sum[POINTS][COLUMNS] = {{{0}}};
        add_pairs(sum, x, w->key + t * width, (p->head + 1) / 2);
        for (int k = 0; k < POINTS; k++)
            for (int j = 0; j < COLUMNS; j++) {
                vf y = __builtin_convertvector(sum[k][j], vf) * p->scale;
                memcpy(p->scores + k * w->filled + t + j * LANES, &y, sizeof y);
            }
    }
    for (int k = 0; k < POINTS; k++) {
        share_out(p, w, p->scores + k * w->filled, w->share + k * w->filled);
        x[k] = w->share + k * w->filled;
    }
    for (int from = 0; from < p->head; from += OUT_BLOCK) {
        vi sum[POINTS][COLUMNS] = {{{0}}};
        add_pairs(sum, x, w->value + from * w->filled, w->filled / 2);
        int count = p->head - from < OUT_BLOCK ? p->head - from : OUT_BLOCK;
        for (int k = 0; k < POINTS && first + k < w->tokens; k++) {
            int64_t t = first + k;
            if (t / w->column->size >= w->row->answered || t % w->column->size >= w->column->answered) continue;
            int16_t whole[OUT_BLOCK];
            for (int j = 0; j < COLUMNS; j++) {
                vsh rounded = __builtin_convertvector(round_f(__builtin_convertvector(sum[k][j], vf) * p->one, -p->top, p->top), vsh);
                memcpy(whole + j * LANES, &rounded, sizeof rounded);
            }
            memcpy(p->out + at[k] * third + head * p->head + from, whole, count * sizeof *whole);
        }
    }
}

static __attribute__((noinline)) void LEVEL(attention)(const AttentionJob *p) {
    int64_t width = rounded_up(p->head);
    for (int i = 0; i < p->rows; i++)
        for (int j = 0; j < p->columns; j++) {
            Window w = {.row = &p->row[i], .column = &p->column[j]};
            w.tokens = (int64_t)w.row->size * w.column->size, w.filled = rounded_up(w.tokens);
            w.query = p->packed, w.key = w.query + QUERIES * width, w.value = w.key + w.filled * width, w.share = w.value + w.filled * width;
            for (int head = 0; head < p->heads; head++) {
                pack_window(p, &w, head);
                for (int64_t first = 0; first < w.tokens; first += POINTS) answer(p, &w, head, first);
            }
        }
}
