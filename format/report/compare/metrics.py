"""Figures of merit of decoded fields against their originals; those of several fields add up.

DSSIM is the structural similarity of Baker, Pinard and Hammerling (2023, "On a structural similarity index approach for
floating-point data"): both fields scaled to 0..1 by their common range and rounded to 256 levels, Gaussian windows of
11 x 11 values, constants of 1e-8. Windows with missing values are left out.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

HISTOGRAM_BINS = 81  # of the error, over -1.1 to 1.1 of the bound or of the largest error
_POOLED = 2**20  # values of all fields together that the distributions are compared by
_WINDOW, _SIGMA, _STABLE = 11, 1.5, 1e-8  # of DSSIM
_LEVELS = 255


@dataclass(frozen=True)
class Worst:
    """The largest error: which field, row and column, and both values."""

    field: int
    row: int
    column: int
    original: float
    decoded: float

    @property
    def error(self) -> float:
        """Decoded minus original."""
        return self.decoded - self.original


@dataclass
class Merit:
    """Sums over fields; figures are over finite values, weighted by latitude where that is said."""

    scale: float  # of the histogram: the bound, or what the first field misses at most
    values: int = 0
    weight: float = 0.0
    weighted_error: float = 0.0
    weighted_squares: float = 0.0
    moments: Array = field(default_factory=lambda: np.zeros(5))  # sums of x, y, xx, yy, xy after a shift
    shift: float | None = None
    low: float = math.inf
    high: float = -math.inf
    worst: Worst | None = None
    similarities: list[float] = field(default_factory=list)
    histogram: Array = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    row_squares: Array | None = None
    row_values: Array | None = None
    row_max: Array | None = None
    pooled: tuple[list[Array], list[Array]] = field(default_factory=lambda: ([], []))
    lost: int = 0  # values that are missing on one side only

    def add(self, number: int, x: Array, y: Array, weights: Array, stride: int) -> None:
        """Take in field `number`, (rows, columns): original `x`, decoded `y`; `weights` are of rows, (rows, 1)."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        finite = np.isfinite(x) & np.isfinite(y)
        self.lost += int(np.count_nonzero(np.isfinite(x) != np.isfinite(y)))
        if not finite.any():
            return
        error = np.where(finite, y - x, 0.0)
        self._add_errors(error, finite, np.broadcast_to(weights, x.shape))
        self._add_moments(x[finite], y[finite])
        at = np.unravel_index(int(np.argmax(np.abs(error))), error.shape)
        if self.worst is None or abs(error[at]) > abs(self.worst.error):
            self.worst = Worst(number, int(at[0]), int(at[1]), float(x[at]), float(y[at]))
        self._add_rows(error, finite)
        edges = np.linspace(-1.1, 1.1, HISTOGRAM_BINS + 1) * self.scale
        self.histogram += np.histogram(error[finite], edges)[0]
        self.similarities.append(dssim(x, y))
        for values, pool in zip((x[finite], y[finite]), self.pooled, strict=True):
            pool.append(values[::stride].astype(np.float32))

    def _add_errors(self, error: Array, finite: Array, weights: Array) -> None:
        self.values += int(np.count_nonzero(finite))
        self.weight += float(weights[finite].sum())
        self.weighted_error += float((weights * error).sum())
        self.weighted_squares += float((weights * error**2).sum())

    def _add_moments(self, x: Array, y: Array) -> None:
        self.shift = float(x.mean()) if self.shift is None else self.shift
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        a, b = x - self.shift, y - self.shift
        self.moments = self.moments + np.array([a.sum(), b.sum(), a @ a, b @ b, a @ b])

    def _add_rows(self, error: Array, finite: Array) -> None:
        squares, counts, largest = (error**2).sum(1), finite.sum(1), np.abs(error).max(1)
        if self.row_squares is None or self.row_values is None or self.row_max is None:
            self.row_squares, self.row_values, self.row_max = squares, counts, largest
        else:
            self.row_squares, self.row_values = self.row_squares + squares, self.row_values + counts
            self.row_max = np.maximum(self.row_max, largest)

    @property
    def max_error(self) -> float:
        """Largest absolute error."""
        return abs(self.worst.error) if self.worst else 0.0

    @property
    def rmse(self) -> float:
        """Root mean square error, weighted by latitude."""
        return math.sqrt(self.weighted_squares / self.weight) if self.weight else 0.0

    @property
    def bias(self) -> float:
        """Mean error, weighted by latitude."""
        return self.weighted_error / self.weight if self.weight else 0.0

    @property
    def pearson(self) -> float:
        """Correlation; 1 for constant fields that came back as they were."""
        sx, sy, sxx, syy, sxy = self.moments / max(self.values, 1)
        variances = (sxx - sx**2) * (syy - sy**2)
        if variances <= 0:
            return 1.0 if self.max_error == 0 else 0.0
        return float(min(1.0, (sxy - sx * sy) / math.sqrt(variances)))

    @property
    def psnr(self) -> float:
        """Peak signal to noise ratio in dB: the range of the originals over the RMSE; infinite without an error."""
        return 20 * math.log10((self.high - self.low) / self.rmse) if self.rmse and self.high > self.low else math.inf

    @property
    def dssim(self) -> float:
        """Least structural similarity of a field."""
        return min(self.similarities, default=1.0)

    @property
    def row_rmse(self) -> Array:
        """Root mean square error of each row; NaN where all is missing."""
        if self.row_squares is None or self.row_values is None:
            return np.zeros(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt(self.row_squares / self.row_values))

    def kolmogorov_smirnov(self) -> tuple[float, float]:
        """Return the largest distance between the distributions, and its p-value (Smirnov's asymptotic formula)."""
        if not self.pooled[0]:
            return 0.0, 1.0
        a, b = (np.sort(np.concatenate(pool)) for pool in self.pooled)
        both = np.concatenate([a, b])
        distance = float(np.abs(np.searchsorted(a, both, "right") - np.searchsorted(b, both, "right")).max()) / a.size
        z = distance * math.sqrt(a.size / 2)
        if z < 0.2:
            return distance, 1.0
        terms = (2 * (-1) ** (k - 1) * math.exp(-2 * (k * z) ** 2) for k in range(1, 101))
        return distance, float(min(1.0, max(0.0, sum(terms))))


def stride_for(values: int) -> int:
    """Return which values of all fields together are pooled: every one, every second, ..."""
    return max(1, -(-values // _POOLED))


def dssim(x: Array, y: Array) -> float:
    """Return the structural similarity of two fields, (rows, columns); 1 where they are smaller than a window."""
    finite = np.isfinite(x) & np.isfinite(y)
    if min(x.shape) < _WINDOW or not finite.any():
        return 1.0
    low = min(x[finite].min(), y[finite].min())
    span = max(x[finite].max(), y[finite].max()) - low
    if span == 0:
        return 1.0
    a, b = (np.where(finite, np.round((values - low) / span * _LEVELS) / _LEVELS, 0.0) for values in (x, y))
    complete = _blurred(finite.astype(float)) > 1 - 1e-9
    if not complete.any():
        return 1.0
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b, cov = (
        _blurred(p * q) - m * n
        for p, q, m, n in ((a, a, mean_a, mean_a), (b, b, mean_b, mean_b), (a, b, mean_a, mean_b))
    )
    similarity = (2 * mean_a * mean_b + _STABLE) * (2 * cov + _STABLE)
    similarity /= (mean_a**2 + mean_b**2 + _STABLE) * (var_a + var_b + _STABLE)
    return float(similarity[complete].mean())


def _blurred(x: Array) -> Array:
    """Return Gaussian means of all windows that lie inside the field."""
    taps = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _SIGMA) ** 2)
    taps /= taps.sum()
    rows, columns = (size - _WINDOW + 1 for size in x.shape)
    down = sum(tap * x[k : k + rows] for k, tap in enumerate(taps))
    return np.asarray(sum(tap * down[:, k : k + columns] for k, tap in enumerate(taps)))
