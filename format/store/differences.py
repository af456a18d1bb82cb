"""What else than values is not as in the source: dimensions, types, attributes, fill values."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr

from isopress.format.attributes import PREFIX, SOURCE_ENCODING, UNFINISHED
from isopress.format.source.dataset import Source
from isopress.format.source.packing import FILLS, RANGES, SCALING
from isopress.format.store.plan import storable_attrs
from isopress.format.zarr.groups import dimensions, stored_limit

_NOT_DATA = ("_ARRAY_DIMENSIONS", "_FillValue")
_FOREIGN = (*SCALING, *FILLS, *RANGES, "_Unsigned", "coordinates", "dtype", "calendar")  # what xarray rewrites


def differences(source: Source, name: str, array: zarr.Array[Any], ours: bool) -> Iterator[str]:
    """Yield what differs between a variable of the source and an array of the store.

    Parameters
    ----------
    source : Source
    name : str
    array : Array
        Of the same shape.
    ours : bool
        Whether `write` made the store. Of one that xarray wrote, attributes that xarray rewrites are not compared.
    """
    lossy = stored_limit(array) is not None or is_unpacked(source, name, array)
    variable = source.variable(name, lossy=lossy)
    dims = tuple(map(str, variable.dims))
    if dims != dimensions(array):
        yield f"has dimensions {dimensions(array)}, the source {dims}"
    if not _same_type(variable.dtype, array.dtype):
        yield f"has type {array.dtype}, the source {variable.dtype}"
    expected, found = storable_attrs(variable), dict(array.attrs)
    limit = stored_limit(array)
    changed = limit is not None and limit.mode != "lossless"
    for key in sorted({*expected, *found}, key=str):
        if str(key).startswith(PREFIX) or key in _NOT_DATA or (not ours and key in _FOREIGN):
            continue
        if not _equal(expected.get(key), found.get(key)) and not (changed and key in RANGES and key in found):
            yield f"attribute {key} is {_shown(found.get(key))}, in the source {_shown(expected.get(key))}"
    if ours:
        yield from _fill_differences(source, name, array, lossy)


def group_differences(source: Source, root: zarr.Group) -> Iterator[str]:
    """Yield whether the store is not complete, which attributes of groups differ, and which groups are missing."""
    if unfinished := root.attrs.get(UNFINISHED):
        yield f"the store is {unfinished}"
    for path, dataset in source.groups.items():
        group: Any = root if not path else root.get(path)
        if not isinstance(group, zarr.Group):
            yield f"group {path} is not in the store"
            continue
        found = dict(group.attrs)
        for key in sorted({*dataset.attrs, *found}, key=str):
            if not str(key).startswith(PREFIX) and not _equal(dataset.attrs.get(key), found.get(key)):
                where = f"of group {path} " if path else ""
                wanted = _shown(dataset.attrs.get(key))
                yield f"attribute {key} {where}is {_shown(found.get(key))}, in the source {wanted}"


def is_unpacked(source: Source, name: str, array: zarr.Array[Any]) -> bool:
    """Whether the store has physical numbers where the source has packed ones, though no codec of ours is in use."""
    attrs = source.stored(name).attrs
    return any(key in attrs for key in SCALING) and not any(key in array.attrs for key in SCALING)


def _fill_differences(source: Source, name: str, array: zarr.Array[Any], lossy: bool) -> Iterator[str]:
    """Yield whether the fill values are others than those that the store was made with."""
    record = json.loads(str(array.attrs.get(SOURCE_ENCODING, "{}")))
    if lossy:
        known = [fill for fill, _ in record.get("fills", [])]
        fills = [np.asarray(fill).item() for fill in source.packing(name).fills]
    else:
        known = _fill_attributes({**array.attrs, **_from_metadata(array)})
        fills = _fill_attributes(storable_attrs(source.stored(name)))
    if not _equal(known, fills):
        yield f"fill values are {_shown(known)}, in the source {_shown(fills)}"


def _fill_attributes(attrs: Mapping[str, Any]) -> list[Any]:
    return [np.asarray(attrs[key]).tolist() for key in FILLS if key in attrs]


def _from_metadata(array: zarr.Array[Any]) -> dict[str, Any]:
    """Return the fill value that xarray keeps in the metadata of arrays of Zarr v2, or encodes in those of v3."""
    if array.metadata.zarr_format == 2:
        return {} if array.fill_value is None else {"_FillValue": array.fill_value}
    if "_FillValue" not in array.attrs:
        return {}
    from xarray.backends.zarr import FillValueCoder

    return {"_FillValue": FillValueCoder.decode(array.attrs["_FillValue"], str(np.dtype(array.dtype)))}  # type: ignore[arg-type]


def _same_type(a: np.dtype[Any], b: np.dtype[Any]) -> bool:
    texts = "OUST"
    return (a.kind in texts and b.kind in texts) or a == b or a.newbyteorder("=") == b.newbyteorder("=")


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, (str, bytes)) or isinstance(b, (str, bytes)):
        return str(a) == str(b)
    if isinstance(a, Mapping) or isinstance(b, Mapping):
        return bool(a == b)
    x, y = np.asarray(a), np.asarray(b)
    if x.dtype.kind not in "iufb" or y.dtype.kind not in "iufb":
        return bool(x.tolist() == y.tolist())
    return x.reshape(-1).shape == y.reshape(-1).shape and bool(
        np.array_equal(x.reshape(-1).astype("f8"), y.reshape(-1).astype("f8"), equal_nan=True)
    )


def _shown(value: Any) -> str:
    return (
        "missing"
        if value is None
        else repr(value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value)[:80]
    )
