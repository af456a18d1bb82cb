"""Levels and wavelet of the second decoder of latents, from SPEC 6.3 and 6.6 alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, log2, sqrt
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Offset = tuple[int, int]
Row = NDArray[np.float64]
Grid = list[Row]  # rows, of as many values as each has
T = TypeVar("T", bound=Any)
A, B, C, D = -1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971
N = 1.149604398860241


@dataclass(frozen=True)
class Level:
    """SPEC 6.3; besides W, per pair of rows the early halvings here and at the next level, and, of an ahead
    level, its first row and k."""

    h: int
    w: int
    periodic: bool
    number: int
    whole: int
    early: tuple[int, ...]
    later: tuple[int, ...]
    closed: bool
    start: int = 0
    k: int | None = None

    @property
    def low(self) -> Offset:
        return (self.h if self.ahead else (self.h + 1) // 2), (self.w + 1) // 2

    @property
    def ahead(self) -> bool:
        return self.k is not None

    def width(self, halvings: int) -> int:
        return -(-self.whole // 2**halvings)

    def values(self, row: int) -> int:
        """Return how many values a row of the low band has."""
        return self.low[1] if self.ahead else self.width(self.number + 1 + self.later[row // 2])

    def stride(self, row: int) -> int:
        return 1 if self.ahead or not 0 <= row < self.low[0] else 2 ** self.later[row // 2]

    def splits(self, row: int) -> bool:
        return self.early[row] == self.later[row // 2]

    def band(self, d: int) -> list[int]:
        """Return how many coefficients each row of a band has."""
        if self.ahead:
            return [self.w // 2] * self.h
        if d == 1:
            return [self.values(i) for i in range(self.h // 2)]
        rows = range((self.h + 1) // 2 if d == 0 else self.h // 2)
        return [self.width(self.number + self.early[i]) // 2 if self.splits(i) else 0 for i in rows]

    def circle(self, halvings: int) -> bool:
        return self.closed and self.whole % 2 ** (halvings + 1) == 0

    def columns(self, row: int, value: int) -> range:
        """Return the columns for which a value stands."""
        stride = self.stride(row)
        return range(stride * value, min(stride * (value + 1), self.low[1]))

    def value_at(self, row: int, column: int) -> int:
        return column // self.stride(row)


def levels_of(h: int, w: int, periodic: bool, ahead: list[int]) -> list[Level]:
    """SPEC 6.3; finest first."""
    height, width, closed, shapes = h, w, periodic, list[tuple[int, int, bool]]()
    while max(h, w) > 3:
        periodic = periodic and w % 2 == 0
        shapes.append((h, w, periodic))
        h, w = (h + 1) // 2, (w + 1) // 2
    b = floor(log2(max(1, height // 16)))
    early = [tuple(0 for _ in range((rows + 1) // 2)) for rows, _, _ in shapes]
    for number in reversed(range(len(shapes) - 1)):
        pairs = []
        for p in range(len(early[number])):
            rows = range(p * 2 ** (number + 1), (p + 1) * 2 ** (number + 1))
            of_blocks = min(ahead[min(row // 2**b, len(ahead) - 1)] for row in rows) if ahead else 0
            pairs.append(min(of_blocks, early[number + 1][p // 2] + 1))
        early[number] = tuple(pairs)
    later = [*early[1:], (0, 0)]
    found = [
        Level(rows, columns, period, number, width, early[number], later[number], closed)
        for number, (rows, columns, period) in enumerate(shapes)
    ]
    finer = []
    for k in range(max(early[0], default=0) if shapes else 0):
        here, columns = [e > k for e in early[0]], -(-width // 2**k)
        for p in range(len(here)):
            if here[p] and (p == 0 or not here[p - 1]):
                end = next((q for q in range(p, len(here)) if not here[q]), len(here))
                rows, circle = min(2 * end, height) - 2 * p, closed and width % 2 ** (k + 1) == 0
                finer.append(Level(rows, columns, circle, 0, width, (), (), closed, 2 * p, k))
    return finer + found


def joined(level: Level, low: Grid, band: Callable[[int, int], Row]) -> Grid:
    """SPEC 6.6: return the rows that a level makes of its low band; `band(d, row)` are coefficients.

    An ahead level changes its own rows only.
    """
    if level.ahead:
        rows = range(level.h)
        own = [join_row(low[level.start + y], band(0, y), level.periodic) for y in rows]
        return [*low[: level.start], *own, *low[level.start + level.h :]]
    lower = join(low, [band(1, i) for i in range(level.h // 2)], level.periodic)
    out = list(lower)
    for start, stop in runs([(level.early[i], level.splits(i)) for i in range(len(low))]):
        if level.splits(start):
            highest = [band(2, i) for i in range(start, min(stop, level.h // 2))]
            upper = join([band(0, i) for i in range(start, stop)], highest, False)
            circle = level.circle(level.number + level.early[start])
            for y, high in enumerate(upper, 2 * start):
                out[y] = join_row(lower[y], high, circle)
    return out


def runs(values: list[tuple[int, bool]]) -> list[Offset]:
    starts = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=True))


def join_row(low: Row, high: Row, circle: bool) -> Row:
    """Join along a row."""
    return np.array(lifted(list(low), list(high), circle, lambda value, like: value))


def join(low: Grid, high: Grid, periodic: bool) -> Grid:
    """Join whole rows along columns; rows of other lengths are fitted."""
    return lifted(low, high, False, lambda row, like: fitted(row, len(like), periodic))


def rounded(x: T) -> T:
    return np.floor(x + 0.5)


def lifted(
    low: list[T], high: list[T], circle: bool, fit: Callable[[T, T], T], rounded: Callable[[T], T] = rounded
) -> list[T]:
    """The lifting of SPEC 6.6, of values or of whole rows; R is `rounded`."""
    p, q = len(low), len(high)
    if q == 0:
        return low

    def g(i: int, like: T) -> T:
        return fit(high[i if 0 <= i < q else (q - 1 if circle else 0) if i < 0 else q - 1], like)

    def l_(i: int, like: T) -> T:
        return fit(low[i if i < p else 0 if circle else p - 1], like)

    low = [rounded(v * (1 / N)) for v in low]
    high = [rounded(v * N) for v in high]
    low = [v - rounded(D * (g(i - 1, v) + g(i, v))) for i, v in enumerate(low)]
    high = [v - rounded(C * (l_(i, v) + l_(i + 1, v))) for i, v in enumerate(high)]
    low = [v - rounded(B * (g(i - 1, v) + g(i, v))) for i, v in enumerate(low)]
    high = [v - rounded(A * (l_(i, v) + l_(i + 1, v))) for i, v in enumerate(high)]
    return [low[i // 2] if i % 2 == 0 else high[i // 2] for i in range(p + q)]


def fitted(v: Row, m: int, periodic: bool) -> Row:
    """SPEC 6.6: a row of m values like this one."""
    while len(v) > m:
        n = len(v)
        at = np.pad(v, 2, "wrap" if periodic and n % 2 == 0 else "edge")[1:]  # from index -1 on
        v = ((at[:n:2] + at[2 : n + 2 : 2]) + (v[::2] + v[::2])) * (sqrt(2) / 4)
    sizes = [m]
    while sizes[-1] > len(v):
        sizes.append((sizes[-1] + 1) // 2)
    for k in reversed(sizes[:-1]):
        after = np.append(v[1:], v[0 if periodic and k % 2 == 0 else -1])
        v = np.stack([v * (sqrt(2) / 2), (v + after) * (sqrt(2) / 2 / 2)], -1).ravel()[:k]
    return v
