"""Labels of the axis along which files follow each other: the same, in one unit, a month apart."""

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
