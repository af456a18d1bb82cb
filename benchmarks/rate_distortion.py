"""Bytes and errors of isopress and its rivals at five bounds: `python -m benchmarks.rate_distortion`.

Writes rate_distortion.json and .png, prints the tables, and exits with 1 if a target is missed.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import isopress
from benchmarks import report
from benchmarks.cache import RivalCache
from benchmarks.cases import Case, verdicts
from benchmarks.codecs import RIVALS, Outcome, Rival
from benchmarks.datasets import PUBLIC, Block, DatasetError, cache_folder, load_folder
from benchmarks.environment import RESULTS, environment
from benchmarks.metrics import distortion, value_range
from benchmarks.plot import plot

BOUNDS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 if every target that applies is met, 1 if not, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        blocks = [block for name in options.sets for block in PUBLIC[name].load()]
        blocks += [block for folder in options.data for block in load_folder(folder)]
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rivals = [rival for rival in RIVALS if rival.name in options.rivals]
    cache = RivalCache(options.cache / "rivals.json")
    cases, constant = [], [block for block in blocks if value_range(block.values) == 0]
    for block in blocks:
        for case in run_block(block, options.bounds, rivals, cache):
            cases.append(case)
            print(report.progress(case), file=sys.stderr, flush=True)
    result = as_json(cases, rivals, constant)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rate_distortion.json").write_text(json.dumps(result, indent=1) + "\n")
    if cases:
        plot(cases, options.out / "rate_distortion.png")
    print(json.dumps(result, indent=1) if options.json else report.overview(result))
    return 0 if all(verdict.kept for verdict in verdicts(cases)) else 1


def run_block(block: Block, bounds: Sequence[float], rivals: Sequence[Rival], cache: RivalCache) -> Iterator[Case]:
    """Yield one case per bound, given as fractions of the block's range; none for a constant block."""
    scale = value_range(block.values)
    for relative_bound in bounds if scale > 0 else ():
        bound = relative_bound * scale
        outcomes = {rival.name: cache.outcome(rival, block, bound) for rival in rivals if rival.version() is not None}
        yield Case(
            dataset=block.dataset,
            variable=block.name,
            data_sha256=block.sha256,
            shape=block.values.shape,
            dtype=str(block.values.dtype),
            n_values=block.values.size,
            n_bytes=block.values.nbytes,
            relative_bound=relative_bound,
            bound=bound,
            isopress=run_isopress(block, bound),
            rivals={name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Outcome)},
            failures={name: outcome for name, outcome in outcomes.items() if isinstance(outcome, str)},
        )


def run_isopress(block: Block, bound: float) -> Outcome:
    """Return the size and errors of one payload that holds the whole block."""
    payload = isopress.compress(block.values, mode="abs", bound=bound)
    errors = distortion(block.values, isopress.decompress(payload))
    return Outcome(len(payload), errors.max_error, errors.rmse, setting="default", factor=1.0)


def as_json(cases: Sequence[Case], rivals: Sequence[Rival], constant: Sequence[Block]) -> dict[str, Any]:
    """Return everything a reader needs to judge and repeat the run."""
    packages = ("isopress", "numpy", "constriction", *sorted({rival.package for rival in rivals}))
    sets = dict.fromkeys(case.dataset for case in cases)
    return {
        **environment(packages),
        "datasets": {
            name: {
                "title": PUBLIC[name].title,
                "source": PUBLIC[name].source,
                "licence": PUBLIC[name].licence,
            }
            for name in sets
            if name in PUBLIC
        },
        "rivals": {rival.name: {"package": rival.package, "source": rival.source} for rival in rivals},
        "missing_rivals": {rival.name: rival.package for rival in rivals if rival.version() is None},
        "left_out": [f"{block.dataset}/{block.name}: constant, no bound relative to its range" for block in constant],
        "cases": [case.to_json() for case in cases],
    }


def _parser() -> argparse.ArgumentParser:
    names = [rival.name for rival in RIVALS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rate_distortion", description=__doc__)
    parser.add_argument("--sets", nargs="*", choices=list(PUBLIC), default=list(PUBLIC), help="public sets to run")
    parser.add_argument("--data", nargs="*", type=Path, default=[], metavar="DIR", help="folders of NetCDF files")
    parser.add_argument("--bounds", nargs="+", type=float, default=BOUNDS, help="fractions of the range")
    parser.add_argument("--rivals", nargs="*", choices=names, default=names, help="rivals to compare with")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where rivals' outcomes are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and the PNG")
    parser.add_argument("--json", action="store_true", help="print only JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
