"""Refinement pyramid: fields in units of a step <-> a coded section, every value within half a step.

Coarse anchors first, then each level halves the spacing; a tiny integer network predicts each new point
from decoded neighbours and chooses the table its residual is coded with. After SZ3's interpolation
(Liang et al. 2023), with the prediction and the entropy model learned. SPEC, section 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.geometry import UNITS, Context
from isopress.codec.bounded.predictor import F64, LIMIT, Evaluate, Prediction
from isopress.codec.bounded.traversal import Shape3, coarse, depth, walk
from isopress.codec.bytes import read_varint, varint
from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter, Tables
from isopress.codec.errors import ArgumentError, CorruptPayloadError, TruncatedPayloadError

MAX_STEPS = LIMIT / UNITS  # 2**21: the largest |y|
GROUP = 1 << 19  # points coded together; a field is never cut
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
# The taper for a rate of up to so many bits per value: close to the smallest size, and for loose bounds with an
# RMSE like that of other codecs (benchmarks/RESULTS.md).
TAPER_FOR_RATE = ((0.02, 1), (0.7, 2), (1.2, 1), (np.inf, 0))
SAMPLES = 4  # crops looked at to choose it


@dataclass(frozen=True)
class Quantisation:
    """How values become symbols: the taper, and whether decoded values are whole steps."""

    taper: int = 0
    snap: bool = False

    @property
    def flags(self) -> int:
        """Bits 1 to 3 of a section's flags."""
        return SNAP * self.snap | self.taper << TAPER_BIT

    @classmethod
    def from_flags(cls, flags: int) -> Quantisation:
        """Return what `flags` of a section says; raise CorruptPayloadError for reserved bits."""
        if flags >> (TAPER_BIT + 2):
            raise CorruptPayloadError(f"pyramid flags {flags:#04x} have reserved bits set")
        return cls(flags >> TAPER_BIT, bool(flags & SNAP))

    def quantise(self, predicted: F64, y: F64, level: int) -> F64:
        """Return the symbols of values `y` in steps."""
        width = width_of(self.taper, level)
        symbols = y * UNITS
        symbols -= self._used(predicted)
        symbols /= width
        return np.rint(symbols, out=symbols)

    def dequantise(self, predicted: F64, symbols: F64, level: int) -> F64:
        """Turn symbols, in place, into what they add to the prediction: whole widths, with `snap` to a whole step."""
        symbols *= width_of(self.taper, level)
        if self.snap:
            symbols += self._used(predicted)
            symbols /= UNITS
            symbols += 0.5
            np.floor(symbols, out=symbols)
            symbols *= UNITS
            symbols -= predicted
        return symbols

    def scale(self, scale: NDArray[np.int16], level: int) -> NDArray[np.int16]:
        """Return scale indexes for symbols of this level's width."""
        return scale + np.int16(SCALE_OF_WIDTH[width_of(self.taper, level)])

    def _used(self, predicted: F64) -> F64:
        """Return the prediction, or with `snap` an odd number near it, so that no integer step ties between symbols."""
        return 2 * np.floor(predicted / 2) + 1 if self.snap else predicted


@dataclass(frozen=True)
class PyramidModel:
    """Weights of a pyramid: `sha256` of their file, an evaluator of phases and frozen tables."""

    name: str
    sha256: bytes
    evaluate: Evaluate
    tables: Tables
    takes_references: bool = False


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
    if y.size and not np.abs(y).max() <= MAX_STEPS:
        raise ArgumentError(f"a value of {np.abs(y).max()} steps is beyond the pyramid's 2**21; use a larger bound")
    wrap = looks_periodic(y, valid) if periodic is None else periodic
    if snap:
        taper = 0
    elif taper is None:
        taper = 0 if not y.size else _choose_taper(y, valid, model)
    quantisation = Quantisation(taper, snap)
    out = bytearray([WRAP * wrap | quantisation.flags])
    parts = []
    for fields in groups(y.shape):
        data, part = _encode_group(y[fields], None if valid is None else valid[fields], model, wrap, quantisation)
        out += varint(len(data)) + data
        parts.append(part)
    v = _joined(parts, y.shape)
    return bytes(out) + checksum(v), v


def _joined(parts: list[I32], shape: Shape3) -> I32:
    if len(parts) == 1:  # the usual case, and a copy would be the peak of the memory
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(shape, np.int32)


def decode(section: bytes | memoryview, shape: Shape3, *, model: PyramidModel) -> I32:
    """Return (B, H, W) int32 in units of 1/64 step, the very ones `encode` returned.

    Raises
    ------
    TruncatedPayloadError
        The section ends early.
    CorruptPayloadError
        Flags, streams or the checksum of the decoded values are wrong.
    """
    data = memoryview(section)
    if len(data) < 5:
        raise TruncatedPayloadError(f"a pyramid section has at least 5 bytes, got {len(data)}")
    flags, position, end = data[0], 1, len(data) - 4
    wrap, quantisation = bool(flags & WRAP), Quantisation.from_flags(flags & ~WRAP)
    v = np.empty(shape, np.int32)
    for fields in groups(shape):
        size, position = read_varint(data[:end], position)
        if position + size > end:
            raise TruncatedPayloadError(f"a group of {size} bytes at byte {position} exceeds the section's {end}")
        group = data[position : position + size]
        v[fields] = _decode_group(group, v[fields].shape, model, wrap, quantisation)
        position += size
    if position != end or bytes(data[end:]) != checksum(v):
        raise CorruptPayloadError("the decoded values do not have the checksum that was stored with them")
    return v


def groups(shape: Shape3) -> Iterator[slice]:
    """Cut the fields of (B, H, W) into groups of about GROUP points that are coded together."""
    batch, points = shape[0], shape[1] * shape[2]
    fields = max(1, GROUP // max(1, points))
    for start in range(0, batch if points else 0, fields):
        yield slice(start, min(start + fields, batch))


def checksum(v: I32) -> bytes:
    """Return CRC32C, little-endian, of the values as little-endian int32 in C order."""
    crc = 0
    for field in v:
        crc = google_crc32c.extend(crc, np.ascontiguousarray(field, "<i4").tobytes())
    return int(crc).to_bytes(4, "little")


def _encode_group(
    y: F64, valid: NDArray[np.bool_] | None, model: PyramidModel, wrap: bool, quantisation: Quantisation
) -> tuple[bytes, I32]:
    writer = SymbolWriter(model.tables)

    def residual(level: int, context: Context, predicted: Prediction) -> F64:
        at = phase_points(level, context)
        symbols = quantisation.quantise(predicted.value, y[at], level)
        if valid is not None:
            symbols *= valid[at]
        scale = quantisation.scale(predicted.scale, level).ravel()
        writer.phase(symbols.ravel().astype(np.int32), scale, predicted.tail.ravel())
        return quantisation.dequantise(predicted.value, symbols, level)

    step = 1 << depth(*y.shape[1:])
    anchors = np.rint(y[:, ::step, ::step])
    v = walk((anchors * UNITS).astype(np.int32), y.shape, wrap=wrap, evaluate=model.evaluate, residual=residual)
    return pack_anchors(anchors) + writer.finish(), v


def _decode_group(data: memoryview, shape: Shape3, model: PyramidModel, wrap: bool, quantisation: Quantisation) -> I32:
    levels = depth(*shape[1:])
    anchors, position = unpack_anchors(data, (shape[0], coarse(shape[1], levels), coarse(shape[2], levels)))
    reader = SymbolReader(model.tables, data[position:])

    def residual(level: int, context: Context, predicted: Prediction) -> F64:
        symbols = reader.phase(quantisation.scale(predicted.scale, level).ravel(), predicted.tail.ravel())
        whole = symbols.reshape(predicted.value.shape).astype(np.float64)
        added = quantisation.dequantise(predicted.value, whole, level)
        if np.abs(predicted.value + added).max(initial=0) > 2 * LIMIT:
            raise CorruptPayloadError("a decoded value is beyond the pyramid's range")
        return added

    v = walk((anchors * UNITS).astype(np.int32), shape, wrap=wrap, evaluate=model.evaluate, residual=residual)
    reader.finish()
    return v


def width_of(taper: int, level: int) -> int:
    """Return the quantiser width of a level in units."""
    return TAPERS[taper][min(level, len(TAPERS[taper]) - 1)]


def phase_points(level: int, context: Context) -> tuple[slice, slice, slice]:
    """Return where the points of a phase lie in the full field."""
    (ty, tx), step = context.parity, 2 << level
    return slice(None), slice(ty << level, None, step), slice(tx << level, None, step)


def _choose_taper(y: F64, valid: NDArray[np.bool_] | None, model: PyramidModel) -> int:
    """Return the taper for the rate of a few crops."""
    side = 96 if y.size >= 1 << 19 else 64
    room = [max(0, n - side) for n in y.shape[1:]]
    where = [_window(i * len(y) // SAMPLES, r * room[0] // SAMPLES, i * room[1] // SAMPLES, side)
             for i, r in enumerate((1, 3, 0, 2))]  # fmt: skip
    crops, ok = (
        np.stack([y[at] for at in where]),
        None if valid is None else np.stack([valid[at] for at in where]),
    )
    data, _ = _encode_group(crops, ok, model, False, Quantisation(taper=1))
    points = crops.size if ok is None else max(1, int(np.count_nonzero(ok)))
    return taper_for_rate(8 * len(data) / points)


def taper_for_rate(rate: float) -> int:
    """Return the taper for a rate in bits per value."""
    return next(taper for most, taper in TAPER_FOR_RATE if rate <= most)


def _window(field: int, row: int, column: int, side: int) -> tuple[int, slice, slice]:
    return field, slice(row, row + side), slice(column, column + side)


def looks_periodic(y: F64, valid: NDArray[np.bool_] | None) -> bool:
    """Whether the step from the last column to the first is like the steps inside."""
    if y.shape[2] < 16 or y.shape[2] % 2 or not y.size:
        return False
    ok = np.ones(y.shape, bool) if valid is None else valid
    seam = np.abs(y[:, :, 0] - y[:, :, -1])[ok[:, :, 0] & ok[:, :, -1]]
    inner = np.abs(np.diff(y, axis=2))[ok[:, :, 1:] & ok[:, :, :-1]]
    return bool(seam.size and inner.size and seam.mean() <= 2 * inner.mean())


def pack_anchors(anchors: F64) -> bytes:
    """Return zigzag varints: the first field in raster differences, each other as difference from the one before."""
    delta = np.diff(anchors, axis=0, prepend=0.0).astype(np.int64)
    delta[:1] = np.diff(delta[:1].ravel(), prepend=0).reshape(delta[:1].shape)
    return b"".join(varint(int(d) << 1 if d >= 0 else ~(int(d) << 1)) for d in delta.ravel())


def unpack_anchors(data: memoryview, shape: Shape3) -> tuple[F64, int]:
    position, delta = 0, np.empty(shape)
    for i in range(delta.size):
        code, position = read_varint(data, position)
        delta.flat[i] = ~(code >> 1) if code & 1 else code >> 1
    delta[:1] = np.cumsum(delta[:1].ravel()).reshape(delta[:1].shape)
    anchors = np.cumsum(delta, axis=0)
    if np.abs(anchors).max(initial=0) > MAX_STEPS:
        raise CorruptPayloadError("an anchor is beyond the pyramid's range")
    return anchors, position
