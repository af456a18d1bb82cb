"""The picture of a rate-distortion run: compression ratio against bound, one panel per data set."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import Case, by_dataset
from benchmarks.metrics import geometric_mean


def plot(cases: Sequence[Case], path: Path) -> None:
    """Write a PNG with the geometric mean of the ratio over each set's variables, one line per codec."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = by_dataset(cases)
    figure = Figure(figsize=(5.2 * len(groups), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (dataset, members) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        for name, points in curves(members).items():
            style = {"color": "black", "linewidth": 2.4} if name == "isopress" else {"linewidth": 1.2}
            axes.loglog(*zip(*points, strict=True), marker="o", markersize=4, label=name, **style)
        axes.set(title=dataset, xlabel="bound / range of the variable", ylabel="compression ratio")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def curves(cases: Sequence[Case]) -> dict[str, list[tuple[float, float]]]:
    """Return (relative bound, mean ratio) per codec; a rival that failed on a variable has no point there."""
    bounds = sorted({case.relative_bound for case in cases})
    lines: dict[str, list[tuple[float, float]]] = {}
    for name in ("isopress", *dict.fromkeys(name for case in cases for name in case.rivals)):
        for bound in bounds:
            members = [case for case in cases if case.relative_bound == bound]
            if all(name == "isopress" or name in case.rivals for case in members):
                ratios = [case.n_bytes / _bytes(case, name) for case in members]
                lines.setdefault(name, []).append((bound, geometric_mean(ratios)))
    return lines


def _bytes(case: Case, name: str) -> int:
    return case.isopress.n_bytes if name == "isopress" else case.rivals[name].n_bytes
