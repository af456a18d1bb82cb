"""Gains by zonal wavelength that give decoded fields the power of the original.

Coefficients that became zero take power with them: at 200x a quarter of it at waves of ten cells. What was decoded is
right but too weak there, and a few gains put that right for next to no error. They are stored, and applied at the very
end: floats on top.
"""

from __future__ import annotations

import numpy as np
from numpy.fft import irfft, rfft  # loaded with this module: later it would be by whichever thread is first
from numpy.typing import NDArray

from isopress.codec.threads import share

F64 = NDArray[np.float64]
I8 = NDArray[np.int8]

KNOTS = 3.25 + 0.25 * np.arange(9)  # log2 of wavelengths in cells, 9.5 to 38
ROWS = 64  # that are transformed at a time
GAINS = len(KNOTS)  # one byte each
SPACING = 0.25  # beyond the first and last knot gains fall to 1 within as much
ONE_OCTAVE = 128  # of amplitude, in units of a stored gain
LEAST_WIDTH = 64  # of fields worth it
ENOUGH = 0.04  # part of the power at every knot that may be missing, or too much, without any gains,
REACHED = 0.08  # and with them
WANTED = (0.98, 1.02)  # part of the original power that gains aim at
MORE_ERROR = 0.15  # of the squared error at a knot's wavelengths: what its gain may cost,
MOST_ERROR = 0.04  # and of the whole squared error, what all of them may
EVEN = 0.05  # part of the power that single wavenumbers may be off
SHIFT = 8  # units that gains may move from what is right for the mean of their wavelengths, for single ones
WIDEST = 119  # units of a gain, before that: a stored one has a sign and seven bits


def find_gains(original: F64, decoded: F64, periodic: bool) -> I8 | None:
    """Return stored gains (9,) for decoded fields (..., h, w) in steps.

    None where there is power enough, and where too much is missing: what can only be mended in part, or at the cost of
    more error, is left as it is.
    """
    width = original.shape[-1]
    if width < LEAST_WIDTH:
        return None
    p, q, c = _powers(_judged(original, periodic), _judged(decoded, periodic), periodic)
    waves = _log_wavelengths(len(p), width, periodic)
    found = np.zeros(len(KNOTS), np.int8)
    candidates = np.arange(-WIDEST, WIDEST + 1)
    gain = np.exp2(candidates / ONE_OCTAVE)
    enough, reached = True, True
    for i, knot in enumerate(KNOTS):
        near = np.abs(waves - knot) < SPACING / 2
        power, kept, both = float(p[near].sum()), float(q[near].sum()), float(c[near].sum())
        if power <= 0 or kept <= 0:
            continue
        missed = np.abs(np.log(gain**2 * kept / power / np.clip(kept / power, *WANTED)))
        error = power - 2 * gain * both + gain**2 * kept
        dear = error > (1 + MORE_ERROR) * (power - 2 * both + kept)
        best = int(np.argmin(np.where(dear, np.inf, missed)))
        found[i] = candidates[best]
        enough &= abs(kept / power - 1) <= ENOUGH
        reached &= bool(abs(gain[best] ** 2 * kept / power - 1) <= REACHED)
    if enough or not reached:
        return None
    found = _evened(found, waves, p, q, c)
    return found if _more_error(_curve(found / ONE_OCTAVE, waves), p, q, c) <= MOST_ERROR else None


def _evened(gains: I8, waves: F64, p: F64, q: F64, c: F64) -> I8:
    """Return gains moved, one unit of one gain after another, while that brings the worst wavenumbers nearer to
    their power for less error than that is worth."""
    judged = (waves >= KNOTS[0]) & (waves < KNOTS[-1] + SPACING) & (p > 0)
    kept = q[judged] / p[judged]

    def cost(moved: I8) -> float:
        g = _curve(moved / ONE_OCTAVE, waves)
        uneven = np.maximum(np.abs(g[judged] ** 2 * kept - 1) - EVEN, 0)
        return float((uneven**8).sum() ** 0.125) + _more_error(g, p, q, c)  # nearly the largest, but not only that one

    found, lowest = gains, cost(gains)
    steps = np.concatenate([np.eye(len(KNOTS), dtype=np.int8), -np.eye(len(KNOTS), dtype=np.int8)])
    while True:
        tried = [moved for moved in found + steps if np.abs(moved - gains).max() <= SHIFT]
        costs = [cost(moved) for moved in tried]
        best = int(np.argmin(costs))
        if costs[best] >= lowest:
            return found
        found, lowest = tried[best], costs[best]


def _more_error(g: F64, p: F64, q: F64, c: F64) -> float:
    """Return the part of the whole squared error that gains `g` by wavenumber add to it."""
    error = float((p - 2 * c + q).sum())
    return float((2 * (1 - g) * c + (g**2 - 1) * q).sum()) / error if error > 0 else 0.0


def equalise(fields: F64, gains: F64, periodic: bool) -> None:
    """Apply gains (9,), in octaves, to decoded fields (..., h, w) in steps, in place."""
    width = fields.shape[-1]
    count = (width if periodic else 2 * width) // 2 + 1
    extra = (_curve(gains, _log_wavelengths(count, width, periodic)) - 1).astype(np.float32)

    def raise_power(rows: F64) -> None:
        spectrum = _spectrum(rows, periodic)
        spectrum *= extra
        change = irfft(spectrum, n=width if periodic else 2 * width)
        rows += change[:, :width]

    for field in fields.reshape(-1, *fields.shape[-2:]):
        share(raise_power, _by_rows(field))


def _by_rows(field: F64) -> list[F64]:
    """Return views of some rows (ROWS, w) of a field each."""
    return [field[start : start + ROWS] for start in range(0, len(field), ROWS)]


def _judged(fields: F64, periodic: bool) -> F64:
    """Return the rows that count: around the globe, those far from the poles, where cells are not too narrow."""
    height = fields.shape[-2]
    return fields[..., height // 6 : height - height // 6, :] if periodic else fields


def _spectrum(field: F64, periodic: bool) -> NDArray[np.complex64]:
    """Return the Fourier transform of the rows (h, w); those with ends are mirrored there."""
    rows = field.astype(np.float32)
    return rfft(rows if periodic else np.concatenate([rows, rows[:, ::-1]], -1)).astype(np.complex64, copy=False)


def _log_wavelengths(count: int, width: int, periodic: bool) -> F64:
    """Return log2 of the wavelength in cells of `count` wavenumbers from 0; infinity is put at twice the longest."""
    return np.asarray(np.log2((width if periodic else 2 * width) / np.maximum(np.arange(count), 0.5)))


def _curve(gains: F64, waves: F64) -> F64:
    """Return the gains (9,), in octaves, interpolated to wavelengths, linear in both logarithms."""
    knots = np.concatenate([[KNOTS[0] - SPACING], KNOTS, [KNOTS[-1] + SPACING]])
    return np.asarray(np.exp2(np.interp(waves, knots, np.concatenate([[0], gains, [0]]))))


def _powers(original: F64, decoded: F64, periodic: bool) -> tuple[F64, F64, F64]:
    """Return by wavenumber, summed over rows: power of original and decoded fields, and what they have in common."""
    shape, total = (-1, *original.shape[-2:]), np.zeros(())

    def powers(rows: tuple[F64, F64]) -> F64:
        a, b = _spectrum(rows[0], periodic), _spectrum(rows[1], periodic)
        products = np.abs(a) ** 2, np.abs(b) ** 2, (a * b.conj()).real
        return np.stack([product.sum(0, dtype=np.float64) for product in products])

    for field, other in zip(original.reshape(shape), decoded.reshape(shape), strict=True):
        for found in share(powers, list(zip(_by_rows(field), _by_rows(other), strict=True))):
            total = total + found
    p, q, c = total
    return p, q, c
