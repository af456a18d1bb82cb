"""Where the points of a phase lie: every second row and value of the strips of a band, strip by strip, in C order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.latent.context_maps import PAD, LevelMaps, box_at
from isopress.codec.latent.wavelet import Strip

F32 = NDArray[np.float32]
Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Where:
    """Rows and columns of some points in maps of `width` columns, and how many columns each stands for."""

    rows: Index
    columns: Index
    strides: Index | None  # if not 1 everywhere
    width: int

    def flat(self, pitch: int) -> tuple[Index, Index]:
        """Return flat indexes in a padded map of so many columns: of the first and of the last of their columns."""
        at = (self.rows + PAD) * pitch + (self.columns + PAD)
        if self.strides is None:
            return at, at
        return at, at + (np.minimum(self.strides, self.width - self.columns) - 1)

    def parents(self, maps: LevelMaps) -> Where:
        """Return where the points lie in the bands of the coarser level."""
        rows, columns, width = self.rows >> 1, self.columns >> 1, -(-self.width // 2)
        strips = maps.parent_strips
        if not any(strip.stride > 1 for strip in strips):
            return Where(rows, columns, None, width)
        stops = np.array([strip.stop for strip in strips])
        strides = np.array([strip.stride for strip in strips])[np.searchsorted(stops[:-1], rows, "right")]
        return Where(rows, columns & -strides, strides, width)


@dataclass(frozen=True, eq=False)
class Points:
    """The points of one phase, with parities (lat, lon) `parity`, of a band with these strips."""

    strips: tuple[Strip, ...]
    parity: tuple[int, int]

    def take(self, map_: NDArray[np.floating], pad: int = PAD) -> NDArray[np.floating]:
        """Return the values (n,) of all points in an array that is padded by so much."""
        y, x = self.parity
        return _flat([strip.cells(map_[pad:, pad:])[strip.first(y) :: 2, x::2] for strip in self.strips])

    def box(self, map_: F32) -> F32:
        """Return what the padded map, smoothed, has at all points."""
        return _flat([box_at(map_, strip, strip.first(self.parity[0]), self.parity[1]) for strip in self.strips])

    def put(self, map_: F32, values: F32) -> None:
        """Write the values (n,) of all points to the columns of a padded map that they stand for."""
        x, start, inner = self.parity[1], 0, map_[PAD:-PAD, PAD:-PAD]
        for strip in self.strips:
            y = strip.first(self.parity[0])
            shape = (strip.stop - strip.start - y + 1) // 2, (strip.count - x + 1) // 2
            cells = values[start : start + shape[0] * shape[1]].reshape(shape)
            for k in range(strip.stride):
                columns = slice(x * strip.stride + k, strip.count * strip.stride, 2 * strip.stride)
                target = inner[strip.start + y : strip.stop : 2, columns]
                target[...] = cells[:, : target.shape[1]]
            start += cells.size

    def where(self, points: Index, width: int) -> Where:
        """Return where some of the points lie in maps of so many columns."""
        y, x = self.parity
        if len(self.strips) == 1 and self.strips[0].stride == 1:
            row, column = np.divmod(points, (self.strips[0].count - x + 1) // 2)
            return Where(2 * row + (self.strips[0].start + self.strips[0].first(y)), 2 * column + x, None, width)
        starts, stops, counts, strides = np.array(
            [(s.start + s.first(y), s.stop, s.count, s.stride) for s in self.strips]
        ).T
        lengths = (counts - x + 1) // 2
        last = ((stops - starts + 1) // 2 * lengths).cumsum()
        strip = np.searchsorted(last[:-1], points, "right")
        row, column = np.divmod(points - np.r_[0, last[:-1]][strip], lengths[strip])
        return Where(2 * row + starts[strip], (2 * column + x) * strides[strip], strides[strip], width)


def _flat(parts: list[NDArray[np.floating]]) -> NDArray[np.floating]:
    if len(parts) == 1:
        return parts[0].ravel()
    return np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0, np.float32)
