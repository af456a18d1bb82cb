"""Symbol tables: discretised logistic mixtures, computed once at training time and stored with the weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.geometry import ROUGHNESS_FLOOR
from isopress.codec.entropy.coder import FIRST_SCALE, SCALES, TAILS
from isopress.codec.training.pyramid_pool import LOGISTIC, TAIL_SPREAD, TAIL_WEIGHTS, logistic_mass
from isopress.codec.values.quantiser import UNITS


def logistic_tables(most: int = 500) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return (frequencies, support) of all tables, as entropy.Tables describes them; supports of at most `most`."""
    sigma = ROUGHNESS_FLOOR / UNITS * np.exp2((np.arange(SCALES) + FIRST_SCALE) / 8)
    reach = np.clip(np.ceil(8 * TAIL_SPREAD * LOGISTIC * sigma), 2, most).astype(np.int32)
    top = int(reach.max())
    a = np.arange(-top, top + 1.0)
    frequencies = np.zeros((TAILS, SCALES, a.size))
    for t, weight in enumerate(TAIL_WEIGHTS):
        for i, s in enumerate(sigma):
            inside = np.abs(a) <= reach[i]
            mass = (1 - weight) * logistic_mass(a, s) + weight * logistic_mass(a, s * TAIL_SPREAD)
            mass[~inside] = 0
            mass[np.abs(a) == reach[i]] += (1 - mass.sum()) / 2
            frequencies[t, i, inside] = np.maximum(mass[inside], 1e-9)
    frequencies /= frequencies.sum(-1, keepdims=True)
    return frequencies.reshape(TAILS * SCALES, -1).astype(np.float32), np.tile(reach, TAILS)
