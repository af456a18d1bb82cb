"""Sources as people have them: everything arrives, exact or within its bound, and whatever is unusual is said."""

import bz2
import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.report.records import StoreReport
from isopress.format.source.damage import check_grib
from isopress.format.source.dataset import Request
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from tests.datasets import errors, raw, smooth
from tests.format import file_cases, grib_cases, packing_cases
from tests.format.file_cases import a_packed_file, day_of, days
from tests.format.sources import (
    BOUND,
    SHAPE,
    Case,
    fields,
    filled,
    grib_field,
    save,
    save_grib,
    save_raw,
    temperature,
)

CASES = {
    build.__name__.replace("_", " "): build for build in (*grib_cases.CASES, *packing_cases.CASES, *file_cases.CASES)
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore:variable .* has multiple fill values:xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:variable .* has non-conforming:xarray.SerializationWarning"),
]


def check(case: Case, out: Path) -> StoreReport:
    """Compress, compare every value with what it should be, verify; return the report."""
    report = write(case.source, out, errors=errors(*case.errors))
    assert len(report.warnings) == len(case.warnings), report.warnings
    for warning, text in zip(report.warnings, case.warnings, strict=True):
        assert text in warning
    for name, wanted in case.values.items():
        group, _, short = name.rpartition("/")
        with xr.open_zarr(out, group=group or None, decode_times=False, decode_timedelta=False) as ds:
            found = ds[short].values
            attrs = ds[short].attrs
        assert found.shape == wanted.shape, name
        assert np.array_equal(np.isnan(found), np.isnan(wanted)), name
        largest = float(np.nanmax(np.abs(found.astype("f8") - wanted.astype("f8")), initial=0))
        if name in case.lossy:
            assert largest <= BOUND * (1 + 1e-6), name
            assert attrs["isopress_error"] == f"abs:{BOUND}"
        else:
            assert largest == 0, name
            assert "isopress_error" not in attrs, name
    assert {key: report.read[key] for key in case.read} == case.read
    assert verify(out, case.source).kept
    return report


@pytest.mark.parametrize("name", CASES)
def test_everything_arrives_and_what_is_unusual_is_said(name: str, tmp_path: Path) -> None:
    check(CASES[name](tmp_path), tmp_path / "out.zarr")


def test_a_sentinel_comes_back_bit_by_bit_and_does_not_count_in_a_range(tmp_path: Path) -> None:
    x = filled(temperature(), -9999)
    path = save_raw(tmp_path / "a.nc", x, units="furlong")
    for wanted in ("range:1e-3", "rmse:0.5", "pointwise:0.1%"):
        report = write(str(path), tmp_path / "out.zarr", errors=errors(wanted), overwrite=True)
        found = raw(tmp_path / "out.zarr")["x"].values
        assert np.array_equal(found == -9999, x == -9999), wanted
        assert verify(tmp_path / "out.zarr", str(path)).kept
        if wanted == "range:1e-3":
            bound = report.variables[0].bound
            assert bound is not None
            assert bound.value == pytest.approx(1e-3 * float(np.ptp(x[x > 0])), rel=1e-6)
            assert np.abs(found - x).max() <= bound.value


# What is refused, and how


def overlapping_days(tmp: Path) -> str:
    days(tmp, 2)
    shutil.copy(tmp / "days" / "t2m-1.nc", tmp / "days" / "t2m-2.nc")
    return str(tmp / "days")


def days_in_other_units(tmp: Path) -> str:
    with netCDF4.Dataset(days(tmp, 2)[1], "a") as file:
        file["t2m"].units = "degC"
    return str(tmp / "days")


def days_on_another_grid(tmp: Path) -> str:
    with xr.open_dataset(days(tmp, 2)[1], decode_cf=False) as ds:
        part = ds.isel(lat=slice(2, None)).load()
    save(part, tmp / "days" / "t2m-1.nc")
    return str(tmp / "days")


def days_with_other_variables(tmp: Path) -> str:
    days(tmp, 2)
    save(
        fields(t2m=day_of(5), more=day_of(6)).assign(
            time=("time", 24.0 * 5 + np.arange(4), {"units": "hours since 2020-01-01"})
        ),
        tmp / "days" / "x.nc",
    )
    return str(tmp / "days")


def cut(path: Path, share: float) -> str:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return str(path)


def a_chunk_of_rubbish(tmp: Path) -> str:
    x = temperature(1, (40, 60, 60))
    with netCDF4.Dataset(tmp / "a.nc", "w") as file:
        for name, size in zip("tyx", x.shape, strict=True):
            file.createDimension(name, size)
        file.createVariable("temp", "f4", tuple("tyx"), zlib=True, fletcher32=True, chunksizes=(10, 60, 60))[:] = x
    data = bytearray((tmp / "a.nc").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    (tmp / "a.nc").write_bytes(data)
    return str(tmp / "a.nc")


def lists_of_varying_length(tmp: Path) -> str:
    with netCDF4.Dataset(tmp / "a.nc", "w") as file:
        file.createDimension("x", 2)
        kind = file.createVLType(np.int32, "lists")
        file.createVariable("profile", kind, ("x",))[0] = np.arange(3, dtype="i4")
    return str(tmp / "a.nc")


def a_few_values_far_from_all_others(tmp: Path) -> str:
    x = temperature(1, (4, 30, 40))
    x[0, 0, :3] = 1.7e6, 2.3e6, 2.9e6
    return str(save_raw(tmp / "a.nc", x, units="furlong"))


def two_messages_of_one_place(tmp: Path) -> str:
    return str(save_grib(tmp / "a.grib2", grib_field(280, shortName="2t"), grib_field(290, shortName="2t")))


REFUSED: dict[str, tuple[Callable[[Path], str | Request], str]] = {
    "overlap": (
        overlapping_days,
        r"t2m-2\.nc overlap along time: 2020-01-02T18:00:00 comes before 2020-01-02T00:00:00",
    ),
    "units": (days_in_other_units, r"t2m-1\.nc: t2m is in 'degC', in .*t2m-0\.nc in 'K'"),
    "grid": (days_on_another_grid, "differ along .*lat"),
    "variables": (days_with_other_variables, "both have t2m, but only one has more"),
    "NetCDF-3": (
        lambda tmp: cut(save(fields(t2m=temperature()), tmp / "a.nc", format="NETCDF3_CLASSIC", engine="netcdf4"), 0.6),
        r"a\.nc: has \d+ bytes, but t2m ends at byte \d+",
    ),
    "HDF5": (lambda tmp: cut(save(fields(t2m=temperature()), tmp / "a.nc"), 0.6), r"a\.nc: not a dataset"),
    "GRIB": (
        lambda tmp: cut(
            save_grib(tmp / "a.grib", grib_field(280, shortName="2t"), grib_field(5, shortName="10u")), 0.9
        ),
        r"a\.grib: message 2 at byte \d+ is not complete",
    ),
    "chunk": (a_chunk_of_rubbish, r"a\.nc: temp cannot be read"),
    "gzip": (lambda tmp: cut(Path(a_packed_file(tmp).source), 0.5), "cannot be unpacked"),  # type: ignore[arg-type]
    "text": (
        lambda tmp: str(save_raw(tmp / "a.nc", temperature(), scale_factor="0.01")),
        "x: its scale_factor is '0.01', not a finite number",
    ),
    "lists": (lists_of_varying_length, "profile"),
    "range": (a_few_values_far_from_all_others, "x: bound .* furlong exceeds .*; give a bound with --error x="),
    "messages": (two_messages_of_one_place, "2 different messages of 2t have the same coordinates"),
    "package": (lambda tmp: "abfs://bucket/a.zarr", "needs adlfs; pip install adlfs"),
    "nothing": (lambda tmp: str(tmp / "*.nc"), "no file matches"),
    "empty folder": (lambda tmp: str(tmp), "no NetCDF, GRIB or CRA5 file"),
    "variable": (
        lambda tmp: Request((str(save(fields(t2m=temperature()), tmp / "a.nc")),), ("q",)),
        "'q': not in the source",
    ),
    "label": (
        lambda tmp: Request((str(save(fields(t2m=temperature()), tmp / "a.nc")),), (), (("time", "2031"),)),
        "sel time=2031: nothing at '2031'; time goes from 2020-01-01",
    ),
    "place": (
        lambda tmp: Request((str(save(fields(t2m=temperature()), tmp / "a.nc")),), (), (), (("time", "7"),)),
        "isel time=7: not places along time, which has 3",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    build, reason = REFUSED[name]
    with pytest.raises(ArgumentError, match=reason):
        write(build(tmp_path), tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("size", [(2500, 1500), (2500, 2400)])
def test_large_messages_of_grib_1_are_measured_right(size: tuple[int, int], tmp_path: Path) -> None:
    keys = {"Ni": size[0], "Nj": size[1], "bitsPerValue": 24}  # 11 MB, and 18 MB, beyond what the length can say
    path = save_grib(tmp_path / "a.grib", (np.linspace(0, 1, size[0] * size[1]), keys), sample="regular_ll_sfc_grib1")
    assert check_grib(str(path)) == 1
    with pytest.raises(ArgumentError, match="message 1 at byte 0 is not complete"):
        check_grib(cut(path, 0.999))


def test_a_bound_that_wipes_out_most_values_is_reported_and_strict_makes_that_an_error(tmp_path: Path) -> None:
    rain = np.maximum(smooth(SHAPE, 2), 0).astype("f4") * np.float32(1e-3)
    path = save(fields(tp=rain).assign_attrs(), tmp_path / "a.nc")
    with netCDF4.Dataset(path, "a") as file:
        file["tp"].units = "m"
    report = write(str(path), tmp_path / "out.zarr", errors=errors("0.1"))
    assert report.warnings == ("tp: bound 0.1 m exceeds 99 % of all values",)
    assert report.to_dict()["warnings"] == list(report.warnings)
    with pytest.raises(ArgumentError, match="1 warnings, which --strict makes errors"):
        write(str(path), tmp_path / "strict.zarr", errors=errors("0.1"), strict=True)
    assert write(str(path), tmp_path / "preset.zarr", strict=True).warnings == ()


def test_who_names_a_variable_that_is_exact_by_its_name_alone_gets_the_bound(tmp_path: Path) -> None:
    path = save(fields(lsm=np.abs(smooth(SHAPE, 5))), tmp_path / "a.nc")
    write(str(path), tmp_path / "exact.zarr")
    assert "isopress_error" not in raw(tmp_path / "exact.zarr")["lsm"].attrs
    write(str(path), tmp_path / "bound.zarr", errors=errors("lsm=0.01"))
    assert raw(tmp_path / "bound.zarr")["lsm"].attrs["isopress_error"] == "abs:0.01"
    assert verify(tmp_path / "bound.zarr", str(path)).kept


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder by HTTP; yield its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_file_behind_a_url_is_read(tmp_path: Path) -> None:
    path = save(fields(t2m=temperature()), tmp_path / "a.nc")
    (tmp_path / "b.nc.bz2").write_bytes(bz2.compress(path.read_bytes()))
    with served(tmp_path) as url:
        for name in ("a.nc", "b.nc.bz2"):
            check(Case(f"{url}/{name}", {"t2m": temperature()}, lossy=("t2m",)), tmp_path / f"{name}.zarr")
        with pytest.raises(ArgumentError, match=r"none\.nc: cannot be read"):
            write(f"{url}/none.nc", tmp_path / "none.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_long_series_at_a_point_are_as_small_as_series_alone(zarr_format: Any, tmp_path: Path) -> None:
    hours = np.arange(20_000)
    x = 280 + 10 * np.sin(hours / 24 * 2 * np.pi) + np.cumsum(np.random.default_rng(0).normal(0, 0.1, hours.size))
    shapes = {("time",): (-1,), ("time", "lat", "lon"): (-1, 1, 1), ("time", "n", "y", "x"): (-1, 2, 1, 1)}
    variables = {f"x{len(dims)}": (dims, x.astype("f4").reshape(shape)) for dims, shape in shapes.items()}
    variables["x4"] = (("pairs", *variables["x4"][0][1:]), variables["x4"][1])
    source = save(xr.Dataset(variables), tmp_path / "a.nc")
    report = write(str(source), tmp_path / "out.zarr", errors=errors("0.1"), zarr_format=zarr_format)
    assert verify(tmp_path / "out.zarr", str(source)).kept
    nbytes = [variable.stored_nbytes for variable in report.variables]
    assert max(nbytes) <= 1.2 * nbytes[0]
