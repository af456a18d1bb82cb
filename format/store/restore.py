"""A compressed store -> an ordinary dataset: NetCDF, or Zarr without isopress."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.source.dataset import PREFIX
from isopress.format.store.plan import ERROR, SOURCE_ENCODING, UNLIMITED
from isopress.format.store.staging import staged
from isopress.format.zarr.groups import arrays, open_group, quiet_zarr, stored_limit

_WRITERS = {"netCDF4": "netcdf4", "h5netcdf": "h5netcdf"}


def restore(store: str | Path, destination: str | Path, *, overwrite: bool = False) -> None:
    """Write the values of a store to NetCDF (`.nc`) or to Zarr without isopress (`.zarr`), chunk by chunk.

    What isopress added to the attributes is gone again. Variables that are exact are packed as in the
    source; lossy ones stay floats, since packing would add an error of its own.

    Parameters
    ----------
    store : str or Path
        A store written by `write`, or any Zarr store.
    destination : str or Path
        Ends in `.nc` or `.zarr`.
    overwrite : bool
        Replace an existing output.

    Raises
    ------
    ArgumentError
        No such store, another suffix, an output that may not be written, or no writer of NetCDF.
    PayloadError
        A chunk is damaged.
    """
    target = Path(destination)
    if target.suffix not in (".nc", ".zarr"):
        raise ArgumentError(f"{destination}: the output ends in .nc or .zarr")
    engine = _netcdf_engine() if target.suffix == ".nc" else None
    if target.resolve() == Path(store).resolve():
        raise ArgumentError(f"{destination}: store and output are the same")
    with ExitStack() as stack:
        group = open_group(store, stack)
        bounds = {name: stored_limit(array) for name, array in arrays(group).items()}
        lossy = {name for name, bound in bounds.items() if bound and bound.mode != "lossless"}
        stack.enter_context(quiet_zarr())
        opened = stack.enter_context(
            xr.open_zarr(group.store, group=group.path or None, chunks={}, decode_cf=False, consolidated=False)
        )
        if engine:  # NetCDF would give each single character an axis of its own
            opened = xr.decode_cf(opened, mask_and_scale=False, decode_times=False, decode_coords=False)
        plain = _plain(opened, lossy, zarr_chunks=engine is None)
        with staged(target, store=engine is None, overwrite=overwrite) as partial:
            if engine:
                unlimited = opened.attrs.get(UNLIMITED, [])
                plain.to_netcdf(partial, engine=engine, unlimited_dims=unlimited)
            else:
                plain.to_zarr(partial, mode="w-", zarr_format=group.metadata.zarr_format, consolidated=True)


def _netcdf_engine() -> Any:
    for module, engine in _WRITERS.items():
        if find_spec(module):
            return engine
    raise ArgumentError("nothing installed writes NetCDF; pip install 'isopress[netcdf]'")


def _plain(opened: xr.Dataset, lossy: set[str], zarr_chunks: bool) -> xr.Dataset:
    """Return the dataset as its source was: without our attributes, with its fill values and packing."""
    dataset = xr.Dataset(attrs=_without_ours(opened.attrs))
    for key, variable in opened.variables.items():
        name = str(key)
        packing = _packing(variable.attrs, name in lossy)
        attrs = _without_ours(variable.attrs)
        if SOURCE_ENCODING in variable.attrs or ERROR in variable.attrs:
            attrs.pop("_FillValue", None)  # the NaN of the store, not the source's
        encoding = {key: value for key, value in variable.encoding.items() if key == "char_dim_name"}
        if "_FillValue" not in attrs:
            encoding["_FillValue"] = None
        if zarr_chunks and variable.chunks:
            encoding["chunks"] = variable.encoding["chunks"]
        data: Any = variable.data
        if variable.dtype.kind in "TU":  # StringDType is not known to NetCDF, fixed length not to Zarr v3
            data = np.asarray(variable.values, object)
        dataset[name] = xr.Variable(variable.dims, data, attrs, encoding | packing)
    return dataset


def _without_ours(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in attrs.items() if not str(key).startswith(PREFIX)}


def _packing(attrs: Mapping[Any, Any], lossy: bool) -> dict[str, Any]:
    """Return the encoding that writes a variable as the source did; of a lossy one only its fill values."""
    record: dict[str, Any] = json.loads(attrs.get(SOURCE_ENCODING, "{}"))
    dtype = record.pop("dtype", None)
    values = {key: np.dtype(kind).type(value) for key, (value, kind) in record.items()}
    if lossy and dtype:
        return {}
    return values | {"dtype": np.dtype(dtype)} if dtype else values
