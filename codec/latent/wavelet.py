"""The linear path: the 9/7 wavelet of Cohen, Daubechies and Feauveau by lifting, for any height and width.

Lifting after Daubechies and Sweldens (1998), edges by whole-sample symmetry. Rows of one length are a *part*; parts
that lie below one another meet in lifting along latitude, where the edge of one is fitted to the length of the other:
every lifting step stays invertible, whatever is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native import wavelet
from isopress.codec.native.dispatch import compiled

F64 = NDArray[np.float64]
AnyFloat = NDArray[np.floating[Any]]
Parts = list[F64]

FACTORS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)  # of odd, even, odd, even
NORM = 1.149604398860241  # makes the basis nearly orthonormal
HALF_ROOT, QUARTER_ROOT = sqrt(2) / 2, sqrt(2) / 4
LATITUDE, LONGITUDE = -2, -1


def split(parts: Sequence[F64], axis: int, periodic: bool) -> tuple[Parts, Parts]:
    """Return low and high parts of parts (..., h, w) along an axis; all but the last have an even number of samples.

    Along longitude there is one part, which closes on itself if `periodic`; along latitude that is a property of rows.
    """
    low, high = Parts(), Parts()
    for part in parts:
        along = part.swapaxes(axis, -1)
        low.append(along[..., ::2].copy(order="K"))
        high.append(along[..., 1::2].copy(order="K"))
    if high and high[0].shape[-1]:
        for step, factor in enumerate(FACTORS):
            for target, beside in zip((high, low)[step % 2], _neighbours(low, high, step, axis, periodic), strict=True):
                _lift(target, beside, factor)
        for x, y in zip(low, high, strict=True):
            x *= NORM
            y *= 1 / NORM
    for i, (x, y) in enumerate(zip(low, high, strict=True)):
        low[i], high[i] = x.swapaxes(axis, -1), y.swapaxes(axis, -1)
    return low, high


def join(
    low: Sequence[AnyFloat],
    high: Sequence[AnyFloat],
    axis: int,
    periodic: bool,
    whole: bool,
    *,
    used_up: bool = False,
) -> Parts:
    """Undo `split`; with `whole` every lifting step is rounded to integers, so that all machines agree.

    used_up : whether it is done where `low` and `high` lie
    """
    if not high or not high[0].shape[axis]:
        return [part.astype(np.float64, copy=not used_up) for part in low]
    even, odd = Parts(), Parts()
    for x, y in zip(low, high, strict=True):
        even.append(_scaled(x.swapaxes(axis, -1), 1 / NORM, whole, used_up))
        odd.append(_scaled(y.swapaxes(axis, -1), NORM, whole, used_up))
    for step in (3, 2, 1, 0):
        for target, beside in zip((odd, even)[step % 2], _neighbours(even, odd, step, axis, periodic), strict=True):
            _lift(target, beside, FACTORS[step], whole=whole, minus=True)
    joined = Parts()
    for x, y in zip(even, odd, strict=True):
        both = np.empty_like(x, shape=(*x.shape[:-1], x.shape[-1] + y.shape[-1]))
        both[..., ::2], both[..., 1::2] = x, y
        joined.append(both.swapaxes(axis, -1))
    return joined


def _scaled(x: AnyFloat, factor: float, whole: bool, used_up: bool) -> F64:
    in_place = x if used_up and x.dtype == np.float64 and x.flags.writeable else None
    return _rounded(np.multiply(x, factor, out=in_place, dtype=np.float64), whole)


def _rounded(x: F64, whole: bool) -> F64:
    """Round `x`, which is nobody else's, in place."""
    return np.floor(np.add(x, 0.5, out=x), out=x) if whole else x


Neighbours = tuple[F64 | None, F64, F64 | None]  # (..., 1) before and after (..., n), if there are any


def _neighbours(low: Parts, high: Parts, step: int, axis: int, periodic: bool) -> list[Neighbours]:
    """Return, per part, the neighbours of its odd samples (steps 0 and 2) or of its even ones: each has two, one after
    another."""
    found, circle = list[Neighbours](), periodic and axis == LONGITUDE
    for i, (x, y) in enumerate(zip(low, high, strict=True)):
        longer = x.shape[-1] > y.shape[-1]
        before = after = None
        if step % 2 == 0:
            if i + 1 < len(low):
                after = fitted(low[i + 1][..., 0], x.shape[-2], periodic)[..., None]
            elif not longer:
                after = x[..., :1] if circle else x[..., -1:]
            found.append((None, x, after))
            continue
        if i:
            before = fitted(high[i - 1][..., -1], y.shape[-2], periodic)[..., None]
        else:
            before = y[..., -1:] if circle and not longer else y[..., :1]
        if longer:
            after = y[..., -1:] if y.shape[-1] else before
        found.append((before, y, after))
    return found


def _lift(target: F64, beside: Neighbours, factor: float, *, whole: bool = False, minus: bool = False) -> None:
    """Add to `target`, in place, the sums of its neighbours times `factor`, or take them off, rounded if `whole`."""
    before, near, after = beside
    if not target.size:
        return
    if compiled() and _alike(target, near):
        wavelet.lift(target, near, (before, after), factor, whole=whole, minus=minus)
        return
    n, start = near.shape[-1] - 1, int(before is not None)
    if n < 0:
        assert before is not None
        sums = before + before
    else:
        sums = np.empty_like(near, shape=target.shape)
        np.add(near[..., :-1], near[..., 1:], out=sums[..., start : start + n])
        if before is not None:
            np.add(before, near[..., :1], out=sums[..., :1])
        if after is not None:
            np.add(near[..., -1:], after, out=sums[..., -1:])
    sums *= factor
    _rounded(sums, whole)
    if minus:
        target -= sums
    else:
        target += sums


def _alike(target: F64, near: F64) -> bool:
    """Whether both are (lines, samples) that lie in memory in the same order, without gaps."""
    flags = target.flags, near.flags
    return target.ndim == 2 and (all(f.c_contiguous for f in flags) or all(f.f_contiguous for f in flags))


def fitted(row: F64, width: int, periodic: bool) -> F64:
    """Return a row (..., n) as one of another width: smoothed by 1 2 1 and thinned out, or with means in between.

    Magnitudes change by the square root of 2 with every halving, as those of low bands do.
    """
    finer, edges = [width], [(0, 0)] * (row.ndim - 1) + [(1, 1)]
    while row.shape[-1] > width:
        x = np.pad(row, edges, "wrap" if periodic and row.shape[-1] % 2 == 0 else "edge")
        row = ((x[..., :-2] + x[..., 2:]) + (row + row))[..., ::2] * QUARTER_ROOT
    while finer[-1] > row.shape[-1]:
        finer.append(-(-finer[-1] // 2))
    for size in finer[-2::-1]:
        out = np.empty((*row.shape[:-1], size))
        x = np.pad(row, edges, "wrap" if periodic and size % 2 == 0 else "edge")
        out[..., ::2] = row * HALF_ROOT
        out[..., 1::2] = ((row + x[..., 2:]) * (HALF_ROOT / 2))[..., : size // 2]
        row = out
    return row
