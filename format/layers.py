"""Chunks that were written in part: the payload of the chunk before, and payloads of what changed, one over the other.

What is not written again is not coded again, so its error stays what it was however often a chunk is rewritten.

    first layer   the whole chunk, as it was
    next layers   boxes of it; where one has its hole, a NaN of its own, what lies below shows
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bytes import read_varint, varint
from isopress.codec.chunk.decode import ChunkDecoder
from isopress.codec.chunk.final_values import FLOATS, field_shape
from isopress.codec.encoded import Section, is_paid_for
from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.format.payload import Payload, PayloadInfo, parse

Array = NDArray[Any]
Box = tuple[slice, ...]

MAX_LAYERS = 255
_HOLE = {4: 0x7FC0484F, 8: 0x7FF800000000484F}  # quiet NaNs; the next ones where a box has them already


@dataclass(frozen=True)
class Layer:
    """A payload, the corner of the chunk where its box starts, and the bits of its hole (None: it has none)."""

    payload: bytes
    start: tuple[int, ...]
    hole: bytes | None = None

    def to_bytes(self) -> bytes:
        """Return the layer as a part of the section: corner, hole, length, payload."""
        hole = b"\0" if self.hole is None else b"\1" + self.hole
        return b"".join((*map(varint, self.start), hole, varint(len(self.payload)), self.payload))

    def box(self, shape: tuple[int, ...]) -> Box:
        """Return where a box of this shape lies in the chunk."""
        return tuple(slice(start, start + size) for start, size in zip(self.start, shape, strict=True))


def write_layers(layers: Collection[Layer]) -> bytes:
    """Return the section of a payload of method LAYERS."""
    return bytes([len(layers)]) + b"".join(layer.to_bytes() for layer in layers)


def read_layers(parsed: Payload) -> list[tuple[Layer, Payload]]:
    """Return the layers of a payload, whose headers are checked against its own.

    Raises
    ------
    TruncatedPayloadError
        The section ends early.
    CorruptPayloadError
        A layer is of another dtype or beyond the chunk, the first is not the whole chunk, or together they claim more
        values than so many bytes can hold. Otherwise as `payload.parse`.
    """
    info, sections = parsed.info, dict(parsed.sections())
    if info.dtype.newbyteorder("=") not in FLOATS:
        raise CorruptPayloadError(f"method LAYERS holds float32 or float64 values, not {info.dtype}")
    if set(sections) != {Section.LAYERS}:
        raise CorruptPayloadError(f"method LAYERS has the section {int(Section.LAYERS)} alone, not {sorted(sections)}")
    data = sections[Section.LAYERS]
    found: list[tuple[Layer, Payload]] = []
    at = 1
    for _ in range(data[0] if data else 0):
        layer, at = _read_layer(data, at, info)
        inner = parse(layer.payload)
        _check_layer(layer, inner.info, info, first=not found)
        found.append((layer, inner))
    if not found or at != len(data):
        raise CorruptPayloadError(f"the section of layers has {len(data) - at} bytes more than {len(found)} layers")
    if not is_paid_for(sum(inner.info.original_nbytes for _, inner in found), len(data)):
        raise CorruptPayloadError(f"{len(found)} layers in {len(data)} bytes claim more values than any writer's")
    return found


class LayeredDecoder:
    """Decodes a chunk of layers, or only the fields that are wanted; as `ChunkDecoder` does."""

    def __init__(self, parsed: Payload, start: Callable[[Payload], ChunkDecoder]) -> None:
        self._shape, self._dtype = parsed.info.shape, parsed.info.dtype.newbyteorder("=")
        self._layers = [(layer, inner.info.shape, partial(start, inner)) for layer, inner in read_layers(parsed)]
        self._base = self._layers[0][2]()
        self._by_field = parsed.info.coded_shape == self._shape
        self._values: Array = np.zeros(field_shape(self._shape), self._dtype)
        self._ready: set[int] = set()

    def decode(self, fields: Collection[int] | None = None) -> Array:
        """Return the values in C order and native byte order; if `fields` are named, only those are right."""
        new = sorted(set(range(len(self._values)) if fields is None else fields) - self._ready)
        if new:
            below = self._base.decode(new if self._by_field else None).reshape(self._values.shape)
            self._values[new] = below[new]
            for layer, shape, start in self._layers[1:]:
                self._lay(layer, shape, start, new)
            self._ready.update(new)
        return self._values.reshape(self._shape)

    def _lay(self, layer: Layer, shape: tuple[int, ...], start: Callable[[], ChunkDecoder], fields: list[int]) -> None:
        """Put a layer over those of the `fields` that its box has a part of."""
        box = layer.box(shape)
        wanted = np.zeros(len(self._values), bool)
        wanted[fields] = True
        touched = wanted.reshape(self._shape[:-2])[box[:-2]]
        if not touched.any():
            return
        x = start().decode(None).reshape(shape)
        target = self._values.reshape(self._shape)[box]
        shows = np.broadcast_to(touched.reshape((*touched.shape, *[1] * (x.ndim - touched.ndim))), x.shape)
        if layer.hole is not None:
            shows = shows & (bits_of(x) != np.frombuffer(layer.hole, f"<u{x.dtype.itemsize}")[0])
        np.copyto(target, x, where=shows)


def bits_of(x: Array) -> Array:
    """Return the bits of floats in native byte order as integers."""
    return np.require(x, requirements=["C", "A"]).view(f"u{x.dtype.itemsize}").reshape(x.shape)


def bounding_box(where: Array) -> Box:
    """Return the smallest box that holds all that is true; something must be."""
    box = []
    for axis in range(where.ndim):
        others = tuple(other for other in range(where.ndim) if other != axis)
        found = np.flatnonzero(where.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def with_hole(x: Array, shows: Array) -> tuple[Array, bytes | None]:
    """Return a copy of `x` with a NaN that it has not where it does not show, and the bits of that NaN."""
    if shows.all():
        return np.ascontiguousarray(x), None
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    holed, taken = x.copy(), set(np.unique(bits_of(x[np.isnan(x)])).tolist())
    hole = next(bits for bits in range(_HOLE[x.dtype.itemsize], 2**63) if bits not in taken)
    holed.view(unsigned)[~shows] = hole
    return holed, np.asarray(hole, unsigned.newbyteorder("<")).tobytes()


def _read_layer(data: bytes, at: int, info: PayloadInfo) -> tuple[Layer, int]:
    start = []
    for _ in info.shape:
        corner, at = read_varint(data, at, most=9)
        start.append(corner)
    if data[at : at + 1] not in (b"\0", b"\1"):
        raise CorruptPayloadError("a layer has a hole (1) or none (0)")
    width = info.dtype.itemsize if data[at] else 0
    hole, at = data[at + 1 : at + 1 + width], at + 1 + width
    length, at = read_varint(data, at, most=9)
    if at + length > len(data):
        raise TruncatedPayloadError(f"a layer of {length} bytes has only {len(data) - at}")
    return Layer(data[at : at + length], tuple(start), hole or None), at + length


def _check_layer(layer: Layer, inner: PayloadInfo, info: PayloadInfo, *, first: bool) -> None:
    if inner.dtype.newbyteorder("=") != info.dtype.newbyteorder("="):
        raise CorruptPayloadError(f"a layer holds {inner.dtype}, the chunk {info.dtype}")
    ends = [start + size for start, size in zip(layer.start, inner.shape, strict=False)]
    inside = all(end <= size for end, size in zip(ends, info.shape, strict=False))
    if len(inner.shape) != len(info.shape) or not inside or 0 in inner.shape:
        raise CorruptPayloadError(f"a layer of shape {inner.shape} at {layer.start} is not in a chunk of {info.shape}")
    if first and (inner.shape != info.shape or layer.hole is not None):
        raise CorruptPayloadError("the first layer is not the whole chunk")
