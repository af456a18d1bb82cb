"""Bytes and errors of isopress on every published case, against those of an earlier version.

    python -m benchmarks.compare_versions --record 0.8     # keep the sizes of results/ as results/sizes-0.8.json
    python -m benchmarks.compare_versions --against 0.7    # compare results/ with results/sizes-0.7.json

Reads what benchmarks.rate_distortion, blocks and equal_rmse have written; codes nothing. Writes compare_versions.json,
prints the table, and exits with 1 if the mean bytes of a set grew by more than `--mean` or one case by `--worst`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import isopress
from benchmarks.cases.metrics import geometric_mean
from benchmarks.comparison import add_output_options, publish
from benchmarks.environment import RESULTS
from benchmarks.report.tables import overview

Result = dict[str, Any]
FILES = {
    "rate_distortion.json": "at a bound",
    "blocks.json": "blocks at a bound",
    "equal_rmse.json": "at an RMSE",
}


class Size(NamedTuple):
    """Bytes of one case, and its RMSE and largest error in data units (0 where the RMSE was asked for)."""

    n_bytes: float
    rmse: float
    max_error: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Record or compare; return 0 if nothing became worse than allowed, 1 if so, 2 for bad input."""
    options = _parser().parse_args(arguments)
    results = {file: json.loads((options.results / file).read_text()) for file in FILES}
    version = options.record or isopress.__version__
    measured = {file: result for file, result in results.items() if result["versions"]["isopress"].startswith(version)}
    for file in FILES.keys() - measured.keys():
        print(f"{file} was not measured with {version}: left out", file=sys.stderr)
    after = {file: dict(found(result)) for file, result in measured.items()}
    if options.record:
        (options.out / f"sizes-{options.record}.json").write_text(json.dumps(after, indent=0) + "\n")
        return 0
    kept = options.results / f"sizes-{options.against}.json"
    if not kept.is_file():
        print(f"error: {kept.name} was never recorded", file=sys.stderr)
        return 2
    before = json.loads(kept.read_text())
    rows = [row for file in after for row in compared(FILES[file], before.get(file, {}), after[file])]
    result = {"before": options.against, "rows": rows}
    publish(result, options.out / "compare_versions.json", overview(result, "compare_versions.json"), options.json)
    return 0 if all(row["mean"] <= options.mean and row["worst"] <= options.worst for row in rows) else 1


def found(result: Result) -> Iterator[tuple[str, Size]]:
    """Yield the name and the size of every case of one kind of result."""
    for case in result["cases"]:
        name = f"{case['dataset']}/{case['variable']}"
        if "ratio" in case:
            yield f"{name} at {case['ratio']:g}x", Size(case["isopress"]["n_bytes"], 0, 0)
            continue
        for key, what in (("isopress", ""), ("field_by_field", ", field by field")):
            if key in case:
                outcome = case[key]
                size = Size(outcome["n_bytes"], outcome["rmse"], outcome["max_error"])
                yield f"{name} at {case['relative_bound']:g}{what}", size


def compared(title: str, before: dict[str, Sequence[float]], after: dict[str, Size]) -> Iterator[Result]:
    """Yield a record for each set of cases that both versions have: sizes and errors after over before."""
    names = [name for name in after if name in before]
    for dataset in dict.fromkeys(name.partition("/")[0] for name in names):
        members = [name for name in names if name.startswith(f"{dataset}/")]
        bytes_over = {name: after[name].n_bytes / before[name][0] for name in members}
        worst = max(members, key=bytes_over.__getitem__)
        yield {
            "what": title,
            "dataset": dataset,
            "cases": len(members),
            "mean": geometric_mean(bytes_over.values()),
            "worst": bytes_over[worst],
            "worst_case": worst,
            "rmse": max((_over(after[name].rmse, before[name][1]) for name in members), default=1.0),
            "max_error": max((_over(after[name].max_error, before[name][2]) for name in members), default=1.0),
        }


def _over(after: float, before: float) -> float:
    return after / before if before else 1.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_versions", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--record", metavar="VERSION", help="keep the sizes of this version")
    what.add_argument("--against", metavar="VERSION", help="compare with the sizes kept of that version")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the JSON files")
    parser.add_argument("--mean", type=float, default=1.001, help="largest growth of the mean of a set")
    parser.add_argument("--worst", type=float, default=1.001, help="largest growth of one case")
    add_output_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
