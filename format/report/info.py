"""The figures of a store, from its metadata and file sizes alone: nothing is decoded."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import zarr

from isopress.codec.models.registry import SUFFIX
from isopress.format.attributes import ERROR, MODELS_FOLDER, PREFIX
from isopress.format.error_spec import format_bound
from isopress.format.report.records import StoreReport, VariableReport
from isopress.format.zarr.groups import arrays, dimensions, nbytes_on_disk, open_group, stored_limit


def read_report(path: str | Path) -> StoreReport:
    """Return shape, chunks, bound or target, achieved errors, sizes and models of every array of a store.

    Stores that were written through xarray with an isopress codec have no achieved errors recorded;
    those figures are None.

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
        return StoreReport(str(path), group.metadata.zarr_format, variables, stored, models_nbytes=models)


def _models_nbytes(store: Path) -> int:
    """Return the size of the weights in a store that is a directory; 0 of any other."""
    return sum(path.lstat().st_size for path in (store / MODELS_FOLDER).glob(f"*{SUFFIX}"))


def _variable(name: str, array: zarr.Array[Any]) -> VariableReport:
    attrs: dict[str, Any] = dict(array.attrs)
    bound = stored_limit(array)
    return VariableReport(
        name=name,
        dims=dimensions(array),
        shape=array.shape,
        chunks=array.chunks,
        dtype=str(array.dtype),
        units=str(attrs.get("units", "")),
        original_nbytes=int(attrs.get(PREFIX + "original_nbytes", array.nbytes)),
        stored_nbytes=array.nbytes_stored(),
        error=attrs.get(ERROR, format_bound(bound)) if bound else None,
        bound=bound,
        max_error=attrs.get(PREFIX + "max_error"),
        rmse=attrs.get(PREFIX + "rmse"),
        models=tuple(attrs.get(PREFIX + "models", ())),
        short_chunks=attrs.get(PREFIX + "short_chunks"),
        fallback=bool(attrs.get(PREFIX + "fallback")),
    )
