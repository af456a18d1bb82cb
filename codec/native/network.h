/* The integer network on a tile, written once. Inputs lie side by side in the 32 bits of a point: two int16, or with PACK4
   and CENTRE4 four uint8. Wants DOT, which adds up their products in 32 bits, and how many neurons' sums are in registers,
   NEURONS_HELD; or MULTIPLY4 and PAIRS, which do in 16 bits what fits there (avx2.c). */

#include <stdlib.h>

enum { NEURONS = 4, SWAPS = 200 }; /* whose activations lie side by side */

#ifdef PACK4
enum { GROUP = 4, FEATURE_CENTRE = FEATURE_TOP };
#else
enum { GROUP = 2, FEATURE_CENTRE = 0 };
#endif
#ifdef DOT
enum { PIECE_MAX = 1, LANE_MAX = INT32_MAX }; /* groups of a piece; what their products add up to, check.c */
#else
enum { PIECE_MAX = 4, LANE_MAX = INT16_MAX };
#endif
enum { GROUPS_MAX = (NETWORK_INPUTS_MAX > WIDTH_MAX ? NETWORK_INPUTS_MAX : WIDTH_MAX) / GROUP + 1 };

/* Groups whose products add up before they are widened: `count` of them, 4, 2 or 1, from `from` on. */
typedef struct {
    int32_t from, count;
} Piece;

/* Weights of a group of inputs that would not fit where those of the other groups of a piece are added up. */
typedef struct {
    int32_t neuron, group, weight;
} Extra;

typedef struct {
    int32_t rows, groups, together, extras; /* pieces are of `together` groups, the last ones of fewer */
    int32_t *weight;                        /* piece by piece: (rows, count) */
    int32_t *bias;                          /* (rows,) */
    float *scale;                           /* (rows,) */
    Extra *extra;
} PackedLayer;

struct Packed {
    int32_t layers;
    int32_t order[GROUP * GROUPS_MAX]; /* which feature each input of the first layer is, if it has weights */
    PackedLayer layer[LAYERS_MAX];
};

static int weight_at(const Layer *layer, int output, int input) {
    return output < layer->outputs && input < layer->inputs ? layer->weight[output * layer->inputs + input] : 0;
}

/* The weights of `count` groups of a neuron, and whether the products with inputs 0..top fit into lanes, in whatever
   order they are added up. */
static int fits(const int8_t *weight, int count, int top) {
    for (int lane = 0; lane < 2; lane++) {
        int above = 0, below = 0;
        for (int i = 0; i < 4 * count; i++) {
            int w = (i & 2) == 2 * lane ? weight[i] : 0;
            if (w > 0) above += w;
            else below -= w;
        }
        if (above * top > LANE_MAX || below * top > LANE_MAX) return 0;
    }
    return 1;
}

static int weigh(const int8_t *weight) {
    int size = 0;
    for (int i = 0; i < 4; i++) size += weight[i] < 0 ? -weight[i] : weight[i];
    return size;
}

/* Moves the weights of groups of a piece to `extra`, the largest first, until products fit. Returns how many were moved. */
static int move_extras(int8_t *weight, int8_t *extra, int count, int top) {
    int moved = 0;
    for (; !fits(weight, count, top); moved++) {
        int largest = 0;
        for (int i = 1; i < count; i++)
            if (weigh(weight + 4 * i) > weigh(weight + 4 * largest)) largest = i;
        memcpy(extra + 4 * largest, weight + 4 * largest, 4), memset(weight + 4 * largest, 0, 4);
    }
    return moved;
}

/* How many neurons have a piece of two groups, or a group, whose products do not fit. */
static int misfits(const int8_t *weight, int outputs, int inputs, int slot, int top) {
    int count = 0, from = slot / 8 * 8, groups = inputs - from < 8 ? 1 : 2;
    for (int o = 0; o < outputs; o++, weight += inputs) {
        count += !fits(weight + from, groups, top);
        for (int i = 0; i < groups; i++) count += !fits(weight + from + 4 * i, 1, top);
    }
    return count;
}

static void swap_inputs(int8_t *weight, int outputs, int inputs, int32_t *order, int a, int b) {
    int32_t other = order[a];
    order[a] = order[b], order[b] = other;
    for (int o = 0; o < outputs; o++, weight += inputs) {
        int8_t w = weight[a];
        weight[a] = weight[b], weight[b] = w;
    }
}

/* Orders the inputs of a layer, whose weights are (outputs, inputs), so that few products do not fit: swaps some and
   keeps what is no worse. */
static void order_inputs(int8_t *weight, int outputs, int inputs, int32_t *order, int top) {
    int32_t wrong[GROUPS_MAX / 2 + 1]; /* by pieces of two groups */
    uint32_t random = 1;
    for (int i = 0; i < inputs; i += 8) wrong[i / 8] = misfits(weight, outputs, inputs, i, top);
    for (int k = 0; k < SWAPS; k++) {
        random = random * 1664525u + 1013904223u;
        int a = (int)((random >> 8) % (uint32_t)inputs), b = (int)((random >> 20) % (uint32_t)inputs);
        if (!(wrong[a / 8] + wrong[b / 8]) || a / 2 == b / 2) continue;
        swap_inputs(weight, outputs, inputs, order, a, b);
        int at_a = misfits(weight, outputs, inputs, a, top), at_b = a / 8 == b / 8 ? at_a : misfits(weight, outputs, inputs, b, top);
        if (at_a + at_b > wrong[a / 8] + wrong[b / 8]) swap_inputs(weight, outputs, inputs, order, a, b);
        else wrong[a / 8] = at_a, wrong[b / 8] = at_b;
    }
}

/* How many of the groups that are left make a piece. */
INLINE int piece_of(int together, int left) {
    while (together > left) together /= 2;
    return together;
}

/* Parts the weights of a neuron into those that are added up in pieces and extras; returns how many groups these are of. */
static int part_neuron(const Layer *layer, int output, int groups, int together, int top, int8_t *weight, int8_t *extra) {
    int moved = 0;
    memset(extra, 0, (size_t)GROUP * groups);
    for (int i = 0; i < GROUP * groups; i++) weight[i] = (int8_t)weight_at(layer, output, i);
    if (GROUP == 4)
        for (int i = 0, n; i < groups; i += n)
            n = piece_of(together, groups - i), moved += move_extras(weight + 4 * i, extra + 4 * i, n, top);
    return moved;
}

/* Chooses the size of pieces that takes the fewest instructions. */
static int choose_together(const Layer *layer, int groups, int top) {
    int8_t weight[GROUP * GROUPS_MAX], extra[GROUP * GROUPS_MAX];
    int best = 1, least = INT32_MAX;
    for (int together = 1; together <= PIECE_MAX; together *= 2) {
        int cost = 0;
        for (int o = 0; o < layer->outputs; o++) cost += 12 * part_neuron(layer, o, groups, together, top, weight, extra);
        for (int i = 0, n; i < groups; i += n) n = piece_of(together, groups - i), cost += layer->outputs * (2 * n + 2);
        if (cost < least) least = cost, best = together;
    }
    return best;
}

static int32_t word_of(const int8_t *weight) {
    uint32_t word = 0;
    for (int b = 0; b < GROUP; b++) word |= ((uint32_t)weight[b] & (GROUP == 2 ? 0xffffu : 0xffu)) << (32 / GROUP * b);
    return (int32_t)word;
}

/* Appends a group of a neuron to the extras: in halves if not even they fit alone. */
static void append_extra(PackedLayer *to, int output, int group, const int8_t *weight, int top) {
    int8_t half[GROUP], rest[GROUP];
    int halves = !fits(weight, 1, top);
    for (int i = 0; i < GROUP; i++) half[i] = (int8_t)(halves ? weight[i] / 2 : 0), rest[i] = (int8_t)(weight[i] - half[i]);
    if (weigh(rest)) to->extra[to->extras++] = (Extra){output, group, word_of(rest)};
    if (weigh(half)) to->extra[to->extras++] = (Extra){output, group, word_of(half)};
}

/* Packs the weights of a neuron, and appends its extras. */
static void pack_neuron(PackedLayer *to, const Layer *layer, int output, int top) {
    int8_t weight[GROUP * GROUPS_MAX], extra[GROUP * GROUPS_MAX];
    part_neuron(layer, output, to->groups, to->together, top, weight, extra);
    for (int i = 0, n; i < to->groups; i += n) {
        n = piece_of(to->together, to->groups - i);
        for (int k = 0; k < n; k++) {
            to->weight[i * to->rows + output * n + k] = word_of(weight + GROUP * (i + k));
            if (GROUP == 4) append_extra(to, output, i + k, extra + GROUP * (i + k), top);
        }
    }
}

/* Fills a layer: rows are filled up with zeros to whole groups and blocks. Inputs are 0..top, of which `centre` is 0. */
static void pack_layer(PackedLayer *to, const Layer *layer, int top, int centre) {
    to->together = choose_together(layer, to->groups, top), to->extras = 0;
    for (int o = 0; o < to->rows; o++) {
        to->bias[o] = o < layer->outputs ? layer->bias[o] : 0;
        to->scale[o] = o < layer->outputs ? layer->scale[o] : 0;
        for (int i = 0; i < layer->inputs; i++) to->bias[o] -= centre * weight_at(layer, o, i);
        pack_neuron(to, layer, o, top);
    }
}

/* Fills the first layer, whose inputs are put in order. */
static void pack_first(Packed *to, const Layer *layer) {
    int8_t weight[WIDTH_MAX * GROUP * GROUPS_MAX];
    int inputs = to->layer[0].groups * GROUP, top = FEATURE_CENTRE + FEATURE_TOP;
    for (int i = 0; i < inputs; i++) to->order[i] = i < layer->inputs ? i : 0;
    for (int o = 0; o < layer->outputs; o++)
        for (int i = 0; i < inputs; i++) weight[o * inputs + i] = (int8_t)weight_at(layer, o, i);
    if (GROUP == 4) order_inputs(weight, layer->outputs, inputs, to->order, top);
    Layer ordered = {inputs, layer->outputs, weight, layer->bias, layer->scale};
    pack_layer(&to->layer[0], &ordered, top, FEATURE_CENTRE);
}

static Packed *LEVEL(pack)(const Network *from) {
    size_t size = sizeof(Packed);
    int groups[LAYERS_MAX], rows[LAYERS_MAX];
    for (int l = 0; l < from->layers; l++) {
        groups[l] = (from->layer[l].inputs + GROUP - 1) / GROUP;
        rows[l] = (from->layer[l].outputs + NEURONS - 1) / NEURONS * NEURONS;
        size += (size_t)rows[l] * (4 * ((size_t)groups[l] + 2) + 2 * groups[l] * sizeof(Extra));
    }
    Packed *packed = malloc(size);
    if (!packed) return NULL;
    packed->layers = from->layers;
    int32_t *at = (int32_t *)(packed + 1);
    for (int l = 0; l < from->layers; l++) {
        PackedLayer *to = &packed->layer[l];
        to->groups = groups[l], to->rows = rows[l];
        to->weight = at, at += (size_t)rows[l] * groups[l];
        to->bias = at, at += rows[l];
        to->scale = (float *)at, at += rows[l];
        to->extra = (Extra *)at;
        if (l) pack_layer(to, &from->layer[l], ACTIVATION_TOP, 0);
        else pack_first(packed, &from->layer[0]);
        at = (int32_t *)(to->extra + to->extras);
    }
    return packed;
}

#ifndef BROADCAST
#define BROADCAST(from) (*(from) - (vi){0})
#endif

#ifdef PACK4
/* Clips features of less than 2^15 and puts them side by side, in the order of the first layer's inputs. */
INLINE void pack_features(const Packed *net, const vi (*feature)[VECTORS], vi (*x)[VECTORS]) {
    for (int i = 0; i < net->layer[0].groups; i++) {
        const int32_t *at = net->order + 4 * i;
        for (int j = 0; j < VECTORS; j++) x[i][j] = CENTRE4(feature[at[0]][j], feature[at[1]][j], feature[at[2]][j], feature[at[3]][j]);
    }
}
#else
INLINE void pack_features(const Packed *net, const vi (*feature)[VECTORS], vi (*x)[VECTORS]) {
    for (int i = 0; i < net->layer[0].groups; i++)
        for (int j = 0; j < VECTORS; j++) x[i][j] = PAIR_CLIPPED(feature[net->order[2 * i]][j], feature[net->order[2 * i + 1]][j]);
}
#endif

INLINE vi scaled(vi sum, float scale, float low, float high) {
    return round_f(__builtin_convertvector(sum, vf) * scale, low, high);
}

/* Puts the activations of NEURONS neurons side by side, as the next layer wants them. */
INLINE void activate(vi sum[NEURONS][NV], int v, const float *scale, vi (*out)[VECTORS], int j) {
#ifdef PACK4
    out[0][j] = PACK4(sum[0][v], sum[1][v], sum[2][v], sum[3][v], scale);
#else
    for (int k = 0; k < NEURONS; k += 2)
        out[k / 2][j] = scaled(sum[k][v], scale[k], 0, ACTIVATION_TOP) | scaled(sum[k + 1][v], scale[k + 1], 0, ACTIVATION_TOP) << 16;
#endif
}

#ifdef DOT
/* Computes the sums of `count` neurons, a constant, in registers. */
INLINE void add_up(int count, const PackedLayer *layer, int neuron, const vi (*x)[VECTORS], int j, vi (*sum)[NV]) {
    const int32_t *weight = layer->weight + neuron;
    for (int k = 0; k < count; k++)
        for (int v = 0; v < NV; v++) sum[k][v] = BROADCAST(layer->bias + neuron + k);
    for (int i = 0; i < layer->groups; i++, weight += layer->rows)
        for (int k = 0; k < count; k++) {
            vi w = BROADCAST(weight + k);
            for (int v = 0; v < NV; v++) sum[k][v] = DOT(sum[k][v], x[i][j + v], w);
        }
}

INLINE void activate_some(int count, const PackedLayer *layer, int neuron, const vi (*x)[VECTORS], int j, vi (*out)[VECTORS]) {
    vi sum[NEURONS_HELD][NV];
    add_up(count, layer, neuron, x, j, sum);
    for (int o = 0; o < count; o += NEURONS)
        for (int v = 0; v < NV; v++) activate(sum + o, v, layer->scale + neuron + o, out + (neuron + o) / GROUP, j + v);
}

/* Computes the activations of a layer. */
INLINE void hidden(const PackedLayer *layer, const vi (*x)[VECTORS], int j, vi (*out)[VECTORS]) {
    int o = 0;
    for (; o + NEURONS_HELD <= layer->rows; o += NEURONS_HELD) activate_some(NEURONS_HELD, layer, o, x, j, out);
    for (; o < layer->rows; o += NEURONS) activate_some(NEURONS, layer, o, x, j, out);
}

/* Computes the sums of the last layer. */
INLINE void sums(const PackedLayer *layer, const vi (*x)[VECTORS], int j, vi (*sum)[NV]) { add_up(NEURONS, layer, 0, x, j, sum); }
#else
/* The sum of the products of `count` groups, a constant. Features come with their centre at 127. */
INLINE vi sum_of_products(int count, const vi (*x)[NV], const vi *w, int v) {
    vs part = MULTIPLY4(x[0][v], w[0]);
    for (int i = 1; i < count; i++) part += MULTIPLY4(x[i][v], w[i]);
    return PAIRS(part);
}

/* Adds the products of a piece, of a constant count, to the sums of all neurons; those of the first one to `bias`. */
INLINE void add_piece(int count, const int32_t *weight, int rows, const vi (*from)[VECTORS], int j, vi (*sum)[NV], const int32_t *bias) {
    vi x[PIECE_MAX][NV], w[PIECE_MAX];
    for (int i = 0; i < count; i++)
        for (int v = 0; v < NV; v++) x[i][v] = from[i][j + v];
#pragma GCC unroll 2
    for (int k = 0; k < rows; k++) {
        for (int i = 0; i < count; i++) w[i] = BROADCAST(weight++);
        for (int v = 0; v < NV; v++) sum[k][v] = (bias ? BROADCAST(bias + k) : sum[k][v]) + sum_of_products(count, (const vi(*)[NV])x, w, v);
    }
}

/* Computes the sums of all neurons of a layer. */
INLINE void sums(const PackedLayer *layer, const vi (*x)[VECTORS], int j, vi (*sum)[NV]) {
    int i = 0, groups = layer->groups, rows = layer->rows;
    const int32_t *weight = layer->weight, *bias = layer->bias;
    if (layer->together == 4 && groups >= 4) {
        add_piece(4, weight, rows, x, j, sum, bias);
        for (i = 4; i + 4 <= groups; i += 4) add_piece(4, weight + i * rows, rows, x + i, j, sum, NULL);
    } else if (layer->together >= 2 && groups >= 2) {
        add_piece(2, weight, rows, x, j, sum, bias), i = 2;
    } else {
        add_piece(1, weight, rows, x, j, sum, bias), i = 1;
    }
    if (layer->together >= 2)
        for (; i + 2 <= groups; i += 2) add_piece(2, weight + i * rows, rows, x + i, j, sum, NULL);
    for (; i < groups; i++) add_piece(1, weight + i * rows, rows, x + i, j, sum, NULL);
    for (const Extra *e = layer->extra, *end = e + layer->extras; e < end; e++)
        add_piece(1, &e->weight, 1, x + e->group, j, sum + e->neuron, NULL);
}

/* Computes the activations of a layer. */
INLINE void hidden(const PackedLayer *layer, const vi (*x)[VECTORS], int j, vi (*out)[VECTORS]) {
    vi sum[WIDTH_MAX][NV];
    sums(layer, x, j, sum);
    for (int o = 0; o < layer->rows; o += NEURONS)
        for (int v = 0; v < NV; v++) activate(sum + o, v, layer->scale + o, out + o / GROUP, j + v);
}
#endif

INLINE void run(const Packed *net, const vi (*feature)[VECTORS], vi (*output)[VECTORS]) {
    vi x[2][GROUPS_MAX][VECTORS], sum[NEURONS][NV];
    int last = net->layers - 1;
    pack_features(net, feature, x[0]);
    for (int l = 0; l < last; l++)
        for (int j = 0; j < VECTORS; j += NV) hidden(&net->layer[l], (const vi(*)[VECTORS])x[l & 1], j, x[~l & 1]);
    const float *scale = net->layer[last].scale;
    for (int j = 0; j < VECTORS; j += NV) {
        sums(&net->layer[last], (const vi(*)[VECTORS])x[last & 1], j, sum);
        for (int v = 0; v < NV; v++) {
            output[0][j + v] = scaled(sum[0][v], scale[0], -MEAN_REACH, MEAN_REACH);
            output[1][j + v] = scaled(sum[1][v], scale[1], -SCALE_REACH, SCALE_REACH);
            output[2][j + v] = scaled(sum[2][v], scale[2], 0, TAIL_TOP);
        }
    }
}
