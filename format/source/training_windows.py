"""Windows of named channels to train on, read from stores and files that may be far larger than memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from isopress.codec.errors import ArgumentError
from isopress.format.zarr.groups import is_zarr

HELD = 0.1  # part of the times that is held out, the last ones
_LEVELS = ("level", "pressure_level", "isobaricInhPa", "plev", "pressure", "lev")


class StoreWindows:
    """Random windows of the channels of a dataset, between two times; only what is asked for is read.

    Parameters
    ----------
    path : Path
        A Zarr store, or a folder of NetCDF files or stores that follow each other in time.
    channels : sequence of (name, level or None)
    part : (float, float)
        Which part of the times: (0, 0.9) is all but the last tenth.

    Raises
    ------
    ArgumentError
        There is no dataset, or it lacks a channel, or fields of them differ in shape.
    """

    def __init__(self, path: Path, channels: Sequence[tuple[str, float | None]], part: tuple[float, float]) -> None:
        dataset = _opened(path)
        self._fields = [_channel(dataset, path, name, level) for name, level in channels]
        shapes = {field.shape for field in self._fields}
        if len(shapes) > 1:
            raise ArgumentError(f"{path}: channels have the shapes {', '.join(map(str, sorted(shapes)))}, not one")
        times = self._fields[0].shape[0]
        self._times = range(int(part[0] * times), max(int(part[1] * times), int(part[0] * times) + 1))
        if self._times[-1] >= times:
            raise ArgumentError(f"{path}: {times} times are too few to hold some out; give --validation")

    @property
    def shape(self) -> tuple[int, int]:
        """Of the fields."""
        return self._fields[0].shape[1], self._fields[0].shape[2]

    def window(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return a random window (C, h, w) of a random time; windows larger than the fields are these.

        Missing values become the mean of the others.
        """
        time = self._times[int(rng.integers(len(self._times)))]
        sides = [min(side, n) for side, n in zip(shape, self.shape, strict=True)]
        top, left = (int(rng.integers(n - side + 1)) for n, side in zip(self.shape, sides, strict=True))
        place = (time, slice(top, top + sides[0]), slice(left, left + sides[1]))
        x = np.stack([np.asarray(field[place].values, np.float32) for field in self._fields])
        for field in x:
            missing = ~np.isfinite(field)
            if missing.any():
                field[missing] = 0 if missing.all() else field[~missing].mean()
        return x


def _opened(path: Path) -> xr.Dataset:
    if is_zarr(path):
        store: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False)
        return store
    files = sorted(path.glob("*.nc")) + sorted(folder for folder in path.glob("*.zarr") if is_zarr(folder))
    if not files:
        raise ArgumentError(f"{path}: neither a Zarr store nor a folder of NetCDF files or stores")
    parts = [xr.open_dataset(f) if f.suffix == ".nc" else xr.open_zarr(f, consolidated=False) for f in files]
    if len(parts) == 1:
        return parts[0]
    whole = xr.combine_by_coords([part.chunk() for part in parts])
    assert isinstance(whole, xr.Dataset)
    return whole


def _channel(dataset: xr.Dataset, path: Path, name: str, level: float | None) -> xr.DataArray:
    """Return one channel as (time, lat, lon)."""
    if name not in dataset.data_vars:
        raise ArgumentError(f"{path}: there is no variable {name}; there are {', '.join(map(str, dataset.data_vars))}")
    field = dataset[name]
    axis = next((dim for dim in _LEVELS if dim in field.dims), None)
    if level is not None:
        if axis is None or level not in field[axis].values:
            raise ArgumentError(f"{path}: {name} has no level {level:g}")
        field = field.sel({axis: level})
    elif axis is not None:
        raise ArgumentError(f'{path}: {name} has levels; name one of them: ["{name}", 500]')
    if field.ndim == 2:
        field = field.expand_dims("time")
    if field.ndim != 3:
        raise ArgumentError(
            f"{path}: {name} has the axes {', '.join(map(str, field.dims))}; (time, lat, lon) are needed"
        )
    return field
