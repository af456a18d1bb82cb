"""Groups -> NetCDF: dimensions, variables and attributes in the order they are given, values as they are computed.

`Dataset.to_netcdf` writes coordinates behind all other variables, and no dimension that has none.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends.common import ArrayWriter

from isopress.codec.errors import ArgumentError
from isopress.format.store.pool import threads_of_dask

_LOG = logging.getLogger(__name__)
_STORES: dict[str, Any] = {"netCDF4": xr.backends.NetCDF4DataStore, "h5netcdf": xr.backends.H5NetCDFStore}
_CLASSIC = {
    "NETCDF3_CLASSIC": "NETCDF3_CLASSIC",
    "NETCDF3_64BIT_OFFSET": "NETCDF3_64BIT",
    "NETCDF4_CLASSIC": "NETCDF4_CLASSIC",
}


@dataclass(frozen=True)
class Group:
    """What is written of a group: its dimensions, also those that no variable has, and which of them are unlimited."""

    variables: Mapping[str, xr.Variable]
    attrs: Mapping[Any, Any]
    dimensions: Mapping[str, int]
    unlimited: Sequence[str]


def netcdf_library() -> str:
    """Return the library that writes NetCDF.

    Raises
    ------
    ArgumentError
        Nothing installed does.
    """
    for library in _STORES:
        if find_spec(library):
            return library
    raise ArgumentError("nothing installed writes NetCDF; pip install 'isopress[netcdf]'")


def write_netcdf(out: Path, path: str, group: Group, library: str, kind: str) -> None:
    """Write one group to `out`, in which the groups before it are.

    Parameters
    ----------
    out : Path
    path : str
        Of the group; "" is the root, which is written first.
    group : Group
    library : str
        As `netcdf_library` says.
    kind : str
        Data model of the source; used if it is an older one that has all types that are needed.

    Raises
    ------
    ArgumentError
        A variable has complex numbers.
    """
    variables = {name: _writable(name, variable) for name, variable in group.variables.items()}
    model = _CLASSIC.get(kind) if library == "netCDF4" and _fits_classic(variables.values()) else None
    store = _STORES[library].open(
        str(out), mode="a" if path else "w", group=path or None, **({"format": model} if model else {})
    )
    with ExitStack() as stack:
        stack.callback(store.close)
        there = store.get_dimensions()
        for name, size in group.dimensions.items():
            used = any(name in variable.dims for variable in variables.values())
            if name not in there and not (used and name in group.unlimited):  # those grow as they are written
                store.set_dimension(name, size, is_unlimited=name in group.unlimited)
        _check_filters(variables, store.ds if library == "netCDF4" else None)
        unlimited = [name for name in group.unlimited if any(name in v.dims for v in variables.values())]
        writer = ArrayWriter()
        # Left before the file is closed: what threads still write when another fails would open it anew.
        stack.enter_context(threads_of_dask())
        store.store(variables, {key: _attribute(v) for key, v in group.attrs.items()}, frozenset(), writer, unlimited)
        writer.sync()


def _writable(name: str, variable: xr.Variable) -> xr.Variable:
    """Return a variable with types that NetCDF has; single characters as text of one axis less."""
    attrs = {key: _attribute(value) for key, value in variable.attrs.items()}
    data, encoding = variable.data, dict(variable.encoding)
    if variable.dtype.kind == "c":
        raise ArgumentError(f"{name}: complex numbers have no place in NetCDF; write a .zarr")
    if variable.dtype == np.float16:
        data = data.astype(np.float32)  # holds every value of it
    plain = xr.Variable(variable.dims, data, attrs, encoding)
    if variable.dtype != "S1" or not variable.ndim:
        return plain
    # xarray gives each text of NetCDF an axis for its characters: here there is one already.
    code = plain.attrs.pop("_Encoding", None)
    joined: xr.Variable = xr.conventions.decode_cf_variable(name, plain, decode_times=False, mask_and_scale=False)
    joined.attrs |= {} if code is None else {"_Encoding": code}
    joined.encoding |= {"_FillValue": None} if "_FillValue" not in joined.attrs else {}
    return joined


def _attribute(value: Any) -> Any:
    """Return the value of an attribute of Zarr as NetCDF can hold it: true and false as numbers, JSON as text."""
    if isinstance(value, (bool, np.bool_)):
        return np.int8(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (bool, np.bool_)) for item in value):
        return np.asarray(value, np.int8)
    if value is None or isinstance(value, Mapping) or (isinstance(value, list) and np.asarray(value).dtype.kind == "O"):
        return json.dumps(value)
    return value


def _fits_classic(variables: Any) -> bool:
    """Whether there is no type that the older formats lack."""
    return all(v.dtype.kind == "S" or v.dtype.str[1:] in ("i1", "i2", "i4", "f4", "f8") for v in variables)


def _check_filters(variables: Mapping[str, xr.Variable], dataset: Any) -> None:
    """Compress by zlib what is to be compressed in a way that the library was not built with."""
    for name, variable in variables.items():
        wanted = str(variable.encoding.get("compression", "zlib")).partition("_")[0]
        if wanted != "zlib" and not (dataset is not None and getattr(dataset, f"has_{wanted}_filter", bool)()):
            _LOG.warning("%s: %s is not there to compress it as in the source; zlib does", name, wanted)
            for key in ("compression", "szip_coding", "szip_pixels_per_block", "blosc_shuffle"):
                variable.encoding.pop(key, None)
            variable.encoding |= {"zlib": True, "complevel": 4, "shuffle": True}
