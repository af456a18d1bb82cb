"""What `decompress` gives back besides values: order, dimensions, groups, types, filters, attributes."""

import resource
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.source.dataset import Request
from isopress.format.store.restore import restore
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from tests.datasets import errors, raw
from tests.format.file_cases import netcdf_groups
from tests.format.packing_cases import (
    holes_of_both_kinds,
    missing_values_as_text,
    packed_shorts,
    two_fill_values,
    unsigned_bytes,
)
from tests.format.sources import HOLE, SHAPE, fields, save, save_raw, temperature

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore:variable .* has multiple fill values:xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:variable .* has non-conforming:xarray.SerializationWarning"),
]

DIMS = ("time", "lat", "lon")
FILTERS: dict[str, dict[str, Any]] = {
    "zlib": {"compression": "zlib", "complevel": 6},
    "zstd": {"compression": "zstd"},
    "szip": {"compression": "szip", "szip_coding": "ec", "szip_pixels_per_block": 16},
    "bzip2": {"compression": "bzip2"},
    "lz4": {"compression": "blosc_lz4", "blosc_shuffle": 2},
    "none": {},
}


def variable(group: Any, name: str, x: Any, dims: tuple[str, ...] = DIMS, fill: Any = None, **attrs: Any) -> None:
    made = group.createVariable(name, x.dtype, dims, fill_value=fill)
    made.set_auto_maskandscale(False)
    made.setncatts(attrs)
    made[:] = x


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of all that readers tend to lose."""
    path = tmp_path_factory.mktemp("restore") / "a [1] ü.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"small": np.int8(3), "large": np.uint64(2**63), "list": ["a", "b"], "half": np.float32(0.5)})
        for name, size in (("unused", 7), ("time", None), ("lat", SHAPE[1]), ("n", 5), ("lon", SHAPE[2])):
            file.createDimension(name, size)
        variable(file, "time", np.array([0.0, 29, 30]), ("time",), units="days since 2000-02-29", calendar="360_day")
        for name, options in FILTERS.items():
            file.createVariable(f"with {name}", "f4", DIMS, chunksizes=(1, 6, 16), **options)[:] = temperature()
        variable(file, "lat", np.linspace(90, -90, SHAPE[1]), ("lat",), units="degrees_north")
        counts = np.arange(np.prod(SHAPE), dtype="u8").reshape(SHAPE) + 2**63
        variable(file, "counts", counts, fill=np.uint64(2**64 - 1))
        clouds = file.createEnumType(np.uint8, "clouds", {"clear": 0, "cloudy": 1, "unknown": 255})
        file.createVariable("cloud", clouds, DIMS, fill_value=255)[:] = np.ones(SHAPE, "u1")
        variable(file, "station", np.array([list("abcde")] * 3, "S1"), ("time", "n"), _Encoding="utf-8")
        file.createVariable("names", str, ("time",))[:] = np.array(["å", "", "long " * 20], object)
        variable(file, "nothing", np.float64(np.nan), ())
        group = file.createGroup("forecast")
        variable(group, "t2m", temperature(2), units="K")  # along dimensions of the root
        group.createGroup("empty").note = "nothing but this"
        file.createGroup("bare")
    return path


def assert_alike(a: Any, b: Any) -> None:
    """Compare two groups of NetCDF files in all that they list."""
    assert [(k, len(v), v.isunlimited()) for k, v in a.dimensions.items() if not v.isunlimited()] == [
        (k, len(v), v.isunlimited()) for k, v in b.dimensions.items() if not v.isunlimited()
    ]
    assert {k for k, v in a.dimensions.items() if v.isunlimited()} == {
        k for k, v in b.dimensions.items() if v.isunlimited()
    }
    assert_same_attributes(a, b)
    assert list(a.variables) == list(b.variables)
    for name, x in a.variables.items():
        y = b[name]
        assert (x.dtype, x.dimensions, x.filters(), x.chunking()) == (y.dtype, y.dimensions, y.filters(), y.chunking())
        assert type(x.datatype) is type(y.datatype)
        assert getattr(x.datatype, "enum_dict", None) == getattr(y.datatype, "enum_dict", None)
        assert_same_attributes(x, y)
        np.testing.assert_array_equal(np.asarray(x[...]), np.asarray(y[...]), err_msg=name)
    assert set(a.groups) == set(b.groups)
    for name in a.groups:
        assert_alike(a[name], b[name])


def assert_same_attributes(a: Any, b: Any) -> None:
    assert set(a.ncattrs()) == set(b.ncattrs()), a.name
    for key in a.ncattrs():
        x, y = np.asarray(a.getncattr(key)), np.asarray(b.getncattr(key))
        assert (x.dtype.kind, x.dtype.itemsize) == (y.dtype.kind, y.dtype.itemsize) or x.dtype.kind in "US", key
        np.testing.assert_array_equal(x, y, err_msg=key)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_file_comes_back_as_it_was(file: Path, zarr_format: Any, tmp_path: Path) -> None:
    write(str(file), tmp_path / "out.zarr", errors=errors("lossless"), zarr_format=zarr_format)
    assert verify(tmp_path / "out.zarr", str(file)).kept
    restore(tmp_path / "out.zarr", tmp_path / "back.nc")
    with netCDF4.Dataset(file) as a, netCDF4.Dataset(tmp_path / "back.nc") as b:
        assert_alike(a, b)


def test_a_part_of_a_file_has_the_dimensions_of_that_part(file: Path, tmp_path: Path) -> None:
    write(Request((str(file),), ("with zlib",), (("time", "2000-03-29/2001"),)), tmp_path / "out.zarr")
    restore(tmp_path / "out.zarr", tmp_path / "back.nc")
    with netCDF4.Dataset(tmp_path / "back.nc") as back:
        assert {name: len(dim) for name, dim in back.dimensions.items()} == {"time": 1, "lat": 12, "lon": 16}


def test_what_zarr_has_and_netcdf_has_not_becomes_what_is_nearest_or_is_refused(tmp_path: Path) -> None:
    ds = fields(t2m=temperature())
    ds.attrs = {"flag": True, "none": None, "nested": {"a": [1, 2]}, "flags": [True, False]}
    ds["half"] = ds["t2m"].astype("f2")
    ds.to_zarr(tmp_path / "a.zarr", consolidated=False)
    write(str(tmp_path / "a.zarr"), tmp_path / "out.zarr")
    restore(tmp_path / "out.zarr", tmp_path / "back.nc")
    with netCDF4.Dataset(tmp_path / "back.nc") as back:
        assert (back.flag, back.none, back.nested, back.flags.tolist()) == (1, "null", '{"a": [1, 2]}', [1, 0])
        np.testing.assert_array_equal(back["half"][:], ds["half"].values)
    ds.assign(waves=ds["t2m"].astype("c8")).to_zarr(tmp_path / "b.zarr", consolidated=False)
    write(str(tmp_path / "b.zarr"), tmp_path / "waves.zarr")
    with pytest.raises(ArgumentError, match=r"waves: complex numbers have no place in NetCDF"):
        restore(tmp_path / "waves.zarr", tmp_path / "waves.nc")
    restore(tmp_path / "waves.zarr", tmp_path / "plain.zarr")
    with xr.open_zarr(tmp_path / "plain.zarr") as plain:
        assert plain["waves"].dtype == np.complex64


def test_ranges_of_unsigned_numbers_in_signed_types_hide_nothing(tmp_path: Path) -> None:
    x = np.round(10 * (temperature() - 265)).clip(0, 250).astype("u1").view("i1")
    attrs = {"_Unsigned": "true", "scale_factor": 0.1, "add_offset": 265.0, "valid_range": np.array([0, -6], "i1")}
    path = save_raw(tmp_path / "a.nc", x, fill=np.int8(-1), **attrs)
    write(str(path), tmp_path / "out.zarr", errors=errors("0.1"))
    low, high = raw(tmp_path / "out.zarr")["x"].attrs["valid_range"]
    assert low <= 265
    assert 290 <= high < 291


def test_a_second_missing_value_that_nobody_declared_does_not_take_the_declared_one_away(tmp_path: Path) -> None:
    x = temperature()
    x[:, :2], x[:, 3] = 1e20, -9999
    path = save_raw(tmp_path / "a.nc", x, fill=np.float32(1e20), units="K")
    report = write(str(path), tmp_path / "out.zarr", errors=errors("0.1"))
    assert len(report.warnings) == 1
    restore(tmp_path / "out.zarr", tmp_path / "back.nc")
    back = raw(tmp_path / "back.nc")["x"]
    assert float(back.attrs["_FillValue"]) == float(np.float32(1e20))
    assert np.array_equal(back.values == np.float32(1e20), x == np.float32(1e20))
    assert np.array_equal(back.values == -9999, x == -9999)


# --- packing, fill values, layout -------------------------------------------------------------------------------------


def test_decompress_gives_back_what_fills_and_packing_were(tmp_path: Path) -> None:
    for build in (two_fill_values, holes_of_both_kinds, packed_shorts, unsigned_bytes, missing_values_as_text):
        name = build.__name__
        folder = tmp_path / name
        folder.mkdir()
        source = Path(str(build(folder).source))
        write(str(source), folder / "out.zarr", errors=errors("lossless"))
        restore(folder / "out.zarr", folder / "back.nc")
        with netCDF4.Dataset(source) as a, netCDF4.Dataset(folder / "back.nc") as b:
            for file in (a, b):
                file.set_auto_maskandscale(False)
            assert b["x"].dtype == a["x"].dtype, name
            assert set(a["x"].ncattrs()) == set(b["x"].ncattrs()), name
            np.testing.assert_array_equal(a["x"][:], b["x"][:], err_msg=name)
            for key in a["x"].ncattrs():
                assert np.asarray(a["x"].getncattr(key)).dtype.kind == np.asarray(b["x"].getncattr(key)).dtype.kind, key
                np.testing.assert_equal(a["x"].getncattr(key), b["x"].getncattr(key))


def test_decompress_gives_back_fill_values_of_changed_floats(tmp_path: Path) -> None:
    source = str(two_fill_values(tmp_path).source)
    write(source, tmp_path / "out.zarr", errors=errors("0.1"))
    for out in ("back.nc", "back.zarr"):
        restore(tmp_path / "out.zarr", tmp_path / out)
        a, b = raw(Path(source))["x"], raw(tmp_path / out)["x"]
        assert float(b.attrs["_FillValue"]) == pytest.approx(9.96921e36)
        assert float(b.attrs["missing_value"]) == -999
        assert np.array_equal(a.values == -999, b.values == -999)
        assert np.array_equal(a.values > 1e36, b.values > 1e36)


def test_valid_ranges_follow_the_packing_and_mask_nothing_that_was_valid(tmp_path: Path) -> None:
    x = np.clip(np.round(100 * (temperature() - 280)), -800, 800).astype("i2")
    x[HOLE] = -32767
    for attrs in (
        {"valid_range": np.array([-800, 800], "i2")},
        {"valid_min": np.int16(-800), "valid_max": np.int16(800)},
    ):
        path = save_raw(
            tmp_path / "a.nc", x, fill=np.int16(-32767), scale_factor=0.01, add_offset=280.0, units="K", **attrs
        )
        write(str(path), tmp_path / "out.zarr", errors=errors("0.3"), overwrite=True)
        restore(tmp_path / "out.zarr", tmp_path / "back.nc", overwrite=True)
        with netCDF4.Dataset(path) as a, netCDF4.Dataset(tmp_path / "back.nc") as b:
            hidden = np.ma.getmaskarray(np.ma.masked_invalid(b["x"][:]))
            assert np.array_equal(np.ma.getmaskarray(a["x"][:]), hidden)


def test_decompress_lays_a_file_out_as_it_was(tmp_path: Path) -> None:
    x = np.round(temperature(1, (40, 60, 60)) * 8) / 8
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, size in (("time", None), ("lat", 60), ("lon", 60)):
            file.createDimension(name, size)
        options: dict[str, Any] = {"zlib": True, "complevel": 7, "shuffle": True, "fletcher32": True}
        file.createVariable("zz", "f4", ("time", "lat", "lon"), chunksizes=(8, 30, 60), **options)[:] = x
        file.createVariable("aa", "i2", ("time",))[:] = np.arange(40)
        file["zz"].half, file["zz"].many = np.float32(0.5), np.array([1, 2], "i2")
    write(str(tmp_path / "a.nc"), tmp_path / "out.zarr", errors=errors("lossless"))
    restore(tmp_path / "out.zarr", tmp_path / "back.nc")
    with netCDF4.Dataset(tmp_path / "a.nc") as a, netCDF4.Dataset(tmp_path / "back.nc") as b:
        assert list(b.variables) == ["zz", "aa"]
        assert b["zz"].chunking() == a["zz"].chunking() == [8, 30, 60]
        assert b["zz"].filters() == a["zz"].filters()
        assert b.dimensions["time"].isunlimited()
        assert b["zz"].half.dtype == np.float32
        assert b["zz"].many.dtype == np.int16
    sizes = [(tmp_path / name).stat().st_size for name in ("a.nc", "back.nc")]
    assert sizes[1] <= 1.1 * sizes[0]


def test_decompress_gives_back_groups_and_the_older_formats(tmp_path: Path) -> None:
    case = netcdf_groups(tmp_path)
    write(case.source, tmp_path / "out.zarr", errors=errors("lossless"))
    for out in ("back.nc", "back.zarr"):
        restore(tmp_path / "out.zarr", tmp_path / out)
        engine = {} if out.endswith(".nc") else {"engine": "zarr"}
        for path, ds in xr.open_groups(str(case.source)).items():
            with ds, xr.open_dataset(tmp_path / out, group=path, **engine) as back:  # type: ignore[arg-type]
                assert ds.identical(back), path
    for kind in ("NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF4_CLASSIC"):
        save_raw(tmp_path / "old.nc", temperature(), kind=kind, units="K")
        write(str(tmp_path / "old.nc"), tmp_path / "old.zarr", overwrite=True)
        restore(tmp_path / "old.zarr", tmp_path / "old-back.nc", overwrite=True)
        with netCDF4.Dataset(tmp_path / "old-back.nc") as file:
            assert file.data_model == kind


def test_an_output_that_does_not_fit_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    path = save(fields(t2m=temperature(1, (40, *SHAPE[1:]))), tmp_path / "a.nc")
    write(str(path), tmp_path / "out.zarr")
    before = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ArgumentError, match=r"back\.nc: cannot be written"):
            restore(tmp_path / "out.zarr", tmp_path / "back.nc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(tmp_path.iterdir()) == before
