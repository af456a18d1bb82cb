"""Which step reaches a target: foretold from a sample of wavelet coefficients, then corrected by what was tried."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.latent.decorrelation import choose
from isopress.codec.latent.reduced_grid import levels

F64 = NDArray[np.float64]

WINDOW, WINDOWS = (768, 64), 8  # shape and number of the pieces of each field that a forecast looks at
KEPT = 2**15  # coefficients that a forecast keeps of a sample, at least, evenly spread by rank
LIKELY_STEP = 0.3  # standard deviations
DEAD = 0.76  # steps: coefficients below become zero, about (fitted to training fields, as the next two)
BITS_PER_SYMBOL = 4.5  # of a coefficient that does not, about, with what the zeros cost
KEPT_ERROR = 0.065  # squared steps of error of such a coefficient, about
TRUST = 0.94  # part of the forecast's error that is still there at the step that it leads to
FAR = 8.0  # a step, and what it brings, are never trusted to be farther off


@dataclass(frozen=True, eq=False)
class Forecast:
    """About what a step, in standard deviations, will bring: bits per value, or RMSE in standard deviations.

    magnitudes : of a sample's coefficients, largest first
    values : what is foretold if all from here on become zero; bits rise along it, errors fall
    """

    magnitudes: F64
    values: F64
    of_error: bool

    @classmethod
    def of(cls, fields: NDArray[np.floating], *, of_error: bool, mean: float = 0.0, deviation: float = 1.0) -> Forecast:
        """Look at some windows of fields (..., h, w) of this mean and deviation."""
        h, w = fields.shape[-2:]
        top, count, side = max(0, (h - WINDOW[0]) // 2), min(WINDOWS, -(-w // WINDOW[1])), min(WINDOW[1], w)
        sample = np.empty((*fields.shape[:-2], count, min(h, WINDOW[0]), side))
        for i in range(count):  # columns evenly spread
            left = min(max((2 * i + 1) * w // (2 * count) - side // 2, 0), w - side)
            sample[..., i, :, :] = fields[..., top : top + WINDOW[0], left : left + side]
        sample -= mean
        sample /= deviation
        rising = np.sort(_magnitudes(sample))
        n, every = rising.size, max(1, rising.size // KEPT)
        number, magnitudes = np.arange(0, n, every), rising[::-1][::every].copy()
        if not of_error:
            return cls(magnitudes, BITS_PER_SYMBOL * number / n, of_error)
        smaller = np.cumsum(np.square(rising))[::-1][::every]  # energy of this coefficient and all smaller ones
        error = smaller + number * np.square(magnitudes / DEAD) * KEPT_ERROR
        return cls(magnitudes, np.sqrt(np.minimum.accumulate(error) / n), of_error)

    def step(self, value: float) -> float:
        """Return the step at which `value` is foretold."""
        sign = -1 if self.of_error else 1
        at = int(np.searchsorted(sign * self.values, sign * value))
        return float(self.magnitudes[min(max(at, 1), self.magnitudes.size) - 1]) / DEAD

    def value(self, step: float) -> float:
        """Return what is foretold of a step."""
        at = int(np.searchsorted(-self.magnitudes, -step * DEAD))
        return float(self.values[min(max(at, 1), self.values.size - 1)])

    def corrected(self, step: float, value: float, goal: float) -> float:
        """Return the step for a goal, given the value that was found at a step."""
        foretold, change = self.value(step), goal / max(value, goal / FAR)
        before, after = self.step(foretold), self.step(foretold * change**TRUST)
        return step * min(max(after / before, 1 / FAR), FAR) if before > 0 else step


def _magnitudes(windows: F64) -> F64:
    """Return the magnitudes of all wavelet coefficients of windows (..., number, h, w) of fields, which are used up,
    after what the fields share in each window was transformed away."""
    if windows.shape[:-3]:
        for i in range(windows.shape[-3]):
            low = windows[..., i, :, :]
            for axis, mixing in enumerate(choose(low, LIKELY_STEP)):
                low = mixing.forward(low, axis)
            windows[..., i, :, :] = low
    found, low = list[F64](), windows
    for level in levels(low.shape[-2], low.shape[-1], periodic=False):
        low, details = level.analyse(low, used_up=True)
        for band in details:
            found.append(np.abs(band, out=band).ravel())
    found.append(np.abs(low).ravel())
    return np.concatenate(found)


def next_step(seen: list[tuple[float, float]], goal: float, forecast: Forecast) -> float:
    """Return the step to try: between two that enclose the goal, else as foretold, corrected by the nearest.

    seen : (step, value) of what was tried, steps in standard deviations
    """
    below = above = nearest = None
    least = math.inf
    for step, value in seen:
        if value > goal:
            above = (step, value) if above is None or value < above[1] else above
        else:
            below = (step, value) if below is None or value > below[1] else below
        distance = abs(math.log(max(value, goal / FAR) / goal))
        if distance < least:
            least, nearest = distance, (step, value)
    if below and above:
        (s0, v0), (s1, v1) = below, above
        v0 = max(v0, goal / FAR)
        part = math.log(goal / v0) / math.log(v1 / v0)
        return float(s0 * (s1 / s0) ** min(max(part, 0.05), 0.95))
    assert nearest is not None
    step, value = nearest
    following = forecast.corrected(step, value, goal)
    if math.isclose(following, step, rel_tol=1e-3):  # the sample holds nothing of that size
        following = step * (goal / max(value, goal / FAR)) ** (1.0 if forecast.of_error else -1.3)
    return following
