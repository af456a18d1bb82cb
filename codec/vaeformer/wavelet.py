"""The linear skip path: the 9/7 wavelet of Cohen, Daubechies and Feauveau by lifting, for any height and width.

Lifting after Daubechies and Sweldens (1998), edges by whole-sample symmetry, longitude periodic where the field is
and the width is even. One implementation serves numpy (integers in float64 for contexts, floats for values) and
torch (training): every step is one elementwise product and sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ALPHA, BETA, GAMMA, DELTA = -1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971
NORM = 1.149604398860241  # makes the basis nearly orthonormal
STOP = 3  # a side beyond which the low band is halved once more
MAX_LEVELS = 32


@dataclass(frozen=True)
class Level:
    """Shape (height, width) that a level splits, and whether its longitude is periodic there."""

    height: int
    width: int
    periodic: bool

    @property
    def low(self) -> tuple[int, int]:
        """Shape of the low band: what the next level splits."""
        return -(-self.height // 2), -(-self.width // 2)

    def band(self, index: int) -> tuple[int, int]:
        """Shape of detail band 0 (high in longitude), 1 (high in latitude) or 2 (high in both)."""
        (h, w), (hh, wh) = self.low, (self.height // 2, self.width // 2)
        return ((h, wh), (hh, w), (hh, wh))[index]


def levels(height: int, width: int, periodic: bool) -> tuple[Level, ...]:
    """Return the levels of a field, finest first: halvings until no side exceeds 3."""
    found: list[Level] = []
    while max(height, width) > STOP:
        found.append(Level(height, width, periodic and width % 2 == 0))
        height, width = found[-1].low
        periodic = found[-1].periodic
    return tuple(found)


def analyse(x: Any, level: Level) -> tuple[Any, tuple[Any, Any, Any]]:
    """Split fields (..., h, w) into (low, (high in longitude, high in latitude, high in both))."""
    low, high = _split(x, level.periodic)
    (ll, lh), (hl, hh) = (_split_rows(part) for part in (low, high))
    return ll, (hl, lh, hh)


def synthesise(low: Any, bands: tuple[Any, Any, Any], level: Level, *, whole: bool = False) -> Any:
    """Undo `analyse`; with `whole` every lifting step is rounded to integers, so that all machines agree."""
    hl, lh, hh = bands
    rows = _join_rows(low, lh, whole), _join_rows(hl, hh, whole)
    return _join(rows[0], rows[1], level.periodic, whole)


def _split_rows(x: Any) -> tuple[Any, Any]:
    low, high = _split(x.swapaxes(-1, -2), False)
    return low.swapaxes(-1, -2), high.swapaxes(-1, -2)


def _join_rows(low: Any, high: Any, whole: bool) -> Any:
    return _join(low.swapaxes(-1, -2), high.swapaxes(-1, -2), False, whole).swapaxes(-1, -2)


def _split(x: Any, periodic: bool) -> tuple[Any, Any]:
    if x.shape[-1] == 1:
        return x, x[..., :0]
    low, high = x[..., ::2], x[..., 1::2]
    high = high + ALPHA * _around_high(low, high, periodic)
    low = low + BETA * _around_low(low, high, periodic)
    high = high + GAMMA * _around_high(low, high, periodic)
    low = low + DELTA * _around_low(low, high, periodic)
    return low * NORM, high * (1 / NORM)


def _join(low: Any, high: Any, periodic: bool, whole: bool) -> Any:
    if not high.shape[-1]:
        return low
    low, high = _rounded(low * (1 / NORM), whole), _rounded(high * NORM, whole)
    low -= _rounded(_times(_around_low(low, high, periodic), DELTA), whole)
    high -= _rounded(_times(_around_high(low, high, periodic), GAMMA), whole)
    low -= _rounded(_times(_around_low(low, high, periodic), BETA), whole)
    high -= _rounded(_times(_around_high(low, high, periodic), ALPHA), whole)
    return _interleave(low, high)


def _times(x: Any, factor: float) -> Any:
    """Multiply `x`, which is nobody else's, in place."""
    x *= factor
    return x


def _rounded(x: Any, whole: bool) -> Any:
    """Round `x`, which is nobody else's, in place."""
    if whole:
        x += 0.5
        np.floor(x, out=x)
    return x


def _around_high(low: Any, high: Any, periodic: bool) -> Any:
    """Return for each odd sample the sum of its two even neighbours."""
    if low.shape[-1] > high.shape[-1]:
        return _sums(low)
    return _sums(low, after=low[..., :1] if periodic else low[..., -1:])


def _around_low(low: Any, high: Any, periodic: bool) -> Any:
    """Return for each even sample the sum of its two odd neighbours."""
    if low.shape[-1] > high.shape[-1]:
        return _sums(high, high[..., :1], high[..., -1:])
    return _sums(high, high[..., -1:] if periodic else high[..., :1])


def _sums(x: Any, before: Any = None, after: Any = None) -> Any:
    """Return the sums of neighbours of `x`, with one more sample before and after it if there are any."""
    edges = (before is not None, after is not None)
    if not isinstance(x, np.ndarray):
        import torch

        x = torch.cat([part for part in (before, x, after) if part is not None], -1)
        return x[..., :-1] + x[..., 1:]
    n = x.shape[-1] - 1
    out = np.empty_like(x, shape=(*x.shape[:-1], n + sum(edges)))
    np.add(x[..., :-1], x[..., 1:], out=out[..., edges[0] : edges[0] + n])
    if before is not None:
        np.add(before, x[..., :1], out=out[..., :1])
    if after is not None:
        np.add(x[..., -1:], after, out=out[..., -1:])
    return out


def _interleave(low: Any, high: Any) -> Any:
    n = low.shape[-1] + high.shape[-1]
    if isinstance(low, np.ndarray):
        out = np.empty_like(low, shape=(*low.shape[:-1], n))
    elif low.shape[-1] == high.shape[-1]:
        import torch

        return torch.stack((low, high), -1).flatten(-2)
    else:
        out = low.new_empty((*low.shape[:-1], n))
    out[..., ::2], out[..., 1::2] = low, high
    return out
