"""Whether files can be parts of one dataset: labels of their axis, shapes, types, units, attributes, other values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError

TIME_ATTRS = ("units", "calendar")


def same_labels(a: xr.Dataset, b: xr.Dataset, name: str) -> bool:
    """Whether both have a coordinate, of the same values in the same unit."""
    if name not in b.variables:
        return False
    x, y = a.variables[name], b.variables[name]
    return x.shape == y.shape and time_unit(x) == time_unit(y) and bool(np.array_equal(x.values, y.values))


def time_unit(variable: xr.Variable) -> tuple[str, ...]:
    """Return unit and calendar of times, nothing of what is no time."""
    return (
        tuple(str(variable.attrs.get(key, "")) for key in TIME_ATTRS)
        if " since " in str(variable.attrs.get("units"))
        else ()
    )


def is_monthly(steps: Any) -> bool:
    """Whether steps are months, of 28 to 31 days each, in any unit."""
    return bool(steps.max() / steps.min() <= 31 / 28 + 1e-6)


def label(dataset: xr.Dataset, axis: str, place: int) -> str:
    """Return a label in words, times as dates."""
    one = dataset.variables[axis][place : (place + 1) or None]
    decoded = xr.conventions.decode_cf_variable(axis, one, decode_timedelta=False).values[0]
    return str(decoded).removesuffix(".000000000")


def in_unit(path: str, variable: xr.Variable, axis: str, first: xr.Variable) -> xr.Variable:
    """Return times in the unit of others, which came first; what is no time as it is.

    Raises
    ------
    ArgumentError
        Another calendar, or times that have no exact number of that unit and type.
    """
    if time_unit(variable) == time_unit(first) or not time_unit(first):
        return variable
    if str(variable.attrs.get("calendar", "standard")) != str(first.attrs.get("calendar", "standard")):
        raise ArgumentError(
            f"{path}: its {axis} has another calendar ({variable.attrs.get('calendar')}) than the first file"
        )
    decoded = xr.conventions.decode_cf_variable(axis, variable)
    wanted = {key: first.attrs[key] for key in TIME_ATTRS if key in first.attrs}
    encoded = xr.conventions.encode_cf_variable(
        xr.Variable((axis,), decoded.values, {}, wanted | {"dtype": np.dtype("f8")})
    )
    exact = encoded.values.astype(first.dtype)
    again = xr.conventions.decode_cf_variable(axis, xr.Variable((axis,), exact, wanted))
    if not np.array_equal(again.values, decoded.values):
        raise ArgumentError(
            f"{path}: its times ({variable.attrs['units']}) are no {first.dtype} of {first.attrs['units']}, "
            "the unit of the first file; give another file first, or compress the files apart"
        )
    return xr.Variable((axis,), exact, variable.attrs | wanted, variable.encoding)


# Attributes that differ from file to file for good reasons.
_PER_FILE = {
    *(
        "history",
        "creation_date",
        "tracking_id",
        "date_created",
        "date_modified",
        "id",
        "uuid",
        "actual_range",
        "NCO",
        "CDO",
    ),
    *("time_coverage_start", "time_coverage_end", "nco_openmp_thread_number", "history_of_appended_files", "filename"),
    *("ProductionTime", "GranuleID", "RangeBeginningDate", "RangeEndingDate", "RangeBeginningTime", "RangeEndingTime"),
}


@dataclass(frozen=True)
class Part:
    """A dataset and the file, or files, that messages name."""

    path: str
    dataset: xr.Dataset


def check_alike(first: Part, part: Part, axis: str, warnings: list[str]) -> None:
    """Refuse other shapes, types and units; report other attributes."""
    for key, a in first.dataset.variables.items():
        name = str(key)
        b = part.dataset.variables.get(key)
        if b is None:
            raise ArgumentError(f"{part.path}: has no {name}, which {first.path} has")
        if a.dims != b.dims or [n for d, n in a.sizes.items() if d != axis] != [
            n for d, n in b.sizes.items() if d != axis
        ]:
            raise ArgumentError(
                f"{part.path}: {name} has the shape {dict(b.sizes)}, in {first.path} it has {dict(a.sizes)}"
            )
        if a.dtype != b.dtype and not (a.dtype.kind == b.dtype.kind and a.dtype.kind in "OUST"):
            raise ArgumentError(f"{part.path}: {name} is {b.dtype}, in {first.path} it is {a.dtype}")
        if not time_unit(a) and str(a.attrs.get("units", "")) != str(b.attrs.get("units", "")):
            raise ArgumentError(
                f"{part.path}: {name} is in {b.attrs.get('units', 'no unit')!r}, "
                f"in {first.path} in {a.attrs.get('units', 'no unit')!r}"
            )
        if axis not in a.dims and not equal_values(a, b):
            raise ArgumentError(
                f"{part.path}: {name} has other values than in {first.path}, but does not lie along {axis}"
            )
        skipped = {*_PER_FILE, *(TIME_ATTRS if time_unit(a) else ())}
        for attribute in sorted({*a.attrs, *b.attrs} - skipped, key=str):
            if not equal_attribute(a.attrs.get(attribute), b.attrs.get(attribute)):
                _warn_attribute(
                    warnings, first, part, f"{name}:{attribute}", a.attrs.get(attribute), b.attrs.get(attribute)
                )
    for attribute in sorted({*first.dataset.attrs, *part.dataset.attrs} - _PER_FILE, key=str):
        a_value, b_value = first.dataset.attrs.get(attribute), part.dataset.attrs.get(attribute)
        if not equal_attribute(a_value, b_value):
            _warn_attribute(warnings, first, part, f"the attribute {attribute}", a_value, b_value)
    extra = sorted(str(name) for name in part.dataset.variables if name not in first.dataset.variables)
    if extra:
        raise ArgumentError(f"{part.path}: has {', '.join(extra)}, which {first.path} has not")


def _warn_attribute(warnings: list[str], first: Part, part: Part, what: str, a: Any, b: Any) -> None:
    if what.rpartition(":")[2] in ("scale_factor", "add_offset", "_FillValue", "missing_value"):
        return  # each file is unpacked by its own
    if not any(warning.startswith(f"{what} differs") for warning in warnings):
        warnings.append(f"{what} differs between files: {a!r} in {first.path}, {b!r} in {part.path}; the first is kept")


def equal_values(a: xr.Variable, b: xr.Variable) -> bool:
    """Whether values are the same, missing ones included."""
    return bool(a.equals(b)) if a.dtype.kind in "iufcMm" else bool(np.array_equal(a.values, b.values))


def equal_attribute(a: Any, b: Any) -> bool:
    """Whether attributes are the same, NaN included; None is one that is not there."""
    if a is None or b is None:
        return a is b
    if isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    return bool(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f"))
