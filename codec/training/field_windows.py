"""Windows of fields of any variable, each with mean 0 and deviation 1, for weights that code all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isopress.codec.training.pyramid_pool import Field

F32 = NDArray[np.float32]
MIN_SIDE = 32


class FieldWindows:
    """Random windows of random fields in memory, drawn by the root of their size, mirrored and of either sign.

    With several channels, these are fields of one source and one shape, with one mirror and signs of their own.

    Raises
    ------
    ValueError
        No field is as large as 32 x 32 and varies.
    """

    def __init__(self, fields: Sequence[Field], channels: int = 1) -> None:
        self._groups = [[f] for f in fields if min(f.values.shape[2:]) >= MIN_SIDE and f.deviation > 0]
        if not self._groups:
            raise ValueError(f"no field is as large as {MIN_SIDE} x {MIN_SIDE} and varies")
        if channels > 1:
            self._groups = _groups(self._groups, channels)
        self._channels = channels
        firsts = [group[0] for group in self._groups]
        weight = np.array([np.sqrt(f.values[0, 0].size) * min(8, f.values[..., 0, 0].size) for f in firsts])
        self._weight = weight / weight.sum()

    def window(self, rng: np.random.Generator, shape: tuple[int, int]) -> F32:
        """Return a window (C, h, w); fields that are smaller are reflected."""
        group = self._groups[int(rng.choice(len(self._groups), p=self._weight))]
        times, levels = (min(f.values.shape[axis] for f in group) for axis in (0, 1))
        place = int(rng.integers(times)), int(rng.integers(levels))
        chosen = rng.permutation(len(group))[: self._channels]
        x = np.stack([_normal(group[i], place) for i in chosen])
        missing = [max(0, side - n) for side, n in zip(shape, x.shape[1:], strict=True)]
        if any(missing):
            x = np.pad(x, [(0, 0), *((0, n) for n in missing)], mode="reflect")
        top, left = (int(rng.integers(n - side + 1)) for side, n in zip(shape, x.shape[1:], strict=True))
        x = x[:, top : top + shape[0], left : left + shape[1]]
        signs = rng.choice(np.array([-1, 1], np.float32), (len(x), 1, 1))
        window: F32 = x[:, :: rng.choice((-1, 1)), :: rng.choice((-1, 1))] * signs
        return window


def _normal(f: Field, place: tuple[int, int]) -> F32:
    x = f.values[place].astype(np.float32)
    # Some fields of a variable can be constant: they stay 0.
    normal: F32 = (x - x.mean()) / max(float(x.std()), 1e-6 * f.deviation)
    return normal


def _groups(singles: Sequence[Sequence[Field]], channels: int) -> list[list[Field]]:
    """Return the fields of each source and shape, where they are as many as channels."""
    found = dict[tuple[str, tuple[int, ...]], list[Field]]()
    for (f,) in singles:
        found.setdefault((f.name.partition("/")[0], f.values.shape[2:]), []).append(f)
    groups = [group for group in found.values() if len(group) >= channels]
    if not groups:
        raise ValueError(f"no source has {channels} fields of one shape")
    return groups
