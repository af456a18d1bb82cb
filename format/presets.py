"""Presets: bounds in physical units, chosen by what a variable is and the unit it is in."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound
from isopress.format.error_spec import parse_error
from isopress.format.units import how_many, normalise_units

Preset = Literal["archive", "science", "preview"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
DEFAULT_PRESET: Preset = "science"


@dataclass(frozen=True)
class Quantity:
    """One row of the table: what it covers and its bound in each preset.

    A variable is of this quantity when its units are listed and, where `names` are given, its name or
    CF standard name matches one of them (shell patterns). `bounds` are error specs, in the order of
    `PRESETS`, in the first of the `units`; the value of a unit says how many of it make one of the first.
    """

    label: str
    units: Mapping[str, float]
    bounds: tuple[str, str, str]
    names: tuple[str, ...] = ()

    def covers(self, name: str, standard_name: str, units: str) -> bool:
        """Return whether a variable with this name, standard name and normalised unit is of this quantity."""
        known = any(fnmatchcase(label.lower(), pattern) for pattern in self.names for label in (name, standard_name))
        return (known or not self.names) and self.factor(units) is not None

    def factor(self, units: str) -> float | None:
        """Return how many of a unit make one of the first, or None if it is none of this quantity."""
        if units in self.units:
            return self.units[units]
        for reference, number in self.units.items():
            found = how_many(units, reference) if units else None
            if found is not None and (self.names or _LEAST <= found * number <= _MOST):
                return found * number
        return None

    def bound(self, preset: Preset, units: str) -> Bound:
        """Return the bound of `preset`, in `units`."""
        bound = _parse(self.bounds[PRESETS.index(preset)])
        factor = self.factor(units)
        assert factor is not None, "the row covers the unit"
        if bound.mode == "abs" and bound.value is not None:
            return Bound("abs", bound.value * factor)
        return bound if bound.floor is None else Bound(bound.mode, bound.value, bound.floor * factor)


# Rows with names stand before rows that a unit alone decides; the first row that covers a variable wins.
QUANTITIES = (
    Quantity(
        "specific humidity and mixing ratios",
        {"kg kg-1": 1, "g kg-1": 1e3},
        ("pointwise:0.1%,floor=1e-9", "pointwise:1%,floor=1e-8", "pointwise:5%,floor=1e-7"),
    ),
    Quantity("relative humidity", {"%": 1}, ("0.1", "1", "5"), ("r", "rh", "hur*", "*relative_humidity*")),
    Quantity(
        "cloud, snow, ice and land fractions",
        {"(0 - 1)": 1, "1": 1, "": 1, "%": 100},
        ("0.001", "0.01", "0.05"),
        (
            "tcc",
            "lcc",
            "mcc",
            "hcc",
            "cc",
            "cl",
            "clt",
            "siconc",
            "sic",
            "lsm",
            "*_area_fraction*",
            "*_cover",
        ),
    ),
    Quantity(
        "precipitation, amount",
        {"m": 1, "mm": 1e3, "kg m-2": 1e3},
        ("pointwise:0.1%,floor=1e-6", "pointwise:1%,floor=1e-5", "pointwise:5%,floor=1e-4"),
        ("tp", "cp", "lsp", "sf", "precip*", "*precipitation*", "*rainfall_amount*", "*snowfall_amount*"),
    ),
    Quantity(
        "precipitation, rate",
        {"kg m-2 s-1": 1, "mm s-1": 1, "m s-1": 1e-3, "mm h-1": 3600, "mm day-1": 86400},
        ("pointwise:0.1%,floor=1e-7", "pointwise:1%,floor=1e-6", "pointwise:5%,floor=1e-5"),
        ("pr", "prc", "prsn", "*tprate", "mtpr", "precip*", "*precipitation*", "*rainfall*", "*snowfall*"),
    ),
    Quantity(
        "column water",
        {"kg m-2": 1},
        ("0.01", "0.1", "0.5"),
        ("tcw", "tcwv", "prw", "*atmosphere*content*water*"),
    ),
    Quantity(
        "geopotential height",
        {"m": 1, "gpm": 1},
        ("0.1", "0.5", "5"),
        ("gh", "zg", "hgt", "z[0-9]*", "*geopotential_height*"),
    ),
    Quantity("soil moisture", {"m3 m-3": 1}, ("0.0005", "0.005", "0.02")),
    Quantity("temperature", {"K": 1, "degC": 1}, ("0.01", "0.1", "0.5")),
    Quantity("wind", {"m s-1": 1, "knot": 1.94384449}, ("0.01", "0.1", "0.5")),
    Quantity("pressure", {"Pa": 1, "hPa": 0.01}, ("1", "10", "50")),
    Quantity("vertical velocity", {"Pa s-1": 1}, ("0.001", "0.01", "0.05")),
    Quantity("geopotential", {"m2 s-2": 1}, ("1", "5", "50")),
    Quantity("vorticity, divergence", {"s-1": 1}, ("1e-7", "1e-6", "5e-6")),
    Quantity("radiation, heat flux", {"W m-2": 1}, ("0.1", "1", "5")),
    Quantity("radiation, heat, accumulated", {"J m-2": 1}, ("360", "3600", "18000")),
)
FALLBACK = ("range:1e-4", "range:1e-3", "range:1e-2")

_LEAST, _MOST = 1e-6, 100.0  # of a unit make one of a row's: others, such as mm/day for wind, are of other quantities


def preset_bound(preset: Preset, name: str, attrs: Mapping[str, Any]) -> Bound:
    """Return the bound of `preset` for a variable: physical where name and units are known, else of range.

    Parameters
    ----------
    preset : {"archive", "science", "preview"}
        From nearly transparent to quick look.
    name : str
        Name of the variable, such as `t2m`.
    attrs : mapping
        Its attributes; `units` and `standard_name` (or cfgrib's `GRIB_cfName`) are looked at.

    Raises
    ------
    ArgumentError
        The preset is unknown.
    """
    if preset not in PRESETS:
        raise ArgumentError(f"preset {preset!r} is unknown; allowed are {', '.join(PRESETS)}")
    quantity = quantity_of(name, attrs)
    if quantity is None:
        return _parse(FALLBACK[PRESETS.index(preset)])
    return quantity.bound(preset, normalise_units(str(attrs.get("units", ""))))


def quantity_of(name: str, attrs: Mapping[str, Any]) -> Quantity | None:
    """Return the row of the table that a variable is of, by its name and attributes; None if there is none."""
    units = normalise_units(str(attrs.get("units", "")))
    standard_name = str(attrs.get("standard_name", attrs.get("GRIB_cfName", "")))
    return next((row for row in QUANTITIES if row.covers(name, standard_name, units)), None)


def _parse(text: str) -> Bound:
    bound = parse_error(text).limit
    assert isinstance(bound, Bound), "presets have bounds, no targets"
    return bound
