"""What the channels of a model are: names, levels, and the mean and deviation that they are normalised with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.errors import ArgumentError

F32 = NDArray[np.float32]
Name = tuple[str, float | None]  # of a variable, and its level if it has any

ANY: Name = ("*", None)  # of weights for fields of every variable, with mean 0 and deviation 1

# Levels of ERA5 in hPa, and the channels of CRA5 in its order.
ERA5_LEVELS = (
    *(1000, 975, 950, 925, 900, 875, 850, 825, 800, 775, 750, 700, 650, 600, 550, 500, 450, 400, 350, 300, 250, 225),
    *(200, 175, 150, 125, 100, 70, 50, 30, 20, 10, 7, 5, 3, 2, 1),
)
CRA5_CHANNELS: tuple[Name, ...] = (
    *((name, level) for name in ("z", "q", "u", "v", "t", "r", "w") for level in ERA5_LEVELS),
    *((name, None) for name in ("v10", "u10", "v100", "u100", "t2m", "tcc", "sp", "tp", "msl")),
)


@dataclass(frozen=True, eq=False)
class Channels:
    """Names of the channels, (variable, level or None) each, and what normalises them, (C,) each."""

    names: tuple[Name, ...]
    mean: F32
    deviation: F32

    @property
    def labels(self) -> tuple[str, ...]:
        """What a channel is called in one word: `t850`, `t2m`."""
        return tuple(name if level is None else f"{name}{level:g}" for name, level in self.names)

    def fit(self) -> bool:
        """Return whether means are finite, and deviations positive too."""
        finite = np.isfinite(self.mean).all() and np.isfinite(self.deviation).all()
        return bool(finite and (self.deviation > 0).all())

    @property
    def unnormalised(self) -> bool:
        """Whether they say nothing of units: means are 0 and deviations 1, fields bring their own."""
        return not self.mean.any() and bool((self.deviation == 1).all())

    def normalised(self, fields: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return fields (..., C, H, W) with mean 0 and deviation 1."""
        x: NDArray[np.floating] = (fields - self.mean[:, None, None]) / self.deviation[:, None, None]
        return x


def cra5_statistics(files: Sequence[Mapping[str, Any]], names: Sequence[Name]) -> Channels:
    """Return channels normalised as the JSON files that come with CRA5's code say.

    Each file has `mean` and `std` by variable: one number, or one for each level of ERA5 from 1000 hPa up.

    Raises
    ------
    ArgumentError
        A variable is missing, or has not as many numbers as levels.
    """
    mean, deviation = (np.empty(len(names), np.float32) for _ in range(2))
    for i, (name, level) in enumerate(names):
        for out, key in ((mean, "mean"), (deviation, "std")):
            found = next((file[key][name] for file in files if name in file.get(key, {})), None)
            if isinstance(found, list) and level in ERA5_LEVELS and len(found) == len(ERA5_LEVELS):
                found = found[ERA5_LEVELS.index(int(level))]
            if not isinstance(found, float | int):
                raise ArgumentError(f"{name}, level {level}: the statistics have no {key} of it")
            out[i] = found
    return Channels(tuple(names), mean, deviation)
