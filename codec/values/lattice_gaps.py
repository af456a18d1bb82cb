"""The common step of a set of gaps between values, each known to an ulp or two. A leaf."""

import numpy as np

_CLEAR = 16  # a step must stand this many ulps clear of rounding to be told from noise
_TRIES = 32


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
