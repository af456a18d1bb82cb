"""Missing values, packed numbers and what must stay exact, each with its right values."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tests.datasets import smooth
from tests.format.sources import HOLE, LAKE, SHAPE, Case, fields, filled, masked, save, save_raw, temperature


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


CASES = (
    two_fill_values,
    several_missing_values,
    a_fill_value_in_double_precision,
    missing_values_as_text,
    a_fill_value_that_the_type_cannot_hold,
    holes_of_both_kinds,
    packed_shorts,
    unsigned_bytes,
    packed_flags,
    sentinels,
    what_stays_exact,
)
