"""What a comparison found: figures of merit beside their thresholds, a verdict for each variable."""

import math
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from isopress.codec.errors import ArgumentError
from isopress.format.report.compare.grid import Grid
from isopress.format.report.compare.metrics import Merit
from isopress.format.report.compare.spectra import ALLOWED, SHORTEST, Spectrum
from isopress.format.report.records import as_json
from isopress.format.report.words import limit_text
from isopress.format.settings import Promise

Array = np.ndarray[Any, Any]

PEARSON, DSSIM, KS = 0.99999, 0.9995, 0.05


@dataclass(frozen=True)
class Check:
    """A figure of merit and its threshold; `passed` is None where the figure makes no sense."""

    name: str
    value: float
    threshold: str
    passed: bool | None


@dataclass(frozen=True)
class Frame:
    """One field for a map, thinned to a screen: originals, decoded values, and the largest error of each cell."""

    label: str
    original: Array
    decoded: Array
    error: Array


@dataclass(frozen=True)
class Zoom:
    """The surroundings of the largest error, not thinned; `row` and `column` are where it is in there."""

    label: str
    original: Array
    decoded: Array
    row: int
    column: int


@dataclass(frozen=True)
class Comparison:
    """One variable, or something computed from variables, with all its figures.

    `limit` is its bound or target, None for what is computed. `violations` counts values of the compared fields that
    break it. `compared` of `fields` were looked at, each cut to `window` (rows, columns) if it is larger.
    """

    name: str
    long_name: str
    units: str
    limit: Promise | None
    merit: Merit
    zonal: Spectrum | None
    cosine: Spectrum | None
    grid: Grid
    frames: tuple[Frame, ...]
    zoom: Zoom | None
    violations: int
    compared: int
    fields: int
    window: tuple[int, int] | None = None
    derived: bool = False

    @property
    def limit_text(self) -> str:
        """The bound or target in words."""
        return "computed" if self.derived else limit_text(self.limit, self.units)

    @property
    def kept(self) -> bool:
        """Whether every value that was compared keeps the bound and nothing went missing."""
        return not self.violations and not self.merit.lost

    @property
    def checks(self) -> tuple[Check, ...]:
        """The figures of merit that have thresholds."""
        merit = self.merit
        power = max(spectrum.worst if spectrum else 0.0 for spectrum in (self.zonal, self.cosine))
        probability = merit.kolmogorov_smirnov()[1]
        return (
            Check("Pearson", merit.pearson, f"> {PEARSON}", merit.pearson > PEARSON),
            Check("DSSIM", merit.dssim, f"> {DSSIM}", merit.dssim > DSSIM),
            Check("power", power, f"within {ALLOWED:.0%} down to {SHORTEST:g} cells", power <= ALLOWED),
            Check("KS p", probability, f"> {KS}", probability > KS),
        )

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        passed = sum(bool(check.passed) for check in self.checks)
        merit = f"{passed} of {len(self.checks)} figures pass"
        if self.derived or self.limit is None:
            return merit
        return f"{'bound kept' if self.kept else 'BOUND BROKEN'}; {merit}"

    def figures(self) -> dict[str, Any]:
        """Return all figures as JSON types."""
        merit, (distance, _) = self.merit, self.merit.kolmogorov_smirnov()
        spectra = {"zonal": self.zonal, "cosine": self.cosine}
        record = {
            "name": self.name,
            "units": self.units,
            "limit": self.limit_text,
            "kept": self.kept,
            "verdict": self.verdict,
            "compared_fields": self.compared,
            "fields": self.fields,
            "window": self.window,
            "max_error": merit.max_error,
            "rmse": merit.rmse,
            "bias": merit.bias,
            "pearson": merit.pearson,
            "psnr": merit.psnr,
            "dssim": merit.dssim,
            "ks_distance": distance,
            "error_by_row": {"rmse": merit.row_rmse.tolist(), "max": _listed(merit.row_max)},
            "kept_power_to_cells": {name: spectrum and spectrum.kept_to for name, spectrum in spectra.items()},
            "checks": [vars(check) for check in self.checks],
        }
        result: dict[str, Any] = as_json(record)
        return result


@dataclass(frozen=True, repr=False)
class CompareReport:
    """A source and its store, side by side; `exact` names what the store keeps bit by bit, which is not looked at."""

    source: str
    store: str
    variables: tuple[Comparison, ...]
    exact: tuple[str, ...]
    original_nbytes: int
    stored_nbytes: int
    sampled: bool
    notes: tuple[str, ...] = ()
    ratios: dict[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether every bound holds in all that was compared."""
        return all(variable.kept for variable in self.variables if not variable.derived)

    @property
    def ratio(self) -> float:
        """Original size over stored size."""
        return self.original_nbytes / max(self.stored_nbytes, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON types."""
        names = ("source", "store", "exact", "original_nbytes", "stored_nbytes", "ratio", "sampled", "notes", "kept")
        record = {name: getattr(self, name) for name in names}
        result: dict[str, Any] = as_json(record | {"variables": [variable.figures() for variable in self.variables]})
        return result

    def to_html(self) -> str:
        """Return the report as one page that needs nothing else; drawn by matplotlib.

        Raises
        ------
        ArgumentError
            matplotlib is not installed.
        """
        _check_matplotlib()
        from isopress.format.report.compare.page import html

        return html(self)

    def save_pictures(self, folder: Path) -> list[Path]:
        """Write every map and curve as a PNG file, named after variable, picture and field; return their paths.

        Raises
        ------
        ArgumentError
            matplotlib is not installed.
        """
        _check_matplotlib()
        from isopress.format.report.compare.figures import save_pictures

        return save_pictures(self, folder)

    def __repr__(self) -> str:
        from isopress.format.report.compare.text import describe

        return describe(self)

    def _repr_html_(self) -> str:
        from isopress.format.report.compare.text import overview

        return overview(self)


def _check_matplotlib() -> None:
    if not find_spec("matplotlib"):
        raise ArgumentError("pictures need matplotlib: pip install 'isopress[report]'")


def _listed(values: Array | None) -> list[float]:
    return [] if values is None else [float(value) for value in values if math.isfinite(value)]
