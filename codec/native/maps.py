"""Maps around latents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native.dispatch import kernels, level

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


def box(map_: F32, other: F32 | None, strips: I32, circle: bool) -> F32:
    """Return what `context_maps.box` makes of a padded map, or of the magnitudes of two added up."""
    out = np.empty_like(map_)
    kernels.box(level(), map_, other, map_.shape, strips, len(strips), circle, out)
    return out


def bends(low: F64, strips: I32, circle: bool, along: F32, across: F32) -> None:
    """Fill second differences of a low band along both axes into padded zeros."""
    kernels.bends(level(), low, low.shape, strips, len(strips), circle, along, across)


def rest(maps: tuple[F32 | None, ...]) -> tuple[F32, F32]:
    """Return the activity around every cell before its band, and its wide means.

    maps : bend, three smoothed parents, up to two earlier bands, the newest channel and the history, or None
    """
    assert maps[0] is not None
    found, far = np.empty_like(maps[0]), np.zeros_like(maps[0])
    kernels.rest(level(), found.shape, maps, found, far)
    return found, far


def upsample(map_: F32, shape: tuple[int, int], circle: bool) -> F32:
    """Return a padded map on the grid of the level above it, whose padded maps have this shape."""
    out = np.empty(shape, np.float32)
    kernels.upsample(level(), map_, map_.shape, circle, out, shape)
    return out


def enter(
    values: tuple[F32, I32], strips: I32, parity: tuple[int, int], circle: bool, own: F32, magnitude: F32
) -> None:
    """Enter means in units and symbols in steps (n,) of a phase into the maps of its band."""
    mean, symbols = values
    where = (*parity, circle)
    kernels.enter(level(), mean, symbols, mean.size, strips, len(strips), where, own, magnitude, own.shape)


def take(map_: F32, strips: I32, parity: tuple[int, int], n: int) -> F32:
    """Return the values of all `n` points of a phase of a band (h, w)."""
    out = np.empty(n, np.float32)
    kernels.take(level(), map_, map_.shape, strips, len(strips), *parity, out, n)
    return out
