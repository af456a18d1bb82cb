/* Whether a phase can be computed without leaving a buffer or a type: every index and sum is proven here, once. */
#include "kernels.h"

static const char *check_neighbours(const Phase *p, const Neighbour *at, int count, int what) {
    for (int i = 0; i < count; i++) {
        if (at[i].plane < 0 || at[i].plane > 3) return "a neighbour's plane";
        const Plane *plane = &p->planes[at[i].plane];
        if (!(what ? (const void *)plane->errors : (const void *)plane->values)) return "a plane is missing";
        if (at[i].row < 0 || at[i].column < 0) return "a neighbour's place";
        if (at[i].row + p->rows > plane->rows || at[i].column + p->columns > plane->columns) return "a plane's size";
        for (int k = 0; !what && k < p->proxies; k++)
            if (!plane->proxies[k]) return "a proxy's plane is missing";
    }
    return NULL;
}

static const char *check_network(const Network *net, int inputs) {
    if (net->layers < 1 || net->layers > LAYERS_MAX) return "the number of layers";
    for (int l = 0; l < net->layers; l++) {
        const Layer *layer = &net->layer[l];
        int last = l + 1 == net->layers;
        if (layer->inputs != inputs || layer->outputs < 1 || layer->outputs > WIDTH_MAX) return "a layer's size";
        if (last && layer->outputs != OUTPUTS) return "the number of outputs";
        for (int o = 0; o < layer->outputs; o++) {
            int64_t reach = layer->bias[o] < 0 ? -(int64_t)layer->bias[o] : layer->bias[o];
            for (int i = 0; i < inputs; i++) {
                int v = layer->weight[o * inputs + i];
                reach += 127 * (v < 0 ? -v : v);
            }
            if (reach >= 1 << 24) return "a layer's sums";
            if (!(layer->scale[o] > 0 && layer->scale[o] <= 256)) return "a layer's scale";
        }
        inputs = layer->outputs;
    }
    return NULL;
}

const char *isopress_check_phase(const Phase *p) {
    const Geometry *g = &p->geometry;
    const char *wrong;
    if (p->fields < 1 || p->rows < 1 || p->columns < 1) return "the phase's size";
    if (p->fields > INT64_MAX / 16 / p->rows / p->columns) return "the phase's size";
    if (p->proxies < 0 || p->proxies > PROXIES_MAX) return "the number of proxies";
    if (g->n < 1 || g->n > OFFSETS_MAX || g->near < 0 || g->near > NEAR_MAX || g->wide < 0 || g->wide > WIDE_MAX)
        return "the number of neighbours";
    if ((wrong = check_neighbours(p, g->offsets, g->n, 0))) return wrong;
    if ((wrong = check_neighbours(p, g->near_at, g->near, 1))) return wrong;
    if ((wrong = check_neighbours(p, g->wide_at, g->wide, 1))) return wrong;
    if (p->proxies) {
        const Plane *centre;
        if (g->centre.plane < 0 || g->centre.plane > 3 || g->centre.row < 0 || g->centre.column < 0) return "the centre";
        centre = &p->planes[g->centre.plane];
        if (g->centre.row + p->rows > centre->rows || g->centre.column + p->columns > centre->columns)
            return "a plane's size";
        for (int k = 0; k < p->proxies; k++)
            if (!centre->proxies[k]) return "a proxy's plane is missing";
    }
    return check_network(&p->network, g->n + g->near + 4 + PROXY_FEATURES * p->proxies);
}
