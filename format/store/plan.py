"""What happens to each variable of a source: its bound, its chunks, and the empty store that fits."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import dask.array
import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Target
from isopress.format.error_spec import ErrorSpec, check_specs, format_bound, last_match
from isopress.format.presets import DEFAULT_PRESET, Preset, preset_bound
from isopress.format.settings import Promise
from isopress.format.source.dataset import FILLS, PACKING, Source
from isopress.format.store.chunking import check_chunk_dims, choose_chunks, default_blocks, default_chunks
from isopress.format.store.distortion import Distortion
from isopress.format.zarr.groups import quiet_zarr

ZarrFormat = Literal[2, 3]
ERROR, SOURCE_ENCODING, UNLIMITED = "isopress_error", "isopress_source_encoding", "isopress_unlimited_dims"


@dataclass(frozen=True)
class VariablePlan:
    """How one variable is stored.

    `asked` is the bound or target the user or preset states, `bound` the one the codec gets (mode range becomes
    abs over the whole variable, so that all chunks agree); both are None for what is stored exactly by
    Zarr's usual compressor. `streamed` variables are copied region by region, the others at once.
    """

    name: str
    chunks: tuple[int, ...]
    streamed: bool
    asked: Promise | None = None
    bound: Promise | None = None

    def resolved(self, extremes: Distortion) -> "VariablePlan":
        """Return the plan with mode range turned into abs by the extremes of the whole variable."""
        if not isinstance(self.asked, Bound):
            return self
        limit = self.asked.resolve(np.array([extremes.low, extremes.high]))
        bound = Bound("abs", limit) if limit > 0 else Bound("lossless")
        return replace(self, bound=bound)


@dataclass(frozen=True)
class Wishes:
    """What the user asks for.

    Bounds and targets, the preset for what they leave open, chunk sizes, neighbours (of bounded variables), and the
    effort spent on those with a target.
    """

    errors: Sequence[ErrorSpec] = ()
    preset: Preset = DEFAULT_PRESET
    chunks: Mapping[str, int] = field(default_factory=dict)
    context: str = "auto"
    effort: int = 0


def plan_variables(source: Source, wishes: Wishes) -> list[VariablePlan]:
    """Return a plan for every variable; a lossy one gets the last error or target that names it, else the preset.

    Raises
    ------
    ArgumentError
        An error or target names no variable, or a chunk no dimension, of the source, or there is an effort
        but no target.
    """
    check_specs(wishes.errors, source.lossy, source.exact)
    check_chunk_dims(wishes.chunks, [str(dim) for dim in source.stored.sizes])
    lossy = [_plan_lossy(source, name, wishes) for name in source.lossy]
    if wishes.effort and not any(isinstance(plan.asked, Target) for plan in lossy):
        raise ArgumentError(f"effort {wishes.effort} is for targets: set an error ratio:... or rmse:... too")
    exact = [_plan_exact(source, name, wishes) for name in source.exact]
    return sorted(lossy + exact, key=lambda plan: source.names.index(plan.name))


def _plan_lossy(source: Source, name: str, wishes: Wishes) -> VariablePlan:
    variable = source.variable(name)
    asked = last_match(wishes.errors, name) or preset_bound(wishes.preset, name, variable.attrs)
    blocks = asked.mode != "lossless" and wishes.context != "field"
    dims = [str(dim) for dim in variable.dims]
    itemsize = variable.dtype.itemsize
    usual = default_blocks(dims, variable.shape, itemsize) if blocks else default_chunks(variable.shape)
    chunks = choose_chunks(dims, variable.shape, wishes.chunks, usual)
    return VariablePlan(name, chunks, True, asked, asked)


def _plan_exact(source: Source, name: str, wishes: Wishes) -> VariablePlan:
    variable = source.variable(name)
    dims = [str(dim) for dim in variable.dims]
    index = dims == [name]  # xarray holds those in memory
    if variable.ndim and variable.dtype.kind in "biufc" and not index:
        chunks = choose_chunks(dims, variable.shape, wishes.chunks, default_chunks(variable.shape))
        return VariablePlan(name, chunks, True)
    return VariablePlan(name, tuple(max(size, 1) for size in variable.shape), False)


def create_store(
    path: Path, source: Source, plans: Sequence[VariablePlan], zarr_format: ZarrFormat, wishes: Wishes
) -> None:
    """Write a store with all metadata and every variable that is not streamed; streamed ones are empty."""
    template = xr.Dataset(attrs=source.stored.attrs)
    for plan in plans:
        template[plan.name] = _template(source.variable(plan.name), plan, zarr_format, wishes)
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


def _template(variable: xr.Variable, plan: VariablePlan, zarr_format: ZarrFormat, wishes: Wishes) -> xr.Variable:
    data: Any = variable.data if not plan.streamed else _zeros(variable)
    if zarr_format == 3 and variable.dtype.kind == "U":
        data = np.asarray(variable.values, object)  # Zarr v3 specifies only strings of variable length
    encoding: dict[str, Any] = {} if "_FillValue" in variable.attrs else {"_FillValue": None}
    if plan.streamed:
        encoding["chunks"] = plan.chunks
    attrs = dict(variable.attrs)
    if plan.bound is not None and plan.asked is not None:
        encoding |= _codec_encoding(plan.bound, zarr_format, wishes)
        attrs[ERROR] = format_bound(plan.asked)
    elif packing := source_encoding(variable):
        attrs[SOURCE_ENCODING] = json.dumps(packing)
    return xr.Variable(variable.dims, data, attrs, encoding)


def _zeros(variable: xr.Variable) -> Any:
    """Return an array that costs nothing: it only carries shape and dtype to the metadata."""
    return dask.array.zeros(variable.shape, dtype=variable.dtype.newbyteorder("="), chunks=-1)


def _codec_encoding(promise: Promise, zarr_format: ZarrFormat, wishes: Wishes) -> dict[str, Any]:
    settings = _codec_settings(promise, wishes)
    if zarr_format == 3:
        from isopress.format.zarr.v3_codec import IsopressCodec

        return {"serializer": IsopressCodec(**settings), "compressors": ()}
    from isopress.format.zarr.v2_codec import Isopress

    # Without a fill value, v2 would pad the last chunks with zeros; NaN is what the codec masks for free.
    return {"compressors": [Isopress(**settings)], "_FillValue": np.nan}


def _codec_settings(promise: Promise, wishes: Wishes) -> dict[str, Any]:
    if isinstance(promise, Target):
        return {"mode": promise.mode, "ratio": promise.ratio, "rmse": promise.rmse, "effort": wishes.effort}
    return {"mode": promise.mode, "bound": promise.value, "floor": promise.floor, "context": wishes.context}
