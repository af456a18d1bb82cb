"""Smooth values for the points that do not matter, so that they do not spoil the prediction of those that do."""

import numpy as np


def fill_smoothly(y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return `y` with each invalid point replaced by the mean of the valid points around it.

    Means of 2 x 2 blocks are taken of valid points only, level by level, until every block has one (push);
    on the way back each invalid point takes the value of its block (pull). A field without a valid point
    becomes 0.

    Parameters
    ----------
    y : ndarray, (B, H, W), float64
    valid : ndarray, (B, H, W), bool
    """
    if valid.all():
        return y
    if y.shape[1:] == (1, 1):
        return np.where(valid, y, 0.0)
    weight = _blocks(valid)
    mean = _blocks(np.where(valid, y, 0.0)) / np.maximum(weight, 1)
    coarse = fill_smoothly(mean, weight > 0)
    around = coarse.repeat(2, axis=1).repeat(2, axis=2)[:, : y.shape[1], : y.shape[2]]
    return np.where(valid, y, around)


def _blocks(a: np.ndarray) -> np.ndarray:
    """Sums of 2 x 2 blocks, (B, ceil(H / 2), ceil(W / 2)), float64; beyond the edge there is nothing."""
    rows = np.add.reduceat(a, np.arange(0, a.shape[1], 2), axis=1, dtype=np.float64)
    return np.add.reduceat(rows, np.arange(0, a.shape[2], 2), axis=2)
