"""Sizes, bounds and errors in words, as every report prints them."""

from isopress.codec.limits import Bound, Target
from isopress.format.report.records import VariableReport


def size(nbytes: float) -> str:
    """Return bytes for people: `12.3 MB`, with 1 MB = 10^6 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def ratio_text(ratio: float) -> str:
    """Return how many times smaller something is: `12.3x`."""
    return f"{ratio:.1f}x"


def count(number: int, what: str) -> str:
    """Return a number of things: `1 file`, `3 groups`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def with_units(number: float, units: str) -> str:
    """Return a number and its unit, to four digits."""
    return f"{number:.4g} {units}".strip()


def bound_text(variable: VariableReport) -> str:
    """Return the promise of a variable in words: `0.1 K`, `1 %, at least 1e-06 m`, `exact`, `RMSE 0.5 K`."""
    bound = variable.bound
    if isinstance(bound, Target):
        if bound.rmse is None:
            return f"ratio {bound.ratio:.4g}"
        return f"RMSE {with_units(bound.rmse, variable.units)}"
    if bound is None or bound.mode == "lossless" or bound.value is None:
        return "exact"
    if bound.mode == "abs":
        asked = f" ({variable.error})" if variable.error and not variable.error.startswith("abs:") else ""
        if variable.fallback:
            asked = f" ({variable.error}: no preset for unit {variable.units!r})"
        return with_units(bound.value, variable.units) + asked
    return _fraction(bound, variable)


def _fraction(bound: Bound, variable: VariableReport) -> str:
    of = "of the chunk's range" if bound.mode == "range" else "of |x|"
    floor = "" if bound.floor is None else f" or {with_units(bound.floor, variable.units)}"
    return f"{100 * (bound.value or 0):.4g} % {of}{floor}"
