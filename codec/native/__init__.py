"""Compiled kernels, and the one Python face they have; numpy does the same work without them.

Which instruction set is used is decided when this module is loaded: the best that the machine has, or what the
environment variable ISOPRESS_KERNELS names (numpy, generic, avx2). Every one gives the same bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

from isopress.codec.errors import ArgumentError, CorruptPayloadError, TruncatedPayloadError

try:
    from isopress.codec.native import _kernels
except ImportError:  # built without a compiler
    _kernels = None  # type: ignore[assignment]

VARIABLE = "ISOPRESS_KERNELS"
NUMPY = "numpy"

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
I16 = NDArray[np.int16]
I8 = NDArray[np.int8]
U32 = NDArray[np.uint32]
# (inputs, outputs, weight (out, in) int8, bias (out,) int32, scale (out,) float32): round(sums * scale) comes out.
Layer = tuple[int, int, I8, I32, F32]
Kept = NewType("Kept", object)  # what the kernels checked once: geometry, a network, tables, a stream


def levels() -> tuple[str, ...]:
    """Return the names of what can be used here, best first; the last is numpy."""
    return (*(_kernels.levels() if _kernels else ()), NUMPY)


def _default() -> str:
    name = os.environ.get(VARIABLE) or levels()[0]
    if name not in levels():
        raise ArgumentError(f"{VARIABLE}={name}: this installation and machine have {', '.join(levels())}")
    return name


_DEFAULT = _default()
_LEVEL: ContextVar[str | None] = ContextVar("level", default=None)


def level() -> str:
    """Return the name of what is in use."""
    return _LEVEL.get() or _DEFAULT


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use another level within a `with` block of this thread, as tests do."""
    token = _LEVEL.set(name)
    try:
        yield
    finally:
        _LEVEL.reset(token)


def status() -> str:
    """Return one line that says which kernels are in use."""
    if _kernels is None:
        return "numpy (the compiled kernels were not built: slower, the same bytes)"
    return level() if level() != NUMPY else f"numpy ({VARIABLE} says so: slower, the same bytes)"


# --- what is checked once -------------------------------------------------------------------------------------


def layer_of(affine: F32, scale: F32) -> Layer:
    """Return integer weights and biases of a matrix (out, in + 1) of integers times `scale` (out,)."""
    whole = affine / scale[:, None]
    weight = np.ascontiguousarray(whole[:, :-1].astype(np.int8))
    bias = np.ascontiguousarray(whole[:, -1].astype(np.int32))
    return weight.shape[1], weight.shape[0], weight, bias, np.ascontiguousarray(scale, np.float32)


def network(layers: tuple[Layer, ...], name: str) -> Kept:
    """Return a network as the kernels of the level `name` want it.

    Raises
    ------
    ValueError
        A size or weight is beyond what they can do.
    """
    return Kept(_kernels.network(name, layers))


def geometry(
    counts: tuple[int, int, int],
    first_index: int,
    places: I32,
    look: tuple[I32, I32],
    reals: F64,
    constants: F64,
    by_index: tuple[F32, F32, F64],
) -> Kept:
    """Return the geometry of a phase; kernels.h says what each part means.

    counts : numbers of neighbours whose values, and whose errors near and further off, are looked at.
    places : (sum of counts + 1, 3) int32; look : nearest neighbours (4,), and bends (n, 5), weight and neighbours.
    reals : (6, n) float64; constants : (6,) float64.
    by_index : (320,) float32 twice and float64, multipliers by roughness index.
    """
    return Kept(_kernels.geometry(*counts, len(look[1]), first_index, places, *look, reals, constants, *by_index))


def tables(cumulative: U32, support: I32, cost: I32, offsets: tuple[U32, U32], runs: tuple[U32, U32, U32, U32]) -> Kept:
    """Return tables of symbols: cumulative frequencies (288, width), how far each reaches (288,), what symbols cost by
    magnitude (288, reach + 1) in 2**-20 bit, both distributions of offsets (64,), and what runs of zeros take: those of
    rates (24, 25), runs (24, 66), other symbols (5,) and numbers of quiet classes (8,)."""
    return Kept(_kernels.tables(cumulative.shape[1], cost.shape[1] - 1, cumulative, support, cost, *offsets, *runs))


# --- streams --------------------------------------------------------------------------------------------------


class RangeEncoder:
    """The range coder of SPEC, chapter 7, and the bytes of what exceeds tables."""

    def __init__(self, peaked: bool) -> None:
        self.kept = Kept(_kernels.writer(peaked))

    def symbol(self, value: int, cumulative: NDArray[np.uint32]) -> None:
        """Code an integer of one distribution."""
        _kernels.write_symbol(self.kept, value, cumulative, cumulative.size - 1)

    def phase(self, tables: Kept, symbols: I32, scale: I16, tail: I8, corrected: bool) -> None:
        """Code all symbols of a phase, if `corrected` after the scale offset that suits them best."""
        arrays = _arrays(symbols, scale, tail)
        raise_for(_kernels.write_phase(self.kept, tables, *arrays, corrected))

    def finish(self) -> tuple[bytes, bytes]:
        """Return all words, little-endian, and the bytes of escapes; the coder is sealed."""
        words, escapes = _kernels.written(self.kept)
        return words if sys.byteorder == "little" else np.frombuffer(words, np.uint32).astype("<u4").tobytes(), escapes


class RangeDecoder:
    """Mirror of RangeEncoder."""

    def __init__(self, words: NDArray[np.uint32], escapes: memoryview, peaked: bool) -> None:
        self.kept = Kept(_kernels.reader(words, escapes, peaked))

    def symbol(self, cumulative: NDArray[np.uint32]) -> int:
        """Return an integer of one distribution."""
        value = _kernels.read_symbol(self.kept, cumulative, cumulative.size - 1)
        raise_for(UNDECODABLE if value < 0 else 0)
        return value

    def phase(self, tables: Kept, scale: I16, tail: I8, corrected: bool) -> I32:
        """Return all symbols of a phase."""
        symbols = np.empty(scale.size, np.int32)
        raise_for(_kernels.read_phase(self.kept, tables, *_arrays(symbols, scale, tail), corrected))
        return symbols

    def is_exhausted(self) -> bool:
        """Whether all was read, and an encoder may have ended here."""
        return _kernels.exhausted(self.kept)


def _arrays(symbols: I32, scale: I16, tail: I8) -> tuple[I32, I16, I8]:
    of = np.ascontiguousarray
    return of(symbols, np.int32), of(scale, np.int16), of(tail, np.int8)


UNDECODABLE = 2
# Of what kernels say, by entropy.h's numbers.
_ENDS: dict[int, tuple[type[Exception], str]] = {
    1: (MemoryError, "the compiled kernels found no memory"),
    UNDECODABLE: (CorruptPayloadError, "symbol stream is not decodable: no encoder writes such words"),
    3: (TruncatedPayloadError, "the escape bytes of a symbol stream end inside a symbol"),
    4: (CorruptPayloadError, "an escaped symbol is longer than it needs to be"),
    5: (CorruptPayloadError, "an escaped symbol is beyond the allowed 2**28"),
    6: (CorruptPayloadError, "a symbol is beyond the allowed 2**29"),
    7: (CorruptPayloadError, "a decoded value is beyond the pyramid's range"),
    8: (ValueError, "the compiled kernels refuse what they are given: a bug"),
}


def raise_for(outcome: int) -> None:
    """Raise what an outcome of the kernels other than 0 means."""
    if outcome:
        kind, message = _ENDS[outcome]
        raise kind(message)


# --- the walk ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Walk:
    """All that both directions know of the fields of a walk.

    geometries : of D, H and V.
    levels : the finest first: quantiser width in units, by how much scale indexes are less, networks of D, H and V.
    proxies : (B, H, W) int32 each; coefficients : (B, 3, proxies) int8 of the guess; streams : one, or B of them.
    """

    wrap: bool
    snap: bool
    geometries: tuple[Kept, ...]
    levels: tuple[tuple[int, int, tuple[Kept, ...]], ...]
    tables: Kept
    proxies: tuple[I32, ...]
    coefficients: I8 | None
    streams: tuple[Kept, ...]

    def encode(self, y: F64, valid: NDArray[np.bool_] | None, v: I32) -> None:
        """Code all points of y (B, H, W) but the anchors, which stand in `v`; enter there what the decoder gets."""
        self._run(False, v, np.ascontiguousarray(y, np.float64), None if valid is None else np.ascontiguousarray(valid))

    def decode(self, v: I32) -> None:
        """Decode all points of `v` (B, H, W) but the anchors, which stand there.

        Raises
        ------
        TruncatedPayloadError, CorruptPayloadError
            Streams are none that an encoder writes.
        """
        self._run(True, v, None, None)

    def _run(self, reads: bool, v: I32, y: F64 | None, valid: NDArray[np.bool_] | None) -> None:
        references = self.proxies, self.coefficients
        outcome = _kernels.walk(
            level(), reads, v.shape, self.wrap, self.snap, self.geometries, self.levels, self.tables, references,
            self.streams, v, y, valid,
        )  # fmt: skip
        raise_for(outcome)


# --- references of blocks ----------------------------------------------------------------------------------------


def combine(decoded: I32, weights: Mapping[int, int], exponent: int, out: I32) -> None:
    """Let `out` (H, W) be the sum of quarters of some `decoded` fields (B, H, W), times 2**exponent, rounded, clipped.

    weights : of each field that counts, how many quarters.
    """
    terms = tuple(weights), tuple(weights.values())
    _kernels.combine(level(), decoded, len(decoded), out.size, *terms, exponent, out)


def fit(y: F64, proxies: tuple[I32, ...], expected: I32, logarithms: I32) -> tuple[I8, I8]:
    """Return exponents (proxies,) and coefficients (3, proxies) that suit a field (H, W) in steps.

    proxies : (H, W) each, in units; expected : (proxies,) coefficients; logarithms : see reference_fit.py.
    """
    exponents, coefficients = np.empty(len(proxies), np.int8), np.empty((3, len(proxies)), np.int8)
    raise_for(_kernels.fit(level(), y.shape, y, proxies, expected, logarithms, exponents, coefficients))
    return exponents, coefficients


# --- contexts of latents ----------------------------------------------------------------------------------------


def context_plan(slots: int, gathered: I32, pooled: I32, logs: I32, scaled: I32) -> Kept:
    """Return how the features of a phase are made, one per slot; contexts.h says what each part means.

    gathered : (n, 4) int32, slot, map and offset; pooled : (n, 6), slot, count and up to four slots; logs : (n, 2),
    slot and map; scaled : (2, 2), stretches of slots.
    """
    return Kept(_kernels.context_plan(slots, len(gathered), len(pooled), len(logs), gathered, pooled, logs, scaled))


@dataclass(frozen=True, eq=False)
class Contexts:
    """All that is known around the latents of one phase.

    maps : (rows, columns) float32 by number, those of parents (3 to 5) of a shape of their own; None where not needed.
    strips, parent_strips : (n, 4) int32, start, stop, count and stride; parity : of the points, latitude first.
    quiet : (2, Q) int16; by_index : multipliers of features and means (192,) float32.
    """

    plan: Kept
    network: Kept
    maps: tuple[F32 | None, ...]
    magnitude: F32
    rest: F32
    parent_shape: tuple[int, int]
    strips: I32
    parent_strips: I32
    parity: tuple[int, int]
    first: bool
    quiet: I16
    by_index: tuple[F32, F32]

    def predict(self, out: tuple[F32, I16, I8, I32]) -> int:
        """Fill in means, scale indexes and tail classes of all points (n,), and ascending those that passed the
        network; return how many did."""
        shape = (*self.rest.shape, *self.parent_shape)
        return _kernels.contexts(
            level(), self.plan, self.network, shape, self.maps, self.magnitude, self.rest, self.strips,
            self.parent_strips, len(self.strips), len(self.parent_strips), (*self.parity, self.first), *self.quiet,
            self.quiet.shape[1], *self.by_index, len(out[0]), *out,
        )  # fmt: skip


def choose(
    tables: Kept, y: F32, prediction: tuple[F32, I16, I8, I32], bits: F32, trade: float, last: int
) -> tuple[I32, int]:
    """Return the symbols of coefficients y (n,) in steps, and by how much the scale offset changes from `last` on.

    prediction : means, scale indexes, to which the offset is added, tail classes, and which of the points are active
    bits : (288, reach + 1) float32, of symbols by magnitude; trade : squared steps per bit
    """
    mean, scale, tail, active = prediction
    symbols = np.empty(y.size, np.int32)
    return symbols, _kernels.choose(tables, y, mean, scale, tail, active, bits, trade, last, symbols)


# --- maps of latents ----------------------------------------------------------------------------------------------


def box(map_: F32, other: F32 | None, strips: I32, circle: bool) -> F32:
    """Return what `context_maps.box` makes of a padded map, or of the magnitudes of two added up."""
    out = np.empty_like(map_)
    _kernels.box(level(), map_, other, map_.shape, strips, len(strips), circle, out)
    return out


def bends(low: F64, strips: I32, circle: bool, along: F32, across: F32) -> None:
    """Fill second differences of a low band along both axes into padded zeros."""
    _kernels.bends(level(), low, low.shape, strips, len(strips), circle, along, across)


def rest(maps: tuple[F32 | None, ...]) -> tuple[F32, F32]:
    """Return the activity around every cell before its band, and its wide means.

    maps : bend, three smoothed parents, up to two earlier bands, the newest channel and the history, or None
    """
    assert maps[0] is not None
    found, far = np.empty_like(maps[0]), np.zeros_like(maps[0])
    _kernels.rest(level(), found.shape, maps, found, far)
    return found, far


def upsample(map_: F32, shape: tuple[int, int], circle: bool) -> F32:
    """Return a padded map on the grid of the level above it, whose padded maps have this shape."""
    out = np.empty(shape, np.float32)
    _kernels.upsample(level(), map_, map_.shape, circle, out, shape)
    return out


def enter(
    values: tuple[F32, I32], strips: I32, parity: tuple[int, int], circle: bool, own: F32, magnitude: F32
) -> None:
    """Enter means in units and symbols in steps (n,) of a phase into the maps of its band."""
    mean, symbols = values
    where = (*parity, circle)
    _kernels.enter(level(), mean, symbols, mean.size, strips, len(strips), where, own, magnitude, own.shape)


def take(map_: F32, strips: I32, parity: tuple[int, int], n: int) -> F32:
    """Return the values of all `n` points of a phase of a band (h, w)."""
    out = np.empty(n, np.float32)
    _kernels.take(level(), map_, map_.shape, strips, len(strips), *parity, out, n)
    return out


# --- correction of latents --------------------------------------------------------------------------------------

OUT_BLOCK = 16  # outputs whose weights lie together
PLAIN, ROUNDED, GELU_ROUNDED = range(3)  # what a product gives: float32; integers; integers after gelu


def packed_weights(weight: I16, channels: tuple[int, ...]) -> I16:
    """Return weights (rows, columns, in, out) as `product` takes them, for inputs of so many channels each."""
    outputs = weight.shape[3]
    filled = np.pad(weight, ((0, 0), (0, 0), (0, 0), (0, -outputs % OUT_BLOCK)))
    parts, first = list[I16](), 0
    for n in channels:
        part = filled[:, :, first : first + n].reshape(len(weight), -1, 2, filled.shape[3] // OUT_BLOCK, OUT_BLOCK)
        parts.append(part.transpose(3, 0, 1, 4, 2))  # (blocks, rows, pairs, OUT_BLOCK, 2)
        first += n
    return np.ascontiguousarray(np.concatenate(parts, 2))


def product(
    inputs: tuple[I16, ...],
    weight: I16,
    side: int,
    outputs: int,
    factors: tuple[F32, F32],
    kind: int,
    top: int,
    one: int,
) -> NDArray[Any]:
    """Return (H - side + 1, W - side + 1, outputs) of inputs (H, W, channels); correction.h says how.

    weight : of `packed_weights`; factors : scale and bias, filled up to whole blocks of outputs.
    """
    h, w = inputs[0].shape[:2]
    channels = inputs[0].shape[2], inputs[-1].shape[2]
    out = np.empty((h - side + 1, w - side + 1, outputs), np.float32 if kind == PLAIN else np.int16)
    shape = (h, w) if side > 1 else (1, h * w)
    _kernels.product(level(), inputs, channels, shape, side, outputs, kind, weight, *factors, top, one, out)
    return out


def features(
    units: I64, around: I64, beside: I64, cell: int, scale: int, factors: tuple[float, float, int, int]
) -> I16:
    """Return (H, W, cell * cell + 1, rounded up to even) of units (H * cell, W * cell); correction.h says how.

    around, beside : (H, W), sums around each cell, and what is told of the cell itself
    factors : of values and of cells, what stands for one, and the largest.
    """
    values, shape = cell * cell, around.shape
    out = np.empty((*shape, (values + 2) // 2 * 2), np.int16)
    _kernels.features(level(), units, around, beside, shape, cell, out.shape[2], scale, factors, out)
    return out


def depthwise(x: F32, weight: F32, bias: F32, wrap: bool) -> F32:
    """Return the 3 x 3 cross-correlation of each channel of x (h, w, channels) by itself, and bias."""
    out = np.empty(x.shape, np.float32)
    _kernels.depthwise(level(), x, x.shape[:2], x.shape[2], wrap, weight, bias, out)
    return out


def norm(x: F32, weight: F32, bias: F32, part: float, epsilon: float, one: int, top: int) -> I16:
    """Return the layer norm of tokens (..., channels) as integers, at most `top`, of which `one` stands for one."""
    out = np.empty(x.shape, np.int16)
    _kernels.norm(level(), x, x.size // x.shape[-1], x.shape[-1], weight, bias, part, epsilon, one, top, out)
    return out


def attention(
    qkv: I16, heads: int, rows: I32, columns: I32, factors: tuple[float, float, float, int], out: I16
) -> None:
    """Fill `out` (h, w, dim) where windows of rows and columns, (n, 3) int32 each, answer.

    qkv : (h, w, 3 * dim); factors : of scores, of all shares together, of the result, and its largest.
    """
    shape = (*out.shape[:2], heads, out.shape[2] // heads)
    _kernels.attention(level(), qkv, shape, rows, columns, len(rows), len(columns), factors, out)


def lift(
    target: F64, near: F64, ends: tuple[F64 | None, F64 | None], factor: float, *, whole: bool, minus: bool
) -> None:
    """Add to samples (lines, count), in place, what `factor` makes of two neighbours each; wavelet.h says which.

    target, near : both C-contiguous, or both of them transposed; ends : (lines, 1) before and after `near`
    """
    across, (lines, count) = not (target.flags.c_contiguous and near.flags.c_contiguous), target.shape
    shape = lines, count, near.size // lines
    if across:
        target, near = target.T, near.T
    before, after = (None if end is None else np.ascontiguousarray(end[:, 0]) for end in ends)
    _kernels.lift(level(), target, near, before, after, shape, across, whole, minus, factor)


def analyse(
    x: F64, zones: I32, circle: bool, dtype: type[np.floating[Any]]
) -> tuple[F64, tuple[NDArray[np.floating[Any]], ...]]:
    """Return the low band of fields (..., h, w), which are used up, and three details of this dtype.

    wavelet.h says how.

    zones : (n, 6) int32, start, stop, count, stride, and whether split and closed in longitude
    """
    (h, w), leading, single = x.shape[-2:], x.shape[:-2], dtype == np.float32
    low = np.zeros((*leading, -(-h // 2), -(-w // 2)))
    details = list[NDArray[np.floating[Any]]]()
    for shape in ((-(-h // 2), w // 2), (h // 2, -(-w // 2)), (h // 2, w // 2)):
        details.append(np.zeros((*leading, *shape), np.float32 if single else np.float64))
    how = circle, single, False
    for at in np.ndindex(leading):
        parts = tuple(band[at] for band in details)
        _kernels.wavelet(level(), False, x[at], (h, w), zones, len(zones), how, low[at], parts)
    return low, tuple(details)


def synthesise(
    low: F64,
    details: Sequence[NDArray[np.floating[Any]]],
    zones: I32,
    shape: tuple[int, int],
    circle: bool,
    whole: bool,
) -> F64:
    """Undo `analyse`, with `whole` in integers."""
    single = all(band.dtype == np.float32 for band in details)
    low, out = np.ascontiguousarray(low, np.float64), np.empty((*low.shape[:-2], *shape))
    parts = tuple(np.ascontiguousarray(band, np.float32 if single else np.float64) for band in details)
    how = circle, single, whole
    for at in np.ndindex(low.shape[:-2]):
        bands = tuple(band[at] for band in parts)
        _kernels.wavelet(level(), True, out[at], shape, zones, len(zones), how, low[at], bands)
    return out


# --- final values ------------------------------------------------------------------------------------------------


def keep(x: NDArray[np.floating[Any]], decoded: NDArray[np.floating[Any]], tolerance: float) -> bool:
    """Return whether decoded values surely keep a tolerance; of two contiguous arrays, float32 or float64 both.

    True: every value has the bits of the original, or stands for a finite one other than -0.0 and misses it by less.
    """
    return _kernels.keep(x, decoded, x.dtype == np.float32, x.size, tolerance)


def measure(x: NDArray[np.floating[Any]], decoded: NDArray[np.floating[Any]]) -> tuple[float, int, int]:
    """Return the largest error over the finite values of `x`, their number, and the sum of squares of the errors over
    the largest, each cut off to 2**-52, in that unit."""
    largest, finite, high, low = _kernels.measure(x, decoded, x.dtype == np.float32, x.size)
    return largest, finite, (high << 26) + low


def restore(v: I32, step: float, offset: float, out: NDArray[np.floating[Any]]) -> None:
    """Fill `out`, float32 or float64, with offset + v / 64 * step; it may be where `v` is. Both are contiguous."""
    _kernels.restore(v, out.dtype == np.float32, v.size, step, offset, out)
