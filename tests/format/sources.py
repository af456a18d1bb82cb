"""Real files of every kind that people have, written with the libraries that they use."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from isopress.format.source.dataset import Request
from tests.datasets import smooth

SHAPE = (3, 12, 16)
Array = np.ndarray[Any, Any]


def temperature(seed: int = 1, shape: tuple[int, ...] = SHAPE) -> Array:
    """Return temperatures in K, float32."""
    return (280 + 10 * smooth(shape, seed)).astype(np.float32)


def fields(**variables: Array) -> xr.Dataset:
    """Return variables (time, lat, lon) in K, six-hourly, with coordinates."""
    times = next(iter(variables.values())).shape[0]
    return xr.Dataset(
        {name: (("time", "lat", "lon"), x, {"units": "K"}) for name, x in variables.items()},
        {
            "time": ("time", 6.0 * np.arange(times), {"units": "hours since 2020-01-01"}),
            "lat": ("lat", np.linspace(80, -80, SHAPE[1]), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(0, 337.5, SHAPE[2]), {"units": "degrees_east"}),
        },
    )


def save(ds: xr.Dataset, path: Path, **options: Any) -> Path:
    """Write as NetCDF without fill values of xarray's making; return the path."""
    ds.to_netcdf(path, encoding={name: {"_FillValue": None} for name in ds.variables}, **options)
    return path


def save_raw(path: Path, x: Array, *, fill: Any = None, kind: str = "NETCDF4", **attrs: Any) -> Path:
    """Write one variable `x`, (time, lat, lon), as it is stored, with attributes as they are."""
    with netCDF4.Dataset(path, "w", format=kind) as file:
        for name, size in zip(("time", "lat", "lon"), x.shape, strict=True):
            file.createDimension(name, size)
        variable = file.createVariable("x", x.dtype, ("time", "lat", "lon"), fill_value=fill)
        variable.set_auto_maskandscale(False)
        variable.setncatts(attrs)
        variable[:] = x
    return path


def grib_field(base: float, **keys: Any) -> tuple[Array, dict[str, Any]]:
    """Return a field on a grid of 10 degrees, and the keys of its message."""
    waves = np.add.outer(np.sin(np.linspace(0, 3, 19)), np.cos(np.linspace(0, 6, 36)))
    return base + waves, keys


def save_grib(path: Path, *messages: tuple[Array, dict[str, Any]], sample: str = "regular_ll_sfc_grib2") -> Path:
    """Write messages with ecCodes; return the path."""
    import eccodes

    grid = {
        "Ni": 36,
        "Nj": 19,
        "latitudeOfFirstGridPointInDegrees": 90,
        "latitudeOfLastGridPointInDegrees": -90,
        "longitudeOfFirstGridPointInDegrees": 0,
        "longitudeOfLastGridPointInDegrees": 350,
        "iDirectionIncrementInDegrees": 10,
        "jDirectionIncrementInDegrees": 10,
        "bitsPerValue": 16,
    }
    with open(path, "wb") as file:
        for values, keys in messages:
            handle = eccodes.codes_grib_new_from_samples(sample)
            for key, value in (keys if sample.startswith("sh_") else grid | keys).items():
                eccodes.codes_set(handle, key, value)
            eccodes.codes_set_values(handle, values.ravel())
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return path


def save_reference(netcdf: Path, path: Path) -> Path:
    """Write kerchunk's references to the chunks of a NetCDF-4 file."""
    from kerchunk.hdf import SingleHdf5ToZarr

    path.write_text(json.dumps(SingleHdf5ToZarr(str(netcdf)).translate()))
    return path


def masked(x: Array, *places: Any) -> Array:
    x = x.copy()
    for place in places:
        x[place] = np.nan
    return x


HOLE, LAKE = np.s_[:, :3, :3], np.s_[:, 6:8, 5:9]


def filled(x: Array, hole: float, lake: float | None = None) -> Array:
    x = x.copy()
    x[HOLE] = hole
    if lake is not None:
        x[LAKE] = lake
    return x


# --- a case -----------------------------------------------------------------------------------------------------------


BOUND = 0.1  # of whatever is not exact


@dataclass(frozen=True)
class Case:
    """A source, the values that its variables have, what is to be said about it, and the names that are lossy."""

    source: str | Request
    values: dict[str, Array]
    warnings: tuple[str, ...] = ()
    lossy: tuple[str, ...] = ()
    errors: tuple[str, ...] = (f"{BOUND}",)
    read: dict[str, int] = field(default_factory=dict)
