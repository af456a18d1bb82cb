"""Padded maps of wavelet coefficients, and the activity around every point: what contexts are gathered from.

All maps of a level share one padded shape, so that one flat index finds a point in each of them. Everything is
elementwise binary32 arithmetic in a fixed order: the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isopress.codec.latent.reduced_grid import fitted
from isopress.codec.latent.wavelet import Level, Strip

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


def box(map_: F32, level: Level) -> F32:
    """Return the map smoothed by (1 2 1) x (1 2 1) / 16; the outermost ring becomes 0.

    Where values stand for several columns they are smoothed with those beside them, and there is nothing beyond.
    """
    out = np.zeros_like(map_)
    rows = map_[:-2] + map_[2:]
    rows += map_[1:-1]
    rows += map_[1:-1]
    _box_row(rows[:, :-2], rows[:, 1:-1], rows[:, 2:], out=out[1:-1, 1:-1])
    broad = [strip for strip in level.low_strips if strip.stride > 1]
    for strip in broad:
        top, bottom = PAD + strip.start, PAD + strip.stop
        out[top:bottom] = 0
        strip.fill(out[PAD:-PAD, PAD:-PAD], _box_row(*_beside(rows[top - 1 : bottom - 1], strip)))
    if broad and level.periodic:
        wrap(out)
    return out


def box_at(map_: F32, strip: Strip, y: int, x: int) -> F32:
    """Return what `box` has at every second row and value of a strip, from row y and value x on."""
    top, bottom = PAD + strip.start + y, PAD + strip.stop
    rows = map_[top - 1 : bottom - 1 : 2] + map_[top + 1 : bottom + 1 : 2]
    rows += map_[top:bottom:2]
    rows += map_[top:bottom:2]
    return _box_row(*_beside(rows, strip, x, 2))


def _beside(rows: F32, strip: Strip, first: int = 0, every: int = 1) -> tuple[F32, F32, F32]:
    """Return, of padded rows, what lies left of, at and right of some of a strip's values."""
    if strip.stride == 1:
        left, at, right = (rows[:, PAD + k + first : PAD + k + strip.count : every] for k in (-1, 0, 1))
        return left, at, right
    columns = PAD + strip.stride * np.arange(first, strip.count, every)
    following = np.minimum(columns + strip.stride, rows.shape[1] - PAD)
    return rows[:, columns - 1], rows[:, columns], rows[:, following]


def _box_row(left: F32, at: F32, right: F32, out: F32 | None = None) -> F32:
    out = np.add(left, right, out=out)
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
    def of(cls, values: F32, magnitude: F32, level: Level) -> BandMaps:
        return cls(values, box(magnitude, level))

    @classmethod
    def zeros(cls, shape: tuple[int, int]) -> BandMaps:
        empty = np.zeros((shape[0] + 2 * PAD, shape[1] + 2 * PAD), np.float32)
        return cls(empty, empty)


@dataclass
class LevelMaps:
    """What is known of one level before its bands are coded.

    bend_x, bend_y : second differences of the low band; bend : their smoothed magnitudes
    parents : the three bands of the coarser level (zeros at the coarsest), parent_smooth : their smoothed
        magnitudes on this level's grid, parent_strips : their strips
    bands : filled as they are decoded
    """

    level: Level
    bend_x: F32
    bend_y: F32
    bend: F32
    parents: tuple[BandMaps, ...]
    parent_smooth: tuple[F32, ...]
    parent_strips: tuple[Strip, ...] = ()
    bands: list[BandMaps] = field(default_factory=list)

    @classmethod
    def of(cls, low: NDArray[np.floating], level: Level, coarser: LevelMaps | None) -> LevelMaps:
        """Prepare a level from its decoded low band (h, w) in units and the level below it in resolution."""
        shape = level.low
        bend_x, bend_y = (padded(d, shape, level.periodic) for d in _bends(low, level))
        bend = box(np.abs(bend_x) + np.abs(bend_y), level)
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
        return cls(level, bend_x, bend_y, bend, parents, tuple(smooth), coarser.level.low_strips)


def _bends(low: NDArray[np.floating], level: Level) -> tuple[F32, F32]:
    """Return second differences along longitude and latitude, 0 at edges that have no neighbour.

    Rows beside a strip are fitted to it.
    """
    strips = level.low_strips
    parts = [strip.cells(low) for strip in strips]
    bends: tuple[F32, F32] = np.zeros(low.shape, np.float32), np.zeros(low.shape, np.float32)
    for i, (strip, part) in enumerate(zip(strips, parts, strict=True)):
        n = part.shape[1]
        above = [fitted(parts[i - 1][-1:], n, level.periodic)] if i else []
        below = [fitted(parts[i + 1][:1], n, level.periodic)] if i + 1 < len(parts) else []
        y = _bends_y(np.concatenate([*above, part, *below]).astype(np.float32))
        strip.fill(bends[0], _bends_x(part.astype(np.float32), level.periodic))
        strip.fill(bends[1], y[len(above) : len(above) + len(part)])
    return bends


def _bends_x(low: F32, periodic: bool) -> F32:
    x = np.zeros_like(low)
    if low.shape[1] > 2:
        x[:, 1:-1] = (low[:, 1:-1] + low[:, 1:-1]) - low[:, :-2] - low[:, 2:]
        if periodic:
            x[:, 0] = (low[:, 0] + low[:, 0]) - low[:, -1] - low[:, 1]
            x[:, -1] = (low[:, -1] + low[:, -1]) - low[:, -2] - low[:, 0]
    return x


def _bends_y(low: F32) -> F32:
    y = np.zeros_like(low)
    if low.shape[0] > 2:
        y[1:-1] = (low[1:-1] + low[1:-1]) - low[:-2] - low[2:]
    return y
