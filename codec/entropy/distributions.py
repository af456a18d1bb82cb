"""Fixed distributions of the range coder, and what constriction and the compiled kernels know of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

try:
    import constriction
except ImportError:  # it has no build for this machine; kernels do without
    constriction = None

ONE = 2**24  # frequencies of a distribution add up to this
OFFSET_MAX = 31  # a phase's correction of its scale indexes, in eighths of an octave
CLASSES = 6  # of activity that can be quiet (bounded/quiet.py)
RATES = 24  # of symbols other than 0: a quarter to a ten-thousandth, two per octave
RATE_ONE = 1 << 15
FIRST_RATE = 20  # what the first symbols of a phase are coded after
LONGEST = 64  # run of zeros


def cumulative_of(weights: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return the cumulative frequencies (n + 1,), in 2**-24, that constriction makes of n weights."""
    sums = np.concatenate([[0.0], np.cumsum(weights)])  # one after the other, in binary64
    out: NDArray[np.uint32] = np.floor(sums * ((ONE - weights.size) / sums[-1])).astype(np.uint32)
    out += np.arange(weights.size + 1, dtype=np.uint32)
    out[-1] = ONE
    return out


@dataclass(frozen=True, eq=False)
class Distribution:
    """How integers outside the tables are distributed: by `weights`, or n of them equally."""

    weights: NDArray[np.float64] | None
    equal: int = 0

    @property
    @cache  # noqa: B019 - there are few, and they live as long as the process
    def model(self) -> constriction.stream.model.Model:
        """Constriction's model of it."""
        if self.weights is None:
            return constriction.stream.model.Uniform(self.equal)
        return constriction.stream.model.Categorical(self.weights, perfect=False, lazy=False)

    @property
    @cache  # noqa: B019
    def cumulative(self) -> NDArray[np.uint32]:
        """What the compiled kernels know of it."""
        if self.weights is not None:
            return cumulative_of(self.weights)
        return np.array([*(i * (ONE // self.equal) for i in range(self.equal)), ONE], np.uint32)


@cache
def offset_model(peaked: bool) -> Distribution:
    """Return the distribution of a phase's scale offset: equal, or mostly 0 and halving with every step from it."""
    if not peaked:
        return Distribution(None, 2 * OFFSET_MAX + 1)
    weights = [4096 >> min(abs(offset), 12) for offset in range(-OFFSET_MAX, OFFSET_MAX + 1)]
    weights[OFFSET_MAX] = 12288
    return Distribution(np.array(weights, np.float64))


@cache
def limit_model() -> Distribution:
    """Return the distribution of the number of quiet classes: mostly none."""
    return Distribution(np.array([CLASSES, *(1,) * CLASSES], np.float64))


@cache
def rate_model(before: int) -> Distribution:
    """Return the distribution of the number of a rate after another one: mostly a little less."""
    return Distribution(np.array([1 + (64 >> abs(before - 2 - rate)) for rate in range(RATES)], np.float64))


@cache
def run_model(rate: int) -> Distribution:
    """Return the distribution of runs where so many symbols are not zero."""
    left, weights = ONE, []
    for _ in range(LONGEST):
        less = left * (RATE_ONE - of_rate(rate)) // RATE_ONE
        weights.append(left - less + 1)
        left = less
    return Distribution(np.array([*weights, left + 1], np.float64))


@cache
def other_model() -> Distribution:
    """Return the distribution of -2, -1, 1 and 2, the outer ones of which say "at least"."""
    return Distribution(np.array([1, 15, 15, 1], np.float64))


def of_rate(rate: int) -> int:
    """Return how many of RATE_ONE symbols are not zero."""
    return (4 - rate % 2) << 11 - rate // 2
