"""The curves of a sweep as a picture: a row for each variable, a column for ratio, RMSE and cut-off."""

from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from isopress.format.report.sweep import SweepCurve, SweepReport

_COLOUR, _MARK = "#1f4e79", "#d1661f"
_PANELS = (("ratio", "times smaller"), ("rmse", "RMSE"), ("kept_to", "power kept to (cells)"))


def draw(report: SweepReport) -> bytes:
    """Return the picture as PNG."""
    curves = report.curves
    figure = Figure(figsize=(11, 2.6 * max(len(curves), 1)), dpi=110, layout="constrained")
    panels = figure.subplots(max(len(curves), 1), len(_PANELS), squeeze=False)
    for row, curve in zip(panels, curves, strict=False):
        for axes, (name, label) in zip(row, _PANELS, strict=True):
            _panel(axes, curve, name, label)
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _panel(axes: Any, curve: SweepCurve, name: str, label: str) -> None:
    bounds = np.array([point.limit.value or 0.0 for point in curve.points])
    values = np.array([getattr(point, name) for point in curve.points])
    shown = np.isfinite(values) & (values > 0)
    axes.plot(bounds[shown], values[shown], "o-", color=_COLOUR, markersize=3)
    axes.set_xscale("log")
    if shown.any():
        axes.set_yscale("log")
    for point in curve.points:
        if point.marks:
            axes.axvline(point.limit.value, color=_MARK, linewidth=0.8, linestyle=":")
            place = {"rotation": 90, "va": "top", "ha": "right", "transform": axes.get_xaxis_transform()}
            axes.text(point.limit.value, 0.98, ", ".join(point.marks), fontsize=6, **place)
    of = curve.units if curve.points[0].limit.mode == "abs" else "part of |x|"
    axes.set_xlabel(f"bound of {curve.name} ({of})", fontsize=8)
    axes.set_ylabel(f"{label} ({curve.units})" if name == "rmse" else label, fontsize=8)
    axes.tick_params(labelsize=7)
    if name != "rmse":  # plain numbers
        axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
