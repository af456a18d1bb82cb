"""Bytes and errors of isopress and its rivals at five bounds: `python -m benchmarks.rate_distortion`.

Bounds are fractions of the range (max - min) of the block. Writes rate_distortion.json and .png, prints the tables,
and exits with 1 if a target is missed. With `--mode latent` sizes are compared at equal RMSE instead (`equal_rmse`,
which has its own options: add `--help`).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from benchmarks import equal_rmse, report
from benchmarks.cache import RivalCache
from benchmarks.cases import Case, verdicts
from benchmarks.codecs import RIVALS, Rival
from benchmarks.comparison import as_json, compare, load_blocks, parser, publish
from benchmarks.datasets import PUBLIC, Block, load_folder
from benchmarks.metrics import value_range
from benchmarks.plot import plot
from benchmarks.releases import DatasetError

BOUNDS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 if every target that applies is met, 1 if not, 2 for bad input."""
    mode = argparse.ArgumentParser(add_help=False)
    mode.add_argument("--mode", choices=("bounded", "latent"), default="bounded")
    chosen, others = mode.parse_known_args(arguments)
    if chosen.mode == "latent":
        return equal_rmse.main(others)
    options = parser("rate_distortion", __doc__, PUBLIC, BOUNDS, RIVALS).parse_args(others)
    try:
        blocks = load_blocks(options, PUBLIC, load_folder)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rivals = [rival for rival in RIVALS if rival.name in options.rivals]
    cache = RivalCache(options.cache / "rivals.json")
    cases = []
    for block in blocks:
        for case in run_block(block, options.bounds, rivals, cache):
            cases.append(case)
            print(report.progress(case), file=sys.stderr, flush=True)
    constant = [f"{block.dataset}/{block.name}" for block in blocks if value_range(block.values) == 0]
    left_out = [f"{name}: constant, no bound relative to its range" for name in constant]
    result = as_json(cases, rivals, left_out, PUBLIC)
    tables = report.overview(result, "rate_distortion.json")
    publish(result, options.out / "rate_distortion.json", tables, options.json)
    if cases:
        plot(cases, options.out / "rate_distortion.png")
    return 0 if all(verdict.kept for verdict in verdicts(cases)) else 1


def run_block(block: Block, bounds: Sequence[float], rivals: Sequence[Rival], cache: RivalCache) -> Iterator[Case]:
    """Yield one case per bound, given as fractions of the block's range; none for a constant block."""
    scale = value_range(block.values)
    for relative_bound in bounds if scale > 0 else ():
        yield compare(block, relative_bound, relative_bound * scale, rivals, cache)


if __name__ == "__main__":
    sys.exit(main())
