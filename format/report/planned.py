"""What a conversion would do with each variable, and why: the figures of `compress --dry-run`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isopress.format.error_spec import format_bound
from isopress.format.presets import quantity_of
from isopress.format.report.records import as_json
from isopress.format.report.words import count, limit_text, size
from isopress.format.settings import Promise
from isopress.format.source.dataset import Request, Source, located, open_source
from isopress.format.source.selection import as_request
from isopress.format.store.plan import VariablePlan, Wishes, plan_variables


@dataclass(frozen=True)
class PlannedVariable:
    """How a variable would be stored; `limit` is None for what is exact, `why` the reason for either."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    dtype: str
    units: str
    long_name: str
    limit: Promise | None
    why: str
    original_nbytes: int

    @property
    def limit_text(self) -> str:
        """The bound or target in words."""
        return limit_text(self.limit, self.units, "max - min")

    @property
    def layout_text(self) -> str:
        """Shape, chunks and shards in words."""
        shape, chunks, shards = (" x ".join(map(str, sizes)) for sizes in (self.shape, self.chunks, self.shards or ()))
        return f"{shape or 'a single value'} in chunks {chunks or '1'}" + (f" in shards {shards}" if shards else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types, the limit as `--error` takes it."""
        return asdict(self) | {"limit": None if self.limit is None else format_bound(self.limit)}


@dataclass(frozen=True, repr=False)
class PlanReport:
    """What would become of a source; nothing but its metadata was read."""

    path: str
    variables: tuple[PlannedVariable, ...]
    warnings: tuple[str, ...] = ()

    @property
    def original_nbytes(self) -> int:
        """Size of all variables, as the source stores values."""
        return sum(variable.original_nbytes for variable in self.variables)

    def __repr__(self) -> str:
        lines = [f"{self.path}: {count(len(self.variables), 'variable')}, {size(self.original_nbytes)}"]
        for variable in self.variables:
            named = f"{variable.name} ({', '.join(variable.dims)}) {variable.dtype}"
            lines.append(f"  {named}  {variable.long_name}".rstrip())
            lines.append(f"      {variable.limit_text}: {variable.why}")
            lines.append(f"      {variable.layout_text}; {size(variable.original_nbytes)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        rows = [variable.to_dict() for variable in self.variables]
        record = {"path": self.path, "original_nbytes": self.original_nbytes, "warnings": self.warnings}
        result: dict[str, Any] = as_json(record | {"variables": rows})
        return result


def plan_report(source: str | Sequence[str] | Request, wishes: Wishes) -> PlanReport:
    """Return what `write` would do with each variable of a source; only metadata is read.

    Raises
    ------
    ArgumentError
        The source cannot be read, or an error, chunk or effort does not fit it.
    """
    asked = as_request(source)
    with located(asked) as request, open_source(request) as opened:
        plans = plan_variables(opened, wishes)
        variables = tuple(planned(opened, plan, wishes) for plan in plans)
        return PlanReport(", ".join(asked.paths), variables, opened.warnings)


def planned(source: Source, plan: VariablePlan, wishes: Wishes) -> PlannedVariable:
    """Return the plan of a variable with the reason for it."""
    variable = source.variable(plan.name, lossy=plan.asked is not None)
    return PlannedVariable(
        name=plan.name,
        dims=tuple(map(str, variable.dims)),
        shape=variable.shape,
        chunks=plan.chunks,
        shards=plan.shards,
        dtype=str(variable.dtype),
        units=str(variable.attrs.get("units", "")),
        long_name=str(variable.attrs.get("long_name", variable.attrs.get("standard_name", ""))),
        limit=plan.asked,
        why=_why(source, plan, wishes),
        original_nbytes=source.nbytes(plan.name),
    )


def _why(source: Source, plan: VariablePlan, wishes: Wishes) -> str:
    """Return what made a variable bounded or exact."""
    if plan.asked is None:
        return source.reasons[plan.name][0]
    if not plan.by_preset:
        return "asked for"
    attrs = source.variable(plan.name, lossy=True).attrs
    units = str(attrs.get("units", ""))
    quantity = quantity_of(plan.name.rpartition("/")[2], attrs)
    if quantity is None:
        return f"preset {wishes.preset} knows no quantity with this name and unit {units!r}"
    known = "name and unit" if quantity.names else "unit"
    return f"preset {wishes.preset}, {quantity.label} by its {known} {units!r}"
