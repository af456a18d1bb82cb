"""Times in a chunk: size against what one field costs: `python -m benchmarks.chunks`.

    python -m benchmarks.chunks --blocks sample/msl --lengths 1 2 24 --bounds 1e-3     # a quick look

Times of public blocks, hours and steps of seven, are cut into chunks and coded with neighbours as context: bytes of all
over those of fields apart, and of the largest chunk over the share of one field, which is what a reader moves by HTTP
for one step, but for the index of the shard. Seconds are of one processor in a warm process, for the field of 0.25
degree that needs most others of its chunk: `native/u850`, moved two points to the east for each time. Writes
results/chunks.json.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

import isopress
from benchmarks.cases.metrics import standard_deviation
from benchmarks.comparison import add_output_options
from benchmarks.datasets.public import BLOCKS, PUBLIC
from benchmarks.datasets.releases import DatasetError
from benchmarks.environment import RESULTS, environment
from benchmarks.report.tables import overview
from isopress.codec.bounded.reference_order import Axes, chain, order
from isopress.codec.encoded import Method
from isopress.format import api
from isopress.format.decode_cache import CACHE
from isopress.format.payload import parse

NAMES = ("arome/xwind10 2015-11-16", "arome/ywind10 2016-02-02", "sample/msl")
TIMES = 24  # of each
LENGTHS = (1, 2, 4, 8, 24)  # times in a chunk
BOUNDS = (1e-3, 1e-2)


@dataclass(frozen=True)
class SizeRun:
    """Some fields at one bound in chunks of `length`: bytes in all, and of the largest chunk."""

    block: str
    relative_bound: float
    length: int
    fields: int
    nbytes: int
    largest: int


@dataclass(frozen=True)
class SecondsRun:
    """Processor seconds for one field of a chunk of `length`, for which so many are `decoded`."""

    relative_bound: float
    length: int
    decoded: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; return 0, or 2 where the data cannot be had."""
    options = _parser().parse_args(arguments)
    try:
        blocks = {name: load_times(name) for name in options.blocks}
        field = load_times("native/u850")
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = environment(("isopress", "numpy", "torch"))
    cases = [(bound, length) for bound in options.bounds for length in options.lengths]
    result["sizes"] = [asdict(sizes(name, blocks[name], *case)) for name in blocks for case in cases]
    result["seconds"] = [asdict(seconds(field, *case)) for case in cases]
    if not (arguments or sys.argv[1:]) or options.out != RESULTS:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "chunks.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if options.json else overview(result, "chunks.json"))
    return 0


def load_times(name: str) -> np.ndarray:
    """Return the first times of a public block called SET/NAME."""
    dataset, _, variable = name.partition("/")
    blocks = (PUBLIC | BLOCKS)[dataset].load()
    values = next(block.values for block in blocks if block.name == variable)
    return values if values.ndim == 2 else values[:TIMES]


def sizes(name: str, block: np.ndarray, relative_bound: float, length: int) -> SizeRun:
    """Return what a block (time, lat, lon) takes in chunks of so many times."""
    bound = relative_bound * standard_deviation(block)
    chunks = (block[start : start + length] for start in range(0, len(block), length))
    found = [len(isopress.compress(chunk, bound=bound)) for chunk in chunks]
    print(f"{name} {relative_bound:g} {length}: {sum(found)} bytes", file=sys.stderr, flush=True)
    return SizeRun(name, relative_bound, length, len(block), sum(found), max(found))


def seconds(field: np.ndarray, relative_bound: float, length: int) -> SecondsRun:
    """Return what the field of a chunk takes that needs most others, best of three; nothing was decoded before."""
    chunk = np.stack([np.roll(field, 2 * step, axis=1) for step in range(length)])
    parsed = parse(isopress.compress(chunk, bound=relative_bound * standard_deviation(field)))
    batches = order((length,), Axes(0))
    needs = [sum(map(len, chain(batches, {one}))) for one in range(length)]
    wanted = needs.index(max(needs))
    taken = []
    for _ in range(4):  # first of all the weights are loaded
        CACHE.clear()
        start = time.process_time()
        api.decode(parsed, (wanted,))
        taken.append(time.process_time() - start)
    print(f"{relative_bound:g} {length}: {min(taken):.3f} s", file=sys.stderr, flush=True)
    return SecondsRun(relative_bound, length, max(needs) if parsed.info.method == Method.BLOCK else 1, min(taken[1:]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunks", description=__doc__)
    parser.add_argument("--blocks", nargs="+", default=NAMES, help="SET/NAME of public blocks")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, help="times in a chunk")
    parser.add_argument("--bounds", nargs="+", type=float, default=BOUNDS, help="fractions of the standard deviation")
    add_output_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
