"""Conversions on a cluster of dask: the same bytes, workers that are lost, one opening of sources per worker."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.codec.errors import ArgumentError
from isopress.format.store import chunking, cluster
from isopress.format.store.progress import Progress
from isopress.format.store.tasks import Task
from isopress.format.store.write import write
from tests.datasets import contents, errors, smooth
from tests.killed_runs import start

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a scheduler in a process of its own, with two workers in theirs."""
    with distributed.SubprocessCluster(
        n_workers=2, threads_per_worker=1, silence_logs=50, dashboard_address=":0"
    ) as made:
        with distributed.Client(made.scheduler_address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield made.scheduler_address


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
    monkeypatch.setattr(cluster, "_THREADS_PER_TASK", 1)  # two workers are sent tasks as a hundred would be
    with distributed.Client(scheduler):
        write(str(source), tmp_path / "out.zarr", scheduler="existing", **OPTIONS)
    assert contents(tmp_path / "out.zarr") == whole
    with pytest.raises(ArgumentError, match="neither DASK_SCHEDULER_ADDRESS"):
        write(str(source), tmp_path / "other.zarr", scheduler="existing", **OPTIONS)


@pytest.mark.parametrize(("threads", "largest"), [(1, 1), (2, 1), (200, 3), (1000, 8)])
def test_many_workers_are_sent_several_tasks_at_once(threads: int, largest: int) -> None:
    tasks = [Task(f"t{number}", (), None, False) for number in range(40 * threads)]
    taken = 0

    def counted() -> Iterator[Task]:
        nonlocal taken
        for task in tasks:
            taken += 1
            yield task

    sent = cluster.batches(counted(), threads)
    assert len(next(sent)) == largest
    assert taken <= 24 * threads
    sizes = list(map(len, cluster.batches(iter(tasks), threads)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-threads:] == [1] * threads
    assert [task for batch in cluster.batches(iter(tasks), threads) for task in batch] == tasks
    assert not list(cluster.batches(iter([]), threads))


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


def test_workers_of_a_killed_run_do_not_write_into_the_next_one(
    scheduler: str, source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    process = start(source, tmp_path / "out.zarr", scheduler=scheduler)
    while process.is_alive() and not list(tmp_path.glob(".out.zarr.partial/output/t/c/*")):
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    other = OPTIONS | {"chunks": {"time": 2}}
    write(str(source), tmp_path / "out.zarr", overwrite=True, **other)
    write(str(source), tmp_path / "other.zarr", **other)
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "other.zarr")
    write(str(source), tmp_path / "again.zarr", scheduler=scheduler, **OPTIONS)
    assert contents(tmp_path / "again.zarr") == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.zarr", "other.zarr", "out.zarr"]


def test_a_run_that_fails_returns_when_no_worker_does_its_tasks_any_more(
    scheduler: str, source: Path, tmp_path: Path
) -> None:
    def stop(step: Progress) -> None:
        if step.phase == "compress" and step.done_nbytes:
            raise ArgumentError("enough")

    with distributed.Client(scheduler, set_as_default=False) as client:
        before = client.run(lambda: set(cluster._opened))
        with pytest.raises(ArgumentError, match="enough"):
            write(str(source), tmp_path / "out.zarr", scheduler=scheduler, observer=stop, **OPTIONS)
        assert client.run(lambda: set(cluster._opened)) == before
    assert not list(tmp_path.iterdir())


def test_a_scheduler_that_does_not_answer_is_an_error(source: Path, tmp_path: Path) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(ArgumentError, match="no scheduler answers"),
    ):
        write(str(source), tmp_path / "out.zarr", scheduler="tcp://127.0.0.1:9", **OPTIONS)
    assert not list(tmp_path.iterdir())
