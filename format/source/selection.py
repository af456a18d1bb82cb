"""What is to be read: paths, and a part of their dataset: variables by name, places by label or by number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.source.exact import references


@dataclass(frozen=True)
class Request:
    """Sources that make one dataset, and the part of it that is wanted.

    `paths` are files, folders, patterns or URLs as the user gives them; `variables` names or patterns (none: all);
    `sel` and `isel` pairs of a dimension and a text such as `2020-01/2020-03`, `500,850` or `0:24` (`selection`).
    """

    paths: tuple[str, ...]
    variables: tuple[str, ...] = ()
    sel: tuple[tuple[str, str], ...] = ()
    isel: tuple[tuple[str, str], ...] = ()

    @property
    def partial(self) -> bool:
        """Whether a part of the dataset is wanted, not all of it."""
        return bool(self.variables or self.sel or self.isel)

    def at(self, paths: Sequence[str]) -> "Request":
        """Return the same part of the dataset at other paths."""
        return replace(self, paths=tuple(paths))


def as_request(source: "str | Sequence[str] | Request") -> Request:
    """Return the request for all of a source that is given as one path or several."""
    if isinstance(source, Request):
        return source
    return Request((source,) if isinstance(source, str) else tuple(source))


Groups = Mapping[str, xr.Dataset]


def select(groups: Groups, request: Request) -> dict[str, xr.Dataset]:
    """Return the wanted variables, with the coordinates they need, at the wanted places.

    Raises
    ------
    ArgumentError
        A variable, dimension or label that is not there, or a text that is no selection.
    """
    chosen = _with_variables(groups, request.variables) if request.variables else dict(groups)
    dims = {str(dim) for dataset in chosen.values() for dim in dataset.sizes}
    for dim, _ in (*request.sel, *request.isel):
        if dim not in dims:
            raise ArgumentError(f"selection along {dim!r}: no such dimension; there are: {', '.join(sorted(dims))}")
    for dim, text in request.isel:
        chosen = {
            path: _at(dataset, dim, lambda ds, d=dim, t=text: _places(d, t, ds.sizes[d]))
            for path, dataset in chosen.items()
        }
    for dim, text in request.sel:
        chosen = {
            path: _at(dataset, dim, lambda ds, d=dim, t=text: _labelled(ds, d, t)) for path, dataset in chosen.items()
        }
    return chosen


def _at(dataset: xr.Dataset, dim: str, places: Any) -> xr.Dataset:
    return dataset.isel({dim: places(dataset)}) if dim in dataset.sizes else dataset


def _with_variables(groups: Groups, wanted: Sequence[str]) -> dict[str, xr.Dataset]:
    every = [f"{path}/{name}" if path else str(name) for path, dataset in groups.items() for name in dataset.variables]
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in every):
            raise ArgumentError(f"variable {pattern!r}: not in the source; there are: {', '.join(every)}")
    chosen = {}
    for path, dataset in groups.items():
        names = [
            str(name)
            for name in dataset.variables
            if any(fnmatchcase(f"{path}/{name}" if path else str(name), pattern) for pattern in wanted)
        ]
        if names:
            part = dataset[_with_coordinates(dataset, names)]
            dims = dataset.encoding.get("dimensions", {})
            part.encoding = {**dataset.encoding, "dimensions": {d: n for d, n in dims.items() if d in part.sizes}}
            chosen[path] = part
    return chosen


def _with_coordinates(dataset: xr.Dataset, names: Sequence[str]) -> list[str]:
    """Return the names and, in the order of the dataset, all that describes their axes."""
    needed: set[str] = set()
    new = set(names)
    while new:
        needed |= new
        part = xr.Dataset({name: xr.Variable((), 0, dataset.variables[name].attrs) for name in new})
        dims = {str(dim) for name in new for dim in dataset.variables[name].dims}
        terms = {word for name in new for word in str(dataset.variables[name].attrs.get("formula_terms", "")).split()}
        new = ({*references(part), *dims, *terms} & set(map(str, dataset.variables))) - needed
    return [str(name) for name in dataset.variables if name in needed]


def _places(dim: str, text: str, size: int) -> slice | list[int]:
    """Return what `3`, `0:24`, `::2` or `0,5,7` means along a dimension of `size`; never an empty selection."""
    try:
        if ":" in text:
            parts = [int(part) if part.strip() else None for part in text.split(":")]
            if len(parts) > 3 or (len(parts) == 3 and (parts[2] or 1) < 1):
                raise ValueError
            chosen = range(size)[slice(*parts)]
        else:
            chosen = [range(size)[int(part)] for part in text.split(",")]  # type: ignore[assignment]
    except (ValueError, IndexError) as error:
        raise ArgumentError(
            f"isel {dim}={text}: not places along {dim}, which has {size}: write 3, 0:24, ::2 or 0,5,7"
        ) from error
    return _as_slice(list(chosen), f"isel {dim}={text}")


def _labelled(dataset: xr.Dataset, dim: str, text: str) -> slice | list[int]:
    """Return where the labels of a dimension are what `A`, `A/B` (from A to B, both included) or `A,B` says."""
    if dim not in dataset.variables:
        raise ArgumentError(f"sel {dim}={text}: {dim} has no coordinate, only places: use --isel")
    coordinate = xr.conventions.decode_cf_variable(dim, dataset.variables[dim].load(), decode_timedelta=False)
    labels = np.asarray(coordinate.values)
    is_time = labels.dtype.kind == "M" or (labels.dtype == object and hasattr(labels[0], "calendar"))
    matches = np.zeros(labels.size, bool)
    for part in text.split(","):
        first, interval, last = part.partition("/")
        find = _times if is_time else _numbers
        found = find(labels, first, last if interval else None, f"sel {dim}={text}")
        matches |= found
        if not found.any():
            raise ArgumentError(f"sel {dim}={text}: nothing at {part!r}; {dim} goes from {labels[0]} to {labels[-1]}")
    return _as_slice(np.flatnonzero(matches).tolist(), f"sel {dim}={text}")


def _times(labels: np.ndarray[Any, Any], first: str, last: str | None, what: str) -> np.ndarray[Any, Any]:
    """Return which times lie in the period that a partial date such as 2020-01 names, or from one to another."""
    index = xr.indexes.PandasIndex(xr.Variable("t", labels), "t").to_pandas_index()
    where = xr.DataArray(np.arange(labels.size), {"t": index}, "t")
    order = where.sortby("t")
    try:
        key = slice(first or None, last or None) if last is not None else slice(first, first)
        found = order.sel(t=key).values
    except (KeyError, ValueError, TypeError) as error:
        raise ArgumentError(f"{what}: not a date or a period such as 2020-01/2020-03 ({error})") from error
    return np.isin(np.arange(labels.size), found)


def _numbers(labels: np.ndarray[Any, Any], first: str, last: str | None, what: str) -> np.ndarray[Any, Any]:
    if labels.dtype.kind not in "iufb":
        texts = labels.astype(str)
        return np.asarray(texts == first) if last is None else np.asarray((texts >= first) & (texts <= last))
    try:
        low = float(first) if first else -np.inf
        high = low if last is None else float(last) if last else np.inf
    except ValueError as error:
        raise ArgumentError(f"{what}: not a number, or two with a / between them") from error
    low, high = min(low, high), max(low, high)
    _check_wrap(labels, low, high, what)
    near = 1e-6 * np.abs(np.diff(labels.astype(np.float64))).min(initial=1.0)
    return np.asarray((labels >= low - near) & (labels <= high + near))


def _check_wrap(labels: np.ndarray[Any, Any], low: float, high: float, what: str) -> None:
    """Refuse -45/45 where longitudes go from 0 to 360, and 170/190 where they end at 180: half would be lost."""
    if "lon" not in what or not np.ptp(labels) > 180:
        return
    first, last = float(labels.min()), float(labels.max())
    if -180 <= low < 0 <= first and last > 180:
        wanted = f"{low + 360:g}/{last:g}" + (f",{first:g}/{high:g}" if high >= 0 else "")
    elif 180 < high <= 360 and -180 <= first < 0:
        wanted = (f"{low:g}/{last:g}," if low <= 180 else "") + f"{first:g}/{high - 360:g}"
    else:
        return
    raise ArgumentError(f"{what}: longitudes go from {first:g} to {last:g} here; write {wanted}")


def _as_slice(places: list[int], what: str) -> slice | list[int]:
    """Return regular places as a slice, which is read lazily in any backend."""
    if not places:
        raise ArgumentError(f"{what}: selects nothing")
    step = places[1] - places[0] if len(places) > 1 else 1
    if step > 0 and places == list(range(places[0], places[-1] + 1, step)):
        return slice(places[0], places[-1] + 1, step)
    return places
