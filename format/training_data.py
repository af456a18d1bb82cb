"""Fields to train on, from a folder of NetCDF files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.codec.train_pool import Field

MIN_SIDE = 64  # smaller fields teach little about levels
MIN_DISTINCT = 64  # of a sample; land masks and precipitation types have fewer


def load_fields(folder: Path, *, at_most: int = 8, seed: int = 0) -> list[Field]:
    """Return up to `at_most` fields of each variable of each `*.nc` file in `folder`, as float32.

    The last two axes are the field; fields that are not finite everywhere, hold categories rather than
    measurements (few distinct values) or are smaller than 64 x 64 are left out.

    Raises
    ------
    ArgumentError
        `folder` holds no usable field.
    """
    rng = np.random.default_rng(seed)
    fields = [field for path in sorted(folder.glob("*.nc")) for field in _fields_of(path, at_most, rng)]
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


def _fields_of(path: Path, at_most: int, rng: np.random.Generator) -> Iterator[Field]:
    with xr.open_dataset(path, decode_times=False) as dataset:
        for name, variable in dataset.data_vars.items():
            if variable.ndim < 2 or variable.dtype.kind != "f" or min(variable.shape[-2:]) < MIN_SIDE:
                continue
            values = variable.to_numpy().reshape(-1, *variable.shape[-2:])
            for i in rng.permutation(len(values))[:at_most]:
                if np.isfinite(values[i]).all() and np.unique(values[i, ::5, ::5]).size >= MIN_DISTINCT:
                    yield Field(f"{path.stem}/{name}", values[i].astype(np.float32))
