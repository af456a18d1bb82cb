"""How variables are cut into chunks, and the work on them into tasks."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.source.dataset import open_source
from isopress.format.store.chunking import choose_chunks, default_blocks, default_chunks, regions, task_steps
from isopress.format.store.write import write
from tests.datasets import errors, save_zarr


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
        ((744, 721, 1440), (24, 721, 1440)),
        ((30, 721, 1440), (15, 721, 1440)),
        ((24, 13, 721, 1440), (24, 1, 721, 1440)),
        ((2, 37, 721, 1440), (2, 10, 721, 1440)),
        ((24, 10, 181, 360), (24, 2, 181, 360)),
        ((1000, 32, 64), (125, 32, 64)),
        ((24, 1801, 3600), (8, 901, 3600)),
        ((0, 9, 9), (1, 9, 9)),
    ],
)
def test_default_blocks_are_days_or_columns_of_fields(shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    assert default_blocks(DIMS[len(DIMS) - len(shape) :], shape, 4) == chunks
    for itemsize in (4, 8):
        assert np.prod(default_blocks(DIMS[len(DIMS) - len(shape) :], shape, itemsize)) * itemsize <= 2**27


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


def test_regions_are_whole_chunks_that_cover_the_array_once() -> None:
    shape = (50, 20, 30)
    steps = task_steps((4, 20, 30), (16, 5, 30), 4)
    assert steps == (16, 20, 30)
    seen = np.zeros(shape, int)
    for region in regions(shape, steps):
        seen[region] += 1
    assert (seen == 1).all()
    assert task_steps((1, 721, 1440), (10**6, 721, 1440), 4)[0] * 721 * 1440 * 4 <= 2**27


def test_a_source_without_chunks_is_one_task_for_one_process_and_many_for_several(tmp_path: Path) -> None:
    ds = xr.Dataset({"x": (("time", "lat", "lon"), np.zeros((6, 20, 30), "f4"))})
    ds.to_netcdf(tmp_path / "in.nc")
    with open_source(str(tmp_path / "in.nc")) as source:
        steps = {jobs: task_steps((1, 20, 30), source.chunks("x", jobs), 4) for jobs in (1, 2)}
    assert steps == {1: (6, 20, 30), 2: (1, 20, 30)}
    save_zarr(ds.chunk(time=3), tmp_path / "in.zarr", 3)
    with open_source(str(tmp_path / "in.zarr")) as source:
        assert source.chunks("x", 2) == (3, 20, 30)


def test_chunks_that_a_payload_cannot_hold_are_refused() -> None:
    with pytest.raises(ArgumentError, match="--chunk"):
        choose_chunks(("t", "y", "x"), (1000, 1000, 1000), {"t": 1000}, (4, 1000, 1000))
