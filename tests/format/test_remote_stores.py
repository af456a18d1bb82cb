"""Stores behind URLs: written in place, resumed, one run at a time; one field by HTTP moves little more than it."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from isopress.codec.errors import ArgumentError
from isopress.format.report.info import read_report
from isopress.format.store import chunking, plan
from isopress.format.store.append import append
from isopress.format.store.progress import Progress
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from tests.datasets import errors, smooth
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
