"""Which fields shall refer to which, and with which taper: found by coding a small piece of a block every way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded import block, fields_alone
from isopress.codec.bounded.fields_alone import taper_for_rate
from isopress.codec.bounded.predictor import F64
from isopress.codec.bounded.pyramid import PyramidModel, Quantisation
from isopress.codec.bounded.reference_order import Axes
from isopress.codec.errors import ArgumentError
from isopress.codec.threads import share
from isopress.codec.values.plan import Plan

ContextMode = Literal["auto", "field", "block"]

LEAST_FIELD = 128  # values; the streams of smaller fields would be mostly overhead
SIDE = 96  # of the piece
MAX_FIELDS = 9, 5  # of the piece, along the two axes
SMALL = 1 << 19  # values; both ways of so small a chunk are coded in full
OVERHEAD = 14  # bytes of a stream that do not grow with its field


@dataclass(frozen=True)
class Choice:
    """What is to be coded: each field alone, a block with references along `axes`, or both."""

    alone: bool
    axes: Axes | None = None
    taper: int = 0


def choose_context(
    plan: Plan,
    leading: Sequence[int],
    alone: PyramidModel,
    related: PyramidModel,
    context: ContextMode,
) -> Choice:
    """Return how to code the fields of `plan`, whose axes before the last two have lengths `leading`.

    `alone` are the weights for fields without references, `related` those for blocks.

    Raises
    ------
    ArgumentError
        The context is "block", but the weights take no references.
    """
    if context == "block" and not related.takes_references:
        raise ArgumentError(f"weights {related.name} take no references; use context 'auto' or 'field'")
    long = [axis for axis, length in enumerate(leading) if length > 1][-2:]
    if context == "field" or not long or not related.takes_references or max(long) >= block.MAX_AXES:
        return Choice(alone=True)
    if context == "auto" and math.prod(plan.y.shape[1:]) < LEAST_FIELD:
        return Choice(alone=True)
    shape = *leading, *plan.y.shape[1:]
    at = _piece_at(shape, long)
    piece, ok = plan.y.reshape(*shape)[at], None if plan.valid is None else plan.valid.reshape(shape)[at]
    taper = 0 if plan.snap else 1
    quantisation = Quantisation(taper, plan.snap)
    ways = [Axes(*way) for length in (1, 2) for way in permutations(range(len(long)), length)]
    sizes = share(partial(_block_bits, piece, ok, related, quantisation), ways)
    bits = min(sizes)
    best = ways[sizes.index(bits)]
    axes = Axes(*[None if axis is None else long[axis] for axis in (best.primary, best.secondary)])
    points = piece.size if ok is None else max(1, int(np.count_nonzero(ok)))
    if not plan.snap:
        taper = taper_for_rate(bits / points)
    both = context == "auto" and plan.y.size <= SMALL
    if context == "auto" and not both and bits >= _field_bits(piece, ok, alone, quantisation):
        return Choice(alone=True)
    return Choice(both, axes, taper)


def _piece_at(shape: Sequence[int], axes: Sequence[int]) -> tuple[slice | int, ...]:
    """Return where (a, b, h, w) or (a, h, w) lie: fields next to each other along `axes`, a window of each, from the
    middle."""
    lengths = dict(zip(axes, MAX_FIELDS, strict=False)) | {len(shape) - 2: SIDE, len(shape) - 1: SIDE}
    at: list[slice | int] = []
    for axis, n in enumerate(shape):
        length = min(n, lengths.get(axis, 1))
        start = (n - length) // 2
        at.append(slice(start, start + length) if axis in lengths else start)
    return tuple(at)


def _field_bits(piece: F64, valid: NDArray[np.bool_] | None, model: PyramidModel, quantisation: Quantisation) -> float:
    """Return the size of the piece coded field by field."""
    y, ok = _as_fields(piece, valid)
    snap, taper = quantisation.snap, quantisation.taper
    return 8.0 * len(fields_alone.encode(y, ok, model=model, snap=snap, periodic=False, taper=taper)[0])


def _block_bits(
    piece: F64, valid: NDArray[np.bool_] | None, model: PyramidModel, quantisation: Quantisation, axes: Axes
) -> float:
    """Return the size of the piece with references along `axes`, less what does not grow with the fields."""
    y, ok = _as_fields(piece, valid)
    section, _ = block.encode(
        y, ok, leading=piece.shape[:-2], axes=axes, model=model, quantisation=quantisation, periodic=False
    )
    return 8.0 * (len(section) - OVERHEAD * len(y))


def _as_fields(piece: F64, valid: NDArray[np.bool_] | None) -> tuple[F64, NDArray[np.bool_] | None]:
    y = np.ascontiguousarray(piece).reshape(-1, *piece.shape[-2:])
    return y, None if valid is None else np.ascontiguousarray(valid).reshape(y.shape)
