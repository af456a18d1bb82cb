"""Tables of the benchmarks under an error bound, from their JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.cases.bounded import (
    AnyCase,
    BlockCase,
    Case,
    advantages_of,
    block_verdicts,
    by_dataset,
    verdicts,
    with_all_public,
)
from benchmarks.cases.metrics import bits_per_value, geometric_mean
from benchmarks.report.markdown import markdown, times
from benchmarks.report.markdown import targets as markdown_targets

Result = dict[str, Any]
SUMMARY = ("ratio", "smaller than the best peer (mean)", "worst case", "worst RMSE / peer's")  # columns of _summary
AGAINST_BEST = ("best peer: bytes", "advantage", "RMSE / peer's")  # columns of _against_best


def progress(case: Case) -> str:
    """Return one line about a case that has just been measured."""
    peer = f"{case.best_peer} {case.peers[case.best_peer].n_bytes}" if case.best_peer else "none"
    return (
        f"{case.dataset}/{case.variable} at {case.relative_bound:g}: {case.isopress.n_bytes} bytes, "
        f"{case.n_bytes / case.isopress.n_bytes:.1f}x, max error / bound {case.error_over_bound:.4f}, "
        f"best peer {peer}, advantage {times(case.advantage)}"
    )


def block_progress(case: BlockCase) -> str:
    """Return one line about a block that has just been measured."""
    return f"{progress(case)}, field by field {case.field_by_field.n_bytes}"


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
    """Return the bytes of isopress and of each peer, one row per case; the fewest bytes are in bold."""
    return _peers(_cases(result), "bound / range", list(result["peers"]))


def block_peers(result: Result) -> str:
    """Return the bytes of isopress and of each peer, one row per block and bound."""
    return _peers(_block_cases(result), "bound / deviation", list(result["peers"]))


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
    peer = case.peers[case.best_peer] if case.best_peer else None
    return [
        f"{case.best_peer}, {peer.setting}, {peer.layout}: {peer.n_bytes}" if peer else "none",
        times(case.advantage),
        f"{case.rmse_ratio:.3f}" if case.rmse_ratio is not None else "-",
    ]


def _peers(cases: Iterable[Case], unit: str, names: Sequence[str]) -> str:
    rows = []
    for case in cases:
        sizes = [case.isopress.n_bytes] + [case.peers[name].n_bytes if name in case.peers else None for name in names]
        fewest = min(size for size in sizes if size is not None)
        reasons = [None] + [case.failures.get(name, "not installed") for name in names]
        cells = [_size(size, fewest, reason) for size, reason in zip(sizes, reasons, strict=True)]
        rows.append([f"{case.dataset}/{case.variable}", f"{case.relative_bound:g}", *cells])
    return markdown(["variable", unit, "isopress", *names], rows)


def _size(size: int | None, fewest: int, reason: str | None) -> str:
    if size is None:
        return str(reason)
    return f"**{size}**" if size == fewest else str(size)
