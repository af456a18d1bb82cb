"""Bounds and targets as text, for options and the attributes of stores.

`[VAR=][MODE:]NUMBER[%][,floor=NUMBER]`, or `[VAR=]ratio:NUMBER` and `[VAR=]rmse:NUMBER`, for which there are `--ratio`
and `--rmse` too.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Mode, Target
from isopress.format.settings import Promise

EVERY = "*"
TargetName = Literal["ratio", "rmse"]
_EXAMPLES = "examples: 0.1, t2m=0.1, '*=range:1e-3', 'tp=pointwise:1%,floor=1e-6', z=lossless"
_TARGET_EXAMPLES = {"ratio": "examples: 300, t2m=300, 'u*=100'", "rmse": "examples: 0.5, t2m=0.5, 'u*=1'"}


@dataclass(frozen=True)
class ErrorSpec:
    """One `--error`, `--ratio` or `--rmse`: the variables it names (a shell pattern) and what they get."""

    pattern: str
    bound: Promise

    @property
    def option(self) -> str:
        """Name of the option that states it."""
        if isinstance(self.bound, Bound):
            return "error"
        return "rmse" if self.bound.ratio is None else "ratio"

    def matches(self, name: str) -> bool:
        """Return whether the spec names this variable; case counts."""
        return fnmatchcase(name, self.pattern)


def parse_error(text: str) -> ErrorSpec:
    """Return the spec that `text` states; `parse_error('0.1')` bounds every variable in its own unit.

    Parameters
    ----------
    text : str
        `[VAR=]lossless` or `[VAR=][MODE:]NUMBER[%][,floor=NUMBER]`. VAR is a name or a pattern with
        `*`, `?`, `[...]`; MODE is abs (the default), range or pointwise, or ratio or rmse for a target instead of
        a bound; `%` divides by 100.

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
        bound = _parse_promise(value, _parse_number(floor) if has_floor else None)
    except ArgumentError as error:
        raise ArgumentError(f"error {text!r}: {error}") from error
    return ErrorSpec(pattern or EVERY, bound)


def parse_target(text: str, name: TargetName) -> ErrorSpec:
    """Return the spec that `text`, `[VAR=]NUMBER`, states as the value of `--ratio` or `--rmse`.

    Raises
    ------
    ArgumentError
        The text is not of this form, or the number is no such target.
    """
    pattern, has_pattern, value = text.rpartition("=")
    if has_pattern and not pattern:
        raise ArgumentError(f"{name} {text!r} names no variable before '='; {_TARGET_EXAMPLES[name]}")
    try:
        return ErrorSpec(pattern or EVERY, Target(**{name: _to_float(value, _TARGET_EXAMPLES[name])}))
    except ArgumentError as error:
        raise ArgumentError(f"{name} {text!r}: {error}") from error


def format_bound(bound: Promise) -> str:
    """Return the shortest text that `parse_error` reads back as `bound`."""
    if isinstance(bound, Target):
        return f"rmse:{bound.rmse!r}" if bound.ratio is None else f"ratio:{bound.ratio!r}"
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
        Variables that take a bound or target, and variables that are always stored exactly.
    """
    for spec in specs:
        if spec.pattern == EVERY or any(map(spec.matches, lossy)):
            continue
        exact = [name for name in kept if spec.matches(name)]
        problem = (
            f"{', '.join(exact)}: coordinates and non-float variables are always exact" if exact else "no such variable"
        )
        what = "a bound" if spec.option == "error" else f"--{spec.option}"
        raise ArgumentError(f"{spec.option} for {spec.pattern!r}: {problem}; {what} can be set for: {_join(lossy)}")


def last_match(specs: Sequence[ErrorSpec], name: str) -> Promise | None:
    """Return what the last spec that names the variable states, or None."""
    return next((spec.bound for spec in reversed(specs) if spec.matches(name)), None)


def _parse_promise(text: str, floor: float | None) -> Promise:
    mode, has_mode, number = (part.strip() for part in text.rpartition(":"))
    if number == "lossless" and not has_mode:
        return Bound("lossless", None, floor)
    if mode in get_args(TargetName):
        if floor is not None:
            raise ArgumentError(f"{mode} takes no floor; leave it out")
        return Target(**{mode: _to_float(number, _EXAMPLES)})
    if has_mode and mode not in get_args(Mode):
        allowed = ", ".join((*get_args(Mode), *get_args(TargetName)))
        raise ArgumentError(f"mode {mode!r} is unknown; allowed are {allowed}; {_EXAMPLES}")
    mode = mode or "abs"
    percent = number.endswith("%")
    if percent and mode not in ("range", "pointwise"):
        raise ArgumentError("a percentage of what? write range:... or pointwise:...")
    value = _parse_number(number.removesuffix("%"))
    return Bound(mode, value / 100 if percent else value, floor)  # type: ignore[arg-type]


def _parse_number(text: str) -> float:
    number = _to_float(text, _EXAMPLES)
    if not (math.isfinite(number) and number > 0):
        raise ArgumentError(f"{text} must be finite and > 0; for exact values write lossless")
    return number


def _to_float(text: str, examples: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"{text!r} is not a number; {examples}") from None


def _join(names: Collection[str]) -> str:
    return ", ".join(names) if names else "none (no float variables)"
