/* The integer network on a tile, written once. Wants DOT2, and where the set has them MULTIPLY4, PAIRS and PACK4, see
   avx2.c. Inputs lie side by side in the 32 bits of a point: two int16 (DOT2), or four uint8 (MULTIPLY4). */

#include <stdlib.h>

enum { NEURONS = 4 }; /* computed at once */

#ifdef MULTIPLY4
enum { GROUP = 4, FEATURE_CENTRE = FEATURE_TOP };
#else
enum { GROUP = 2, FEATURE_CENTRE = 0 };
#endif

/* Groups of inputs whose products add up before they are widened: `count` of them from `from` on; count 0 ends a list. */
typedef struct {
    uint8_t from, count;
} Piece;

typedef struct {
    int32_t groups, rows;
    int32_t *weight; /* of each block of NEURONS, in the order of its pieces: (groups, NEURONS) */
    int32_t *bias;   /* (rows,) */
    float *scale;    /* (rows,) */
    Piece *piece;    /* (rows / NEURONS, pieces_of(groups)) */
} PackedLayer;

struct Packed {
    int32_t layers;
    PackedLayer layer[LAYERS_MAX];
};

enum { LANE_MAX = 32767 }; /* that the products of a piece add up to in a lane of 16 bits */

static size_t pieces_of(int groups) { return 2 * (size_t)groups + 1; }

static int weight_at(const Layer *layer, int output, int input) {
    return output < layer->outputs && input < layer->inputs ? layer->weight[output * layer->inputs + input] : 0;
}

/* Whether sums of a block's products fit into lanes, of inputs 0..top, in whatever order they are added up. */
static int fits(const Layer *layer, int first, int from, int count, int top) {
    for (int lane = 0; lane < 2 * NEURONS; lane++) {
        int above = 0, below = 0;
        for (int i = 4 * from; i < 4 * (from + count); i++) {
            int w = (i & 2) == 2 * (lane & 1) ? weight_at(layer, first + lane / 2, i) : 0;
            if (w > 0) above += w;
            else below -= w;
        }
        if (above * top > LANE_MAX || below * top > LANE_MAX) return 0;
    }
    return 1;
}

/* Packs the weights of a group, or a half of each; returns what follows. */
static int32_t *pack_group(int32_t *to, const Layer *layer, int first, int group, int halves, int half) {
    for (int k = 0; k < NEURONS; k++) {
        uint32_t word = 0;
        for (int b = 0; b < GROUP; b++) {
            int w = weight_at(layer, first + k, GROUP * group + b), part = w / halves;
            if (half) part = w - part;
            word |= ((uint32_t)part & (GROUP == 2 ? 0xffffu : 0xffu)) << (32 / GROUP * b);
        }
        *to++ = (int32_t)word;
    }
    return to;
}

/* Packs a block of neurons: pieces as long as products allow; a group that does not fit counts twice, with halves of
   its weights. Returns what follows. */
static int32_t *pack_block(int32_t *to, Piece *piece, const Layer *layer, int first, int groups, int top) {
    for (int i = 0, count; i < groups; i += count) {
        for (count = 1; i + count < groups && (GROUP == 2 || fits(layer, first, i, count + 1, top));) count++;
        int halves = GROUP == 2 || fits(layer, first, i, count, top) ? 1 : 2;
        for (int half = 0; half < halves; half++) {
            *piece++ = (Piece){(uint8_t)i, (uint8_t)count};
            for (int k = 0; k < count; k++) to = pack_group(to, layer, first, i + k, halves, half);
        }
    }
    *piece = (Piece){0, 0};
    return to;
}

/* Fills a layer: rows are filled up with zeros to whole groups and blocks. Inputs are 0..top, of which `centre` is 0. */
static void pack_layer(PackedLayer *to, const Layer *layer, int top, int centre) {
    int32_t *weight = to->weight;
    for (int o = 0; o < to->rows; o++) {
        to->bias[o] = o < layer->outputs ? layer->bias[o] : 0;
        to->scale[o] = o < layer->outputs ? layer->scale[o] : 0;
        for (int i = 0; i < layer->inputs; i++) to->bias[o] -= centre * weight_at(layer, o, i);
    }
    for (int o = 0; o < to->rows; o += NEURONS)
        weight = pack_block(weight, to->piece + o / NEURONS * pieces_of(to->groups), layer, o, to->groups, top);
}

static Packed *LEVEL(pack)(const Network *from) {
    size_t size = sizeof(Packed);
    int groups[LAYERS_MAX], rows[LAYERS_MAX];
    for (int l = 0; l < from->layers; l++) {
        groups[l] = (from->layer[l].inputs + GROUP - 1) / GROUP;
        rows[l] = (from->layer[l].outputs + NEURONS - 1) / NEURONS * NEURONS;
        size += (size_t)rows[l] * (2 * (size_t)groups[l] + 2) * 4 + (size_t)rows[l] / NEURONS * pieces_of(groups[l]) * sizeof(Piece);
        size = (size + 3) / 4 * 4;
    }
    Packed *packed = malloc(size);
    if (!packed) return NULL;
    packed->layers = from->layers;
    char *at = (char *)(packed + 1);
    for (int l = 0; l < from->layers; l++) {
        PackedLayer *to = &packed->layer[l];
        to->groups = groups[l], to->rows = rows[l];
        to->weight = (int32_t *)at, at += (size_t)rows[l] * 2 * groups[l] * 4;
        to->bias = (int32_t *)at, at += (size_t)rows[l] * 4;
        to->scale = (float *)at, at += (size_t)rows[l] * 4;
        to->piece = (Piece *)at, at += ((size_t)rows[l] / NEURONS * pieces_of(groups[l]) * sizeof(Piece) + 3) / 4 * 4;
        pack_layer(to, &from->layer[l], l ? ACTIVATION_TOP : FEATURE_CENTRE + FEATURE_TOP, l ? 0 : FEATURE_CENTRE);
    }
    return packed;
}

#ifdef MULTIPLY4
/* Adds up the products of a block of neurons; returns the weights of the next. Features come with their centre at 127. */
INLINE const int32_t *sums(const int32_t *weight, const Piece *piece, const vi (*x)[VECTORS], int j, vi sum[NEURONS][NV]) {
    for (; piece->count; piece++) {
        const vi(*at)[VECTORS] = x + piece->from;
        vs part[NEURONS][NV];
        for (int k = 0; k < NEURONS; k++) {
            vi w = *weight++ - (vi){0};
            for (int v = 0; v < NV; v++) part[k][v] = MULTIPLY4(at[0][j + v], w);
        }
        for (int i = 1; i < piece->count; i++)
            for (int k = 0; k < NEURONS; k++) {
                vi w = *weight++ - (vi){0};
                for (int v = 0; v < NV; v++) part[k][v] += MULTIPLY4(at[i][j + v], w);
            }
        for (int k = 0; k < NEURONS; k++)
            for (int v = 0; v < NV; v++) sum[k][v] += PAIRS(part[k][v]);
    }
    return weight;
}

INLINE void pack_features(const vi (*feature)[VECTORS], int inputs, vi (*x)[VECTORS]) {
    for (int i = 0; i < inputs; i += 4)
        for (int j = 0; j < VECTORS; j++) {
            vi word = {0};
            for (int k = 0; k < 4 && i + k < inputs; k++) word |= (feature[i + k][j] + FEATURE_CENTRE) << (8 * k);
            x[i / 4][j] = word;
        }
}
#else
INLINE const int32_t *sums(const int32_t *weight, const Piece *piece, const vi (*x)[VECTORS], int j, vi sum[NEURONS][NV]) {
    for (int i = 0; i < piece->count; i++)
        for (int k = 0; k < NEURONS; k++) {
            vi w = *weight++ - (vi){0};
            for (int v = 0; v < NV; v++) sum[k][v] = DOT2(sum[k][v], x[i][j + v], w);
        }
    return weight;
}

INLINE void pack_features(const vi (*feature)[VECTORS], int inputs, vi (*x)[VECTORS]) {
    for (int i = 0; i < inputs; i += 2)
        for (int j = 0; j < VECTORS; j++) {
            vi low = feature[i][j] & 0xffff;
            x[i / 2][j] = i + 1 < inputs ? low | feature[i + 1][j] << 16 : low;
        }
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

INLINE void run(const Packed *net, const vi (*feature)[VECTORS], int inputs, vi (*output)[VECTORS]) {
    vi x[2][WIDTH_MAX / GROUP][VECTORS];
    pack_features(feature, inputs, x[0]);
    for (int l = 0; l < net->layers; l++) {
        const PackedLayer *layer = &net->layer[l];
        const vi(*in)[VECTORS] = (const vi(*)[VECTORS])x[l & 1];
        vi(*out)[VECTORS] = x[~l & 1];
        int last = l + 1 == net->layers;
        const int32_t *weight = layer->weight, *next = weight;
        for (int o = 0; o < layer->rows; o += NEURONS, weight = next) {
            const Piece *piece = layer->piece + o / NEURONS * pieces_of(layer->groups);
            const float *scale = layer->scale + o;
            for (int j = 0; j < VECTORS; j += NV) {
                vi sum[NEURONS][NV];
                for (int k = 0; k < NEURONS; k++)
                    for (int v = 0; v < NV; v++) sum[k][v] = layer->bias[o + k] - (vi){0};
                next = sums(weight, piece, in, j, sum);
                for (int v = 0; v < NV; v++) {
                    if (last) {
                        output[0][j + v] = scaled(sum[0][v], scale[0], -MEAN_REACH, MEAN_REACH);
                        output[1][j + v] = scaled(sum[1][v], scale[1], -SCALE_REACH, SCALE_REACH);
                        output[2][j + v] = scaled(sum[2][v], scale[2], 0, TAIL_TOP);
                    } else
                        activate(sum, v, scale, out + o / GROUP, j + v);
                }
            }
        }
    }
}
