"""An archive as large as real ones: compressed in pieces, killed and resumed on the way, verified.

    python -m benchmarks.archive --gb 50 --folder DIR       # hours; `--only growth`: a part, the others stay

The source is on no disk (`datasets/synthetic.py`): 0.25 degree, four variables, levels and hours; the command line
reads it as a URL. Parts: "growth" (several sizes by two processes: what a gigabyte costs, memory of a worker),
"cluster" (two workers of dask with a scheduler of its own, one of them and the run itself killed on the way; the bytes
are those of two processes), "large" (`--gb`: by two processes until one of them, then the run is killed; what was begun
is resumed on a cluster, where a worker is killed too), "scheduler" (tasks that do nothing on simulated workers).
Processor seconds are what counts: they hardly depend on what else a machine does. Writes results/archive.json.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.cases.archive import archive_verdicts, estimate
from benchmarks.cases.scheduler import scheduler_load
from benchmarks.datasets.synthetic import LEVELS, UNITS, url_of
from benchmarks.environment import RESULTS, environment
from benchmarks.report.archive import tables
from benchmarks.watch import Watch, watching

ROOT = Path(__file__).resolve().parent.parent
FIELD = (721, 1440)
FIELD_GB = 4 * FIELD[0] * FIELD[1] / 1e9
HOURS = 24
ISOPRESS = [sys.executable, "-m", "benchmarks.datasets.synthetic"]
KILLS = (("a worker", 0.3), ("the run", 0.6))  # at which part of the bytes
LARGE_KILLS = {"2 processes": (("a worker", 0.2), ("the run", 0.5)), "cluster": (("a worker", 0.75),)}
QUICKEST = ("--context", "field", "--chunk", "time=1")  # of the large archive
WORKERS = 2
# What cli/README.md recommends: dask looks 50 times a second whether its loops are stuck, and 100 times at stacks.
QUIET = {
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "1s",
}

Run = dict[str, Any]
Roles = dict[int, str]  # by process
Kills = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Archive:
    """An archive of all variables; `options` are of `isopress compress`."""

    levels: int
    hours: int
    options: tuple[str, ...] = ()
    shape: tuple[int, int] = FIELD

    @property
    def url(self) -> str:
        """Where it is read."""
        return url_of(len(UNITS), self.levels, self.hours, *self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all fields."""
        return 4 * len(UNITS) * self.levels * self.hours * self.shape[0] * self.shape[1]


@dataclass
class Cost:
    """What a run has cost, attempts that were killed included."""

    wall_s: float = 0.0
    core_s: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    kills: list[str] = field(default_factory=list)

    def add(self, watch: Watch, wall: float, before: Mapping[str, float] | None = None) -> None:
        """Count what one attempt has cost, less the seconds that its processes had `before`."""
        self.wall_s += wall
        for role, seconds in watch.seconds().items():
            self.core_s[role] = self.core_s.get(role, 0.0) + seconds - (before or {}).get(role, 0.0)
        for role, peak in watch.peaks().items():
            self.peak_mb[role] = max(self.peak_mb.get(role, 0.0), peak / 1e6)

    def __add__(self, other: "Cost") -> "Cost":
        roles = [*self.core_s, *(role for role in other.core_s if role not in self.core_s)]
        return Cost(
            self.wall_s + other.wall_s,
            {role: self.core_s.get(role, 0.0) + other.core_s.get(role, 0.0) for role in roles},
            {role: max(self.peak_mb.get(role, 0.0), other.peak_mb.get(role, 0.0)) for role in roles},
            self.kills + other.kills,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts that were asked for and report; return 1 if a target is missed."""
    options = _parser().parse_args(arguments)
    path = options.out / "archive.json"
    known: Run = json.loads(path.read_text()) if path.is_file() else {}
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        parts = {
            "growth": lambda: [measured(Archive(levels, HOURS), folder) for levels in options.growth],
            "cluster": lambda: on_cluster(Archive(options.cluster, HOURS), folder),
            "large": lambda: large(options.gb, folder),
            "scheduler": lambda: scheduler_load(options.workers, options.tasks),
        }
        for name in options.only or parts:
            known |= environment(("isopress", "zarr", "dask", "distributed"))
            known[name] = parts[name]()
            if {"large", "scheduler"} <= known.keys():
                known["estimate"] = estimate(known, json.loads((RESULTS / "fidelity.json").read_text()))
            path.write_text(json.dumps(known, indent=1) + "\n")
            print(f"{name}: measured", file=sys.stderr, flush=True)
    print(tables(known))
    return 0 if all(verdict.kept for verdict in archive_verdicts(known)) else 1


def measured(archive: Archive, folder: Path) -> Run:
    """Return what it takes two processes to compress an archive, and whether it verifies."""
    store = folder / f"{archive.levels}-{archive.hours}.zarr"
    cost = _compress(archive, store, ("--jobs", "2"))
    run = _record(archive, store, cost) | _verified(archive, store)
    shutil.rmtree(store)
    return run


def on_cluster(archive: Archive, folder: Path) -> list[Run]:
    """Return two processes and a cluster at one archive, and the cluster again, with kills on the way."""
    store, found = folder / "cluster.zarr", []

    def run(name: str, how: Sequence[str], kills: Kills = (), roles: Roles | None = None) -> None:
        shutil.rmtree(store, ignore_errors=True)
        cost = _compress(archive, store, how, kills, roles)
        found.append(_record(archive, store, cost) | {"how": name, "sha256": _sha256(store)})

    run("2 processes", ("--jobs", "2"))
    with cluster({}) as (address, roles):
        run("cluster, dask as installed", ("--scheduler", address), (), roles)
    with cluster(QUIET) as (address, roles):
        run("cluster", ("--scheduler", address), (), roles)
        run("cluster, killed", ("--scheduler", address), KILLS, roles)
    last = _verified(archive, store)
    same = len({run["sha256"] for run in found}) == 1
    shutil.rmtree(store)
    return [run | last | {"verified": bool(last["verified"] and same)} for run in found]


def large(gb: float, folder: Path) -> Run:
    """Return what the large archive takes, in all and in its `parts`: by two processes, then on a cluster."""
    hours = max(1, math.ceil(gb / (FIELD_GB * len(UNITS) * LEVELS)))
    archive, store = Archive(LEVELS, hours, QUICKEST), folder / "large.zarr"
    first = _compress(archive, store, ("--jobs", "2"), LARGE_KILLS["2 processes"], until_killed=True)
    part = _record(archive, begun(store), first) | {"done_gb": _done(store) / 1e9}
    with cluster(QUIET) as (address, roles):
        second = _compress(archive, store, ("--scheduler", address), LARGE_KILLS["cluster"], roles)
    whole = _record(archive, store, first + second)
    rest = _record(archive, store, second) | {key: whole[key] - part[key] for key in ("stored_gb", "objects", "tasks")}
    parts = [part | {"how": "2 processes"}, rest | {"how": "cluster", "done_gb": whole["gb"] - part["done_gb"]}]
    last = _verified(archive, store)
    shutil.rmtree(store)
    return whole | last | {"parts": [run | {"verified": last["verified"]} for run in parts]}


# --- runs -------------------------------------------------------------------------------------------------------------


def _compress(
    archive: Archive,
    store: Path,
    how: Sequence[str],
    kills: Kills = (),
    roles: Roles | None = None,
    *,
    until_killed: bool = False,
) -> Cost:
    """Run `isopress compress --resume` until the store is there, or the run was killed; return the cost.

    `roles` are of the processes of a cluster.
    """
    command = [*ISOPRESS, "compress", archive.url, str(store), *archive.options, *how, "--resume", "--json"]
    cost, todo = Cost(), list(kills)
    with watching(roles or {}) as helpers:
        helpers.look()
        before = helpers.seconds()
        while not store.exists() and not (until_killed and "the run" in cost.kills):
            started, left = time.monotonic(), len(todo)
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            with watching({process.pid: "run"}) as watch:
                while process.poll() is None:
                    time.sleep(0.5)
                    if todo and _done(store) >= todo[0][1] * archive.nbytes:
                        what = todo.pop(0)[0]
                        workers = (helpers if roles else watch).workers()
                        os.kill(process.pid if what == "the run" else workers[0], signal.SIGKILL)
                        cost.kills.append(what)
                stderr = process.communicate()[1]
            cost.add(watch, time.monotonic() - started)
            if process.returncode and len(todo) == left:
                raise RuntimeError(f"{' '.join(command)}: {stderr[-500:]}")
        helpers.look()
    cost.add(helpers, 0.0, before)
    return cost


def begun(store: Path) -> Path:
    """Return where what will be a store is made."""
    return store.with_name(f".{store.name}.partial") / "output"


def _done(store: Path) -> int:
    """Return the source bytes of the tasks that the journal of an unfinished store has."""
    total = 0
    for path in begun(store).glob("isopress_journal/*.jsonl"):
        try:
            total += sum(json.loads(line)["nbytes"] for line in path.read_text().splitlines())
        except FileNotFoundError:  # the store has just become complete
            return 0
    return total


def _verified(archive: Archive, store: Path) -> Run:
    """Return whether `isopress verify` finds every value within its bound, and what that takes."""
    command = [*ISOPRESS, "verify", str(store), "--against", archive.url, "--jobs", "2", "--json"]
    cost, started = Cost(), time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    with watching({process.pid: "run"}) as watch:
        code = process.wait()
    cost.add(watch, time.monotonic() - started)
    return {"verified": code == 0, "verify_wall_s": cost.wall_s, "verify_core_s": sum(cost.core_s.values())}


def _record(archive: Archive, store: Path, cost: Cost) -> Run:
    files = [path for path in store.rglob("*") if path.is_file()]
    return {
        "source": archive.url,
        "options": list(archive.options),
        "gb": archive.nbytes / 1e9,
        "stored_gb": sum(path.stat().st_size for path in files) / 1e9,
        "objects": len(files),
        "tasks": sum(
            "c" in path.relative_to(store).parts[:-1] and path.relative_to(store).parts[0] in UNITS for path in files
        ),
        "wall_s": cost.wall_s,
        "core_s": cost.core_s,
        "peak_mb": cost.peak_mb,
        "kills": cost.kills,
    }


def _sha256(store: Path) -> str:
    """Return one checksum of all names and bytes of a store."""
    digest = hashlib.sha256()
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        digest.update(path.relative_to(store).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


# --- a cluster --------------------------------------------------------------------------------------------------------


@contextmanager
def cluster(settings: Mapping[str, str]) -> Iterator[tuple[str, Roles]]:
    """Give the address of a scheduler in a process of its own, with two workers in theirs, and roles by process."""
    environment = os.environ | {"DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False"} | settings
    with ExitStack() as stack:
        where = Path(stack.enter_context(TemporaryDirectory()))
        file = str(where / "scheduler.json")
        scheduler = ["dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file]
        workers = ["dask_worker", "--scheduler-file", file, "--nworkers", str(WORKERS), "--nthreads", "1"]
        workers += ["--no-dashboard", "--local-directory", str(where), "--preload", "benchmarks.datasets.synthetic"]
        roles = {}
        for role, (module, *options) in {"scheduler": scheduler, "cluster": workers}.items():
            command = [sys.executable, "-m", f"distributed.cli.{module}", *options]
            log = stack.enter_context(open(where / f"{role}.log", "w"))
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            roles[process.pid] = role
        while not Path(file).is_file():
            time.sleep(0.1)
        address = json.loads(Path(file).read_text())["address"]
        _wait_for_workers(address)
        yield address, roles


def _wait_for_workers(address: str) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(WORKERS, timeout=120)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.archive", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gb", type=float, default=50.0, help="of the large archive (default: 50)")
    parser.add_argument("--growth", type=int, nargs="+", default=[1, 2, 4, 8], help="levels of archives of 24 hours")
    parser.add_argument("--cluster", type=int, default=4, help="levels of the archive for the cluster (default: 4)")
    parser.add_argument("--workers", type=int, default=1000, help="that are simulated (default: 1000)")
    parser.add_argument("--tasks", type=int, default=4000, help="that do nothing (default: 4000)")
    parser.add_argument("--folder", type=Path, help="for stores; what was begun there is gone on with")
    parser.add_argument("--only", nargs="+", choices=("growth", "cluster", "large", "scheduler"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
