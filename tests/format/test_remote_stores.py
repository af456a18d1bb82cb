"""Stores behind URLs, in repositories of icechunk and object stores of obstore: written, resumed, grown, read."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.codec.errors import ArgumentError
from isopress.format.report.info import read_report
from isopress.format.source.dataset import open_source
from isopress.format.store import chunking, plan
from isopress.format.store.append import append
from isopress.format.store.compact import compact
from isopress.format.store.progress import Progress
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from isopress.format.zarr import places
from tests.datasets import errors, raw, smooth
from tests.range_server import Ranges

fsspec = pytest.importorskip("fsspec")


class Stopped(BaseException):
    """Stands for Ctrl-C."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("source") / "in.nc"
    ds = xr.Dataset({"t": (("time", "lat", "lon"), smooth((8, 32, 48)), {"units": "K"})}, {"time": np.arange(8)})
    ds.to_netcdf(path)
    return str(path)


@pytest.fixture
def url() -> Iterator[str]:
    yield "memory://isopress/out.zarr"
    fsspec.filesystem("memory").rm("/isopress", recursive=True)


OPTIONS: dict[str, Any] = {"errors": errors("0.01"), "chunks": {"time": 1}}


def test_a_store_behind_a_url_is_that_of_a_folder(source: str, url: str, tmp_path: Path) -> None:
    report = write(source, url, **OPTIONS)
    write(source, f"file://{tmp_path}/out.zarr", **OPTIONS)
    files = fsspec.filesystem("memory").find("/isopress/out.zarr")
    local = [path for path in (tmp_path / "out.zarr").rglob("*") if path.is_file()]
    assert {name.removeprefix("/isopress/out.zarr/") for name in files} == {
        str(path.relative_to(tmp_path / "out.zarr")) for path in local
    }
    for path in local:
        name = f"/isopress/out.zarr/{path.relative_to(tmp_path / 'out.zarr')}"
        assert fsspec.filesystem("memory").cat(name) == path.read_bytes()
    assert report.unfinished is None
    assert verify(url, source).kept
    assert read_report(url).variables[0].shards == (8, 32, 48)


def test_an_unfinished_store_behind_a_url_is_resumed(source: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "TASK_NBYTES", 1)
    monkeypatch.setattr(chunking, "REGION_NBYTES", 2**13)
    monkeypatch.setattr("isopress.format.store.journal.FLUSH_SECONDS", 0.0)
    steps: list[Progress] = []

    def stop(step: Progress) -> None:
        if step.phase == "compress" and step.done_nbytes > 2 * 4 * 32 * 48:
            raise Stopped

    with pytest.raises(Stopped):
        write(source, url, observer=stop, **OPTIONS)
    assert "not complete" in (read_report(url).unfinished or "")
    with pytest.raises(ArgumentError, match=r"exists; go on with it by --resume"):
        write(source, url, **OPTIONS)
    write(source, url, resume=True, observer=steps.append, **OPTIONS)
    assert max(step.kept_nbytes for step in steps) > 0
    assert verify(url, source).kept
    with pytest.raises(ArgumentError, match=r"exists; replace it with --overwrite"):
        write(source, url, resume=True, **OPTIONS)
    write(source, url, overwrite=True, **OPTIONS)


def test_a_second_run_at_one_url_is_refused(source: str, url: str) -> None:
    seen = []

    def try_another(step: Progress) -> None:
        if step.phase == "compress" and not seen:
            seen.append(step)
            with pytest.raises(ArgumentError, match="being written by another run"):
                write(source, url, overwrite=True, **OPTIONS)

    write(source, url, observer=try_another, **OPTIONS)
    assert seen
    owner = {"run": "x", "host": "there", "process": 1, "time": time.time() - 100}  # of a run that was killed
    files = fsspec.filesystem("memory")
    files.pipe("/isopress/out.zarr/isopress_journal/lock.json", json.dumps(owner).encode())
    write(source, url, overwrite=True, **OPTIONS)


def test_what_is_no_store_stays(source: str, url: str) -> None:
    fsspec.filesystem("memory").pipe("/isopress/out.zarr/thesis.txt", b"years of work")
    with pytest.raises(ArgumentError, match="not empty, and no Zarr store"):
        write(source, url, overwrite=True, **OPTIONS)
    for options, reason in (({"jobs": 2}, "leave out --jobs"), ({"embed_models": True}, "local directory")):
        with pytest.raises(ArgumentError, match=reason):
            write(source, url, **(OPTIONS | options))


def test_a_bucket_is_a_destination_grows_and_is_a_source(source: str, bucket: str, tmp_path: Path) -> None:
    url = f"s3://{bucket}/out.zarr"
    write(source, url, **OPTIONS)
    assert verify(url, source).kept
    with xr.open_dataset(source) as ds:
        ds.assign_coords(time=ds.time + 8).to_netcdf(tmp_path / "later.nc")
    append(str(tmp_path / "later.nc"), url)
    assert xr.open_zarr(url).sizes["time"] == 16


def test_one_field_of_default_chunks_by_http_moves_twice_its_share_and_an_index_at_most(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(plan, "BLOCK_VALUES", 2 * 32 * 48 + 1)  # as fields of 0.25 degree are to the real one
    options = {key: value for key, value in OPTIONS.items() if key != "chunks"}
    write(source, tmp_path / "out.zarr", **options)
    handler = type("Handler", (Ranges,), {"moved": []})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: handler(*arguments, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/out.zarr"
        array = zarr.open_group(url, mode="r")["t"]
        assert isinstance(array, zarr.Array)
        field = array[5]
        with xr.open_dataset(source) as before:
            assert float(np.abs(field - before.t[5].values).max()) <= 0.01
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    share = read_report(tmp_path / "out.zarr").variables[0].stored_nbytes / 8
    index = 16 * 8 + 4
    assert sum(handler.moved) <= 2 * share + index


VALUES = 280 + 10 * smooth((12, 16, 20))
IN_FOURS: dict[str, Any] = {"errors": errors("0.05"), "chunks": {"time": 4}}


@pytest.fixture
def hours(tmp_path: Path) -> Callable[[int, int], str]:
    def saved(first: int, last: int) -> str:
        if (path := tmp_path / f"{first}-{last}.nc").exists():
            return str(path)
        axes = {"time": ("time", np.arange(first, last), {"units": "hours since 2020-01-01"})}
        ds = xr.Dataset({"t": (("time", "lat", "lon"), VALUES[first:last], {"units": "K"})}, axes)
        ds.to_netcdf(path)
        return str(path)

    return saved


@pytest.mark.parametrize("kind", ["obstore+file", "obstore+memory", "icechunk+file"])
def test_a_place_is_a_destination_grows_and_is_a_source(
    kind: str, hours: Callable[[int, int], str], tmp_path: Path
) -> None:
    pytest.importorskip(kind.partition("+")[0])
    url = "obstore+memory:///out.zarr" if kind == "obstore+memory" else f"{kind}://{tmp_path}/place"
    write(hours(0, 6), url, **IN_FOURS)
    with pytest.raises(ArgumentError, match="exists; replace it with --overwrite"):
        write(hours(0, 6), url, **IN_FOURS)
    append(hours(4, 9), url)
    append(hours(9, 10), url, pieces=True)
    compact(url, hours(0, 10))
    assert verify(url, hours(0, 10)).kept
    write(hours(0, 10), tmp_path / "local.zarr", **IN_FOURS)
    with open_source(url) as source:
        region = (slice(0, 10), slice(0, 16), slice(0, 20))
        assert source.read("t", region).tobytes() == raw(tmp_path / "local.zarr")["t"].values.tobytes()
    back = CliRunner().invoke(main, ["decompress", url, str(tmp_path / "back.nc")])
    assert back.exit_code == 0, back.stderr
    assert np.abs(raw(tmp_path / "back.nc")["t"] - VALUES[:10]).max() <= 0.05
    write(hours(0, 6), url, overwrite=True, **IN_FOURS)
    assert verify(url, hours(0, 6)).kept


def test_a_repository_is_written_in_one_transaction(hours: Callable[[int, int], str], tmp_path: Path) -> None:
    icechunk = pytest.importorskip("icechunk")
    url = f"icechunk+file://{tmp_path}/repo"
    write(hours(0, 4), url, **IN_FOURS)
    first = places.snapshot(url)

    def stop(step: Progress) -> None:
        if step.phase == "compress" and step.done_nbytes:
            with pytest.raises(ArgumentError, match="being written by another run"):
                append(hours(4, 8), url)
            raise KeyboardInterrupt

    for change in (
        lambda: append(hours(4, 8), url, observer=stop),
        lambda: write(hours(0, 8), url, overwrite=True, observer=stop, **IN_FOURS),
    ):
        with pytest.raises(KeyboardInterrupt):
            change()
        assert places.snapshot(url) == first
    assert verify(url, hours(0, 4)).kept
    append(hours(4, 8), url)
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    now, before = (
        xr.open_zarr(session.store, consolidated=False)
        for session in (repository.readonly_session("main"), repository.readonly_session(snapshot_id=first))
    )
    assert now.sizes["time"] == 8
    xr.testing.assert_identical(now["t"][:4].drop_attrs(), before["t"].drop_attrs())
    with pytest.raises(ArgumentError, match="a transaction is of one process"):
        append(hours(8, 12), url, jobs=2)


def test_a_dataset_is_written_to_a_session_by_xarray(hours: Callable[[int, int], str], tmp_path: Path) -> None:
    icechunk = pytest.importorskip("icechunk")
    import isopress.xarray  # noqa: F401  # the accessor

    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    with xr.open_dataset(hours(0, 4)) as ds:
        ds.isopress.to_zarr(session.store, {"t": 0.05})
        session.commit("four hours")
        read = xr.open_zarr(repository.readonly_session("main").store, consolidated=False)
        assert float(np.abs(read.t - ds.t).max()) <= 0.05


def test_a_bucket_holds_a_repository_and_a_store_by_obstore(
    hours: Callable[[int, int], str], bucket: str, tmp_path: Path
) -> None:
    for package in ("icechunk", "obstore"):
        pytest.importorskip(package)
    for url in (f"icechunk+s3://{bucket}/repo", f"obstore+s3://{bucket}/out.zarr"):
        write(hours(0, 4), url, **IN_FOURS)
        append(hours(4, 8), url)
        assert verify(url, hours(0, 8)).kept


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("icechunk+file:///nowhere/repo", "no repository of icechunk"),
        ("icechunk+ftp://host/repo", r"are at icechunk\+file://"),
        ("obstore+what://host/x.zarr", "cannot be opened"),
    ],
)
def test_what_is_not_there_is_an_error_of_one_line(url: str, reason: str) -> None:
    pytest.importorskip(url.partition("+")[0])
    result = CliRunner().invoke(main, ["info", url])
    assert result.exit_code == 2
    assert reason.replace("\\", "") in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("package", ["icechunk", "obstore"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=f"pip install {package}"):
        places.place(f"{package}+s3://missing/{package}")
