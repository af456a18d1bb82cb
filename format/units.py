"""Units as people write them -> how many of them make one of ours.

Our own spellings first, then products of the units below, then all that CF knows by pint, which takes a second to load.
"""

import functools
import re
from fractions import Fraction
from typing import Any

_ALIASES = {
    "kelvin": "K",
    "kelvins": "K",
    "k": "K",
    "deg k": "K",
    "degk": "K",
    "deg_k": "K",
    "degree k": "K",
    "degrees k": "K",
    "degree_kelvin": "K",
    "degrees kelvin": "K",
    "c": "degC",
    "deg c": "degC",
    "deg_c": "degC",
    "degree c": "degC",
    "degree_c": "degC",
    "degrees c": "degC",
    "celsius": "degC",
    "deg celsius": "degC",
    "degree celsius": "degC",
    "degrees celsius": "degC",
    "degrees_celsius": "degC",
    "degree_celsius": "degC",
    "degc": "degC",
    "degrees_c": "degC",
    "°c": "degC",
    "deg f": "degF",
    "degree_f": "degF",
    "degrees f": "degF",
    "degrees fahrenheit": "degF",
    "fahrenheit": "degF",
    "f": "degF",
    "pascal": "Pa",
    "pascals": "Pa",
    "pa": "Pa",
    "hpa": "hPa",
    "mb": "hPa",
    "mbar": "hPa",
    "millibar": "hPa",
    "millibars": "hPa",
    "knots": "knot",
    "kt": "knot",
    "kts": "knot",
    "ms-1": "m s-1",
    "ms^-1": "m s-1",
    "m sec-1": "m s-1",
    "meters per second": "m s-1",
    "metres per second": "m s-1",
    "percent": "%",
    "percentage": "%",
    "pct": "%",
    "dimensionless": "1",
    "none": "1",
    "unitless": "1",
    "fraction": "1",
    "0-1": "(0 - 1)",
    "(0-1)": "(0 - 1)",
    "0 - 1": "(0 - 1)",
    "~": "1",
    "-": "1",
    "mm of water equivalent": "mm",
    "m of water equivalent": "m",
    "mm hr-1": "mm h-1",
    "mm hour-1": "mm h-1",
    "mm d-1": "mm day-1",
    "mm days-1": "mm day-1",
    "mm per day": "mm day-1",
    "kgm-2": "kg m-2",
}
# How many of kilogram, metre, second and kelvin, to which powers.
_KNOWN: dict[str, tuple[Fraction, tuple[int, int, int, int]]] = {
    "kg": (Fraction(1), (1, 0, 0, 0)),
    "g": (Fraction(1, 1000), (1, 0, 0, 0)),
    "m": (Fraction(1), (0, 1, 0, 0)),
    "gpm": (Fraction(1), (0, 1, 0, 0)),
    "mm": (Fraction(1, 1000), (0, 1, 0, 0)),
    "cm": (Fraction(1, 100), (0, 1, 0, 0)),
    "km": (Fraction(1000), (0, 1, 0, 0)),
    "s": (Fraction(1), (0, 0, 1, 0)),
    "h": (Fraction(3600), (0, 0, 1, 0)),
    "day": (Fraction(86400), (0, 0, 1, 0)),
    "K": (Fraction(1), (0, 0, 0, 1)),
    "degC": (Fraction(1), (0, 0, 0, 1)),  # differences alone are converted
    "Pa": (Fraction(1), (1, -1, -2, 0)),
    "hPa": (Fraction(100), (1, -1, -2, 0)),
    "J": (Fraction(1), (1, 2, -2, 0)),
    "W": (Fraction(1), (1, 2, -3, 0)),
    "knot": (Fraction(1852, 3600), (0, 1, -1, 0)),
    "%": (Fraction(1, 100), (0, 0, 0, 0)),
    "1": (Fraction(1), (0, 0, 0, 0)),
}
_FACTOR = re.compile(r"([A-Za-z]+)(-?[1-9])?|%|1")
_FORCES = ("newton", "kilogram")  # in a pressure: a stress, which is a thousand times smaller


def normalise_units(units: str) -> str:
    """Return `units` in one spelling: `m s**-1`, `m/s` and `m.s^-1` all give `m s-1`."""
    text = " ".join(units.replace("**", "").replace("^", "").split())
    if text.lower() in _ALIASES:
        return _ALIASES[text.lower()]
    first, *divisors = text.split("/") if " " not in text and "(" not in text else [text]
    parts = first.replace(".", " ").split() + [_inverse(divisor) for divisor in divisors]
    joined = " ".join(parts)
    return _ALIASES.get(joined.lower(), joined)


@functools.cache
def how_many(units: str, reference: str) -> float | None:
    """Return how many of `units` make a difference of one `reference`, or None if they do not measure the same.

    Numbers without a dimension are never converted: 1 may be a fraction, a mixing ratio or an index.
    """
    if reference == "(0 - 1)":  # a range, no unit
        return None
    unit, ours = _product(units), _product(reference)
    if unit is None or ours is None:
        return _as_cf_has_it(units, reference)
    if unit[1] != ours[1] or not any(unit[1]):
        return None
    if "Pa" in reference and any(text.startswith("kg") for text in units.split()):  # a stress
        return None
    return float(ours[0] / unit[0])


def _product(units: str) -> tuple[Fraction, tuple[int, ...]] | None:
    """Return a normalised unit in kilograms, metres, seconds and kelvins, or None if a factor is not known here."""
    number, powers = Fraction(1), [0, 0, 0, 0]
    for text in units.split():
        factor = _FACTOR.fullmatch(text)
        name, power = (factor[1] or text, int(factor[2] or 1)) if factor else (text, 1)
        if name not in _KNOWN:
            return None
        size, dimensions = _KNOWN[name]
        number *= size**power
        powers = [total + power * dimension for total, dimension in zip(powers, dimensions, strict=True)]
    return (number, tuple(powers)) if units else None


def _as_cf_has_it(units: str, reference: str) -> float | None:
    """Return what `how_many` does, of any units that pint knows with CF's definitions."""
    registry = _registry()
    try:
        unit, ours = registry.Unit(units), registry.Unit(reference)
        if unit.dimensionless or unit.dimensionality != ours.dimensionality:
            return None
        if "pascal" in str(ours) and any(force in str(unit) for force in _FORCES):
            return None
        zero, one = (registry.Quantity(number, ours).to(unit).magnitude for number in (0.0, 1.0))
    except Exception:  # pint has a dozen kinds of error for text that is no unit, some of them Python's own
        return None
    return float(one - zero)


@functools.cache
def _registry() -> Any:
    """Return CF's units; importing them takes a while, so it is done for unknown ones only."""
    from cf_xarray.units import units

    return units


def _inverse(unit: str) -> str:
    """Return 1/unit: `s2` gives `s-2`."""
    digits = len(unit) - len(unit.rstrip("0123456789"))
    power = unit[len(unit) - digits :] or "1"
    return f"{unit[: len(unit) - digits]}-{power}"
