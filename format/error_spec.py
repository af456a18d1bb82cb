"""Limits as text: the values of `--error`, and the attributes of stores that say what was asked.

[VAR=]LIMIT    LIMIT: 0.1 | abs:0.1 | range:1e-3 | pointwise:1%[,floor=1e-6] | lossless | ratio:300 | rmse:0.5
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Target
from isopress.format.settings import Promise

EVERY = "*"
FORMS = "0.1, range:1e-3, pointwise:1%[,floor=1e-6], lossless, ratio:300, rmse:0.5"
_GRAMMAR = f"allowed are [VAR=] and one of {FORMS}"
_KINDS = ("abs", "range", "pointwise", "ratio", "rmse")  # of limits that take a number
_FRACTIONS = ("range", "pointwise")  # of something, so `%` has a meaning


@dataclass(frozen=True)
class ErrorSpec:
    """One `--error`: the variables it names (a shell pattern) and the limit they get."""

    pattern: str
    limit: Promise

    def matches(self, name: str) -> bool:
        """Return whether the spec names this variable; case counts."""
        return fnmatchcase(name, self.pattern)


def parse_error(text: str) -> ErrorSpec:
    """Return the spec that `text` states; `parse_error('0.1')` bounds every variable in its own unit.

    Parameters
    ----------
    text : str
        `[VAR=]LIMIT`. VAR is a name or a pattern with `*`, `?`, `[...]`. LIMIT is a number, alone or after one of
        `abs:`, `range:`, `pointwise:`, `ratio:`, `rmse:`, or `lossless`; a range or pointwise number may end in `%`,
        and `,floor=NUMBER` may follow a pointwise one.

    Raises
    ------
    ArgumentError
        The text is not of this form, or its number is outside the range of the limit. The message has the text,
        the variable, and what is allowed.
    """
    body, has_floor, floor = text.partition(",floor=")
    pattern, has_pattern, limit = body.rpartition("=")
    if has_pattern and not pattern:
        raise ArgumentError(f"error {text!r} names no variable before '='; {_GRAMMAR}")
    variables = f"variable {pattern!r}" if pattern else "every variable"
    try:
        return ErrorSpec(pattern or EVERY, _parse_limit(limit, floor if has_floor else None))
    except ArgumentError as error:
        raise ArgumentError(f"error {text!r} of {variables}: {error}; {_GRAMMAR}") from error


def as_specs(error: Mapping[str, str | float] | str | float | None) -> list[ErrorSpec]:
    """Return the limits that a mapping of names or patterns states, or one limit for all: as `--error` takes them.

    Raises
    ------
    ArgumentError
        A limit is not one.
    """
    given = error if isinstance(error, Mapping) else {} if error is None else {EVERY: error}
    return [parse_error(f"{name}={limit}") for name, limit in given.items()]


def format_bound(limit: Promise) -> str:
    """Return the shortest text that `parse_error` reads back as `limit`."""
    if isinstance(limit, Target):
        return f"rmse:{limit.rmse!r}" if limit.ratio is None else f"ratio:{limit.ratio!r}"
    if limit.mode == "lossless":
        return "lossless"
    floor = "" if limit.floor is None else f",floor={limit.floor!r}"
    return f"{limit.mode}:{limit.value!r}{floor}"


def check_specs(specs: Sequence[ErrorSpec], lossy: Collection[str], kept: Collection[str]) -> None:
    """Raise ArgumentError for a spec that names none of the `lossy` variables; the message lists them.

    Parameters
    ----------
    specs : sequence of ErrorSpec
        What the user asked for; the pattern `*` may match nothing.
    lossy, kept : collection of str
        Variables that take a limit, and variables that are always stored exactly.
    """
    for spec in specs:
        if spec.pattern == EVERY or any(map(spec.matches, lossy)):
            continue
        exact = ", ".join(name for name in kept if spec.matches(name))
        problem = f"{exact}: coordinates and non-float variables are always exact" if exact else "no such variable"
        names = ", ".join(lossy) or "none (no float variables)"
        raise ArgumentError(f"error for {spec.pattern!r}: {problem}; an error can be set for: {names}")


def last_match(specs: Sequence[ErrorSpec], name: str) -> Promise | None:
    """Return the limit of the last spec that names the variable, or None."""
    return next((spec.limit for spec in reversed(specs) if spec.matches(name)), None)


def _parse_limit(text: str, floor: str | None) -> Promise:
    kind, has_kind, number = (part.strip() for part in text.rpartition(":"))
    if text.strip() == "lossless":
        kind, value = "lossless", None
    elif kind not in _KINDS and has_kind:
        raise ArgumentError(f"{kind!r} is no kind of error")
    else:
        kind = kind or "abs"
        value = _parse_number(number, percent=kind in _FRACTIONS)
    if kind in ("ratio", "rmse"):
        if floor is not None:
            raise ArgumentError(f"{kind} takes no floor")
        return Target(ratio=value) if kind == "ratio" else Target(rmse=value)
    return Bound(kind, value, None if floor is None else _parse_number(floor))  # type: ignore[arg-type]  # one of _KINDS


def _parse_number(text: str, percent: bool = False) -> float:
    if text.endswith("%") and not percent:
        raise ArgumentError(f"{text} of what? Only range and pointwise take a percentage")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        raise ArgumentError(f"{text!r} is not a number") from None
    return number / 100 if text.endswith("%") else number
