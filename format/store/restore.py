"""A compressed store -> an ordinary dataset: NetCDF, or Zarr without isopress."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr
import zarr
from dask.callbacks import Callback

from isopress.codec.errors import ArgumentError, IsopressError
from isopress.format.attributes import DIMENSIONS, ERROR, KIND, ORDER, PREFIX, SOURCE_ENCODING, UNFINISHED, UNLIMITED
from isopress.format.source.packing import RANGES
from isopress.format.source.record import read_attrs, read_layout, read_packing
from isopress.format.store.netcdf import Group, netcdf_library, write_netcdf
from isopress.format.store.pool import threads_of_dask
from isopress.format.store.progress import Observer, Progress
from isopress.format.store.staging import staged
from isopress.format.zarr.groups import DAMAGE, arrays, open_group, quiet_zarr, subgroups


def restore(
    store: str | Path,
    destination: str | Path,
    *,
    overwrite: bool = False,
    observer: Observer = lambda progress: None,
) -> None:
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
    observer : callable
        Called before and after each piece of work.

    Raises
    ------
    ArgumentError
        No such store, or it is not complete; another suffix, an output that may not be written, no writer of NetCDF.
    PayloadError
        A chunk is damaged.
    """
    target = Path(destination)
    if target.suffix not in (".nc", ".zarr"):
        raise ArgumentError(f"{destination}: the output ends in .nc or .zarr")
    library = netcdf_library() if target.suffix == ".nc" else None
    if target.resolve() == Path(store).resolve():
        raise ArgumentError(f"{destination}: store and output are the same")
    observer(Progress("open", str(store)))
    with ExitStack() as stack:
        group = open_group(store, stack)
        if unfinished := group.attrs.get(UNFINISHED):
            raise ArgumentError(f"{store} is {unfinished}")
        stack.enter_context(quiet_zarr())
        stack.enter_context(_Steps(observer, group))
        out = stack.enter_context(staged(target, store=library is None, overwrite=overwrite))
        for path in subgroups(group):
            try:
                opened = _opened(group, path)
                stack.callback(opened.close)
                _write_group(out, path, opened, library, group)
            except IsopressError:
                raise
            except DAMAGE as error:
                raise ArgumentError(f"{store}: damaged ({type(error).__name__}: {str(error)[:200]})") from error
            except (OSError, RuntimeError) as error:  # the second is what netCDF4 raises
                reason = " ".join(str(error).split())
                raise ArgumentError(f"{destination}: cannot be written ({reason}); is the disk full?") from error
        if library is None:
            zarr.consolidate_metadata(str(out), zarr_format=group.metadata.zarr_format)


def _opened(group: zarr.Group, path: str) -> xr.Dataset:
    """Open a group of a store, nothing decoded."""
    there = "/".join(filter(None, (group.path, path))) or None
    found: xr.Dataset = xr.open_zarr(group.store, group=there, chunks={}, decode_cf=False, consolidated=False)
    return found


class _Steps(Callback):
    """Tells an observer of every task of dask; the chunks of a store are the most of them."""

    def __init__(self, observer: Observer, group: zarr.Group) -> None:
        super().__init__(start_state=self._begin, posttask=self._step)  # type: ignore[no-untyped-call]
        self._observer = observer
        self._total = sum(array.nbytes for array in arrays(group).values())
        self._done = self._tasks = 0.0

    def _begin(self, graph: Any, state: Any) -> None:
        self._tasks += len(state["waiting"]) + len(state["ready"])

    def _step(self, key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:
        self._done += 1
        share = min(1.0, self._done / max(self._tasks, 1.0))
        self._observer(Progress("decompress", str(key), int(share * self._total), self._total))


def _write_group(out: Path, path: str, opened: xr.Dataset, library: str | None, root: zarr.Group) -> None:
    """Write one group of a store to `out`, in which the groups before it are: in order, without our attributes."""
    first = [name for name in opened.attrs.get(ORDER, []) if name in opened.variables]
    names = (*first, *(str(key) for key in opened.variables if key not in first))
    unlimited = opened.attrs.get(UNLIMITED, [])
    variables = {name: _restored(opened.variables[name], library, unlimited) for name in names}
    attrs = read_attrs(json.loads(opened.attrs.get(SOURCE_ENCODING, "{}")), _without_ours(opened.attrs))
    if library is not None:
        known = {name: opened.sizes.get(name, size) for name, size in opened.attrs.get(DIMENSIONS, {}).items()}
        group = Group(variables, attrs, known, unlimited)
        write_netcdf(out, path, group, library, str(root.attrs.get(KIND, "")))
        return
    with threads_of_dask():
        xr.Dataset(attrs=attrs).assign(variables).to_zarr(
            out,
            group=path or None,
            mode="a" if path else "w-",
            zarr_format=root.metadata.zarr_format,
            consolidated=False,
        )


def _restored(variable: xr.Variable, library: str | None, unlimited: Sequence[str]) -> xr.Variable:
    """Return a variable of the store as its source had it."""
    record: dict[str, Any] = json.loads(variable.attrs.get(SOURCE_ENCODING, "{}"))
    attrs = _without_ours(variable.attrs)
    if ERROR in variable.attrs:
        attrs.pop("_FillValue", None)  # the NaN of the store, not the source's
    attrs = read_attrs(record, attrs)
    if variable.dtype.kind == "f" and "packing" not in record:  # readers ignore limits of another type than the values
        attrs |= {key: np.asarray(attrs[key], variable.dtype)[()] for key in RANGES if _is_numbers(attrs.get(key))}
    most = [sys.maxsize if dim in unlimited else size for dim, size in variable.sizes.items()]
    encoding: dict[str, Any] = read_layout(record, most, library) if library else {}
    if library is None and variable.chunks:
        encoding["chunks"] = variable.encoding["chunks"]
    data: Any = variable.data
    if library and "enum" in record:  # netCDF4 and h5netcdf look for its names in the dtype
        name, values = record["enum"]
        kind = np.dtype(variable.dtype, metadata={"enum_name": name, "enum": values})
        data = dask.array.Array(data.dask, data.name, data.chunks, meta=np.empty((0,) * data.ndim, kind))
    if packing := read_packing(record, variable.dtype):
        scale = bool(record["packing"]["whole"])
        stored = packing.stored if scale else variable.dtype
        data = dask.array.map_blocks(packing.repack, data, dtype=stored, scale=scale)
    if variable.dtype.kind in "TU":  # StringDType is not known to NetCDF, fixed length not to Zarr v3
        data = np.asarray(variable.values, object)
    dtype = np.dtype(getattr(data, "dtype", object))
    if "_FillValue" in attrs and dtype.kind in "iuf":
        attrs["_FillValue"] = dtype.newbyteorder("=").type(attrs["_FillValue"])
    if "_FillValue" not in attrs:
        encoding["_FillValue"] = None
    return xr.Variable(variable.dims, data, attrs, encoding)


def _is_numbers(value: Any) -> bool:
    return value is not None and np.asarray(value).dtype.kind in "iuf"


def _without_ours(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in attrs.items() if not str(key).startswith(PREFIX)}
