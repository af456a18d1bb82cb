"""Speed, memory and waiting times, each measurement in a fresh process: `python -m benchmarks.speed`.

    python -m benchmarks.speed --only field --repeat 2     # a quick look; prints, writes nothing

One core unless it says otherwise, best of five runs, isopress and its peers in the same run. Parts (`--only`): "field"
(0.25 degree, 1e-3 and 1e-2 of the range), "block" (24 times at 1 degree, 1e-3), "latent" (200x, two cores), "levels"
(the same with the other kernels that this machine has), "start" (import, opening a store, first field, the command
line), "linear" (cost per value for larger fields and more chunks).
Writes results/speed.json; exits with 1 if isopress misses a target.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.cases.metrics import distortion, value_range
from benchmarks.cases.speed import PARTS, speed_verdicts
from benchmarks.comparison import add_output_options
from benchmarks.datasets.public import PUBLIC
from benchmarks.datasets.releases import DatasetError
from benchmarks.environment import environment
from benchmarks.peers.bounded import BOUNDED_PEERS
from benchmarks.report.tables import overview
from benchmarks.timing import LATENT, Job, in_fresh_process, seconds_of
from isopress.codec.native import dispatch

CODECS = ("isopress", *(peer.name for peer in BOUNDED_PEERS if peer.name != "EBCC"))  # EBCC: half a MB/s
BLOCK = "block, 0.001 of the range"
RATIO, LATENT_THREADS = 200.0, 2
SIZES = (0.25, 1, 4, 16, 64)  # millions of values of one field
CHUNKS = (1, 10, 100, 1000)

Run = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; return 0 if isopress meets the targets of what was measured, 1 if not, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        field, block = load_variable("native/u850"), load_variable("sample/t2m")
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    parts: dict[str, Callable[[], list[Run]]] = {
        "field": lambda: list(fields(field, options.codecs, options.repeat)),
        "block": lambda: list(bounded(BLOCK, block, 1e-3, options.codecs, options.repeat)),
        "latent": lambda: [latent(field, RATIO, options.repeat)],
        "levels": lambda: list(by_level(field, block, options.repeat)),
        "start": lambda: list(start(field, options.repeat)),
        "linear": lambda: [*by_size(field, options.sizes), *by_chunks(field, options.chunks)],
    }
    packages = ("isopress", "numpy", "torch", "constriction", *sorted({peer.package for peer in BOUNDED_PEERS}))
    result = environment(packages)  # now, while the load is still that of other work
    result["level"] = dispatch.level()
    result["switches"] = {name: value for name, value in os.environ.items() if name.startswith("ISOPRESS_")}
    result["missing_peers"] = {peer.name: peer.package for peer in BOUNDED_PEERS if peer.version() is None}
    for name in options.only or parts:
        result[name] = parts[name]()
        print(f"{name}: measured", file=sys.stderr, flush=True)
    if not options.only:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "speed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if options.json else overview(result, "speed.json"))
    return 0 if all(verdict.kept for verdict in speed_verdicts(result)) else 1


def load_variable(name: str) -> np.ndarray:
    """Return the values of a public variable called SET/NAME."""
    dataset, _, variable = name.partition("/")
    return next(block.values for block in PUBLIC[dataset].load() if block.name == variable)


def fields(field: np.ndarray, codecs: Sequence[str], repeat: int) -> Iterator[Run]:
    """Yield one record per bound and codec of a field."""
    for bound in (1e-3, 1e-2):
        yield from bounded(f"field, {bound:g} of the range", field, bound, codecs, repeat)


def bounded(case: str, values: np.ndarray, relative_bound: float, codecs: Sequence[str], repeat: int) -> Iterator[Run]:
    """Yield one record per codec at one bound, a fraction of the range."""
    for codec in codecs:
        run = both_ways(values, codec, relative_bound * value_range(values), repeat)
        yield {"case": case, "codec": codec, **run}


def by_level(field: np.ndarray, block: np.ndarray, repeat: int) -> Iterator[Run]:
    """Yield what isopress does with every compiled level but the one in use."""
    before = os.environ.get(dispatch.VARIABLE)
    try:
        for name in dispatch.levels():
            if name in (dispatch.level(), dispatch.NUMPY):
                continue
            os.environ[dispatch.VARIABLE] = name
            for run in fields(field, ["isopress"], repeat):
                yield {"level": name, **run}
            for run in bounded(BLOCK, block, 1e-3, ["isopress"], repeat):
                yield {"level": name, **run}
            yield {"level": name, **latent(field, RATIO, repeat)}
    finally:
        os.environ.pop(dispatch.VARIABLE, None)
        if before is not None:
            os.environ[dispatch.VARIABLE] = before


def latent(values: np.ndarray, ratio: float, repeat: int) -> Run:
    """Return the record of mode "latent": encoding to the RMSE at which a field is `ratio` times smaller."""
    import isopress

    payload = isopress.compress(values, mode="latent", ratio=ratio)
    rmse = distortion(values, np.asarray(isopress.decompress(payload))).rmse
    run = both_ways(values, LATENT, rmse, repeat, LATENT_THREADS)
    return {"case": f"latent, {ratio:g}x, two cores", "codec": "isopress", **run}


def both_ways(values: np.ndarray, codec: str, tolerance: float, repeat: int, threads: int = 1) -> Run:
    """Return encoding and decoding of an array, each in its own process, and the ratio."""
    with TemporaryDirectory() as folder:
        np.save(Path(folder) / "field.npy", values)
        encode = in_fresh_process(Job(folder, codec, "encode", tolerance, repeat, threads))
        decode = in_fresh_process(Job(folder, codec, "decode", tolerance, repeat, threads))
        ratio = values.nbytes / (Path(folder) / "payload").stat().st_size
    return {"encode": asdict(encode), "decode": asdict(decode), "ratio": ratio}


def start(field: np.ndarray, repeat: int) -> Iterator[Run]:
    """Yield the seconds a user waits: for imports, for a store to open, for the first field, for the command line."""
    import xarray as xr

    import isopress

    with TemporaryDirectory() as name:
        folder = Path(name)
        data = xr.Dataset({"x": (("lat", "lon"), field)})
        codec = isopress.IsopressCodec(mode="abs", bound=1e-3 * value_range(field))
        chosen = {"plain": {}, "ours": {"serializer": codec, "compressors": ()}}
        for store, encoding in chosen.items():
            data.to_zarr(folder / store, encoding={"x": encoding}, zarr_format=3, consolidated=False)
        (folder / "payload").write_bytes(isopress.compress(field, mode="abs", bound=1e-3 * value_range(field)))
        opening = "import xarray as xr; xr.open_zarr({!r}, consolidated=False)"
        plain, ours = (seconds_of(opening.format(str(folder / store)), repeat) for store in chosen)
        decoding = f"import isopress; isopress.decompress(open({str(folder / 'payload')!r}, 'rb').read())"
        yield {"what": "import isopress", "seconds": seconds_of("import isopress", repeat)}
        yield {"what": "xr.open_zarr beyond plain Zarr", "seconds": ours - plain}
        yield {"what": "first field after process start", "seconds": seconds_of(decoding, repeat)}
        yield {"what": "isopress compress sample:era5, two cores", "seconds": command_line(folder)}


def command_line(folder: Path) -> float:
    """Return the seconds of the README's command as a whole process."""
    isopress = Path(sys.executable).with_name("isopress")
    command = [str(isopress), "compress", "sample:era5", str(folder / "sample.zarr")]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def by_size(field: np.ndarray, sizes: Sequence[float]) -> Iterator[Run]:
    """Yield encoding and decoding of fields of so many million values: a part of `field`, or its mirror images."""
    for size in sizes:
        scale = size**0.5
        height, width = (round(scale * n) for n in field.shape)
        more = [(0, max(0, height - field.shape[0])), (0, max(0, width - field.shape[1]))]
        larger = np.pad(field, more, mode="symmetric")
        values = np.ascontiguousarray(larger[:height, :width])
        found = both_ways(values, "isopress", 1e-3 * value_range(field), repeat=2)
        yield {"what": f"field of {size:g} million values", "n_values": values.size, **_seconds(found)}


def by_chunks(field: np.ndarray, numbers: Sequence[int]) -> Iterator[Run]:
    """Yield writing and reading an array of so many equal chunks with Zarr."""
    import zarr

    import isopress

    chunk = np.ascontiguousarray(field[:128, :256])
    codec = isopress.IsopressCodec(mode="abs", bound=1e-3 * value_range(field))
    for number in numbers:
        # No two are the same: the cache of decoded chunks would decode them once.
        values = chunk + np.arange(number, dtype=chunk.dtype)[:, None, None] * np.float32(1e-3 * value_range(chunk))
        array = zarr.create_array(
            zarr.storage.MemoryStore(),
            shape=values.shape,
            chunks=(1, *chunk.shape),
            dtype=chunk.dtype,
            serializer=codec,
            compressors=(),
        )
        started = time.perf_counter()
        array[:] = values
        written = time.perf_counter()
        array[:]
        read = time.perf_counter()
        yield {
            "what": f"{number} chunks of 128 x 256 values",
            "n_values": values.size,
            "encode": written - started,
            "decode": read - written,
        }


def _seconds(run: Run) -> Run:
    return {part: run[part]["seconds"] for part in ("encode", "decode")}


def _parser() -> argparse.ArgumentParser:
    installed = [peer.name for peer in BOUNDED_PEERS if peer.version() is not None]
    usual = [name for name in CODECS if name == "isopress" or name in installed]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure these parts, print, write nothing")
    parser.add_argument("--codecs", nargs="+", choices=["isopress", *installed], default=usual)
    parser.add_argument("--repeat", type=int, default=5, help="runs of which the best counts")
    parser.add_argument("--sizes", nargs="*", type=float, default=SIZES, help='of "linear", million values')
    parser.add_argument("--chunks", nargs="*", type=int, default=CHUNKS, help='of "linear"')
    add_output_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
