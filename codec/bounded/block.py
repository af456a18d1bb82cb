"""Blocks: fields in units of a step <-> a coded section in which fields refer to each other.

Every field is a pyramid of its own stream, so that one field costs no more than the chain of its references.
Before a field is coded, a guess made of its references is subtracted from it, and the network sees what they
look like around each point (codec.references, codec.proxies). SPEC, section 13.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.geometry import UNITS, Context
from isopress.codec.bounded.predictor import F64, LIMIT, Condition, Prediction
from isopress.codec.bounded.pyramid import (
    GROUP,
    MAX_STEPS,
    PyramidModel,
    Quantisation,
    looks_periodic,
    phase_points,
)
from isopress.codec.bounded.reference_coefficients import fit, read_coefficients, write_coefficients
from isopress.codec.bounded.reference_order import Axes, Node, chain, order
from isopress.codec.bounded.reference_prediction import Proxies, proxy_fields
from isopress.codec.bounded.traversal import Shape3, coarse, depth, walk
from isopress.codec.bytes import read_varint, varint
from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter
from isopress.codec.errors import ArgumentError, CorruptPayloadError, TruncatedPayloadError

CHECKSUM = 2  # bytes per field
LEAST_STREAM = 1 + CHECKSUM  # bytes
ANCHOR_SCALE, ANCHOR_TAIL = 21, 3  # as if anchors were off by one step
MAX_AXES = 14  # before the field: their numbers are stored in four bits


@dataclass(frozen=True)
class Layout:
    """What the first two bytes of a section say, and what follows from it and the shape.

    leading : lengths of the axes before the field.
    """

    leading: tuple[int, ...]
    axes: Axes
    wrap: bool
    quantisation: Quantisation

    @property
    def batches(self) -> list[list[Node]]:
        """All fields in coding order."""
        return order(self.leading, self.axes)

    def to_bytes(self) -> bytes:
        number = [0 if axis is None else axis + 1 for axis in (self.axes.primary, self.axes.secondary)]
        return bytes([int(self.wrap) | self.quantisation.flags, number[0] | number[1] << 4])

    @classmethod
    def from_bytes(cls, data: memoryview, leading: tuple[int, ...]) -> Layout:
        if len(data) < 2:
            raise TruncatedPayloadError(f"a block section has at least 2 bytes, got {len(data)}")
        axes = [None if not n else n - 1 for n in (data[1] & 15, data[1] >> 4)]
        if any(axis is not None and axis >= len(leading) for axis in axes) or (
            axes[1] is not None and axes[0] in (None, axes[1])
        ):
            raise CorruptPayloadError(f"a block of {len(leading)} leading axes refers along axes {axes}")
        return cls(leading, Axes(*axes), bool(data[0] & 1), Quantisation.from_flags(data[0] & ~1))


def encode(
    y: F64,
    valid: NDArray[np.bool_] | None,
    *,
    leading: Sequence[int],
    axes: Axes,
    model: PyramidModel,
    quantisation: Quantisation,
    periodic: bool | None = None,
) -> tuple[bytes, I32]:
    """Code the fields of a block so that every valid point decodes to within half a step.

    Parameters
    ----------
    y : (B, H, W) float64
        Values in units of one step, finite and within +-2**21; B is the product of `leading`.
    valid : (B, H, W) bool, or None for all
        Points that matter; see `pyramid.encode`.
    leading : lengths of the axes before the field, at most 14.
    axes : which of them carry references.
    model : PyramidModel
        Weights that take references.
    quantisation : Quantisation
    periodic : bool or None
        Whether the first column follows the last; None looks at the values.

    Returns
    -------
    section : bytes
    v : (B, H, W) int32
        What decoding returns: integers in units of 1/64 step, |y - v / 64| <= 0.5 where valid.

    Raises
    ------
    ArgumentError
        A value exceeds 2**21 steps, or the weights take no references.
    """
    if not model.takes_references:
        raise ArgumentError(f"weights {model.name} take no references; use others for blocks")
    if y.size and not np.abs(y).max() <= MAX_STEPS:
        raise ArgumentError(f"a value of {np.abs(y).max()} steps is beyond the pyramid's 2**21; use a larger bound")
    wrap = looks_periodic(y, valid) if periodic is None else periodic
    layout = Layout(tuple(leading), axes, wrap, quantisation)
    v = np.zeros(y.shape, np.int32)
    streams: dict[int, bytes] = {}
    batches = layout.batches
    for nodes in _batches(batches, y.shape):
        streams |= _encode_batch(y, valid, v, nodes, layout, model)
    ordered = [streams[node.field] for batch in batches for node in batch]
    return b"".join((layout.to_bytes(), *(varint(len(s)) for s in ordered), *ordered)), v


@dataclass
class BlockDecoder:
    """Decodes the fields of one section, each at most once.

    section : bytes; shape : the whole (..., H, W).
    done : flat indices of the fields decoded so far; `values` of the others mean nothing.

    Raises
    ------
    TruncatedPayloadError
        The section ends early.
    CorruptPayloadError
        Flags, streams or the checksum of a decoded field are wrong.
    """

    section: memoryview
    shape: tuple[int, ...]
    model: PyramidModel
    values: I32 = field(init=False)
    done: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        if len(self.shape) < 3 or not self.model.takes_references:
            raise CorruptPayloadError(f"weights {self.model.name} hold no block of shape {self.shape}")
        fields = math.prod(self.shape[:-2])
        if 2 + fields * (1 + LEAST_STREAM) > len(self.section):  # before anything is made for each field
            raise TruncatedPayloadError(f"{len(self.section)} bytes are too few for a block of {fields} fields")
        self.values = np.zeros((fields, *self.shape[-2:]), np.int32)
        self._layout = Layout.from_bytes(self.section, self.shape[:-2])
        self._batches = self._layout.batches
        self._streams = dict(self._cut())

    def _cut(self) -> Iterator[tuple[int, memoryview]]:
        nodes = [node for batch in self._batches for node in batch]
        sizes, position = [], 2
        for _ in nodes:
            size, position = read_varint(self.section, position)
            sizes.append(size)
        if position + sum(sizes) > len(self.section):
            raise TruncatedPayloadError(f"a block of {position + sum(sizes)} bytes ends after {len(self.section)}")
        if position + sum(sizes) < len(self.section):
            raise CorruptPayloadError(f"{len(self.section) - position - sum(sizes)} bytes follow a block section")
        for node, size in zip(nodes, sizes, strict=True):
            yield node.field, self.section[position : position + size]
            position += size

    def decode(self, fields: Collection[int] | None = None) -> I32:
        """Return (B, H, W) int32 in units of 1/64 step; only the `fields` asked for, if any, need be right."""
        wanted = set(range(len(self.values)) if fields is None else fields) - self.done
        shape: Shape3 = (len(self.values), *self.values.shape[1:])
        for nodes in _batches(chain(self._batches, wanted), shape):
            if nodes := [node for node in nodes if node.field not in self.done]:
                _decode_batch(self._streams, self.values, nodes, self._layout, self.model)
                self.done.update(node.field for node in nodes)
        return self.values


def _batches(batches: Collection[list[Node]] | Iterator[list[Node]], shape: Shape3) -> Iterator[list[Node]]:
    """Cut batches so that about GROUP points are coded together."""
    size = max(1, GROUP // max(1, shape[1] * shape[2]))
    for batch in batches:
        for start in range(0, len(batch), size):
            yield batch[start : start + size]


def checksum(v: I32) -> bytes:
    """Return the low 16 bits, little-endian, of the CRC32C of one field as little-endian int32 in C order."""
    return int(google_crc32c.value(np.ascontiguousarray(v, "<i4").tobytes())).to_bytes(4, "little")[:CHECKSUM]


def batch_proxies(
    nodes: Sequence[Node], decoded: I32, exponents: NDArray[np.int8], coefficients: NDArray[np.int8]
) -> Proxies | None:
    """Return the proxies of a batch, or None for fields without references."""
    if not nodes[0].kind:
        return None
    condition = Condition(nodes[0].kind, nodes[0].gap)
    return Proxies(proxy_fields(nodes, decoded, exponents), coefficients, condition)


def _encode_batch(
    y: F64, valid: NDArray[np.bool_] | None, v: I32, nodes: list[Node], layout: Layout, model: PyramidModel
) -> dict[int, bytes]:
    fields = [node.field for node in nodes]
    y, ok = y[fields], None if valid is None else valid[fields]
    if ok is not None:
        _copy_references(y, ok, v, nodes)
    writers = [SymbolWriter(model.tables, peaked=True) for _ in nodes]
    exponents, coefficients = fit(nodes, y * UNITS, v)
    for writer, exponent, coefficient in zip(writers, exponents, coefficients, strict=True):
        write_coefficients(writer, nodes[0].kind, exponent, coefficient)
    proxies = batch_proxies(nodes, v, exponents, coefficients)

    def residual(level: int, context: Context, predicted: Prediction) -> F64:
        at = phase_points(level, context)
        symbols = layout.quantisation.quantise(predicted.value, y[at], level)
        if ok is not None:
            symbols *= ok[at]
        scale = layout.quantisation.scale(predicted.scale, level)
        for i, writer in enumerate(writers):
            writer.phase(symbols[i].ravel().astype(np.int32), scale[i].ravel(), predicted.tail[i].ravel())
        return layout.quantisation.dequantise(predicted.value, symbols, level)

    levels = depth(*y.shape[1:])
    step = 1 << levels
    anchors = np.rint(y[:, ::step, ::step])
    off = anchors - _anchor_guess(proxies, levels, anchors)
    for writer, symbols in zip(writers, off, strict=True):
        writer.phase(np.diff(symbols.ravel(), prepend=0).astype(np.int32), *_anchor_model(symbols.size))
    v[fields] = walk(
        (anchors * UNITS).astype(np.int32),
        (len(nodes), *y.shape[1:]),
        wrap=layout.wrap,
        evaluate=model.evaluate,
        residual=residual,
        proxies=proxies,
    )
    return {f: writer.finish() + checksum(v[f]) for f, writer in zip(fields, writers, strict=True)}


def _copy_references(y: F64, valid: NDArray[np.bool_], v: I32, nodes: list[Node]) -> None:
    """Let fields that do not matter at all repeat their references, which costs nothing and serves later ones."""
    for values, ok, node in zip(y, valid, nodes, strict=True):
        if node.along and not ok.any():
            values[...] = v[list(node.along)].mean(0) / UNITS


def _anchor_model(count: int) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    return np.full(count, ANCHOR_SCALE, np.int16), np.full(count, ANCHOR_TAIL, np.int8)


def _anchor_guess(proxies: Proxies | None, levels: int, like: F64) -> F64:
    """Return the guess at the anchors in whole steps."""
    return np.zeros_like(like) if proxies is None else np.rint(proxies.at(levels).guess / UNITS)


def _decode_batch(
    streams: dict[int, memoryview], v: I32, nodes: list[Node], layout: Layout, model: PyramidModel
) -> None:
    shape: Shape3 = (len(nodes), *v.shape[1:])
    levels = depth(*shape[1:])
    anchors = np.empty((len(nodes), coarse(shape[1], levels), coarse(shape[2], levels)))
    readers, parts = [], []
    for i, node in enumerate(nodes):
        stream = streams[node.field]
        if len(stream) < CHECKSUM:
            raise TruncatedPayloadError(f"the stream of field {node.field} has {len(stream)} bytes, no checksum")
        readers.append(SymbolReader(model.tables, stream[:-CHECKSUM], peaked=True))
        parts.append(read_coefficients(readers[-1], node.kind))
        symbols = readers[-1].phase(*_anchor_model(anchors[i].size))
        anchors[i] = np.cumsum(symbols.astype(np.int64)).reshape(anchors[i].shape)
    exponents, coefficients = (np.stack(part) for part in zip(*parts, strict=True))
    proxies = batch_proxies(nodes, v, exponents, coefficients)
    anchors += _anchor_guess(proxies, levels, anchors)
    if np.abs(anchors).max(initial=0) > MAX_STEPS:
        raise CorruptPayloadError("an anchor is beyond the pyramid's range")

    def residual(level: int, context: Context, predicted: Prediction) -> F64:
        scale = layout.quantisation.scale(predicted.scale, level)
        symbols = np.empty(predicted.value.shape)
        for i, reader in enumerate(readers):
            symbols[i] = reader.phase(scale[i].ravel(), predicted.tail[i].ravel()).reshape(symbols.shape[1:])
        added = layout.quantisation.dequantise(predicted.value, symbols, level)
        if np.abs(predicted.value + added).max(initial=0) > 2 * LIMIT:
            raise CorruptPayloadError("a decoded value is beyond the pyramid's range")
        return added

    decoded = walk(
        (anchors * UNITS).astype(np.int32),
        shape,
        wrap=layout.wrap,
        evaluate=model.evaluate,
        residual=residual,
        proxies=proxies,
    )
    for node, reader, values in zip(nodes, readers, decoded, strict=True):
        reader.finish()
        if checksum(values) != bytes(streams[node.field][-CHECKSUM:]):
            raise CorruptPayloadError(f"field {node.field} does not have the checksum that was stored with it")
        v[node.field] = values
