"""The wavelet of latents: one lifting step, and whole levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native.dispatch import kernels, level

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]


def lift(
    target: F64, near: F64, ends: tuple[F64 | None, F64 | None], factor: float, *, whole: bool, minus: bool
) -> None:
    """Add to samples (lines, count), in place, what `factor` makes of two neighbours each; wavelet.h says which.

    target, near : both C-contiguous, or both of them transposed; ends : (lines, 1) before and after `near`
    """
    across, (lines, count) = not (target.flags.c_contiguous and near.flags.c_contiguous), target.shape
    shape = lines, count, near.size // lines
    if across:
        target, near = target.T, near.T
    before, after = (None if end is None else np.ascontiguousarray(end[:, 0]) for end in ends)
    kernels.lift(level(), target, near, before, after, shape, across, whole, minus, factor)


def analyse(
    x: F64, zones: I32, circle: bool, dtype: type[np.floating[Any]]
) -> tuple[F64, tuple[NDArray[np.floating[Any]], ...]]:
    """Return the low band of fields (..., h, w), which are used up, and three details of this dtype.

    wavelet.h says how.

    zones : (n, 6) int32, start, stop, count, stride, and whether split and closed in longitude
    """
    (h, w), leading, single = x.shape[-2:], x.shape[:-2], dtype == np.float32
    low = np.zeros((*leading, -(-h // 2), -(-w // 2)))
    details = list[NDArray[np.floating[Any]]]()
    for shape in ((-(-h // 2), w // 2), (h // 2, -(-w // 2)), (h // 2, w // 2)):
        details.append(np.zeros((*leading, *shape), np.float32 if single else np.float64))
    how = circle, single, False
    for at in np.ndindex(leading):
        parts = tuple(band[at] for band in details)
        kernels.wavelet(level(), False, x[at], (h, w), zones, len(zones), how, low[at], parts)
    return low, tuple(details)


def synthesise(
    low: F64,
    details: Sequence[NDArray[np.floating[Any]]],
    zones: I32,
    shape: tuple[int, int],
    circle: bool,
    whole: bool,
) -> F64:
    """Undo `analyse`, with `whole` in integers."""
    single = all(band.dtype == np.float32 for band in details)
    low, out = np.ascontiguousarray(low, np.float64), np.empty((*low.shape[:-2], *shape))
    parts = tuple(np.ascontiguousarray(band, np.float32 if single else np.float64) for band in details)
    how = circle, single, whole
    for at in np.ndindex(low.shape[:-2]):
        bands = tuple(band[at] for band in parts)
        kernels.wavelet(level(), True, out[at], shape, zones, len(zones), how, low[at], bands)
    return out
