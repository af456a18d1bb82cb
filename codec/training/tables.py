"""How the tables of symbols were made: discretised logistic mixtures, whole numbers that the format keeps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.geometry import ROUGHNESS_FLOOR
from isopress.codec.entropy.distributions import ONE
from isopress.codec.entropy.tables import FIRST_SCALE, SCALES
from isopress.codec.training.pyramid_pool import LOGISTIC, TAIL_SPREAD, TAIL_WEIGHTS, logistic_mass
from isopress.codec.values.quantiser import UNITS

SUPPORT_MAX = 500


def logistic_tables() -> NDArray[np.uint32]:
    """Return the frequencies of magnitudes in all tables, as `entropy.tables.frequencies` describes them."""
    sigma = ROUGHNESS_FLOOR / UNITS * np.exp2((np.arange(SCALES) + FIRST_SCALE) / 8)
    reach = np.clip(np.ceil(8 * TAIL_SPREAD * LOGISTIC * sigma), 2, SUPPORT_MAX).astype(int)
    frequencies = np.zeros((len(TAIL_WEIGHTS), SCALES, reach.max() + 1), np.uint32)
    for rows, weight in zip(frequencies, TAIL_WEIGHTS, strict=True):
        for row, s, a in zip(rows, sigma, reach.tolist(), strict=True):
            k = np.arange(a + 1.0)
            mass = (1 - weight) * logistic_mass(k, s) + weight * logistic_mass(k, s * TAIL_SPREAD)
            mass[a] += (1 - mass[0] - 2 * mass[1:].sum()) / 2  # "at least"
            row[: a + 1] = np.maximum(np.rint(mass * ONE), 1)
            row[0] = ONE - 2 * row[1:].sum(dtype=np.int64)
    return frequencies.reshape(-1, frequencies.shape[-1])
