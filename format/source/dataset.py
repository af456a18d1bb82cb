"""What isopress reads: every group and variable of datasets as people have them, nothing decoded that need not be.

paths -> located -> open_path, one by one -> combine -> select -> Source
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import dask
import numpy as np
import xarray as xr
from xarray.conventions import encode_cf_variable

from isopress.codec.errors import ArgumentError, ModelNotFoundError
from isopress.format.attributes import PREFIX
from isopress.format.source.exact import exact_reasons, references
from isopress.format.source.locate import SAMPLE, located, resolve
from isopress.format.source.many_files import combine
from isopress.format.source.open import Opened, open_path
from isopress.format.source.packing import Packing, find_packing, unpacked_attrs
from isopress.format.source.selection import Request, as_request, select
from isopress.format.zarr.chunk_objects import Region
from isopress.format.zarr.groups import quiet_zarr

__all__ = ["SAMPLE", "Request", "Source", "located", "open_source", "resolve"]

_STORABLE = "biufcOUST"  # kinds of dtypes that a Zarr array can have


@dataclass(frozen=True)
class Source:
    """An open dataset, group by group, every variable as the file has it.

    Variables are named with the path of their group, "forecast/t2m"; those of the root by themselves. Each is stored
    as it is, or, if it is `lossy`, as floats in physical units. `reasons` say why a variable is not lossy, and whether
    that is certain or only its name and attributes say so; `warnings` what the user should know, `counts` how much was
    read.
    """

    groups: Mapping[str, xr.Dataset]
    reasons: Mapping[str, tuple[str, bool]]
    packings: Mapping[str, Packing]
    warnings: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    kind: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every variable, coordinates included, in the order of the source."""
        return tuple(
            f"{path}/{name}" if path else str(name)
            for path, dataset in self.groups.items()
            for name in dataset.variables
        )

    @cached_property
    def lossy(self) -> tuple[str, ...]:
        """Variables that take a bound: floats and packed floats that are measurements."""
        return tuple(name for name in self.names if name not in self.reasons)

    @cached_property
    def exact(self) -> tuple[str, ...]:
        """Coordinates and variables that are not floats: stored as they are."""
        return tuple(name for name in self.names if name in self.reasons)

    @cached_property
    def by_convention(self) -> tuple[str, ...]:
        """Variables that are exact only because of their name or attributes: who names one with a bound gets it."""
        return tuple(name for name in self.exact if not self.reasons[name][1])

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of all groups."""
        return tuple(dict.fromkeys(str(dim) for dataset in self.groups.values() for dim in dataset.sizes))

    def stored(self, name: str) -> xr.Variable:
        """Return the variable as the file has it."""
        path, _, short = name.rpartition("/")
        return self.groups[path].variables[short]

    def variable(self, name: str, *, lossy: bool | None = None) -> xr.Variable:
        """Return shape, dtype and attributes of what isopress stores; of a lossy variable without values."""
        stored = self.stored(name)
        if not (name not in self.reasons if lossy is None else lossy):
            return stored
        packing = self.packing(name)
        shape = np.broadcast_to(np.zeros((), packing.dtype), stored.shape)
        return xr.Variable(stored.dims, shape, unpacked_attrs(stored, packing), stored.encoding)

    def packing(self, name: str) -> Packing:
        """Return how the source packs the numbers of a variable."""
        return self.packings.get(name) or find_packing(name, self.stored(name))

    def read(self, name: str, region: Region, *, lossy: bool | None = None) -> np.ndarray[Any, Any]:
        """Return a region of the variable in memory, in native byte order; nothing else is read.

        Raises
        ------
        ArgumentError
            The source is damaged there, or a filter that it needs is missing.
        """
        variable = self.stored(name)[region]
        try:
            with dask.config.set(scheduler="synchronous"), quiet_zarr():
                values = np.asarray(variable.values)
        except (ArgumentError, ModelNotFoundError):
            raise  # they say what is wrong and what helps
        except Exception as error:  # each library has its own kinds of error
            raise ArgumentError(self._unreadable(name, error)) from error
        native = values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
        if name not in self.reasons if lossy is None else lossy:
            native = self.packing(name).unpack(native)
        return np.require(native, requirements=["C", "A"]).reshape(values.shape)

    def nbytes(self, name: str) -> int:
        """Return the size of the variable before compression, in the dtype the source stores."""
        return self.itemsize(name) * int(np.prod(self.stored(name).shape, dtype=np.int64))

    def itemsize(self, name: str) -> int:
        """Return the bytes of one value in the source."""
        variable = self.stored(name)
        return int(variable.encoding.get("stored_itemsize", variable.dtype.itemsize))

    def chunks(self, name: str) -> tuple[int, ...]:
        """Return the chunk shape in the source; single values where it has none, as any part is read as fast."""
        variable = self.stored(name)
        chunks = variable.encoding.get("chunks") or variable.encoding.get("chunksizes") or ()
        return tuple(int(size) for size in chunks) if len(chunks) == variable.ndim else (1,) * variable.ndim

    def _unreadable(self, name: str, error: Exception) -> str:
        source = self.stored(name).encoding.get("source", "the source")
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        text = reason.lower()
        remedy = "the file is damaged there; copy or download it again"
        if "filter" in text or "codec" in text or "plugin" in text:
            remedy = "a filter is missing (pip install hdf5plugin, or the codec's package), or the file is damaged"
        return f"{source}: {name} cannot be read ({reason}): {remedy}"


@contextmanager
def open_source(source: "str | Sequence[str] | Request | Source") -> Iterator[Source]:
    """Open NetCDF, GRIB or Zarr (directory or zip), references, `sample:era5`, or anything else xarray opens.

    Parameters
    ----------
    source : str, sequence of str, Request or Source
        Local paths or URLs of stores, as `located` gives them; several make one dataset. What is open stays as it is.

    Raises
    ------
    ArgumentError
        There is no such file, it is not a dataset, it is empty or damaged, files do not go together, or the package
        that reads it is missing.
    """
    if isinstance(source, Source):  # of this process, which need not open it again
        yield source
        return
    request = as_request(source)
    with ExitStack() as stack:
        files = [open_path(resolve(path), stack) for path in request.paths]
        if not files:
            raise ArgumentError("no source is given")
        _check_unread(files, request)
        groups, unusual = (dict(files[0].groups), []) if len(files) == 1 else combine(files)
        if not any(dataset.variables for dataset in groups.values()):
            raise ArgumentError(f"{request.paths[0]}: no variables in it")
        counts = _counts(files, groups)
        groups = select(groups, request) if request.partial else groups
        yield source_of(groups, [*(w for file in files for w in file.warnings), *unusual], counts, files[0].kind)


def source_of(groups: Mapping[str, xr.Dataset], warnings: list[str], counts: Mapping[str, int], kind: str) -> Source:
    """Return a source of groups of which nothing is decoded: what is lossy, what is exact, how numbers are packed."""
    plain = {path: _without_ours(dataset) for path, dataset in groups.items()}
    words = {path: frozenset(references(dataset)) for path, dataset in plain.items()}
    reasons: dict[str, tuple[str, bool]] = {}
    packings: dict[str, Packing] = {}
    for path, dataset in plain.items():
        inside = (found for other, found in words.items() if not path or other == path or other.startswith(path + "/"))
        found = exact_reasons(dataset, frozenset().union(*inside))
        for key, variable in dataset.variables.items():
            name = f"{path}/{key}" if path else str(key)
            _check_storable(name, variable)
            if str(key) in found:
                reasons[name] = found[str(key)]
            else:
                packings[name] = find_packing(name, variable)
                warnings += packings[name].problems
    return Source(plain, reasons, packings, tuple(warnings), counts, kind)


def _check_unread(files: Sequence[Opened], request: Request) -> None:
    """Refuse variables that cannot be read, unless others are asked for by name."""
    for file in files:
        for name, reason in file.unread.items():
            if not request.variables or any(fnmatchcase(name, pattern) for pattern in request.variables):
                raise ArgumentError(f"{file.path}: {name}: {reason}; leave it out by naming others with --var")


def _without_ours(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset without the attributes that isopress adds to a store."""
    plain = dataset.copy()
    plain.encoding = dict(dataset.encoding)
    plain.attrs = {key: value for key, value in dataset.attrs.items() if not _ours(key)}
    for variable in plain.variables.values():
        variable.attrs = {key: value for key, value in variable.attrs.items() if not _ours(key)}
    return plain


def _check_storable(name: str, variable: xr.Variable) -> None:
    if variable.dtype.kind not in _STORABLE:
        raise ArgumentError(
            f"{name}: its type, {variable.dtype}, has no place in Zarr; leave it out by naming others with --var"
        )
    if variable.dtype.kind == "O" and not _holds_text(variable):
        raise ArgumentError(
            f"{name}: its values are no text (lists of varying length?); leave it out by naming others with --var"
        )


def _holds_text(variable: xr.Variable) -> bool:
    try:
        values = variable.values
    except ValueError:  # numpy makes no array of lists
        return False
    return all(isinstance(value, (str, bytes, float, type(None))) for value in values.ravel())


def _counts(files: Sequence[Opened], groups: Mapping[str, xr.Dataset]) -> dict[str, int]:
    counts = {
        "files": len(files),
        "groups": len(groups),
        "variables": sum(len(dataset.variables) for dataset in groups.values()),
    }
    if messages := sum(file.counts.get("messages", 0) for file in files):
        counts["messages"] = messages
    return counts


def _ours(key: object) -> bool:
    return str(key).startswith(PREFIX)


def in_memory(dataset: xr.Dataset) -> Source:
    """Return the source that a dataset would be once it is written: times as numbers, everything else as it is.

    Lazy arrays stay lazy. Packing that the dataset was read with is not applied again.

    Raises
    ------
    ArgumentError
        The dataset has no variables.
    """
    if not dataset.variables:
        raise ArgumentError("the dataset has no variables")
    plain = {name: _encoded(variable) for name, variable in dataset.variables.items()}
    coordinates = {name: plain[name] for name in dataset.coords}
    data = {name: plain[name] for name in dataset.data_vars}
    return source_of({"": xr.Dataset(data, coordinates, dataset.attrs)}, [], {"variables": len(plain)}, "")


def _encoded(variable: xr.Variable) -> xr.Variable:
    chunks = getattr(variable.data, "chunksize", None) or variable.encoding.get("chunks")
    plain = variable.copy(deep=False).to_base_variable()
    plain.encoding = {key: value for key, value in variable.encoding.items() if key in ("units", "calendar")}
    encoded = encode_cf_variable(plain) if variable.dtype.kind in "Mm" or variable.dtype == object else plain
    encoded.encoding = {} if chunks is None else {"chunks": chunks}
    return encoded
