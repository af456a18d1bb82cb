"""Power of fields by wavelength: along longitude, and in both directions by the cosine transform.

The cosine transform (Denis, Cote and Laprise, 2002, "Spectral decomposition of two-dimensional atmospheric fields on
limited-area domains") needs no periodic field; its power is summed over ellipses of equal wavelength.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ALLOWED = 0.05  # of the power, at every wavelength
SHORTEST = 4.0  # grid cells: longer waves count
_BINS_PER_OCTAVE = 6  # waves are judged together in steps of 12 %
_POLAR = 60.0  # degrees: rows beyond are oversampled and left out


@dataclass(frozen=True)
class Spectrum:
    """Power by wavelength (grid cells), of the originals and of the decoded fields; longest wave first."""

    wavelengths: Array
    original: Array
    decoded: Array

    @property
    def ratio(self) -> Array:
        """Decoded over original power."""
        return np.asarray(self.decoded / np.maximum(self.original, np.finfo(float).tiny))

    @property
    def worst(self) -> float:
        """Largest departure of the ratio from 1 among waves longer than `SHORTEST`; 0 when there are none."""
        wrong = np.abs(self.ratio - 1)[(self.wavelengths >= SHORTEST) & (self.original > 0)]
        return float(wrong.max(initial=0.0))

    @property
    def kept_to(self) -> float:
        """The shortest wavelength to which all longer waves have their power; infinite if the longest has not."""
        wrong = np.flatnonzero((np.abs(self.ratio - 1) > ALLOWED) & (self.original > 0))
        right = int(wrong[0]) if wrong.size else len(self.ratio)
        return float(self.wavelengths[right - 1]) if right else float("inf")


def zonal(x: Array, periodic: bool, lat: Array | None) -> Array:
    """Return the power at the wavenumbers 1, 2, ... along the rows of a field, mean over rows."""
    rows = x if lat is None else x[np.abs(lat) <= _POLAR]
    rows = _filled(rows if len(rows) else x)
    if not periodic:
        rows = (rows - rows.mean(1, keepdims=True)) * np.hanning(rows.shape[1] + 2)[1:-1]
    return np.asarray((np.abs(np.fft.rfft(rows, axis=1)) ** 2).mean(0)[1:])


def zonal_wavelengths(columns: int) -> Array:
    """Return the wavelengths, in grid cells, of what `zonal` returns."""
    return columns / np.arange(1, columns // 2 + 1)


def cosine(x: Array) -> tuple[Array, Array]:
    """Return wavelengths, in grid cells, and the power of a field's cosine transform, longest wave first."""
    power = _cosine_transform(_filled(x)) ** 2
    rows, columns = x.shape
    number = np.hypot(np.arange(rows)[:, None] / rows, np.arange(columns)[None] / columns)  # 1 at two grid cells
    step = 1 / min(rows, columns)
    bins = np.rint(number / step).astype(int)
    summed = np.bincount(bins.ravel(), power.ravel())
    kept = np.arange(1, min(len(summed), min(rows, columns)))
    return 2 / (kept * step), summed[kept]


def binned(wavelengths: Array, original: Array, decoded: Array) -> Spectrum:
    """Return power summed over wavelengths that are nearly alike."""
    octave = np.floor(np.log2(wavelengths.max() / wavelengths) * _BINS_PER_OCTAVE + 1e-9).astype(int)
    present = np.unique(octave)
    sums = (np.bincount(octave, power)[present] for power in (original, decoded))
    shortest = np.array([wavelengths[octave == number].min() for number in present])
    return Spectrum(shortest, *sums)


def _filled(x: Array) -> Array:
    """Return the field with its mean in place of what is missing."""
    finite = np.isfinite(x)
    return np.where(finite, x, x[finite].mean() if finite.any() else 0.0).astype(np.float64)


def _cosine_transform(x: Array) -> Array:
    """Return the orthonormal cosine transform (DCT-II) along both axes, by Fourier transforms of mirrored rows."""
    for _ in range(2):
        size = x.shape[1]
        spectrum = np.fft.rfft(np.concatenate([x, x[:, ::-1]], axis=1), axis=1)[:, :size]
        turned = (spectrum * np.exp(-0.5j * np.pi * np.arange(size) / size)).real / np.sqrt(2 * size)
        turned[:, 0] /= np.sqrt(2)
        x = turned.T
    return x
