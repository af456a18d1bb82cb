"""Fields alone: fields in units of a step <-> a coded section, in groups of one stream each; beside `block.py`.

The encoder chooses the taper and whether columns are periodic. SPEC, "Pyramid".
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.pyramid import Coding, PyramidModel, Quantisation, check_range, decode_fields, encode_fields
from isopress.codec.bounded.traversal import Shape3, depth
from isopress.codec.bytes import crc32c, read_varint, varint
from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter
from isopress.codec.entropy.tables import check_count
from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.threads import share
from isopress.codec.values.quantiser import Fields, Steps

GROUP = 1 << 19  # points coded together; a field is never cut
CHECKSUM = 4  # bytes
# The taper for a rate of up to so many bits per value: close to the smallest size, and for loose bounds with an
# RMSE like that of other codecs (benchmarks/RESULTS.md).
TAPER_FOR_RATE = ((0.02, 1), (0.7, 2), (1.2, 1), (np.inf, 0))
SAMPLES = 4  # crops looked at to choose it
SMALL = 1 << 15  # values: so few are coded whole to choose it
ROUGH = 2  # steps: where second differences are larger there will hardly be a taper
SURELY_HIGH = 2  # bits per value without a taper: with one it is never 1.2 or less
SEAM_FIELDS, SEAM_ROWS = 8, 128  # looked at, at most, to see whether columns are periodic


def encode(
    y: Fields,
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
    y : (B, H, W) float64, or Steps
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


def _encode_small(y: Fields, valid: NDArray[np.bool_] | None, model: PyramidModel, wrap: bool) -> tuple[bytes, I32]:
    """Code all to choose the taper, rough fields first without one: the first try is mostly the last."""
    y = y[:]
    points = y.size if valid is None else max(1, int(np.count_nonzero(valid)))
    if y.shape[2] > 2 and np.abs(y[:, :, 2:] - 2 * y[:, :, 1:-1] + y[:, :, :-2]).mean() > ROUGH:
        tried = _encode(y, valid, Coding(model, wrap, Quantisation()))
        if 8 * len(tried[0]) > SURELY_HIGH * points:
            return tried
    tried = _encode(y, valid, Coding(model, wrap, Quantisation(taper=1)))
    taper = taper_for_rate(8 * len(tried[0]) / points)
    return tried if taper == 1 else _encode(y, valid, Coding(model, wrap, Quantisation(taper)))


def _encode(y: Fields, valid: NDArray[np.bool_] | None, coding: Coding) -> tuple[bytes, I32]:
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


def _encode_group(y: Fields, valid: NDArray[np.bool_] | None, coding: Coding, fields: slice) -> tuple[bytes, I32]:
    """Code some fields in one stream after their anchors: zigzag varints, the first field in raster differences, each
    other as difference from the one before."""
    y = y.fields(fields) if isinstance(y, Steps) else y[fields]
    valid = None if valid is None else valid[fields]
    step = 1 << depth(*y.shape[1:])
    anchors = np.rint(y[:, ::step, ::step])
    delta = np.diff(anchors, axis=0, prepend=0.0).astype(np.int64)
    delta[:1] = np.diff(delta[:1].ravel(), prepend=0).reshape(delta[:1].shape)
    head = bytearray()
    for d in delta.ravel().tolist():
        head += varint(d << 1 if d >= 0 else ~(d << 1))
    writer = SymbolWriter()
    v = encode_fields(y, valid, anchors, [writer], coding)
    return bytes(head) + writer.finish(), v


def _decode_group(coding: Coding, piece: tuple[memoryview, Shape3]) -> I32:
    """Return the fields of one stream and their shape."""
    data, shape = piece
    check_count(shape[0] * shape[1] * shape[2], len(data))
    levels = depth(*shape[1:])
    size = shape[0], -(-shape[1] >> levels), -(-shape[2] >> levels)
    codes, position = [], 0
    for _ in range(size[0] * size[1] * size[2]):
        code, position = read_varint(data, position)
        codes.append(~(code >> 1) if code & 1 else code >> 1)
    delta = np.array(codes, np.float64).reshape(size)
    delta[:1] = np.cumsum(delta[:1]).reshape(delta[:1].shape)
    reader = SymbolReader(data[position:])
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


def checksum(v: I32) -> bytes:
    """Return CRC32C, little-endian, of the values as little-endian int32 in C order."""
    crc = 0
    for field in v:
        crc = crc32c(np.ascontiguousarray(field, "<i4").data, crc)
    return crc.to_bytes(CHECKSUM, "little")


def _choose_taper(y: Fields, valid: NDArray[np.bool_] | None, model: PyramidModel) -> int:
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


def looks_periodic(y: NDArray[np.floating[Any]] | Steps, valid: NDArray[np.bool_] | None) -> bool:
    """Whether the step from the last column to the first is like the steps inside."""
    if y.shape[2] < 16 or y.shape[2] % 2 or not y.size:
        return False
    fields, rows = -(-len(y) // SEAM_FIELDS), -(-y.shape[1] // SEAM_ROWS)
    y = y[::fields, ::rows].astype(np.float64)
    ok = np.ones(y.shape, bool) if valid is None else valid[::fields, ::rows]
    seam = np.abs(y[:, :, 0] - y[:, :, -1])[ok[:, :, 0] & ok[:, :, -1]]
    inner = np.abs(np.diff(y, axis=2))[ok[:, :, 1:] & ok[:, :, :-1]]
    return bool(seam.size and inner.size and seam.mean() <= 2 * inner.mean())
