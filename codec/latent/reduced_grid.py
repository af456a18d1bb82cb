"""Levels of fields whose rows may be halved in longitude ahead of latitude: those near the poles, where meridians meet.

On a grid of longitude and latitude the rows near the poles are oversampled in longitude. Rows are taken in blocks, and
each block is halved in longitude a number of times before the first level, by levels of its own (`Ahead`). The ordinary
levels (`Level`) then split fields in which rows have different numbers of values, and at its last levels a block is not
split in longitude, so that all rows are alike again at the coarse end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isopress.codec.latent.wavelet import LATITUDE, LONGITUDE, AnyFloat, join, split
from isopress.codec.native import wavelet
from isopress.codec.native.dispatch import compiled

F64 = NDArray[np.float64]
Shape = tuple[int, int]
T = TypeVar("T")

STOP = 3  # a side beyond which the low band is halved once more
BLOCKS = 16  # a field has at least so many blocks of rows, and about twice as many at most
LEAST_ROWS = 2  # log2 of the rows of the smallest block
NARROWEST = 24  # values of a row that is halved ahead no more


@dataclass(frozen=True)
class Strip:
    """Rows start..stop of a map, in which each of `count` values stands for `stride` columns and lies in the first.

    The last one stands for as many as there are.
    """

    start: int
    stop: int
    count: int
    stride: int = 1

    def cells(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a view (..., rows, count) of an array (..., h, w)."""
        return values[..., self.start : self.stop, : self.count * self.stride : self.stride]

    def first(self, parity: int) -> int:
        """Return the first row of this parity, counted from `start`."""
        return (parity - self.start) % 2

    def fill(self, values: NDArray[Any], cells: NDArray[Any]) -> None:
        """Write cells to all columns that they stand for."""
        target = values[..., self.start : self.stop, : self.count * self.stride]
        target[...] = cells if self.stride == 1 else cells.repeat(self.stride, -1)[..., : target.shape[-1]]


@dataclass(frozen=True)
class Band:
    """A low or detail band: its shape, the strips where it has coefficients, and what of them each zone has.

    table : (strips, 4), start, stop, count and stride of each
    """

    shape: Shape
    strips: tuple[Strip, ...]
    zones: tuple[Strip, ...]
    table: NDArray[np.int32] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        rows = [(strip.start, strip.stop, strip.count, strip.stride) for strip in self.strips]
        object.__setattr__(self, "table", np.array(rows, np.int32).reshape(-1, 4))


@dataclass(frozen=True)
class Zone:
    """A strip of the fields that a level splits, from an even row on; `split` says whether in longitude too, and
    `periodic` whether as a circle.

    Where not, the stride is halved instead: its halvings came ahead.
    """

    strip: Strip
    split: bool
    periodic: bool


@dataclass(frozen=True)
class Level:
    """A level of the wavelet: splits fields (height, width) with zones, from top to bottom, into four bands.

    periodic : whether longitude closes on itself there; depth : how many such levels are finer
    low : the low band, which the next level splits; bands : details high in longitude, in latitude, in both
    """

    height: int
    width: int
    periodic: bool
    depth: int
    zones: tuple[Zone, ...]
    low: Band = field(init=False)
    bands: tuple[Band, ...] = field(init=False)
    after: None = None  # the low band is an array of its own
    table: NDArray[np.int32] = field(init=False, compare=False, repr=False)  # (zones, 6), as kernels take them

    def __post_init__(self) -> None:
        rows = [(*(getattr(z.strip, f.name) for f in fields(Strip)), z.split, z.periodic) for z in self.zones]
        object.__setattr__(self, "table", np.array(rows, np.int32).reshape(-1, 6))
        h, w = self.height, self.width
        low, high = ([(z.strip, z.split) for z in self.zones if z.split or whole] for whole in (True, False))
        object.__setattr__(self, "low", _band((-(-h // 2), -(-w // 2)), low, 0, 0))
        details = (
            _band((-(-h // 2), w // 2), high, 0, 1),
            _band((h // 2, -(-w // 2)), low, 1, 0),
            _band((h // 2, w // 2), high, 1, 1),
        )
        object.__setattr__(self, "bands", details)

    def analyse(
        self, x: F64, dtype: type[np.floating] = np.float64, *, used_up: bool = False
    ) -> tuple[F64, tuple[AnyFloat, ...]]:
        """Split fields (..., h, w) into low band and details of `dtype`; all are as wide as ever, see `Strip`.

        used_up : whether that may be done where they lie
        """
        if compiled():
            own = used_up and x.dtype == np.float64 and x.flags.c_contiguous
            return wavelet.analyse(x if own else np.array(x, np.float64, order="C"), self.table, self.periodic, dtype)
        low, hl, hh = list[F64](), list[F64](), list[F64]()
        for zone in self.zones:
            cells = zone.strip.cells(x)
            if zone.split:
                (cells,), high = split([cells], LONGITUDE, zone.periodic)
                upper = split(high, LATITUDE, False)  # high parts of rows of different lengths have nothing in common
                hl += upper[0]
                hh += upper[1]
            low.append(cells)
        ll, lh = split(low, LATITUDE, self.periodic)
        first, second, third = self.bands
        filled = _filled(first.shape, first.zones, hl), _filled(second.shape, second.zones, lh)
        details = [band.astype(dtype, copy=False) for band in (*filled, _filled(third.shape, third.zones, hh))]
        return _filled(self.low.shape, self.low.zones, ll), tuple(details)

    def synthesise(self, low: F64, details: Sequence[AnyFloat], *, whole: bool = False) -> F64:
        """Undo `analyse`; with `whole` in integers, so that all machines agree."""
        if compiled():
            return wavelet.synthesise(low, details, self.table, (self.height, self.width), self.periodic, whole)
        ll, lh = list[AnyFloat](), list[AnyFloat]()
        for below, above in zip(self.low.zones, self.bands[1].zones, strict=True):
            ll.append(below.cells(low))
            lh.append(above.cells(details[1]))
        parts = join(ll, lh, LATITUDE, self.periodic, whole)[::-1]
        left, shape, out = zip(self.bands[0].zones, self.bands[2].zones, strict=True), (self.height, self.width), None
        for zone in self.zones:
            cells = parts.pop()  # is held by nobody else, as what is joined of it: these are the largest arrays
            if zone.split:
                below, above = next(left)
                high = join([below.cells(details[0])], [above.cells(details[2])], LATITUDE, False, whole)
                (cells,) = join([cells], high, LONGITUDE, zone.periodic, whole, used_up=True)
                del high
            if cells.shape[-2:] == shape:
                return cells
            out = np.zeros((*cells.shape[:-2], *shape)) if out is None else out
            zone.strip.fill(out, cells)
        assert out is not None
        return out


@dataclass(frozen=True)
class Ahead:
    """A level of one band that halves, in longitude only, the rows start..stop of fields: cells (height, width), one
    for every `stride` columns. Its contexts see these cells alone."""

    height: int
    width: int
    periodic: bool
    before: Strip  # where the cells are in the fields,
    after: Strip  # and those of the low band
    low: Band
    bands: tuple[Band, ...]
    depth: int = 0

    def analyse(
        self, x: F64, dtype: type[np.floating] = np.float64, *, used_up: bool = False
    ) -> tuple[F64, tuple[AnyFloat, ...]]:
        """Split those rows of fields (..., h, w), which are changed if they are `used_up`."""
        (low,), (high,) = split([self.before.cells(x)], LONGITUDE, self.periodic)
        x = x if used_up else x.copy()
        self.after.fill(x, low)
        return x, (high.astype(dtype, copy=False),)

    def synthesise(self, low: F64, details: Sequence[AnyFloat], *, whole: bool = False) -> F64:
        """Undo `analyse`, in place."""
        (cells,) = join([self.after.cells(low)], details, LONGITUDE, self.periodic, whole)
        self.before.fill(low, cells)
        return low


AnyLevel = Level | Ahead


@lru_cache(maxsize=64)
def levels(height: int, width: int, periodic: bool, ahead: tuple[int, ...] = ()) -> tuple[AnyLevel, ...]:
    """Return the levels of a field, finest first: halvings until no side exceeds 3.

    ahead : how often each block of rows is halved ahead
    """
    sizes = [(height, width)]
    while max(sizes[-1]) > STOP:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    found = list[AnyLevel]()
    early = _early(ahead, height, len(sizes) - 1) if any(ahead) else []
    for k in range(max(early[0]) if early else 0):
        for start, stop, deeper in _runs([times > k for times in early[0]], height):
            if deeper:
                found.append(_ahead(start, stop, -(-width >> k), 1 << k, periodic and width % (2 << k) == 0))
    for depth, (h, w) in enumerate(sizes[:-1]):
        circle, zones = periodic and width % (2 << depth) == 0, list[Zone]()
        runs = [(0, h, (0, True))]
        if early:
            runs = _runs([(n, n == early[depth + 1][pair // 2]) for pair, n in enumerate(early[depth])], h)
        for start, stop, (times, splits) in runs:
            strip = Strip(start, stop, -(-width >> depth + times), 1 << times)
            zones.append(Zone(strip, splits, periodic and width % (2 << depth + times) == 0))
        found.append(Level(h, w, circle, depth, tuple(zones)))
    return tuple(found)


def _ahead(start: int, stop: int, width: int, stride: int, periodic: bool) -> Ahead:
    height, half = stop - start, -(-width // 2)
    low, high = Strip(0, height, half), Strip(0, height, width // 2)
    before, after = Strip(start, stop, width, stride), Strip(start, stop, half, 2 * stride)
    bands = (Band((height, width // 2), (high,), (high,)),)
    return Ahead(height, width, periodic, before, after, Band((height, half), (low,), (low,)), bands)


def _early(ahead: Sequence[int], height: int, count: int) -> list[list[int]]:
    """Return, per level and pair of its rows, how many halvings in longitude are ahead of those in latitude.

    They are what all blocks of the pair allow, and at most one more than those of the pair it becomes part of. The last
    entry is beyond all levels.
    """
    log2_rows, last = Blocks.of(height, 2 * NARROWEST).log2_rows, len(ahead) - 1
    found = list[list[int]]()
    for depth in range(count + 1):
        starts = range(0, (-(-height // (2 << depth)) + 1) * (2 << depth), 2 << depth)
        if depth < count - 1:
            spans = [(min(a >> log2_rows, last), min(b - 1 >> log2_rows, last)) for a, b in pairwise(starts)]
            found.append([min(ahead[i : j + 1]) for i, j in spans])
        else:
            found.append([0] * (len(starts) - 1))
    for finer, coarser in zip(found[-3::-1], found[-2:0:-1], strict=True):
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


def _band(shape: Shape, zones: Sequence[tuple[Strip, bool]], high_rows: int, high_columns: int) -> Band:
    """Return the band that a level's zones have, each of them (strip, whether it is split in longitude)."""
    own, merged = list[Strip](), list[Strip]()
    for zone, is_split in zones:
        stop = zone.stop // 2 if high_rows else -(-zone.stop // 2)
        count = zone.count // 2 if high_columns else -(-zone.count // 2) if is_split else zone.count
        strip = Strip(zone.start // 2, stop, count, zone.stride if is_split else zone.stride // 2)
        own.append(strip)
        if merged and (merged[-1].stop, merged[-1].stride) == (strip.start, strip.stride):
            strip = replace(merged.pop(), stop=strip.stop)
        merged.append(strip)
    return Band(shape, tuple(merged), tuple(own))


def _filled(shape: Shape, strips: Sequence[Strip], parts: Sequence[F64]) -> F64:
    """Return one array of the cells of strips; 0 where there are none."""
    if len(parts) == 1 and parts[0].shape[-2:] == shape:
        return parts[0]
    out = np.zeros((*(parts[0].shape[:-2] if parts else ()), *shape))
    for strip, cells in zip(strips, parts, strict=True):
        strip.fill(out, cells)
    return out


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
