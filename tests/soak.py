"""Arrays and hostile payloads, new ones in every run, for as long as you like: `python -m tests.soak --minutes 30`.

Arrays: every dtype, shape, order, alignment, kind of values, limit and mode that `compress` takes, coded by every level
of the kernels (the same payload each time) and decoded by every level (the same values, within the bound, without
slack). Payloads: damaged behind checksums made right, decoded whole or in part by a level drawn anew; only an error of
isopress may come out, in bounded time and memory. Prints what it did; any violation is printed with the seed that
repeats it (`--case array:SEED:POOL` or `--case payload:SEED:POOL`), and the exit code is 1. A crash ends a process of
its own and is a violation too. `--sanitize` runs on kernels built with sanitizers.

`--log FOLDER` keeps counts, which later runs add to; `--sum FOLDER [--record]` prints what all of them found, and
writes it into benchmarks/results/soak.json.
"""

import argparse
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("ISOPRESS_MODELS", str(Path(__file__).parent / "golden" / "models"))  # of golden payloads
from tests import sanitized  # before isopress: it may bring other kernels

# isort: split
from benchmarks.environment import RESULTS, commit, cpu_model
from isopress.codec.native import dispatch
from tests.soak_arrays import check_array
from tests.soak_payloads import Pool, check_payload, pool

SECONDS_PER_CASE = 60  # of arrays; damaged payloads must be refused or decoded within
SECONDS_PER_PAYLOAD = 20
SECONDS_PER_NOTE = 60  # between two notes in the log
EXTRA_MEMORY = 2 << 30  # that a damaged payload may make a process take
PAYLOADS_PER_ARRAY = 50
MOST_CRASHES = 50  # then the run ends: something is wrong with all cases
CASES_PER_PROCESS = 10**9  # numbers of cases, by the seed of the process


@dataclass
class Account:
    """What one process did: counts by how cases ended, slowest cases in seconds of computing, violations."""

    seed: int
    sanitized: bool
    levels: tuple[str, ...]
    commit: str
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Put the account into a folder, at once or not at all."""
        path = folder / f"{self.seed}.json"
        path.with_suffix(".part").write_text(json.dumps(vars(self)))
        path.with_suffix(".part").replace(path)


def cases(number: int, payloads: Pool) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield an array and fifty payloads, which take about as long."""
    yield "array", lambda: check_array(number)
    for i in range(1, PAYLOADS_PER_ARRAY + 1):
        yield "payload", lambda i=i: check_payload(number + i, payloads)  # type: ignore[misc]


def too_long(*_: object) -> None:
    """End a case whose time is up."""
    raise TimeoutError("takes too long")


def work(seed: int, seconds: float, folder: str) -> None:
    """Check arrays and payloads in turn for so long; keep the account, and the case under way, in `folder`."""
    account = Account(seed, bool(os.environ.get(sanitized.VARIABLE)), dispatch.levels(), commit())
    payloads = pool(seed)
    signal.signal(signal.SIGALRM, too_long)
    limit_memory()
    begun, number, noted = time.monotonic(), seed % 10**6 * CASES_PER_PROCESS, 0.0
    place = os.open(f"{folder}/{seed}.case", os.O_WRONLY | os.O_CREAT, 0o600)
    while account.seconds < seconds:
        for kind, case in cases(number, payloads):
            os.pwrite(place, f"{kind}:{number}:{seed}".ljust(60).encode(), 0)  # what a crash leaves behind
            check(account, kind, number, case)
            number += 1
        account.seconds = time.monotonic() - begun
        if account.seconds - noted > SECONDS_PER_NOTE:
            noted = account.seconds
            account.write(Path(folder))
    os.close(place)
    os.unlink(f"{folder}/{seed}.case")
    account.write(Path(folder))


def check(account: Account, kind: str, number: int, case: Callable[[], str]) -> None:
    """Run one case and enter how it ended."""
    begun = time.process_time()
    signal.alarm(SECONDS_PER_CASE if kind == "array" else SECONDS_PER_PAYLOAD)
    try:
        account.counts[f"{kind}s: {case()}"] += 1
    except Exception:
        account.wrong.append(f"--case {kind}:{number}:{account.seed}\n{traceback.format_exc()}")
    finally:
        signal.alarm(0)
    account.slowest[kind] = max(account.slowest.get(kind, 0.0), time.process_time() - begun)


def limit_memory() -> None:
    """Let this process take no more than EXTRA_MEMORY beyond what it has; sanitizers need all there is."""
    if os.environ.get(sanitized.VARIABLE):
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + EXTRA_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def soak(minutes: float, jobs: int, seed: int, folder: Path) -> list[int]:
    """Run `jobs` processes; a new one takes the place of one that a crash ended. Return the seeds of all."""
    context, end = get_context("spawn"), time.monotonic() + 60 * minutes
    used, running = list[int](), dict[int, Any]()
    while True:
        while len(running) < jobs and len(used) < jobs + MOST_CRASHES and (not used or time.monotonic() < end):
            process = context.Process(target=work, args=(seed, end - time.monotonic(), str(folder)))
            process.start()
            used.append(seed)
            running[seed], seed = process, seed + 1
        if not running:
            return used
        for one, process in list(running.items()):
            process.join(1)
            if not process.is_alive():
                del running[one]
                note_crash(one, process.exitcode, folder)
                jobs -= process.exitcode == 0  # it ended because time is up


def note_crash(seed: int, code: int, folder: Path) -> None:
    """Enter the case that ended a process, if one did, into its account."""
    place = folder / f"{seed}.case"
    if not place.exists() and code == 0:
        return
    at = place.read_text().strip() if place.exists() else "the start"
    account = Account(seed, bool(os.environ.get(sanitized.VARIABLE)), dispatch.levels(), commit())
    if (folder / f"{seed}.json").exists():
        account = read(folder / f"{seed}.json")
    account.wrong.append(f"--case {at}\nthe process ended with code {code}")
    account.write(folder)


def read(path: Path) -> Account:
    """Return an account that was written."""
    found = json.loads(path.read_text())
    return Account(**found | {"counts": Counter(found["counts"]), "levels": tuple(found["levels"])})


def total(accounts: list[Account]) -> dict[str, Any]:
    """Return the figures of several accounts together, for each build of the kernels."""
    figures: dict[str, Any] = {}
    for build in ("as installed", "with sanitizers"):
        some = [account for account in accounts if account.sanitized == (build == "with sanitizers")]
        if not some:
            continue
        counts: Counter[str] = sum((account.counts for account in some), Counter())
        kinds = {kind: {name.removeprefix(f"{kind}: "): n for name, n in counts.most_common() if name.startswith(kind)}
                 for kind in ("arrays", "payloads")}  # fmt: skip
        figures[build] = {
            "levels": some[0].levels,
            "commits": sorted({account.commit for account in some}),
            "hours": round(sum(account.seconds for account in some) / 3600, 2),
            "arrays": sum(kinds["arrays"].values()),
            "payloads": sum(kinds["payloads"].values()),
            "violations": sum(len(account.wrong) for account in some),
            "slowest": {kind: round(max(account.slowest.get(kind, 0) for account in some), 2)
                        for kind in ("array", "payload")},
            "ends": kinds,
        }  # fmt: skip
    return figures


def report(accounts: list[Account]) -> int:
    """Print figures and violations; return 1 if there is any."""
    for text in (text for account in accounts for text in account.wrong):
        print(text, file=sys.stderr)
    figures = total(accounts)
    for build, found in figures.items():
        for kind, ends in found["ends"].items():
            print(f"{found[kind]:,} {kind}: " + "; ".join(f"{n:,} {name}" for name, n in ends.items()))
        print(f"kernels {', '.join(found['levels'])} {build}; {60 * found['hours']:.0f} min of processes")
        print(f"{found['violations']} violations")
    return int(any(found["violations"] for found in figures.values()))


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None, help="of the first process; new in every run")
    parser.add_argument("--sanitize", action="store_true", help="on kernels built with the address and UB sanitizers")
    parser.add_argument("--case", help="array:SEED:POOL or payload:SEED:POOL, as a violation names it")
    parser.add_argument("--log", type=Path, metavar="FOLDER", help="keep the counts of this run here")
    parser.add_argument("--sum", type=Path, metavar="FOLDER", help="print the counts of all runs that were kept here")
    parser.add_argument("--record", action="store_true", help="with --sum: write them into the results")
    given = parser.parse_args()
    if given.sum:
        accounts = [read(path) for path in sorted(given.sum.glob("*.json"))]
        if given.record:
            record = {"cpu": cpu_model(), "builds": total(accounts)}
            (RESULTS / "soak.json").write_text(json.dumps(record, indent=1) + "\n")
        return report(accounts)
    if given.sanitize and not os.environ.get(sanitized.VARIABLE):
        return sanitized.run("tests.soak", sys.argv[1:])
    if given.case:
        kind, number, seed = given.case.split(":")
        print(check_array(int(number)) if kind == "array" else check_payload(int(number), pool(int(seed))))
        return 0
    seed = int(time.time()) if given.seed is None else given.seed
    with TemporaryDirectory() as temporary:
        folder = given.log or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        used = soak(given.minutes, given.jobs, seed, folder)
        return report([read(folder / f"{one}.json") for one in used if (folder / f"{one}.json").exists()])


if __name__ == "__main__":
    sys.exit(main())
