"""Tables of the benchmarks at equal RMSE, from their JSON."""

import math
from collections import Counter
from typing import Any

from benchmarks.cases.equal import EqualCase, by_ratio, grouped, verdicts
from benchmarks.cases.metrics import geometric_mean
from benchmarks.peers.sized import Point
from benchmarks.report.markdown import markdown, targets, times

Result = dict[str, Any]


def equal_progress(case: EqualCase) -> str:
    """Return one line about a case that has just been measured."""
    peer = case.peers[case.best_peer]
    return (
        f"{case.dataset}/{case.variable} at {case.ratio:g}x: {case.best_peer}, {_choice(peer)}: RMSE "
        f"{_percent(peer.rmse, case)} of the deviation in {peer.n_bytes:.0f} bytes, isopress there "
        f"{case.isopress.n_bytes:.0f} ({case.isopress.how}), advantage {times(case.advantage)}"
    )


def equal_targets(result: Result) -> str:
    """Return measured against promised at equal RMSE."""
    return targets(verdicts(_cases(result)))


def equal_advantage(result: Result) -> str:
    """Return per group and ratio the size advantage at equal RMSE: geometric mean and worst case."""
    rows = []
    for group, members in grouped(_cases(result)).items():
        for ratio, chosen in by_ratio(members).items():
            worst = min(chosen, key=lambda case: case.advantage)
            best = Counter(case.best_peer for case in chosen).most_common()
            rows.append(
                [
                    group,
                    f"{ratio:g}",
                    f"{geometric_mean(case.n_bytes / case.isopress.n_bytes for case in chosen):.0f}",
                    times(geometric_mean(case.advantage for case in chosen)),
                    f"{times(worst.advantage)} ({worst.variable})",
                    ", ".join(f"{name} {count}" for name, count in best),
                ]
            )
    header = ["group", "ratio of the best peer", "isopress at its RMSE", "smaller (mean)", "worst case"]
    return markdown([*header, "best peer in"], rows)


def equal_cases(result: Result) -> str:
    """Return one row per block and ratio: the best peer, and the bytes of isopress at its RMSE."""
    rows = []
    for case in _cases(result):
        peer = case.peers[case.best_peer]
        rows.append(
            [
                f"{case.dataset}/{case.variable}",
                " x ".join(str(size) for size in case.shape),
                f"{case.ratio:g}",
                f"{case.rmse:.3g} ({_percent(case.rmse, case)})",
                f"{case.best_peer}, {_choice(peer)}: {peer.n_bytes:.0f}",
                f"{case.isopress.n_bytes:.0f} ({case.isopress.how})",
                f"{case.n_bytes / case.isopress.n_bytes:.0f}",
                times(case.advantage),
            ]
        )
    header = ["variable", "shape", "ratio", "RMSE (of the deviation)", "best peer: bytes", "isopress: bytes"]
    return markdown([*header, "its ratio", "advantage"], rows)


def equal_peers(result: Result) -> str:
    """Return the RMSE of every peer at every ratio, in % of the block's deviation; the smallest is in bold."""
    names = list(result["peers"])
    rows = []
    for case in _cases(result):
        cells = [_peer_cell(case, name) for name in names]
        rows.append([f"{case.dataset}/{case.variable}", f"{case.ratio:g}", *cells])
    return markdown(["variable", "ratio", *names], rows)


def spectra(result: Result) -> str:
    """Return the worst error of power over the wavelengths that count, one row per field and codec."""
    rows = [
        [
            run["variable"],
            run["codec"],
            f"{run['ratio']:.0f}",
            f"{100 * run['worst_error']:.1f} %",
            f"{run['worst_wavelength']:.1f} cells",
            f"{run['resolved_to']:.1f} cells",
            ("met" if run["kept"] else "**missed**") if run["codec"] == "isopress" else "",
        ]
        for run in result["runs"]
    ]
    header = ["variable", "codec", "ratio", "worst error of power", "at wavelength", "within 10 % down to"]
    return markdown([*header, "promise: 10 % above 10 cells"], rows)


def cra5(result: Result) -> str:
    """Return the ratio at which isopress has the RMSE reported for CRA5: a row per block, then means of each kind."""
    rows = [
        [
            row["kind"],
            row["variable"],
            row["data"],
            row["seen"],
            f"{row['reported']:g} {row['unit']}",
            f"{row['ratio']:.0f}",
            f"{row['bits_per_value']:.4f} ({row['how']})",
            f"{row['ratio'] / row['reported_ratio']:.2f}x",
        ]
        for row in result["rows"]
    ]
    kinds = dict.fromkeys(row["kind"] for row in result["rows"])
    parts = {f"all {kind}": [row for row in result["rows"] if row["kind"] == kind] for kind in kinds}
    for what, part in {**parts, "all": result["rows"]}.items():
        mean = math.exp(sum(math.log(row["ratio"]) for row in part) / len(part))
        over = mean / part[0]["reported_ratio"]
        rows.append(
            [f"**{what}**", "", f"geometric mean of {len(part)}", "", "", f"**{mean:.0f}**", "", f"{over:.2f}x"]
        )
    header = [
        "kind",
        "variable",
        "data",
        "of the weights",
        "CRA5's RMSE",
        "ratio there",
        "bits/value",
        "ratio / CRA5's",
    ]
    return markdown(header, rows)


def vaeformer(result: Result) -> str:
    """Return the bytes of VAEformers at the RMSE of others: a row per block and ratio, then means by weights."""
    names = list(result["rows"][0]["others"])
    rows, factors = [], dict[tuple[str, str], list[list[float]]]()
    for row in result["rows"]:
        compared = [row["others"][name] for name in names]
        gains = [each["bytes"] / each["model_bytes"] for each in compared]
        kind = "block" if len(row["shape"]) > 2 else "fields"
        factors.setdefault((row["model"], kind), []).append(gains)
        at = compared[0]
        rows.append(
            [
                row["model"],
                row["variable"],
                f"{100 * at['rmse'] / row['deviation']:.3g} %",
                f"{at['model_bytes']:.0f}",
                f"{row['n_bytes'] / at['model_bytes']:.0f}",
                *map(times, gains),
            ]
        )
    for (model, kind), found in factors.items():
        means = [times(geometric_mean(column)) for column in zip(*found, strict=True)]
        rows.append([f"**{model}**", f"geometric mean, {kind}", "", "", "", *means])
    header = ["weights", "variable", "RMSE (of the deviation)", "bytes", "ratio"]
    return markdown([*header, *(f"than {name}" for name in names)], rows)


def _cases(result: Result) -> list[EqualCase]:
    return [EqualCase.from_json(entry) for entry in result["cases"]]


def _choice(point: Point) -> str:
    return f"{point.setting}, {point.layout}"


def _percent(rmse: float, case: EqualCase) -> str:
    return f"{100 * rmse / case.deviation:.3g} %"


def _peer_cell(case: EqualCase, name: str) -> str:
    if name not in case.peers:
        reasons = [reason for key, reason in case.failures.items() if key.startswith(f"{name}, ")]
        return reasons[0] if reasons else "not installed"
    text = f"{100 * case.peers[name].rmse / case.deviation:.3f}"
    return f"**{text}**" if name == case.best_peer else text
