"""Stores that are changed in place: appends that are killed and gone on with, pieces, whole chunks made of them."""

import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.codec.encoded import Method
from isopress.codec.errors import ArgumentError
from isopress.format.payload import inspect
from isopress.format.report.info import read_report
from isopress.format.store import chunking
from isopress.format.store.append import append
from isopress.format.store.compact import compact
from isopress.format.store.progress import Progress
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from isopress.format.zarr.chunk_objects import object_keys, payloads_by_chunk, read_object
from isopress.format.zarr.groups import arrays
from tests.datasets import contents, errors, raw, smooth
from tests.killed_runs import start_append

HOURS = 24
VALUES = 280 + 10 * smooth((HOURS, 24, 20))
VALUES[::5, 0, 0] = np.nan
BOUND: dict[str, Any] = {"errors": errors("0.05"), "chunks": {"time": 4}, "shards": {"time": 8}}
FIGURES = ("max_error", "rmse", "values", "original_nbytes", "stored_nbytes")


class Stopped(BaseException):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("days")


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "TASK_NBYTES", 1)
    monkeypatch.setattr("isopress.format.store.journal.FLUSH_SECONDS", 0.0)


def hours(folder: Path, first: int, last: int) -> str:
    """Return the path of a file with some hours of one dataset."""
    path = folder / f"{first:02d}-{last:02d}.nc"
    if not path.exists():
        axes = {"time": ("time", np.arange(first, last), {"units": "hours since 2020-01-01"}), "lat": np.arange(24.0)}
        t = ("time", "lat", "lon"), VALUES[first:last], {"units": "K"}
        ds = xr.Dataset({"t": t, "w": (t[0], 2 * VALUES[first:last], {"units": "K"})}, axes)
        ds.to_netcdf(path)
    return str(path)


def stop_after(count: int) -> Any:
    seen = []

    def observe(step: Progress) -> None:
        if step.phase == "compress" and step.done_nbytes:
            seen.append(step)
            if len(seen) >= count:
                raise Stopped

    return observe


def methods(store: Path, name: str = "t") -> list[Method]:
    """Return how the chunks of a variable are coded, in order."""
    import zarr

    array = arrays(zarr.open_group(store, mode="r"))[name]
    found = {}
    for key in object_keys(array, tuple(slice(0, size) for size in array.shape)):
        content = read_object(array, key) or b""
        found |= {
            place: inspect(content[offset : offset + size]).method
            for place, offset, size in payloads_by_chunk(content, array, key)
        }
    return [found[place] for place in sorted(found)]


def same_figures(one: Path, other: Path, name: str = "t", keys: tuple[str, ...] = FIGURES) -> None:
    a, b = (xr.open_zarr(path)[name].attrs for path in (one, other))
    for key in keys:
        assert a[f"isopress_{key}"] == pytest.approx(b[f"isopress_{key}"], rel=1e-6), key


@pytest.mark.skipif(sys.platform != "linux", reason="processes are killed")
def test_after_kills_an_append_is_as_if_there_had_been_none(days: Path, tmp_path: Path) -> None:
    out, once, moments = tmp_path / "out.zarr", tmp_path / "once.zarr", random.Random(0)
    write(hours(days, 0, 10), out, **BOUND)
    shutil.copytree(out, once)
    append(hours(days, 8, 24), once)
    for _ in range(5):
        process = start_append(hours(days, 8, 24), out)
        process.join(moments.uniform(0.2, 0.6))
        process.kill()
        process.join()
        assert xr.open_zarr(out).sizes["time"] in (10, 24)
    if xr.open_zarr(out).sizes["time"] == 10:  # no run was quicker than its kill
        append(hours(days, 8, 24), out, resume=True)
    assert contents(out) == contents(once)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once.zarr", "out.zarr"]


@pytest.mark.parametrize("count", [1, 3])
def test_an_append_that_was_killed_is_gone_on_with(days: Path, tmp_path: Path, count: int) -> None:
    out, once = tmp_path / "out.zarr", tmp_path / "once.zarr"
    write(hours(days, 0, 10), out, **BOUND)
    shutil.copytree(out, once)
    before = raw(out)
    with pytest.raises(Stopped):
        append(hours(days, 8, 24), out, observer=stop_after(count))
    assert xr.open_zarr(out).sizes["time"] == 10
    assert np.abs(raw(out)["t"] - before["t"]).max() <= 0.1  # both are within the bound of the source
    steps: list[Progress] = []
    append(hours(days, 8, 24), out, resume=True, observer=steps.append)
    assert max(step.kept_nbytes for step in steps) > 0
    append(hours(days, 8, 24), once)
    assert contents(out) == contents(once)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once.zarr", "out.zarr"]


def test_an_append_that_was_killed_may_begin_anew_and_attributes_are_true(
    days: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, once = tmp_path / "out.zarr", tmp_path / "once.zarr"
    write(hours(days, 0, 10), out, **BOUND)
    shutil.copytree(out, once)
    with pytest.raises(Stopped):
        append(hours(days, 8, 24), out, observer=stop_after(2))
    with pytest.raises(ArgumentError, match=r"end was 24, now it is 16.* Without --resume it begins anew"):
        append(hours(days, 8, 16), out, resume=True)
    append(hours(days, 8, 16), out)
    assert "--resume would go on with it" in caplog.text
    append(hours(days, 8, 16), once)
    same_figures(out, once)
    xr.testing.assert_identical(raw(out), raw(once))


def test_pieces_keep_every_bit_and_are_made_whole_chunks_of_the_source(days: Path, tmp_path: Path) -> None:
    out, once = tmp_path / "out.zarr", tmp_path / "once.zarr"
    write(hours(days, 0, 6), out, **BOUND)
    with pytest.raises(ArgumentError, match=r"last chunk has 2 of 4 .* --pieces, which `isopress compact`"):
        append(hours(days, 6, 7), out)
    for first, last in ((6, 7), (7, 13), (13, 15)):
        before = raw(out)["t"].values
        append(hours(days, first, last), out, pieces=True)
        assert before.tobytes() == raw(out)["t"].values[:first].tobytes()
    assert verify(out, [hours(days, 0, 6), hours(days, 6, 7), hours(days, 7, 13), hours(days, 13, 15)]).kept
    assert [method == Method.LAYERS for method in methods(out)] == [False, True, False, True]
    write(hours(days, 0, 15), once, **BOUND)
    same_figures(out, once, keys=("values", "original_nbytes"))
    assert xr.open_zarr(out)["t"].attrs["isopress_stored_nbytes"] == sum(
        path.stat().st_size for path in (out / "t" / "c").rglob("*") if path.is_file()
    )
    report = compact(out, hours(days, 4, 8))  # a part of the source makes whole what it has all of
    assert any("t[12:15, 0:24, 0:20] is in pieces" in warning for warning in report.warnings)
    with pytest.raises(ArgumentError, match="the source has none of the chunks in pieces"):
        compact(out, hours(days, 4, 8))
    result = CliRunner().invoke(main, ["compact", str(out), hours(days, 0, 15)])
    assert result.exit_code == 0, result.stderr
    assert Method.LAYERS not in methods(out)
    xr.testing.assert_equal(raw(out), raw(once))
    same_figures(out, once, keys=("rmse", "values", "original_nbytes", "stored_nbytes"))
    assert raw(out).attrs["isopress_compactions"] == 2
    before_all = contents(out)
    compact(out, hours(days, 0, 15))  # nothing is left to do
    assert contents(out) == before_all


def test_a_compaction_that_was_killed_is_gone_on_with(days: Path, tmp_path: Path) -> None:
    out, once = tmp_path / "out.zarr", tmp_path / "once.zarr"
    write(hours(days, 0, 6), out, **BOUND)
    for first, last in ((6, 7), (7, 10), (10, 11)):
        append(hours(days, first, last), out, pieces=True)
    shutil.copytree(out, once)
    for options in ({}, {"resume": True}):
        with pytest.raises(Stopped):
            compact(out, hours(days, 0, 11), observer=stop_after(2), **options)
    assert verify(out, hours(days, 0, 11)).kept  # readers never see anything but values within the bound
    with pytest.raises(ArgumentError, match="was begun by a run that did not finish"):
        compact(out, hours(days, 8, 11))
    compact(out, hours(days, 0, 11), resume=True)
    compact(once, hours(days, 0, 11))
    assert contents(out) == contents(once)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once.zarr", "out.zarr"]


def test_an_xarray_write_into_a_part_of_a_chunk_is_made_whole(days: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    write(hours(days, 0, 8), out, **BOUND)
    with xr.open_dataset(hours(days, 0, 8)) as ds:
        part = ds.isel(time=slice(1, 3))[["t"]].drop_vars("lat")
        with pytest.warns(UserWarning, match="written in part"):
            part.to_zarr(out, region={"time": slice(1, 3)}, mode="r+")
    assert methods(out)[0] == Method.LAYERS
    compact(out, hours(days, 0, 8))
    assert Method.LAYERS not in methods(out)
    assert verify(out, hours(days, 0, 8)).kept


@pytest.fixture
def url() -> Iterator[str]:
    fsspec = pytest.importorskip("fsspec")
    yield "memory://change/out.zarr"
    fsspec.filesystem("memory").rm("/change", recursive=True)


def test_a_store_behind_a_url_grows_and_is_compacted(url: str, days: Path, tmp_path: Path) -> None:
    write(hours(days, 0, 6), url, **BOUND)
    write(hours(days, 0, 6), tmp_path / "out.zarr", **BOUND)
    with pytest.raises(Stopped):
        append(hours(days, 4, 13), url, observer=stop_after(1))
    assert xr.open_zarr(url).sizes["time"] == 6
    steps: list[Progress] = []

    def try_another(step: Progress) -> None:
        steps.append(step)
        if step.phase == "compress":
            with pytest.raises(ArgumentError, match="being written by another run"):
                append(hours(days, 4, 13), url)

    append(hours(days, 4, 13), url, resume=True, observer=try_another)
    assert max(step.kept_nbytes for step in steps) > 0
    append(hours(days, 13, 14), url, pieces=True)
    compact(url, hours(days, 0, 14))
    with pytest.raises(ArgumentError, match="leave out --jobs"):
        append(hours(days, 14, 15), url, pieces=True, jobs=2)
    append(hours(days, 4, 14), tmp_path / "out.zarr")
    xr.testing.assert_equal(xr.open_zarr(url), xr.open_zarr(tmp_path / "out.zarr"))
    assert read_report(url).variables[0].stored_nbytes == read_report(tmp_path / "out.zarr").variables[0].stored_nbytes
    assert verify(url, hours(days, 0, 14)).kept


def test_two_changes_at_once_are_refused(days: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    write(hours(days, 0, 8), out, **BOUND)

    def try_others(step: Progress) -> None:
        if step.phase == "compress":
            with pytest.raises(ArgumentError, match="being written by another run"):
                append(hours(days, 8, 16), out)
            with pytest.raises(ArgumentError, match="being written by another run"):
                compact(out, hours(days, 0, 8))

    append(hours(days, 8, 16), out, observer=try_others)
