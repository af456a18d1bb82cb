"""Undeclared missing values: numbers such as 1e20 or -9999 that stand far from everything else.

A range that counts them is ruined, and a bound that changes them hides what is missing. They are found by how far they
are from all other values and, where the number is not a usual one, by how often they occur.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# What programs write: NetCDF's defaults, CF and CMIP, MERRA and GEOS, GrADS, WRF, IDL, ROMS, C and Fortran limits.
USUAL = tuple(
    sign * number
    for number in (
        *(
            999.0,
            9999.0,
            99999.0,
            999999.0,
            9999999.0,
            99999999.0,
            999999999.0,
            999.9,
            9999.9,
            99999.9,
            888.0,
            8888.0,
            88888.0,
        ),
        *(999.99, 9999.99, 99.99, 99.9, 99.0, 9.9692099683868690e36, 9.96921e36, 9.969e36, 9.96e36, 9.97e36),
        *(
            1e10,
            1e12,
            1e13,
            1e14,
            1e15,
            1e16,
            1e18,
            1e20,
            1e25,
            1e28,
            1e30,
            1e31,
            1e32,
            1e33,
            1e34,
            1e35,
            1e36,
            1e37,
            1e38,
        ),
        *(9.999e20, 9.99e33, 9.99e8, 9.999e8, 1.1e20, 9e20, 9.9e20, 9.99e20, 9e30, 9.9e36, 1.7e38, 1e300, 1e308),
        *(32767.0, 32768.0, 32766.0, 65535.0, 2147483647.0, 2147483648.0, 9.223372036854775807e18, 127.0, 128.0, 255.0),
        *(float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)),
    )
    for sign in (1, -1)
)
_FAR = 5.0  # times the range of all other values: how far an unusual number must be,
_OFTEN = 8  # and how often it must occur in a region to be looked at;
_DISTINCT = 16  # the others must be measurements, not a few categories
_PEELED = 6  # at each end
_SAMPLE = 4096  # values of a region that percentiles are taken from


@dataclass(frozen=True)
class Sketch:
    """What is known of the finite values of a region; sketches of regions add up.

    `ends` counts the values at both ends that may be sentinels, `low` to `high` is the range of all others, `sample`
    a regular sample of them, `values` how many finite values there are in all.
    """

    ends: dict[float, int] = field(default_factory=dict)
    low: float = np.inf
    high: float = -np.inf
    sample: Array = field(default_factory=lambda: np.zeros(0))
    values: int = 0

    def __add__(self, other: "Sketch") -> "Sketch":
        ends = dict(self.ends)
        for value, count in other.ends.items():
            ends[value] = ends.get(value, 0) + count
        sample = np.concatenate([self.sample, other.sample])
        while sample.size > 2**20:
            sample = sample[::2]
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Sketch(ends, low, high, sample, self.values + other.values)


@dataclass(frozen=True)
class Findings:
    """Sentinels and how often they occur, and of all other values the range and the 1st and 99th percentile."""

    sentinels: dict[float, int]
    low: float
    high: float
    bulk: tuple[float, float]
    values: int


def sketch(x: Array) -> Sketch:
    """Return what `find_sentinels` needs to know of a region, float32 or float64."""
    rest = x[np.isfinite(x)].ravel()
    values = rest.size
    if not values:
        return Sketch()
    usual = _usual(x.dtype)
    ends: dict[float, int] = {}
    for extreme in (np.min, np.max):
        for _ in range(_PEELED):
            if not rest.size:
                break
            value = extreme(rest)
            others = rest != value
            count = rest.size - int(np.count_nonzero(others))
            if count < _OFTEN and value not in usual:
                break
            ends[float(value)] = count
            rest = rest[others]
    low, high = (float(rest.min()), float(rest.max())) if rest.size else (np.inf, -np.inf)
    sample = rest[:: max(1, rest.size // _SAMPLE)].astype(np.float64)
    return Sketch(ends, low, high, sample, values)


def find_sentinels(total: Sketch, dtype: np.dtype[Any], more: Sequence[float] = ()) -> Findings:
    """Return the sentinels among the values at the ends, and figures of all others.

    Parameters
    ----------
    total : Sketch
        Of all regions together.
    dtype : dtype
        Of the values: float32 or float64.
    more : sequence of float
        Further usual numbers, such as limits of packed integers in physical units.
    """
    usual = _usual(dtype, more)
    low, high = total.low, total.high
    inside = [value for value in total.ends if low <= value <= high]
    candidates = {value: count for value, count in total.ends.items() if value not in inside}
    measured = np.unique(total.sample).size >= _DISTINCT
    if not np.isfinite(low) and candidates:  # nothing but a few values: those that are no usual number are data
        data = [value for value in candidates if value not in usual] or [min(candidates, key=abs)]
        low, high = min(data), max(data)
        inside += data
        candidates = {value: count for value, count in candidates.items() if value not in data}
    while candidates:  # the nearest one belongs to the others unless it is far from them; then so are the rest
        nearest = min(candidates, key=lambda value: max(low - value, value - high))
        gap, span = max(low - nearest, nearest - high), high - low
        far = gap > (_FAR if nearest not in usual else 1.0) * span
        if far and (nearest in usual or measured):
            break
        low, high = min(low, nearest), max(high, nearest)
        inside.append(nearest)
        del candidates[nearest]
    weights = [(value, total.ends[value]) for value in inside]
    return Findings(candidates, low, high, _bulk(total, weights, sum(candidates.values())), total.values)


def _usual(dtype: np.dtype[Any], more: Sequence[float] = ()) -> set[float]:
    """Return the usual numbers as values of a dtype."""
    with np.errstate(over="ignore"):
        numbers = np.asarray([*USUAL, *more], np.float64).astype(dtype)
    return set(numbers[np.isfinite(numbers)].astype(np.float64).tolist())


def _bulk(total: Sketch, weights: Sequence[tuple[float, int]], missing: int) -> tuple[float, float]:
    """Return the 1st and 99th percentile of what is no sentinel, from the sample and the counted values."""
    counted = sum(count for _, count in weights)
    sampled = total.values - missing - counted
    each = sampled / max(total.sample.size, 1)
    numbers = np.concatenate([total.sample, [value for value, _ in weights]])
    if not numbers.size:
        return (0.0, 0.0)
    counts = np.concatenate([np.full(total.sample.size, each), [count for _, count in weights]])
    first, last = _percentiles(numbers, counts)
    others = numbers != first
    # Where nearly all values are the same, as rain is, the rest of them are what a bound must not wipe out.
    return _percentiles(numbers[others], counts[others]) if first == last and others.any() else (first, last)


def _percentiles(numbers: Array, counts: Array) -> tuple[float, float]:
    """Return the 1st and 99th percentile of numbers that occur so many times."""
    order = np.argsort(numbers)
    share = np.cumsum(counts[order]) / max(counts.sum(), 1)
    first, last = np.searchsorted(share, [0.01, 0.99]).clip(max=numbers.size - 1)
    return float(numbers[order][first]), float(numbers[order][last])
