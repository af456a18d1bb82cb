"""Gains by wavelength, written from SPEC 6.9 alone: sums over sines and cosines, no transform, no hurry."""

import numpy as np


def equalised(x: np.ndarray, gains: list[float], periodic: bool) -> np.ndarray:
    """SPEC 6.9: a field (H, W) in steps with what the gains, in octaves, add to it."""
    width = x.shape[1]
    rows = x - x.mean(1, keepdims=True)
    if not periodic:
        rows = np.concatenate([rows, rows[:, ::-1]], 1)
    period = rows.shape[1]
    at = np.arange(period)
    added = np.zeros_like(rows)
    for k in range(period // 2 + 1):
        octaves = np.log2(period / max(k, 0.5))
        place = (octaves - 3) * 4  # 0 at 8 values, 1 at the first gain, 10 at 2**5.5
        if not 0 < place < 10:
            continue
        known = [0, *gains, 0]
        g = known[int(place)] + (place % 1) * (known[int(place) + 1] - known[int(place)])
        weight = (1 if k in (0, period / 2) else 2) / period
        for wave in (np.cos(2 * np.pi * k * at / period), np.sin(2 * np.pi * k * at / period)):
            added += (2**g - 1) * weight * np.outer(rows @ wave, wave)
    return x + added[:, :width]
