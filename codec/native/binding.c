/* What Python sees of the kernels: buffers in, checked sizes, the GIL released. No algorithm lives here. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

#include "entropy.h"
#include "kernels.h"

enum { HELD_MAX = 64 };

/* Buffers of one call, released together. */
typedef struct {
    Py_buffer view[HELD_MAX];
    int count;
} Held;

static void release(Held *held) {
    while (held->count) PyBuffer_Release(&held->view[--held->count]);
}

/* Returns the memory of a C-contiguous, aligned buffer of exactly `count` items of type `format`; NULL with an
   exception set if it is anything else. */
static void *hold(Held *held, PyObject *object, char format, int64_t count, int writable) {
    if (held->count == HELD_MAX) {
        PyErr_SetString(PyExc_ValueError, "too many buffers");
        return NULL;
    }
    Py_buffer *view = &held->view[held->count];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0))) return NULL;
    held->count++;
    const char *f = view->format ? view->format : "B";
    int same = strlen(f) == 1 && (f[0] == format || (format == 'L' && f[0] == 'Q'));
    if (!same || view->len / view->itemsize != count || (uintptr_t)view->buf % view->itemsize) {
        PyErr_Format(PyExc_ValueError, "a buffer of %zd items of type %s, wanted are %lld of type %c", view->len / view->itemsize,
                     f, (long long)count, format);
        return NULL;
    }
    return view->buf;
}


static int read_planes(Held *held, Phase *p, PyObject *planes) {
    /* Four of (rows, columns, values or None, errors or None, tuple of proxies). */
    for (int i = 0; i < 4; i++) {
        Plane *plane = &p->planes[i];
        PyObject *values, *errors, *proxies;
        long long rows, columns;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(planes, i), "LLOOO!", &rows, &columns, &values, &errors, &PyTuple_Type, &proxies))
            return 0;
        if (rows < 0 || columns < 0 || (columns && rows > INT64_MAX / 16 / columns) ||
            (rows && columns && p->fields > INT64_MAX / 16 / (rows * columns))) {
            PyErr_SetString(PyExc_ValueError, "a plane's size");
            return 0;
        }
        int64_t size = p->fields * rows * columns;
        plane->rows = rows, plane->columns = columns;
        if (values != Py_None && !(plane->values = hold(held, values, 'd', size, 0))) return 0;
        if (errors != Py_None && !(plane->errors = hold(held, errors, 'i', size, 0))) return 0;
        if (PyTuple_GET_SIZE(proxies) > PROXIES_MAX) {
            PyErr_SetString(PyExc_ValueError, "the number of proxies");
            return 0;
        }
        for (int k = 0; k < PyTuple_GET_SIZE(proxies); k++)
            if (!(plane->proxies[k] = hold(held, PyTuple_GET_ITEM(proxies, k), 'd', size, 0))) return 0;
    }
    return 1;
}

static int read_geometry(Held *held, Geometry *g, PyObject *geometry) {
    /* (n, near, wide, first index, places (n + near + wide + 1, 3) int32, reals (6, n) float64, constants (6,) float64,
       residual, error float32, mean float64). */
    PyObject *places, *reals, *constants, *residual, *error, *mean;
    if (!PyArg_ParseTuple(geometry, "iiiiOOOOOO", &g->n, &g->near, &g->wide, &g->first_index, &places, &reals, &constants,
                          &residual, &error, &mean))
        return 0;
    if (g->n < 1 || g->n > OFFSETS_MAX || g->near < 0 || g->near > NEAR_MAX || g->wide < 0 || g->wide > WIDE_MAX) {
        PyErr_SetString(PyExc_ValueError, "the number of neighbours");
        return 0;
    }
    const Neighbour *at = hold(held, places, 'i', 3 * (g->n + g->near + g->wide + 1), 0);
    const double *r = at ? hold(held, reals, 'd', 6 * g->n, 0) : NULL;
    const double *c = r ? hold(held, constants, 'd', 6, 0) : NULL;
    if (!c || !(g->residual = hold(held, residual, 'f', INDEXES, 0)) || !(g->error = hold(held, error, 'f', INDEXES, 0)) ||
        !(g->mean_of = hold(held, mean, 'd', INDEXES, 0)))
        return 0;
    memcpy(g->offsets, at, g->n * sizeof *at);
    memcpy(g->near_at, at + g->n, g->near * sizeof *at);
    memcpy(g->wide_at, at + g->n + g->near, g->wide * sizeof *at);
    g->centre = at[g->n + g->near + g->wide];
    double *const rows[6] = {g->weight, g->weight_y, g->weight_x, g->y, g->x, g->cubic};
    for (int i = 0; i < 6; i++) memcpy(rows[i], r + i * g->n, g->n * sizeof *r);
    g->mean = c[0], g->slope_y = c[1], g->slope_x = c[2], g->denominator = c[3], g->cubic_divisor = c[4], g->floor = c[5];
    return 1;
}

static int read_network(Held *held, Network *net, PyObject *layers) {
    /* Of each layer (inputs, outputs, weight int8, bias int32, scale float32). */
    net->layers = (int32_t)PyTuple_GET_SIZE(layers);
    if (net->layers < 1 || net->layers > LAYERS_MAX) {
        PyErr_SetString(PyExc_ValueError, "the number of layers");
        return 0;
    }
    for (int l = 0; l < net->layers; l++) {
        Layer *layer = &net->layer[l];
        PyObject *weight, *bias, *scale;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(layers, l), "iiOOO", &layer->inputs, &layer->outputs, &weight, &bias, &scale)) return 0;
        if (layer->inputs < 1 || layer->inputs > WIDTH_MAX || layer->outputs < 1 || layer->outputs > WIDTH_MAX) {
            PyErr_SetString(PyExc_ValueError, "a layer's size");
            return 0;
        }
        if (!(layer->weight = hold(held, weight, 'b', layer->inputs * layer->outputs, 0)) ||
            !(layer->bias = hold(held, bias, 'i', layer->outputs, 0)) ||
            !(layer->scale = hold(held, scale, 'f', layer->outputs, 0)))
            return 0;
    }
    return 1;
}

static const Level *level_named(const char *name) {
    for (const Level *const *level = isopress_levels(); *level; level++)
        if (!strcmp((*level)->name, name)) return *level;
    PyErr_Format(PyExc_ValueError, "this machine has no kernels named %s", name);
    return NULL;
}

static PyObject *py_predict(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    PyObject *planes, *geometry, *layers, *value, *scale, *tail, *result = NULL;
    long long fields, rows, columns;
    Phase p;
    Held held = {.count = 0};
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "s(LLL)iO!O!O!OOO", &name, &fields, &rows, &columns, &p.proxies, &PyTuple_Type, &planes, &PyTuple_Type,
                          &geometry, &PyTuple_Type, &layers, &value, &scale, &tail))
        return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    if (fields < 1 || rows < 1 || columns < 1 || rows > INT64_MAX / 16 / columns || fields > INT64_MAX / 16 / (rows * columns) ||
        PyTuple_GET_SIZE(planes) != 4) {
        PyErr_SetString(PyExc_ValueError, "the phase's size");
        return NULL;
    }
    p.fields = fields, p.rows = rows, p.columns = columns;
    int64_t total = fields * rows * columns;
    if (read_planes(&held, &p, planes) && read_geometry(&held, &p.geometry, geometry) && read_network(&held, &p.network, layers) &&
        (p.value = hold(&held, value, 'd', total, 1)) && (p.scale = hold(&held, scale, 'h', total, 1)) &&
        (p.tail = hold(&held, tail, 'b', total, 1))) {
        const char *wrong = isopress_check_phase(&p);
        if (wrong) {
            PyErr_SetString(PyExc_ValueError, wrong);
        } else {
            Py_BEGIN_ALLOW_THREADS level->predict(&p);
            Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
        }
    }
    release(&held);
    return result;
}

/* --- entropy coding ----------------------------------------------------------------------------------------- */

/* Reads (cumulative (288, width) uint32, support (288,) int32, width). */
static int read_tables(Held *held, Tables *t, PyObject *tables) {
    PyObject *cumulative, *support;
    if (!PyArg_ParseTuple(tables, "OOi", &cumulative, &support, &t->width)) return 0;
    if (t->width < 2 || t->width > 1 << 16) {
        PyErr_SetString(PyExc_ValueError, "the width of the tables");
        return 0;
    }
    if (!(t->cumulative = hold(held, cumulative, 'I', (int64_t)TABLES * t->width, 0)) ||
        !(t->support = hold(held, support, 'i', TABLES, 0)))
        return 0;
    const char *wrong = isopress_check_tables(t);
    if (wrong) PyErr_SetString(PyExc_ValueError, wrong);
    return !wrong;
}

/* Reads (n, scale, tail, offset, and as scratch order int32, table int16, shift int8). */
static int read_group(Held *held, Group *g, PyObject *group) {
    PyObject *scale, *tail, *order, *table, *shift;
    long long n;
    if (!PyArg_ParseTuple(group, "LOOiOOO", &n, &scale, &tail, &g->offset, &order, &table, &shift)) return 0;
    if (n < 0 || n > INT32_MAX || g->offset < -1024 || g->offset > 1024) {
        PyErr_SetString(PyExc_ValueError, "the number of symbols, or the offset");
        return 0;
    }
    g->n = n;
    return (g->scale = hold(held, scale, 'h', n, 0)) && (g->tail = hold(held, tail, 'b', n, 0)) &&
           (g->order = hold(held, order, 'i', n, 1)) && (g->table = hold(held, table, 'h', n, 1)) &&
           (g->shift = hold(held, shift, 'b', n, 1));
}

static PyObject *py_encode_phase(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *state, *group, *tables, *symbols, *words, *excess, *result = NULL;
    Held held = {.count = 0};
    Group g;
    Tables t;
    if (!PyArg_ParseTuple(args, "OO!O!OOO", &state, &PyTuple_Type, &group, &PyTuple_Type, &tables, &symbols, &words, &excess))
        return NULL;
    Encoder *coder = hold(&held, state, 'L', 4, 1);
    const int32_t *s;
    uint32_t *w;
    int32_t *e;
    if (coder && read_group(&held, &g, group) && read_tables(&held, &t, tables) && (s = hold(&held, symbols, 'i', g.n, 0)) &&
        coder->inverted <= INT32_MAX && (w = hold(&held, words, 'I', g.n + (int64_t)coder->inverted + 1, 1)) &&
        (e = hold(&held, excess, 'i', g.n, 1))) {
        int64_t escapes = 0, written = 0;
        int top;
        Py_BEGIN_ALLOW_THREADS top = isopress_group(&g);
        if (top >= 0) written = isopress_encode_phase(coder, &g, &t, s, w, e, &escapes);
        Py_END_ALLOW_THREADS if (top < 0) PyErr_SetString(PyExc_ValueError, "a tail class");
        else result = Py_BuildValue("LLi", (long long)written, (long long)escapes, top);
    }
    if (!result && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "the state of the coder");
    release(&held);
    return result;
}

static PyObject *py_decode_phase(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *state, *group, *tables, *words, *symbols, *escaped, *result = NULL;
    long long count;
    Held held = {.count = 0};
    Group g;
    Tables t;
    if (!PyArg_ParseTuple(args, "OO!O!OLOO", &state, &PyTuple_Type, &group, &PyTuple_Type, &tables, &words, &count, &symbols, &escaped))
        return NULL;
    Decoder *coder = hold(&held, state, 'L', 4, 1);
    const uint32_t *w;
    int32_t *s, *e;
    if (coder && read_group(&held, &g, group) && read_tables(&held, &t, tables) && (w = hold(&held, words, 'I', count, 0)) &&
        (s = hold(&held, symbols, 'i', g.n, 1)) && (e = hold(&held, escaped, 'i', g.n, 1)) && coder->range >= (uint64_t)1 << 32) {
        int64_t escapes = 0;
        int top;
        Py_BEGIN_ALLOW_THREADS top = isopress_group(&g);
        if (top >= 0) escapes = isopress_decode_phase(coder, &g, &t, w, (uint64_t)count, s, e);
        Py_END_ALLOW_THREADS if (top < 0) PyErr_SetString(PyExc_ValueError, "a tail class");
        else result = Py_BuildValue("Li", (long long)escapes, top);
    }
    if (!result && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "the state of the coder");
    release(&held);
    return result;
}

/* Holds a distribution: cumulative (size + 1,) uint32, or None for 2^bits equal integers. */
static int read_row(Held *held, PyObject *cumulative, int32_t *size, int32_t bits, const uint32_t **row) {
    *row = NULL;
    if (cumulative == Py_None) {
        *size = bits >= 0 && bits <= PRECISION ? 1 << bits : 0;
    } else {
        if (*size < 1 || *size > 1 << 20 || !(*row = hold(held, cumulative, 'I', (int64_t)*size + 1, 0))) *size = 0;
        for (int i = 0; i < *size; i++)
            if ((*row)[i] >= (*row)[i + 1] || (*row)[*size] != 1u << PRECISION || (*row)[0]) *size = 0;
    }
    if (!*size && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a distribution");
    return *size > 0;
}

static PyObject *py_encode_row(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *state, *integers, *cumulative, *words, *result = NULL;
    long long n;
    int32_t size, bits;
    const uint32_t *row;
    Held held = {.count = 0};
    if (!PyArg_ParseTuple(args, "OLOOiiO", &state, &n, &integers, &cumulative, &size, &bits, &words)) return NULL;
    Encoder *coder = hold(&held, state, 'L', 4, 1);
    const int32_t *k;
    uint32_t *w;
    if (coder && n >= 0 && n <= INT32_MAX && coder->inverted <= INT32_MAX && read_row(&held, cumulative, &size, bits, &row) &&
        (k = hold(&held, integers, 'i', n, 0)) && (w = hold(&held, words, 'I', n + (int64_t)coder->inverted + 1, 1))) {
        int inside = 1;
        for (int64_t i = 0; i < n; i++) inside &= k[i] >= 0 && k[i] < size;
        if (inside) result = PyLong_FromLongLong(isopress_encode_row(coder, n, k, row, bits, w));
    }
    if (!result && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "an integer, or the state of the coder");
    release(&held);
    return result;
}

static PyObject *py_decode_row(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *state, *integers, *cumulative, *words, *result = NULL;
    long long n, count;
    int32_t size, bits;
    const uint32_t *row;
    Held held = {.count = 0};
    if (!PyArg_ParseTuple(args, "OLOOiiOL", &state, &n, &integers, &cumulative, &size, &bits, &words, &count)) return NULL;
    Decoder *coder = hold(&held, state, 'L', 4, 1);
    const uint32_t *w;
    int32_t *k;
    if (coder && coder->range >= (uint64_t)1 << 32 && read_row(&held, cumulative, &size, bits, &row) &&
        (k = hold(&held, integers, 'i', n, 1)) && (w = hold(&held, words, 'I', count, 0)))
        result = PyLong_FromLong(isopress_decode_row(coder, n, k, row, size, bits, w, (uint64_t)count));
    if (!result && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "the state of the coder");
    release(&held);
    return result;
}

static PyObject *py_levels(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    PyObject *list = PyList_New(0);
    for (const Level *const *level = isopress_levels(); list && *level; level++) {
        PyObject *name = PyUnicode_FromString((*level)->name);
        if (!name || PyList_Append(list, name)) Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyMethodDef methods[] = {
    {"levels", py_levels, METH_NOARGS, "Names of the instruction sets that can be used here, best first."},
    {"predict", py_predict, METH_VARARGS, "Predict one phase; see isopress.codec.native."},
    {"encode_phase", py_encode_phase, METH_VARARGS, "Range-code the symbols of a phase."},
    {"decode_phase", py_decode_phase, METH_VARARGS, "Decode the symbols of a phase."},
    {"encode_row", py_encode_row, METH_VARARGS, "Range-code integers of one distribution."},
    {"decode_row", py_decode_row, METH_VARARGS, "Decode integers of one distribution."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
