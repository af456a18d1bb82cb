"""Refinement pyramid: fields in units of a step <-> symbols, every value within half a step.

Coarse anchors first, then each level halves the spacing; a tiny integer network predicts each new point
from decoded neighbours and chooses the table its residual is coded with. After SZ3's interpolation
(Liang et al. 2023), with the prediction and the entropy model learned. SPEC, "Pyramid".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.geometry import CONTEXTS, Context, kernel_geometry
from isopress.codec.bounded.predictor import ALONE, F64, LIMIT, Condition, Networks, Prediction
from isopress.codec.bounded.quiet import I8, LEAST, Look, choose_limit, read_symbols, write_symbols
from isopress.codec.bounded.reference_prediction import Proxies
from isopress.codec.bounded.traversal import Grid, Shape3, depth, refine
from isopress.codec.entropy import tables
from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter
from isopress.codec.entropy.distributions import limit_model
from isopress.codec.errors import ArgumentError, CorruptPayloadError
from isopress.codec.native import dispatch
from isopress.codec.native.dispatch import Kept
from isopress.codec.native.walk import Walk
from isopress.codec.values.quantiser import UNITS, Fields, Steps, reach

MAX_STEPS = LIMIT / UNITS  # 2**21: the largest |y|
WRAP, SNAP, TAPER_BIT = 1, 2, 2
# Quantiser width per level in units, finest first, the last for all coarser ones: with a taper, coarse levels
# are coded finer than the bound asks, since finer levels are predicted from them.
TAPERS = (
    (64,),
    (64, 59, 55, 51, 47, 44, 40, 37, 35, 32, 30, 27, 25, 24, 22, 20),
    (64, 55, 47, 40, 34, 29, 25, 21, 20),
    (64, 49, 38, 29, 22, 20),
)
# How many eighths of an octave such a width lies below 64.
SCALE_OF_WIDTH = {64: 0, 59: 1, 55: 2, 51: 3, 49: 3, 47: 4, 44: 4, 40: 5, 38: 6, 37: 6, 35: 7, 34: 7, 32: 8, 30: 9,
                  29: 9, 27: 10, 25: 11, 24: 11, 22: 12, 21: 13, 20: 13}  # fmt: skip


@dataclass(frozen=True)
class Quantisation:
    """How values become symbols: the taper, and whether decoded values are whole steps."""

    taper: int = 0
    snap: bool = False

    def width(self, level: int) -> int:
        """Return the quantiser width of a level in units."""
        widths = TAPERS[self.taper]
        return widths[min(level, len(widths) - 1)]

    def quantise(self, predicted: F64, y: F64, width: int, valid: NDArray[np.bool_] | None = None) -> F64:
        """Return the symbols of values `y` in steps, 0 for those that are not `valid`."""
        symbols = y * UNITS
        # With `snap` an odd number near the prediction, so that no integer step ties between symbols.
        symbols -= 2 * np.floor(predicted / 2) + 1 if self.snap else predicted
        symbols /= width
        np.rint(symbols, out=symbols)
        if valid is not None:
            symbols *= valid
        return symbols

    def dequantise(self, predicted: F64, symbols: F64, width: int) -> F64:
        """Turn symbols, in place, into what they add to the prediction: whole widths, with `snap` to a whole step."""
        symbols *= width
        if self.snap:
            symbols += 2 * np.floor(predicted / 2) + 1
            symbols /= UNITS
            symbols += 0.5
            np.floor(symbols, out=symbols)
            symbols *= UNITS
            symbols -= predicted
        return symbols


@dataclass(frozen=True, eq=False)  # compared by identity: there are few
class PyramidModel:
    """Weights of a pyramid: `sha256` of their file, networks per level and phase."""

    name: str
    sha256: bytes
    networks: Networks
    takes_references: bool = False


@dataclass(frozen=True)
class Coding:
    """What the fields of a section have in common; the first byte of a section holds all but the model."""

    model: PyramidModel
    wrap: bool  # the first column follows the last
    quantisation: Quantisation

    @property
    def flags(self) -> int:
        """The first byte of a section: wrap, snap, taper."""
        return WRAP * self.wrap | SNAP * self.quantisation.snap | self.quantisation.taper << TAPER_BIT

    @classmethod
    def from_flags(cls, flags: int, model: PyramidModel) -> Coding:
        """Return what the first byte of a section says; raise CorruptPayloadError for reserved bits."""
        if flags >> (TAPER_BIT + 2):
            raise CorruptPayloadError(f"pyramid flags {flags:#04x} have reserved bits set")
        return cls(model, bool(flags & WRAP), Quantisation(flags >> TAPER_BIT, bool(flags & SNAP)))


def encode_fields(
    y: Fields,
    valid: NDArray[np.bool_] | None,
    anchors: F64,
    writers: Sequence[SymbolWriter],
    coding: Coding,
    proxies: Proxies | None = None,
) -> I32:
    """Write the symbols of fields y (B, H, W) in steps that refine `anchors` in whole steps; return v in units.

    All fields go to one writer, or each to its own. Values that are not `valid` become the symbol 0.
    """
    streams = [writer.native.kept for writer in writers if writer.native is not None]
    if streams:
        v = _around(anchors, y.shape)
        walk = _walk(y.shape, streams, coding, proxies)
        if isinstance(y, Steps) and y.t.dtype == np.float32:  # an array of steps would be twice as large
            walk.through(v, y.t, valid, (y.offset, y.step))
        else:
            walk.through(v, y[:], valid)
        return v
    y = y[:]
    v = (anchors * UNITS).astype(np.int32)
    errors = np.zeros_like(v)
    for level in reversed(range(depth(*y.shape[1:]))):
        grid = refine(v, errors, y.shape, level, wrap=coding.wrap, proxies=proxies)
        for context in filter(grid.has, CONTEXTS):
            at = phase_points(level, context)
            _encode_phase(grid, context, y[at], None if valid is None else valid[at], writers, coding)
        v, errors = grid.values, grid.errors
    return v


def _encode_phase(
    grid: Grid,
    context: Context,
    y: F64,
    valid: NDArray[np.bool_] | None,
    writers: Sequence[SymbolWriter],
    coding: Coding,
) -> None:
    """Write the symbols of the points y (B, h, w) of a phase, and enter what the decoder gets in the grid."""
    quantisation, width, streams = coding.quantisation, coding.quantisation.width(grid.level), len(writers)
    found = grid.look(context) if y.size // streams >= LEAST else None
    limits = [0] * streams
    if found is not None:
        tried = quantisation.quantise(found.value, y, width, valid)
        for i, writer in enumerate(writers):
            limits[i] = choose_limit(_of_stream(found.activity, i, streams), _of_stream(tried, i, streams))
            writer.symbol(limits[i], limit_model())
    predicted, quiet = _predict(grid, context, coding, found, limits)
    symbols = quantisation.quantise(predicted.value, y, width, valid)
    integers, scale = symbols.astype(np.int32), predicted.scale + np.int16(SCALE_OF_WIDTH[width])
    for i, writer in enumerate(writers):
        write_symbols(writer, *(_of_stream(a, i, streams).ravel() for a in (integers, scale, predicted.tail, quiet)))
    grid.put(context, predicted.value, quantisation.dequantise(predicted.value, symbols, width))


def decode_fields(
    shape: Shape3, anchors: F64, readers: Sequence[SymbolReader], coding: Coding, proxies: Proxies | None = None
) -> I32:
    """Return v (B, H, W) in units: mirror of `encode_fields`.

    Raises
    ------
    TruncatedPayloadError, CorruptPayloadError
        Anchors, values or streams are none that an encoder writes.
    """
    if np.abs(anchors).max(initial=0) > MAX_STEPS:
        raise CorruptPayloadError("an anchor is beyond the pyramid's range")
    streams = [reader.native.kept for reader in readers if reader.native is not None]
    if streams:
        v = _around(anchors, shape)
        _walk(shape, streams, coding, proxies).through(v)
        for reader in readers:
            reader.finish()
        return v
    v = (anchors * UNITS).astype(np.int32)
    errors = np.zeros_like(v)
    for level in reversed(range(depth(*shape[1:]))):
        grid = refine(v, errors, shape, level, wrap=coding.wrap, proxies=proxies)
        for context in filter(grid.has, CONTEXTS):
            _decode_phase(grid, context, readers, coding)
        v, errors = grid.values, grid.errors
    for reader in readers:
        reader.finish()
    return v


def _decode_phase(grid: Grid, context: Context, readers: Sequence[SymbolReader], coding: Coding) -> None:
    """Mirror of `_encode_phase`."""
    width, streams = coding.quantisation.width(grid.level), len(readers)
    found = grid.look(context) if grid.values[context.plane].size // streams >= LEAST else None
    limits = [0 if found is None else reader.symbol(limit_model()) for reader in readers]
    predicted, quiet = _predict(grid, context, coding, found, limits)
    symbols, scale = np.empty(quiet.shape), predicted.scale + np.int16(SCALE_OF_WIDTH[width])
    for i, reader in enumerate(readers):
        part = _of_stream(symbols, i, streams)
        known = (_of_stream(a, i, streams).ravel() for a in (scale, predicted.tail, quiet))
        part[...] = read_symbols(reader, *known).reshape(part.shape)
    added = coding.quantisation.dequantise(predicted.value, symbols, width)
    if np.abs(predicted.value + added).max() > 2 * LIMIT:
        raise CorruptPayloadError("a decoded value is beyond the pyramid's range")
    grid.put(context, predicted.value, added)


def _predict(
    grid: Grid, context: Context, coding: Coding, found: Look | None, limits: Sequence[int]
) -> tuple[Prediction, I8]:
    """Return what is known of the points (B, h, w) of a phase, and the class of quiet ones, -1 of all others.

    limits : of each stream, how many classes are quiet.
    """
    if found is None or not any(limits):
        predicted = grid.predict(context, coding.model.networks)
        return predicted, np.full(predicted.tail.shape, -1, np.int8)
    quiet = found.activity.copy()
    for i, limit in enumerate(limits):
        part = _of_stream(quiet, i, len(limits))
        part[part >= limit] = -1
    predicted = grid.predict(context, coding.model.networks, quiet < 0)
    np.copyto(predicted.value, found.value, where=quiet >= 0)
    return predicted, quiet


def _of_stream(points: NDArray[Any], number: int, streams: int) -> NDArray[Any]:
    """Return the points (B, h, w) of one of as many streams: of all fields, or of one."""
    return points if streams == 1 else points[number : number + 1]


def _around(anchors: F64, shape: Shape3) -> I32:
    """Return an array of `shape` in units with the anchors in their places, whatever is between them."""
    v, step = np.empty(shape, np.int32), 1 << depth(*shape[1:])
    v[:, ::step, ::step] = anchors * UNITS
    return v


def _walk(shape: Shape3, streams: Sequence[Kept], coding: Coding, proxies: Proxies | None) -> Walk:
    """Return what the compiled kernels need to do all levels at once."""
    condition = ALONE if proxies is None else proxies.condition
    levels = _levels(coding.model, coding.quantisation, shape[1:], condition, dispatch.level())
    fields, coefficients = tuple[I32, ...](), None
    if proxies is not None:
        fields = tuple(proxies.fields.values())
        coefficients = np.ascontiguousarray(proxies.coefficients[:, :, list(proxies.fields)])
    geometries = tuple(map(kernel_geometry, CONTEXTS))
    snap, kept = coding.quantisation.snap, tables.kept()
    return Walk(coding.wrap, snap, geometries, levels, kept, fields, coefficients, tuple(streams))


@lru_cache(256)  # the fields of a block have few kinds of references
def _levels(
    model: PyramidModel, quantisation: Quantisation, shape: tuple[int, int], condition: Condition, name: str
) -> tuple[tuple[int, int, tuple[Kept, ...]], ...]:
    """Return quantiser width, what it takes off scale indexes, and networks per level, as kernels `name` take them."""
    levels = list[tuple[int, int, tuple[Kept, ...]]]()
    for level in range(depth(*shape)):
        thin = min(-(-n >> level) for n in shape) == 1  # such grids look at nothing but themselves
        known = ALONE if thin else condition
        of_level = model.networks[min(level, len(model.networks) - 1)]
        kept = tuple([of_level[c.name].kept_at(level, known.kind, known.gap) for c in CONTEXTS])
        width = quantisation.width(level)
        levels.append((width, SCALE_OF_WIDTH[width], kept))
    return tuple(levels)


def phase_points(level: int, context: Context) -> tuple[slice, slice, slice]:
    """Return where the points of a phase lie in the full field."""
    (ty, tx), step = context.parity, 2 << level
    return slice(None), slice(ty << level, None, step), slice(tx << level, None, step)


def check_range(y: Fields) -> None:
    """Raise ArgumentError if a value is beyond 2**21 steps."""
    largest = reach(y)
    if not largest <= MAX_STEPS:
        raise ArgumentError(f"a value of {largest} steps is beyond the pyramid's 2**21; use a larger bound")
