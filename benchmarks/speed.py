"""Speed and memory, each measurement in a fresh process: `python -m benchmarks.speed`.

MB/s is original bytes (1 MB = 10^6 bytes) over the best wall time of several runs, with every thread variable
at 1. Memory is the peak of the process above what it held before the field was loaded, over the field's size:
the field itself, the codec's work and the result all count. Mode "latent" is measured on two threads: encoding with
the RMSE that makes the field 200 times smaller (its step is searched), encoding at that step, decoding; with one
field on each of two cores; in two processes that each want both; and from a Zarr store, by xarray. Writes
speed.json; exits with 1 if isopress misses a target.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from benchmarks.environment import RESULTS, THREAD_VARIABLES, environment
from benchmarks.peers.bounded import BOUNDED_PEERS, Codec
from benchmarks.report.tables import overview

MIN_ENCODE, MIN_DECODE, MAX_MEMORY = 5.0, 8.0, 12.0  # MB/s, MB/s, times the field: the targets of isopress
# Names of isopress here, and what its fields refer to; the targets are for the first.
CONTEXTS = {"isopress": "field", "isopress, block": "block"}
# Names of mode "latent" here; what stands for the tolerance is an RMSE, and the step of the latents.
LATENT, ONE_STEP = "isopress, latent", "isopress, latent at one step"
MIN_LATENT_ENCODE, MIN_LATENT_DECODE, LATENT_THREADS = 5.0, 10.0, 2  # MB/s, MB/s: the targets of mode "latent"
LATENT_VARIABLES = ["native/msl", "native/u850", "native/v850", "native/vo850"]
STORED = 8  # fields of the store that is read, a field a chunk
LATENT_HEAD = struct.Struct("<Bd")  # flags and step, at the beginning of a latent section (SPEC)
RESULT = TypeVar("RESULT")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; return 0 if isopress meets its targets, 1 if not, 2 for bad input."""
    options = _parser().parse_args(arguments)
    from benchmarks.datasets.releases import DatasetError

    try:
        chosen = {name: load_variable(name) for name in options.variables}
        latent = {name: load_variable(name) for name in options.latent}
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    packages = ("isopress", "numpy", "constriction", *sorted({peer.package for peer in BOUNDED_PEERS}))
    surroundings = environment(packages)  # now, while the load is still that of other work
    runs = [
        run
        for name, values in chosen.items()
        for relative_bound in options.bounds
        for run in measure_all(name, values, relative_bound, options.codecs, options.repeat)
    ]
    latent_runs = [
        measure_latent(name, values, ratio, options.repeat)
        for name, values in latent.items()
        for ratio in options.ratios
    ]
    missing = {peer.name: peer.package for peer in BOUNDED_PEERS if peer.version() is None}
    result = {**surroundings, "threads": 1, "missing_peers": missing, "runs": runs, "latent": latent_runs}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if options.json else overview(result, "speed.json"))
    fast = all(run["kept"] for run in latent_runs)
    return 0 if fast and all(kept(run) for run in runs if run["codec"] == "isopress") else 1


def load_variable(name: str) -> np.ndarray:
    """Return the values of a public variable called SET/NAME; raise DatasetError if there is none."""
    from benchmarks.datasets.public import PUBLIC  # loads xarray, which no measuring process needs
    from benchmarks.datasets.releases import DatasetError

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
    from benchmarks.cases.metrics import value_range

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


def measure_latent(name: str, values: np.ndarray, ratio: float, repeat: int) -> dict[str, Any]:
    """Return the speed of mode "latent" on a field, at the RMSE and the step that have `ratio`, and the verdict."""
    import isopress
    from benchmarks.cases.metrics import distortion

    payload = isopress.compress(values, mode="latent", ratio=ratio)
    rmse = distortion(values, np.asarray(isopress.decompress(payload))).rmse
    with TemporaryDirectory() as scratch:
        np.save(Path(scratch) / "field.npy", values)
        job = {"folder": scratch, "repeat": repeat, "threads": LATENT_THREADS}
        run: dict[str, Any] = {"variable": name, "threads": LATENT_THREADS, "rmse": rmse}
        searched = {**job, "codec": LATENT, "bound": rmse}
        run["encode"] = in_fresh_process({**searched, "part": "encode"})
        run["decode"] = in_fresh_process({**searched, "part": "decode"})
        run["ratio"] = values.nbytes / (Path(scratch) / "payload").stat().st_size
        run["encode_at_step"] = in_fresh_process(
            {**job, "codec": ONE_STEP, "bound": step_of(payload), "part": "encode"}
        )
        alone = {**searched, "threads": 1}
        run["two_at_once"] = {part: at_once({**alone, "part": part}) for part in ("encode", "decode")}
        run["crowded"] = at_once({**searched, "part": "decode"})
        run["store"] = in_fresh_process({**searched, "part": "read"})
    encode, decode = run["encode"]["mb_per_s"], run["decode"]["mb_per_s"]
    return {**run, "kept": encode >= MIN_LATENT_ENCODE and decode >= MIN_LATENT_DECODE}


def at_once(job: dict[str, Any]) -> float:
    """Return the MB/s of two processes that do the same job side by side, together."""
    with ThreadPoolExecutor(2) as executor:
        return sum(found["mb_per_s"] for found in executor.map(in_fresh_process, [job, job]))


def step_of(payload: bytes) -> float:
    """Return the step of the latents of a payload, in the unit of the data."""
    from isopress.codec.encoded import Section
    from isopress.format.payload import parse

    section = dict(parse(payload).sections())[Section.LATENT]
    return float(LATENT_HEAD.unpack_from(section)[1])


def in_fresh_process(job: dict[str, Any]) -> dict[str, float]:
    """Return what `measure` finds in a new interpreter whose thread variables are all 1, or the job's threads."""
    # No decoded block is kept from one run to the next.
    threads = dict.fromkeys(THREAD_VARIABLES, str(job.get("threads", 1))) | {"ISOPRESS_CACHE_MB": "0"}
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
    setting = next((peer.settings[0] for peer in BOUNDED_PEERS if peer.name == job["codec"]), "")
    small = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    codec.decode(codec.encode(small, 0.01, setting), small.dtype, small.shape)  # imports, weights, compilation
    forget_peak()
    if job["part"] == "read":
        return read_store(folder, job["bound"], job["repeat"])
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
    """Return the two functions of isopress or of a peer, by name."""
    if name not in (*CONTEXTS, LATENT, ONE_STEP):
        return next(peer.codec for peer in BOUNDED_PEERS if peer.name == name)
    if name == ONE_STEP:
        return Codec(encode=encode_at_step, decode=lambda _, dtype, shape: np.empty(shape, dtype))
    import isopress

    if name == LATENT:
        return Codec(
            encode=lambda x, rmse, _: isopress.compress(x, mode="latent", rmse=rmse),
            decode=lambda payload, _dtype, _shape: np.asarray(isopress.decompress(payload)),
        )
    return Codec(
        encode=lambda x, tolerance, _: bytes(isopress.compress(x, mode="abs", bound=tolerance, context=CONTEXTS[name])),
        decode=lambda payload, _dtype, _shape: np.asarray(isopress.decompress(payload)),
    )


def encode_at_step(x: np.ndarray, step: float, _: str) -> bytes:
    """Return the latent section of `x` at one step: what a search does several times, and no more."""
    from isopress.codec.latent.section import Latent, encode_fields
    from isopress.codec.latent.weights import load_latent

    fields = x.astype(np.float64)
    return encode_fields(fields, Latent(step, float(fields.mean()), periodic=True), load_latent())[0]


def read_store(folder: Path, rmse: float, repeat: int) -> dict[str, float]:
    """Return how fast xarray reads `field.npy`, STORED times in a Zarr store coded in mode "latent"."""
    import xarray as xr
    import zarr

    from isopress import IsopressCodec

    field = np.load(folder / "field.npy")
    group = zarr.open_group(folder / "store.zarr")
    array = group.create_array(
        "x",
        shape=(STORED, *field.shape),
        chunks=(1, *field.shape),
        dtype=field.dtype,
        serializer=IsopressCodec(mode="latent", rmse=rmse),
        compressors=(),
        dimension_names=("time", "lat", "lon"),
    )
    array[0] = field
    chunk = folder / "store.zarr" / "x" / "c" / "0"
    for number in range(1, STORED):
        shutil.copytree(chunk, chunk.with_name(str(number)))
    del array, group
    before = resident_bytes("VmRSS")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no consolidated metadata
        return clock(
            lambda: xr.open_zarr(folder / "store.zarr", chunks=None)["x"].values, STORED * field.nbytes, before, repeat
        )[1]


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
    names = [*CONTEXTS, *(peer.name for peer in BOUNDED_PEERS if peer.version() is not None)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--variables", nargs="+", default=["native/u850", "sample/t2m"], metavar="SET/NAME")
    parser.add_argument("--codecs", nargs="+", choices=names, default=names)
    parser.add_argument("--bounds", nargs="+", type=float, default=[1e-3], help="fractions of the range")
    parser.add_argument("--latent", nargs="*", default=LATENT_VARIABLES, metavar="SET/NAME", help='for mode "latent"')
    parser.add_argument("--ratios", nargs="+", type=float, default=[200.0], help='of mode "latent"')
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
