"""The linear skip path: the 9/7 wavelet of Cohen, Daubechies and Feauveau by lifting, for any height and width.

Lifting after Daubechies and Sweldens (1998), edges by whole-sample symmetry, longitude periodic where the field is
and the width is even. One implementation serves numpy (integers in float64 for contexts, floats for values) and
torch (training): every step is one elementwise product and sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ALPHA, BETA, GAMMA, DELTA = -1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971
NORM = 1.149604398860241  # makes the basis nearly orthonormal
STOP = 3  # a side beyond which the low band is halved once more
MAX_LEVELS = 32

Parts = list[Any]
Fit = Callable[[Any, int], Any]  # an edge (..., n, 1) of one part -> what it is beside a part of other width


@dataclass(frozen=True)
class Strip:
    """Rows start..stop of a map, in which each of `count` values stands for `stride` columns and lies in the first.

    The last one stands for as many as there are.
    """

    start: int
    stop: int
    count: int
    stride: int = 1

    def cells(self, values: Any) -> Any:
        """Return a view (..., rows, count) of an array (..., h, w)."""
        return values[..., self.start : self.stop, : self.count * self.stride : self.stride]

    def first(self, parity: int) -> int:
        """Return the first row of this parity, counted from `start`."""
        return (parity - self.start) % 2

    def fill(self, values: Any, cells: Any) -> None:
        """Write cells to all columns that they stand for."""
        target = values[..., self.start : self.stop, : self.count * self.stride]
        target[...] = cells if self.stride == 1 else cells.repeat(self.stride, -1)[..., : target.shape[-1]]


@dataclass(frozen=True)
class Level:
    """Shape (height, width) that a level splits, and whether its longitude is periodic there.

    depth : how many levels are finer
    """

    height: int
    width: int
    periodic: bool
    depth: int = 0

    @property
    def band_count(self) -> int:
        """Number of detail bands."""
        return 3

    @property
    def low(self) -> tuple[int, int]:
        """Shape of the low band: what the next level splits."""
        return -(-self.height // 2), -(-self.width // 2)

    def band(self, index: int) -> tuple[int, int]:
        """Shape of detail band 0 (high in longitude), 1 (high in latitude) or 2 (high in both)."""
        (h, w), (hh, wh) = self.low, (self.height // 2, self.width // 2)
        return ((h, wh), (hh, w), (hh, wh))[index]

    @property
    def low_strips(self) -> tuple[Strip, ...]:
        """Strips of the low band, from top to bottom."""
        return (Strip(0, *self.low),)

    def strips(self, index: int) -> tuple[Strip, ...]:
        """Strips of a detail band: where it has coefficients."""
        return (Strip(0, *self.band(index)),)

    def own(self, low: Any) -> Any:
        """Return, of the array that the level's synthesis takes, what is its low band."""
        return low

    def analyse(self, x: Any) -> tuple[Any, tuple[Any, ...]]:
        """Split fields (..., h, w) into (low, (high in longitude, high in latitude, high in both))."""
        low, high = split([x], self.periodic)
        (ll, lh), (hl, hh) = split_rows(low), split_rows(high)
        return ll[0], (hl[0], lh[0], hh[0])

    def synthesise(self, low: Any, bands: Sequence[Any], *, whole: bool = False) -> Any:
        """Undo `analyse`; with `whole` every lifting step is rounded to integers, so that all machines agree."""
        hl, lh, hh = bands
        rows = join_rows([low], [lh], whole), join_rows([hl], [hh], whole)
        return join(*rows, self.periodic, whole)[0]


def levels(height: int, width: int, periodic: bool) -> tuple[Level, ...]:
    """Return the levels of a field, finest first: halvings until no side exceeds 3."""
    found: list[Level] = []
    while max(height, width) > STOP:
        found.append(Level(height, width, periodic and width % 2 == 0, len(found)))
        height, width = found[-1].low
        periodic = found[-1].periodic
    return tuple(found)


def split_rows(parts: Parts, fit: Fit | None = None) -> tuple[Parts, Parts]:
    """Split parts (..., h, w) that lie below one another along latitude; return their low and high rows."""
    low, high = split([p.swapaxes(-1, -2) for p in parts], False, fit)
    return [p.swapaxes(-1, -2) for p in low], [p.swapaxes(-1, -2) for p in high]


def join_rows(low: Parts, high: Parts, whole: bool, fit: Fit | None = None) -> Parts:
    """Undo `split_rows`."""
    parts = [p.swapaxes(-1, -2) for p in low], [p.swapaxes(-1, -2) for p in high]
    return [p.swapaxes(-1, -2) for p in join(*parts, False, whole, fit)]


def split(parts: Parts, periodic: bool, fit: Fit | None = None) -> tuple[Parts, Parts]:
    """Split along the last axis; several parts follow one another along it, and `fit` makes the edge of one suit
    the next. All but the last have an even number of samples."""
    low, high = [p[..., ::2] for p in parts], [p[..., 1::2] for p in parts]
    if not high or not high[0].shape[-1]:
        return low, high
    high = [h + ALPHA * around for h, around in zip(high, _around_high(low, high, periodic, fit), strict=True)]
    low = [x + BETA * around for x, around in zip(low, _around_low(low, high, periodic, fit), strict=True)]
    high = [h + GAMMA * around for h, around in zip(high, _around_high(low, high, periodic, fit), strict=True)]
    low = [x + DELTA * around for x, around in zip(low, _around_low(low, high, periodic, fit), strict=True)]
    return [x * NORM for x in low], [h * (1 / NORM) for h in high]


def join(low: Parts, high: Parts, periodic: bool, whole: bool, fit: Fit | None = None) -> Parts:
    """Undo `split`."""
    if not high or not high[0].shape[-1]:
        return low
    low, high = [_rounded(x * (1 / NORM), whole) for x in low], [_rounded(h * NORM, whole) for h in high]
    for x, around in zip(low, _around_low(low, high, periodic, fit), strict=True):
        x -= _rounded(_times(around, DELTA), whole)
    for h, around in zip(high, _around_high(low, high, periodic, fit), strict=True):
        h -= _rounded(_times(around, GAMMA), whole)
    for x, around in zip(low, _around_low(low, high, periodic, fit), strict=True):
        x -= _rounded(_times(around, BETA), whole)
    for h, around in zip(high, _around_high(low, high, periodic, fit), strict=True):
        h -= _rounded(_times(around, ALPHA), whole)
    return [_interleave(x, h) for x, h in zip(low, high, strict=True)]


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


def _around_high(low: Parts, high: Parts, periodic: bool, fit: Fit | None) -> Parts:
    """Return for each odd sample the sum of its two even neighbours."""
    found = []
    for x, following in zip(low, [*low[1:], None], strict=True):
        if following is not None:
            assert fit is not None
            found.append(_sums(x, after=fit(following[..., :1], x.shape[-2])))
        elif x.shape[-1] > high[-1].shape[-1]:
            found.append(_sums(x))
        else:
            found.append(_sums(x, after=x[..., :1] if periodic else x[..., -1:]))
    return found


def _around_low(low: Parts, high: Parts, periodic: bool, fit: Fit | None) -> Parts:
    """Return for each even sample the sum of its two odd neighbours."""
    found = []
    for x, h, preceding in zip(low, high, [None, *high[:-1]], strict=True):
        longer = x.shape[-1] > h.shape[-1]
        if preceding is not None:
            assert fit is not None
            before = fit(preceding[..., -1:], h.shape[-2])
        else:
            before = h[..., -1:] if periodic and not longer else h[..., :1]
        if h.shape[-1]:
            found.append(_sums(h, before, h[..., -1:] if longer else None))
        else:
            found.append(before + before)
    return found


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
