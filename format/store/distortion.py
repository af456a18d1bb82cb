"""Distortion: how far decoded values are from the source, measured again outside the codec."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from isopress.codec.limits import Target, exceeds, is_one_of
from isopress.format.settings import Promise

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Distortion:
    """Errors over a set of values, in the unit of the data; sets add up with `+`.

    `values` counts finite source values, `max_error` and `sum_squares` are over those. `violations`
    counts values beyond the bound, chunks beyond the RMSE that was their target, finite values that became NaN or
    inf and NaN or inf that did not come back. `low` and `high` are the
    range of the decoded finite values, but for those that stand for something else (inf, -inf when there are none).
    """

    values: int = 0
    max_error: float = 0.0
    sum_squares: float = 0.0
    violations: int = 0
    low: float = math.inf
    high: float = -math.inf

    @property
    def rmse(self) -> float:
        """Root of the mean squared error over finite values; 0 when there are none."""
        return math.sqrt(self.sum_squares / self.values) if self.values else 0.0

    def __add__(self, other: "Distortion") -> "Distortion":
        return Distortion(
            self.values + other.values,
            max(self.max_error, other.max_error),
            self.sum_squares + other.sum_squares,
            self.violations + other.violations,
            min(self.low, other.low),
            max(self.high, other.high),
        )


NO_VALUES = Distortion()


def measure(x: Array, x_hat: Array, promise: Promise) -> Distortion:
    """Return the distortion of decoded `x_hat` against `x`, and how often it breaks the promise.

    Parameters
    ----------
    x, x_hat : ndarray, equal shapes and dtypes, float32 or float64
        Source and decoded values.
    promise : Bound or Target
        What was promised. Mode range and targets are about single chunks, so pass one at a time then.
    """
    finite = np.isfinite(x)
    special_wrong = ~finite & ~((x == x_hat) | (np.isnan(x) & np.isnan(x_hat)))
    a, b = x[finite], x_hat[finite]
    if not a.size:
        return Distortion(violations=int(special_wrong.sum()))
    measured = np.True_ if not promise.exact else ~is_one_of(a, promise.exact)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(np.subtract(a, b, dtype=np.float64))
        sum_squares = float(np.dot(error, error))
        return Distortion(
            values=a.size,
            max_error=float(np.nan_to_num(error.max(), nan=np.inf)),
            sum_squares=sum_squares,
            violations=int(special_wrong.sum()) + _violations(a, b, promise, math.sqrt(sum_squares / a.size)),
            low=float(np.nanmin(b, initial=np.inf, where=measured)),
            high=float(np.nanmax(b, initial=-np.inf, where=measured)),
        )


def _violations(a: Array, b: Array, promise: Promise, rmse: float) -> int:
    """Return how often finite values `a`, decoded as `b`, break the promise."""
    if isinstance(promise, Target):
        lost = ~np.isfinite(b) | (is_one_of(a, promise.exact) & (a != b))
        return int(np.count_nonzero(lost)) + (not promise.allows(rmse))
    wrong = bits_differ(a, b) if promise.mode == "lossless" else exceeds(a, b, promise.tolerance(a))
    return int(np.count_nonzero(wrong | (is_one_of(a, promise.exact) & (a != b))))


def bits_differ(a: Array, b: Array) -> Array:
    """Return where two float arrays differ in any bit, the sign of zero included."""
    return np.asarray((a != b) | (np.signbit(a) != np.signbit(b)))
