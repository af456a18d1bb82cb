"""What fields are normalised with: the mean and deviation of each channel in the weights, or those of the fields.

Weights whose channels all have mean 0 and deviation 1 were trained on fields that were normalised one by one. What they
code has a unit and a size of its own: these lie in the section, before the symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.vaeformer.channels import Channels

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

LARGEST = 1e30  # normalised values beyond are coded as this
_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Means (T, C) of the channels of each hour and deviations (C,): float32 values.

    own : whether they are those of the fields, which a section stores, and not those of the weights.
    """

    mean: F32
    deviation: F32
    own: bool

    def normalised(self, x: F64, t: int) -> F32:
        """Return the fields (C, H, W) of hour `t` about 0, in deviations."""
        with np.errstate(over="ignore"):
            y = (x - self.mean[t, :, None, None]) / self.deviation[:, None, None]
        return np.clip(y, -LARGEST, LARGEST).astype(np.float32)

    def restored(self, x: F32, t: int, channel: int) -> F64:
        """Return normalised values of one channel of hour `t` in its unit."""
        return x.astype(np.float64) * float(self.deviation[channel]) + float(self.mean[t, channel])


def normalisation_of(fields: F64, channels: Channels) -> Normalisation:
    """Return what fields (T, C, H, W) are normalised with: each by its mean, all of a channel by one deviation.

    One deviation, because then a channel has one step in all hours, as a target for its root mean square error has.
    """
    if not channels.unnormalised:
        return Normalisation(np.broadcast_to(channels.mean, fields.shape[:2]), channels.deviation, False)
    mean = np.clip(fields.mean((2, 3)), -_MAX, _MAX).astype(np.float32)
    with np.errstate(over="ignore"):
        squares = [np.square(fields[place] - mean[place]).mean() for place in np.ndindex(mean.shape)]
        deviation = np.sqrt(np.reshape(squares, mean.shape).mean(0)).clip(0, _MAX).astype(np.float32)
    return Normalisation(mean, np.where(deviation > 0, deviation, np.float32(1)), True)


def write_normalisation(own: Normalisation) -> bytes:
    """Return deviations and means as a section has them."""
    return own.deviation.astype("<f4").tobytes() + own.mean.astype("<f4").tobytes()


def read_normalisation(data: memoryview, shape: tuple[int, int]) -> tuple[Normalisation, int]:
    """Return those of `shape` (T, C) and how many bytes they take.

    Raises
    ------
    TruncatedPayloadError
        There are fewer bytes than that.
    CorruptPayloadError
        One is not finite, or a deviation not positive.
    """
    (hours, channels) = shape
    size = 4 * channels * (1 + hours)
    if len(data) < size:
        raise TruncatedPayloadError(f"{len(data)} bytes hold no deviations and means of {hours} x {channels} fields")
    deviation = np.frombuffer(data, "<f4", channels).astype(np.float32)
    mean = np.frombuffer(data, "<f4", hours * channels, 4 * channels).astype(np.float32)
    if not (np.isfinite(deviation).all() and (deviation > 0).all() and np.isfinite(mean).all()):
        raise CorruptPayloadError("means and deviations of channels must be finite, deviations positive")
    return Normalisation(mean.reshape(shape), deviation, True), size
