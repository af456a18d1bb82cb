"""Small datasets with everything that real files have and that must survive."""

from pathlib import Path

import numpy as np
import xarray as xr

from isopress.format.error_spec import ErrorSpec, parse_error


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a float32 array that is smooth along its last two axes, with a little noise, within about 1 of 0."""
    rng = np.random.default_rng(seed)
    lat, lon = (np.linspace(0, 3, size) for size in shape[-2:])
    waves = np.sin(lat[:, None] + rng.uniform(0, 6, (*shape[:-2], 1, 1))) * np.cos(2 * lon + rng.uniform(0, 6))
    return (waves + rng.normal(0, 0.01, shape)).astype(np.float32)


def contents(store: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a store by its path in there."""
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def weather(times: int = 3, lat: int = 10, lon: int = 12) -> xr.Dataset:
    """Return temperature (K), precipitation (m), masked sst (K), and many kinds of variables that stay exact."""
    dims, shape = ("time", "lat", "lon"), (times, lat, lon)
    sst = 290 + 5 * smooth(shape, 3)
    sst[:, :3] = np.nan
    rain = np.maximum(smooth(shape, 2), 0).astype(np.float32) * np.float32(1e-3)
    ds = xr.Dataset(
        {
            "t2m": (dims, 280 + 10 * smooth(shape, 1), {"units": "K", "long_name": "2 metre temperature"}),
            "tp": (dims, rain, {"units": "m"}),
            "sst": (dims, sst, {"units": "K"}),
            "index": (dims, smooth(shape, 4).astype(np.float64), {"units": "furlong", "valid_range": [-9.0, 9.0]}),
            "soil": (("lat", "lon"), np.arange(lat * lon, dtype=np.int16).reshape(lat, lon), {"flag": "type"}),
            "half": (("lat", "lon"), smooth((lat, lon)).astype(np.float16)),
            "station": (("time",), np.array([f"site-{i}" for i in range(times)], object), {"kind": "näme"}),
            "crs": ((), np.int32(7), {"grid_mapping_name": "latitude_longitude"}),
            "day_number": (("time",), np.arange(times) + 0.5, {"units": "days since 2000-01-01"}),
            "lat_bounds": (("lat", "edge"), smooth((lat, 2)).astype(np.float64)),
        },
        coords={
            "time": ("time", np.arange(times), {"units": "hours since 1940-01-01", "calendar": "julian"}),
            "lat": ("lat", np.linspace(90, -90, lat), {"units": "degrees_north", "bounds": "lat_bounds"}),
            "lon": ("lon", np.linspace(0, 350, lon).astype(np.float32), {"units": "degrees_east"}),
        },
        attrs={"title": "made up", "history": "none", "number": 3},
    )
    ds["t2m"].attrs["coordinates"] = "area_lat"
    ds["area_lat"] = (("lat", "lon"), np.repeat(ds["lat"].values[:, None], lon, 1))
    return ds


EXACT = ("soil", "half", "station", "crs", "day_number", "lat_bounds", "time", "lat", "lon", "area_lat")
LOSSY = ("t2m", "tp", "sst", "index")


def raw(path: Path) -> xr.Dataset:
    """Return a store or file in memory as it is stored, nothing decoded."""
    options = {"engine": "zarr", "consolidated": False} if path.suffix == ".zarr" else {}
    with xr.open_dataset(path, decode_cf=False, cache=False, **options) as ds:
        return ds.load()


def decoded(path: Path) -> xr.Dataset:
    """Return a store or file in memory as a user sees it."""
    engine = "zarr" if path.suffix == ".zarr" else None
    with xr.open_dataset(path, engine=engine, decode_timedelta=False) as ds:
        return ds.load()


def save_netcdf(ds: xr.Dataset, path: Path) -> Path:
    """Write as NetCDF with no fill values of xarray's making; return the path."""
    kept = ds.drop_vars("half", errors="ignore")  # NetCDF has no float16
    kept.to_netcdf(path, encoding={name: {"_FillValue": None} for name in kept.variables})
    return path


def save_zarr(ds: xr.Dataset, path: Path, zarr_format: int = 3) -> Path:
    """Write as plain Zarr; return the path."""
    ds.to_zarr(path, zarr_format=zarr_format, consolidated=zarr_format == 2)  # type: ignore[call-overload]
    return path


def errors(*texts: str) -> list[ErrorSpec]:
    return [parse_error(text) for text in texts]
