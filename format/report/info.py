"""The figures of a store, from its metadata, file sizes and headers alone: no field is decoded."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from isopress.codec.errors import ArgumentError, IsopressError
from isopress.codec.models.registry import SUFFIX
from isopress.format.attributes import ERROR, MODELS_FOLDER, PREFIX, UNFINISHED
from isopress.format.error_spec import format_bound
from isopress.format.report.headers import Headers, list_objects, read_headers
from isopress.format.report.records import StoreReport, VariableReport
from isopress.format.zarr.groups import arrays, dimensions, isopress_codec, nbytes_on_disk, open_group, stored_limit

_WRITTEN = ("version", "source", "preset")  # attributes of the root that say how a store was made


def read_report(path: str | Path) -> StoreReport:
    """Return shape, chunks, bound or target, achieved errors, sizes and models of every array of a store.

    Where the store was written through xarray no attribute has the achieved errors: they are read from the headers of
    the chunks, a few hundred bytes each.

    Raises
    ------
    ArgumentError
        There is no Zarr group at `path`.
    """
    with ExitStack() as stack:
        group = open_group(path, stack)
        variables = tuple(_variable(name, array) for name, array in arrays(group).items())
        remote = "://" in str(path)
        stored = sum(variable.stored_nbytes for variable in variables) if remote else nbytes_on_disk(path)
        models = 0 if remote else _models_nbytes(Path(path))
        attrs: dict[str, Any] = dict(group.attrs)
        written = {key: str(attrs[PREFIX + key]) for key in _WRITTEN if PREFIX + key in attrs}
        return StoreReport(
            str(path),
            group.metadata.zarr_format,
            variables,
            stored,
            models_nbytes=models,
            written=written,
            unfinished=attrs.get(UNFINISHED),
        )


def _models_nbytes(store: Path) -> int:
    """Return the size of the weights in a store that is a directory; 0 of any other."""
    return sum(path.lstat().st_size for path in (store / MODELS_FOLDER).glob(f"*{SUFFIX}"))


def _original_nbytes(name: str, attrs: dict[str, Any], array: zarr.Array[Any]) -> int:
    found = attrs.get(PREFIX + "original_nbytes", array.nbytes)
    if not isinstance(found, int | float):
        raise ArgumentError(f"{name}: its attribute {PREFIX}original_nbytes is no number")
    return int(found)


def _variable(name: str, array: zarr.Array[Any]) -> VariableReport:
    attrs: dict[str, Any] = dict(array.attrs)
    bound = stored_limit(array)
    objects = list_objects(array)
    headers = None
    if isopress_codec(array) and PREFIX + "max_error" not in attrs:
        headers = read_headers(array, objects)
    return VariableReport(
        name=name,
        dims=dimensions(array),
        shape=array.shape,
        chunks=array.chunks,
        dtype=str(array.dtype),
        units=str(attrs.get("units", "")),
        original_nbytes=_original_nbytes(name, attrs, array),
        stored_nbytes=array.nbytes_stored(),
        error=attrs.get(ERROR, format_bound(bound)) if bound else None,
        bound=bound,
        missed_chunks=attrs.get(PREFIX + "missed_chunks"),
        fallback=bool(attrs.get(PREFIX + "fallback")),
        shards=array.shards,
        long_name=str(attrs.get("long_name", attrs.get("standard_name", ""))),
        ends=_ends(name, array, attrs),
        objects=len(objects.present) if objects.listed else None,
        objects_expected=objects.expected,
        **_achieved(attrs, headers),
    )


def _achieved(attrs: dict[str, Any], headers: Headers | None) -> dict[str, Any]:
    """Return achieved errors and models, from the attributes that `write` makes or from the headers."""
    if headers is None:
        keys = ("max_error", "rmse")
        return {key: attrs.get(PREFIX + key) for key in keys} | {"models": tuple(attrs.get(PREFIX + "models", ()))}
    return {
        "max_error": headers.max_error,
        "rmse": headers.rmse,
        "models": headers.models,
        "headers_read": headers.read,
        "headers_damaged": headers.damaged,
    }


def _ends(name: str, array: zarr.Array[Any], attrs: dict[str, Any]) -> tuple[str, str] | None:
    """Return the first and the last value of a coordinate, times as dates; None of others, and of damaged ones."""
    if dimensions(array) != (name.rpartition("/")[2],) or not array.size:
        return None
    try:
        values = np.asarray([array[0], array[-1]])
    except (IsopressError, ValueError, RuntimeError, OSError):  # what damaged bytes raise
        return None
    if " since " in str(attrs.get("units", "")):
        values = _dates(values, attrs)
    first, last = (f"{value:.10g}" if isinstance(value, (float, np.floating)) else str(value) for value in values)
    return first, last


def _dates(values: np.ndarray[Any, Any], attrs: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return times as text, `2020-01-31T18:00`; the numbers themselves where xarray makes no dates of them."""
    import xarray as xr  # not for stores without times

    known = {key: attrs[key] for key in ("units", "calendar") if key in attrs}
    try:
        decoded = xr.decode_cf(xr.Dataset({"t": ("n", values, known)}))["t"].values
        if decoded.dtype.kind == "M":
            return np.datetime_as_string(decoded.astype("datetime64[s]"), unit="auto")
        return np.array([value.isoformat() for value in decoded])
    except (ValueError, OverflowError, ImportError, AttributeError):  # odd units, or cftime is not installed
        return np.array([f"{value} {attrs['units']}" for value in values])
