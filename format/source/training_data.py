"""Fields and windows of named channels to train on, read from files and stores that may be far larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from isopress.codec.errors import ArgumentError
from isopress.codec.training.pyramid_pool import Field
from isopress.format.zarr.groups import is_zarr

MIN_SIDE = 64  # smaller fields teach little about levels,
MIN_SIDE_BLOCK = 32  # but something about their neighbours
MIN_DISTINCT = 64  # of a sample; land masks and precipitation types have fewer
MAX_VALUES = 2**25  # of one variable


def load_fields(folder: Path) -> list[Field]:
    """Return the variables of all `*.nc` files in `folder` as float32 blocks (time, level, lat, lon).

    The last two axes are the field; the one before them is a level if its name says so. Fields that are not
    finite everywhere or hold categories rather than measurements (few distinct values) are left out, and so are
    variables with fields smaller than 64 x 64 (32 x 32 where there are several).

    Raises
    ------
    ArgumentError
        `folder` holds no usable field.
    """
    fields = [field for path in sorted(folder.glob("*.nc")) for field in _fields_of(path)]
    if not fields:
        raise ArgumentError(f"{folder} holds no NetCDF file with a finite field of at least {MIN_SIDE} x {MIN_SIDE}")
    return fields


def hold_out(fields: list[Field]) -> tuple[list[Field], list[Field]]:
    """Return (fields to learn from, fields of every tenth variable), no variable in both.

    Raises
    ------
    ArgumentError
        All fields are of one variable.
    """
    names = sorted({field.name for field in fields})
    held = set(names[::10])
    if len(names) == 1:
        raise ArgumentError(f"{names[0]} is the only variable; give a second folder with --validation")
    return [f for f in fields if f.name not in held], [f for f in fields if f.name in held]


def _fields_of(path: Path) -> Iterator[Field]:
    with xr.open_dataset(path, decode_times=False) as dataset:
        for name, variable in dataset.data_vars.items():
            if variable.ndim < 2 or variable.dtype.kind != "f":
                continue
            values = _as_block(variable)
            side = MIN_SIDE if values.shape[:2] == (1, 1) else MIN_SIDE_BLOCK
            values = _usable(values) if min(values.shape[2:]) >= side else values[:0]
            if values.size:
                yield Field(f"{path.stem}/{name}", values)


def _as_block(variable: xr.Variable | xr.DataArray) -> NDArray[np.float32]:
    """Return (time, level, lat, lon); all other leading axes count as time."""
    values, dims = variable.to_numpy().astype(np.float32), [str(dim) for dim in variable.dims[:-2]]
    levels = values.shape[-3] if dims and dims[-1].startswith(("lev", "plev", "isobaric", "height", "depth")) else 1
    values = values.reshape(-1, levels, *values.shape[-2:])
    block: NDArray[np.float32] = values[: max(1, MAX_VALUES // values[0].size)]
    return block


def _usable(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the times of which every field can be learned from; single fields if there is none."""
    good = np.array([[_good(field) for field in time] for time in values])
    usable: NDArray[np.float32] = values[good.all(1)] if good.all(1).any() else values[good][:, None]
    return usable


def _good(field: NDArray[np.float32]) -> bool:
    return bool(
        np.isfinite(field).all() and np.unique(field[::5, ::5]).size >= min(MIN_DISTINCT, field[::5, ::5].size // 2)
    )


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
