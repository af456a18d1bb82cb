/* Whether a phase can be computed without leaving a buffer or a type: every index and sum is proven here. */
#include "kernels.h"

const char *isopress_check_geometry(const Geometry *g) {
    if (g->n < 1 || g->n > OFFSETS_MAX || g->near < 0 || g->near > NEAR_MAX || g->wide < 0 || g->wide > WIDE_MAX)
        return "the number of neighbours";
    for (int i = 0; i <= g->n + g->near + g->wide; i++) {
        const Neighbour *at = &g->seen[i];
        if (at->plane < 0 || at->plane >= PLANES) return "a neighbour's plane";
        if (at->row < 0 || at->row > 2 * PAD || at->column < 0 || at->column > 2 * PAD) return "a neighbour's place";
    }
    return NULL;
}

const char *isopress_check_network(const Network *net) {
    if (net->layers < 1 || net->layers > LAYERS_MAX) return "the number of layers";
    int inputs = net->layer[0].inputs;
    if (inputs < 1 || inputs > INPUTS_MAX) return "the number of inputs";
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
