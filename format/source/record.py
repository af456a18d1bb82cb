"""How a variable lies in its source, kept as JSON beside its values, so that `decompress` writes it so again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from isopress.format.source.packing import Packing, typed, untyped

_LAYOUT = (
    "chunksizes",
    "zlib",
    "complevel",
    "shuffle",
    "fletcher32",
    "contiguous",
    "endian",
    "compression",
    "compression_opts",
)
_FILTERS = ("szip", "bzip2", "blosc", "zstd")  # of HDF5, beside zlib

Attrs = dict[str, Any]


def write_record(stored: xr.Variable, packing: Packing | None, *, again: bool, ranges: bool) -> str:
    """Return what the source has that the store does not show, as JSON; "" if there is nothing.

    Parameters
    ----------
    stored : Variable
        As the source has it.
    packing : Packing or None
        How its numbers are packed there; None if they are in the store as they are in the source.
    again : bool
        Whether they are to be packed again.
    ranges : bool
        Whether all attributes come back as they were, or only those that are the same in the store.
    """
    record: dict[str, Any] = {}
    if enum := (np.dtype(stored.encoding.get("dtype", stored.dtype)).metadata or {}).get("enum"):
        record["enum"] = [stored.encoding["dtype"].metadata["enum_name"], {key: int(n) for key, n in enum.items()}]
    kept = {str(key): value for key, value in stored.attrs.items() if _loses_its_type(value)}
    if np.asarray(kept.get("_FillValue", "")).dtype == stored.dtype:
        del kept["_FillValue"]  # Zarr keeps its type
    if attrs := {key: typed(value) for key, value in kept.items()}:
        record["attrs"] = attrs
    if packing is not None and packing.attrs:
        record["fills"] = [typed(fill) for fill in packing.fills]
    if packing is not None and packing.attrs and again:
        record["packing"] = packing.record() | {"whole": ranges}
    layout = {key: stored.encoding[key] for key in _LAYOUT if stored.encoding.get(key) is not None}
    layout |= _compression(stored.encoding)
    if layout and "chunksizes" in stored.encoding:  # of HDF5; GRIB and Zarr have their own
        record["layout"] = {key: _plain(value) for key, value in layout.items()}
    return json.dumps(record) if record else ""


def write_attrs(attrs: Mapping[Any, Any]) -> str:
    """Return the attributes of a group that JSON would give another type, as JSON; "" if there are none."""
    kept = {str(key): typed(value) for key, value in attrs.items() if _loses_its_type(value)}
    return json.dumps({"attrs": kept}) if kept else ""


def read_packing(record: Mapping[str, Any], dtype: np.dtype[Any]) -> Packing | None:
    """Return how numbers in `dtype` are packed again, or None if they stay as they are."""
    return Packing.from_record(record["packing"], dtype) if "packing" in record else None


def read_attrs(record: Mapping[str, Any], attrs: Attrs) -> Attrs:
    """Return the attributes of the source: those of the store, with their types, and those of the packing."""
    typed_attrs = {key: untyped(value) for key, value in record.get("attrs", {}).items()}
    packing = record.get("packing")
    if packing and packing["whole"]:
        return (
            attrs
            | {key: typed_attrs.get(key, value) for key, value in attrs.items()}
            | _of_packing(packing, typed_attrs)
        )
    same = {key: value for key, value in typed_attrs.items() if key in attrs and _same(value, attrs[key])}
    return attrs | same | (_of_packing(packing, {}) if packing else {})


def _compression(encoding: Mapping[Any, Any]) -> dict[str, Any]:
    """Return how values are compressed, unless by zlib, as it is to be asked for."""
    found: dict[str, Any] = {}
    for name in _FILTERS:
        options = encoding.get(name)
        if isinstance(options, Mapping):
            found = {f"{name}_{key}": value for key, value in options.items()}
        if options:
            found["compression"] = found.pop("blosc_compressor", name)
            found |= {"complevel": 4} if name == "szip" else {}  # it has no level, but 0 would switch it off
    return found


def read_layout(record: Mapping[str, Any], most: Sequence[int], library: str) -> dict[str, Any]:
    """Return the encoding that lays a NetCDF variable out as the source did; a chunk is nowhere larger than `most`."""
    layout = dict(record.get("layout", {}))
    if not most:
        return {}
    chunks = layout.pop("chunksizes", None)
    if layout.pop("contiguous", False) or not chunks or len(chunks) != len(most):
        return {"contiguous": True} if "layout" in record and 0 not in most else {}
    layout["chunksizes"] = tuple(min(int(size), max(length, 1)) for size, length in zip(chunks, most, strict=True))
    if library == "h5netcdf":
        known = ("chunksizes", "zlib", "complevel", "shuffle", "fletcher32")
        return {key: layout[key] for key in known if key in layout}
    return layout


def _of_packing(packing: Mapping[str, Any], whole: Attrs) -> Attrs:
    """Return the attributes of a packing; of `whole`, those that are in its stored numbers too."""
    attrs = {key: untyped(value) for key, value in packing["attrs"].items()}
    return attrs | {key: value for key, value in whole.items() if key.startswith(("valid_", "actual_"))}


def _loses_its_type(value: Any) -> bool:
    """Whether JSON keeps the value of an attribute but not its type."""
    return isinstance(value, (np.generic, np.ndarray)) and np.asarray(value).dtype.kind in "iufb"


def _same(a: Any, b: Any) -> bool:
    x, y = np.asarray(a), np.asarray(b)
    return x.shape == y.shape and bool(np.all((x == y) | ((x != x) & (y != y))))


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
