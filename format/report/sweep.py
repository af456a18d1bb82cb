"""Bound against ratio, RMSE and spectral cut-off, for every variable that takes a bound: what to choose, at a glance.

One piece of each variable is coded under a dozen bounds, among them those of the presets and the spread of an ensemble.
"""

import base64
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound
from isopress.format import api
from isopress.format.payload import inspect
from isopress.format.presets import PRESETS, preset_bound
from isopress.format.report.compare import spectra
from isopress.format.report.ensemble import ensemble_spread
from isopress.format.report.estimate import SECONDS, encoding_speed, survey
from isopress.format.report.html import table
from isopress.format.report.pieces import pieces
from isopress.format.report.records import as_json
from isopress.format.report.words import limit_text, ratio_text, with_units
from isopress.format.settings import Settings
from isopress.format.source.dataset import Request, Source, located, open_source
from isopress.format.source.selection import as_request
from isopress.format.store.plan import VariablePlan, Wishes, codec_settings, plan_variables

_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the bound that the variable would get
_PIECE_VALUES = (2**15, 2**19)  # least and most values of the piece
_HEAD = ("variable", "bound", "ratio", "RMSE", "largest error", "power kept to", "which is")


@dataclass(frozen=True)
class SweepPoint:
    """What one bound gives: ratio, errors in the unit of the variable, the shortest wave that keeps its power (cells).

    `marks` say who would choose this bound: presets, the spread of an ensemble, the wishes.
    """

    limit: Bound
    ratio: float
    rmse: float
    max_error: float
    kept_to: float
    marks: tuple[str, ...]


@dataclass(frozen=True)
class SweepCurve:
    """The points of one variable, smallest bound first."""

    name: str
    units: str
    points: tuple[SweepPoint, ...]


@dataclass(frozen=True, repr=False)
class SweepReport:
    """The curves of a source; figures are those of one piece of each variable."""

    path: str
    curves: tuple[SweepCurve, ...]
    seconds: float
    warnings: tuple[str, ...] = ()

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the points of all curves as text, in the order of the table's head."""
        for curve in self.curves:
            for point in curve.points:
                kept = f"{point.kept_to:.1f} cells" if np.isfinite(point.kept_to) else "none"
                errors = (with_units(error, curve.units) for error in (point.rmse, point.max_error))
                limit = limit_text(point.limit, curve.units)
                yield curve.name, limit, ratio_text(point.ratio), *errors, kept, ", ".join(point.marks)

    def __repr__(self) -> str:
        rows = [_HEAD, *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
        return "\n".join((*lines, "", f"{self.path}: of one piece of each variable; {self.seconds:.1f} s"))

    def _repr_html_(self) -> str:
        return table(_HEAD, self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Return the curves as JSON types."""
        result: dict[str, Any] = as_json(asdict(self))
        return result

    def save_plot(self, path: Path) -> None:
        """Draw all curves to a PNG file, or to an HTML page with the table that needs nothing else.

        Raises
        ------
        ArgumentError
            The name ends in neither .png nor .html, or matplotlib is not installed.
        """
        if path.suffix not in (".png", ".html"):
            raise ArgumentError(f"{path}: curves are drawn to a .png or a .html file")
        if not find_spec("matplotlib"):
            raise ArgumentError("curves need matplotlib: pip install 'isopress[report]'")

        png = draw(self)
        if path.suffix == ".png":
            path.write_bytes(png)
            return
        head = f'<!doctype html><meta charset="utf-8"><title>{escape(self.path)}</title>'
        image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        picture = f'<body style="font-family:sans-serif"><img style="max-width:100%" alt="curves" src="{image}">'
        path.write_text(head + picture + self._repr_html_(), encoding="utf-8")


def sweep(
    source: str | Sequence[str] | Request, wishes: Wishes | None = None, *, seconds: float = SECONDS
) -> SweepReport:
    """Return what a dozen bounds of every bounded variable give, from one piece of each.

    Parameters
    ----------
    source, wishes
        As `estimate` takes them; the bounds lie around those of the wishes.
    seconds : float
        Time to aim at: pieces are as large as it allows, but never tiny.

    Raises
    ------
    ArgumentError
        The source cannot be read, or an error, chunk or effort does not fit it.
    """
    asked, wishes = as_request(source), wishes or Wishes()
    start = time.monotonic()
    with located(asked) as request, open_source(request) as opened:
        plans, warnings = survey(opened, plan_variables(opened, wishes), seconds / 4)
        bounded = [plan for plan in plans if isinstance(plan.bound, Bound) and plan.bound.value is not None]
        values = encoding_speed(opened, bounded, wishes) * seconds / (20 * max(len(bounded), 1))
        most = int(min(_PIECE_VALUES[1], max(_PIECE_VALUES[0], values)))
        curves = tuple(_curve(opened, plan, wishes, most) for plan in bounded if opened.stored(plan.name).size)
        found = (*opened.warnings, *warnings)
    return SweepReport(", ".join(asked.paths), curves, time.monotonic() - start, found)


def _curve(source: Source, plan: VariablePlan, wishes: Wishes, most: int) -> SweepCurve:
    variable = source.variable(plan.name, lossy=True)
    x = source.read(plan.name, next(pieces(variable.shape, plan.chunks, most)), lossy=True)
    points = (_point(source, plan, x, bound, marks, wishes) for bound, marks in _bounds(source, plan))
    return SweepCurve(plan.name, str(variable.attrs.get("units", "")), tuple(points))


def _bounds(source: Source, plan: VariablePlan) -> list[tuple[Bound, tuple[str, ...]]]:
    """Return the bounds to try, smallest first, and who would choose each."""
    assert isinstance(plan.bound, Bound), "only these are swept"
    assert plan.bound.value is not None, "and none without a number"
    marks: dict[float, list[str]] = {plan.bound.value * factor: [] for factor in _FACTORS}
    if not plan.by_preset:
        marks[plan.bound.value].append("as asked")
    for preset in PRESETS:
        bound = preset_bound(preset, plan.name.rpartition("/")[2], source.variable(plan.name, lossy=True).attrs)
        if bound.value is None:
            continue
        if bound.mode == plan.bound.mode:
            _mark(marks, bound.value, preset)
        elif bound.mode == "range" and isinstance(plan.asked, Bound) and plan.asked.mode == "range":
            _mark(marks, plan.bound.value * bound.value / (plan.asked.value or 1.0), preset)  # of the same range
    spread = ensemble_spread(source, plan.name) if plan.bound.mode == "abs" else None
    if spread is not None:
        _mark(marks, spread[0], f"spread of {spread[1]}")
    floor = plan.bound.floor
    scaled = [(value, None if floor is None else floor * value / plan.bound.value) for value in sorted(marks)]
    return [(replace(plan.bound, value=value, floor=low), tuple(marks[value])) for value, low in scaled]


def _mark(marks: dict[float, list[str]], value: float, name: str) -> None:
    """Mark a bound, or the one that is the same but for rounding."""
    known = next((other for other in marks if abs(other - value) <= 1e-6 * value), value)
    marks.setdefault(known, []).append(name)


def _point(
    source: Source, plan: VariablePlan, x: np.ndarray[Any, Any], bound: Bound, marks: tuple[str, ...], wishes: Wishes
) -> SweepPoint:
    payload = api.encode(x, Settings(**codec_settings(bound, wishes)))
    info, decoded = inspect(payload), api.decompress(payload)
    ratio = x.size * source.itemsize(plan.name) / len(payload)
    return SweepPoint(bound, ratio, info.rmse, info.max_error, _kept_to(x, decoded), marks)


def _kept_to(x: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any]) -> float:
    """Return the shortest wavelength (cells) to which the first and last field keep their power; NaN if too small."""
    if x.ndim < 2 or min(x.shape[-2:]) < 8:
        return float("nan")
    fields = (values.reshape(-1, *x.shape[-2:])[[0, -1]] for values in (x, decoded))
    originals, found = ([spectra.cosine(field) for field in side] for side in fields)
    original, kept = (np.sum([power for _, power in side], axis=0) for side in (originals, found))
    return spectra.binned(originals[0][0], original, kept).kept_to


_COLOUR, _MARK = "#1f4e79", "#d1661f"
_PANELS = (("ratio", "times smaller"), ("rmse", "RMSE"), ("kept_to", "power kept to (cells)"))


def draw(report: SweepReport) -> bytes:
    """Return the curves as a PNG picture: a row for each variable, a column for ratio, RMSE and cut-off."""
    from matplotlib.figure import Figure

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
    from matplotlib.ticker import NullFormatter, ScalarFormatter

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
