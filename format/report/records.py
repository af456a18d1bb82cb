"""What `write`, `info` and `verify` return: plain records with the figures of a store."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from isopress.format.settings import Promise


@dataclass(frozen=True)
class VariableReport:
    """The figures of one variable; errors are in its `units`, sizes in bytes, None is "not known".

    `error` is the bound or target as it was asked for, `bound` as the codec keeps it; both are None for variables
    that are stored without the codec, which is always exact. `missed_chunks` counts the chunks that are more than
    3 % off their target. `fallback` says that no preset knows the unit, so that the bound is a part of
    the range. `shards` are the sizes of the objects in which chunks are stored together, if they are; `ends` the first
    and last value of a coordinate, times as dates. `objects` counts the chunks or shards that exist, `objects_expected`
    those of a complete array: what is absent reads as the fill value. `headers_read` says that the errors are those
    that the headers of so many chunks state, `headers_damaged` how many could not be read. `violations` counts values
    that break the bound or the mask of missing values, and chunks that miss their RMSE; `damage` says why a variable
    could not be compared; `differences` names what else than values is not as in the source.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    units: str
    original_nbytes: int
    stored_nbytes: int
    error: str | None = None
    bound: Promise | None = None
    max_error: float | None = None
    rmse: float | None = None
    models: tuple[str, ...] = ()
    missed_chunks: int | None = None
    fallback: bool = False
    shards: tuple[int, ...] | None = None
    long_name: str = ""
    ends: tuple[str, str] | None = None
    objects: int | None = None
    objects_expected: int | None = None
    headers_read: int | None = None
    headers_damaged: int = 0
    seconds: float | None = None
    violations: int | None = None
    damage: str | None = None
    differences: tuple[str, ...] = ()

    @property
    def absent(self) -> int:
        """Chunks or shards that do not exist, as far as the store can say."""
        return 0 if self.objects is None else max(0, (self.objects_expected or 0) - self.objects)

    @property
    def ratio(self) -> float:
        """Original size over stored size; 0 when nothing is stored."""
        return self.original_nbytes / self.stored_nbytes if self.stored_nbytes else 0.0

    @property
    def mb_per_s(self) -> float | None:
        """Original megabytes (10^6 bytes) per second."""
        return self.original_nbytes / 1e6 / self.seconds if self.seconds else None

    @property
    def kept(self) -> bool:
        """Whether every value keeps its bound and every chunk its RMSE, as far as this report has checked."""
        return not self.violations and self.damage is None and not self.differences


@dataclass(frozen=True, repr=False)
class StoreReport:
    """The figures of a store; `stored_nbytes` counts every file: metadata and weights (`models_nbytes`) included.

    `warnings` are what is unusual about the source or was changed on the way, `read` counts what was read of it.
    `written` says how the store was made: version, source and preset; `unfinished` that it is not complete.
    `differences` are those of the attributes of
    groups, `not_compared` says what `verify` left out on purpose. In a notebook a report shows itself as a table.
    """

    path: str
    zarr_format: int
    variables: tuple[VariableReport, ...]
    stored_nbytes: int
    seconds: float | None = None
    models_nbytes: int = 0
    warnings: tuple[str, ...] = ()
    read: Mapping[str, int] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    unfinished: str | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every dimension, those of groups with the path of their group: `forecast/step`."""
        lengths: dict[str, int] = {}
        for variable in self.variables:
            group = variable.name.rpartition("/")[0]
            for dim, length in zip(variable.dims, variable.shape, strict=True):
                lengths.setdefault(f"{group}/{dim}" if group else dim, length)
        return lengths

    @property
    def original_nbytes(self) -> int:
        """Size of all variables before compression."""
        return sum(variable.original_nbytes for variable in self.variables)

    @property
    def ratio(self) -> float:
        """Original size over stored size."""
        return self.original_nbytes / self.stored_nbytes if self.stored_nbytes else 0.0

    @property
    def kept(self) -> bool:
        """Whether every variable keeps its bound."""
        return not self.differences and all(variable.kept for variable in self.variables)

    def __repr__(self) -> str:
        from isopress.format.report.text import describe  # it needs this file

        return describe(self)

    def _repr_html_(self) -> str:
        from isopress.format.report.html import store_html

        return store_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types; numbers that JSON lacks are None."""
        totals = {
            "sizes": self.sizes,
            "original_nbytes": self.original_nbytes,
            "ratio": self.ratio,
            "kept": self.kept,
            "complete": self.unfinished is None,
        }
        derived = [
            {
                "bound": variable.bound and {"mode": variable.bound.mode, **asdict(variable.bound)},
                "ratio": variable.ratio,
                "mb_per_s": variable.mb_per_s,
                "kept": variable.kept,
            }
            for variable in self.variables
        ]
        record = asdict(self)
        record["variables"] = [variable | extra for variable, extra in zip(record["variables"], derived, strict=True)]
        result: dict[str, Any] = as_json(record | totals)
        return result


def as_json(value: Any) -> Any:
    """Return JSON types; numbers that JSON lacks are None."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
