"""Refinement pyramid: fields in units of a step <-> a coded section, every value within half a step.

Coarse anchors first, then each level halves the spacing; a tiny integer network predicts each new point
from decoded neighbours and chooses the table its residual is coded with. After SZ3's interpolation
(Liang et al. 2023), with the prediction and the entropy model learned. SPEC, "Pyramid".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec import native
from isopress.codec.bounded.geometry import CONTEXTS, Context, kernel_geometry
from isopress.codec.bounded.predictor import ALONE, F64, LIMIT, Networks, Prediction
from isopress.codec.bounded.quiet import I8, LEAST, Look, choose_limit, read_symbols, write_symbols
from isopress.codec.bounded.reference_prediction import Proxies
from isopress.codec.bounded.traversal import Grid, Shape3, depth, refine
from isopress.codec.bytes import crc32c, read_varint, varint
from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter, Tables
from isopress.codec.entropy.distributions import limit_model
from isopress.codec.errors import ArgumentError, CorruptPayloadError, TruncatedPayloadError
from isopress.codec.threads import share
from isopress.codec.values.quantiser import UNITS

MAX_STEPS = LIMIT / UNITS  # 2**21: the largest |y|
GROUP = 1 << 19  # points coded together; a field is never cut
WRAP, SNAP, TAPER_BIT = 1, 2, 2
CHECKSUM = 4  # bytes
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
# The taper for a rate of up to so many bits per value: close to the smallest size, and for loose bounds with an
# RMSE like that of other codecs (benchmarks/RESULTS.md).
TAPER_FOR_RATE = ((0.02, 1), (0.7, 2), (1.2, 1), (np.inf, 0))
SAMPLES = 4  # crops looked at to choose it
SMALL = 1 << 15  # values: so few are coded whole to choose it
ROUGH = 2  # steps: where second differences are larger there will hardly be a taper
SURELY_HIGH = 2  # bits per value without a taper: with one it is never 1.2 or less
SEAM_FIELDS, SEAM_ROWS = 8, 128  # looked at, at most, to see whether columns are periodic


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


@dataclass(frozen=True)
class PyramidModel:
    """Weights of a pyramid: `sha256` of their file, networks per level and phase, and frozen tables."""

    name: str
    sha256: bytes
    networks: Networks
    tables: Tables
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


# --- fields <-> symbols -------------------------------------------------------------------------------------


def encode_fields(
    y: F64,
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
        _walk(y.shape, streams, coding, proxies).encode(y, valid, v)
        return v
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
        _walk(shape, streams, coding, proxies).decode(v)
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


def _walk(shape: Shape3, streams: Sequence[native.Kept], coding: Coding, proxies: Proxies | None) -> native.Walk:
    """Return what the compiled kernels need to do all levels at once."""
    networks, levels = coding.model.networks, []
    for level in range(depth(*shape[1:])):
        thin = min(-(-n >> level) for n in shape[1:]) == 1  # such grids look at nothing but themselves
        condition = ALONE if proxies is None or thin else proxies.condition
        of_level = networks[min(level, len(networks) - 1)]
        kept = [of_level[c.name].kept(native.level(), level, condition.kind, condition.gap) for c in CONTEXTS]
        width = coding.quantisation.width(level)
        levels.append((width, SCALE_OF_WIDTH[width], tuple(kept)))
    fields, coefficients = tuple[I32, ...](), None
    if proxies is not None:
        fields = tuple(proxies.fields.values())
        coefficients = np.ascontiguousarray(proxies.coefficients[:, :, list(proxies.fields)])
    geometries = tuple(kernel_geometry(c) for c in CONTEXTS)
    quantisation, tables = coding.quantisation, coding.model.tables.kept
    return native.Walk(
        coding.wrap, quantisation.snap, geometries, tuple(levels), tables, fields, coefficients, tuple(streams)
    )


def phase_points(level: int, context: Context) -> tuple[slice, slice, slice]:
    """Return where the points of a phase lie in the full field."""
    (ty, tx), step = context.parity, 2 << level
    return slice(None), slice(ty << level, None, step), slice(tx << level, None, step)


# --- fields alone <-> section -------------------------------------------------------------------------------


def encode(
    y: F64,
    valid: NDArray[np.bool_] | None,
    *,
    model: PyramidModel,
    snap: bool = False,
    periodic: bool | None = None,
    taper: int | None = None,
) -> tuple[bytes, I32]:
    """Code fields so that every valid point decodes to within half a step.

    Parameters
    ----------
    y : (B, H, W) float64
        Values in units of one step, finite and within +-2**21.
    valid : (B, H, W) bool, or None for all
        Points that matter; the others decode to something finite and cost next to nothing. Of their y only
        the anchors are looked at: a smooth continuation of the valid values is best.
    model : PyramidModel
    snap : bool
        `y` holds integers, which are to be decoded exactly.
    periodic : bool or None
        Whether the first column follows the last; None looks at the values.
    taper : 0 to 3, or None
        How much finer coarse levels are quantised; 0 for not at all. None chooses by the rate of a
        sample. Ignored with `snap`.

    Returns
    -------
    section : bytes
    v : (B, H, W) int32
        What `decode` returns: integers in units of 1/64 step, |y - v / 64| <= 0.5 where valid.

    Raises
    ------
    ArgumentError
        A value exceeds 2**21 steps.
    """
    check_range(y)
    wrap = looks_periodic(y, valid) if periodic is None else periodic
    if snap or not y.size:
        taper = 0
    elif taper is None and y.size <= SMALL:
        return _encode_small(y, valid, model, wrap)
    elif taper is None:
        taper = _choose_taper(y, valid, model)
    return _encode(y, valid, Coding(model, wrap, Quantisation(taper, snap)))


def _encode_small(y: F64, valid: NDArray[np.bool_] | None, model: PyramidModel, wrap: bool) -> tuple[bytes, I32]:
    """Code all to choose the taper, rough fields first without one: the first try is mostly the last."""
    points = y.size if valid is None else max(1, int(np.count_nonzero(valid)))
    if y.shape[2] > 2 and np.abs(y[:, :, 2:] - 2 * y[:, :, 1:-1] + y[:, :, :-2]).mean() > ROUGH:
        tried = _encode(y, valid, Coding(model, wrap, Quantisation()))
        if 8 * len(tried[0]) > SURELY_HIGH * points:
            return tried
    tried = _encode(y, valid, Coding(model, wrap, Quantisation(taper=1)))
    taper = taper_for_rate(8 * len(tried[0]) / points)
    return tried if taper == 1 else _encode(y, valid, Coding(model, wrap, Quantisation(taper)))


def _encode(y: F64, valid: NDArray[np.bool_] | None, coding: Coding) -> tuple[bytes, I32]:
    """Code all groups of fields."""
    out = bytearray([coding.flags])
    parts = []
    for data, part in share(partial(_encode_group, y, valid, coding), groups(y.shape)):
        out += varint(len(data)) + data
        parts.append(part)
    v = _joined(parts, y.shape)
    return bytes(out) + checksum(v), v


def decode(section: bytes | memoryview, shape: Shape3, *, model: PyramidModel) -> I32:
    """Return (B, H, W) int32 in units of 1/64 step, the very ones `encode` returned.

    Raises
    ------
    TruncatedPayloadError
        The section ends early, or is too short for so many fields.
    CorruptPayloadError
        Flags, streams or the checksum of the decoded values are wrong.
    """
    data = memoryview(section)
    # Every anchor takes a byte, and every group two: checked before anything is made of the size of `shape`.
    levels = depth(*shape[1:])
    least = 1 + CHECKSUM + shape[0] * (-(-shape[1] >> levels)) * (-(-shape[2] >> levels)) + 2 * len(groups(shape))
    if len(data) < least:
        raise TruncatedPayloadError(f"a pyramid of {shape} has at least {least} bytes, got {len(data)}")
    coding, position, end = Coding.from_flags(data[0], model), 1, len(data) - CHECKSUM
    pieces = []
    for fields in groups(shape):
        size, position = read_varint(data[:end], position)
        if position + size > end:
            raise TruncatedPayloadError(f"a group of {size} bytes at byte {position} exceeds the section's {end}")
        pieces.append((data[position : position + size], (fields.stop - fields.start, *shape[1:])))
        position += size
    v = _joined(share(partial(_decode_group, coding), pieces), shape)
    if position != end or bytes(data[end:]) != checksum(v):
        raise CorruptPayloadError("the decoded values do not have the checksum that was stored with them")
    return v


def _encode_group(y: F64, valid: NDArray[np.bool_] | None, coding: Coding, fields: slice) -> tuple[bytes, I32]:
    """Code some fields in one stream after their anchors: zigzag varints, the first field in raster differences, each
    other as difference from the one before."""
    y, valid = y[fields], None if valid is None else valid[fields]
    step = 1 << depth(*y.shape[1:])
    anchors = np.rint(y[:, ::step, ::step])
    delta = np.diff(anchors, axis=0, prepend=0.0).astype(np.int64)
    delta[:1] = np.diff(delta[:1].ravel(), prepend=0).reshape(delta[:1].shape)
    head = bytearray()
    for d in delta.ravel().tolist():
        head += varint(d << 1 if d >= 0 else ~(d << 1))
    writer = SymbolWriter(coding.model.tables)
    v = encode_fields(y, valid, anchors, [writer], coding)
    return bytes(head) + writer.finish(), v


def _decode_group(coding: Coding, piece: tuple[memoryview, Shape3]) -> I32:
    """Return the fields of one stream and their shape."""
    data, shape = piece
    coding.model.tables.check_count(shape[0] * shape[1] * shape[2], len(data))
    levels = depth(*shape[1:])
    size = shape[0], -(-shape[1] >> levels), -(-shape[2] >> levels)
    codes, position = [], 0
    for _ in range(size[0] * size[1] * size[2]):
        code, position = read_varint(data, position)
        codes.append(~(code >> 1) if code & 1 else code >> 1)
    delta = np.array(codes, np.float64).reshape(size)
    delta[:1] = np.cumsum(delta[:1]).reshape(delta[:1].shape)
    reader = SymbolReader(coding.model.tables, data[position:])
    return decode_fields(shape, np.cumsum(delta, axis=0), [reader], coding)


def groups(shape: Shape3) -> list[slice]:
    """Cut the fields of (B, H, W) into groups of about GROUP points that are coded together."""
    batch, points = shape[0], shape[1] * shape[2]
    if not points:
        return []
    size, result = max(1, GROUP // points), []
    for start in range(0, batch, size):
        result.append(slice(start, min(start + size, batch)))
    return result


def _joined(parts: list[I32], shape: Shape3) -> I32:
    if len(parts) == 1:  # the usual case, and a copy would be the peak of the memory
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(shape, np.int32)


def check_range(y: F64) -> None:
    """Raise ArgumentError if a value is beyond 2**21 steps."""
    reach = max(y.max(initial=0), -y.min(initial=0))
    if not reach <= MAX_STEPS:
        raise ArgumentError(f"a value of {reach} steps is beyond the pyramid's 2**21; use a larger bound")


def checksum(v: I32) -> bytes:
    """Return CRC32C, little-endian, of the values as little-endian int32 in C order."""
    crc = 0
    for field in v:
        crc = crc32c(np.ascontiguousarray(field, "<i4").data, crc)
    return crc.to_bytes(CHECKSUM, "little")


# --- choices of the encoder ---------------------------------------------------------------------------------


def _choose_taper(y: F64, valid: NDArray[np.bool_] | None, model: PyramidModel) -> int:
    """Return the taper for the rate of a few crops."""
    side = 96 if y.size >= 1 << 19 else 64
    rows, columns = max(0, y.shape[1] - side), max(0, y.shape[2] - side)
    crops, ok = [], []
    for i, r in enumerate((1, 3, 0, 2)[:SAMPLES]):
        row, column = r * rows // SAMPLES, i * columns // SAMPLES
        at = i * len(y) // SAMPLES, slice(row, row + side), slice(column, column + side)
        crops.append(y[at])
        ok.append(np.True_ if valid is None else valid[at])
    some = None if valid is None else np.stack(ok)
    data, _ = _encode_group(np.stack(crops), some, Coding(model, False, Quantisation(taper=1)), slice(None))
    points = SAMPLES * crops[0].size if some is None else max(1, int(np.count_nonzero(some)))
    return taper_for_rate(8 * len(data) / points)


def taper_for_rate(rate: float) -> int:
    """Return the taper for a rate in bits per value."""
    for most, taper in TAPER_FOR_RATE:
        if rate <= most:
            return taper
    raise ValueError(f"a rate is no number: {rate}")


def looks_periodic(y: F64, valid: NDArray[np.bool_] | None) -> bool:
    """Whether the step from the last column to the first is like the steps inside."""
    if y.shape[2] < 16 or y.shape[2] % 2 or not y.size:
        return False
    fields, rows = -(-len(y) // SEAM_FIELDS), -(-y.shape[1] // SEAM_ROWS)
    y = y[::fields, ::rows]
    ok = np.ones(y.shape, bool) if valid is None else valid[::fields, ::rows]
    seam = np.abs(y[:, :, 0] - y[:, :, -1])[ok[:, :, 0] & ok[:, :, -1]]
    inner = np.abs(np.diff(y, axis=2))[ok[:, :, 1:] & ok[:, :, :-1]]
    return bool(seam.size and inner.size and seam.mean() <= 2 * inner.mean())
