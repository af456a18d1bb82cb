"""Tables from the results, put between markers of RESULTS.md and README.md: `python -m benchmarks.report`.

A table NAME stands between `<!-- table NAME -->` and `<!-- end of table -->`. With `--check` nothing is
written, and the exit code is 1 if a table differs from the results.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import (
    AnyCase,
    BlockCase,
    Case,
    advantages_of,
    block_verdicts,
    by_dataset,
    verdicts,
    with_all_public,
)
from benchmarks.environment import RESULTS
from benchmarks.equal_report import ablation, cra5, equal_advantage, equal_cases, equal_peers, equal_targets, spectra
from benchmarks.markdown import markdown, times
from benchmarks.markdown import targets as markdown_targets
from benchmarks.metrics import bits_per_value, geometric_mean

Result = dict[str, Any]
DOCUMENTS = (RESULTS.parent / "RESULTS.md", RESULTS.parent.parent / "README.md")
TABLE = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
SUMMARY = ("ratio", "smaller than the best peer (mean)", "worst case", "worst RMSE / peer's")  # columns of _summary
AGAINST_BEST = ("best peer: bytes", "advantage", "RMSE / peer's")  # columns of _against_best


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the documents' tables; return 1 if `--check` finds one out of date, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("documents", nargs="*", type=Path, default=DOCUMENTS, help="markdown files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the JSON files")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args(arguments)
    stale = []
    for document in options.documents:
        text = document.read_text()
        try:
            updated = insert_tables(text, options.results)
        except (LookupError, FileNotFoundError) as error:
            print(f"error: {document.name}: {error}", file=sys.stderr)
            return 2
        if updated != text:
            stale.append(document.name)
            if not options.check:
                document.write_text(updated)
    print(f"{'out of date' if options.check else 'updated'}: {', '.join(stale) or 'none'}")
    return 1 if options.check and stale else 0


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


def progress(case: Case) -> str:
    """Return one line about a case that has just been measured."""
    peer = f"{case.best_rival} {case.rivals[case.best_rival].n_bytes}" if case.best_rival else "none"
    return (
        f"{case.dataset}/{case.variable} at {case.relative_bound:g}: {case.isopress.n_bytes} bytes, "
        f"{case.n_bytes / case.isopress.n_bytes:.1f}x, max error / bound {case.error_over_bound:.4f}, "
        f"best peer {peer}, advantage {times(case.advantage)}"
    )


def block_progress(case: BlockCase) -> str:
    """Return one line about a block that has just been measured."""
    return f"{progress(case)}, field by field {case.field_by_field.n_bytes}"


def overview(result: Result, results_file: str) -> str:
    """Return all tables made from one kind of result, for the terminal."""
    return "\n\n".join(make(result) for file, make in TABLES.values() if file == results_file)


def origin(result: Result) -> str:
    """Return where and with what a result was measured."""
    found = result["versions"].items()
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in found)
    machine = "{cpu} ({cores} cores, load {load_average:.1f})".format(**result["machine"])
    lines = [f"Measured at commit `{result['commit']}` on {machine}; {versions}."]
    missing = result.get("missing_rivals", {})
    lines += [f"**Missing: {name}** (package {package} not installed)." for name, package in missing.items()]
    lines += [f"Left out: {reason}." for reason in result.get("left_out", [])]
    return "\n".join(lines)


def targets(result: Result) -> str:
    """Return measured against promised, one row per target."""
    return markdown_targets(verdicts(_cases(result)))


def block_targets(result: Result) -> str:
    """Return measured against promised for blocks, one row per target."""
    return markdown_targets(block_verdicts(_block_cases(result), set(result["datasets"])))


def advantage(result: Result) -> str:
    """Return the size advantage per set and bound: geometric mean and worst case."""
    rows = []
    for dataset, members in by_dataset(_cases(result)).items():
        for bound, chosen in _by_bound(members).items():
            rows.append([dataset, f"{bound:g}", *_summary(chosen)])
        rows.append([f"**{dataset}**", "**all**", *_summary(members)])
    return markdown(["set", "bound / range", *SUMMARY], rows)


def block_advantage(result: Result) -> str:
    """Return per set and bound the size advantage over the best peer and over isopress field by field."""
    rows = []
    for dataset, members in with_all_public(_block_cases(result), set(result["datasets"])).items():
        for bound, chosen in _by_bound(members).items():
            gains = [case.gain for case in chosen]
            rows.append([dataset, f"{bound:g}", *_summary(chosen), times(geometric_mean(gains)), times(min(gains))])
    header = ["set", "bound / deviation", *SUMMARY, "smaller than field by field (mean)", "least"]
    return markdown(header, rows)


def cases(result: Result) -> str:
    """Return one row per case with the best peer beside it; losses are in bold."""
    rows = [
        [
            f"{case.dataset}/{case.variable}",
            f"{case.relative_bound:g}",
            str(case.isopress.n_bytes),
            f"{case.n_bytes / case.isopress.n_bytes:.1f}",
            f"{bits_per_value(case.isopress.n_bytes, case.n_values):.3f}",
            f"{case.error_over_bound:.4f}",
            f"{case.isopress.rmse:.3g}",
            *_against_best(case),
        ]
        for case in _cases(result)
    ]
    header = ["variable", "bound / range", "bytes", "ratio", "bits/value", "max error / bound", "RMSE"]
    return markdown([*header, *AGAINST_BEST], rows)


def block_cases(result: Result) -> str:
    """Return one row per block and bound with the best peer and field by field beside it; losses are in bold."""
    rows = [
        [
            f"{case.dataset}/{case.variable}",
            " x ".join(str(size) for size in case.shape),
            f"{case.relative_bound:g}",
            str(case.isopress.n_bytes),
            f"{case.n_bytes / case.isopress.n_bytes:.1f}",
            f"{case.error_over_bound:.4f}",
            str(case.field_by_field.n_bytes),
            times(case.gain),
            *_against_best(case),
        ]
        for case in _block_cases(result)
    ]
    header = ["variable", "shape", "bound / deviation", "bytes", "ratio", "max error / bound"]
    return markdown([*header, "field by field: bytes", "gain", *AGAINST_BEST], rows)


def peers(result: Result) -> str:
    """Return the bytes of isopress and of each rival, one row per case; the fewest bytes are in bold."""
    return _peers(_cases(result), "bound / range", list(result["rivals"]))


def block_peers(result: Result) -> str:
    """Return the bytes of isopress and of each rival, one row per block and bound."""
    return _peers(_block_cases(result), "bound / deviation", list(result["rivals"]))


def speed(result: Result) -> str:
    """Return MB/s and peak memory per codec and variable."""
    rows = [
        [
            run["codec"],
            run["variable"],
            f"{run['relative_bound']:g}",
            f"{run['encode']['mb_per_s']:.1f}",
            f"{run['decode']['mb_per_s']:.1f}",
            f"{run['encode']['peak_over_field']:.1f}x",
            f"{run['decode']['peak_over_field']:.1f}x",
            f"{run['ratio']:.1f}",
        ]
        for run in result["runs"]
    ]
    header = [
        "codec",
        "variable",
        "bound / range",
        "encode MB/s",
        "decode MB/s",
        "encode memory",
        "decode memory",
    ]
    return markdown([*header, "ratio"], rows)


def latent_speed(result: Result) -> str:
    """Return MB/s and peak memory of mode "latent" per variable."""
    rows = [
        [
            run["variable"],
            f"{run['ratio']:.0f}",
            str(run["threads"]),
            f"{run['encode']['mb_per_s']:.1f}",
            f"{run['encode_at_step']['mb_per_s']:.1f}",
            f"{run['decode']['mb_per_s']:.1f}",
            f"{run['two_at_once']['encode']:.1f}",
            f"{run['two_at_once']['decode']:.1f}",
            f"{run['crowded']:.1f}",
            f"{run['store']['mb_per_s']:.1f}",
            f"{run['encode']['peak_over_field']:.1f}x",
            f"{run['decode']['peak_over_field']:.1f}x",
            "met" if run["kept"] else "**missed**",
        ]
        for run in result.get("latent", [])
    ]
    header = ["variable", "ratio", "threads", "encode MB/s", "at a given step", "decode MB/s"]
    header += ["two fields at once: encode", "decode", "decode, two threads each", "xarray reads a store"]
    return markdown([*header, "encode memory", "decode memory", "encode >= 5, decode >= 10 MB/s"], rows)


TABLES: dict[str, tuple[str, Callable[[Result], str]]] = {
    "origin": ("rate_distortion.json", origin),
    "targets": ("rate_distortion.json", targets),
    "advantage": ("rate_distortion.json", advantage),
    "cases": ("rate_distortion.json", cases),
    "peers": ("rate_distortion.json", peers),
    "blocks-origin": ("blocks.json", origin),
    "blocks-targets": ("blocks.json", block_targets),
    "blocks": ("blocks.json", block_advantage),
    "blocks-cases": ("blocks.json", block_cases),
    "blocks-peers": ("blocks.json", block_peers),
    "equal-origin": ("equal_rmse.json", origin),
    "equal-targets": ("equal_rmse.json", equal_targets),
    "equal": ("equal_rmse.json", equal_advantage),
    "equal-cases": ("equal_rmse.json", equal_cases),
    "equal-peers": ("equal_rmse.json", equal_peers),
    "ablation-origin": ("ablation.json", origin),
    "ablation": ("ablation.json", ablation),
    "spectra-origin": ("spectra.json", origin),
    "spectra": ("spectra.json", spectra),
    "cra5-origin": ("cra5.json", origin),
    "cra5": ("cra5.json", cra5),
    "speed-origin": ("speed.json", origin),
    "speed": ("speed.json", speed),
    "speed-latent": ("speed.json", latent_speed),
}


def _cases(result: Result) -> list[Case]:
    return [Case.from_json(entry) for entry in result["cases"]]


def _block_cases(result: Result) -> list[BlockCase]:
    return [BlockCase.from_json(entry) for entry in result["cases"]]


def _by_bound(cases: Iterable[AnyCase]) -> dict[float, list[AnyCase]]:
    groups: dict[float, list[AnyCase]] = {}
    for case in sorted(cases, key=lambda case: case.relative_bound):
        groups.setdefault(case.relative_bound, []).append(case)
    return groups


def _summary(members: Sequence[Case]) -> list[str]:
    advantages = advantages_of(members)
    ratios = [case.rmse_ratio for case in members if case.rmse_ratio is not None]
    worst = min(members, key=lambda case: case.advantage or float("inf"))
    return [
        f"{geometric_mean(case.n_bytes / case.isopress.n_bytes for case in members):.1f}",
        times(geometric_mean(advantages) if advantages else None),
        f"{times(worst.advantage)} ({worst.variable})",
        f"{max(ratios):.3f}" if ratios else "-",
    ]


def _against_best(case: Case) -> list[str]:
    peer = case.rivals[case.best_rival] if case.best_rival else None
    return [
        f"{case.best_rival}, {peer.setting}, {peer.layout}: {peer.n_bytes}" if peer else "none",
        times(case.advantage),
        f"{case.rmse_ratio:.3f}" if case.rmse_ratio is not None else "-",
    ]


def _peers(cases: Iterable[Case], unit: str, names: Sequence[str]) -> str:
    rows = []
    for case in cases:
        sizes = [case.isopress.n_bytes] + [case.rivals[name].n_bytes if name in case.rivals else None for name in names]
        fewest = min(size for size in sizes if size is not None)
        reasons = [None] + [case.failures.get(name, "not installed") for name in names]
        cells = [_size(size, fewest, reason) for size, reason in zip(sizes, reasons, strict=True)]
        rows.append([f"{case.dataset}/{case.variable}", f"{case.relative_bound:g}", *cells])
    return markdown(["variable", unit, "isopress", *names], rows)


def _size(size: int | None, fewest: int, reason: str | None) -> str:
    if size is None:
        return str(reason)
    return f"**{size}**" if size == fewest else str(size)


if __name__ == "__main__":
    sys.exit(main())
