"""Speed and memory on one core, each measurement in a fresh process: `python -m benchmarks.speed`.

MB/s is original bytes (1 MB = 10^6 bytes) over the best wall time of several runs, with every thread variable
at 1. Memory is the peak of the process above what it held before the field was loaded, over the field's size:
the field itself, the codec's work and the result all count. Writes speed.json; exits with 1 if isopress
misses a target.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from benchmarks import report
from benchmarks.codecs import RIVALS, Codec
from benchmarks.environment import RESULTS, THREAD_VARIABLES, environment

MIN_ENCODE, MIN_DECODE, MAX_MEMORY = 5.0, 8.0, 12.0  # MB/s, MB/s, times the field: the targets of isopress
# Names of isopress here, and what its fields refer to; the targets are for the first.
CONTEXTS = {"isopress": "field", "isopress, block": "block"}
RESULT = TypeVar("RESULT")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; return 0 if isopress meets its targets, 1 if not, 2 for bad input."""
    options = _parser().parse_args(arguments)
    from benchmarks.releases import DatasetError

    try:
        chosen = {name: load_variable(name) for name in options.variables}
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    packages = ("isopress", "numpy", "constriction", *sorted({rival.package for rival in RIVALS}))
    surroundings = environment(packages)  # now, while the load is still that of other work
    runs = [
        run
        for name, values in chosen.items()
        for relative_bound in options.bounds
        for run in measure_all(name, values, relative_bound, options.codecs, options.repeat)
    ]
    missing = {rival.name: rival.package for rival in RIVALS if rival.version() is None}
    result = {**surroundings, "threads": 1, "missing_rivals": missing, "runs": runs}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if options.json else f"{report.origin(result)}\n\n{report.speed(result)}")
    return 0 if all(kept(run) for run in runs if run["codec"] == "isopress") else 1


def load_variable(name: str) -> np.ndarray:
    """Return the values of a public variable called SET/NAME; raise DatasetError if there is none."""
    from benchmarks.datasets import PUBLIC  # loads xarray, which no measuring process needs
    from benchmarks.releases import DatasetError

    dataset, _, variable = name.partition("/")
    if dataset not in PUBLIC or variable not in PUBLIC[dataset].sha256:
        known = ", ".join(f"{key}/{each}" for key, data in PUBLIC.items() for each in data.sha256)
        raise DatasetError(f"no public variable {name!r}; there are {known}")
    return next(block.values for block in PUBLIC[dataset].load() if block.name == variable)


def kept(run: dict[str, Any]) -> bool:
    """Return whether a run is within the targets of isopress."""
    encode, decode = run["encode"], run["decode"]
    fast: bool = encode["mb_per_s"] >= MIN_ENCODE and decode["mb_per_s"] >= MIN_DECODE
    return fast and max(encode["peak_over_field"], decode["peak_over_field"]) <= MAX_MEMORY


def measure_all(
    name: str, values: np.ndarray, relative_bound: float, codecs: Sequence[str], repeat: int
) -> list[dict[str, Any]]:
    """Return one record per codec: encode and decode, each measured in its own process."""
    from benchmarks.metrics import value_range

    records = []
    with TemporaryDirectory() as scratch:
        np.save(Path(scratch) / "field.npy", values)
        job = {"folder": scratch, "bound": relative_bound * value_range(values), "repeat": repeat}
        for codec in codecs:
            record: dict[str, Any] = {"codec": codec, "variable": name, "relative_bound": relative_bound}
            record["encode"] = in_fresh_process({**job, "codec": codec, "part": "encode"})
            record["decode"] = in_fresh_process({**job, "codec": codec, "part": "decode"})
            record["ratio"] = values.nbytes / (Path(scratch) / "payload").stat().st_size
            records.append(record)
    return records


def in_fresh_process(job: dict[str, Any]) -> dict[str, float]:
    """Return what `measure` finds in a new interpreter whose thread variables are all 1."""
    # One thread each, and no decoded block kept from one run to the next.
    threads = dict.fromkeys(THREAD_VARIABLES, "1") | {"ISOPRESS_CACHE_MB": "0"}
    child = [sys.executable, "-m", "benchmarks.speed", "--job", json.dumps(job)]
    done = subprocess.run(
        child,
        env=os.environ | threads,
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{job['codec']} could not {job['part']}: {done.stderr.strip()[-500:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Encode `field.npy` to `payload`, or decode `payload`, in the job's folder; return MB/s and memory."""
    folder, codec = Path(job["folder"]), codec_of(job["codec"])
    setting = next((rival.settings[0] for rival in RIVALS if rival.name == job["codec"]), "")
    small = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    codec.decode(codec.encode(small, 0.01, setting), small.dtype, small.shape)  # imports, weights, compilation
    forget_peak()
    if job["part"] == "encode":
        before = resident_bytes("VmRSS")
        field = np.load(folder / "field.npy")
        payload, found = clock(lambda: codec.encode(field, job["bound"], setting), field.nbytes, before, job["repeat"])
        (folder / "payload").write_bytes(payload)
        return found
    described = np.load(folder / "field.npy", mmap_mode="r")
    dtype, shape, n_bytes = described.dtype, described.shape, described.nbytes
    before = resident_bytes("VmRSS")
    payload = (folder / "payload").read_bytes()
    return clock(lambda: codec.decode(payload, dtype, shape), n_bytes, before, job["repeat"])[1]


def codec_of(name: str) -> Codec:
    """Return the two functions of isopress or of a rival, by name."""
    if name not in CONTEXTS:
        return next(rival.codec for rival in RIVALS if rival.name == name)
    import isopress

    return Codec(
        encode=lambda x, tolerance, _: bytes(isopress.compress(x, mode="abs", bound=tolerance, context=CONTEXTS[name])),
        decode=lambda payload, _dtype, _shape: np.asarray(isopress.decompress(payload)),
    )


def clock(work: Callable[[], RESULT], n_bytes: int, before: int, repeat: int) -> tuple[RESULT, dict[str, float]]:
    """Return the result of `work` with best MB/s, processor over wall time, and the peak of the first run."""
    walls, processor = [], []
    for turn in range(repeat):
        started, used = time.perf_counter(), time.process_time()
        result = work()
        walls.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
        if turn == 0:
            peak = resident_bytes("VmHWM") - before
    best = min(walls)
    return result, {
        "mb_per_s": n_bytes / best / 1e6,
        "seconds": best,
        "cores_used": processor[walls.index(best)] / best,
        "peak_over_field": peak / n_bytes,
    }


def forget_peak() -> None:
    """Let VmHWM start again from here; where the system forbids it, peaks of imports count too."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_bytes(key: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) of this process; needs Linux.

    getrusage is no substitute: across exec it keeps the peak of the parent process.
    """
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{key}:"))


def _parser() -> argparse.ArgumentParser:
    names = [*CONTEXTS, *(rival.name for rival in RIVALS if rival.version() is not None)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--variables", nargs="+", default=["native/u850", "sample/t2m"], metavar="SET/NAME")
    parser.add_argument("--codecs", nargs="+", choices=names, default=names)
    parser.add_argument("--bounds", nargs="+", type=float, default=[1e-3], help="fractions of the range")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for speed.json")
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    if "--job" in sys.argv:
        print(json.dumps(measure(json.loads(sys.argv[sys.argv.index("--job") + 1]))))
        sys.exit(0)
    sys.exit(main())
