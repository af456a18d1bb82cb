"""A dataset that xarray has opened and decoded, as a source."""

import xarray as xr
from xarray.conventions import encode_cf_variable

from isopress.codec.errors import ArgumentError
from isopress.format.source.dataset import Source, source_of


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
