"""A second range decoder, written from SPEC 9.8 alone, in plain Python integers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

WORD, STATE = 2**32, 2**64
ONE = 2**24


class RangeDecoder:
    """Decodes symbol indexes, given the left cumulatives of their tables."""

    def __init__(self, words: Sequence[int]) -> None:
        self._words, self._left = iter(words), len(words)
        self._lower, self._range = 0, STATE - 1
        self._point = self._next() * WORD + self._next()

    def _next(self) -> int:
        self._left -= 1
        return int(next(self._words, 0))

    @property
    def exhausted(self) -> bool:
        """Whether all words were read, and no symbol can be left in what was read."""
        nothing_decoded = self._range == STATE - 1
        return self._left <= 0 and (nothing_decoded or (self._point - self._lower) % STATE < 2 * WORD - 1)

    def decode(self, cumulative: Sequence[int]) -> int:
        scale = self._range // ONE
        quantile = (self._point - self._lower) % STATE // scale
        assert quantile < ONE
        i = bisect_right(cumulative, quantile) - 1
        self._lower = (self._lower + scale * cumulative[i]) % STATE
        self._range = scale * (cumulative[i + 1] - cumulative[i])
        if self._range < WORD:
            self._lower = self._lower * WORD % STATE
            self._range *= WORD
            self._point = self._point * WORD % STATE + self._next()
        return i


def uniform(size: int) -> list[int]:
    return [i * (ONE // size) for i in range(size)] + [ONE]


def table(frequencies: Sequence[float]) -> list[int]:
    total = 0.0
    for f in frequencies:
        total += f
    factor = (ONE - len(frequencies)) / total
    left, result = 0.0, []
    for i, f in enumerate(frequencies):
        result.append(int(left * factor) + i)
        left += f
    return [*result, ONE]
