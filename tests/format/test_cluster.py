"""Conversions on a cluster of dask: the same bytes, workers that are lost, one opening of sources per worker."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.codec.errors import ArgumentError
from isopress.format.store import chunking
from isopress.format.store.progress import Progress
from isopress.format.store.write import write
from tests.datasets import contents, errors, smooth

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a scheduler in a process of its own, with two workers in theirs."""
    with distributed.SubprocessCluster(
        n_workers=2, threads_per_worker=1, silence_logs=50, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "in.nc"
    ds = xr.Dataset({"t": (("time", "lat", "lon"), smooth((40, 32, 32)), {"units": "K"}), "n": ("lat", np.arange(32))})
    ds.to_netcdf(path)
    return path


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "TASK_NBYTES", 2**12)
    monkeypatch.setattr(chunking, "REGION_NBYTES", 2**12)


OPTIONS: dict[str, Any] = {"errors": errors("lossless"), "chunks": {"time": 1}}


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of a store that was written by this process."""
    out = tmp_path_factory.mktemp("whole") / "out.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "REGION_NBYTES", 2**12)
        write(str(source), out, **OPTIONS)
    return contents(out)


def test_a_cluster_writes_the_same_bytes(scheduler: str, source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    options = ["--error", "lossless", "--chunk", "time=1", "--scheduler", scheduler]
    result = CliRunner().invoke(main, ["compress", str(source), str(tmp_path / "out.zarr"), *options])
    assert result.exit_code == 0, result.stderr
    assert contents(tmp_path / "out.zarr") == whole
    verified = CliRunner().invoke(
        main, ["verify", str(tmp_path / "out.zarr"), "--against", str(source), "--scheduler", scheduler]
    )
    assert verified.exit_code == 0, verified.stderr


def test_the_cluster_of_this_program_is_found(
    scheduler: str, source: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with distributed.Client(scheduler):
        write(str(source), tmp_path / "out.zarr", scheduler="existing", **OPTIONS)
    assert contents(tmp_path / "out.zarr") == whole
    with pytest.raises(ArgumentError, match="neither DASK_SCHEDULER_ADDRESS"):
        write(str(source), tmp_path / "other.zarr", scheduler="existing", **OPTIONS)


def test_what_a_lost_worker_had_begun_is_done_by_others(
    scheduler: str, source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[int] = []
    with distributed.Client(scheduler, set_as_default=False) as client:
        workers = list(client.run(os.getpid).values())

        def kill_one(step: Progress) -> None:
            if step.phase == "compress" and step.done_nbytes and not killed:
                killed.append(workers[0])
                os.kill(workers[0], signal.SIGKILL)

        write(str(source), tmp_path / "out.zarr", scheduler=scheduler, observer=kill_one, **OPTIONS)
    assert killed
    assert contents(tmp_path / "out.zarr") == whole


def test_a_scheduler_that_does_not_answer_is_an_error(source: Path, tmp_path: Path) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(ArgumentError, match="no scheduler answers"),
    ):
        write(str(source), tmp_path / "out.zarr", scheduler="tcp://127.0.0.1:9", **OPTIONS)
    assert not list(tmp_path.iterdir())
