"""Sizes, bounds and errors in words, as every report prints them."""

from isopress.codec.limits import Bound, Target
from isopress.format.report.records import VariableReport
from isopress.format.settings import Promise


def size(nbytes: float) -> str:
    """Return bytes for people: `12.3 MB`, with 1 MB = 10^6 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def ratio_text(ratio: float) -> str:
    """Return how many times smaller something is: `12.3x`, or `0.02x` for what grew much."""
    return f"{ratio:.1f}x" if ratio >= 1 else f"{ratio:.2g}x"


def degrees(value: float, positive: str, negative: str) -> str:
    """Return a latitude or longitude: `33 S`."""
    return f"{abs(value):g} {positive if value >= 0 else negative}"


def count(number: int, what: str) -> str:
    """Return a number of things: `1 file`, `3 groups`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def with_units(number: float, units: str) -> str:
    """Return a number and its unit, to four digits."""
    return f"{number:.4g} {units}".strip()


def bound_text(variable: VariableReport) -> str:
    """Return the promise of a variable in words: `0.1 K`, `1 % of |x| or 1e-06 m`, `exact`, `RMSE 0.5 K`."""
    text = limit_text(variable.bound, variable.units)
    bound, error = variable.bound, variable.error
    if not isinstance(bound, Bound) or bound.mode != "abs" or not error or error.startswith("abs:"):
        return text
    fallback = f": no preset for unit {variable.units!r}" if variable.fallback else ""
    return f"{text} ({error}{fallback})"


def limit_text(limit: Promise | None, units: str, of_range: str = "the chunk's range") -> str:
    """Return a bound or target in words; `of_range` says of what range a bound of mode range is a part."""
    if isinstance(limit, Target):
        return f"ratio {limit.ratio:.4g}" if limit.rmse is None else f"RMSE {with_units(limit.rmse, units)}"
    if limit is None or limit.mode == "lossless" or limit.value is None:
        return "exact"
    if limit.mode == "abs":
        return with_units(limit.value, units)
    of = of_range if limit.mode == "range" else "|x|"
    floor = "" if limit.floor is None else f" or {with_units(limit.floor, units)}"
    return f"{100 * limit.value:.4g} % of {of}{floor}"
