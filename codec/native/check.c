/* Whether a phase can be computed without leaving a buffer or a type: every index and sum is proven here. */
#include "kernels.h"

#include <string.h>

static double magnitude(double x) { return x < 0 ? -x : x; }

/* Finds the pairs of opposite neighbours; returns whether every one has its opposite, alike in all but the sign. */
static int pair_up(Geometry *g) {
    int pairs = 0;
    g->rings = 0;
    for (int i = 0; i < g->n; i++) {
        if (g->y[i] > 0 || (g->y[i] == 0 && g->x[i] > 0)) continue;
        for (int k = 0; k < g->n; k++)
            if (k != i && g->y[k] == -g->y[i] && g->x[k] == -g->x[i] && g->weight[k] == g->weight[i] && g->cubic[k] == g->cubic[i] &&
                g->weight_y[k] == -g->weight_y[i] && g->weight_x[k] == -g->weight_x[i] && pairs < OFFSETS_MAX / 2) {
                const int32_t whole[4] = {(int32_t)g->weight_y[i], (int32_t)g->weight_x[i], (int32_t)g->y[i], (int32_t)g->x[i]};
                int32_t weight = (int32_t)g->weight[i], cubic = (int32_t)g->cubic[i], last = g->rings - 1;
                if (!g->rings || g->ring[last].weight != weight || g->ring[last].cubic != cubic)
                    last = g->rings++, g->ring[last].weight = weight, g->ring[last].cubic = cubic;
                g->pair[pairs][0] = i, g->pair[pairs][1] = k;
                memcpy(g->whole[pairs++], whole, sizeof whole);
                g->ring[last].end = pairs;
                break;
            }
    }
    return 2 * pairs == g->n;
}

/* Returns the largest residual, sum of slopes or cubic sum if neighbours differ from one of them by 1 at most. */
static double largest_sum(const Geometry *g) {
    double largest = 0, slope = 0, cubic = g->cubic_divisor;
    for (int i = 0; i < g->n; i++) {
        double residual = 0;
        for (int k = 0; k < g->n; k++) {
            double fit = g->weight[k] * (g->mean + g->y[i] * g->y[k] * g->slope_y + g->x[i] * g->x[k] * g->slope_x);
            residual += magnitude((i == k ? g->denominator : 0) - fit);
        }
        largest = largest > residual ? largest : residual;
        slope += magnitude(g->weight_y[i]) * g->slope_y + magnitude(g->weight_x[i]) * g->slope_x;
        cubic += magnitude(g->cubic[i]);
    }
    largest = largest > slope ? largest : slope;
    return largest > cubic ? largest : cubic;
}

const char *isopress_complete_geometry(Geometry *g) {
    if (g->n < 2 || g->n > OFFSETS_MAX || g->near < 0 || g->near > NEAR_MAX || g->wide < 0 || g->wide > WIDE_MAX)
        return "the number of neighbours";
    for (int i = 0; i <= g->n + g->near + g->wide; i++) {
        const Neighbour *at = &g->seen[i];
        if (at->plane < 0 || at->plane >= PLANES) return "a neighbour's plane";
        if (at->row < 0 || at->row > 2 * PAD || at->column < 0 || at->column > 2 * PAD) return "a neighbour's place";
    }
    for (int i = 0; i < 4; i++)
        if (g->nearest[i] < 0 || g->nearest[i] >= g->n) return "a nearest neighbour";
    if (g->bends < 1 || g->bends > BENDS_MAX) return "the number of bends";
    for (int i = 0; i < g->bends; i++) {
        if (g->bend[i].weight < 1 || g->bend[i].weight > 8) return "the weight of a bend";
        for (int k = 0; k < 4; k++)
            if (g->bend[i].at[k] < 0 || g->bend[i].at[k] >= g->n) return "a neighbour of a bend";
    }
    double weights = 0;
    for (int i = 0; i < g->n; i++) {
        if (!(g->weight[i] >= 1)) return "a neighbour's weight";
        weights += g->weight[i];
    }
    /* Times 2^20 it is an integer of 32 bits. A residual is at most the roughness / its weight, hence as a feature less than
       32 * 17 / 16 (of a bin's middle) * the sum of weights: 16 bits. */
    if (!(weights < 1 << 9)) return "the sum of weights";
    const double constants[] = {g->mean, g->slope_y, g->slope_x, g->denominator, g->cubic_divisor, g->floor};
    for (int i = 0; i < 6; i++)
        if (!(constants[i] >= 1 && constants[i] < 1 << 24) || constants[i] != (int32_t)constants[i]) return "a constant";
    for (int i = 0; i < g->n; i++) {
        const double numbers[] = {g->weight[i], g->weight_y[i], g->weight_x[i], g->y[i], g->x[i], g->cubic[i]};
        for (int k = 0; k < 6; k++)
            if (!(magnitude(numbers[k]) < 1 << 12) || numbers[k] != (int32_t)numbers[k]) return "a neighbour's weight";
    }
    for (g->cubic_shift = 0; 1 << g->cubic_shift < g->cubic_divisor;) g->cubic_shift++;
    if (1 << g->cubic_shift != g->cubic_divisor || !pair_up(g)) return "neighbours that are not symmetric";
    g->whole_mean = (int32_t)g->mean, g->whole_slope_y = (int32_t)g->slope_y, g->whole_slope_x = (int32_t)g->slope_x;
    g->whole_denominator = (int32_t)g->denominator;
    g->narrow = 1;
    while (g->narrow < 1 << 20 && 2.0 * g->narrow * largest_sum(g) < INT32_MAX) g->narrow *= 2;
    return NULL;
}

const char *isopress_check_network(const Network *net) {
    if (net->layers < 1 || net->layers > LAYERS_MAX) return "the number of layers";
    int inputs = net->layer[0].inputs;
    if (inputs < 1 || inputs > NETWORK_INPUTS_MAX) return "the number of inputs";
    for (int l = 0; l < net->layers; l++) {
        const Layer *layer = &net->layer[l];
        int last = l + 1 == net->layers;
        if (layer->inputs != inputs || layer->outputs < 1 || layer->outputs > WIDTH_MAX) return "a layer's size";
        if (last && layer->outputs != OUTPUTS) return "the number of outputs";
        for (int o = 0; o < layer->outputs; o++) {
            int64_t reach = layer->bias[o] < 0 ? -(int64_t)layer->bias[o] : layer->bias[o];
            for (int i = 0; i < inputs; i++) {
                int v = layer->weight[o * inputs + i];
                if (v == -128) return "a weight";
                reach += 127 * (v < 0 ? -v : v);
            }
            if (reach >= 1 << 24) return "a layer's sums";
            if (!(layer->scale[o] > 0 && layer->scale[o] <= SCALE_MAX)) return "a layer's scale";
        }
        inputs = layer->outputs;
    }
    return NULL;
}

static const char *check_view(const Phase *p, const View *view, const Neighbour *at, int may_be_zeros) {
    if (view->rows < 1 || view->columns < 1 || (!view->at && !may_be_zeros)) return "a plane is missing";
    if (at->column + p->columns > view->columns + 2 * PAD) return "a plane's size";
    return view->columns + 2 * PAD > p->width ? "the width of a row" : NULL;
}

const char *isopress_check_phase(const Phase *p, int inputs) {
    const Geometry *g = p->geometry;
    const Neighbour *errors = g->seen + g->n, *centre = errors + g->near + g->wide;
    const char *wrong = NULL;
    if (p->fields < 1 || p->rows < 1 || p->columns < 1) return "the phase's size";
    if (p->fields > INT64_MAX / 16 / p->rows / p->columns) return "the phase's size";
    if (p->proxies < 0 || p->proxies > PROXIES_MAX) return "the number of proxies";
    for (int i = 0; i < g->n && !wrong; i++) wrong = check_view(p, &p->values[g->seen[i].plane], &g->seen[i], 0);
    for (const Neighbour *at = errors; at < centre && !wrong; at++) wrong = check_view(p, &p->errors[at->plane], at, 1);
    for (int k = 0; k < p->proxies; k++) {
        for (int i = 0; i < g->n && !wrong; i++) wrong = check_view(p, &p->proxy[k][g->seen[i].plane], &g->seen[i], 0);
        if (!wrong) wrong = check_view(p, &p->proxy[k][centre->plane], centre, 0);
    }
    if (wrong) return wrong;
    return inputs == inputs_of(g, p->proxies) ? NULL : "the inputs of the network";
}
