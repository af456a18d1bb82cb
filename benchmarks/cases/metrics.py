"""Error and size measures of the benchmarks: pure functions of arrays and numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Distortion:
    """Largest and root-mean-square error over the finite values, in the unit of the data."""

    max_error: float
    rmse: float


def distortion(x: np.ndarray, x_hat: np.ndarray) -> Distortion:
    """Return the errors of `x_hat`, computed in float64; infinite if a non-finite value is not restored.

    Parameters
    ----------
    x, x_hat : ndarray, any shape, float32 or float64
        Original and decoded values in one physical unit and one dtype.

    Raises
    ------
    ValueError
        Shapes or dtypes differ.
    """
    if x.shape != x_hat.shape or x.dtype != x_hat.dtype:
        raise ValueError(f"decoded {x_hat.dtype} {x_hat.shape} is not the original's {x.dtype} {x.shape}")
    finite = np.isfinite(x)
    if not np.array_equal(x[~finite], x_hat[~finite], equal_nan=True):
        return Distortion(math.inf, math.inf)
    error = np.abs(x[finite].astype(np.float64) - x_hat[finite])
    if not error.size:
        return Distortion(0.0, 0.0)
    if not np.isfinite(error).all():
        return Distortion(math.inf, math.inf)
    return Distortion(float(error.max()), math.sqrt(float(np.mean(error * error))))


def value_range(x: np.ndarray) -> float:
    """Return max - min of the finite values in float64; 0 when there are none."""
    finite = x[np.isfinite(x)]
    return float(finite.max()) - float(finite.min()) if finite.size else 0.0


def standard_deviation(x: np.ndarray) -> float:
    """Return the standard deviation of the finite values, computed in float64; 0 when there are none."""
    finite = x[np.isfinite(x)]
    return float(np.std(finite, dtype=np.float64)) if finite.size else 0.0


def bits_per_value(n_bytes: int, n_values: int) -> float:
    """Return the rate: 8 * `n_bytes` / `n_values`."""
    return 8 * n_bytes / n_values


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of positive numbers; NaN when there are none."""
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan
