"""Points that are surely zero: found by a few sums of integers, so that they pass no network.

The *activity* of a point is how much the values around it bend, and what was added to predictions there. Points of one
phase are sorted by it; those below a limit, which the encoder chooses per phase and stream, are *quiet*: their
prediction is an interpolation, and their symbols are coded as runs of zeros. SPEC, 5.8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.geometry import PAD, Context, Offset, shape_of
from isopress.codec.bounded.predictor import F64, LIMIT, Neighbours
from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter
from isopress.codec.entropy.distributions import CLASSES, FIRST_RATE
from isopress.codec.entropy.runs import read_runs, write_runs

EDGES = (256, 512, 724, 1024, 1448, 2048)  # of which each is below its edge, in units
LEAST = 4096  # points of a phase in a stream: of fewer all pass a network
ERROR_WEIGHTS = 4, 2  # of coding errors near and further off
STRIDE = 4  # rows of which one is looked at to choose the limit
WORTH = 8  # at least one of so many points is quiet, or none
RATE_MOST = 64  # quiet are classes of which at most one of so many symbols is not zero,
SHARE = 2  # and which together hold at most one of so many of those that are not
I8 = NDArray[np.int8]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Look:
    """What is cheaply known of all points (B, h, w) of a phase: the class of their activity, CLASSES for points that
    are never quiet, and their interpolation in units."""

    activity: I8
    value: F64


def look(context: Context, seen: Neighbours, shape: tuple[int, ...]) -> Look:
    """Look at all points (B, h, w) of a phase. Sums are modulo 2**32, from -2**31 on."""
    found = shape_of(context)
    x = {o: _at(seen.values, context, o, shape) for bend in (found.twist, *found.bends) for o in bend.offsets}
    activity, bent = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for bend in (found.twist, *found.bends):
        a, b, c, d = (x[o] for o in bend.offsets)
        one = _wrapped(a + b - c - d)
        activity += bend.weight * np.abs(one)
        if bend is not found.twist:
            bent += one
    for weight, offsets in zip(ERROR_WEIGHTS, (context.near, context.wide), strict=True):
        for o in offsets:
            activity += weight * np.abs(_at(seen.errors, context, o, shape))
    total = _wrapped(sum((x[o] for o in found.nearest), np.zeros(shape, np.int64)))
    value = (total >> 2) + (_wrapped(8 * (total & 3) + bent + 16) >> 5)
    activity &= 2**32 - 1
    classes = np.searchsorted(EDGES, activity.ravel(), side="right").astype(np.int8).reshape(shape)
    return Look(classes, np.clip(value, -LIMIT, LIMIT).astype(np.float64))


def _at(planes: dict[tuple[int, int], F64] | dict[tuple[int, int], NDArray[np.int32]], context: Context, offset: Offset,
        shape: tuple[int, ...]) -> I64:  # fmt: skip
    """Return what lies at an offset of the points of a phase, (B, h, w)."""
    (ty, tx), (dy, dx) = context.parity, offset
    py, px = (ty + dy) % 2, (tx + dx) % 2
    y, x = (ty + dy - py) // 2 + PAD, (tx + dx - px) // 2 + PAD
    out: I64 = planes[py, px][:, y : y + shape[1], x : x + shape[2]].astype(np.int64)
    return out


def _wrapped(x: I64) -> I64:
    """Return sums modulo 2**32, from -2**31 on."""
    out: I64 = (x + 2**31) % 2**32 - 2**31
    return out


def choose_limit(activity: I8, symbols: F64) -> int:
    """Return how many classes of a stream's points (B, h, w) are quiet, by the symbols of some rows if all were."""
    some = activity[:, ::STRIDE].ravel()
    counts = np.bincount(some, minlength=CLASSES + 1)
    others = np.bincount(some[symbols[:, ::STRIDE].ravel() != 0], minlength=CLASSES + 1)
    gain = np.concatenate([[0], np.cumsum(counts - RATE_MOST * others)[:CLASSES]])
    gain = gain[: 1 + np.count_nonzero(SHARE * np.cumsum(others)[:CLASSES] <= others.sum())]
    return int(gain.argmax()) if WORTH * int(gain.max()) >= some.size else 0


def write_symbols(writer: SymbolWriter, symbols: I32, scale: NDArray[np.int16], tail: I8, quiet: I8) -> None:
    """Code the symbols (n,) of one phase in a stream; `quiet` are classes of activity, -1 of points that are not."""
    loud = quiet < 0
    if loud.any():
        writer.phase(symbols[loud], scale[loud], tail[loud])
    rate = FIRST_RATE
    for number in np.unique(quiet[~loud]):
        rate = write_runs(writer, symbols[quiet == number], rate)


def read_symbols(reader: SymbolReader, scale: NDArray[np.int16], tail: I8, quiet: I8) -> I32:
    """Return the symbols (n,) of one phase in a stream: mirror of `write_symbols`."""
    symbols, loud = np.empty(quiet.size, np.int32), quiet < 0
    if loud.any():
        symbols[loud] = reader.phase(scale[loud], tail[loud])
    rate = FIRST_RATE
    for number in np.unique(quiet[~loud]):
        symbols[quiet == number], rate = read_runs(reader, int(np.count_nonzero(quiet == number)), rate)
    return symbols
