"""Chunks of stores, and the encoding that makes them."""

import math
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
from isopress.format.source.dataset import open_source
from isopress.format.store import chunking
from isopress.format.store.chunking import (
    TARGET_VALUES,
    choose_chunks,
    choose_shards,
    default_blocks,
    default_chunks,
    default_shards,
    regions,
    task_steps,
)
from isopress.format.store.write import write
from tests.datasets import errors, save_zarr, smooth

# --- how variables are cut into chunks, and the work on them into tasks -----------------------------------------------


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((), ()),
        ((7,), (7,)),
        ((721, 1440), (721, 1440)),
        ((24, 721, 1440), (1, 721, 1440)),
        ((24, 181, 360), (12, 181, 360)),
        ((10, 24, 181, 360), (1, 12, 181, 360)),
        ((100, 24, 10, 20), (100, 24, 10, 20)),
        ((2, 1801, 3600), (1, 901, 3600)),
        ((3, 5_000_000), (1, 2_500_000)),
        ((0, 9, 9), (1, 9, 9)),
    ],
)
def test_default_chunks_are_fields_or_groups_of_them(shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    assert default_chunks(shape) == chunks


DIMS = ("time", "level", "lat", "lon")


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((), ()),
        ((7,), (7,)),
        ((721, 1440), (721, 1440)),
        ((744, 721, 1440), (2, 721, 1440)),
        ((31, 721, 1440), (2, 721, 1440)),
        ((24, 361, 720), (8, 361, 720)),
        ((24, 181, 360), (24, 181, 360)),
        ((24, 13, 721, 1440), (2, 1, 721, 1440)),
        ((1, 37, 721, 1440), (1, 2, 721, 1440)),
        ((24, 10, 181, 360), (24, 1, 181, 360)),
        ((1000, 32, 64), (125, 32, 64)),
        ((24, 1801, 3600), (1, 901, 3600)),
        ((0, 9, 9), (1, 9, 9)),
    ],
)
def test_default_blocks_are_days_or_columns_of_fields(shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    assert default_blocks(DIMS[len(DIMS) - len(shape) :], shape) == chunks


def test_blocks_with_a_target_have_more_fields() -> None:
    assert default_blocks(("time", "lat", "lon"), (24, 721, 1440), TARGET_VALUES) == (8, 721, 1440)


def test_chunks_of_what_no_block_can_hold_are_as_ever(tmp_path: Path) -> None:
    shape = (30, 256, 256)
    dims = ("k", "y", "x")
    zeros = {"a": "f4", "b": "f4", "c": "i2"}
    ds = xr.Dataset({name: (dims, np.zeros(shape, dtype)) for name, dtype in zeros.items()})
    save_zarr(ds, tmp_path / "in.zarr", 2)
    for context, field in (("auto", 30), ("field", 15)):
        options = {"errors": errors("0.1", "b=lossless"), "context": context, "overwrite": True}
        report = write(str(tmp_path / "in.zarr"), tmp_path / "out.zarr", **options)
        assert {v.name: v.chunks[0] for v in report.variables} == {"a": field, "b": 15, "c": 15}


def test_regions_are_whole_chunks_that_cover_the_array_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "TASK_NBYTES", 1)
    shape = (50, 20, 30)
    steps = task_steps((4, 20, 30), shape, (16, 5, 30), 4)
    assert steps == (16, 20, 30)
    seen = np.zeros(shape, int)
    for region in regions(shape, steps):
        seen[region] += 1
    assert (seen == 1).all()
    monkeypatch.undo()
    fields = (10**6, 721, 1440)
    assert task_steps((1, 721, 1440), fields, fields, 4)[0] * 721 * 1440 * 4 <= 2**27


def test_small_chunks_are_grouped_until_they_are_worth_a_task() -> None:
    assert task_steps((1, 20, 30), (6, 20, 30), (1, 1, 1), 4) == (6, 20, 30)
    assert task_steps((1, 256, 256), (1000, 256, 256), (1, 1, 1), 4) == (32, 256, 256)
    assert task_steps((1, 721, 1440), (1000, 721, 1440), (1, 1, 1), 4) == (2, 721, 1440)
    assert task_steps((24, 721, 1440), (1000, 721, 1440), (1, 1, 1), 4) == (24, 721, 1440)


ODD_SHAPES = [  # what one task is made of at least, shape, chunks of the source
    ((1, 721, 1440), (8760, 721, 1440), (8760, 1, 1)),  # read along time
    ((1, 721, 1440), (8760, 721, 1440), (8760, 721, 1440)),  # one huge chunk in the source
    ((24, 721, 1440), (8760, 721, 1440), (1, 721, 1440)),
    ((64, 2048, 2048), (1000, 2048, 2048), (1, 1, 1)),  # a huge one in the store
    ((1, 16384, 32768), (3, 16384, 32768), (3, 16384, 32768)),
    ((1, 1, 1), (10**7, 1, 1), (1, 1, 1)),  # many small ones
    ((1000, 1, 1), (10**9, 1, 1), (10**9, 1, 1)),
    ((1, 3, 3), (10**6, 3, 3), (7, 2, 3)),
    ((1, 1, 4, 5), (37, 10**6, 4, 5), (37, 1, 4, 5)),
    ((2**26,), (2**33,), (2**33,)),
    ((1,), (1,), (1,)),
    ((), (), ()),
]


@pytest.mark.parametrize("itemsize", [1, 4, 8])
@pytest.mark.parametrize(("unit", "shape", "source_chunks"), ODD_SHAPES)
def test_a_task_holds_what_is_allowed_or_one_chunk_alone(
    unit: tuple[int, ...], shape: tuple[int, ...], source_chunks: tuple[int, ...], itemsize: int
) -> None:
    steps = task_steps(unit, shape, source_chunks, itemsize)
    held = itemsize * math.prod(map(min, steps, shape))
    assert held <= max(chunking.REGION_NBYTES, itemsize * math.prod(unit))
    assert held >= min(chunking.TASK_NBYTES // 2, itemsize * math.prod(shape))
    assert not any(step % part for step, part in zip(steps, unit, strict=True))


def test_tasks_of_any_shape_hold_what_is_allowed() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        shape = tuple(int(2 ** rng.uniform(0, 16)) for _ in range(rng.integers(1, 5)))
        source_chunks, dims = tuple(int(rng.integers(1, size + 1)) for size in shape), ("time", "level", "y", "x")
        chunks = default_blocks(dims[: len(shape)], shape) if rng.random() < 0.5 else default_chunks(shape)
        unit = default_shards(chunks, shape, 4) or chunks
        held = 4 * math.prod(map(min, task_steps(unit, shape, source_chunks, 4), shape))
        assert held <= chunking.REGION_NBYTES, (shape, source_chunks, unit)


def test_chunks_of_a_source_are_its_own_or_single_values(tmp_path: Path) -> None:
    ds = xr.Dataset({"x": (("time", "lat", "lon"), np.zeros((6, 20, 30), "f4"))})
    ds.to_netcdf(tmp_path / "in.nc")
    with open_source(str(tmp_path / "in.nc")) as source:
        assert source.chunks("x") == (1, 1, 1)
    save_zarr(ds.chunk(time=3), tmp_path / "in.zarr", 3)
    with open_source(str(tmp_path / "in.zarr")) as source:
        assert source.chunks("x") == (3, 20, 30)


@pytest.mark.parametrize(
    ("chunks", "shape", "shards"),
    [
        ((1, 721, 1440), (3, 721, 1440), None),  # few chunks
        ((1, 721, 1440), (24, 721, 1440), (24, 721, 1440)),
        ((1, 721, 1440), (8760, 721, 1440), (32, 721, 1440)),
        ((24, 721, 1440), (8760, 721, 1440), None),  # large as they are
        ((1, 1, 721, 1440), (24, 37, 721, 1440), (1, 19, 721, 1440)),  # of one time: archives grow along it
        ((1, 1, 181, 360), (24, 13, 181, 360), (24, 13, 181, 360)),
        ((7,), (7,), None),
        ((), (), None),
    ],
)
def test_default_shards_are_boxes_of_chunks(
    chunks: tuple[int, ...], shape: tuple[int, ...], shards: tuple[int, ...] | None
) -> None:
    assert default_shards(chunks, shape, 4) == shards


def test_shards_are_whole_chunks_and_can_be_chosen() -> None:
    assert choose_shards(("t", "y", "x"), (2, 9, 9), {"t": 6}, None) == (6, 9, 9)
    assert choose_shards(("t", "y", "x"), (2, 9, 9), {"t": 2}, (8, 9, 9)) is None
    with pytest.raises(ArgumentError, match="not a multiple of its chunks, which have 2"):
        choose_shards(("t", "y", "x"), (2, 9, 9), {"t": 3}, None)


def test_chunks_that_a_payload_cannot_hold_are_refused() -> None:
    with pytest.raises(ArgumentError, match="--chunk"):
        choose_chunks(("t", "y", "x"), (1000, 1000, 1000), {"t": 1000}, (4, 1000, 1000))


# --- writing through xarray with the limits, chunks and codecs of the command line ------------------------------------

OF_WEATHER = ("time", "lat", "lon")


def weather() -> xr.Dataset:
    times = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(1, "h")
    return xr.Dataset(
        {
            "t2m": (OF_WEATHER, 280 + 10 * smooth((6, 20, 24)), {"units": "K"}),
            "odd": (OF_WEATHER, smooth((6, 20, 24), 1), {"units": "furlong"}),
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
