"""Blocks coded and decoded as their tests do it."""

import numpy as np

from isopress.codec.bounded import block
from isopress.codec.bounded.block import BlockDecoder
from isopress.codec.bounded.pyramid import Quantisation
from isopress.codec.bounded.reference_order import Node, chain, order
from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.bytes import read_varint

MODEL = load_pyramid(references=True)
OLD = load_pyramid("field-0.9")  # takes no references
PLAIN, SNAP = Quantisation(), Quantisation(snap=True)


def encode(y, axes, *, valid=None, model=MODEL, quantisation=PLAIN, periodic=None):
    """Code (..., H, W) as a block; return the section and v of the same shape."""
    fields = y.reshape(-1, *y.shape[-2:])
    ok = None if valid is None else valid.reshape(fields.shape)
    section, v = block.encode(
        fields, ok, leading=y.shape[:-2], axes=axes, model=model, quantisation=quantisation, periodic=periodic
    )
    return section, v.reshape(y.shape)


def decoder(section, shape, model=MODEL):
    return BlockDecoder(memoryview(bytes(section)), shape, model)


def decode(section, shape, model=MODEL):
    return decoder(section, shape, model).decode().reshape(shape)


def chain_of(leading, axes, wanted):
    return [node.field for batch in chain(order(leading, axes), set(wanted)) for node in batch]


def cut(section, shape, axes) -> list[tuple[Node, bytes]]:
    """Return every node of a block with its stream, in the order of the section."""
    nodes = [node for batch in order(shape[:-2], axes) for node in batch]
    sizes, position = [], 2
    for _ in nodes:
        size, position = read_varint(memoryview(section), position)
        sizes.append(size)
    starts = np.cumsum([position, *sizes]).tolist()
    assert starts[-1] == len(section)
    return [(node, section[start : start + size]) for node, start, size in zip(nodes, starts, sizes, strict=False)]
