"""Inputs as people have them, each with its right values and what is to be said of it."""

import gzip
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from isopress.format.source.dataset import Request, open_source
from tests.datasets import smooth
from tests.format.sources import (
    SHAPE,
    Array,
    fields,
    grib_field,
    save,
    save_grib,
    save_raw,
    save_reference,
    temperature,
)

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


# GRIB


def mixed_levels(tmp: Path) -> Case:
    messages = {
        "t2m": grib_field(280, shortName="2t"),
        "u10": grib_field(5, shortName="10u"),
        "v10": grib_field(3, shortName="10v"),
        "t": grib_field(250, shortName="t", typeOfLevel="isobaricInhPa", level=500),
        "sp": grib_field(1013, shortName="sp"),
    }
    values = {name: x for name, (x, _) in messages.items()}
    return Case(str(save_grib(tmp / "a.grib2", *messages.values())), values, lossy=tuple(values), read={"messages": 5})


def the_same_name_on_other_levels(tmp: Path) -> Case:
    levels = [
        grib_field(base, shortName="t", typeOfLevel="isobaricInhPa", level=p) for base, p in ((250, 500), (270, 850))
    ]
    ground = grib_field(280, shortName="t", typeOfLevel="surface")
    values = {
        "t": np.stack([levels[1][0], levels[0][0]]),
        "t_surface": ground[0],
        "isobaricInhPa": np.array([850.0, 500.0]),
    }
    return Case(
        str(save_grib(tmp / "a.grib2", ground, *levels)), values, lossy=("t", "t_surface"), read={"messages": 3}
    )


def other_sets_of_levels(tmp: Path) -> Case:
    t = [grib_field(250 + p / 100, shortName="t", typeOfLevel="isobaricInhPa", level=p) for p in (500, 850)]
    q = [grib_field(50 + p / 100, shortName="r", typeOfLevel="isobaricInhPa", level=p) for p in (300, 500, 850)]
    values = {
        "t": np.stack([t[1][0], t[0][0]]),
        "r": np.stack([q[2][0], q[1][0], q[0][0]]),
        "isobaricInhPa": np.array([850.0, 500.0]),
        "isobaricInhPa_r": np.array([850.0, 500.0, 300.0]),
    }
    return Case(str(save_grib(tmp / "a.grib2", *t, *q)), values, lossy=("t", "r"), read={"messages": 5})


def other_sets_of_steps(tmp: Path) -> Case:
    t = [grib_field(280 + step, shortName="2t", step=step) for step in (0, 6, 12)]
    rain = [
        grib_field(20 + step, shortName="tp", stepType="accum", startStep=0, endStep=step, typeOfLevel="surface")
        for step in (6, 12)
    ]
    values = {
        "t2m": np.stack([x for x, _ in t]),
        "tp": np.stack([x for x, _ in rain]),
        "step": np.array([0.0, 6.0, 12.0]),
        "step_tp": np.array([6.0, 12.0]),
    }
    return Case(str(save_grib(tmp / "a.grib2", *t, *rain)), values, lossy=("t2m", "tp"), read={"messages": 5})


def accumulations_that_end_together(tmp: Path) -> Case:
    rain = [
        grib_field(20 + start, shortName="tp", stepType="accum", startStep=start, endStep=6, typeOfLevel="surface")
        for start in (0, 3)
    ]
    values = {"tp": rain[0][0], "tp_startStep3": rain[1][0]}
    return Case(str(save_grib(tmp / "a.grib2", *rain)), values, lossy=tuple(values), read={"messages": 2})


def an_ensemble(tmp: Path) -> Case:
    keys = {"shortName": "2t", "productDefinitionTemplateNumber": 1, "numberOfForecastsInEnsemble": 3}
    members = [grib_field(280 + n, **keys, perturbationNumber=n) for n in (0, 1, 2)]
    values = {"t2m": np.stack([x for x, _ in members]), "number": np.array([0, 1, 2])}
    return Case(str(save_grib(tmp / "a.grib2", *members)), values, lossy=("t2m",), read={"messages": 3})


def a_message_that_is_there_twice(tmp: Path) -> Case:
    message = grib_field(280, shortName="2t")
    return Case(
        str(save_grib(tmp / "a.grib2", message, message)),
        {"t2m": message[0]},
        ("1 messages are in the file twice, byte for byte",),
        ("t2m",),
        read={"messages": 2},
    )


def a_field_that_is_missing_in_a_cube(tmp: Path) -> Case:
    fields_of = {
        (p, step): grib_field(250 + step, shortName="t", typeOfLevel="isobaricInhPa", level=p, step=step)
        for p, step in ((500, 0), (850, 0), (850, 6))
    }
    none = np.full((19, 36), np.nan)
    values = {
        "t": np.stack(
            [
                np.stack([fields_of[850, 0][0], fields_of[500, 0][0]]),
                np.stack([fields_of[850, 6][0], none]),
            ]
        )
    }
    return Case(str(save_grib(tmp / "a.grib2", *fields_of.values())), values, ("1 of its 4 fields are not in",), ("t",))


def times_and_steps_on_a_diagonal(tmp: Path) -> Case:
    messages = [grib_field(280 + n, shortName="2t", dataDate=20200101 + n, dataTime=0, step=6 * n) for n in range(4)]
    values = {"t2m": np.stack([x for x, _ in messages]), "step": 6.0 * np.arange(4)}
    return Case(str(save_grib(tmp / "a.grib2", *messages)), values, lossy=("t2m",), read={"messages": 4})


def spectral_coefficients(tmp: Path) -> Case:
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("sh_ml_grib2")
    size = eccodes.codes_get_size(handle, "values")
    eccodes.codes_release(handle)
    x = np.random.default_rng(0).normal(0, 1, size) / (1 + np.arange(size))
    x[0] = 280
    path = save_grib(tmp / "a.grib2", (x, {"shortName": "t", "bitsPerValue": 24}), sample="sh_ml_grib2")
    with open_source(str(path)) as source:
        stored = source.read("t", (slice(None),))
        assert source.reasons["t"] == ("spectral coefficients", True)
    return Case(str(path), {"t": stored}, read={"messages": 1})


def a_reduced_gaussian_grid(tmp: Path) -> Case:
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("reduced_gg_pl_32_grib2")
    size, latitudes = eccodes.codes_get_size(handle, "values"), eccodes.codes_get_array(handle, "latitudes")
    eccodes.codes_set_values(handle, 280 + 10 * np.cos(np.radians(latitudes)))
    with open(tmp / "a.grib2", "wb") as file:
        eccodes.codes_write(handle, file)
    eccodes.codes_release(handle)
    assert size == latitudes.size
    return Case(
        str(tmp / "a.grib2"), {"t": 280 + 10 * np.cos(np.radians(latitudes)), "latitude": latitudes}, lossy=("t",)
    )


# Missing values and packing


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


def two_fill_values(tmp: Path) -> Case:
    x = filled(temperature(), 9.96921e36, -999)
    path = save_raw(tmp / "a.nc", x, fill=np.float32(9.96921e36), missing_value=np.float32(-999), units="K")
    return Case(str(path), {"x": masked(temperature(), HOLE, LAKE)}, ("2 values mean missing",), ("x",))


def several_missing_values(tmp: Path) -> Case:
    x = filled(temperature(), -1e9, -888)
    path = save_raw(tmp / "a.nc", x, missing_value=np.array([-1e9, -888, 7e7], "f4"), units="K")
    return Case(str(path), {"x": masked(temperature(), HOLE, LAKE)}, ("3 values mean missing",), ("x",))


def a_fill_value_in_double_precision(tmp: Path) -> Case:
    path = save_raw(tmp / "a.nc", filled(temperature(), 1e20), missing_value=np.float64(1e20), units="K")
    return Case(str(path), {"x": masked(temperature(), HOLE)}, (), ("x",))


def a_fill_value_that_the_type_cannot_hold(tmp: Path) -> Case:
    x = np.round(100 * (temperature() - 280)).astype("i2")
    path = save_raw(tmp / "a.nc", x, missing_value=np.float64(1e20), scale_factor=0.01, add_offset=280.0, units="K")
    return Case(str(path), {"x": x * 0.01 + 280}, ("is no int16, so no value can equal it",), ("x",))


def missing_values_as_text(tmp: Path) -> Case:
    path = save_raw(tmp / "a.nc", filled(temperature(), -999), missing_value="-999", units="K")
    return Case(str(path), {"x": masked(temperature(), HOLE)}, (), ("x",))


def holes_of_both_kinds(tmp: Path) -> Case:
    path = save_raw(tmp / "a.nc", filled(temperature(), -999, np.nan), fill=np.float32(-999), units="K")
    return Case(str(path), {"x": masked(temperature(), HOLE, LAKE)}, (), ("x",))


def packed_shorts(tmp: Path) -> Case:
    x = np.round(100 * (temperature() - 280)).astype("i2")
    x[HOLE] = -32767
    path = save_raw(tmp / "a.nc", x, fill=np.int16(-32767), scale_factor=0.01, add_offset=280.0, units="K")
    return Case(str(path), {"x": masked(np.where(x > -32767, x * 0.01 + 280, 0), HOLE)}, (), ("x",))


def unsigned_bytes(tmp: Path) -> Case:
    x = np.round(10 * (temperature() - 265)).clip(0, 250).astype("u1")
    x[HOLE] = 255
    attrs = {"_Unsigned": "true", "scale_factor": 0.1, "add_offset": 265.0, "units": "K"}
    path = save_raw(tmp / "a.nc", x.view("i1"), fill=np.int8(-1), **attrs)
    return Case(str(path), {"x": masked(np.where(x < 255, x * 0.1 + 265, 0), HOLE)}, (), ("x",))


def packed_flags(tmp: Path) -> Case:
    x = (np.arange(np.prod(SHAPE)) % 3).astype("i2").reshape(SHAPE)
    attrs = {"scale_factor": 0.5, "flag_values": np.array([0, 1, 2], "i2"), "flag_meanings": "a b c"}
    return Case(str(save_raw(tmp / "a.nc", x, **attrs)), {"x": x * 0.5})


SENTINELS = (
    *((1e20, "f4"), (9.96921e36, "f4"), (-9999.0, "f4"), (-32767.0, "f4"), (1e15, "f4"), (-99999.0, "f8")),
    *((1e30, "f8"), (-7777.7, "f8"), (3.4028234663852886e38, "f4")),
)


def sentinels(tmp: Path) -> Case:
    values = {f"x{i}": filled(temperature().astype(dtype), value) for i, (value, dtype) in enumerate(SENTINELS)}
    ds = xr.Dataset({name: (("time", "lat", "lon"), x, {"units": "furlong"}) for name, x in values.items()})
    said = [f"x{i}: {np.dtype(dtype).type(value):g} (4.7% of the values)" for i, (value, dtype) in enumerate(SENTINELS)]
    return Case(str(save(ds, tmp / "a.nc")), values, tuple(said), tuple(values))


# What stays exact


YX = ("lat", "lon")
GRID = (40 + smooth(SHAPE[1:], 7)).astype("f4")
CELLS = np.linspace(-1.57, 1.57, 500, dtype="f4")
LEVELS = 20000 * np.sin(np.linspace(0, np.pi, 138)) ** 1.5
TIME_BOUNDS = (("time", "bnds"), np.array([[0.0, 6.0], [6.0, 12.0], [12.0, 18.1]]), {})
TERMS = "a: lev b: b orog: orog"

EXACT: dict[str, dict[str, Any]] = {
    "latitudes of a rotated grid by units": {"position": (YX, GRID, {"units": "degrees_north"})},
    "latitudes by standard name": {"p1": (YX, GRID, {"standard_name": "latitude"})},
    "axis attribute": {"p2": (("lat",), GRID[:, 0], {"axis": "Y"})},
    "WRF": {
        "XLAT": (("time", *YX), np.stack([GRID] * 3), {}),
        "XLONG_U": (YX, GRID, {}),
        "ZNU": (("z",), CELLS[:30], {}),
    },
    "NEMO": {
        "nav_lat": (YX, GRID, {}),
        "glamt": (YX, GRID, {}),
        "e1t": (YX, GRID, {"units": "m"}),
        "tmask": (YX, GRID, {}),
    },
    "MPAS": {"latCell": (("cell",), CELLS, {"units": "radian"}), "xCell": (("cell",), CELLS, {"units": "m"})},
    "ICON": {"clat": (("cell",), CELLS, {}), "clon_vertices": (("cell", "nv"), np.stack([CELLS] * 3, 1), {})},
    "ROMS": {"lat_rho": (YX, GRID, {}), "Cs_r": (("s",), CELLS[:30], {}), "mask_rho": (YX, GRID, {})},
    "CESM": {"TLAT": (YX, GRID, {}), "ULONG": (YX, GRID, {}), "TAREA": (YX, GRID, {"units": "cm^2"})},
    "hybrid levels": {n: (("nhyi",), LEVELS, {"units": "Pa"}) for n in ("hyai", "hybi", "ak", "bk")},
    "bounds by name": {"time_bnds": TIME_BOUNDS, "lat_vertices": (("lat", "nv"), np.stack([GRID[:, 0]] * 4, 1), {})},
    "cell areas": {"areacello": (YX, GRID, {"units": "m2"}), "a1": (YX, GRID, {"standard_name": "cell_area"})},
    "masks": {"land_mask": (YX, GRID, {}), "m1": (YX, GRID, {"standard_name": "land_binary_mask"})},
    "orography of a vertical coordinate": {
        "lev": (("lev",), CELLS[:30], {"formula_terms": TERMS}),
        "b": (("lev",), CELLS[:30], {}),
        "orog": (YX, GRID, {"units": "m"}),
    },
    "spectral coefficients of CDO": {"vo": (("nsp", "c"), np.stack([CELLS] * 2, 1), {"CDI_grid_type": "spectral"})},
}


def what_stays_exact(tmp: Path) -> Case:
    """Floats that must not change, in a group for each kind of model, beside a temperature that may."""
    groups = {"/": fields(t2m=temperature()).drop_vars(["lat", "lon"])}
    wanted = {"t2m": temperature()}
    for number, values in enumerate(EXACT.values()):
        ds = xr.Dataset({name: (dims, x, attrs) for name, (dims, x, attrs) in values.items()})
        groups[f"/g{number}"] = ds.rename(
            {dim: f"{dim}{number}" for dim in ds.dims if dim not in ds}
        )  # its own lengths
        wanted |= {f"g{number}/{name}": x for name, (_, x, _) in values.items()}
    xr.DataTree.from_dict(groups).to_netcdf(tmp / "a.nc")
    return Case(str(tmp / "a.nc"), wanted, lossy=("t2m",))


# Groups, several files, parts, ways of packing files


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


CASES: dict[str, Callable[[Path], Case]] = {
    build.__name__.replace("_", " "): build
    for build in (
        *(mixed_levels, the_same_name_on_other_levels, other_sets_of_levels, other_sets_of_steps, an_ensemble),
        *(accumulations_that_end_together, a_message_that_is_there_twice, a_field_that_is_missing_in_a_cube),
        *(times_and_steps_on_a_diagonal, spectral_coefficients, a_reduced_gaussian_grid),
        *(two_fill_values, several_missing_values, a_fill_value_in_double_precision, missing_values_as_text),
        *(a_fill_value_that_the_type_cannot_hold, holes_of_both_kinds, packed_shorts, unsigned_bytes, packed_flags),
        *(sentinels, what_stays_exact),
        *(netcdf_groups, zarr_groups, a_list_of_files, a_folder, a_pattern, files_that_count_time_from_their_own_day),
        *(a_gap, attributes_that_differ, files_that_are_packed_each_in_its_own_way, other_variables_in_other_files),
        *(grib_files, some_variables, some_months, some_labels, references_of_kerchunk, a_file_url, zipped_files),
        *(a_packed_file, a_file_of_hdf5, chunks_that_are_not_there),
    )
}
