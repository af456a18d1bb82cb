/* What Python sees of the kernels: buffers in, checked sizes, the GIL released. No algorithm lives here. What is used
   again and again (geometry, networks, tables, streams) is checked once and kept in capsules. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

#include "references.h"
#include "symbols.h"
#include "values.h"
#include "walk.h"

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
    int same = strlen(f) == 1 && (f[0] == format || (format == 'L' && f[0] == 'Q') || (format == 'l' && f[0] == 'q'));
    if (!same || view->len / view->itemsize != count || (uintptr_t)view->buf % view->itemsize) {
        PyErr_Format(PyExc_ValueError, "a buffer of %zd items of type %s, wanted are %lld of type %c", view->len / view->itemsize,
                     f, (long long)count, format);
        return NULL;
    }
    return view->buf;
}

/* --- capsules: what was checked once ---------------------------------------------------------------------------- */

#define GEOMETRY "isopress.geometry"
#define NETWORK "isopress.network"
#define TABLES_NAME "isopress.tables"
#define WRITER "isopress.writer"
#define READER "isopress.reader"
#define CONTEXT_PLAN "isopress.context_plan"

typedef struct {
    const Level *level;
    Packed *packed;
    int inputs;
} HeldNetwork;

/* A reader and the bytes that it reads. */
typedef struct {
    Reader reader;
    Py_buffer words, escapes;
} HeldReader;

static void free_plain(PyObject *capsule) { PyMem_Free(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))); }

static void free_network(PyObject *capsule) {
    HeldNetwork *network = PyCapsule_GetPointer(capsule, NETWORK);
    free(network->packed);
    PyMem_Free(network);
}

static void free_writer(PyObject *capsule) {
    Writer *writer = PyCapsule_GetPointer(capsule, WRITER);
    free(writer->words), free(writer->escapes);
    PyMem_Free(writer);
}

static void free_reader(PyObject *capsule) {
    HeldReader *reader = PyCapsule_GetPointer(capsule, READER);
    PyBuffer_Release(&reader->words), PyBuffer_Release(&reader->escapes);
    PyMem_Free(reader);
}

/* Returns a capsule that owns `memory`, freed where that fails. */
static PyObject *capsule_of(void *memory, const char *name, PyCapsule_Destructor destructor) {
    PyObject *capsule = PyCapsule_New(memory, name, destructor);
    if (!capsule) PyMem_Free(memory);
    return capsule;
}

static void *wrong_argument(const char *what) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

static const Level *level_named(const char *name) {
    for (const Level *const *level = isopress_levels(); *level; level++)
        if (!strcmp((*level)->name, name)) return *level;
    PyErr_Format(PyExc_ValueError, "this machine has no kernels named %s", name);
    return NULL;
}

/* (n, near, wide, bends, first index, places (n + near + wide + 1, 3), nearest (4,), bends (bends, 5) int32, reals (6, n) float64, constants (6,) float64,
   residual, error float32, mean float64 (INDEXES,)) -> geometry of a phase */
static PyObject *py_geometry(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *places, *nearest, *bends, *reals, *constants, *residual, *error, *mean;
    Held held = {.count = 0};
    Geometry *g = PyMem_Calloc(1, sizeof *g);
    if (!g) return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "iiiiiOOOOOOOO", &g->n, &g->near, &g->wide, &g->bends, &g->first_index, &places, &nearest, &bends, &reals,
                          &constants, &residual, &error, &mean))
        goto failed;
    if (g->n < 1 || g->n > OFFSETS_MAX || g->near < 0 || g->near > NEAR_MAX || g->wide < 0 || g->wide > WIDE_MAX || g->bends < 1 ||
        g->bends > BENDS_MAX) {
        wrong_argument("the number of neighbours");
        goto failed;
    }
    int seen = g->n + g->near + g->wide + 1;
    const void *at = hold(&held, places, 'i', 3 * seen, 0), *c = hold(&held, constants, 'd', 6, 0);
    const double *r = hold(&held, reals, 'd', 6 * g->n, 0);
    const void *res = hold(&held, residual, 'f', INDEXES, 0), *err = hold(&held, error, 'f', INDEXES, 0);
    const void *mean_of = hold(&held, mean, 'd', INDEXES, 0);
    const void *around = hold(&held, nearest, 'i', 4, 0), *bend = hold(&held, bends, 'i', 5 * g->bends, 0);
    if (!around || !bend || !at || !c || !r || !res || !err || !mean_of) goto failed;
    memcpy(g->nearest, around, sizeof g->nearest);
    memcpy(g->bend, bend, g->bends * sizeof *g->bend);
    memcpy(g->seen, at, seen * sizeof *g->seen);
    double *const rows[6] = {g->weight, g->weight_y, g->weight_x, g->y, g->x, g->cubic}, k[6];
    for (int i = 0; i < 6; i++) memcpy(rows[i], r + i * g->n, g->n * sizeof *r);
    memcpy((void *)k, c, sizeof k);
    g->mean = k[0], g->slope_y = k[1], g->slope_x = k[2], g->denominator = k[3], g->cubic_divisor = k[4], g->floor = k[5];
    memcpy(g->residual, res, sizeof g->residual);
    memcpy(g->error, err, sizeof g->error);
    memcpy(g->mean_of, mean_of, sizeof g->mean_of);
    const char *wrong = isopress_complete_geometry(g);
    release(&held);
    if (!wrong) return capsule_of(g, GEOMETRY, free_plain);
    wrong_argument(wrong);
failed:
    release(&held);
    PyMem_Free(g);
    return NULL;
}

/* Of each layer (inputs, outputs, weight int8, bias int32, scale float32). */
static int read_layers(Held *held, Network *net, PyObject *layers) {
    net->layers = (int32_t)PyTuple_GET_SIZE(layers);
    if (net->layers < 1 || net->layers > LAYERS_MAX) return wrong_argument("the number of layers") != NULL;
    for (int l = 0; l < net->layers; l++) {
        Layer *layer = &net->layer[l];
        PyObject *weight, *bias, *scale;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(layers, l), "iiOOO", &layer->inputs, &layer->outputs, &weight, &bias, &scale)) return 0;
        if (layer->inputs < 1 || layer->inputs > WIDTH_MAX || layer->outputs < 1 || layer->outputs > WIDTH_MAX)
            return wrong_argument("a layer's size") != NULL;
        if (!(layer->weight = hold(held, weight, 'b', layer->inputs * layer->outputs, 0)) ||
            !(layer->bias = hold(held, bias, 'i', layer->outputs, 0)) ||
            !(layer->scale = hold(held, scale, 'f', layer->outputs, 0)))
            return 0;
    }
    return 1;
}

/* (level, layers) -> a network as the kernels of this level want it */
static PyObject *py_network(PyObject *self, PyObject *args) {
    (void)self;
    const char *name, *wrong;
    PyObject *layers, *result = NULL;
    Network net;
    Held held = {.count = 0};
    if (!PyArg_ParseTuple(args, "sO!", &name, &PyTuple_Type, &layers)) return NULL;
    const Level *level = level_named(name);
    if (level && read_layers(&held, &net, layers)) {
        if ((wrong = isopress_check_network(&net))) {
            wrong_argument(wrong);
        } else {
            HeldNetwork *network = PyMem_Malloc(sizeof *network);
            Packed *packed = level->pack(&net);
            if (network && packed) *network = (HeldNetwork){level, packed, net.layer[0].inputs};
            if (network && packed) result = capsule_of(network, NETWORK, free_network);
            else PyErr_NoMemory();
            if (!result) free(packed);
            if (!packed) PyMem_Free(network);
        }
    }
    release(&held);
    return result;
}

enum { TABLE_PARTS = 9 };

static void set_parts(Tables *t, const void *const from[TABLE_PARTS]) {
    t->cumulative = from[0], t->support = from[1], t->cost = from[2], t->offsets[0] = from[3], t->offsets[1] = from[4];
    t->rates = from[5], t->runs = from[6], t->others = from[7], t->limits = from[8];
}

/* (width, reach, cumulative (288, width) uint32, support (288,) int32, cost (288, reach + 1) int32, and as uint32 two
   distributions of offsets (64,), then those of rates (24, 25), runs (24, 66), other symbols (5,) and limits (8,))
   -> tables; they are copied */
static PyObject *py_tables(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *parts[TABLE_PARTS], *result = NULL;
    int32_t width, reach;
    Held held = {.count = 0};
    if (!PyArg_ParseTuple(args, "iiOOOOOOOOO", &width, &reach, &parts[0], &parts[1], &parts[2], &parts[3], &parts[4], &parts[5],
                          &parts[6], &parts[7], &parts[8]))
        return NULL;
    if (width < 2 || width > 1 << 16 || reach < 1 || reach > 1 << 16) return wrong_argument("the width of the tables");
    const int64_t sizes[TABLE_PARTS] = {(int64_t)TABLES * width, TABLES, (int64_t)TABLES * (reach + 1), OFFSETS + 1, OFFSETS + 1,
                                        RATES * (RATES + 1), RATES * (LONGEST + 2), OTHERS + 1, CLASSES + 2};
    const char *formats = "IiiIIIIII";
    const void *from[TABLE_PARTS];
    size_t total = sizeof(Tables);
    for (int i = 0; i < TABLE_PARTS; i++) {
        if (!(from[i] = hold(&held, parts[i], formats[i], sizes[i], 0))) goto done;
        total += (size_t)sizes[i] * 4;
    }
    Tables *t = PyMem_Malloc(total);
    if (!t) {
        PyErr_NoMemory();
        goto done;
    }
    char *at = (char *)(t + 1);
    for (int i = 0; i < TABLE_PARTS; at += sizes[i] * 4, i++) from[i] = memcpy(at, from[i], (size_t)sizes[i] * 4);
    t->width = width, t->reach = reach;
    set_parts(t, from);
    const char *wrong = isopress_complete_tables(t);
    if (wrong) {
        wrong_argument(wrong);
        PyMem_Free(t);
    } else {
        result = capsule_of(t, TABLES_NAME, free_plain);
    }
done:
    release(&held);
    return result;
}

/* --- streams -------------------------------------------------------------------------------------------------------- */

static PyObject *py_writer(PyObject *self, PyObject *args) {
    (void)self;
    int peaked;
    if (!PyArg_ParseTuple(args, "p", &peaked)) return NULL;
    Writer *writer = PyMem_Malloc(sizeof *writer);
    if (!writer) return PyErr_NoMemory();
    isopress_begin_writing(writer, peaked);
    return capsule_of(writer, WRITER, free_writer);
}

/* (words, escapes, peaked): bytes of little-endian words, and of escapes */
static PyObject *py_reader(PyObject *self, PyObject *args) {
    (void)self;
    int peaked;
    PyObject *words, *escapes;
    if (!PyArg_ParseTuple(args, "OOp", &words, &escapes, &peaked)) return NULL;
    HeldReader *held = PyMem_Calloc(1, sizeof *held);
    if (!held) return PyErr_NoMemory();
    if (PyObject_GetBuffer(words, &held->words, PyBUF_C_CONTIGUOUS) || PyObject_GetBuffer(escapes, &held->escapes, PyBUF_C_CONTIGUOUS) ||
        held->words.len % 4 || (uintptr_t)held->words.buf % 4) {
        if (held->words.obj) PyBuffer_Release(&held->words);
        if (held->escapes.obj) PyBuffer_Release(&held->escapes);
        PyMem_Free(held);
        return wrong_argument("words of four bytes, aligned");
    }
    isopress_begin_reading(&held->reader, held->words.buf, (uint64_t)held->words.len / 4, held->escapes.buf, held->escapes.len, peaked);
    PyObject *capsule = PyCapsule_New(held, READER, free_reader);
    if (!capsule) PyBuffer_Release(&held->words), PyBuffer_Release(&held->escapes), PyMem_Free(held);
    return capsule;
}

static Reader *reader_of(PyObject *capsule) {
    HeldReader *held = PyCapsule_GetPointer(capsule, READER);
    return held ? &held->reader : NULL;
}

/* (writer) -> (words, escapes), the stream sealed */
static PyObject *py_written(PyObject *self, PyObject *capsule) {
    (void)self;
    Writer *w = PyCapsule_GetPointer(capsule, WRITER);
    if (!w) return NULL;
    if (isopress_seal(w)) return PyErr_NoMemory();
    return Py_BuildValue("y#y#", w->words ? (const char *)w->words : "", (Py_ssize_t)(4 * w->count),
                         w->escapes ? (const char *)w->escapes : "", (Py_ssize_t)w->size);
}

static PyObject *py_exhausted(PyObject *self, PyObject *capsule) {
    (void)self;
    Reader *reader = reader_of(capsule);
    return reader ? PyBool_FromLong(isopress_is_exhausted(reader)) : NULL;
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
    if (!*size) wrong_argument("a distribution");
    return *size > 0;
}

/* (writer, integer, cumulative, size) */
static PyObject *py_write_symbol(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *cumulative, *result = NULL;
    int32_t symbol, size;
    const uint32_t *row;
    Held held = {.count = 0};
    if (!PyArg_ParseTuple(args, "OiOi", &capsule, &symbol, &cumulative, &size)) return NULL;
    Writer *writer = PyCapsule_GetPointer(capsule, WRITER);
    if (writer && read_row(&held, cumulative, &size, 0, &row)) {
        if (symbol < 0 || symbol >= size) wrong_argument("an integer");
        else if (isopress_write_row(writer, 1, &symbol, row, 0)) PyErr_NoMemory();
        else result = Py_NewRef(Py_None);
    }
    release(&held);
    return result;
}

/* (reader, cumulative, size) -> integer, or -1 */
static PyObject *py_read_symbol(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *cumulative, *result = NULL;
    int32_t symbol, size;
    const uint32_t *row;
    Held held = {.count = 0};
    if (!PyArg_ParseTuple(args, "OOi", &capsule, &cumulative, &size)) return NULL;
    Reader *reader = reader_of(capsule);
    if (reader && read_row(&held, cumulative, &size, 0, &row))
        result = PyLong_FromLong(isopress_read_row(reader, 1, &symbol, row, size, 0) ? -1 : symbol);
    release(&held);
    return result;
}

/* (reader or writer, tables, symbols int32, scale int16, tail int8 (n,), corrected) -> outcome */
static PyObject *do_phase(PyObject *args, int reads) {
    PyObject *stream, *tables, *symbols, *scale, *tail, *result = NULL;
    int corrected, outcome = NO_MEMORY;
    Held held = {.count = 0};
    Sorted room = {0};
    if (!PyArg_ParseTuple(args, "OOOOOp", &stream, &tables, &symbols, &scale, &tail, &corrected)) return NULL;
    void *coder = reads ? (void *)reader_of(stream) : PyCapsule_GetPointer(stream, WRITER);
    const Tables *t = coder ? PyCapsule_GetPointer(tables, TABLES_NAME) : NULL;
    int64_t n = t ? PyObject_Length(scale) : -1;
    if (n < 0 || n > INT32_MAX) return wrong_argument("the number of symbols");
    int32_t *s = hold(&held, symbols, 'i', n, reads);
    const int16_t *index = s ? hold(&held, scale, 'h', n, 0) : NULL;
    const int8_t *kind = index ? hold(&held, tail, 'b', n, 0) : NULL;
    if (kind) {
        int fine = 1;
        for (int64_t i = 0; i < n; i++) fine &= kind[i] >= 0 && kind[i] < TAILS;
        if (!fine) {
            wrong_argument("a tail class");
        } else {
            Py_BEGIN_ALLOW_THREADS if (!isopress_make_room(&room, n ? n : 1)) {
                if (reads) outcome = isopress_read_phase(coder, t, n, s, index, kind, corrected, &room);
                else outcome = isopress_write_phase(coder, t, n, s, index, kind, corrected, &room);
            }
            isopress_free_room(&room);
            Py_END_ALLOW_THREADS result = PyLong_FromLong(outcome);
        }
    }
    release(&held);
    return result;
}

static PyObject *py_write_phase(PyObject *self, PyObject *args) {
    (void)self;
    return do_phase(args, 0);
}

static PyObject *py_read_phase(PyObject *self, PyObject *args) {
    (void)self;
    return do_phase(args, 1);
}

/* --- the walk -------------------------------------------------------------------------------------------------------- */

/* Reads per level (width in units, eighths of an octave, network of each phase). */
static int read_levels(Walk *w, const Level *level, PyObject *levels) {
    w->depth = (int32_t)PyTuple_GET_SIZE(levels);
    if (w->depth > DEPTH_MAX) return wrong_argument("the number of levels") != NULL;
    for (int l = 0; l < w->depth; l++) {
        PyObject *networks[PHASES];
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(levels, l), "ii(OOO)", &w->quantum[l], &w->finer[l], &networks[0], &networks[1], &networks[2]))
            return 0;
        if (w->quantum[l] < 1 || w->quantum[l] > UNITS || w->finer[l] < 0 || w->finer[l] > 64) return wrong_argument("the width of a level") != NULL;
        for (int i = 0; i < PHASES; i++) {
            const HeldNetwork *network = PyCapsule_GetPointer(networks[i], NETWORK);
            if (!network) return 0;
            if (network->level != level) return wrong_argument("a network of another level of the kernels") != NULL;
            w->network[l][i] = network->packed, w->inputs[l][i] = network->inputs;
        }
    }
    return 1;
}

/* Reads the capsules of readers or writers: one for all fields, or one each. */
static int read_streams(const Walk *w, PyObject *streams, int reads, void **out) {
    if (PyTuple_GET_SIZE(streams) != w->streams) return wrong_argument("the number of streams") != NULL;
    for (int i = 0; i < w->streams; i++) {
        PyObject *one = PyTuple_GET_ITEM(streams, i);
        if (!(out[i] = reads ? (void *)reader_of(one) : PyCapsule_GetPointer(one, WRITER))) return 0;
    }
    return 1;
}

/* Reads (proxies (fields, height, width) int32, coefficients (fields, COEFFICIENT_SETS, proxies) int8). */
static int read_proxies(Held *held, Walk *w, int64_t total, PyObject *proxies, PyObject *coefficients) {
    w->proxies = (int32_t)PyTuple_GET_SIZE(proxies);
    if (w->proxies > PROXIES_MAX) return wrong_argument("the number of proxies") != NULL;
    for (int k = 0; k < w->proxies; k++)
        if (!(w->proxy[k] = hold(held, PyTuple_GET_ITEM(proxies, k), 'i', total, 0))) return 0;
    return !w->proxies || (w->coefficients = hold(held, coefficients, 'b', w->fields * COEFFICIENT_SETS * w->proxies, 0));
}

/* Reads what is coded: steps, or `single` values that become steps. */
static int read_values(Held *held, Walk *w, int64_t total, PyObject *y, int single) {
    if (single) return (w->single = hold(held, y, 'f', total, 0)) != NULL;
    return (w->y = hold(held, y, 'd', total, 0)) != NULL;
}

static int fields_fit(long long fields, long long height, long long width) {
    return fields >= 1 && height >= 1 && width >= 1 && height <= INT32_MAX / width && fields <= INT32_MAX / (height * width);
}

static int64_t items_of_room(int64_t fields, int64_t height, int64_t width, int32_t proxies, int32_t streams) {
    return (isopress_walk_room(fields, height, width, proxies, streams) + 7) / 8;
}

/* ((fields, height, width), proxies, streams) -> how many int64 a walk wants as its room */
static PyObject *py_walk_room(PyObject *self, PyObject *args) {
    (void)self;
    long long fields, height, width;
    int proxies, streams;
    if (!PyArg_ParseTuple(args, "(LLL)ii", &fields, &height, &width, &proxies, &streams)) return NULL;
    if (!fields_fit(fields, height, width)) return wrong_argument("the size of the fields");
    if (proxies < 0 || proxies > PROXIES_MAX || streams < 1) return wrong_argument("the number of proxies or streams");
    return PyLong_FromLongLong(items_of_room(fields, height, width, proxies, streams));
}

/* (level, reads, (fields, height, width), wrap, snap, geometries, levels, tables, (proxies, coefficients), streams, v,
   None, y in steps, or values (float32) of which (value - offset) / step are y; whether values; offset, step; valid or
   None, room of int64) -> outcome */
static PyObject *py_walk(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    int reads, single, outcome = A_BUG;
    long long fields, height, width;
    PyObject *geometry[PHASES], *levels, *tables, *proxies, *coefficients, *streams, *v, *y, *valid, *room, *result = NULL;
    Held held = {.count = 0};
    Walk w;
    memset(&w, 0, sizeof w);
    if (!PyArg_ParseTuple(args, "sp(LLL)pp(OOO)O!O(O!O)O!OO(pdd)OO", &name, &reads, &fields, &height, &width, &w.wrap, &w.snap, &geometry[0],
                          &geometry[1], &geometry[2], &PyTuple_Type, &levels, &tables, &PyTuple_Type, &proxies, &coefficients,
                          &PyTuple_Type, &streams, &v, &y, &single, &w.offset, &w.step, &valid, &room))
        return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    if (!fields_fit(fields, height, width)) return wrong_argument("the size of the fields");
    w.fields = fields, w.height = height, w.width = width;
    int64_t total = fields * height * width;
    w.streams = (int32_t)PyTuple_GET_SIZE(streams);
    if (w.streams != 1 && w.streams != fields) return wrong_argument("the number of streams");
    for (int i = 0; i < PHASES; i++)
        if (!(w.geometry[i] = PyCapsule_GetPointer(geometry[i], GEOMETRY))) return NULL;
    if (!(w.tables = PyCapsule_GetPointer(tables, TABLES_NAME)) || !read_levels(&w, level, levels)) return NULL;
    void **coders = PyMem_Calloc(w.streams, sizeof *coders);
    if (!coders) return PyErr_NoMemory();
    if (read_streams(&w, streams, reads, coders) && read_proxies(&held, &w, total, proxies, coefficients) &&
        (w.v = hold(&held, v, 'i', total, 1)) && (reads || read_values(&held, &w, total, y, single)) &&
        (valid == Py_None || (w.valid = hold(&held, valid, '?', total, 0))) &&
        (w.room = hold(&held, room, 'l', items_of_room(fields, height, width, w.proxies, w.streams), 1))) {
        if (reads) w.readers = (Reader *const *)coders;
        else w.writers = (Writer *const *)coders;
        Py_BEGIN_ALLOW_THREADS outcome = isopress_walk(level, &w);
        Py_END_ALLOW_THREADS result = PyLong_FromLong(outcome);
    }
    PyMem_Free(coders);
    release(&held);
    return result;
}

/* --- references of blocks -------------------------------------------------------------------------------------------- */

/* (level, decoded (fields, points) int32, fields, points, indexes and weights of terms, exponent, out (points,) int32) */
static PyObject *py_combine(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    long long fields, points;
    PyObject *decoded, *indexes, *weights, *out, *result = NULL;
    Held held = {.count = 0};
    Combination c = {0};
    if (!PyArg_ParseTuple(args, "sOLLO!O!iO", &name, &decoded, &fields, &points, &PyTuple_Type, &indexes, &PyTuple_Type, &weights,
                          &c.exponent, &out))
        return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    c.points = points, c.terms = (int32_t)PyTuple_GET_SIZE(indexes);
    if (fields < 1 || points < 1 || fields > INT64_MAX / points || c.terms < 1 || c.terms > TERMS_MAX ||
        PyTuple_GET_SIZE(weights) != c.terms || c.exponent < -EXPONENT_MAX || c.exponent > EXPONENT_MAX)
        return wrong_argument("the terms of a proxy");
    const int32_t *from = hold(&held, decoded, 'i', fields * points, 0);
    if (from && (c.out = hold(&held, out, 'i', points, 1))) {
        for (int i = 0; i < c.terms; i++) {
            long field = PyLong_AsLong(PyTuple_GET_ITEM(indexes, i)), weight = PyLong_AsLong(PyTuple_GET_ITEM(weights, i));
            if (PyErr_Occurred() || field < 0 || field >= fields || weight < -WEIGHT_MAX || weight > WEIGHT_MAX) {
                wrong_argument("a term of a proxy");
                goto done;
            }
            c.from[i] = from + field * points, c.weight[i] = (int32_t)weight;
        }
        Py_BEGIN_ALLOW_THREADS level->combine(&c);
        Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
    }
done:
    release(&held);
    return result;
}

/* (level, (height, width), y float64, proxies, what is expected (proxies,) int32, logarithms (LOGS,) int32, exponents
   (proxies,) int8, coefficients (FIT_LEVELS, proxies) int8) -> outcome */
static PyObject *py_fit(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    int outcome;
    long long height, width;
    PyObject *y, *proxies, *prior, *logs, *exponent, *coefficient, *result = NULL;
    Held held = {.count = 0};
    Fit f = {0};
    if (!PyArg_ParseTuple(args, "s(LL)OO!OOOO", &name, &height, &width, &y, &PyTuple_Type, &proxies, &prior, &logs, &exponent, &coefficient))
        return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    f.proxies = (int32_t)PyTuple_GET_SIZE(proxies);
    if (height < 1 || width < 1 || height > INT32_MAX / width || f.proxies < 1 || f.proxies > PROXIES_MAX)
        return wrong_argument("the size of a field, or the number of its proxies");
    f.height = height, f.width = width;
    const int32_t *expected = hold(&held, prior, 'i', f.proxies, 0);
    int fine = expected && (f.y = hold(&held, y, 'd', height * width, 0)) && (f.logs = hold(&held, logs, 'i', LOGS, 0)) &&
               (f.exponent = hold(&held, exponent, 'b', f.proxies, 1)) &&
               (f.coefficient = hold(&held, coefficient, 'b', FIT_LEVELS * f.proxies, 1));
    for (int k = 0; fine && k < f.proxies; k++) {
        f.prior[k] = expected[k];
        fine = (f.proxy[k] = hold(&held, PyTuple_GET_ITEM(proxies, k), 'i', height * width, 0)) != NULL;
    }
    if (fine) {
        Py_BEGIN_ALLOW_THREADS outcome = level->fit(&f) ? NO_MEMORY : FINE;
        Py_END_ALLOW_THREADS result = PyLong_FromLong(outcome);
    }
    release(&held);
    return result;
}

/* --- contexts of latents --------------------------------------------------------------------------------------------- */

/* Copies `count` integers of rows of `width` out of a buffer. */
static int copy_rows(Held *held, PyObject *from, int64_t count, int64_t width, int64_t most, void *to) {
    if (count < 0 || count > most) return wrong_argument("the number of features") != NULL;
    const void *rows = hold(held, from, 'i', count * width, 0);
    if (rows) memcpy(to, rows, (size_t)(count * width) * sizeof(int32_t));
    return rows != NULL;
}

/* (slots, numbers of: gathered (n, 4), pooled (n, 6), logs (n, 2); these, scaled (2, 2), all int32) -> plan */
static PyObject *py_context_plan(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *gathered, *pooled, *logs, *scaled, *result = NULL;
    Held held = {.count = 0};
    ContextPlan *p = PyMem_Calloc(1, sizeof *p);
    if (!p) return PyErr_NoMemory();
    if (PyArg_ParseTuple(args, "iiiiOOOO", &p->slots, &p->gathered, &p->pooled, &p->logs, &gathered, &pooled, &logs, &scaled) &&
        copy_rows(&held, gathered, p->gathered, 4, SLOTS_MAX, p->gather) && copy_rows(&held, pooled, p->pooled, 6, POOLS_MAX, p->pool) &&
        copy_rows(&held, logs, p->logs, 2, LOGS_MAX, p->log) && copy_rows(&held, scaled, 2, 2, 2, p->scaled)) {
        const char *wrong = isopress_check_plan(p);
        if (wrong) wrong_argument(wrong);
        else result = capsule_of(p, CONTEXT_PLAN, free_plain), p = NULL; /* the capsule's, or freed */
    }
    release(&held);
    PyMem_Free(p);
    return result;
}

/* Holds the maps that are not None. */
static int hold_maps(Held *held, ContextPhase *p, PyObject *maps) {
    if (PyTuple_GET_SIZE(maps) != CONTEXT_MAPS) return wrong_argument("the number of maps") != NULL;
    for (int i = 0; i < CONTEXT_MAPS; i++) {
        PyObject *map = PyTuple_GET_ITEM(maps, i);
        int is_parent = i >= PARENT_FIRST && i < PARENT_FIRST + PARENT_COUNT;
        int64_t size = is_parent ? p->parent_rows * p->parent_columns : p->rows * p->columns;
        if (map != Py_None && !(p->map[i] = hold(held, map, 'f', size, 0))) return 0;
    }
    return 1;
}

/* (level, plan, network, (rows, columns) of maps and of parents' maps, maps, magnitude, rest, strips (n, 4) int32, parent
   strips likewise, numbers of both, (y, x, first), quiet scale and tail (q,) int16, q, feature and mean (192,) float32,
   points, mean float32, scale int16, tail int8, active int32) -> number of active points */
static PyObject *py_contexts(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    long long rows, columns, parent_rows, parent_columns, n, active;
    PyObject *plan, *network, *maps, *magnitude, *rest, *strips, *parents, *quiet[2], *by_index[2], *out[4], *result = NULL;
    Held held = {.count = 0};
    ContextPhase p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sOO(LLLL)O!OOOOii(iii)OOiOOLOOOO", &name, &plan, &network, &rows, &columns, &parent_rows,
                          &parent_columns, &PyTuple_Type, &maps, &magnitude, &rest, &strips, &parents, &p.strips, &p.parent_strips, &p.y,
                          &p.x, &p.first, &quiet[0], &quiet[1], &p.quiet, &by_index[0], &by_index[1], &n, &out[0], &out[1], &out[2],
                          &out[3]))
        return NULL;
    const Level *level = level_named(name);
    const HeldNetwork *net = level ? PyCapsule_GetPointer(network, NETWORK) : NULL;
    if (!net || !(p.plan = PyCapsule_GetPointer(plan, CONTEXT_PLAN))) return NULL;
    if (net->level != level) return wrong_argument("a network of another level of the kernels");
    if (rows < 1 || columns < 1 || parent_rows < 1 || parent_columns < 1 || rows > INT32_MAX / columns ||
        parent_rows > INT32_MAX / parent_columns || p.strips < 0 || p.parent_strips < 0 || n < 0 || p.quiet < 0)
        return wrong_argument("the size of a map");
    p.network = net->packed, p.rows = rows, p.columns = columns, p.parent_rows = parent_rows, p.parent_columns = parent_columns, p.n = n;
    if (hold_maps(&held, &p, maps) && (p.magnitude = hold(&held, magnitude, 'f', rows * columns, 0)) &&
        (p.rest = hold(&held, rest, 'f', rows * columns, 0)) && (p.strip = hold(&held, strips, 'i', 4 * (int64_t)p.strips, 0)) &&
        (p.parent_strip = hold(&held, parents, 'i', 4 * (int64_t)p.parent_strips, 0)) &&
        (p.quiet_scale = hold(&held, quiet[0], 'h', p.quiet, 0)) && (p.quiet_tail = hold(&held, quiet[1], 'h', p.quiet, 0)) &&
        (p.feature_of = hold(&held, by_index[0], 'f', ACTIVITIES, 0)) && (p.mean_of = hold(&held, by_index[1], 'f', ACTIVITIES, 0)) &&
        (p.mean = hold(&held, out[0], 'f', n, 1)) && (p.scale = hold(&held, out[1], 'h', n, 1)) &&
        (p.tail = hold(&held, out[2], 'b', n, 1)) && (p.active = hold(&held, out[3], 'i', n, 1))) {
        const char *wrong = isopress_check_contexts(&p, net->inputs);
        if (wrong) {
            wrong_argument(wrong);
        } else {
            Py_BEGIN_ALLOW_THREADS active = level->contexts(&p);
            Py_END_ALLOW_THREADS result = PyLong_FromLongLong(active);
        }
    }
    release(&held);
    return result;
}

/* --- maps of latents -------------------------------------------------------------------------------------------------- */

/* Whether a map of this shape has a size; its check says the rest. */
static int is_map(long long rows, long long columns) {
    if (rows >= 1 && columns >= 1 && rows <= INT32_MAX / columns) return 1;
    return wrong_argument("the shape of a map") != NULL;
}

/* Holds strips (n, 4) int32. */
static const Strip *hold_strips(Held *held, PyObject *strips, int n) { return n < 0 ? wrong_argument("the number of strips") : hold(held, strips, 'i', 4 * (int64_t)n, 0); }

/* (level, map float32, other float32 or None, (rows, columns), strips (n, 4) int32, n, circle, out float32) */
static PyObject *py_box(PyObject *self, PyObject *args) {
    (void)self;
    const char *name, *wrong = NULL;
    long long rows, columns;
    PyObject *map, *other, *strips, *out, *result = NULL;
    Held held = {.count = 0};
    BoxJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sOO(LL)OipO", &name, &map, &other, &rows, &columns, &strips, &p.strips, &p.circle, &out)) return NULL;
    const Level *level = level_named(name);
    if (!level || !is_map(rows, columns)) return NULL;
    int64_t size = rows * columns;
    p.rows = rows, p.columns = columns;
    if ((p.from = hold(&held, map, 'f', size, 0)) && (other == Py_None || (p.other = hold(&held, other, 'f', size, 0))) &&
        (p.strip = hold_strips(&held, strips, p.strips)) && (p.to = hold(&held, out, 'f', size, 1))) {
        if ((wrong = isopress_check_box(&p))) {
            wrong_argument(wrong);
        } else if (!(p.line = PyMem_RawMalloc(columns * sizeof *p.line))) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS level->box(&p);
            Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
        }
    }
    PyMem_RawFree(p.line);
    release(&held);
    return result;
}

/* (level, low float64, (rows, columns), strips (n, 4) int32, n, circle, along, across float32, padded zeros) */
static PyObject *py_bends(PyObject *self, PyObject *args) {
    (void)self;
    const char *name, *wrong = NULL;
    long long rows, columns;
    PyObject *low, *strips, *along, *across, *result = NULL;
    Held held = {.count = 0};
    BendJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sO(LL)OipOO", &name, &low, &rows, &columns, &strips, &p.strips, &p.circle, &along, &across)) return NULL;
    const Level *level = level_named(name);
    if (!level || !is_map(rows, columns) || !is_map(rows + 2 * MAP_PAD, columns + 2 * MAP_PAD)) return NULL;
    int64_t size = (rows + 2 * MAP_PAD) * (columns + 2 * MAP_PAD);
    p.rows = rows, p.columns = columns;
    if ((p.low = hold(&held, low, 'd', rows * columns, 0)) && (p.strip = hold_strips(&held, strips, p.strips)) &&
        (p.along = hold(&held, along, 'f', size, 1)) && (p.across = hold(&held, across, 'f', size, 1))) {
        if ((wrong = isopress_check_bends(&p))) {
            wrong_argument(wrong);
        } else if (!(p.row = PyMem_RawMalloc(2 * columns * sizeof *p.row)) || !(p.line = PyMem_RawMalloc(3 * columns * sizeof *p.line))) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS level->bends(&p);
            Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
        }
    }
    PyMem_RawFree(p.row), PyMem_RawFree(p.line);
    release(&held);
    return result;
}

/* (level, (rows, columns), (bend, smoothed parents (3), earlier bands (2), newest, history), float32 each, those of bands and
   channels None if there are none; rest, far float32, the latter zeros) */
static PyObject *py_rest(PyObject *self, PyObject *args) {
    (void)self;
    const char *name, *wrong = NULL;
    long long rows, columns;
    PyObject *map[8], *rest, *far, *result = NULL;
    Held held = {.count = 0};
    RestJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "s(LL)(OOOOOOOO)OO", &name, &rows, &columns, &map[0], &map[1], &map[2], &map[3], &map[4], &map[5], &map[6],
                          &map[7], &rest, &far))
        return NULL;
    const Level *level = level_named(name);
    if (!level || !is_map(rows, columns)) return NULL;
    int64_t size = rows * columns;
    const float **const to[8] = {&p.bend, &p.up[0], &p.up[1], &p.up[2], &p.earlier[0], &p.earlier[1], &p.newest, &p.history};
    p.rows = rows, p.columns = columns;
    for (int i = 0; i < 8; i++)
        if ((i < 4 || map[i] != Py_None) && !(*to[i] = hold(&held, map[i], 'f', size, 0))) goto done;
    if ((p.rest = hold(&held, rest, 'f', size, 1)) && (p.far = hold(&held, far, 'f', size, 1))) {
        if ((wrong = isopress_check_rest(&p))) {
            wrong_argument(wrong);
        } else if (!(p.line = PyMem_RawMalloc(columns * sizeof *p.line))) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS level->rest(&p);
            Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
        }
    }
done:
    PyMem_RawFree(p.line);
    release(&held);
    return result;
}

/* (level, map float32, (rows, columns), circle, out float32, (rows, columns)) */
static PyObject *py_upsample(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    long long parent_rows, parent_columns, rows, columns;
    PyObject *map, *out, *result = NULL;
    Held held = {.count = 0};
    UpsampleJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sO(LL)pO(LL)", &name, &map, &parent_rows, &parent_columns, &p.circle, &out, &rows, &columns)) return NULL;
    const Level *level = level_named(name);
    if (!level || !is_map(rows, columns) || !is_map(parent_rows, parent_columns)) return NULL;
    p.rows = rows, p.columns = columns, p.parent_rows = parent_rows, p.parent_columns = parent_columns;
    const char *wrong = isopress_check_upsample(&p);
    if (wrong) return wrong_argument(wrong);
    if ((p.from = hold(&held, map, 'f', parent_rows * parent_columns, 0)) && (p.to = hold(&held, out, 'f', rows * columns, 1))) {
        Py_BEGIN_ALLOW_THREADS level->upsample(&p);
        Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
    }
    release(&held);
    return result;
}

/* (level, mean float32, symbols int32 (n,), n, strips (n, 4) int32, their number, (y, x, circle), own, magnitude float32,
   (rows, columns)) */
static PyObject *py_enter(PyObject *self, PyObject *args) {
    (void)self;
    const char *name, *wrong = NULL;
    long long n, rows, columns;
    PyObject *mean, *symbols, *strips, *own, *magnitude, *result = NULL;
    Held held = {.count = 0};
    EnterJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sOOLOi(iip)OO(LL)", &name, &mean, &symbols, &n, &strips, &p.strips, &p.y, &p.x, &p.circle, &own, &magnitude,
                          &rows, &columns))
        return NULL;
    const Level *level = level_named(name);
    if (!level || !is_map(rows, columns)) return NULL;
    p.rows = rows, p.columns = columns, p.n = n;
    if ((p.mean = hold(&held, mean, 'f', n, 0)) && (p.symbols = hold(&held, symbols, 'i', n, 0)) &&
        (p.strip = hold_strips(&held, strips, p.strips)) && (p.own = hold(&held, own, 'f', rows * columns, 1)) &&
        (p.magnitude = hold(&held, magnitude, 'f', rows * columns, 1))) {
        if ((wrong = isopress_check_enter(&p))) {
            wrong_argument(wrong);
        } else {
            Py_BEGIN_ALLOW_THREADS level->enter(&p);
            Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
        }
    }
    release(&held);
    return result;
}

/* (level, map float32, (rows, columns), strips (n, 4) int32, n, parity y, x, out float32 (m,), m) */
static PyObject *py_take(PyObject *self, PyObject *args) {
    (void)self;
    const char *name, *wrong = NULL;
    long long n, rows, columns;
    PyObject *map, *strips, *out, *result = NULL;
    Held held = {.count = 0};
    TakeJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sO(LL)OiiiOL", &name, &map, &rows, &columns, &strips, &p.strips, &p.y, &p.x, &out, &n)) return NULL;
    const Level *level = level_named(name);
    if (!level || !is_map(rows, columns)) return NULL;
    p.rows = rows, p.columns = columns, p.n = n;
    if ((p.from = hold(&held, map, 'f', rows * columns, 0)) && (p.strip = hold_strips(&held, strips, p.strips)) &&
        (p.to = hold(&held, out, 'f', n, 1))) {
        if ((wrong = isopress_check_take(&p))) {
            wrong_argument(wrong);
        } else {
            Py_BEGIN_ALLOW_THREADS level->take(&p);
            Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
        }
    }
    release(&held);
    return result;
}

/* --- correction of latents ------------------------------------------------------------------------------------------ */

/* (level, inputs int16 (a tuple), their channels, (height, width), side, outputs, kind, weight int16, scale, bias float32,
   top, one, out float32 or int16) */
static PyObject *py_product(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    long long height, width;
    PyObject *inputs, *weight, *scale, *bias, *out, *result = NULL;
    Held held = {.count = 0};
    ProductJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sO!(ii)(LL)iiiOOOffO", &name, &PyTuple_Type, &inputs, &p.channels[0], &p.channels[1], &height, &width,
                          &p.side, &p.outputs, &p.kind, &weight, &scale, &bias, &p.top, &p.one, &out))
        return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    p.count = (int32_t)PyTuple_GET_SIZE(inputs), p.height = height, p.width = width;
    const char *wrong = isopress_check_product(&p);
    if (wrong) return wrong_argument(wrong);
    int64_t padded = rounded_up(p.outputs), results = (height - p.side + 1) * (width - p.side + 1) * p.outputs;
    for (int i = 0; i < p.count; i++)
        if (!(p.x[i] = hold(&held, PyTuple_GET_ITEM(inputs, i), 'h', height * width * p.channels[i], 0))) goto done;
    if ((p.weight = hold(&held, weight, 'h', isopress_weights(&p), 0)) && (p.scale = hold(&held, scale, 'f', padded, 0)) &&
        (p.bias = hold(&held, bias, 'f', padded, 0)) && (p.out = hold(&held, out, p.kind == PLAIN ? 'f' : 'h', results, 1))) {
        if ((wrong = isopress_check_weights(&p))) {
            wrong_argument(wrong);
        } else {
            Py_BEGIN_ALLOW_THREADS level->product(&p);
            Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
        }
    }
done:
    release(&held);
    return result;
}

/* (level, units int64, sums around, beside int64, (height, width) in cells, cell, channels, scale, (factor, of beside, one,
   top), out int16) */
static PyObject *py_features(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    long long height, width, scale;
    PyObject *units, *around, *beside, *out, *result = NULL;
    Held held = {.count = 0};
    FeatureJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sOOO(LL)iiL(ffff)O", &name, &units, &around, &beside, &height, &width, &p.cell, &p.channels, &scale,
                          &p.factor, &p.beside_factor, &p.one, &p.top, &out))
        return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    p.height = height, p.width = width, p.scale = scale;
    const char *wrong = isopress_check_features(&p);
    if (wrong) return wrong_argument(wrong);
    int64_t cells = height * width;
    if ((p.units = hold(&held, units, 'l', cells * p.cell * p.cell, 0)) && (p.around = hold(&held, around, 'l', cells, 0)) &&
        (p.beside = hold(&held, beside, 'l', cells, 0)) && (p.out = hold(&held, out, 'h', cells * p.channels, 1))) {
        Py_BEGIN_ALLOW_THREADS level->features(&p);
        Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
    }
    release(&held);
    return result;
}

/* (level, x float32, (height, width), channels, wraps, weight, bias, out float32) */
static PyObject *py_depthwise(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    long long height, width;
    PyObject *x, *weight, *bias, *out, *result = NULL;
    Held held = {.count = 0};
    DepthwiseJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sO(LL)ipOOO", &name, &x, &height, &width, &p.channels, &p.wraps, &weight, &bias, &out)) return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    p.height = height, p.width = width;
    const char *wrong = isopress_check_depthwise(&p);
    if (wrong) return wrong_argument(wrong);
    int64_t size = height * width * p.channels;
    if ((p.x = hold(&held, x, 'f', size, 0)) && (p.weight = hold(&held, weight, 'f', 9 * p.channels, 0)) &&
        (p.bias = hold(&held, bias, 'f', p.channels, 0)) && (p.out = hold(&held, out, 'f', size, 1))) {
        Py_BEGIN_ALLOW_THREADS level->depthwise(&p);
        Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
    }
    release(&held);
    return result;
}

/* (level, x float32 (tokens, channels), tokens, channels, weight, bias float32, part, epsilon, one, top, out int16) */
static PyObject *py_norm(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    long long tokens;
    PyObject *x, *weight, *bias, *out, *result = NULL;
    Held held = {.count = 0};
    NormJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sOLiOOffffO", &name, &x, &tokens, &p.channels, &weight, &bias, &p.part, &p.epsilon, &p.one, &p.top, &out))
        return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    p.tokens = tokens;
    const char *wrong = isopress_check_norm(&p);
    if (wrong) return wrong_argument(wrong);
    if ((p.x = hold(&held, x, 'f', tokens * p.channels, 0)) && (p.weight = hold(&held, weight, 'f', p.channels, 0)) &&
        (p.bias = hold(&held, bias, 'f', p.channels, 0)) && (p.out = hold(&held, out, 'h', tokens * p.channels, 1))) {
        Py_BEGIN_ALLOW_THREADS level->norm(&p);
        Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
    }
    release(&held);
    return result;
}

/* (level, qkv int16 (height, width, 3, heads, head), (height, width, heads, head), windows of rows (n, 3) int32, of columns,
   numbers of both, (scale, share, one, top), out int16) */
static PyObject *py_attention(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    long long height, width;
    PyObject *qkv, *rows, *columns, *out, *result = NULL;
    Held held = {.count = 0};
    AttentionJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sO(LLii)OOii(ffff)O", &name, &qkv, &height, &width, &p.heads, &p.head, &rows, &columns, &p.rows, &p.columns,
                          &p.scale, &p.share, &p.one, &p.top, &out))
        return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    p.height = height, p.width = width;
    const char *wrong = "the number of windows";
    if (p.rows > 0 && p.columns > 0 && (p.row = hold(&held, rows, 'i', 3 * (int64_t)p.rows, 0)) &&
        (p.column = hold(&held, columns, 'i', 3 * (int64_t)p.columns, 0)))
        wrong = isopress_check_attention(&p);
    if (wrong) {
        wrong_argument(wrong);
        goto done;
    }
    int64_t size = height * width * p.heads * p.head;
    if (!(p.qkv = hold(&held, qkv, 'h', 3 * size, 0)) || !(p.out = hold(&held, out, 'h', size, 1))) goto done;
    p.packed = PyMem_RawMalloc(isopress_attention_scratch(&p) * sizeof *p.packed);
    p.scores = PyMem_RawMalloc(QUERIES * isopress_window(&p) * sizeof *p.scores);
    if (p.packed && p.scores) {
        Py_BEGIN_ALLOW_THREADS level->attention(&p);
        Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
    } else {
        PyErr_NoMemory();
    }
    PyMem_RawFree(p.packed), PyMem_RawFree(p.scores);
done:
    release(&held);
    return result;
}

/* (level, target float64, near float64, before, after float64 or None, (lines, samples, neighbours), across, whole, minus,
   factor) */
static PyObject *py_lift(PyObject *self, PyObject *args) {
    (void)self;
    const char *name;
    long long lines, count, near_count;
    PyObject *target, *near, *before, *after, *result = NULL;
    Held held = {.count = 0};
    LiftJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "sOOOO(LLL)pppd", &name, &target, &near, &before, &after, &lines, &count, &near_count, &p.across, &p.whole,
                          &p.minus, &p.factor))
        return NULL;
    const Level *level = level_named(name);
    if (!level) return NULL;
    p.lines = lines, p.count = count, p.near_count = near_count;
    if ((before == Py_None || (p.before = hold(&held, before, 'd', lines, 0))) &&
        (after == Py_None || (p.after = hold(&held, after, 'd', lines, 0)))) {
        const char *wrong = isopress_check_lift(&p);
        if (wrong) {
            wrong_argument(wrong);
        } else if ((p.target = hold(&held, target, 'd', lines * count, 1)) && (p.near = hold(&held, near, 'd', lines * near_count, 0))) {
            Py_BEGIN_ALLOW_THREADS level->lift(&p);
            Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
        }
    }
    release(&held);
    return result;
}

/* (level, whether to synthesise, field float64, which is used up otherwise, (rows, columns), zones (n, 6) int32, n, (circle, single, whole), low float64,
   details (3): float32 if single, or float64) */
static PyObject *py_wavelet(PyObject *self, PyObject *args) {
    (void)self;
    const char *name, *wrong = NULL;
    int synthesises;
    long long rows, columns;
    PyObject *field, *zones, *low, *detail[3], *result = NULL;
    Held held = {.count = 0};
    WaveletJob p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "spO(LL)Oi(ppp)O(OOO)", &name, &synthesises, &field, &rows, &columns, &zones, &p.zones, &p.circle, &p.single,
                          &p.whole, &low, &detail[0], &detail[1], &detail[2]))
        return NULL;
    const Level *level = level_named(name);
    if (!level || !is_map(rows, columns)) return NULL;
    if (p.zones < 1 || p.zones > rows) return wrong_argument("the number of zones");
    int64_t half_rows = (rows + 1) / 2, half_columns = (columns + 1) / 2;
    int64_t size[3] = {half_rows * (columns / 2), rows / 2 * half_columns, rows / 2 * (columns / 2)};
    p.rows = rows, p.columns = columns;
    for (int i = 0; i < 3; i++)
        if (!(p.detail[i] = hold(&held, detail[i], p.single ? 'f' : 'd', size[i], !synthesises))) goto done;
    if ((p.field = hold(&held, field, 'd', rows * columns, 1)) && (p.low = hold(&held, low, 'd', half_rows * half_columns, !synthesises)) &&
        (p.zone = hold(&held, zones, 'i', 6 * (int64_t)p.zones, 0))) {
        if ((wrong = isopress_check_wavelet(&p))) {
            wrong_argument(wrong);
        } else if (!(p.row = PyMem_RawMalloc(rows * sizeof *p.row)) || !(p.line = PyMem_RawMalloc(WAVELET_LINES * columns * sizeof *p.line))) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS (synthesises ? level->synthesise : level->analyse)(&p);
            Py_END_ALLOW_THREADS result = Py_NewRef(Py_None);
        }
    }
done:
    PyMem_RawFree(p.row), PyMem_RawFree(p.line);
    release(&held);
    return result;
}

/* (tables, y, mean float32, scale int16, tail int8 (n,), points int32, bits float32, trade, last offset, symbols int32) ->
   change of the offset */
static PyObject *py_choose(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *tables, *y, *mean, *scale, *tail, *points, *bits, *symbols, *result = NULL;
    Held held = {.count = 0};
    Choice p;
    memset(&p, 0, sizeof p);
    if (!PyArg_ParseTuple(args, "OOOOOOOfiO", &tables, &y, &mean, &scale, &tail, &points, &bits, &p.trade, &p.last, &symbols)) return NULL;
    const Tables *t = PyCapsule_GetPointer(tables, TABLES_NAME);
    if (!t || (p.n = PyObject_Length(y)) < 0 || (p.active = PyObject_Length(points)) < 0) return NULL;
    if ((p.y = hold(&held, y, 'f', p.n, 0)) && (p.mean = hold(&held, mean, 'f', p.n, 0)) && (p.scale = hold(&held, scale, 'h', p.n, 1)) &&
        (p.tail = hold(&held, tail, 'b', p.n, 0)) && (p.point = hold(&held, points, 'i', p.active, 0)) &&
        (p.bits = hold(&held, bits, 'f', (int64_t)TABLES * (t->reach + 1), 0)) && (p.symbols = hold(&held, symbols, 'i', p.n, 1))) {
        const char *wrong = isopress_check_choice(&p);
        if (wrong) {
            wrong_argument(wrong);
        } else {
            int change;
            Py_BEGIN_ALLOW_THREADS change = isopress_choose(t, &p);
            Py_END_ALLOW_THREADS result = PyLong_FromLong(change);
        }
    }
    release(&held);
    return result;
}

/* --- final values ---------------------------------------------------------------------------------------------------- */

/* Holds two arrays of `count` float32, or else float64. */
static int hold_values(Held *held, PyObject *x, PyObject *decoded, int single, int64_t count, const void *out[2]) {
    return (out[0] = hold(held, x, single ? 'f' : 'd', count, 0)) && (out[1] = hold(held, decoded, single ? 'f' : 'd', count, 0));
}

/* (x, decoded, whether float32, count, tolerance) -> whether it is surely kept */
static PyObject *py_keep(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *x, *decoded, *result = NULL;
    const void *v[2];
    int single, kept;
    long long n;
    double tolerance;
    Held held = {.count = 0};
    if (!PyArg_ParseTuple(args, "OOpLd", &x, &decoded, &single, &n, &tolerance)) return NULL;
    if (hold_values(&held, x, decoded, single, n, v)) {
        Py_BEGIN_ALLOW_THREADS kept = single ? isopress_keep_f32(n, v[0], v[1], tolerance) : isopress_keep_f64(n, v[0], v[1], tolerance);
        Py_END_ALLOW_THREADS result = PyBool_FromLong(kept);
    }
    release(&held);
    return result;
}

/* (x, decoded, whether float32, count) -> (largest error, finite values, high and low sum of squares) */
static PyObject *py_measure(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *x, *decoded, *result = NULL;
    const void *v[2];
    int single;
    long long n;
    Errors e;
    Held held = {.count = 0};
    if (!PyArg_ParseTuple(args, "OOpL", &x, &decoded, &single, &n)) return NULL;
    if (hold_values(&held, x, decoded, single, n, v)) {
        Py_BEGIN_ALLOW_THREADS e = single ? isopress_measure_f32(n, v[0], v[1]) : isopress_measure_f64(n, v[0], v[1]);
        Py_END_ALLOW_THREADS result =
            Py_BuildValue("dLKK", e.largest, (long long)e.finite, (unsigned long long)e.high, (unsigned long long)e.low);
    }
    release(&held);
    return result;
}

/* (v int32, whether to float32, count, step, offset, out) */
static PyObject *py_restore(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *v, *out;
    int single;
    long long n;
    double step, offset;
    Held held = {.count = 0};
    if (!PyArg_ParseTuple(args, "OpLddO", &v, &single, &n, &step, &offset, &out)) return NULL;
    const int32_t *from = hold(&held, v, 'i', n, 0);
    void *to = from ? hold(&held, out, single ? 'f' : 'd', n, 1) : NULL;
    if (to) {
        Py_BEGIN_ALLOW_THREADS if (single) isopress_restore_f32(n, from, step, offset, to);
        else isopress_restore_f64(n, from, step, offset, to);
        Py_END_ALLOW_THREADS
    }
    release(&held);
    if (!to) return NULL;
    Py_RETURN_NONE;
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
    {"geometry", py_geometry, METH_VARARGS, "Check and keep the geometry of a phase."},
    {"network", py_network, METH_VARARGS, "Check and keep a network."},
    {"tables", py_tables, METH_VARARGS, "Check and keep the tables of symbols."},
    {"writer", py_writer, METH_VARARGS, "Begin a stream."},
    {"written", py_written, METH_O, "Seal a stream; return its words and escapes."},
    {"reader", py_reader, METH_VARARGS, "Begin to read a stream."},
    {"exhausted", py_exhausted, METH_O, "Whether a stream was read to its end."},
    {"write_symbol", py_write_symbol, METH_VARARGS, "Code one integer of a distribution."},
    {"read_symbol", py_read_symbol, METH_VARARGS, "Decode one integer of a distribution."},
    {"write_phase", py_write_phase, METH_VARARGS, "Code the symbols of a phase."},
    {"read_phase", py_read_phase, METH_VARARGS, "Decode the symbols of a phase."},
    {"walk_room", py_walk_room, METH_VARARGS, "Return how large the room of a walk is."},
    {"walk", py_walk, METH_VARARGS, "Code or decode all levels of some fields."},
    {"combine", py_combine, METH_VARARGS, "A proxy of decoded fields."},
    {"fit", py_fit, METH_VARARGS, "Coefficients of the proxies of a field."},
    {"context_plan", py_context_plan, METH_VARARGS, "Check and keep how features of latents are made."},
    {"contexts", py_contexts, METH_VARARGS, "What is known of the latents of a phase."},
    {"box", py_box, METH_VARARGS, "A map of latents, smoothed."},
    {"bends", py_bends, METH_VARARGS, "Second differences of a low band."},
    {"rest", py_rest, METH_VARARGS, "Activity around latents before their band."},
    {"upsample", py_upsample, METH_VARARGS, "A coarser map on a finer grid."},
    {"enter", py_enter, METH_VARARGS, "Enter decoded values of a phase."},
    {"take", py_take, METH_VARARGS, "Values of the points of a phase."},
    {"product", py_product, METH_VARARGS, "Products of integers of the correction of latents."},
    {"features", py_features, METH_VARARGS, "What the correction of latents sees of a field."},
    {"depthwise", py_depthwise, METH_VARARGS, "Convolution of each channel of its tokens."},
    {"norm", py_norm, METH_VARARGS, "Layer norm of its tokens."},
    {"attention", py_attention, METH_VARARGS, "Attention in windows of its tokens."},
    {"lift", py_lift, METH_VARARGS, "One lifting step of a wavelet."},
    {"wavelet", py_wavelet, METH_VARARGS, "One level of a wavelet, there or back."},
    {"choose", py_choose, METH_VARARGS, "Choose the symbols of a phase of latents."},
    {"keep", py_keep, METH_VARARGS, "Whether decoded values surely keep a tolerance."},
    {"measure", py_measure, METH_VARARGS, "Largest error, and sums of squares."},
    {"restore", py_restore, METH_VARARGS, "Values of integers in 1/64 step."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
