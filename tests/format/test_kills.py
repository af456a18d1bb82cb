"""Runs that end early: killed, interrupted, out of disk. Nothing half-made appears, nobody lives on."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.format.store.write import write
from tests.datasets import errors, smooth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")

PARTIAL = ".out.zarr.partial"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of many small fields: there is always a next one while a test looks."""
    path = tmp_path_factory.mktemp("source") / "in.nc"
    xr.Dataset({"t": (("k", "y", "x"), smooth((2000, 32, 32)))}).to_netcdf(path)
    return path


def start(source: Path, out: Path, *options: str) -> subprocess.Popen[str]:
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


def test_a_kill_ends_the_workers_too_and_what_is_left_can_be_removed(source: Path, tmp_path: Path) -> None:
    process = start(source, tmp_path / "out.zarr", "--jobs", "2")
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not any(map(alive, workers)), 30)
    assert [path.name for path in tmp_path.iterdir()] == [PARTIAL]
    xr.Dataset({"t": (("y", "x"), smooth((8, 9)))}).to_netcdf(tmp_path / "small.nc")
    write(str(tmp_path / "small.nc"), tmp_path / "out.zarr", errors=errors("0.1"), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zarr", "small.nc"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_all_processes_leaves_what_can_be_resumed_and_no_traceback(
    number: signal.Signals, code: int, source: Path, tmp_path: Path
) -> None:
    process = start(source, tmp_path / "out.zarr", "--jobs", "2")
    workers = children(process.pid)
    os.killpg(process.pid, number)
    stderr = process.communicate(timeout=90)[1]
    wait_for(lambda: not any(map(alive, workers)), 30)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert "exception" not in stderr.lower()
    assert "--resume goes on with it" in stderr
    assert [path.name for path in tmp_path.iterdir()] == [PARTIAL]


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
