"""Lattices: fields that were packed (GRIB, 16-bit NetCDF) or rounded to decimals lie on offset + step * n.

A small sample rejects most fields at once; a fit that survives it is tried with simple numbers first
(powers of two, short decimals), then counted on all values.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from isopress.codec.limits import largest_ulp
from isopress.codec.values.quantiser import Quantiser

MAX_LEVELS = 2.0**20
_SAMPLE = 4096
_FEW = 64
_RARE = 1 / 64
_CLEAR = 16  # a step must stand this many ulps clear of rounding to be told from noise
_TRIES = 32
_TINY, _HUGE = 1e-290, 1e300  # beyond, float64 cannot hold half an ulp, or a difference


@dataclass(frozen=True)
class Lattice:
    """Values offset + step * n; a step of 0 says that one value is all there is."""

    offset: float
    step: float

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return n and the lattice values nearest to `x`, computed as the decoder does."""
        with np.errstate(over="ignore", invalid="ignore"):  # a step far too small is found not to fit
            n = np.rint((x.astype(np.float64) - self.offset) / self.step)
            return n, (n * self.step + self.offset).astype(x.dtype)


def find_lattice(x: np.ndarray, valid: np.ndarray | None, *, least: float) -> Quantiser | None:
    """Return the lattice that nearly all valid values of every field lie on, or None.

    Parameters
    ----------
    x : ndarray, (B, H, W), float32 or float64
        Values; finite wherever `valid`.
    valid : ndarray, (B, H, W), bool, or None
        Which values count; None for all.
    least : float
        Smallest step of interest, in the unit of `x`, >= 0.

    Returns
    -------
    Quantiser or None
        With steps >= `least` and |n| <= 2**20. Of each field, 63 of 64 values lie within 4 ulp of the lattice
        (ulp: that of the largest value), most of them on it bit for bit.
    """
    found: list[Lattice] = []
    for b in range(x.shape[0]):
        values = x[b].reshape(-1) if valid is None else x[b][valid[b]]
        lattice = _field_lattice(values, found[-1] if found else None, least)
        if lattice is None:
            return None
        found.append(lattice)
    return _quantiser(found, least)


def _quantiser(found: list[Lattice], least: float) -> Quantiser:
    """One offset and step if all agree, else one per field; constant fields agree with any step."""
    some_step = next((lattice.step for lattice in found if lattice.step), least or 1.0)
    step = np.array([lattice.step or some_step for lattice in found])
    offset = np.array([lattice.offset for lattice in found])
    return Quantiser(_shared(offset), _shared(step))


def _shared(numbers: np.ndarray) -> np.ndarray:
    return numbers[:1] if (numbers == numbers[0]).all() else numbers


def _field_lattice(values: np.ndarray, before: Lattice | None, least: float) -> Lattice | None:
    """Return the lattice of one field, that of the field before it if it fits."""
    if not values.size:
        return Lattice(0.0, 0.0)
    points = np.unique(values[:: values.size // _SAMPLE | 1])
    if points.size < _FEW:  # mostly one value, such as no rain: a sample misses the rest
        points = np.unique(values)
    if points.size == 1:
        return Lattice(float(points[0]), 0.0)
    if not _TINY < float(np.abs(points).max()) < _HUGE:
        return None
    if before and before.step and _holds(before, points) and not _misfits(before, points) and _holds(before, values):
        return before
    for propose in (_fitted_lattices, _power_of_two_lattices):
        best = _nearest(propose(points, least), points)
        if best is not None:
            return _nearest([best, *_refitted(best, values)], values)
    return None


def _nearest(lattices: Iterable[Lattice], values: np.ndarray) -> Lattice | None:
    """Return the first of the lattices that hold the values with the fewest misfits, or None."""
    best, fewest = None, values.size + 1
    for lattice in lattices:
        if _holds(lattice, values) and (misfits := _misfits(lattice, values)) < fewest:
            best, fewest = lattice, misfits
    return best


def _holds(lattice: Lattice, values: np.ndarray) -> bool:
    """Whether nearly all values are within 4 ulp of the lattice, and its integers are small."""
    n, back = lattice.nearest(values)
    if not np.abs(n).max() <= MAX_LEVELS:
        return False
    allowed = 4 * largest_ulp(values)
    return bool(np.mean(np.abs(back - values) > allowed) <= _RARE)


def _misfits(lattice: Lattice, values: np.ndarray) -> int:
    """How many values are not on the lattice bit for bit."""
    return int((lattice.nearest(values)[1] != values).sum())


def _refitted(lattice: Lattice, values: np.ndarray) -> Iterator[Lattice]:
    """Yield the least-squares lattice through all values, unless `lattice` has no misfit to remedy."""
    if _misfits(lattice, values):
        offset, step = _line(lattice.nearest(values)[0], values.astype(np.float64))
        if step > 0:
            yield Lattice(offset, step)


def _line(n: np.ndarray, points: np.ndarray) -> tuple[float, float]:
    """Offset and step of the least-squares line through `points` at `n`."""
    centred = n - n.mean()
    spread = float(centred @ centred)
    step = float(centred @ (points - points.mean())) / spread if spread else 0.0
    return float(points.mean() - step * n.mean()), step


def _fitted_lattices(distinct: np.ndarray, least: float) -> Iterator[Lattice]:
    """Yield lattices through the sorted distinct values, the likeliest first."""
    ulp, points = largest_ulp(distinct), distinct.astype(np.float64)
    fit = fit_gaps(np.diff(points), ulp, least=max(least * (1 - 1e-9), (points[-1] - points[0]) / MAX_LEVELS))
    if fit is None:
        return
    gaps, error = fit
    n = np.concatenate([[0.0], gaps.cumsum()])
    fitted = Lattice(*_line(n, points))
    for step in _simple_numbers(fitted.step, error):
        if step >= least:
            rest = points - n * step
            yield from (Lattice(offset, step) for offset in _offsets(rest, step, ulp))
    if fitted.step >= least:
        yield fitted


def _power_of_two_lattices(distinct: np.ndarray, least: float) -> Iterator[Lattice]:
    """Yield the lattices that the trailing zero bits of the values give; always exact, often too fine."""
    step = power_of_two_step(distinct.astype(np.float64))
    if step >= least:
        yield Lattice(0.0, step)
        yield Lattice(float(distinct[0]), step)


def _offsets(rest: np.ndarray, step: float, ulp: float) -> Iterator[float]:
    """Yield likely offsets: a multiple of the step, the lowest value (a GRIB reference), a short decimal."""
    middle = float(rest.min() / 2 + rest.max() / 2)
    multiple = np.rint(middle / step)
    if abs(multiple * step - middle) <= ulp:
        yield 0.0
        yield float(multiple * step)
    yield float(rest[0])
    yield from _simple_numbers(middle, ulp)


def _simple_numbers(value: float, error: float) -> Iterator[float]:
    """Yield the power of two and the shortest decimal within `error` of `value`, then `value` itself."""
    if value > 0:
        power = float(2.0 ** np.rint(np.log2(value)))
        if abs(power - value) <= error:
            yield power
    for digits in range(17):
        decimal = float(f"{value:.{digits}e}")
        if abs(decimal - value) <= error:
            yield decimal
            break
    yield value


# --- the common step of gaps, each known to an ulp or two -----------------------------------------------------


def fit_gaps(gaps: np.ndarray, ulp: float, *, least: float) -> tuple[np.ndarray, float] | None:
    """Return how many common steps each gap holds, and how well the step is known; None if there is none.

    Euclid's algorithm on numbers with errors: assume the smallest gap is the step; while a gap is no
    multiple of it, the remainder is the next candidate.

    Parameters
    ----------
    gaps : ndarray, (n,), float64
        Differences of neighbouring distinct values, > 0, each wrong by at most 2 ulp.
    ulp : float
        Spacing of the dtype at the largest value.
    least : float
        Smallest step of interest.
    """
    ordered = np.sort(gaps)
    least = max(least, _CLEAR * ulp)
    step: float | None = float(ordered[0])
    for _ in range(_TRIES):
        if step is None or step < least - 2 * ulp:
            return None
        fitted, remainder = _refine(ordered, step, ulp)
        if fitted is not None:
            n = np.rint(gaps / fitted)
            return n, 2 * ulp / float(n.sum())
        step = remainder
    return None


def _refine(gaps: np.ndarray, step: float, ulp: float) -> tuple[float | None, float | None]:
    """Fit `step` to ever larger `gaps` (ascending); return it, or else a remainder, or neither if lost."""
    error, used = 2 * ulp, 0
    while True:
        reach = step * max(1.5, step / (4 * error))  # beyond, a gap's integer would be a guess
        near = gaps[: np.searchsorted(gaps, reach, side="right")]
        if near.size == used:
            return None, None
        used = near.size
        n = np.rint(near / step)
        rest = np.abs(near - n * step)
        off = rest > n * error + 2.1 * ulp
        if off.any():
            return None, float(rest[off].min())
        squares = float(n @ n)
        step, error = float(n @ near) / squares, 2 * ulp / squares**0.5
        if used == gaps.size:
            return step, None


def power_of_two_step(points: np.ndarray) -> float:
    """Return the largest power of two that divides all `points` (finite, float64, not all zero) exactly."""
    mantissa, exponent = np.frexp(points[points != 0])
    integers = np.ldexp(mantissa, 53).astype(np.int64)
    lowest = np.ldexp((integers & -integers).astype(np.float64), exponent - 53)
    return float(lowest.min())
