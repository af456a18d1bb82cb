/* The integer network on a tile, written once. Included before predict.h's own code would need it; wants DOT2, and
   where the set has it DOT4, see avx2.c. Inputs lie side by side in the 32 bits of a point: two int16 (DOT2), or four
   uint8 (DOT4, hidden layers alone: their inputs are 0..127, so that no pair of products leaves int16). */

enum { NEURONS = 4 }; /* computed at once */

typedef struct {
    int32_t layers, pairs[LAYERS_MAX], outputs[LAYERS_MAX];
    int32_t weight[LAYERS_MAX][WIDTH_MAX * WIDTH_MAX / 2]; /* (outputs, pairs or quads) */
    int32_t bias[LAYERS_MAX][WIDTH_MAX];
    float scale[LAYERS_MAX][WIDTH_MAX];
} Packed;

#ifdef DOT4
#define GROUP(layer) ((layer) ? 4 : 2)
#else
#define GROUP(layer) 2
#endif

/* Lays weights out as the dot products want them, rows filled up with zeros to whole groups and blocks. */
static void pack(Packed *to, const Network *from) {
    to->layers = from->layers;
    for (int l = 0; l < from->layers; l++) {
        const Layer *layer = &from->layer[l];
        int group = GROUP(l), bits = 32 / group, groups = (layer->inputs + group - 1) / group;
        int rows = (layer->outputs + NEURONS - 1) / NEURONS * NEURONS;
        to->pairs[l] = groups, to->outputs[l] = rows;
        for (int o = 0; o < rows; o++) {
            to->bias[l][o] = o < layer->outputs ? layer->bias[o] : 0;
            to->scale[l][o] = o < layer->outputs ? layer->scale[o] : 0;
            for (int i = 0; i < groups; i++) {
                uint32_t word = 0;
                for (int k = 0; k < group; k++) {
                    int at = group * i + k;
                    int32_t v = o < layer->outputs && at < layer->inputs ? layer->weight[o * layer->inputs + at] : 0;
                    word |= ((uint32_t)v & (bits == 16 ? 0xffffu : 0xffu)) << (bits * k);
                }
                to->weight[l][o * groups + i] = (int32_t)word;
            }
        }
    }
}

/* Sums of NEURONS neurons from `o` on, for NV vectors of points. */
#define SUMS(NAME, DOT)                                                                                              \
    INLINE void NAME(const int32_t *weight, const int32_t *bias, int groups, const vi (*x)[VECTORS], int j,        \
                     vi sum[NEURONS][NV]) {                                                                          \
        for (int k = 0; k < NEURONS; k++)                                                                            \
            for (int v = 0; v < NV; v++) sum[k][v] = bias[k] - (vi){0};                                              \
        for (int i = 0; i < groups; i++)                                                                             \
            for (int k = 0; k < NEURONS; k++) {                                                                      \
                vi w = weight[k * groups + i] - (vi){0};                                                             \
                for (int v = 0; v < NV; v++) sum[k][v] = DOT(sum[k][v], x[i][j + v], w);                             \
            }                                                                                                        \
    }
SUMS(sums2, DOT2)
#ifdef DOT4
SUMS(sums4, DOT4)
#endif

/* Puts the inputs of the first layer side by side. */
INLINE void pack_features(const vi (*feature)[VECTORS], int inputs, vi (*x)[VECTORS]) {
    for (int i = 0; i < inputs; i += 2)
        for (int j = 0; j < VECTORS; j++) {
            vi low = feature[i][j] & 0xffff;
            x[i / 2][j] = i + 1 < inputs ? low | feature[i + 1][j] << 16 : low;
        }
}

INLINE vi scaled(vi sum, float scale, float low, float high) {
    return round_f(__builtin_convertvector(sum, vf) * scale, low, high);
}

INLINE void run(const Packed *net, const vi (*feature)[VECTORS], int inputs, vi (*output)[VECTORS]) {
    vi x[2][WIDTH_MAX / 2][VECTORS];
    pack_features(feature, inputs, x[0]);
    for (int l = 0; l < net->layers; l++) {
        const vi(*in)[VECTORS] = (const vi(*)[VECTORS])x[l & 1];
        vi(*out)[VECTORS] = x[~l & 1];
        int last = l + 1 == net->layers, groups = net->pairs[l], next = GROUP(l + 1), bits = 32 / next;
        for (int o = 0; o < net->outputs[l]; o += NEURONS) {
            const int32_t *weight = net->weight[l] + o * groups, *bias = net->bias[l] + o;
            const float *scale = net->scale[l] + o;
            for (int j = 0; j < VECTORS; j += NV) {
                vi sum[NEURONS][NV];
#ifdef DOT4
                if (l) sums4(weight, bias, groups, in, j, sum);
                else
#endif
                    sums2(weight, bias, groups, in, j, sum);
                for (int v = 0; v < NV; v++) {
                    if (last) {
                        output[0][j + v] = scaled(sum[0][v], scale[0], -MEAN_REACH, MEAN_REACH);
                        output[1][j + v] = scaled(sum[1][v], scale[1], -SCALE_REACH, SCALE_REACH);
                        output[2][j + v] = scaled(sum[2][v], scale[2], 0, TAIL_TOP);
                    } else
                        for (int k = 0; k < NEURONS; k += next) {
                            vi word = {0};
                            for (int m = 0; m < next; m++)
                                word |= scaled(sum[k + m][v], scale[k + m], 0, ACTIVATION_TOP) << (bits * m);
                            out[(o + k) / next][j + v] = word;
                        }
                }
            }
        }
    }
}
