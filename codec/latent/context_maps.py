"""Padded maps of wavelet coefficients, and the activity around every point: what contexts are gathered from.

All maps of a level share one padded shape, so that one flat index finds a point in each of them. Everything is
elementwise binary32 arithmetic in a fixed order: the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.latent.reduced_grid import AnyLevel, Shape, Strip
from isopress.codec.latent.wavelet import fitted
from isopress.codec.native import maps
from isopress.codec.native.dispatch import compiled

F32 = NDArray[np.float32]
PAD = 4
BANDS = 3


def padded(values: NDArray[np.floating], shape: Shape, periodic: bool) -> F32:
    """Return `values` (h, w) inside zeros of `shape` plus PAD on every side; columns wrap where `periodic`."""
    out = np.zeros((shape[0] + 2 * PAD, shape[1] + 2 * PAD), np.float32)
    h, w = values.shape
    out[PAD : PAD + h, PAD : PAD + w] = values
    if periodic:
        wrap(out)
    return out


def wrap(map_: F32) -> None:
    """Repeat the columns of a padded map around its edge, in place."""
    w = map_.shape[1] - 2 * PAD
    edge = np.r_[-PAD:0, w : w + PAD]
    map_[:, edge + PAD] = map_[:, edge % w + PAD]


def box(map_: F32, level: AnyLevel, other: F32 | None = None) -> F32:
    """Return the map smoothed by (1 2 1) x (1 2 1) / 16; the outermost ring becomes 0.

    Where values stand for several columns they are smoothed with those beside them, and there is nothing beyond.
    other : if there are two, what their magnitudes add up to is smoothed
    """
    if compiled():
        return maps.box(map_, other, level.low.table, level.periodic)
    if other is not None:
        map_ = np.abs(map_) + np.abs(other)
    out = np.zeros_like(map_)
    rows = map_[:-2] + map_[2:]
    rows += map_[1:-1]
    rows += map_[1:-1]
    _box_row(rows[:, :-2], rows[:, 1:-1], rows[:, 2:], out[1:-1, 1:-1])
    broad = False
    for strip in level.low.strips:
        if strip.stride > 1:
            broad = True
            out[PAD + strip.start : PAD + strip.stop] = 0
            strip.fill(out[PAD:-PAD, PAD:-PAD], box_at(map_, strip, 0, 0, 1))
    if broad and level.periodic:
        wrap(out)
    return out


def box_at(map_: F32, strip: Strip, y: int, x: int, every: int = 2) -> F32:
    """Return what `box` has at every so manieth row and value of a strip, from row y and value x on."""
    top, bottom = PAD + strip.start + y, PAD + strip.stop
    rows = map_[top - 1 : bottom - 1 : every] + map_[top + 1 : bottom + 1 : every]
    rows += map_[top:bottom:every]
    rows += map_[top:bottom:every]
    if strip.stride == 1:
        first, last = PAD + x, PAD + strip.count
        left, middle, right = rows[:, first - 1 : last - 1 : every], rows[:, first:last:every], rows[:, first + 1 :]
        right = right[:, : last - first : every]
    else:
        columns = PAD + strip.stride * np.arange(x, strip.count, every)
        following = np.minimum(columns + strip.stride, rows.shape[1] - PAD)
        left, middle, right = rows[:, columns - 1], rows[:, columns], rows[:, following]
    return _box_row(left, middle, right, np.empty_like(middle))


def _box_row(left: F32, at: F32, right: F32, out: F32) -> F32:
    np.add(left, right, out=out)
    out += at
    out += at
    out *= np.float32(1 / 16)
    return out


def wide(map_: F32) -> F32:
    """Return the mean of nine points three apart in each direction; a ring of three becomes 0."""
    out = np.zeros_like(map_)
    rows = map_[:-6] + map_[6:]
    rows += map_[3:-3]
    inner = out[3:-3, 3:-3]
    np.add(rows[:, :-6], rows[:, 6:], out=inner)
    inner += rows[:, 3:-3]
    inner *= np.float32(1 / 9)
    return out


@dataclass(frozen=True)
class BandMaps:
    """One decoded band: values, and smoothed magnitudes."""

    values: F32
    smooth: F32

    @classmethod
    def zeros(cls, shape: Shape) -> BandMaps:
        """Return the maps of a band that holds nothing, on a level whose low band has this shape."""
        empty = np.zeros((shape[0] + 2 * PAD, shape[1] + 2 * PAD), np.float32)
        return cls(empty, empty)


@dataclass
class LevelMaps:
    """What is known of one level before its bands are coded.

    bend_x, bend_y : second differences of the low band; bend : their smoothed magnitudes
    parents : the three bands of the coarser level (zeros at the coarsest), parent_smooth : their smoothed
        magnitudes on this level's grid, parent_table : their strips
    bands : filled as they are decoded
    """

    level: AnyLevel
    bend_x: F32
    bend_y: F32
    bend: F32
    parents: Sequence[BandMaps]
    parent_smooth: Sequence[F32]
    parent_table: NDArray[np.int32] | None = None
    bands: list[BandMaps] = field(default_factory=list)

    @classmethod
    def of(cls, low: NDArray[np.floating], level: AnyLevel, coarser: LevelMaps | None) -> LevelMaps:
        """Prepare a level from what its synthesis takes, decoded, in units, and the level below it in resolution."""
        shape, low = level.low.shape, low if level.after is None else level.after.cells(low)
        bend_x, bend_y = _bends(low, level)
        bend = box(bend_x, level, bend_y)
        if coarser is None:
            nothing = BandMaps.zeros(shape)
            return cls(level, bend_x, bend_y, bend, (nothing,) * BANDS, (nothing.smooth,) * BANDS)
        smooth = []
        for parent in coarser.bands:
            smooth.append(upsampled(parent.smooth, shape, level.periodic))
        return cls(level, bend_x, bend_y, bend, coarser.bands, smooth, coarser.level.low.table)


def upsampled(map_: F32, shape: Shape, periodic: bool) -> F32:
    """Return a padded map of a coarser level with every point repeated 2 x 2, as a padded map of `shape`."""
    if compiled():
        return maps.upsample(map_, (shape[0] + 2 * PAD, shape[1] + 2 * PAD), periodic)
    inner = map_[PAD - 2 : map_.shape[0] - PAD + 2, PAD - 2 : map_.shape[1] - PAD + 2]
    big = inner.repeat(2, 0).repeat(2, 1)
    up = np.ascontiguousarray(big[: shape[0] + 2 * PAD, : shape[1] + 2 * PAD])
    if periodic:
        wrap(up)
    return up


def _bends(low: NDArray[np.floating], level: AnyLevel) -> tuple[F32, F32]:
    """Return second differences along longitude and latitude as padded maps, 0 at edges that have no neighbour.

    Rows beside a strip are fitted to it.
    """
    if compiled():
        shape = low.shape[0] + 2 * PAD, low.shape[1] + 2 * PAD
        bends = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        maps.bends(np.ascontiguousarray(low, np.float64), level.low.table, level.periodic, *bends)
        return bends
    strips, parts = level.low.strips, list[NDArray[Any]]()
    for strip in strips:
        parts.append(strip.cells(low))
    along, across = np.zeros(low.shape, np.float32), np.zeros(low.shape, np.float32)
    for i, (strip, part) in enumerate(zip(strips, parts, strict=True)):
        n, rows = part.shape[1], [part]
        if i:
            rows.insert(0, fitted(parts[i - 1][-1:], n, level.periodic))
        if i + 1 < len(parts):
            rows.append(fitted(parts[i + 1][:1], n, level.periodic))
        x, first = part.astype(np.float32), int(i > 0)
        strip.fill(along, _bend(x, level.periodic))
        columns = _bend(np.concatenate(rows).astype(np.float32).T, False).T
        strip.fill(across, columns[first : first + len(part)])
    return padded(along, low.shape, level.periodic), padded(across, low.shape, level.periodic)


def _bend(x: F32, circle: bool) -> F32:
    """Return second differences along the last axis."""
    out = np.zeros_like(x)
    if x.shape[1] > 2:
        out[:, 1:-1] = (x[:, 1:-1] + x[:, 1:-1]) - x[:, :-2] - x[:, 2:]
        if circle:
            out[:, 0] = (x[:, 0] + x[:, 0]) - x[:, -1] - x[:, 1]
            out[:, -1] = (x[:, -1] + x[:, -1]) - x[:, -2] - x[:, 0]
    return out
