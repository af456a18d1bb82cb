"""Several files -> one dataset, along time or side by side, as `xr.open_mfdataset` does; what does not fit is named.

Files with the same variables follow each other along the axis whose coordinate differs; files with other variables lie
beside them. Times count in the unit of the first file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.source.alike import (
    Part,
    check_alike,
    equal_attribute,
    equal_values,
    in_unit,
    is_monthly,
    label,
    same_labels,
)
from isopress.format.source.exact import references
from isopress.format.source.open import Opened
from isopress.format.source.packing import FILLS, SCALING, find_packing, unpacked_attrs

_AXES = ("time", "step", "number", "realization", "forecast_period", "forecast_reference_time", "valid_time")


def combine(files: Sequence[Opened]) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Return the groups of all files together, their values unread, and what is unusual.

    Raises
    ------
    ArgumentError
        Files that do not go together; the message names the files, the variable and the reason.
    """
    warnings: list[str] = []
    paths = list(dict.fromkeys(group for file in files for group in file.groups))
    groups = {}
    for group in paths:
        parts = [Part(file.path, _lazy(file.groups[group])) for file in files if group in file.groups]
        groups[group] = _combined(parts, warnings)
    return groups, warnings


def _lazy(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with dask arrays for all variables but coordinates of axes, which are read."""
    variables = {
        name: xr.Variable(
            variable.dims,
            variable.values if variable.dims in ((name,), ()) else _dask(variable),
            variable.attrs,
            variable.encoding,
        )
        for name, variable in dataset.variables.items()
    }
    lazy = xr.Dataset(attrs=dataset.attrs)
    for name, variable in variables.items():
        lazy[name] = variable
    lazy.encoding = dict(dataset.encoding)
    return lazy


def _dask(variable: xr.Variable) -> Any:
    stored = variable.encoding.get("chunks") or variable.encoding.get("chunksizes")
    whole = [max(size, 1) for size in variable.shape]
    chunks = tuple(min(int(size), most) for size, most in zip(stored, whole, strict=True)) if stored else "auto"
    if variable.dtype.kind in "OUST" and not stored:
        chunks = tuple(whole)
    return variable.chunk(dict(zip(variable.dims, chunks, strict=True)) if chunks != "auto" else "auto").data


def _combined(parts: Sequence[Part], warnings: list[str]) -> xr.Dataset:
    """Return one group of all files."""
    by_variables: dict[frozenset[str], list[Part]] = {}
    for part in parts:
        data = frozenset(str(n) for n, v in part.dataset.variables.items() if v.dims != (n,) and v.ndim)
        by_variables.setdefault(data, []).append(part)
    if len(by_variables) > 1:
        _check_disjoint(by_variables)
    joined = [_along_axis(same, warnings) for same in by_variables.values()]
    whole = joined[0]
    for other in joined[1:]:
        whole = _beside(whole, other)
    return whole.dataset


def _check_disjoint(by_variables: Mapping[frozenset[str], list[Part]]) -> None:
    """Refuse files that have some variables in common and others not."""
    (first, its), *others = by_variables.items()
    for names, parts in others:
        differing = [n for n in sorted(first ^ names)]
        common = [n for n in first & names if _changes(its[0].dataset, n)]
        if common:
            raise ArgumentError(
                f"{its[0].path} and {parts[0].path} both have {', '.join(sorted(common))}, but only one has "
                f"{', '.join(differing)}: choose variables with --var, or compress the files apart"
            )


def _changes(dataset: xr.Dataset, name: str) -> bool:
    """Whether a variable has a time axis: one without is merely repeated in every file."""
    return any(
        " since " in str(dataset.variables[dim].attrs.get("units", ""))
        for dim in dataset.variables[name].dims
        if dim in dataset.variables
    )


def _along_axis(parts: Sequence[Part], warnings: list[str]) -> Part:
    """Return files with the same variables one after the other."""
    if len(parts) == 1:
        return parts[0]
    axis = _axis(parts)
    ordered = _ordered(_with_axis(parts, axis), axis, warnings)
    first = ordered[0]
    for part in ordered[1:]:
        check_alike(first, part, axis, warnings)
    variables = {}
    for key, variable in first.dataset.variables.items():
        name = str(key)
        others = _packed_alike(name, [part.dataset.variables[name] for part in ordered])
        variables[name] = _concatenated(others, axis) if axis in variable.dims else variable
    dataset = xr.Dataset(attrs=first.dataset.attrs)
    for name, variable in variables.items():
        dataset[name] = variable
    unlimited = set(first.dataset.encoding.get("unlimited_dims", ())) | {axis}
    dataset.encoding = dict(first.dataset.encoding) | {"unlimited_dims": unlimited}
    return Part(f"{first.path} and {len(ordered) - 1} more", dataset)


def _axis(parts: Sequence[Part]) -> str:
    """Return the axis along which the files follow each other: its coordinate differs, that of all others does not."""
    first = parts[0].dataset
    differing = [
        str(dim)
        for dim in first.sizes
        if dim in first.variables and any(not same_labels(first, part.dataset, str(dim)) for part in parts[1:])
    ]
    if not differing and (found := _differing_scalars(parts)):
        return found[0]
    if len(differing) == 1:
        return differing[0]
    times = [dim for dim in differing if " since " in str(first.variables[dim].attrs.get("units", ""))]
    what = f"differ along {', '.join(differing)}" if differing else "have the same coordinates"
    if differing and len(times) == 1:
        what += f"; all but {times[0]} must agree"
    raise ArgumentError(f"{parts[0].path} and {parts[1].path} {what}: not one dataset along time; compress them apart")


def _differing_scalars(parts: Sequence[Part]) -> list[str]:
    """Return single values that differ from file to file and can be labels of an axis, the likeliest first."""
    first = parts[0].dataset
    found = [
        str(name)
        for name, variable in first.variables.items()
        if not variable.ndim
        and (" since " in str(variable.attrs.get("units", "")) or name in _AXES)
        and any(not same_labels(first, part.dataset, str(name)) for part in parts[1:])
    ]
    return sorted(found, key=lambda name: _AXES.index(name) if name in _AXES else len(_AXES))


def _with_axis(parts: Sequence[Part], axis: str) -> list[Part]:
    """Return files that have an axis where they had a single value; all lies along it but coordinates they share."""
    first = parts[0].dataset
    if axis in first.sizes:
        return list(parts)
    shared = {
        name
        for name in ({*references(first)} | {str(n) for n, v in first.variables.items() if v.dims in ((n,), ())})
        - {axis}
        if name in first.variables and all(same_labels(first, part.dataset, name) for part in parts[1:])
    }
    wider = []
    for part in parts:
        dataset = xr.Dataset(attrs=part.dataset.attrs)
        dataset.encoding = dict(part.dataset.encoding)
        for name, variable in part.dataset.variables.items():
            dataset[name] = variable if name in shared or name in variable.dims else variable.expand_dims(axis)
        wider.append(Part(part.path, dataset))
    return wider


def _ordered(parts: Sequence[Part], axis: str, warnings: list[str]) -> list[Part]:
    """Return the files in the order of their first labels, in the unit of the first file; gaps and overlaps found."""
    first = parts[0].dataset.variables[axis]
    same_unit = [
        Part(part.path, part.dataset.assign({axis: in_unit(part.path, part.dataset.variables[axis], axis, first)}))
        for part in parts
    ]
    labels = [part.dataset.variables[axis].values for part in same_unit]
    if first.dtype.kind not in "iuf":
        return list(same_unit)
    falling = all(len(values) > 1 and values[0] > values[-1] for values in labels)
    order = sorted(range(len(parts)), key=lambda i: labels[i][0], reverse=falling)
    ordered, labels = [same_unit[i] for i in order], [labels[i] for i in order]
    for before, after, a, b in zip(ordered, ordered[1:], labels, labels[1:], strict=False):
        if (b[0] >= a[-1]) if falling else (b[0] <= a[-1]):
            raise ArgumentError(
                f"{before.path} and {after.path} overlap along {axis}: {label(before.dataset, axis, -1)} comes before "
                f"{label(after.dataset, axis, 0)}; leave one out or cut it with --sel"
            )
    _find_gaps(ordered, np.concatenate(labels), axis, warnings)
    return ordered


def _find_gaps(ordered: Sequence[Part], labels: Any, axis: str, warnings: list[str]) -> None:
    """Report where the step between files is more than any step inside them."""
    steps = np.abs(np.diff(labels.astype(np.float64)))
    ends = np.cumsum([part.dataset.sizes[axis] for part in ordered])[:-1] - 1
    inside = np.delete(steps, ends)
    usual = inside.max() if inside.size else np.median(steps)
    if usual > 27 and is_monthly(steps):
        return
    for number, end in enumerate(ends):
        if steps[end] > usual * (1 + 1e-6):
            before, after = ordered[number], ordered[number + 1]
            warnings.append(
                f"gap along {axis} between {label(before.dataset, axis, -1)} ({before.path}) "
                f"and {label(after.dataset, axis, 0)} ({after.path})"
            )


def _packed_alike(name: str, variables: Sequence[xr.Variable]) -> Sequence[xr.Variable]:
    """Return the variables as they are if all are packed in the same way, else each unpacked by its own."""
    keys = (*SCALING, *FILLS, "_Unsigned")
    first = variables[0].attrs
    if all(equal_attribute(v.attrs.get(key), first.get(key)) for v in variables for key in keys):
        return variables
    import dask.array  # for several files only: it takes a while

    packings = [find_packing(name, variable) for variable in variables]
    dtype = np.result_type(*(packing.dtype for packing in packings))
    unpacked = []
    for variable, packing in zip(variables, packings, strict=True):
        data = dask.array.asarray(variable.data).map_blocks(packing.unpack, dtype=packing.dtype).astype(dtype)
        attrs = unpacked_attrs(variable, packing)
        unpacked.append(xr.Variable(variable.dims, data, attrs, {"stored_itemsize": variable.dtype.itemsize}))
    return unpacked


def _concatenated(variables: Sequence[xr.Variable], axis: str) -> xr.Variable:
    """Return variables one after the other; the values of axes stay in memory, others are read when asked for."""
    import dask.array

    first = variables[0]
    place = first.dims.index(axis)
    if first.dims == (axis,) and isinstance(first._data, np.ndarray):
        data: Any = np.concatenate([variable.values for variable in variables], axis=place)
    else:
        data = dask.array.concatenate([dask.array.asarray(variable.data) for variable in variables], axis=place)
    encoding = {key: value for key, value in first.encoding.items() if key not in ("original_shape", "source")}
    return xr.Variable(first.dims, data, first.attrs, encoding)


def _beside(one: Part, other: Part) -> Part:
    """Return two datasets of different variables as one; what they share must be the same."""
    merged = one.dataset.copy()
    for name, variable in other.dataset.variables.items():
        known = merged.variables.get(name)
        if known is None:
            for dim, size in variable.sizes.items():
                if merged.sizes.get(dim, size) != size:
                    raise ArgumentError(
                        f"{one.path} and {other.path}: {dim} has size {merged.sizes[dim]} and {size}; "
                        "they do not make one dataset, compress them apart"
                    )
            merged[name] = variable
        elif known.dims != variable.dims or known.shape != variable.shape or not equal_values(known, variable):
            raise ArgumentError(f"{one.path} and {other.path}: {name} has other values in each; compress them apart")
    return Part(f"{one.path} and {other.path}", merged)
