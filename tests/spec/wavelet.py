"""Levels and wavelet of the second decoder of latents, from SPEC 14.3, 14.6 and 14.11 alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, log2, sqrt

Offset = tuple[int, int]
Row = list[float]
A, B, C, D = -1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971
N = 1.149604398860241


@dataclass(frozen=True)
class Level:
    """SPEC 14.3; with 14.11 also W, per pair of rows the early halvings here and at the next level, and, of an ahead
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
    """SPEC 14.3 and 14.11; finest first."""
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


def runs(values: list[tuple[int, bool]]) -> list[Offset]:
    starts = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=True))


def join(low: list[Row], high: list[Row], circle: bool, periodic: bool) -> list[Row]:
    """SPEC 14.6, of whole rows: `circle` is about the direction that is joined, `periodic` about the other one."""
    p, q = len(low), len(high)
    if q == 0:
        return low

    def g(i: int, n: int) -> Row:
        return fitted(high[i if 0 <= i < q else (q - 1 if circle else 0) if i < 0 else q - 1], n, periodic)

    def l_(i: int, n: int) -> Row:
        return fitted(low[i if i < p else 0 if circle else p - 1], n, periodic)

    def around(factor: float, here: Row, one: Callable[[int, int], Row], i: int, j: int) -> Row:
        n = len(here)
        return [v - rounded(factor * (a + b)) for v, a, b in zip(here, one(i, n), one(j, n), strict=True)]

    low = [[rounded(v * (1 / N)) for v in row] for row in low]
    high = [[rounded(v * N) for v in row] for row in high]
    low = [around(D, low[i], g, i - 1, i) for i in range(p)]
    high = [around(C, high[i], l_, i, i + 1) for i in range(q)]
    low = [around(B, low[i], g, i - 1, i) for i in range(p)]
    high = [around(A, high[i], l_, i, i + 1) for i in range(q)]
    return [low[i // 2] if i % 2 == 0 else high[i // 2] for i in range(p + q)]


def fitted(v: Row, m: int, periodic: bool) -> Row:
    """SPEC 14.11."""
    while len(v) > m:
        n, wraps = len(v), periodic and len(v) % 2 == 0
        at = [v[i % n if wraps else min(max(i, 0), n - 1)] for i in range(-1, n + 1)]
        v = [((at[2 * j] + at[2 * j + 2]) + (v[2 * j] + v[2 * j])) * (sqrt(2) / 4) for j in range((n + 1) // 2)]
    sizes = [m]
    while sizes[-1] > len(v):
        sizes.append((sizes[-1] + 1) // 2)
    for k in reversed(sizes[:-1]):
        n, wraps = len(v), periodic and k % 2 == 0
        after = [v[(j + 1) % n if wraps else min(j + 1, n - 1)] for j in range(n)]
        both = [(v[j] * (sqrt(2) / 2), (v[j] + after[j]) * (sqrt(2) / 2 / 2)) for j in range(n)]
        v = [value for pair in both for value in pair][:k]
    return v


def rounded(x: float) -> int:
    return floor(x + 0.5)
