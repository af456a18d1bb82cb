"""Distortion: how far decoded values are from the original ones, the same on every machine."""

from __future__ import annotations

import math

import numpy as np

from isopress.codec.arrays import contiguous
from isopress.codec.native import values
from isopress.codec.native.dispatch import compiled


def measure(x: np.ndarray, x_hat: np.ndarray, unit: float | np.ndarray | None) -> tuple[float, float]:
    """Return the largest and the root mean square |x - x_hat|, in `unit` if given, over the finite values of `x`."""
    if unit is None and compiled() and x.dtype in (np.float32, np.float64):
        largest, count, squares = values.measure(contiguous(x), contiguous(x_hat))
    else:
        finite = np.isfinite(x)
        with np.errstate(invalid="ignore", over="ignore"):  # signalling NaN, and opposite ends of the range
            error = np.subtract(x, x_hat, dtype=np.float64, where=finite, out=np.zeros(x.shape))
        np.abs(error, out=error)
        if unit is not None:
            error /= unit
        largest, count = float(error.max()), int(finite.sum())
        squares = _squares(error, largest) if 0 < largest < math.inf else 0
    if not 0 < largest < math.inf:
        return largest, largest
    # Of whole numbers, and kept to binary32: the header too is the same on every machine.
    return largest, float(np.float32(math.sqrt(squares / 2**52 / max(1, count)))) * largest


def _squares(error: np.ndarray, largest: float) -> int:
    """Return the sum of squares of (error / largest) in 2**-52, each cut off; `error` is used up."""
    error /= largest  # squares must neither overflow nor vanish
    np.square(error, out=error)
    error *= 2.0**52
    whole = error.astype(np.int64)
    return (int((whole >> 26).sum()) << 26) + int((whole & (2**26 - 1)).sum())
