"""Final values of integers, and how far they are from the original ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native.dispatch import kernels

I32 = NDArray[np.int32]


def keep(x: NDArray[np.floating[Any]], decoded: NDArray[np.floating[Any]], tolerance: float) -> bool:
    """Return whether decoded values surely keep a tolerance; of two contiguous arrays, float32 or float64 both.

    True: every value has the bits of the original, or stands for a finite one other than -0.0 and misses it by less.
    """
    return kernels.keep(x, decoded, x.dtype == np.float32, x.size, tolerance)


def measure(x: NDArray[np.floating[Any]], decoded: NDArray[np.floating[Any]]) -> tuple[float, int, int]:
    """Return the largest error over the finite values of `x`, their number, and the sum of squares of the errors over
    the largest, each cut off to 2**-52, in that unit."""
    largest, finite, high, low = kernels.measure(x, decoded, x.dtype == np.float32, x.size)
    return largest, finite, (high << 26) + low


def restore(v: I32, step: float, offset: float, out: NDArray[np.floating[Any]]) -> None:
    """Fill `out`, float32 or float64, with offset + v / 64 * step; it may be where `v` is. Both are contiguous."""
    kernels.restore(v, out.dtype == np.float32, v.size, step, offset, out)
