"""Runs that end badly: `python -m tests.endings [--kills 50] [--points 10] [--record [FILE]]`.

Kills at random moments: of a single process, of one with two workers, of a run on a cluster of dask and of that
cluster's workers, which outlive their run, and of a `decompress`. Disks that are full after
so many bytes while a store is written and restored; a folder that is read-only; two runs at one place. After each one
nothing is lost (the old output stands, the next run goes on and ends with the same bytes as without any of it), nothing
is left (but what can be resumed), and nobody else's file was touched. Exit code 1 if anything of that is not so. With
`--record` the figures go into one file, again after each kind of ending: what is over stays there. The disk is a
preloaded library: needs Linux and gcc. Appends have tests of their own, format/test_append.py.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import xarray as xr

from benchmarks.environment import RESULTS, environment
from isopress.format.store.restore import restore
from isopress.format.store.write import write
from tests.datasets import contents, errors, smooth
from tests.killed_runs import begin, small_tasks

SHIM = Path(__file__).with_name("full_disk.c")
PRELOADED = "ISOPRESS_TEST_DISK"  # set where the library is loaded
PARTIAL = ".out.zarr.partial"
FIELDS = 40
SECONDS = 300  # that a run may take
NAMES = ("time", "lat", "lon")


@dataclass
class Place:
    """A folder with a source, other people's files, and what a run without trouble makes of it."""

    folder: Path
    out: Path = field(init=False)
    source: Path = field(init=False)
    strangers: dict[str, bytes] = field(init=False)
    whole: dict[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        apart = self.folder / "made"
        apart.mkdir()
        self.source = apart / "in.nc"
        self.folder = self.folder / "work"
        self.folder.mkdir()
        self.out = self.folder / "out.zarr"
        coords = {"time": np.arange(FIELDS), "lat": np.arange(32.0), "lon": np.arange(32.0)}
        ds = xr.Dataset({"t": (NAMES, smooth((FIELDS, 32, 32)), {"units": "K"})}, coords)
        ds.to_netcdf(self.source)
        write(str(self.source), apart / "out.zarr", errors=errors("lossless"), chunks={"time": 1})
        self.whole = contents(apart / "out.zarr")
        (self.folder / "thesis.txt").write_text("ten years of work")
        (self.folder / ".other.zarr.partial").mkdir()
        (self.folder / ".other.zarr.partial" / "zarr.json").write_text("of another run")
        self.strangers = contents(self.folder)

    def check(self, *, left: tuple[str, ...] = ()) -> None:
        """Assert that others' files are as they were, and that nothing but `left` is new."""
        allowed = {"thesis.txt", ".other.zarr.partial", *left}
        found = {path.name for path in self.folder.iterdir()}
        assert found <= allowed, f"left: {sorted(found - allowed)}"
        now = contents(self.folder)
        assert all(now.get(name) == data for name, data in self.strangers.items()), "others' files were touched"

    def clear(self) -> None:
        """Remove all outputs."""
        for path in self.folder.iterdir():
            if path.name not in ("thesis.txt", ".other.zarr.partial"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def ended(process: Any) -> int:
    """Return the exit code of a run."""
    process.join(SECONDS)
    assert process.exitcode is not None, "a run does not end"
    return int(process.exitcode)


# --- kills ----------------------------------------------------------------------------------------------------


def kill_writes(place: Place, count: int, moments: random.Random, **options: Any) -> int:
    """Kill so many runs of `write` that go on with each other, until one is complete; return how many were killed."""
    killed = 0
    while killed < count:
        process = begin("write", place.source, place.out, resume=True, **options)
        time.sleep(moments.uniform(0, 1.2))
        workers = children(process.pid)
        process.kill()
        if ended(process) == -signal.SIGKILL:
            killed += 1
        wait_until(lambda: not any(map(alive, workers)))  # noqa: B023  # it returns before the next round
        place.check(left=("out.zarr", PARTIAL))
        if place.out.exists():
            assert contents(place.out) == place.whole, "a store that is there is not complete"
            place.clear()
    assert ended(begin("write", place.source, place.out, resume=True)) == 0
    assert contents(place.out) == place.whole, "after all the kills the store is another one"
    place.check(left=("out.zarr",))
    place.clear()
    return killed


def kill_on_cluster(place: Place, count: int, moments: random.Random) -> int:
    """Kill runs on a cluster, whose workers go on for a moment, and workers, whose tasks others do again."""
    killed = Counter[str]()
    with ExitStack() as stack:
        options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
        cluster = stack.enter_context(distributed.SubprocessCluster(silence_logs=50, **options))
        client = stack.enter_context(distributed.Client(cluster.scheduler_address, set_as_default=False))
        there = {"scheduler": cluster.scheduler_address}
        while killed.total() < count:
            client.wait_for_workers(2, timeout=SECONDS)
            workers = list(client.run(os.getpid).values())
            process = begin("write", place.source, place.out, resume=True, **there)
            begun = lambda: not process.is_alive() or any(place.folder.glob(f"{PARTIAL}/output/t/c/*"))  # noqa: B023, E731
            wait_until(begun, SECONDS, "a run on a cluster does not begin")
            time.sleep(moments.uniform(0, 0.5))
            if killed["worker"] < killed["run"]:
                os.kill(moments.choice(workers), signal.SIGKILL)
                killed["worker"] += 1
                assert ended(process) == 0, "a run does not get over the loss of a worker"
            else:
                process.kill()
                killed["run"] += ended(process) == -signal.SIGKILL
            if killed["run"] % 2 and not place.out.exists():
                make_another(place)
            place.check(left=("out.zarr", PARTIAL))
            if place.out.exists():
                assert contents(place.out) == place.whole, "a store that is there is not complete"
                place.clear()
        assert ended(begin("write", place.source, place.out, resume=True, **there)) == 0
    assert contents(place.out) == place.whole, "after all the kills the store is another one"
    place.check(left=("out.zarr",))
    place.clear()
    return killed.total()


def make_another(place: Place) -> None:
    """Write with other settings over what a killed run left: what its workers still write must not get in."""
    other = place.source.with_name("other.zarr")
    if not other.exists():
        write(str(place.source), other, errors=errors("lossless"), chunks={"time": 2})
    assert ended(begin("write", place.source, place.out, overwrite=True, chunks={"time": 2})) == 0
    assert contents(place.out) == contents(other), "late tasks wrote into the next store"
    place.check(left=("out.zarr",))
    place.clear()


def kill_restores(place: Place, count: int, moments: random.Random) -> int:
    """Kill `decompress` over an old output: it stands until the new one does."""
    killed = 0
    write(str(place.source), place.out, errors=errors("lossless"), chunks={"time": 1})
    target = place.folder / "back.nc"
    restore(place.out, target)
    with xr.open_dataset(target) as ds:
        wanted = ds["t"].values.tobytes()
    while killed < count:
        process = begin("restore", place.out, target, overwrite=True)
        time.sleep(moments.uniform(0, 0.6))
        process.kill()
        killed += ended(process) == -signal.SIGKILL
        place.check(left=("out.zarr", "back.nc", ".back.nc.partial"))
        with xr.open_dataset(target) as ds:
            assert ds["t"].values.tobytes() == wanted
    assert ended(begin("restore", place.out, target, overwrite=True)) == 0
    place.check(left=("out.zarr", "back.nc"))
    place.clear()
    return killed


# --- disks ----------------------------------------------------------------------------------------------------


def fill_writes(place: Place, count: int) -> int:
    """Write to disks that are full after so many bytes; a run with room goes on."""
    needed = sum(map(len, place.whole.values()))
    for i in range(count):
        room = (str(place.folder), needed * i // count, False)
        assert ended(begin("write", place.source, place.out, disk=room)) == 2, f"full after {room[1]} bytes"
        place.check(left=(PARTIAL,))
        assert ended(begin("write", place.source, place.out, resume=True)) == 0
        assert contents(place.out) == place.whole, "after a full disk the store is another one"
        place.check(left=("out.zarr",))
        place.clear()
    return count


def fill_restores(place: Place, count: int) -> int:
    """Restore to NetCDF and Zarr on disks that are full: nothing is left."""
    write(str(place.source), place.out, errors=errors("lossless"), chunks={"time": 1})
    for i in range(count):
        target = place.folder / ("back.nc", "back.zarr")[i % 2]
        restore(place.out, target)
        needed = target.stat().st_size if target.is_file() else sum(map(len, contents(target).values()))
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        room = (str(place.folder), needed * i // count, False)
        assert ended(begin("restore", place.out, target, disk=room)) == 2, f"{target.name}, full after {room[1]} bytes"
        place.check(left=("out.zarr",))
        assert contents(place.out) == place.whole
    place.clear()
    return count


def read_only(place: Place, _: int) -> int:
    """Try to write and restore where nothing can be written."""
    disk = (str(place.folder), sys.maxsize, True)
    assert ended(begin("write", place.source, place.out, disk=disk)) == 2
    place.check()
    assert ended(begin("write", place.source, place.out)) == 0
    before = contents(place.out)
    assert ended(begin("write", place.source, place.out, overwrite=True, disk=disk)) == 2
    assert ended(begin("restore", place.out, place.folder / "back.nc", disk=disk)) == 2
    assert contents(place.out) == before
    place.check(left=("out.zarr",))
    place.clear()
    return 3


def two_runs(place: Place, count: int) -> int:
    """Start two runs at one place at once: one is refused or comes later; the store is whole."""
    for _ in range(count):
        both = [begin("write", place.source, place.out) for _ in range(2)]
        codes = sorted(map(ended, both))
        assert codes in ([0, 2], [0, 0]), codes
        assert contents(place.out) == place.whole, "two runs at one place make another store"
        place.check(left=("out.zarr",))
        place.clear()
    return count


# --- helpers --------------------------------------------------------------------------------------------------


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60, why: str = "workers outlive their parent") -> None:
    """Return when it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, why
        time.sleep(0.05)


# --- running --------------------------------------------------------------------------------------------------


def endings(kills: int, points: int, seed: int) -> dict[str, Callable[[Place], int]]:
    """Return what brings each kind of ending about, `kills` in all, and returns how often it did."""
    moments, share = random.Random(seed), max(1, kills // 4)
    return {
        "kills of a single process": lambda place: kill_writes(place, kills - 3 * share, moments),
        "kills of a run with two workers": lambda place: kill_writes(place, share, moments, jobs=2),
        "kills of a run on a cluster, and of its workers": lambda place: kill_on_cluster(place, share, moments),
        "kills of decompress": lambda place: kill_restores(place, share, moments),
        "full disks while writing": lambda place: fill_writes(place, points),
        "full disks while decompressing": lambda place: fill_restores(place, points),
        "read-only folders": lambda place: read_only(place, points),
        "pairs of runs at one place": lambda place: two_runs(place, max(2, points // 2)),
    }


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Return how often each ending was brought about, the seconds that took, and what was not as it must be."""
    about = environment(("isopress", "xarray", "zarr", "distributed")) | {"seed": given.seed}
    done, seconds, wrong = dict[str, int](), dict[str, float](), list[str]()
    record = {"environment": about, "endings": done, "seconds": seconds, "violations": wrong}
    small_tasks()
    for name, bring_about in endings(given.kills, given.points, given.seed).items():
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                done[name] = bring_about(Place(Path(folder).resolve()))
            except Exception as error:  # the others are brought about all the same
                wrong.append(f"{name}: {error!r}")
        seconds[name] = round(time.monotonic() - begun, 1)
        print(f"{name}: {done.get(name) or wrong[-1]} ({seconds[name]:.0f} s)", flush=True)
        if given.record:
            given.record.write_text(json.dumps(record, indent=1) + "\n")
    return record


def preloaded(arguments: list[str]) -> int:
    """Run this module again with the library that stands for a disk; return its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/full_disk.so"
        command = [os.environ.get("CC", "gcc"), "-shared", "-fPIC", "-O1", str(SHIM), "-o", library]
        subprocess.run(command, check=True)
        environment = os.environ | {"LD_PRELOAD": library, PRELOADED: library}
        return subprocess.run(
            [sys.executable, "-m", "tests.endings", *arguments], env=environment, check=False
        ).returncode


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--points", type=int, default=10, help="of a disk that fills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--record", type=Path, nargs="?", const=RESULTS / "endings.json", help="write the figures there"
    )
    given = parser.parse_args()
    if not os.environ.get(PRELOADED):
        return preloaded(sys.argv[1:])
    wrong = run(given)["violations"]
    print(*wrong, f"{len(wrong)} violations", sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
