"""Arrays and hostile payloads, new ones in every run, for as long as you like: `python -m tests.soak --minutes 30`.

Arrays: every dtype, shape, order, alignment, kind of values, limit and mode that `compress` takes, coded by every level
of the kernels (the same payload each time) and decoded by every level (the same values, within the bound, without
slack). Payloads: damaged behind checksums made right, decoded by a level drawn anew; only an error of isopress may
come out, in bounded time and memory. Prints what it did; any violation is printed with the seed that repeats it
(`--case array:SEED:POOL` or `--case payload:SEED:POOL`), and the exit code is 1. `--sanitize` runs on kernels built
with sanitizers.
"""

import argparse
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests import sanitized  # before isopress: it may bring other kernels

# isort: split
import isopress
from isopress import ModelNotFoundError, PayloadError
from isopress.codec import native
from isopress.codec.encoded import Method
from tests.contract import LAYOUTS, Array, assert_kept, bits
from tests.format.test_payload import repaired

FLOATS = ("<f4", "<f4", "<f8", ">f4", ">f8")
OTHERS = ("<f2", ">f2", "i1", "<i2", "<i4", ">i8", "u1", ">u4", "<u8", "?")
LATENT_EVERY = 40  # arrays: targets are searched for, which takes a hundred times as long
SECONDS_PER_CASE = 60  # of arrays; damaged payloads must be refused or decoded within
SECONDS_PER_PAYLOAD = 20
EXTRA_MEMORY = 2 << 30  # that a damaged payload may make a process take

Settings = dict[str, Any]


# --- arrays -------------------------------------------------------------------------------------------------


def shape_of(rng: np.random.Generator) -> tuple[int, ...]:
    """Return 0 to 5 axes: single, prime, empty and long ones."""
    axes = int(rng.choice([0, 1, 2, 2, 2, 3, 3, 3, 4, 5]))
    longest = (1, 3000, 90, 30, 12, 6)[axes]
    shape = [int(n) for n in np.floor(np.exp(rng.uniform(0, np.log(longest + 1), axes)))]
    if axes > 1 and rng.random() < 0.7:  # fields that are worth a network
        shape[-2:] = [int(n) for n in np.exp(rng.uniform(2.3, np.log(longest + 12), 2))]
    if axes and rng.random() < 0.1:
        shape[rng.integers(axes)] = int(rng.choice([0, 1, 1, 2]))
    if axes and rng.random() < 0.2:
        shape[-1] = int(rng.choice([7, 13, 31, 37, 61, 64, 65]))
    return tuple(shape)


def values_of(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return binary64 values of some kind that people have, or nobody has."""
    size = int(np.prod(shape))
    walk, noise = np.cumsum(rng.normal(size=size)), rng.normal(size=size)
    kinds: dict[str, Callable[[], Array]] = {
        "walk": lambda: walk,
        "noise": lambda: noise,
        "smooth": lambda: waves(rng, shape) + noise * 10.0 ** rng.integers(-6, -1),
        "smooth in steps": lambda: np.round(waves(rng, shape), 1),
        "constant": lambda: np.full(size, 273.15),
        "nearly constant": lambda: np.where(rng.random(size) < 0.01, noise, 5.0),
        "lattice": lambda: np.round(walk * 10.0 ** rng.integers(-1, 3)) / 10.0 ** rng.integers(0, 4),
        "classes": lambda: rng.integers(0, rng.integers(2, 9), size).astype(float),
        "mixed magnitudes": lambda: noise * 10.0 ** rng.uniform(-30, 30, size),
        "offset": lambda: 1e7 + walk * 10.0 ** rng.integers(-9, 0),
        "precipitation": lambda: np.where(rng.random(size) < 0.8, 0, np.exp(3 * noise - 9)),
        "denormal": lambda: noise * 1e-42,
        "huge": lambda: np.clip(noise * 1e38, -3.4e38, 3.4e38),
        "alternating": lambda: np.where(np.arange(size) % 2, 1.0, -1.0) * rng.uniform(0.5, 1, size),
        "bits": lambda: np.frombuffer(rng.bytes(8 * size), np.float64),
    }
    kind = "smooth" if rng.random() < 0.6 else str(rng.choice(list(kinds)))
    kind = "smooth" if rng.random() < 0.5 else str(rng.choice(list(kinds)))
    with np.errstate(all="ignore"):
        return kinds[kind]().reshape(shape)


def waves(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return a few waves around 280 along all axes, flat."""
    total = np.full(shape, 280.0)
    for _ in range(3):
        phase = np.zeros(shape)
        for axis, length in enumerate(shape):
            along = np.arange(length) * rng.normal() * 0.15
            phase = phase + along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        total += 10 * rng.normal() * np.sin(phase)
    return total.reshape(-1)


def array_of(rng: np.random.Generator) -> Array:
    """Return an array of any dtype, with special values and in any layout."""
    dtype = np.dtype(str(rng.choice(FLOATS if rng.random() < 0.8 else OTHERS)))
    values = values_of(rng, shape_of(rng))
    if dtype.kind in "iub":
        x = np.frombuffer(
            rng.bytes(values.size * dtype.itemsize), dtype.newbyteorder("=") if dtype.kind != "b" else "u1"
        )
        x = (x % 2).astype(bool) if dtype.kind == "b" else x.astype(dtype)
        x = x.reshape(values.shape)
    else:
        with np.errstate(all="ignore"):
            x = values.astype(dtype)
        if x.size and rng.random() < 0.4:
            places = rng.integers(0, x.size, int(rng.integers(1, max(2, x.size // int(rng.integers(1, 30))))))
            special = rng.choice([np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0], places.size)
            x.reshape(-1)[places] = special[: 1 if rng.random() < 0.5 else None]
    if x.ndim == 3 and x.size and rng.random() < 0.3:
        with np.errstate(all="ignore"):
            x = LAYOUTS[str(rng.choice(sorted(LAYOUTS)))](x)
    return x


def settings_of(rng: np.random.Generator, x: Array, *, latent: bool) -> Settings:
    """Return keywords of `compress` that go with the dtype and shape of `x`."""
    if x.dtype.kind != "f" or x.dtype.itemsize == 2 or rng.random() < 0.1:
        return {"mode": "lossless"}
    if latent:
        if rng.random() < 0.5:
            return {"mode": "latent", "ratio": float(np.exp(rng.uniform(0.1, 7)))}
        return {"mode": "latent", "rmse": float(10.0 ** rng.uniform(-4, 2))}
    size = float(10.0 ** rng.uniform(-300, 300))
    if rng.random() < 0.8:
        size = float(10.0 ** rng.uniform(-4, 1))
    context = str(rng.choice(["auto", "auto", "field", "block"]))
    choice = rng.random()
    if choice < 0.4:
        return {"mode": "abs", "bound": size, "context": context}
    if choice < 0.5 and x.ndim >= 3 and len(x) and x.dtype.isnative:
        return {"mode": "abs", "bound": [float(b) for b in 10.0 ** rng.uniform(-4, 2, len(x))], "context": context}
    fraction = float(10.0 ** rng.uniform(-7, -0.3))
    if choice < 0.7:
        return {"mode": "range", "bound": fraction, "context": context}
    floor = size if rng.random() < 0.5 else None
    return {"mode": "pointwise", "bound": fraction, "floor": floor, "context": context}


def check_array(seed: int) -> str:
    """Code one array by every level; return the method; raise what is wrong."""
    rng = np.random.default_rng(seed)
    latent = seed % LATENT_EVERY == 0
    x = array_of(rng)
    settings = settings_of(rng, x, latent=latent)
    with np.errstate(all="ignore"):
        payloads, decoded = {}, {}
        for level in native.levels():
            with native.using(level):
                payloads[level] = isopress.compress(x, **settings)
        first = payloads[native.levels()[0]]
        for level, payload in payloads.items():
            assert payload == first, f"{level} writes another payload than {native.levels()[0]}"
            with native.using(level):
                decoded[level] = isopress.decompress(payload)
        info = isopress.inspect(first)
        for level, y in decoded.items():
            assert bits(y) == bits(decoded[native.levels()[0]]), f"{level} decodes other values"
        y = decoded[native.levels()[0]]
        if settings["mode"] == "latent":  # how near it comes is a matter of benchmarks
            assert (y.shape, y.dtype) == (x.shape, x.dtype)
        else:
            kept = {name: value for name, value in settings.items() if value is not None and name != "model"}
            assert_kept(x, y, **kept)
    return f"{settings['mode']}, {Method(info.method).name.lower()}"


# --- damaged payloads -----------------------------------------------------------------------------------------


def pool(seed: int, count: int = 200) -> list[bytes]:
    """Return payloads of every method to begin from: the golden ones and `count` new ones."""
    found = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("golden/*/*/payload.bin"))]
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        x = array_of(rng)
        with np.errstate(all="ignore"):
            found.append(isopress.compress(x, **settings_of(rng, x, latent=False)))
    return [payload for payload in found if len(payload) < 20_000]


def damaged(rng: np.random.Generator, payloads: list[bytes]) -> bytes:
    """Return a payload with bits flipped, bytes overwritten, cut out, repeated or taken from another."""
    data = bytearray(payloads[rng.integers(len(payloads))])
    for _ in range(int(rng.choice([1, 1, 1, 2, 4, 16]))):
        first = 8 if rng.random() < 0.98 else 0  # what precedes are magic, version and length
        at = int(rng.integers(first, len(data) if rng.random() < 0.7 else min(96, len(data))))
        kind = rng.integers(6)
        if kind <= 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[at] = int(rng.choice([0, 1, 127, 128, 254, 255]))
        elif kind == 3:
            data[at : at + 8] = rng.bytes(len(data[at : at + 8]))
        elif kind == 4:
            other = payloads[rng.integers(len(payloads))]
            data[at : at + 40] = other[at : at + 40]
        elif len(data) > 40:
            del data[at : at + int(rng.integers(1, 9))]
            data += bytes(int(rng.integers(0, 9)))
    length = int.from_bytes(data[6:8], "little")
    return repaired(data) if rng.random() < 0.97 and 16 <= length <= len(data) else bytes(data)


def check_payload(seed: int, payloads: list[bytes]) -> str:
    """Decode one damaged payload; return how it ended; raise what is wrong."""
    rng = np.random.default_rng(seed)
    data = damaged(rng, payloads)
    level = str(rng.choice(native.levels()))
    try:
        with native.using(level), np.errstate(all="ignore"):
            info = isopress.inspect(data)
            y = isopress.decompress(data)
    except (PayloadError, ModelNotFoundError) as error:
        return type(error).__name__
    assert (y.shape, y.dtype) == (info.shape, info.dtype)
    return "decoded"


# --- running ------------------------------------------------------------------------------------------------


def too_long(*_: object) -> None:
    """End a case whose time is up."""
    raise TimeoutError("takes too long")


def work(seed: int, seconds: float, place: str) -> tuple[Counter[str], list[str]]:
    """Check arrays and payloads in turn for so long; return counts of what happened, and what is wrong."""
    counts, wrong, payloads = Counter[str](), list[str](), pool(seed)
    signal.signal(signal.SIGALRM, too_long)
    limit_memory()
    end, number = time.monotonic() + seconds, seed * 10**9
    while time.monotonic() < end:
        for kind, case in cases(number, payloads):
            number += 1
            Path(place).write_text(f"{kind}:{number - 1}:{seed}")  # what a crash leaves behind
            signal.alarm(SECONDS_PER_CASE if kind == "array" else SECONDS_PER_PAYLOAD)
            try:
                counts[f"{kind}s: {case()}"] += 1
            except Exception:
                wrong.append(f"--case {kind}:{number - 1}:{seed}\n{traceback.format_exc()}")
            finally:
                signal.alarm(0)
    return counts, wrong


def cases(number: int, payloads: list[bytes]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield an array and fifty payloads, which take about as long."""
    yield "array", lambda: check_array(number)
    for i in range(1, 51):
        yield "payload", lambda i=i: check_payload(number + i, payloads)  # type: ignore[misc]


def limit_memory() -> None:
    """Let this process take no more than EXTRA_MEMORY beyond what it has; sanitizers need all there is."""
    if os.environ.get(sanitized.VARIABLE):
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + EXTRA_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def soak(minutes: float, jobs: int, seed: int) -> int:
    """Run `jobs` processes, print a report, return 1 if anything is wrong."""
    counts, wrong, begun = Counter[str](), list[str](), time.monotonic()
    with TemporaryDirectory() as folder, ProcessPoolExecutor(jobs, get_context("spawn")) as workers:
        places = [f"{folder}/{i}" for i in range(jobs)]
        found = [workers.submit(work, seed + i, 60 * minutes, place) for i, place in enumerate(places)]
        for one in found:
            try:
                some, faults = one.result()
            except BrokenProcessPool:
                at = [Path(place).read_text() for place in places if Path(place).exists()]
                wrong.append(f"a process died at one of --case {', '.join(at)}")
                break
            counts += some
            wrong += faults
    for text in wrong:
        print(text, file=sys.stderr)
    for kind in ("arrays", "payloads"):
        those = {name.removeprefix(f"{kind}: "): n for name, n in counts.most_common() if name.startswith(kind)}
        print(f"{sum(those.values()):,} {kind}: " + "; ".join(f"{n:,} {name}" for name, n in those.items()))
    built = "with sanitizers" if os.environ.get(sanitized.VARIABLE) else "as installed"
    taken = (time.monotonic() - begun) / 60
    print(f"kernels {', '.join(native.levels())} {built}; {taken:.0f} min in {jobs} processes, seed {seed}")
    print(f"{len(wrong)} violations")
    return bool(wrong)


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None, help="of the first process; new in every run")
    parser.add_argument("--sanitize", action="store_true", help="on kernels built with the address and UB sanitizers")
    parser.add_argument("--case", help="array:SEED:POOL or payload:SEED:POOL, as a violation names it")
    given = parser.parse_args()
    if given.sanitize and not os.environ.get(sanitized.VARIABLE):
        return sanitized.run("tests.soak", sys.argv[1:])
    if given.case:
        kind, number, seed = given.case.split(":")
        print(check_array(int(number)) if kind == "array" else check_payload(int(number), pool(int(seed))))
        return 0
    seed = int(time.time()) if given.seed is None else given.seed
    return soak(given.minutes, given.jobs, seed)


if __name__ == "__main__":
    sys.exit(main())
