"""What happens to each variable of a source: its bound, its chunks, and the empty store that fits."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import dask.array
import numpy as np
import xarray as xr

from isopress.codec.bound import Bound
from isopress.format.distortion import Distortion
from isopress.format.error_spec import ErrorSpec, check_specs, format_bound, last_match
from isopress.format.layout import check_chunk_dims, choose_chunks
from isopress.format.presets import Preset, preset_bound
from isopress.format.source import FILLS, PACKING, Source
from isopress.format.zarr_store import quiet_zarr

ZarrFormat = Literal[2, 3]
ERROR, SOURCE_ENCODING, UNLIMITED = "isopress_error", "isopress_source_encoding", "isopress_unlimited_dims"


@dataclass(frozen=True)
class VariablePlan:
    """How one variable is stored.

    `asked` is the bound the user or preset states, `bound` the one the codec gets (mode range becomes
    abs over the whole variable, so that all chunks agree); both are None for what is stored exactly by
    Zarr's usual compressor. `streamed` variables are copied region by region, the others at once.
    """

    name: str
    chunks: tuple[int, ...]
    streamed: bool
    asked: Bound | None = None
    bound: Bound | None = None

    def resolved(self, extremes: Distortion) -> "VariablePlan":
        """Return the plan with mode range turned into abs by the extremes of the whole variable."""
        if self.asked is None:
            return self
        limit = self.asked.resolve(np.array([extremes.low, extremes.high]))
        return replace(self, bound=Bound("abs", limit) if limit > 0 else Bound("lossless"))


def plan_variables(
    source: Source, errors: Sequence[ErrorSpec], preset: Preset, chunks: Mapping[str, int]
) -> list[VariablePlan]:
    """Return a plan for every variable; a lossy one gets the last error that names it, else the preset.

    Raises
    ------
    ArgumentError
        An error names no variable, or a chunk no dimension, of the source.
    """
    check_specs(errors, source.lossy, source.exact)
    check_chunk_dims(chunks, [str(dim) for dim in source.stored.sizes])
    return [_plan(source, name, errors, preset, chunks) for name in source.names]


def _plan(
    source: Source, name: str, errors: Sequence[ErrorSpec], preset: Preset, chunks: Mapping[str, int]
) -> VariablePlan:
    variable = source.variable(name)
    dims = [str(dim) for dim in variable.dims]
    if name in source.lossy:
        asked = last_match(errors, name) or preset_bound(preset, name, variable.attrs)
        return VariablePlan(name, choose_chunks(dims, variable.shape, chunks), True, asked, asked)
    index = dims == [name]  # xarray holds those in memory
    streamed = bool(variable.ndim) and variable.dtype.kind in "biufc" and not index
    size = choose_chunks(dims, variable.shape, chunks) if streamed else tuple(variable.shape)
    return VariablePlan(name, size, streamed)


def create_store(path: Path, source: Source, plans: Sequence[VariablePlan], zarr_format: ZarrFormat) -> None:
    """Write a store with all metadata and every variable that is not streamed; streamed ones are empty."""
    template = xr.Dataset(attrs=source.stored.attrs)
    for plan in plans:
        template[plan.name] = _template(source.variable(plan.name), plan, zarr_format)
    with quiet_zarr():
        template.to_zarr(path, mode="w-", compute=False, consolidated=False, zarr_format=zarr_format)


def source_encoding(variable: xr.Variable, low: float = math.inf, high: float = -math.inf) -> dict[str, Any]:
    """Return how the source packs an unpacked variable: what `decompress` needs to write it so again.

    A fill value inside `low` to `high`, the range of the decoded values, is left out: a value changed
    within its bound could hit it and read as missing.
    """
    encoding = variable.encoding
    kept = [key for key in (*PACKING, "_Unsigned") if key in encoding]
    kept += [key for key in FILLS if key in encoding and _is_marker(encoding[key], low, high)]
    values = {key: np.asarray(encoding[key]) for key in kept}
    record: dict[str, Any] = {key: [value.item(), value.dtype.str] for key, value in values.items()}
    return record | {"dtype": np.dtype(encoding["dtype"]).str} if any(key in record for key in PACKING) else record


def _is_marker(fill: Any, low: float, high: float) -> bool:
    """Whether a fill value is NaN or one number that no decoded value can be."""
    if np.size(fill) != 1 or np.asarray(fill).dtype.kind not in "iuf":
        return False
    number = float(np.asarray(fill).item())
    return not low <= number <= high


def _template(variable: xr.Variable, plan: VariablePlan, zarr_format: ZarrFormat) -> xr.Variable:
    data: Any = variable.data if not plan.streamed else _zeros(variable)
    if zarr_format == 3 and variable.dtype.kind == "U":
        data = np.asarray(variable.values, object)  # Zarr v3 specifies only strings of variable length
    encoding: dict[str, Any] = {} if "_FillValue" in variable.attrs else {"_FillValue": None}
    if plan.streamed:
        encoding["chunks"] = plan.chunks
    attrs = dict(variable.attrs)
    if plan.bound is not None and plan.asked is not None:
        encoding |= _codec_encoding(plan.bound, zarr_format)
        attrs[ERROR] = format_bound(plan.asked)
    elif packing := source_encoding(variable):
        attrs[SOURCE_ENCODING] = json.dumps(packing)
    return xr.Variable(variable.dims, data, attrs, encoding)


def _zeros(variable: xr.Variable) -> Any:
    """Return an array that costs nothing: it only carries shape and dtype to the metadata."""
    return dask.array.zeros(variable.shape, dtype=variable.dtype.newbyteorder("="), chunks=-1)


def _codec_encoding(bound: Bound, zarr_format: ZarrFormat) -> dict[str, Any]:
    if zarr_format == 3:
        from isopress.format.zarr_codec import IsopressCodec

        codec = IsopressCodec(mode=bound.mode, bound=bound.value, floor=bound.floor)
        return {"serializer": codec, "compressors": ()}
    from isopress.format.numcodecs_codec import Isopress

    # Without a fill value, v2 would pad the last chunks with zeros; NaN is what the codec masks for free.
    compressor = Isopress(mode=bound.mode, bound=bound.value, floor=bound.floor)
    return {"compressors": [compressor], "_FillValue": np.nan}
