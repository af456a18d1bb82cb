"""Writing through xarray with the limits, chunks and codecs of the command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import isopress
import isopress.xarray
from isopress.codec.errors import ArgumentError
from isopress.format.report.info import read_report
from isopress.format.store.write import write
from tests.datasets import errors, smooth

DIMS = ("time", "lat", "lon")


def weather() -> xr.Dataset:
    times = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(1, "h")
    return xr.Dataset(
        {
            "t2m": (DIMS, 280 + 10 * smooth((6, 20, 24)), {"units": "K"}),
            "odd": (DIMS, smooth((6, 20, 24), 1), {"units": "furlong"}),
            "soil": (("lat", "lon"), np.arange(480, dtype="i2").reshape(20, 24)),
        },
        coords={"time": times, "lat": np.linspace(60, 40, 20), "lon": np.arange(24.0)},
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_xarray_writes_what_the_command_line_would(zarr_format: Any, tmp_path: Path) -> None:
    ds = weather()
    options: dict[str, Any] = {"chunks": {"time": 1}, "zarr_format": zarr_format}
    encoding = isopress.encoding(ds, {"odd": "range:1%"}, **options)
    ds.to_zarr(tmp_path / "a.zarr", encoding=encoding, zarr_format=zarr_format, consolidated=False)
    ds.to_netcdf(tmp_path / "in.nc")
    write(str(tmp_path / "in.nc"), tmp_path / "b.zarr", errors=errors("odd=range:1%"), **options)
    a, b = (read_report(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    for x, y in zip(a.variables, b.variables, strict=True):
        assert (x.name, x.bound, x.chunks, x.shards) == (y.name, y.bound, y.chunks, y.shards)
    for name in ("t2m", "odd"):
        files = [tmp_path / store / name for store in ("a.zarr", "b.zarr")]
        contents = [sorted(p.read_bytes() for p in f.rglob("[0-9]*") if p.is_file()) for f in files]
        assert contents[0] == contents[1]
    assert b.variables[-2].name == "t2m"


def test_nothing_of_the_encoding_of_the_source_stays(tmp_path: Path) -> None:
    packed = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32767, "zlib": True}
    weather().to_netcdf(tmp_path / "in.nc", encoding={"t2m": packed | {"chunksizes": (2, 10, 12)}})
    with xr.open_dataset(tmp_path / "in.nc", chunks={}) as ds:
        ds.time.encoding["units"] = "minutes since 2020-01-01"
        ds.isopress.to_zarr(tmp_path / "out.zarr", {"t2m": 0.05})
        with xr.open_zarr(tmp_path / "out.zarr") as out:
            assert float(abs(out.t2m - ds.t2m).max()) <= 0.05
            assert out.t2m.encoding["dtype"].kind == "f"
            assert "scale_factor" not in out.t2m.encoding
            assert out.time.encoding["units"] == "minutes since 2020-01-01"
            assert out.time.equals(ds.time)


def test_dask_chunks_that_do_not_fit_are_refused_by_xarray_and_cut_anew_by_ours(tmp_path: Path) -> None:
    ds = weather().chunk(time=4, lat=7)
    encoding = isopress.encoding(ds, 0.1, chunks={"time": 1}, shards={"time": 3})
    with pytest.raises(ValueError, match="chunks"):
        ds.to_zarr(tmp_path / "a.zarr", encoding=encoding, zarr_format=3)
    ds.isopress.to_zarr(tmp_path / "b.zarr", 0.1, chunks={"time": 1}, shards={"time": 3})
    with xr.open_zarr(tmp_path / "b.zarr") as out:
        assert float(abs(out.t2m - ds.t2m).max()) <= 0.1
        assert out.t2m.encoding["shards"] == (3, 20, 24)
        assert out.t2m.attrs["isopress_error"] == "abs:0.1"
        report = out.isopress.info()
    assert 0 < (report.variables[-2].max_error or 0) <= 0.1


def test_any_store_will_do() -> None:
    store = zarr.storage.MemoryStore()
    weather().isopress.to_zarr(store, preset="preview")
    assert float(abs(xr.open_zarr(store).t2m - weather().t2m).max()) <= 0.5


def test_what_is_no_limit_or_names_nothing_is_refused() -> None:
    for error in ({"t3m": 0.1}, {"t2m": "ten"}, -1):
        with pytest.raises(ArgumentError):
            isopress.encoding(weather(), error)
    with pytest.raises(ArgumentError, match="no such dimension"):
        isopress.encoding(weather(), chunks={"level": 1})
