"""One measurement in a process of its own: MB/s, seconds and peak memory of one job.

`in_fresh_process` starts an interpreter with every thread variable at the job's number of threads and without a cache
of decoded chunks; `python -m benchmarks.timing JOB` is what it starts. Needs Linux (/proc).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from benchmarks.environment import THREAD_VARIABLES
from benchmarks.peers.bounded import BOUNDED_PEERS, Codec

ROOT = Path(__file__).resolve().parent.parent
LATENT = "isopress, latent"  # its tolerance is an RMSE, those of all others a bound
RESULT = TypeVar("RESULT")


@dataclass(frozen=True)
class Job:
    """What is measured: a codec encoding `field.npy` of a folder to `payload` there, or decoding that.

    `tolerance` is in the unit of the field; the best of `repeat` runs counts.
    """

    folder: str
    codec: str
    part: Literal["encode", "decode"]
    tolerance: float
    repeat: int
    threads: int = 1


@dataclass(frozen=True)
class Timing:
    """MB/s (10^6 original bytes) and seconds of the best run, processor over wall time, peak memory over the array.

    The peak is that of the first run above what the process held before the array was loaded: the array, the codec's
    work and the result all count.
    """

    mb_per_s: float
    seconds: float
    cores_used: float
    peak_over_array: float


def in_fresh_process(job: Job) -> Timing:
    """Return what `measure` finds in a new interpreter."""
    return Timing(**json.loads(_python(["-m", "benchmarks.timing", json.dumps(asdict(job))], job.threads)))


def seconds_of(code: str, repeat: int) -> float:
    """Return the seconds that `code` takes at the start of a new interpreter, the best of several."""
    timed = "import time; started = time.perf_counter()\n" + code + "\nprint(time.perf_counter() - started)"
    return min(float(_python(["-c", timed], threads=1)) for _ in range(repeat))


def measure(job: Job) -> Timing:
    """Do the job here, after a small one that loads libraries and weights."""
    folder, codec = Path(job.folder), codec_of(job.codec)
    setting = next((peer.settings[0] for peer in BOUNDED_PEERS if peer.name == job.codec), "")
    small = np.add.outer(np.sin(np.arange(64)), np.cos(np.arange(64))).astype(np.float32)
    codec.decode(codec.encode(small, 0.1, setting), small.dtype, small.shape)
    _forget_peak()
    described = np.load(folder / "field.npy", mmap_mode="r")
    dtype, shape, n_bytes = described.dtype, described.shape, described.nbytes
    before = _resident_bytes("VmRSS")
    if job.part == "encode":
        field = np.load(folder / "field.npy")
        payload, timing = clock(lambda: codec.encode(field, job.tolerance, setting), n_bytes, before, job.repeat)
        (folder / "payload").write_bytes(payload)
        return timing
    payload = (folder / "payload").read_bytes()
    return clock(lambda: codec.decode(payload, dtype, shape), n_bytes, before, job.repeat)[1]


def codec_of(name: str) -> Codec:
    """Return the two functions of isopress or of a peer, by name."""
    if not name.startswith("isopress"):
        return next(peer.codec for peer in BOUNDED_PEERS if peer.name == name)
    import isopress

    def encode(x: np.ndarray, tolerance: float, _: str) -> bytes:
        if name == LATENT:
            return bytes(isopress.compress(x, mode="latent", rmse=tolerance))
        return bytes(isopress.compress(x, mode="abs", bound=tolerance))

    return Codec(encode, lambda payload, _dtype, _shape: np.asarray(isopress.decompress(payload)))


def clock(work: Callable[[], RESULT], n_bytes: int, before: int, repeat: int) -> tuple[RESULT, Timing]:
    """Return the result of `work` and its timing, `before` bytes being what the process held earlier."""
    walls, processor = [], []
    for turn in range(repeat):
        started, used = time.perf_counter(), time.process_time()
        result = work()
        walls.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
        if turn == 0:
            peak = _resident_bytes("VmHWM") - before
    best = min(walls)
    return result, Timing(n_bytes / best / 1e6, best, processor[walls.index(best)] / best, peak / n_bytes)


def _python(arguments: list[str], threads: int) -> str:
    """Return what a new interpreter prints."""
    environment = dict.fromkeys((*THREAD_VARIABLES, "ISOPRESS_THREADS"), str(threads)) | {"ISOPRESS_CACHE_MB": "0"}
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[-1]}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _forget_peak() -> None:
    """Let VmHWM start again from here; where the system forbids it, peaks of imports count too."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident_bytes(key: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) of this process.

    getrusage is no substitute: across exec it keeps the peak of the parent process.
    """
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{key}:"))


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Job(**json.loads(sys.argv[1]))))))
