"""One file or store -> its groups as datasets, nothing decoded, and how much it says it holds."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from isopress.codec.errors import ArgumentError
from isopress.format.attributes import UNFINISHED
from isopress.format.report.headers import list_objects
from isopress.format.source.cra5 import is_cra5, open_cra5
from isopress.format.source.damage import check_netcdf3
from isopress.format.source.grib import open_grib
from isopress.format.source.locate import check_filesystem, is_reference
from isopress.format.zarr.groups import looks_like_zarr, open_group, quiet_zarr, subgroups

_NETCDF_READERS = ("netCDF4", "h5netcdf", "scipy")
_HDF5, _CLASSIC = b"\x89HDF\r\n\x1a\n", b"CDF"


@dataclass(frozen=True)
class Opened:
    """What one path holds: its groups by path ("" is the root), what is unusual, and counts of what was found.

    `kind` is how the path is stored, such as "NETCDF4", "NETCDF3_CLASSIC", "grib" or "zarr". `unread` are variables
    that no dataset can have, each with the reason.
    """

    path: str
    kind: str
    groups: Mapping[str, xr.Dataset]
    warnings: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)


def open_path(path: str, stack: ExitStack) -> Opened:
    """Open a local file or store, or the URL of a store; `stack` closes it.

    Raises
    ------
    ArgumentError
        It is not a dataset, it is damaged, or the package that reads it is missing.
    """
    if is_reference(path):
        return _open_reference(path, stack)
    if looks_like_zarr(path) or (":" in path and "://" in path and not _is_file_url(path)):
        return _open_zarr(path, open_group(path, stack))
    if is_cra5(path):
        return Opened(path, "cra5", {"": open_cra5(path)})
    start = _first_bytes(path)
    if b"GRIB" in start[:16] or (path.lower().endswith((".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2"))):
        dataset, unusual, messages = open_grib(path)
        stack.callback(dataset.close)
        return Opened(path, "grib", {"": dataset}, tuple(unusual), {"messages": messages})
    if start.startswith((_HDF5, _CLASSIC)):
        return _open_netcdf(path, start, stack)
    with _clear_errors(path):
        dataset = stack.enter_context(xr.open_dataset(path, decode_cf=False, cache=False))
    return Opened(path, "", {"": dataset})


def _is_file_url(path: str) -> bool:
    return "/dodsC/" in path or "/opendap/" in path


def _first_bytes(path: str) -> bytes:
    if not Path(path).is_file():
        return b""
    with open(path, "rb") as file:
        return file.read(512)


def _open_netcdf(path: str, start: bytes, stack: ExitStack) -> Opened:
    engine = next((reader for reader in _NETCDF_READERS if find_spec(reader)), None)
    if engine is None:
        raise ArgumentError(f"{path}: nothing installed reads NetCDF; pip install 'isopress[netcdf]'")
    if start.startswith(_CLASSIC):
        check_netcdf3(path)
    if engine == "h5netcdf" and start.startswith(_CLASSIC):
        raise ArgumentError(f"{path}: nothing installed reads NetCDF-3; pip install netcdf4")
    with _clear_errors(path):
        if engine == "scipy":
            dataset = stack.enter_context(xr.open_dataset(path, engine="scipy", decode_cf=False, cache=False))
            return Opened(path, "NETCDF3_64BIT_OFFSET", {"": dataset})
        file, kind, open_store = _library(path, engine)
        stack.callback(file.close)
        found = {}
        unread = {}
        for key, group in _walk(file, ""):
            dataset = xr.open_dataset(open_store(group), decode_cf=False, cache=False)
            found[key] = dataset[[name for name in group.variables if name in dataset.variables]]  # in their order
            found[key].encoding["dimensions"] = {name: _size(dim) for name, dim in group.dimensions.items()}
            for name, variable in group.variables.items():
                if _is_of_lists(variable):
                    unread[f"{key}/{name}".lstrip("/")] = "lists of varying length have no place in Zarr"
                    found[key] = found[key].drop_vars(name)
                elif name not in found[key].variables:
                    unread[f"{key}/{name}".lstrip("/")] = "xarray does not read it"
    return Opened(path, kind, found, unread=unread)


def _size(dimension: Any) -> int:
    """Return the length of a dimension of netCDF4 or h5netcdf."""
    return int(dimension.size)


def _is_of_lists(variable: Any) -> bool:
    """Whether a variable of netCDF4 has lists of varying length; xarray says it has numbers."""
    return type(getattr(variable, "datatype", None)).__name__ == "VLType" and variable.dtype is not str


def _library(path: str, engine: str) -> tuple[Any, str, Any]:
    """Return an open file, its data model, and what makes a store for xarray of one of its groups.

    The file is opened once for all groups, and apart from xarray's cache of open files: both at once crashed netCDF4.
    """
    if engine == "netCDF4":
        import netCDF4

        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it warns of types that it does not know, and goes on without them
            file = netCDF4.Dataset(path)
        return file, str(file.data_model), xr.backends.NetCDF4DataStore
    import h5netcdf

    return h5netcdf.File(path, "r"), "NETCDF4", xr.backends.H5NetCDFStore


def _walk(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield a group and all groups in it, with their paths."""
    yield path, group
    for name, child in group.groups.items():
        yield from _walk(child, f"{path}/{name}".lstrip("/"))


def _open_zarr(path: str, group: zarr.Group) -> Opened:
    with _clear_errors(path), quiet_zarr():
        whole = group.metadata.consolidated_metadata is not None
        found = {
            key: xr.open_dataset(
                group.store,  # type: ignore[arg-type]  # any Zarr store will do; xarray's type has paths only
                engine="zarr",
                group="/".join(filter(None, (group.path, key))) or None,
                decode_cf=False,
                cache=False,
                consolidated=whole and not key,
            )
            for key in subgroups(group)
        }
        if not whole:  # arrays come in any order
            found = {key: dataset[sorted(map(str, dataset.variables))] for key, dataset in found.items()}
        absent = [] if "://" in path else _absent_chunks(group)
        if unfinished := group.attrs.get(UNFINISHED):
            absent.insert(0, f"{path} is {unfinished}")
    return Opened(path, "zarr", found, tuple(absent))


def _absent_chunks(group: zarr.Group) -> list[str]:
    """Return what is unusual about chunks that are not there: they read as the fill value, lost or never written."""
    found = []
    for name, array in sorted(group.members(max_depth=None)):
        if isinstance(array, zarr.Array) and array.ndim:
            objects = list_objects(array)  # Zarr's own count fails in zips that have both `t` and `time`
            missing = objects.expected - len(objects.present)
            if missing > 0 and objects.present:
                what = "shards" if array.shards else "chunks"
                found.append(
                    f"{name}: {missing} of {objects.expected} {what} are not there; they read as {array.fill_value}"
                )
    return found


def _open_reference(path: str, stack: ExitStack) -> Opened:
    """Open references to chunks in other files, as kerchunk writes them."""
    if not find_spec("fsspec"):
        raise ArgumentError(f"{path}: references to other files need fsspec; pip install 'isopress[remote]'")
    if Path(path).is_dir() and not any(map(find_spec, ("fastparquet", "pyarrow"))):
        raise ArgumentError(f"{path}: references as Parquet need fastparquet or pyarrow; pip install fastparquet")
    from fsspec.implementations.reference import ReferenceFileSystem
    from zarr.storage import FsspecStore

    if find_spec("kerchunk"):
        import kerchunk.codecs  # noqa: F401  # registers those that references to GRIB and HDF5 need
    content: Any = path
    if Path(path).is_file():
        try:
            content = json.loads(Path(path).read_text())
        except ValueError as error:
            raise ArgumentError(f"{path}: not JSON ({error})") from error
        for url in _referenced(content):
            check_filesystem(url)
    with _clear_errors(path), quiet_zarr():
        options = {"asynchronous": True}
        files = ReferenceFileSystem(content, remote_options=options, asynchronous=True, skip_instance_cache=True)
        store = FsspecStore(files, read_only=True, path="")
        group = zarr.open_group(store, mode="r", zarr_format=None)
        stack.callback(store.close)
    return _open_zarr(path, group)


def _referenced(content: Any) -> set[str]:
    """Return one URL of each kind that references point to."""
    references = content.get("refs", content) if isinstance(content, dict) else {}
    urls = {item[0] for item in references.values() if isinstance(item, list) and item and "://" in str(item[0])}
    return {next(url for url in urls if url.startswith(scheme)) for scheme in {url.split("://")[0] for url in urls}}


@contextmanager
def _clear_errors(path: str) -> Iterator[None]:
    """Turn the errors of all libraries into one line that names the path."""
    try:
        yield
    except ArgumentError:
        raise
    except Exception as error:  # each backend has its own kinds of error; the user needs the reason, on one line
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArgumentError(f"{path}: not a dataset xarray can open ({reason[:300]})") from error
