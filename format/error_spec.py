"""Bounds as text, for `--error` and the attributes of stores: `[VAR=][MODE:]NUMBER[%][,floor=NUMBER]`."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

from isopress.codec.bound import Bound, Mode
from isopress.codec.errors import ArgumentError

EVERY = "*"
_EXAMPLES = "examples: 0.1, t2m=0.1, '*=range:1e-3', 'tp=pointwise:1%,floor=1e-6', z=lossless"


@dataclass(frozen=True)
class ErrorSpec:
    """One `--error`: the variables it names (a shell pattern) and the bound they get."""

    pattern: str
    bound: Bound

    def matches(self, name: str) -> bool:
        """Return whether the spec names this variable; case counts."""
        return fnmatchcase(name, self.pattern)


def parse_error(text: str) -> ErrorSpec:
    """Return the spec that `text` states; `parse_error('0.1')` bounds every variable in its own unit.

    Parameters
    ----------
    text : str
        `[VAR=]lossless` or `[VAR=][MODE:]NUMBER[%][,floor=NUMBER]`. VAR is a name or a pattern with
        `*`, `?`, `[...]`; MODE is abs (the default), range or pointwise; `%` divides by 100.

    Raises
    ------
    ArgumentError
        The text is not of this form, or the bound is not one.
    """
    body, has_floor, floor = text.partition(",floor=")
    pattern, has_pattern, value = body.rpartition("=")
    if has_pattern and not pattern:
        raise ArgumentError(f"error {text!r} names no variable before '='; {_EXAMPLES}")
    try:
        bound = _parse_bound(value, _parse_number(floor) if has_floor else None)
    except ArgumentError as error:
        raise ArgumentError(f"error {text!r}: {error}") from error
    return ErrorSpec(pattern or EVERY, bound)


def format_bound(bound: Bound) -> str:
    """Return the shortest text that `parse_error` reads back as `bound`."""
    if bound.mode == "lossless":
        return "lossless"
    floor = "" if bound.floor is None else f",floor={bound.floor!r}"
    return f"{bound.mode}:{bound.value!r}{floor}"


def check_specs(specs: Sequence[ErrorSpec], lossy: Collection[str], kept: Collection[str]) -> None:
    """Raise ArgumentError for a spec that names none of the `lossy` variables; the message lists them.

    Parameters
    ----------
    specs : sequence of ErrorSpec
        What the user asked for; the pattern `*` may match nothing.
    lossy, kept : collection of str
        Variables that take a bound, and variables that are always stored exactly.
    """
    for spec in specs:
        if spec.pattern == EVERY or any(map(spec.matches, lossy)):
            continue
        exact = [name for name in kept if spec.matches(name)]
        problem = (
            f"{', '.join(exact)}: coordinates and non-float variables are always exact" if exact else "no such variable"
        )
        raise ArgumentError(f"error for {spec.pattern!r}: {problem}; a bound can be set for: {_join(lossy)}")


def last_match(specs: Sequence[ErrorSpec], name: str) -> Bound | None:
    """Return the bound of the last spec that names the variable, or None."""
    return next((spec.bound for spec in reversed(specs) if spec.matches(name)), None)


def _parse_bound(text: str, floor: float | None) -> Bound:
    mode, has_mode, number = text.rpartition(":")
    if text.strip() == "lossless":
        return Bound("lossless", None, floor)
    if has_mode and mode.strip() not in get_args(Mode):
        raise ArgumentError(f"mode {mode!r} is unknown; allowed are {', '.join(get_args(Mode))}; {_EXAMPLES}")
    mode = mode.strip() if has_mode else "abs"
    percent = number.strip().endswith("%")
    if percent and mode not in ("range", "pointwise"):
        raise ArgumentError("a percentage of what? write range:... or pointwise:...")
    value = _parse_number(number.strip().removesuffix("%"))
    return Bound(mode, value / 100 if percent else value, floor)  # type: ignore[arg-type]


def _parse_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ArgumentError(f"{text!r} is not a number; {_EXAMPLES}") from None
    if not (math.isfinite(number) and number > 0):
        raise ArgumentError(f"{text} must be finite and > 0; for exact values write lossless")
    return number


def _join(names: Collection[str]) -> str:
    return ", ".join(names) if names else "none (no float variables)"
