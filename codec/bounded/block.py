"""Blocks: fields in units of a step <-> a coded section in which fields refer to each other.

Every field is a pyramid of its own stream, so that one field costs no more than the chain of its references.
Before a field is coded, a guess made of its references is subtracted from it, and the network sees what they
look like around each point. SPEC, "Blocks".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.fields_alone import looks_periodic
from isopress.codec.bounded.predictor import F64
from isopress.codec.bounded.pyramid import Coding, PyramidModel, Quantisation, check_range, decode_fields, encode_fields
from isopress.codec.bounded.reference_fit import fit
from isopress.codec.bounded.reference_order import Axes, Node, chain, order
from isopress.codec.bounded.reference_prediction import (
    Proxies,
    plain_proxies,
    proxies_of,
    read_coefficients,
    write_coefficients,
)
from isopress.codec.bounded.traversal import Shape3, depth
from isopress.codec.bytes import crc32c, read_varint, varint
from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter
from isopress.codec.entropy.tables import check_count
from isopress.codec.errors import ArgumentError, CorruptPayloadError, TruncatedPayloadError
from isopress.codec.threads import share
from isopress.codec.values.quantiser import UNITS, Fields

GROUP = 1 << 16  # points coded together, by one thread; a field is never cut
CHECKSUM = 2  # bytes per field
LEAST_STREAM = 1 + CHECKSUM  # bytes
ANCHOR_SCALE, ANCHOR_TAIL = 21, 3  # as if anchors were off by one step
MAX_AXES = 14  # before the field: their numbers are stored in four bits


def encode(
    y: Fields,
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
    y : (B, H, W) float64, or Steps
        Values in units of one step, finite and within +-2**21; B is the product of `leading`.
    valid : (B, H, W) bool, or None for all
        Points that matter; see `fields_alone.encode`.
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
    check_range(y)
    coding = Coding(model, looks_periodic(y, valid) if periodic is None else periodic, quantisation)
    batches = order(leading, axes)
    v = np.zeros(y.shape, np.int32)
    streams: dict[int, bytes] = {}
    for batch in batches:
        for coded in share(partial(_encode_group, y, valid, v, coding), _groups(batch, y.shape)):
            streams |= coded
    out = bytearray([coding.flags, _axis_byte(axes)])
    body = bytearray()
    for nodes in batches:
        for node in nodes:
            out += varint(len(streams[node.field]))
            body += streams[node.field]
    return bytes(out + body), v


@dataclass
class BlockDecoder:
    """Decodes the fields of one section, each at most once.

    section : bytes; shape : the whole (..., H, W).
    done : flat indices of the fields decoded so far; `values` of the others mean nothing.

    Raises
    ------
    TruncatedPayloadError
        The section ends early, or is too short for so many fields.
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
        self._coding = Coding.from_flags(self.section[0], self.model)
        self._batches = order(self.shape[:-2], _axes_of(self.section[1], len(self.shape) - 2))
        self._streams = _cut(self.section, self._batches)
        for stream in self._streams.values():
            check_count(self.shape[-2] * self.shape[-1], len(stream))
        self.values = np.zeros((fields, *self.shape[-2:]), np.int32)

    def decode(self, fields: Collection[int] | None = None) -> I32:
        """Return (B, H, W) int32 in units of 1/64 step; only the `fields` asked for, if any, need be right."""
        wanted = set(range(len(self.values)) if fields is None else fields) - self.done
        shape: Shape3 = (len(self.values), *self.values.shape[1:])
        for batch in chain(self._batches, wanted):
            missing = [node for node in batch if node.field not in self.done]
            share(partial(_decode_group, self._streams, self.values, self._coding), _groups(missing, shape))
            self.done.update([node.field for node in missing])
        return self.values


def _cut(section: memoryview, batches: Sequence[Sequence[Node]]) -> dict[int, memoryview]:
    """Return the stream of each field."""
    fields, sizes, position = [node.field for batch in batches for node in batch], [], 2
    for _ in fields:
        size, position = read_varint(section, position)
        sizes.append(size)
    end = position + sum(sizes)
    if end > len(section):
        raise TruncatedPayloadError(f"a block of {end} bytes ends after {len(section)}")
    if end < len(section):
        raise CorruptPayloadError(f"{len(section) - end} bytes follow a block section")
    streams = {}
    for f, size in zip(fields, sizes, strict=True):
        streams[f] = section[position : position + size]
        position += size
    return streams


def _axis_byte(axes: Axes) -> int:
    """Return the second byte of a section: number of primary and secondary axis, from 1, 0 for none."""
    primary = 0 if axes.primary is None else axes.primary + 1
    secondary = 0 if axes.secondary is None else axes.secondary + 1
    return primary | secondary << 4


def _axes_of(byte: int, count: int) -> Axes:
    """Return the axes that the second byte of a section names, among `count`."""
    primary = (byte & 15) - 1 if byte & 15 else None
    secondary = (byte >> 4) - 1 if byte >> 4 else None
    beyond = max(primary or 0, secondary or 0) >= count
    if beyond or (secondary is not None and primary in (None, secondary)):
        raise CorruptPayloadError(f"a block of {count} leading axes refers along axes {[primary, secondary]}")
    return Axes(primary, secondary)


def _groups(batch: Sequence[Node], shape: Shape3) -> list[Sequence[Node]]:
    """Cut a batch so that about GROUP points are coded together, by one thread."""
    size = max(1, GROUP // max(1, shape[1] * shape[2]))
    return [batch[start : start + size] for start in range(0, len(batch), size)]


# --- some fields of a batch ---------------------------------------------------------------------------------


def _encode_group(
    y: Fields, valid: NDArray[np.bool_] | None, v: I32, coding: Coding, nodes: Sequence[Node]
) -> dict[int, bytes]:
    """Enter the decoded values of the fields of `nodes` in v; return their streams."""
    fields = [node.field for node in nodes]
    at = slice(fields[0], fields[0] + 1) if len(fields) == 1 and valid is None else fields  # large ones are not copied
    y, ok = y[at], None if valid is None else valid[at]
    if ok is not None:
        _copy_references(y, ok, v, nodes)
    plain = plain_proxies(nodes, v)
    exponents, coefficients = fit(nodes, y, plain)
    proxies = proxies_of(nodes, v, exponents, coefficients, plain)
    step = 1 << depth(*y.shape[1:])
    anchors = np.rint(y[:, ::step, ::step])
    off = anchors - _anchor_guess(proxies, anchors, y.shape)
    writers = []
    for exponent, coefficient, symbols in zip(exponents, coefficients, off, strict=True):
        writer = SymbolWriter(peaked=True)
        write_coefficients(writer, nodes[0].kind, exponent, coefficient)
        writer.phase(np.diff(symbols.ravel(), prepend=0).astype(np.int32), *_anchor_model(symbols.size))
        writers.append(writer)
    v[fields] = encode_fields(y, ok, anchors, writers, coding, proxies)
    streams = {}
    for f, writer in zip(fields, writers, strict=True):
        streams[f] = writer.finish() + checksum(v[f])
    return streams


def _decode_group(streams: dict[int, memoryview], v: I32, coding: Coding, nodes: Sequence[Node]) -> None:
    """Enter the decoded values of the fields of `nodes` in v."""
    shape: Shape3 = (len(nodes), *v.shape[1:])
    levels = depth(*shape[1:])
    anchors = np.empty((len(nodes), -(-shape[1] >> levels), -(-shape[2] >> levels)))
    exponents, coefficients, readers = [], [], []
    for i, node in enumerate(nodes):
        stream = streams[node.field]
        if len(stream) < CHECKSUM:
            raise TruncatedPayloadError(f"the stream of field {node.field} has {len(stream)} bytes, no checksum")
        reader = SymbolReader(stream[:-CHECKSUM], peaked=True)
        exponent, coefficient = read_coefficients(reader, node.kind)
        symbols = reader.phase(*_anchor_model(anchors[i].size))
        anchors[i] = np.cumsum(symbols.astype(np.int64)).reshape(anchors[i].shape)
        exponents.append(exponent)
        coefficients.append(coefficient)
        readers.append(reader)
    proxies = proxies_of(nodes, v, np.stack(exponents), np.stack(coefficients))
    anchors += _anchor_guess(proxies, anchors, shape)
    decoded = decode_fields(shape, anchors, readers, coding, proxies)
    for node, values in zip(nodes, decoded, strict=True):
        if checksum(values) != bytes(streams[node.field][-CHECKSUM:]):
            raise CorruptPayloadError(f"field {node.field} does not have the checksum that was stored with it")
        v[node.field] = values


def _copy_references(y: F64, valid: NDArray[np.bool_], v: I32, nodes: Sequence[Node]) -> None:
    """Let fields that do not matter at all repeat their references, which costs nothing and serves later ones."""
    for values, ok, node in zip(y, valid, nodes, strict=True):
        if node.along and not ok.any():
            values[...] = v[list(node.along)].mean(0) / UNITS


def _anchor_model(count: int) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    return np.full(count, ANCHOR_SCALE, np.int16), np.full(count, ANCHOR_TAIL, np.int8)


def _anchor_guess(proxies: Proxies | None, anchors: F64, shape: Sequence[int]) -> F64:
    """Return the guess at the anchors in whole steps."""
    if proxies is None:
        return np.zeros_like(anchors)
    return np.rint(proxies.at(depth(*shape[1:]))[1] / UNITS)


def checksum(v: I32) -> bytes:
    """Return the low 16 bits, little-endian, of the CRC32C of one field as little-endian int32 in C order."""
    return crc32c(np.ascontiguousarray(v, "<i4").data).to_bytes(4, "little")[:CHECKSUM]
