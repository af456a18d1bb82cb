"""What `estimate` returns: figures with intervals, as text, JSON and a table for notebooks."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from isopress.format.report.html import table
from isopress.format.report.planned import PlannedVariable
from isopress.format.report.records import as_json
from isopress.format.report.words import ratio_text, size, with_units


@dataclass(frozen=True)
class VariableEstimate:
    """Predicted figures of a variable: bytes (`low` to `high` nine times of ten), RMSE in its unit, core-seconds.

    `sampled` is the part of its values that was coded for this; 1 means that nothing is guessed.
    """

    plan: PlannedVariable
    stored_nbytes: int
    low: int
    high: int
    rmse: float | None
    core_seconds: float
    sampled: float

    @property
    def ratio(self) -> float:
        """Original size over predicted size; 0 when nothing is stored."""
        return self.plan.original_nbytes / self.stored_nbytes if self.stored_nbytes else 0.0


@dataclass(frozen=True, repr=False)
class Estimate:
    """Predicted figures of a store; `metadata_nbytes` counts small variables too, `seconds` were spent on it."""

    path: str
    variables: tuple[VariableEstimate, ...]
    metadata_nbytes: int
    jobs: int
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def original_nbytes(self) -> int:
        """Size of all variables, as the source stores values."""
        return sum(variable.plan.original_nbytes for variable in self.variables)

    @property
    def stored_nbytes(self) -> int:
        """Predicted size of the store."""
        return self.metadata_nbytes + sum(variable.stored_nbytes for variable in self.variables)

    @property
    def half_width(self) -> float:
        """Half of the interval of the size: errors of variables are independent."""
        return math.hypot(*((variable.high - variable.low) / 2 for variable in self.variables))

    @property
    def ratio(self) -> float:
        """Original size over predicted size."""
        return self.original_nbytes / max(self.stored_nbytes, 1)

    @property
    def core_hours(self) -> float:
        """Hours on one core like those of this machine: read twice, encode, decode and compare."""
        return sum(variable.core_seconds for variable in self.variables) / 3600

    @property
    def hours(self) -> float:
        """Hours with `jobs` processes, each on a core of its own."""
        return self.core_hours / self.jobs

    def __repr__(self) -> str:
        rows = [_HEAD, *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        lines = ("  ".join(_aligned(row, widths)).rstrip() for row in rows)
        return "\n".join((*lines, "", self.summary))

    def _repr_html_(self) -> str:
        return f"<div>{table(_HEAD, self._rows())}<p>{self.summary}</p></div>"

    @property
    def summary(self) -> str:
        """The figures of the whole store in a sentence."""
        low, high = (self.stored_nbytes + sign * self.half_width for sign in (-1, 1))
        return (
            f"{self.path}: {size(self.original_nbytes)} -> {size(self.stored_nbytes)} ({size(max(0, low))} to "
            f"{size(high)}), {ratio_text(self.ratio)}; {hours_text(self.core_hours)} of one core, "
            f"{hours_text(self.hours)} with {self.jobs} jobs; estimated in {self.seconds:.1f} s"
        )

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [_row(variable) for variable in self.variables if variable.stored_nbytes]
        others = [variable for variable in self.variables if not variable.stored_nbytes]
        what = f"{len(others)} others, metadata" if others else "metadata"
        before = size(sum(variable.plan.original_nbytes for variable in others))
        return [*rows, (what, "exact", before, size(self.metadata_nbytes), "", "", "", "", "")]

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON types."""
        record = asdict(self)
        for row, variable in zip(record["variables"], self.variables, strict=True):
            row["plan"] = variable.plan.to_dict()
            row["ratio"] = variable.ratio
        names = ("original_nbytes", "stored_nbytes", "half_width", "ratio", "core_hours", "hours")
        result: dict[str, Any] = as_json(record | {name: getattr(self, name) for name in names})
        return result


_HEAD = ("variable", "bound", "size", "becomes", "between", "ratio", "RMSE", "core time", "sampled")


def hours_text(hours: float) -> str:
    """Return a time for people: `12 s`, `3.5 min`, `2.1 h`."""
    seconds = hours * 3600
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if hours < 1.5 else f"{hours:.1f} h"


def _row(variable: VariableEstimate) -> tuple[str, ...]:
    return (
        variable.plan.name,
        variable.plan.limit_text,
        size(variable.plan.original_nbytes),
        size(variable.stored_nbytes),
        f"{size(variable.low)} .. {size(variable.high)}",
        ratio_text(variable.ratio),
        "0" if variable.rmse is None else with_units(variable.rmse, variable.plan.units),
        hours_text(variable.core_seconds / 3600),
        f"{variable.sampled:.0%}" if variable.sampled > 0.005 else f"{variable.sampled:.2%}",
    )


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Return the cells of a row, the first two flush left."""
    return [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
