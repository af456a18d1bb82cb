/* The integer network on a tile, written once. Wants DOT2, and where the set has them MULTIPLY4, PAIRS and PACK4, see
   avx2.c. Inputs lie side by side in the 32 bits of a point: two int16 (DOT2), or four uint8 (MULTIPLY4). */

#include <stdlib.h>

enum { NEURONS = 4 }; /* computed at once */

#ifdef MULTIPLY4
enum { GROUP = 4 };
#else
enum { GROUP = 2 };
#endif

typedef struct {
    int32_t groups, rows;
    int32_t *weight; /* (rows / NEURONS, groups, NEURONS) */
    int32_t *bias;   /* (rows,) */
    float *scale;    /* (rows,) */
    uint8_t *runs;   /* (rows / NEURONS, groups + 1): see `cut_runs` */
} PackedLayer;

struct Packed {
    int32_t layers;
    PackedLayer layer[LAYERS_MAX];
};

enum { LANE_MAX = 32767 / 127 }; /* the sum of |weights| that a lane of 16 bits holds times activations */

static int weight_at(const Layer *layer, int output, int input) {
    return output < layer->outputs && input < layer->inputs ? layer->weight[output * layer->inputs + input] : 0;
}

/* Cuts the groups of a block of neurons into runs whose products add up within 16 bits; 0 ends their lengths. */
static void cut_runs(const Layer *layer, int first, int groups, uint8_t *runs) {
    int lane[2 * NEURONS] = {0}, length = 0;
    for (int i = 0; i < groups; i++) {
        int fits = 1, size[2 * NEURONS];
        for (int s = 0; s < 2 * NEURONS; s++) {
            int at = 4 * i + 2 * (s & 1), output = first + s / 2;
            size[s] = abs(weight_at(layer, output, at)) + abs(weight_at(layer, output, at + 1));
            fits &= lane[s] + size[s] <= LANE_MAX;
        }
        if (!fits) *runs++ = (uint8_t)length, length = 0;
        for (int s = 0; s < 2 * NEURONS; s++) lane[s] = size[s] + (length ? lane[s] : 0);
        length++;
    }
    runs[0] = (uint8_t)length, runs[1] = 0;
}

/* Fills a layer: rows are filled up with zeros to whole groups and blocks. */
static void pack_layer(PackedLayer *to, const Layer *layer) {
    int bits = 32 / GROUP;
    for (int o = 0; o < to->rows; o++) {
        to->bias[o] = o < layer->outputs ? layer->bias[o] : 0;
        to->scale[o] = o < layer->outputs ? layer->scale[o] : 0;
        for (int i = 0; i < to->groups; i++) {
            uint32_t word = 0;
            for (int k = 0; k < GROUP; k++)
                word |= ((uint32_t)weight_at(layer, o, GROUP * i + k) & (bits == 16 ? 0xffffu : 0xffu)) << (bits * k);
            to->weight[(o / NEURONS * to->groups + i) * NEURONS + o % NEURONS] = (int32_t)word;
        }
    }
    for (int o = 0; o < to->rows; o += NEURONS)
        cut_runs(layer, o, to->groups, to->runs + o / NEURONS * (to->groups + 1));
}

static Packed *LEVEL(pack)(const Network *from) {
    size_t size = sizeof(Packed);
    int groups[LAYERS_MAX], rows[LAYERS_MAX];
    for (int l = 0; l < from->layers; l++) {
        groups[l] = (from->layer[l].inputs + GROUP - 1) / GROUP;
        rows[l] = (from->layer[l].outputs + NEURONS - 1) / NEURONS * NEURONS;
        size += (size_t)rows[l] * (groups[l] + 2) * 4 + (size_t)rows[l] / NEURONS * (groups[l] + 1) / 4 * 4 + 4;
    }
    Packed *packed = malloc(size);
    if (!packed) return NULL;
    packed->layers = from->layers;
    char *at = (char *)(packed + 1);
    for (int l = 0; l < from->layers; l++) {
        PackedLayer *to = &packed->layer[l];
        to->groups = groups[l], to->rows = rows[l];
        to->weight = (int32_t *)at, at += (size_t)rows[l] * groups[l] * 4;
        to->bias = (int32_t *)at, at += (size_t)rows[l] * 4;
        to->scale = (float *)at, at += (size_t)rows[l] * 4;
        to->runs = (uint8_t *)at, at += (size_t)rows[l] / NEURONS * (groups[l] + 1) / 4 * 4 + 4;
        pack_layer(to, &from->layer[l]);
    }
    return packed;
}

/* Inputs of the first layer have a sign: four int8, of which MULTIPLY4 wants the magnitudes, the sign given to weights. */
#ifdef MULTIPLY4
#define SUMS(NAME, W)                                                                                                \
    INLINE void NAME(const int32_t *weight, const uint8_t *run, const vi (*x)[VECTORS], const vi (*sign)[VECTORS],    \
                     int j, vi sum[NEURONS][NV]) {                                                                    \
        for (; *run; run++) {                                                                                         \
            vs part[NEURONS][NV] = {0};                                                                               \
            for (const int32_t *end = weight + *run * NEURONS; weight < end; weight += NEURONS, x++, sign++)          \
                for (int k = 0; k < NEURONS; k++) {                                                                   \
                    vi w = weight[k] - (vi){0};                                                                       \
                    for (int v = 0; v < NV; v++) part[k][v] += MULTIPLY4(x[0][j + v], W);                             \
                }                                                                                                     \
            for (int k = 0; k < NEURONS; k++)                                                                         \
                for (int v = 0; v < NV; v++) sum[k][v] += PAIRS(part[k][v]);                                          \
        }                                                                                                             \
    }
SUMS(sums_first, SIGN4(w, sign[0][j + v]))
SUMS(sums_next, w)

INLINE void pack_features(const vi (*feature)[VECTORS], int inputs, vi (*x)[VECTORS], vi (*sign)[VECTORS]) {
    for (int i = 0; i < inputs; i += 4)
        for (int j = 0; j < VECTORS; j++) {
            vi word = {0};
            for (int k = 0; k < 4 && i + k < inputs; k++) word |= (feature[i + k][j] & 0xff) << (8 * k);
            sign[i / 4][j] = word, x[i / 4][j] = MAGNITUDE4(word);
        }
}
#else
INLINE void sums(const int32_t *weight, int groups, const vi (*x)[VECTORS], int j, vi sum[NEURONS][NV]) {
    for (int i = 0; i < groups; i++)
        for (int k = 0; k < NEURONS; k++) {
            vi w = weight[i * NEURONS + k] - (vi){0};
            for (int v = 0; v < NV; v++) sum[k][v] = DOT2(sum[k][v], x[i][j + v], w);
        }
}

INLINE void pack_features(const vi (*feature)[VECTORS], int inputs, vi (*x)[VECTORS], vi (*sign)[VECTORS]) {
    (void)sign;
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
    vi x[2][WIDTH_MAX / GROUP][VECTORS], sign[(INPUTS_MAX + GROUP - 1) / GROUP][VECTORS];
    pack_features(feature, inputs, x[0], sign);
    for (int l = 0; l < net->layers; l++) {
        const PackedLayer *layer = &net->layer[l];
        const vi(*in)[VECTORS] = (const vi(*)[VECTORS])x[l & 1];
        vi(*out)[VECTORS] = x[~l & 1];
        int last = l + 1 == net->layers;
        for (int o = 0; o < layer->rows; o += NEURONS) {
            const int32_t *weight = layer->weight + o * layer->groups;
            const float *scale = layer->scale + o;
            for (int j = 0; j < VECTORS; j += NV) {
                vi sum[NEURONS][NV];
                for (int k = 0; k < NEURONS; k++)
                    for (int v = 0; v < NV; v++) sum[k][v] = layer->bias[o + k] - (vi){0};
#ifdef MULTIPLY4
                const uint8_t *runs = layer->runs + o / NEURONS * (layer->groups + 1);
                if (l) sums_next(weight, runs, in, in, j, sum);
                else sums_first(weight, runs, in, (const vi(*)[VECTORS])sign, j, sum);
#else
                sums(weight, layer->groups, in, j, sum);
#endif
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
