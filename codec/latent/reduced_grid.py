"""Levels of fields whose rows are halved in longitude ahead of latitude: those near the poles, where meridians meet.

On a grid of longitude and latitude a row near a pole has many more values than it has anything to say with. Rows are
taken in blocks, and each block is halved in longitude a number of times before the first level, by levels of
its own (`Ahead`). The ordinary levels (`Zoned`) then split fields in which rows have different numbers of values, and
at its last levels a block is not split in longitude, so that all rows are alike again at the coarse end. Rows of
different lengths meet in lifting along latitude, where the edge of one is fitted to the other; every lifting step
stays invertible, whatever is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from math import sqrt
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isopress.codec.latent.wavelet import Level, Parts, Strip, join, join_rows, levels, split, split_rows

F64 = NDArray[np.float64]
T = TypeVar("T")

BLOCKS = 16  # a field has at least so many blocks of rows, and about twice as many at most
LEAST_ROWS = 2  # log2 of the rows of the smallest block
NARROWEST = 24  # values of a row that is halved ahead no more
HALF_ROOT, QUARTER_ROOT = sqrt(2) / 2, sqrt(2) / 4


@dataclass(frozen=True)
class Blocks:
    """How rows are grouped: `count` blocks of 2**log2_rows rows, which may be halved up to `most` times ahead.

    The last block has what is left: more than half as many rows, and one and a half times as many at most.
    """

    count: int
    log2_rows: int
    most: int

    @classmethod
    def of(cls, height: int, width: int) -> Blocks:
        """Return the blocks of fields (height, width); none if these are small."""
        log2_rows = (height // BLOCKS).bit_length() - 1
        if log2_rows < LEAST_ROWS or width < 2 * NARROWEST:
            return cls(0, 0, 0)
        return cls((height + (1 << log2_rows >> 1) - 1) >> log2_rows, log2_rows, (width // NARROWEST).bit_length() - 1)


@dataclass(frozen=True)
class Zone(Strip):
    """A strip of the fields that a level splits, from an even row on; `split` says whether in longitude too, and
    `periodic` whether as a circle.

    Where not, the stride is halved instead: its halvings came ahead.
    """

    split: bool = True
    periodic: bool = False

    def low(self, stop: int) -> Strip:
        """Return the strip of a band that is low in longitude, which ends at the row `stop`."""
        if self.split:
            return Strip(self.start // 2, stop, -(-self.count // 2), self.stride)
        return Strip(self.start // 2, stop, self.count, self.stride // 2)

    def high(self, stop: int) -> Strip:
        """Return the strip of a band that is high in longitude."""
        return Strip(self.start // 2, stop, self.count // 2, self.stride)


@dataclass(frozen=True)
class Zoned(Level):
    """A level of fields with zones, from top to bottom."""

    zones: tuple[Zone, ...] = ()

    @property
    def low_strips(self) -> tuple[Strip, ...]:
        """Strips of the low band, from top to bottom."""
        return _merged(self._low)

    def strips(self, index: int) -> tuple[Strip, ...]:
        """Strips of a detail band: where it has coefficients."""
        return _merged(self._band(index))

    @property
    def _low(self) -> list[Strip]:
        return [zone.low(-(-zone.stop // 2)) for zone in self.zones]

    def _band(self, index: int) -> list[Strip]:
        """Return what each zone has of a detail band, if anything."""
        if index == 1:
            return [zone.low(zone.stop // 2) for zone in self.zones]
        return [zone.high(zone.stop // 2 if index else -(-zone.stop // 2)) for zone in self.zones if zone.split]

    def analyse(self, x: Any) -> tuple[Any, tuple[Any, ...]]:
        """Split fields (..., h, w) as `Level.analyse` does; all arrays are as wide as ever, see `Strip`."""
        low, hl, hh = Parts(), Parts(), Parts()
        for zone in self.zones:
            cells = zone.cells(x)
            if zone.split:
                (cells,), high = split([cells], zone.periodic)
                upper = split_rows(high)  # high parts of rows of different widths have nothing in common
                hl += upper[0]
                hh += upper[1]
            low.append(cells)
        ll, lh = split_rows(low, self._fit)
        bands = tuple(_filled(self.band(index), self._band(index), parts) for index, parts in enumerate((hl, lh, hh)))
        return _filled(self.low, self._low, ll), bands

    def synthesise(self, low: Any, bands: Sequence[Any], *, whole: bool = False) -> Any:
        """Undo `analyse`."""
        hl, lh, hh = ([strip.cells(b) for strip in self._band(index)] for index, b in enumerate(bands))
        rows = join_rows([strip.cells(low) for strip in self._low], lh, whole, self._fit)
        upper = iter([join_rows([low], [high], whole) for low, high in zip(hl, hh, strict=True)])
        parts = [
            join([row], next(upper), zone.periodic, whole)[0] if zone.split else row
            for zone, row in zip(self.zones, rows, strict=True)
        ]
        return _filled((self.height, self.width), self.zones, parts)

    def _fit(self, edge: Any, width: int) -> Any:
        return fitted(edge[..., 0], width, self.periodic)[..., None]


@dataclass(frozen=True)
class Ahead(Level):
    """A level of one band that halves, in longitude only, the rows start..stop of fields: cells (height, width), one
    for every `stride` columns."""

    start: int = 0
    stride: int = 1

    @property
    def band_count(self) -> int:
        """Number of detail bands."""
        return 1

    @property
    def low(self) -> tuple[int, int]:
        """Shape of the low band."""
        return self.height, -(-self.width // 2)

    def band(self, index: int) -> tuple[int, int]:
        """Shape of the detail band, which is high in longitude."""
        return self.height, self.width // 2

    @property
    def _before(self) -> Strip:
        return Strip(self.start, self.start + self.height, self.width, self.stride)

    @property
    def _after(self) -> Strip:
        return replace(self._before, count=self.low[1], stride=2 * self.stride)

    def own(self, low: Any) -> Any:
        """Return, of the array that the level's synthesis takes, what is its low band."""
        return self._after.cells(low)

    def analyse(self, x: Any) -> tuple[Any, tuple[Any, ...]]:
        """Split those rows of fields (..., h, w)."""
        (low,), (high,) = split([self._before.cells(x)], self.periodic)
        x = x.copy()
        self._after.fill(x, low)
        return x, (high,)

    def synthesise(self, low: Any, bands: Sequence[Any], *, whole: bool = False) -> Any:
        """Undo `analyse`, in place."""
        (cells,) = join([self.own(low)], list(bands), self.periodic, whole)
        self._before.fill(low, cells)
        return low


def zoned_levels(height: int, width: int, periodic: bool, ahead: Sequence[int]) -> tuple[Level, ...]:
    """Return the levels of fields, finest first, whose blocks of rows are halved so many times ahead."""
    plain = levels(height, width, periodic)
    if not any(ahead):
        return plain
    early = _early(ahead, Blocks.of(height, width).log2_rows, plain)

    def circular(halvings: int) -> bool:
        return periodic and width % (2 << halvings) == 0

    found: list[Level] = [
        Ahead(stop - start, -(-width >> k), circular(k), 0, start, 1 << k)
        for k in range(max(early[0]))
        for start, stop, deeper in _runs([times > k for times in early[0]], height)
        if deeper
    ]
    for level, now, then in zip(plain, early, [*early[1:], [0, 0]], strict=True):
        zones = []
        changes = [(times, times == then[pair // 2]) for pair, times in enumerate(now)]
        for start, stop, (times, splits) in _runs(changes, level.height):
            halvings = level.depth + times
            zones.append(Zone(start, stop, -(-width >> halvings), 1 << times, splits, circular(halvings)))
        zoned = Zoned(level.height, level.width, level.periodic, level.depth, tuple(zones))
        found.append(zoned if any(now) else level)
    return tuple(found)


def _early(ahead: Sequence[int], log2_rows: int, plain: Sequence[Level]) -> list[list[int]]:
    """Return, per level and pair of its rows, how many halvings in longitude are ahead of those in latitude.

    They are what all blocks of the pair allow, and at most one more than those of the pair it becomes part of.
    """
    found, last = list[list[int]](), len(ahead) - 1
    for level in plain:
        starts = [pair * (2 << level.depth) for pair in range(-(-level.height // 2) + 1)]
        spans = [(min(a >> log2_rows, last), min(b - 1 >> log2_rows, last)) for a, b in pairwise(starts)]
        found.append([min(ahead[i : j + 1]) for i, j in spans])
    found[-1] = [0] * len(found[-1])
    for finer, coarser in zip(found[-2::-1], found[:0:-1], strict=True):
        finer[:] = [min(times, coarser[pair // 2] + 1) for pair, times in enumerate(finer)]
    return found


def _runs(values: Sequence[T], height: int) -> list[tuple[int, int, T]]:
    """Return (start, stop, value) of runs of equal values, each of which belongs to two rows."""
    found, start = list[tuple[int, int, T]](), 0
    for value, members in groupby(values):
        stop = start + 2 * sum(1 for _ in members)
        found.append((start, min(stop, height), value))
        start = stop
    return found


def _merged(strips: list[Strip]) -> tuple[Strip, ...]:
    """Join strips of equal stride that follow one another."""
    found = list[Strip]()
    for strip in strips:
        if found and (found[-1].stop, found[-1].stride) == (strip.start, strip.stride):
            strip = replace(found.pop(), stop=strip.stop)
        found.append(strip)
    return tuple(found)


def _filled(shape: tuple[int, int], strips: Sequence[Strip], parts: Parts) -> Any:
    """Return one array of the cells of strips; 0 where there are none."""
    out = np.zeros((*(parts[0].shape[:-2] if parts else ()), *shape))
    for strip, cells in zip(strips, parts, strict=True):
        strip.fill(out, cells)
    return out


def fitted(row: F64, width: int, periodic: bool) -> F64:
    """Return a row (..., n) as one of another width: smoothed by 1 2 1 and thinned out, or with means in between.

    Magnitudes change by the square root of 2 with every halving, as those of low bands do.
    """
    finer = [width]
    while row.shape[-1] > width:
        x = _with_edges(row, periodic and row.shape[-1] % 2 == 0)
        row = ((x[..., :-2] + x[..., 2:]) + (row + row))[..., ::2] * QUARTER_ROOT
    while finer[-1] > row.shape[-1]:
        finer.append(-(-finer[-1] // 2))
    for size in finer[-2::-1]:
        out = np.empty((*row.shape[:-1], size))
        x = _with_edges(row, periodic and size % 2 == 0)
        out[..., ::2] = row * HALF_ROOT
        out[..., 1::2] = ((row + x[..., 2:]) * (HALF_ROOT / 2))[..., : size // 2]
        row = out
    return row


def _with_edges(row: F64, periodic: bool) -> F64:
    return np.pad(row, [(0, 0)] * (row.ndim - 1) + [(1, 1)], "wrap" if periodic else "edge")
