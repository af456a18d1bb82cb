"""Fields to train on, from a folder of NetCDF files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from isopress.codec.errors import ArgumentError
from isopress.codec.training.pyramid_pool import Field

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
