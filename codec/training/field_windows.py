"""Windows of fields, each with mean 0 and deviation 1: of any variable, or of channels of some names."""

from __future__ import annotations

import re
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
        self._shares = _shares(self._groups)

    def window(self, rng: np.random.Generator, shape: tuple[int, int]) -> F32:
        """Return a window (C, h, w); fields that are smaller are reflected."""
        group = self._groups[int(rng.choice(len(self._groups), p=self._shares))]
        times, levels = (min(f.values.shape[axis] for f in group) for axis in (0, 1))
        place = int(rng.integers(times)), int(rng.integers(levels))
        chosen = rng.permutation(len(group))[: self._channels]
        x = np.stack([_normal(group[i], place) for i in chosen])
        x = _cut(x, rng, shape)
        signs = rng.choice(np.array([-1, 1], np.float32), (len(x), 1, 1))
        window: F32 = x[:, :: rng.choice((-1, 1)), :: rng.choice((-1, 1))] * signs
        return window


class NamedWindows:
    """Random windows of channels of these names, each field with mean 0 and deviation 1, of sources that have them all.

    Sources may differ in grid, unit and level: names as in `ROLES` stand for one channel. They are drawn as those of
    FieldWindows and mirrored, winds turning round.

    Raises
    ------
    ValueError
        No source has all channels.
    """

    def __init__(self, fields: Sequence[Field], channels: Sequence[str]) -> None:
        sources = dict[str, dict[str, Field]]()
        for f in fields:
            source, _, name = f.name.partition("/")
            if min(f.values.shape[2:]) >= MIN_SIDE and f.deviation > 0:
                sources.setdefault(source, {})[name] = f
        found = [_played(fields, channels) for fields in sources.values()]
        self._groups = [group for group in found if group and len({f.values.shape[2:] for f in group}) == 1]
        if not self._groups:
            raise ValueError(f"no source has fields {', '.join(channels)} of {MIN_SIDE} x {MIN_SIDE} that vary")
        self._shares = _shares(self._groups)
        self._turns = np.array([[bool(re.fullmatch(wind, name)) for name in channels] for wind in (r"v\d*", r"u\d*")])

    def window(self, rng: np.random.Generator, shape: tuple[int, int]) -> F32:
        """Return a window (C, h, w); fields that are smaller are reflected."""
        group = self._groups[int(rng.choice(len(self._groups), p=self._shares))]
        times, levels = (min(f.values.shape[axis] for f in group) for axis in (0, 1))
        place = int(rng.integers(times)), int(rng.integers(levels))
        x = _cut(np.stack([_normal(f, place) for f in group]), rng, shape)
        for axis, turns in zip((1, 2), self._turns, strict=True):
            if rng.random() < 0.5:
                x = np.flip(x, axis) * np.where(turns, -1, 1)[:, None, None]
        return np.ascontiguousarray(x, np.float32)


# What else the variables of a channel are called, in GRIB and in NetCDF files made of it, on levels too.
ROLES = {
    "u10": ("10u", "u_pl", "u", "uwnd", "var131"),
    "v10": ("10v", "v_pl", "v", "vwnd", "var132"),
    "t2m": ("2t", "t_pl", "t", "air", "var130"),
    "msl": ("prmsl", "slp", "sp", "z_pl", "gh_pl", "z", "var129"),
}


def _shares(groups: Sequence[Sequence[Field]]) -> NDArray[np.float64]:
    """Return how often each group is drawn: by the root of a field's size, and by its fields up to eight."""
    firsts = [group[0].values for group in groups]
    weight = np.array([np.sqrt(values[0, 0].size) * min(8, values[..., 0, 0].size) for values in firsts])
    shares: NDArray[np.float64] = weight / weight.sum()
    return shares


def _played(fields: dict[str, Field], channels: Sequence[str]) -> list[Field]:
    """Return the fields of one source that are these channels; none if one is missing."""
    found = [next((fields[n] for n in (name, *ROLES.get(name, ())) if n in fields), None) for name in channels]
    group = [f for f in found if f is not None]
    return group if len(group) == len(channels) else []


def _cut(x: F32, rng: np.random.Generator, shape: tuple[int, int]) -> F32:
    """Return a random window (C, h, w) of fields; smaller ones are reflected."""
    missing = [max(0, side - n) for side, n in zip(shape, x.shape[1:], strict=True)]
    if any(missing):
        x = np.pad(x, [(0, 0), *((0, n) for n in missing)], mode="reflect")
    top, left = (int(rng.integers(n - side + 1)) for side, n in zip(shape, x.shape[1:], strict=True))
    return x[:, top : top + shape[0], left : left + shape[1]]


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
