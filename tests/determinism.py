"""One report of what is the same where: `python -m tests.determinism --report FILE`.

Every golden array is coded and decoded again in processes that compute in other ways: numpy and every level of the
kernels, one and two threads, in batches of another size and field by field, with other instruction sets of OpenBLAS,
numpy and torch; with `--python`, by another Python and its packages, for which isopress is built; with `--aarch64
FOLDER`, on ARM under qemu (see tests/aarch64.py). What must be equal and is not makes the exit code 1; where floats may
drift, the report says by how much, in standard deviations of the array. `--short` takes a payload of each kind, in half
a minute.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ISOPRESS_MODELS", str(Path(__file__).parent / "golden" / "models"))  # of golden payloads

from isopress.codec.encoded import Method
from isopress.codec.latent import context_model
from isopress.codec.native import dispatch
from isopress.format.api import compress, decode, decompress
from isopress.format.decode_cache import CACHE
from isopress.format.payload import METHODS, VERSION, parse
from isopress.format.zarr.v2_codec import Isopress
from isopress.format.zarr.v3_codec import IsopressCodec
from tests.contract import Array
from tests.golden_payloads import GOLDEN, Golden, read
from tests.make_golden import BY_TORCH, FLOATING, digest, in_layers, may_drift

ROOT = Path(__file__).parent.parent
SHORT = {
    *("range", "pointwise-signs", "special-values", "exceptions", "one-axis", "float64", "joint", "block-two-axes"),
    *("lossless", "lossless-int16", "constant", "lattice", "categories", "layers"),
    *("latent-rmse", "latent-halved-ahead", "based", "vaeformer", "on-vaeformer"),
}
STORES = ("Zarr 2 store", "Zarr 3 store")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
NO_AVX = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
# Names of columns -> environment variables of their process.
PROCESSES: dict[str, dict[str, str]] = {
    "2 threads": dict.fromkeys(THREADS, "2"),
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "Nehalem": {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": NO_AVX},
    "SSE2 torch": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Sandybridge"},
}
# In the short form what differs is put together: the long one says which of them it was.
SHORT_PROCESSES = {
    "2 threads, Nehalem": PROCESSES["2 threads"] | PROCESSES["Nehalem"],
    "SSE2 torch": PROCESSES["SSE2 torch"],
}
REFERENCE = dispatch.NUMPY


@dataclass
class Column:
    """What one way of computing made of each array: sha256 of payload and values; values that may drift."""

    name: str
    versions: dict[str, str]
    payload: dict[str, str] = field(default_factory=dict)
    decoded: dict[str, str] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the column into a folder."""
        about = {name: value for name, value in vars(self).items() if name != "values"}
        (folder / f"{self.name}.json").write_text(json.dumps(about))
        np.savez(folder / f"{self.name}.npz", **self.values)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> "Column":
        """Return a column that was written."""
        with np.load(path.with_suffix(".npz")) as values:
            return cls(**json.loads(path.read_text()), values=dict(values))


def golden(short: bool) -> list[Golden]:
    """Return the golden payloads of this version."""
    return [one for one in read(GOLDEN / "v{}.{}".format(*VERSION)) if not short or one.name in SHORT]


@dataclass(frozen=True)
class Kind:
    """A method; whether another writer may choose other symbols, and whether values may differ in their last digits."""

    method: Method
    other_payload: bool
    drift: bool

    @classmethod
    def of(cls, one: Golden) -> "Kind":
        """Return what a golden payload is."""
        return cls(Method(one.method), one.method in FLOATING, may_drift(one.payload))


# --- one way of computing -----------------------------------------------------------------------------------------


def columns(given: str, short: bool) -> Iterator[Column]:
    """Yield the columns that a process computes: `given`, or in the first one all levels and sizes of batches."""
    if given != REFERENCE:
        yield column(given, short, whole)
        return
    for level in reversed(dispatch.levels()):
        with dispatch.using(level):
            yield column(level, short, whole)
    with small_batches():
        yield column("field by field", short, field_by_field)


def column(name: str, short: bool, decoded: Callable[[bytes], Array]) -> Column:
    """Code every golden array, decode every golden payload; VAEformers only where there is torch."""
    found = Column(name, versions())
    for one in golden(short):
        kind = Kind.of(one)
        if kind.method in BY_TORCH and "torch" not in found.versions:
            continue
        if not kind.other_payload or not short or one.name == "latent-rmse":  # a search: seconds each
            found.payload[one.name] = _sha(again(one))
        CACHE.clear()  # of what another level decoded
        y = decoded(one.payload)
        found.decoded[one.name] = digest(y)
        if kind.drift:
            found.values[one.name] = y
    for name in STORES:
        found.payload[name], found.decoded[name] = store(name)
    return found


def again(one: Golden) -> bytes:
    """Return a new payload of a golden array."""
    return in_layers(one.x, one.settings) if one.name == "layers" else compress(one.x, **one.settings)


def whole(payload: bytes) -> Array:
    """Return the values of a payload."""
    return decompress(payload)


def field_by_field(payload: bytes) -> Array:
    """Return the values of a payload, each entry of its first axis read by itself, the last first."""
    parsed = parse(payload)
    if len(parsed.info.shape) < 3 or not parsed.info.shape[0]:
        return decode(parsed)
    parts = [decode(parsed, (i,)) for i in reversed(range(parsed.info.shape[0]))]
    return np.stack(parts[::-1])


@contextmanager
def small_batches() -> Iterator[None]:
    """Let contexts of latents be computed for a few points at a time."""
    before, context_model.BLOCK = context_model.BLOCK, 7
    try:
        yield
    finally:
        context_model.BLOCK = before


def store(name: str) -> tuple[str, str]:
    """Return sha256 of the chunks that zarr writes, and of the values that it reads."""
    import zarr

    x = next(one.x for one in golden(short=False) if one.name == "block")
    where: dict[str, Any] = {"shape": x.shape, "chunks": (4, 24, 30), "dtype": x.dtype, "fill_value": float("nan")}
    if name == STORES[0]:
        coding: dict[str, Any] = {"zarr_format": 2, "compressors": Isopress(mode="abs", bound=0.01), "filters": None}
    else:
        coding = {"zarr_format": 3, "serializer": IsopressCodec(mode="abs", bound=0.01), "compressors": ()}
    with tempfile.TemporaryDirectory() as folder:
        array = zarr.create_array(f"{folder}/a.zarr", **where, **coding)
        array[...] = x
        chunks = (path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.name[0].isdigit())
        return _sha(b"".join(path.read_bytes() for path in chunks)), digest(np.asarray(array[...]))


def versions() -> dict[str, str]:
    """Return the versions of Python and of what has a hand in values."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("numpy", "zarr", "numcodecs", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- all of them --------------------------------------------------------------------------------------------------


def start(name: str, folder: Path, command: list[str], settings: dict[str, str], short: bool) -> str:
    """Run the process of a column; return "" or what it said when it failed."""
    arguments = ["-m", "tests.determinism", "--column", name, "--folder", str(folder), *(["--short"] if short else [])]
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": str(ROOT)} | settings
    done = subprocess.run(
        [*command, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    return f"{name}: {done.stderr[-2000:]}" if done.returncode else ""


def install(python: str, folder: Path) -> Path:
    """Build isopress of this source for another interpreter, into a folder that comes before what it has of it."""
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True)
    return folder


def run_all(folder: Path, short: bool, pythons: list[str], arm: Path | None) -> tuple[list[Column], list[str]]:
    """Return all columns, the reference first, and what went wrong."""
    here = [sys.executable]
    others = SHORT_PROCESSES if short else PROCESSES
    tasks = [(name, here, settings) for name, settings in {REFERENCE: dict[str, str](), **others}.items()]
    for number, python in enumerate(pythons):
        own = install(python, folder / str(number))
        tasks.append((f"Python {Path(python).resolve().name}", [python], {"PYTHONPATH": f"{own}:{ROOT}"}))
    if arm:
        from tests import aarch64

        aarch64.install(arm)
        tasks.append(("aarch64", aarch64.command(arm), {}))
    with ThreadPoolExecutor(2) as pool:
        faults = list(pool.map(lambda task: start(task[0], folder, task[1], task[2], short), tasks))
    found = [Column.read(path) for path in folder.glob("*.json")]
    order = [REFERENCE, *dispatch.levels()[:-1], "field by field", *(task[0] for task in tasks[1:])]
    return sorted(found, key=lambda one: order.index(one.name)), [fault for fault in faults if fault]


def cell(name: str, one: Column, reference: Column, kind: Kind) -> tuple[str, bool]:
    """Return what the report says of an array in a column, and whether it is as promised."""
    if name not in one.decoded:
        return "-", True
    payload = one.payload.get(name) == reference.payload.get(name)
    if one.decoded[name] == reference.decoded[name]:
        return ("=", True) if payload else ("other payload", kind.other_payload)
    if not kind.drift:
        return "DIFFERS", False
    drift = np.abs(one.values[name].astype("f8") - reference.values[name])
    deviation = np.nanstd(np.where(np.isfinite(reference.values[name]), reference.values[name], np.nan), dtype="f8")
    return f"{np.nanmax(drift) / deviation:.1e}{'' if payload else ', other payload'}", payload or kind.other_payload


def table(found: list[Column], faults: list[str]) -> tuple[str, bool]:
    """Return the report as Markdown, and whether all that must be equal is."""
    reference = next(one for one in found if one.name == REFERENCE)
    kinds = {one.name: Kind.of(one) for one in golden(short=False)}
    lines = ["# What is the same where", "", _summary(found), ""]
    lines += [f"| array | method | payload, values ({REFERENCE}) | {' | '.join(one.name for one in found[1:])} |"]
    lines += ["|-" * (len(found) + 2) + "|"]
    kept = not faults
    for name, sha in reference.decoded.items():
        kind = kinds.get(name, Kind(Method.BLOCK, other_payload=False, drift=False))
        cells = [cell(name, one, reference, kind) for one in found[1:]]
        kept = kept and all(good for _, good in cells)
        both = f"`{reference.payload.get(name, '')[:8]}` `{sha[:8]}`"
        lines.append(f"| {name} | {METHODS[kind.method]} | {both} | {' | '.join(text for text, _ in cells)} |")
    lines += ["", *(f"FAILED {fault}" for fault in faults), "All that must be equal is." if kept else "NOT EQUAL."]
    return "\n".join(lines) + "\n", kept


def _summary(found: list[Column]) -> str:
    text = (
        "Made by `python -m tests.determinism --report FILE`. Payloads of the golden arrays of version "
        f"{VERSION[0]}.{VERSION[1]}, and what they decode to: `=` is the same sha256 of both as in the column of "
        "numpy. Writers of latents and VAEformers may choose other symbols. Values may drift, by what is said, in "
        "standard deviations of the array, where floats are summed at the end: VAEformers, gains, and transforms of "
        "several fields.\n\n"
    )
    return text + "\n".join(
        f"* {one.name}: {', '.join(f'{name} {value}' for name, value in one.versions.items())}" for one in found
    )


def main() -> int:
    """Compute one column, or all of them and the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--report", type=Path, help="write the report here too")
    parser.add_argument("--short", action="store_true", help="a payload of each kind")
    parser.add_argument("--python", action="append", default=[], help="an interpreter with what isopress needs")
    parser.add_argument("--aarch64", type=Path, metavar="FOLDER", help="as tests.aarch64 makes it")
    parser.add_argument("--column", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.column:
        for one in columns(given.column, given.short):
            one.write(given.folder)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found, faults = run_all(Path(folder), given.short, given.python, given.aarch64)
    text, kept = table(found, faults)
    if given.report:
        given.report.write_text(text)
    print(text)
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
