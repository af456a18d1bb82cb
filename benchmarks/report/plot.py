"""Pictures of rate-distortion runs: compression ratio against bound, and size advantage against ratio."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases.bounded import Case, by_dataset
from benchmarks.cases.equal import EqualCase, by_ratio, grouped
from benchmarks.cases.metrics import geometric_mean


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


def plot_advantage(cases: Sequence[EqualCase], path: Path) -> None:
    """Write a PNG with the size advantage at equal RMSE: geometric mean of each group, and every block thin behind."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    groups = {name: members for name, members in grouped(cases).items() if name != "all blocks"}
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for colour, (name, members) in enumerate(groups.items()):
        blocks: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for case in sorted(members, key=lambda case: case.ratio):
            blocks.setdefault((case.dataset, case.variable), []).append((case.ratio, case.advantage))
        for points in blocks.values():
            axes.plot(*zip(*points, strict=True), color=f"C{colour}", linewidth=0.7, alpha=0.45)
        means = [(ratio, geometric_mean(c.advantage for c in chosen)) for ratio, chosen in by_ratio(members).items()]
        axes.plot(*zip(*means, strict=True), color=f"C{colour}", linewidth=2.4, marker="o", markersize=5, label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="compression ratio of the best peer", ylabel="its bytes / bytes of isopress")
    axes.set_title("size advantage at equal RMSE")
    axes.xaxis.set(major_locator=FixedLocator(sorted({case.ratio for case in cases})), minor_locator=NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def plot_spectra(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG with decoded over original zonal power against wavelength, one panel per field."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fields = list(dict.fromkeys(run["variable"] for run in runs))
    figure = Figure(figsize=(4.2 * len(fields), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, field in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields, strict=True):
        for run in (run for run in runs if run["variable"] == field):
            power = run["relative_power"]
            longest = 2 * len(power)  # grid cells around the globe, of which waves of two are the shortest
            style = {"color": "black", "linewidth": 2.0} if run["codec"] == "isopress" else {"linewidth": 1.1}
            waves = [longest / k for k in range(1, len(power) + 1)]
            axes.semilogx(waves, power, label=f"{run['codec']}, {run['ratio']:.0f}x", **style)
        axes.axvline(10, color="grey", linewidth=0.8)
        axes.axhspan(0.9, 1.1, color="grey", alpha=0.2)
        axes.set(title=field, xlabel="wavelength, grid cells", ylabel="decoded / original power", ylim=(0, 1.3))
        axes.invert_xaxis()
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def curves(cases: Sequence[Case]) -> dict[str, list[tuple[float, float]]]:
    """Return (relative bound, mean ratio) per codec; a peer that failed on a variable has no point there."""
    bounds = sorted({case.relative_bound for case in cases})
    lines: dict[str, list[tuple[float, float]]] = {}
    for name in ("isopress", *dict.fromkeys(name for case in cases for name in case.peers)):
        for bound in bounds:
            members = [case for case in cases if case.relative_bound == bound]
            if all(name == "isopress" or name in case.peers for case in members):
                ratios = [case.n_bytes / _bytes(case, name) for case in members]
                lines.setdefault(name, []).append((bound, geometric_mean(ratios)))
    return lines


def _bytes(case: Case, name: str) -> int:
    return case.isopress.n_bytes if name == "isopress" else case.peers[name].n_bytes
