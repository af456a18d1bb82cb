"""Groups, several files, parts of them and ways of packing files, each with its right values."""

import gzip
import shutil
import zipfile
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from isopress.format.source.dataset import Request
from tests.format.sources import (
    HOLE,
    SHAPE,
    Array,
    Case,
    fields,
    grib_field,
    masked,
    save,
    save_grib,
    save_raw,
    save_reference,
    temperature,
)


def netcdf_groups(tmp: Path) -> Case:
    sets = {"/": fields(t2m=temperature(1)), "/forecast": fields(t2m=temperature(2))}
    sets["/forecast/members"] = fields(t2m=temperature(3), d2m=temperature(4))
    xr.DataTree.from_dict(sets).to_netcdf(tmp / "a.nc")
    names = {"t2m": 1, "forecast/t2m": 2, "forecast/members/t2m": 3, "forecast/members/d2m": 4}
    values = {name: temperature(seed) for name, seed in names.items()}
    return Case(str(tmp / "a.nc"), values, lossy=tuple(values), read={"groups": 3})


def zarr_groups(tmp: Path) -> Case:
    for group, seed in (("", 1), ("b/c", 2)):
        fields(t2m=temperature(seed)).to_zarr(tmp / "a.zarr", group=group or None, mode="a", consolidated=False)
    values = {"t2m": temperature(1), "b/c/t2m": temperature(2)}
    return Case(str(tmp / "a.zarr"), values, lossy=tuple(values), read={"groups": 3})


def days(tmp: Path, count: int = 3, names: tuple[str, ...] = ("t2m",), **units: Any) -> list[Path]:
    """Write a file of each day, four times a day, in a folder."""
    (tmp / "days").mkdir(exist_ok=True)
    paths = []
    for day in range(count):
        ds = fields(**{name: day_of(day, name) for name in names})
        ds["time"] = ("time", 24.0 * day + 6.0 * np.arange(4), ds["time"].attrs | units)
        paths.append(save(ds, tmp / "days" / f"{names[0]}-{day}.nc"))
    return paths


def day_of(day: int, name: str = "t2m") -> Array:
    return temperature(day + 10 * len(name), (4, *SHAPE[1:]))


def all_days(count: int = 3, name: str = "t2m") -> Array:
    return np.concatenate([day_of(day, name) for day in range(count)])


def a_list_of_files(tmp: Path) -> Case:
    paths = tuple(map(str, reversed(days(tmp))))
    values = {"t2m": all_days(), "time": 6.0 * np.arange(12)}
    return Case(Request(paths), values, lossy=("t2m",), read={"files": 3})


def a_folder(tmp: Path) -> Case:
    days(tmp)
    return Case(str(tmp / "days"), {"t2m": all_days()}, lossy=("t2m",), read={"files": 3})


def a_pattern(tmp: Path) -> Case:
    days(tmp)
    return Case(str(tmp / "days" / "*-[01].nc"), {"t2m": all_days(2)}, lossy=("t2m",), read={"files": 2})


def files_that_count_time_from_their_own_day(tmp: Path) -> Case:
    for day, path in enumerate(days(tmp)):
        with netCDF4.Dataset(path, "a") as file:
            file["time"].units = f"hours since 2020-01-{day + 1:02}"
            file["time"][:] = 6.0 * np.arange(4)
    values = {"t2m": all_days(), "time": 6.0 * np.arange(12)}
    return Case(str(tmp / "days"), values, lossy=("t2m",))


def a_gap(tmp: Path) -> Case:
    days(tmp, 4)[2].unlink()
    values = {"t2m": np.concatenate([day_of(day) for day in (0, 1, 3)])}
    return Case(str(tmp / "days"), values, ("gap along time between 2020-01-02T18:00:00",), ("t2m",))


def attributes_that_differ(tmp: Path) -> Case:
    with netCDF4.Dataset(days(tmp, 2)[1], "a") as file:
        file.source, file["t2m"].long_name, file.history = "other", "air", "made today"
    warned = ("t2m:long_name differs between files", "the attribute source differs between files")
    return Case(str(tmp / "days"), {"t2m": all_days(2)}, warned, ("t2m",))


def files_that_are_packed_each_in_its_own_way(tmp: Path) -> Case:
    (tmp / "days").mkdir()
    whole = []
    for day in range(2):
        scale, offset = 0.01 * (day + 1), 280.0 + day
        q = np.round((day_of(day) - offset) / scale).astype("i2")
        q[HOLE] = -32767
        path = save_raw(
            tmp / "days" / f"{day}.nc", q, fill=np.int16(-32767), scale_factor=scale, add_offset=offset, units="K"
        )
        with netCDF4.Dataset(path, "a") as file:
            time = file.createVariable("time", "i4", ("time",))
            time.units, time[:] = "hours since 2020-01-01", 24 * day + 6 * np.arange(4)
        whole.append(masked(q * scale + offset, HOLE))
    return Case(str(tmp / "days"), {"x": np.concatenate(whole)}, lossy=("x",))


def other_variables_in_other_files(tmp: Path) -> Case:
    days(tmp, 2)
    days(tmp, 2, ("d2m2",))
    values = {"t2m": all_days(2), "d2m2": all_days(2, "d2m2")}
    return Case(str(tmp / "days"), values, lossy=tuple(values), read={"files": 4})


def grib_files(tmp: Path) -> Case:
    (tmp / "days").mkdir()
    parts = [grib_field(280 + day, shortName="2t", dataDate=20200101 + day, dataTime=0) for day in range(3)]
    for day, part in enumerate(parts):
        save_grib(tmp / "days" / f"{day}.grib2", part)
    values = {"t2m": np.stack([x for x, _ in parts])}
    return Case(str(tmp / "days"), values, lossy=("t2m",), read={"files": 3, "messages": 3})


def some_variables(tmp: Path) -> Case:
    path = save(fields(t2m=temperature(1), d2m=temperature(2)), tmp / "a.nc")
    return Case(Request((str(path),), variables=("t*",)), {"t2m": temperature(1)}, lossy=("t2m",))


def some_months(tmp: Path) -> Case:
    ds = fields(t2m=temperature(1, (12, *SHAPE[1:])))
    ds["time"] = ("time", [15 + 30 * n for n in range(12)], {"units": "days since 2020-01-01"})
    part = Request((str(save(ds, tmp / "a.nc")),), sel=(("time", "2020-02/2020-04"),))
    return Case(part, {"t2m": ds["t2m"].values[1:4]}, lossy=("t2m",))


def some_labels(tmp: Path) -> Case:
    path = save(fields(t2m=temperature()), tmp / "a.nc")
    part = Request((str(path),), sel=(("lon", "0,45,337.5"), ("lat", "-30/30")), isel=(("time", "::2"),))
    with xr.open_dataset(path, decode_times=False) as ds:
        rows = np.flatnonzero(np.abs(ds["lat"].values) <= 30)
        wanted = temperature()[::2][:, rows][:, :, [0, 2, 15]]
    return Case(part, {"t2m": wanted}, lossy=("t2m",))


def references_of_kerchunk(tmp: Path) -> Case:
    path = save_reference(save(fields(t2m=temperature()), tmp / "a.nc"), tmp / "ref.json")
    return Case(str(path), {"t2m": temperature(), "time": 6.0 * np.arange(3)}, lossy=("t2m",))


def a_file_url(tmp: Path) -> Case:
    path = save(fields(t2m=temperature()), tmp / "a b.nc")
    return Case(path.as_uri(), {"t2m": temperature()}, lossy=("t2m",))


def zipped_files(tmp: Path) -> Case:
    with zipfile.ZipFile(tmp / "a.zip", "w") as archive:
        for path in days(tmp, 2):
            archive.write(path, f"../{path.name}")
    return Case(str(tmp / "a.zip"), {"t2m": all_days(2)}, lossy=("t2m",))


def a_packed_file(tmp: Path) -> Case:
    path = save(fields(t2m=temperature()), tmp / "a.nc")
    (tmp / "a.nc.gz").write_bytes(gzip.compress(path.read_bytes()))
    return Case(str(tmp / "a.nc.gz"), {"t2m": temperature()}, lossy=("t2m",))


def a_file_of_hdf5(tmp: Path) -> Case:
    import h5py

    with h5py.File(tmp / "a.h5", "w") as file:
        file["x"] = temperature()
        file["deep/er/y"] = temperature(2)
        file["x"].attrs["units"] = "K"
    return Case(str(tmp / "a.h5"), {"x": temperature(), "deep/er/y": temperature(2)}, lossy=("x", "deep/er/y"))


def chunks_that_are_not_there(tmp: Path) -> Case:
    fields(t2m=temperature()).to_zarr(tmp / "a.zarr", encoding={"t2m": {"chunks": (1, *SHAPE[1:])}}, consolidated=False)
    shutil.rmtree(tmp / "a.zarr" / "t2m" / "c" / "1")
    wanted = temperature()
    wanted[1] = np.nan
    return Case(str(tmp / "a.zarr"), {"t2m": wanted}, ("t2m: 1 of 3 chunks are not there; they read as",), ("t2m",))


CASES = (
    netcdf_groups,
    zarr_groups,
    a_list_of_files,
    a_folder,
    a_pattern,
    files_that_count_time_from_their_own_day,
    a_gap,
    attributes_that_differ,
    files_that_are_packed_each_in_its_own_way,
    other_variables_in_other_files,
    grib_files,
    some_variables,
    some_months,
    some_labels,
    references_of_kerchunk,
    a_file_url,
    zipped_files,
    a_packed_file,
    a_file_of_hdf5,
    chunks_that_are_not_there,
)
