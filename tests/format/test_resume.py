"""Runs that end early: killed, interrupted, out of disk. Nothing half-made appears, and they are gone on with."""

import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.codec.errors import ArgumentError, BoundError, WorkerLostError
from isopress.codec.threads import threads
from isopress.format.report.info import read_report
from isopress.format.source.dataset import open_source
from isopress.format.store import chunking, journal, tasks
from isopress.format.store.progress import Progress
from isopress.format.store.restore import restore
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from isopress.format.zarr.groups import quiet_zarr
from tests.datasets import contents, errors, smooth
from tests.killed_runs import start

PARTIAL = ".out.zarr.partial"
FIELDS = 60


class Stopped(BaseException):
    """Stands for Ctrl-C."""


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "TASK_NBYTES", 2**12)
    monkeypatch.setattr(chunking, "REGION_NBYTES", 2**12)
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "in.nc"
    names = ("time", "lat", "lon")
    ds = xr.Dataset({"t": (names, smooth((FIELDS, 32, 32)), {"units": "K"}), "n": (names[1:], np.eye(32))})
    ds.assign_coords(time=np.arange(FIELDS), lat=np.arange(32.0)).to_netcdf(path)
    return path


OPTIONS: dict[str, Any] = {"errors": errors("lossless"), "chunks": {"time": 1}}


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of a store that was written without interruption."""
    out = tmp_path_factory.mktemp("whole") / "out.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "TASK_NBYTES", 2**12)
        patch.setattr(chunking, "REGION_NBYTES", 2**12)
        write(str(source), out, **OPTIONS)
    return contents(out)


def stop_after(count: int) -> Any:
    """Return an observer that stops the run after so many tasks of conversion."""
    seen = []

    def observe(step: Progress) -> None:
        if step.phase == "compress":
            seen.append(step)
            if len(seen) > count:
                raise Stopped

    return observe


def stopped(source: Path, out: Path, count: int = 5, **options: Any) -> None:
    with pytest.raises(Stopped):
        write(str(source), out, observer=stop_after(count), **(OPTIONS | options))


def listed(folder: Path) -> list[str]:
    """Return the names of the tasks that the journal of an unfinished store has."""
    lines = (line for path in folder.glob("output/isopress_journal/*.jsonl") for line in path.read_text().splitlines())
    return [json.loads(line)["task"] for line in lines]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are killed")
def test_after_twenty_kills_the_store_is_as_if_there_had_been_none(
    source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out, moments, done = tmp_path / "out.zarr", random.Random(0), 0
    for _ in range(20):
        process = start(source, out, resume=True)
        while process.is_alive() and len(listed(tmp_path / PARTIAL)) <= done:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.join()
        if out.exists():  # it was quicker than this test
            assert contents(out) == whole
            shutil.rmtree(out)
        before, done = done, len(listed(tmp_path / PARTIAL))
        assert done > before or done in (0, FIELDS + 1)  # quicker than this test, or killed after the last task
    itemsizes = [4 if task.startswith("t") else 8 for task in listed(tmp_path / PARTIAL)]  # n is last
    steps: list[Progress] = []
    write(str(source), out, resume=True, observer=steps.append, **OPTIONS)
    assert max(step.kept_nbytes for step in steps) == sum(itemsizes) * 32 * 32
    assert contents(out) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_a_store_without_a_plan_begins_anew(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    stopped(source, out)
    journals = tmp_path / PARTIAL / "output" / "isopress_journal"
    (journals / "plan.json").rename(journals / "plan.0123.partial")  # as if killed a moment before
    write(str(source), out, resume=True, **OPTIONS)
    assert contents(out) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_after_a_lost_worker_the_rest_is_done(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"

    def kill_one(step: Progress) -> None:
        workers = multiprocessing.active_children()
        if step.phase == "compress" and step.done_nbytes and workers:
            os.kill(workers[0].pid or 0, signal.SIGKILL)

    with pytest.raises(WorkerLostError, match="worker process died"):
        write(str(source), out, jobs=2, observer=kill_one, **OPTIONS)
    assert listed(tmp_path / PARTIAL)
    write(str(source), out, resume=True, **OPTIONS)
    assert contents(out) == whole


def test_what_an_interruption_leaves_says_what_it_is(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        stopped(source, tmp_path / "out.zarr")
    assert [path.name for path in tmp_path.iterdir()] == [PARTIAL]
    assert "--resume" in caplog.text
    with quiet_zarr():
        left = xr.open_zarr(tmp_path / PARTIAL / "output", consolidated=False)
    assert "not complete" in left.attrs["isopress_unfinished"]
    report = verify(tmp_path / PARTIAL / "output", str(source))
    assert not report.kept
    assert any("not complete" in difference for difference in report.differences)
    described = read_report(tmp_path / PARTIAL / "output")
    assert "not complete" in repr(described)
    assert not described.to_dict()["complete"]
    with open_source(str(tmp_path / PARTIAL / "output")) as opened:
        assert any("not complete" in warning for warning in opened.warnings)
    with pytest.raises(ArgumentError, match="not complete"):
        restore(tmp_path / PARTIAL / "output", tmp_path / "back.nc")


def test_an_unfinished_run_is_neither_lost_nor_in_the_way(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    stopped(source, out)
    with pytest.raises(ArgumentError, match=r"--resume goes on with it, --overwrite begins anew"):
        write(str(source), out, **OPTIONS)
    assert len(listed(tmp_path / PARTIAL)) == 5
    write(str(source), out, overwrite=True, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_resume_without_anything_to_resume_is_a_run_like_any_other(source: Path, tmp_path: Path) -> None:
    write(str(source), tmp_path / "out.zarr", resume=True, **OPTIONS)
    assert verify(tmp_path / "out.zarr", str(source)).kept


def test_what_is_damaged_or_lost_meanwhile_is_made_again(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    stopped(source, tmp_path / "out.zarr", 20)
    output = tmp_path / PARTIAL / "output"
    chunks = sorted(path for path in output.glob("t/c/**/*") if path.is_file())
    content = bytearray(chunks[0].read_bytes())
    content[len(content) // 2] ^= 1
    chunks[0].write_bytes(content)
    chunks[1].unlink()
    chunks[2].with_name("0.0123.partial").write_bytes(b"half")
    with next(output.glob("isopress_journal/*.jsonl")).open("a") as file:
        file.write('\n{"task": "cut sho')
    write(str(source), tmp_path / "out.zarr", resume=True, **OPTIONS)
    assert contents(tmp_path / "out.zarr") == whole


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"errors": errors("0.02")}, r"variable t was float32 60x32x32, lossless, .*now it is .*abs:0.02"),
        ({"chunks": {"time": 2}}, "chunks 2x32x32"),
        ({"context": "field"}, "context was auto, now it is field"),
        ({"zarr_format": 2}, "Zarr format was 3, now it is 2"),
    ],
)
def test_other_settings_are_refused_with_the_difference(
    source: Path, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    stopped(source, tmp_path / "out.zarr", 1)
    with pytest.raises(ArgumentError, match=named):
        write(str(source), tmp_path / "out.zarr", resume=True, **(OPTIONS | options))
    assert listed(tmp_path / PARTIAL)  # for a run with the same settings


def test_another_source_or_model_is_refused_with_the_difference(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "in.nc"
    changed.write_bytes(source.read_bytes())
    stopped(changed, tmp_path / "out.zarr", 1)
    os.utime(changed, (1, 1))
    with pytest.raises(ArgumentError, match=r"source .*in.nc was 1 file\(s\), .* now it is .* of 1970-01-01"):
        write(str(changed), tmp_path / "out.zarr", resume=True, **OPTIONS)
    write(str(changed), tmp_path / "out.zarr", overwrite=True, **OPTIONS)
    stopped(changed, tmp_path / "out.zarr", 1, overwrite=True)
    monkeypatch.setattr("isopress.format.store.journal.installed", lambda: [])
    with pytest.raises(ArgumentError, match=r"weights .* now it is absent"):
        write(str(changed), tmp_path / "out.zarr", resume=True, overwrite=True, **OPTIONS)


def test_a_failure_that_another_run_would_meet_again_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = tasks.measure
    monkeypatch.setattr(tasks, "measure", lambda x, x_hat, bound: honest(x, x_hat + np.float32(1), bound))
    with pytest.raises(BoundError):
        write(str(source), tmp_path / "out.zarr", **OPTIONS)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_can_be_resumed(
    source: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    honest = tasks.read_object

    def full(array: Any, key: str) -> bytes | None:
        calls.append(key)
        if len(calls) == 10:
            raise OSError(28, "No space left on device")
        return honest(array, key)

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "read_object", full)
        with pytest.raises(OSError, match="No space"):
            write(str(source), tmp_path / "out.zarr", **OPTIONS)
    others = threads() - 1  # that still end what they have begun, or come too late
    assert 9 - others <= len(listed(tmp_path / PARTIAL)) <= 9 + others
    write(str(source), tmp_path / "out.zarr", resume=True, **OPTIONS)
    assert contents(tmp_path / "out.zarr") == whole


of_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")


@pytest.fixture(scope="module")
def many_fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of many small fields: there is always a next one while a test looks."""
    path = tmp_path_factory.mktemp("source") / "in.nc"
    xr.Dataset({"t": (("k", "y", "x"), smooth((2000, 32, 32)))}).to_netcdf(path)
    return path


def compressing(source: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start `isopress compress` in a process group of its own; return when chunks are written."""
    command = [sys.executable, "-m", "isopress.cli.main", "compress", str(source), str(out), "--chunk", "k=1"]
    command += ["--shard", "k=4"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: process.poll() is not None or any(out.parent.glob(f"{PARTIAL}/output/t/c/*")))
    assert process.poll() is None, process.communicate()[1]
    return process


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # nobody may be there to ask for its exit code


@of_linux
def test_a_kill_ends_the_workers_too_and_what_is_left_can_be_removed(many_fields: Path, tmp_path: Path) -> None:
    process = compressing(many_fields, tmp_path / "out.zarr", "--jobs", "2")
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not any(map(alive, workers)), 30)
    assert [path.name for path in tmp_path.iterdir()] == [PARTIAL]
    xr.Dataset({"t": (("y", "x"), smooth((8, 9)))}).to_netcdf(tmp_path / "small.nc")
    write(str(tmp_path / "small.nc"), tmp_path / "out.zarr", errors=errors("0.1"), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zarr", "small.nc"]


@of_linux
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_all_processes_leaves_what_can_be_resumed_and_no_traceback(
    number: signal.Signals, code: int, many_fields: Path, tmp_path: Path
) -> None:
    process = compressing(many_fields, tmp_path / "out.zarr", "--jobs", "2")
    workers = children(process.pid)
    os.killpg(process.pid, number)
    stderr = process.communicate(timeout=90)[1]
    wait_for(lambda: not any(map(alive, workers)), 30)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert "exception" not in stderr.lower()
    assert "--resume goes on with it" in stderr
    assert [path.name for path in tmp_path.iterdir()] == [PARTIAL]


@of_linux
@pytest.mark.parametrize("name", ["out.nc", "out.zarr"])
def test_decompress_on_a_full_disk_leaves_nothing(name: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 256, 256)).astype("f4")
    xr.Dataset({"t": (("k", "y", "x"), values)}).to_zarr(tmp_path / "in.zarr", consolidated=False, zarr_format=3)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # a file that grows beyond fails as on a full disk
    try:
        done = CliRunner().invoke(main, ["decompress", str(tmp_path / "in.zarr"), str(tmp_path / name)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.exit_code == 2, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("isopress: ")
