"""Padded maps of wavelet coefficients, and the activity around every point: what contexts are gathered from.

All maps of a level share one padded shape, so that one flat index finds a point in each of them. Everything is
elementwise binary32 arithmetic in a fixed order: the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isopress.codec.vaeformer.wavelet import Level

F32 = NDArray[np.float32]
PAD = 4
BANDS = 3


def padded(values: NDArray[np.floating], shape: tuple[int, int], periodic: bool) -> F32:
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


def box(map_: F32) -> F32:
    """Return the map smoothed by (1 2 1) x (1 2 1) / 16; the outermost ring becomes 0."""
    out = np.zeros_like(map_)
    rows = map_[:-2] + map_[2:]
    rows += map_[1:-1]
    rows += map_[1:-1]
    inner = out[1:-1, 1:-1]
    np.add(rows[:, :-2], rows[:, 2:], out=inner)
    inner += rows[:, 1:-1]
    inner += rows[:, 1:-1]
    inner *= np.float32(1 / 16)
    return out


def box_at(map_: F32, points: tuple[slice, slice]) -> F32:
    """Return what `box` has at every second row and column, in the same additions."""
    (top, bottom), (left, right) = ((one.start, one.stop) for one in points)
    rows = map_[top - 1 : bottom - 1 : 2] + map_[top + 1 : bottom + 1 : 2]
    rows += map_[top:bottom:2]
    rows += map_[top:bottom:2]
    out: F32 = rows[:, left - 1 : right - 1 : 2] + rows[:, left + 1 : right + 1 : 2]
    out += rows[:, left:right:2]
    out += rows[:, left:right:2]
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


def upsampled(map_: F32, shape: tuple[int, int]) -> F32:
    """Return a padded map of a coarser level with every point repeated 2 x 2, as a padded map of `shape`."""
    inner = map_[PAD - 2 : map_.shape[0] - PAD + 2, PAD - 2 : map_.shape[1] - PAD + 2]
    big = inner.repeat(2, 0).repeat(2, 1)
    return np.ascontiguousarray(big[: shape[0] + 2 * PAD, : shape[1] + 2 * PAD])


@dataclass(frozen=True)
class BandMaps:
    """One decoded band: values, and smoothed magnitudes."""

    values: F32
    smooth: F32

    @classmethod
    def of(cls, values: F32, magnitude: F32) -> BandMaps:
        return cls(values, box(magnitude))

    @classmethod
    def zeros(cls, shape: tuple[int, int]) -> BandMaps:
        empty = np.zeros((shape[0] + 2 * PAD, shape[1] + 2 * PAD), np.float32)
        return cls(empty, empty)


@dataclass
class LevelMaps:
    """What is known of one level before its bands are coded.

    bend_x, bend_y : second differences of the low band; bend : their smoothed magnitudes
    parents : the three bands of the coarser level (zeros at the coarsest), parent_smooth : their smoothed
        magnitudes on this level's grid
    bands : filled as they are decoded
    """

    level: Level
    bend_x: F32
    bend_y: F32
    bend: F32
    parents: tuple[BandMaps, ...]
    parent_smooth: tuple[F32, ...]
    bands: list[BandMaps] = field(default_factory=list)

    @classmethod
    def of(cls, low: NDArray[np.floating], level: Level, coarser: LevelMaps | None) -> LevelMaps:
        """Prepare a level from its decoded low band (h, w) in units and the level below it in resolution."""
        shape = level.low
        bend_x, bend_y = (padded(d, shape, level.periodic) for d in _bends(low.astype(np.float32), level.periodic))
        bend = box(np.abs(bend_x) + np.abs(bend_y))
        if coarser is None:
            parents: tuple[BandMaps, ...] = (BandMaps.zeros(shape),) * BANDS
            return cls(level, bend_x, bend_y, bend, parents, tuple(p.smooth for p in parents))
        parents = tuple(coarser.bands)
        smooth = []
        for parent in parents:
            up = upsampled(parent.smooth, shape)
            if level.periodic:
                wrap(up)
            smooth.append(up)
        return cls(level, bend_x, bend_y, bend, parents, tuple(smooth))


def _bends(low: F32, periodic: bool) -> tuple[F32, F32]:
    """Return second differences along longitude and latitude, 0 at edges that have no neighbour."""
    x, y = np.zeros_like(low), np.zeros_like(low)
    if low.shape[1] > 2:
        x[:, 1:-1] = (low[:, 1:-1] + low[:, 1:-1]) - low[:, :-2] - low[:, 2:]
        if periodic:
            x[:, 0] = (low[:, 0] + low[:, 0]) - low[:, -1] - low[:, 1]
            x[:, -1] = (low[:, -1] + low[:, -1]) - low[:, -2] - low[:, 0]
    if low.shape[0] > 2:
        y[1:-1] = (low[1:-1] + low[1:-1]) - low[:-2] - low[2:]
    return x, y
