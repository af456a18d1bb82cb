"""Every table by its name, and how they are put into documents."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks.report import archive, bounded, equal, fidelity, speed
from benchmarks.report.markdown import markdown

Result = dict[str, Any]
TABLE = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def insert_tables(text: str, results: Path) -> str:
    """Return `text` with every marked table made from the JSON files in `results`.

    Raises
    ------
    LookupError
        A marker names a table that does not exist.
    FileNotFoundError
        The results of a marked table have not been measured.
    """

    def table(match: re.Match[str]) -> str:
        name = match[2]
        if name not in TABLES:
            raise LookupError(f"no table {name!r}; there are {', '.join(TABLES)}")
        file, make = TABLES[name]
        path = results / file
        if not path.is_file():
            raise FileNotFoundError(f"table {name!r} needs {file}: run python -m benchmarks.{path.stem}")
        return f"{match[1]}{make(json.loads(path.read_text()))}\n{match[3]}"

    return TABLE.sub(table, text)


def overview(result: Result, results_file: str) -> str:
    """Return all tables made from one kind of result, for the terminal."""
    return "\n\n".join(make(result) for file, make in TABLES.values() if file == results_file)


def origin(result: Result) -> str:
    """Return where and with what a result was measured."""
    found = result["versions"].items()
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in found)
    machine = "{cpu} ({cores} cores, load {load_average:.1f})".format(**result["machine"])
    lines = [f"Measured at commit `{result['commit']}` on {machine}; {versions}."]
    missing = result.get("missing_peers", {})
    lines += [f"**Missing: {name}** (package {package} not installed)." for name, package in missing.items()]
    lines += [f"Left out: {reason}." for reason in result.get("left_out", [])]
    return "\n".join(lines)


def versions(result: Result) -> str:
    """Return bytes and errors over those of an earlier version, one row per set of cases."""
    rows = [
        [
            row["what"],
            row["dataset"],
            str(row["cases"]),
            f"{row['mean']:.5f}",
            f"{row['worst']:.5f} ({row['worst_case']})",
            f"{row['rmse']:.5f}",
            f"{row['max_error']:.5f}",
        ]
        for row in result["rows"]
    ]
    header = ["what", "set", "cases", f"bytes over those of {result['before']}, mean", "worst"]
    return markdown([*header, "RMSE, worst", "largest error, worst"], rows)


def hops(result: Result) -> str:
    """Return functions, files and depth of calls on the way of one array, by version."""
    ways = next(reversed(result.values()))
    rows = [
        [way, *(" / ".join(str(figure) for figure in found[way].values()) for found in result.values())] for way in ways
    ]
    return markdown(["functions / files / depth", *result], rows)


def lengths(result: Result) -> str:
    """Return size, bytes moved for one field and its seconds, by the times in a chunk; means of all blocks."""
    apart = {_case(run): run["nbytes"] for run in result["sizes"] if run["length"] == 1}
    rows = []
    for row in result["seconds"]:
        bound, length = row["relative_bound"], row["length"]
        runs = [run for run in result["sizes"] if (run["relative_bound"], run["length"]) == (bound, length)]
        size = geometric_mean(run["nbytes"] / apart[_case(run)] for run in runs)
        moved = geometric_mean(run["largest"] * run["fields"] / run["nbytes"] for run in runs)
        cells = [f"{bound:g}", str(length), f"{size:.3f}", f"{moved:.2f}", f"{size * moved:.2f}"]
        rows.append([*cells, str(row["decoded"]), f"{row['seconds']:.2f}"])
    header = ["bound / deviation", "times in a chunk", "bytes / fields apart", "moved for one field / its share"]
    return markdown([*header, "moved / a field apart", "fields decoded for one", "s for one, 0.25 degree"], rows)


def _case(run: Result) -> tuple[str, float]:
    return run["block"], run["relative_bound"]


TABLES: dict[str, tuple[str, Callable[[Result], str]]] = {
    "origin": ("rate_distortion.json", origin),
    "targets": ("rate_distortion.json", bounded.targets),
    "advantage": ("rate_distortion.json", bounded.advantage),
    "cases": ("rate_distortion.json", bounded.cases),
    "peers": ("rate_distortion.json", bounded.peers),
    "blocks-origin": ("blocks.json", origin),
    "blocks-targets": ("blocks.json", bounded.block_targets),
    "blocks": ("blocks.json", bounded.block_advantage),
    "blocks-cases": ("blocks.json", bounded.block_cases),
    "blocks-peers": ("blocks.json", bounded.block_peers),
    "equal-origin": ("equal_rmse.json", origin),
    "equal-targets": ("equal_rmse.json", equal.equal_targets),
    "equal": ("equal_rmse.json", equal.equal_advantage),
    "equal-cases": ("equal_rmse.json", equal.equal_cases),
    "equal-peers": ("equal_rmse.json", equal.equal_peers),
    "spectra-origin": ("spectra.json", origin),
    "spectra": ("spectra.json", equal.spectra),
    "fidelity-origin": ("fidelity.json", origin),
    "fidelity-passes": ("fidelity.json", fidelity.passes),
    "fidelity-dssim": ("fidelity.json", fidelity.dssim),
    "fidelity": ("fidelity.json", fidelity.fidelity),
    "cra5-origin": ("cra5.json", origin),
    "cra5": ("cra5.json", equal.cra5),
    "vaeformer-origin": ("vaeformer.json", origin),
    "vaeformer": ("vaeformer.json", equal.vaeformer),
    "overview": ("speed.json", speed.overview),
    "speed-origin": ("speed.json", origin),
    "speed-targets": ("speed.json", speed.speed_targets),
    "speed": ("speed.json", speed.speed),
    "speed-levels": ("speed.json", speed.levels),
    "speed-start": ("speed.json", speed.waiting),
    "speed-linear": ("speed.json", speed.linearity),
    "archive-origin": ("archive.json", origin),
    "archive-targets": ("archive.json", archive.archive_targets),
    "archive-runs": ("archive.json", archive.runs),
    "archive-scheduler": ("archive.json", archive.scheduler),
    "archive-estimate": ("archive.json", archive.estimate_of_era5),
    "chunks-origin": ("chunks.json", origin),
    "chunks": ("chunks.json", lengths),
    "versions": ("compare_versions.json", versions),
    "hops": ("hops.json", hops),
}
