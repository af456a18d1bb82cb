"""What happens to each variable of a source: its bound, its chunks, and the empty store that fits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import dask.array
import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Target
from isopress.codec.models.registry import find
from isopress.format.attributes import DIMENSIONS, ERROR, ORDER, SOURCE_ENCODING, UNFINISHED, UNLIMITED
from isopress.format.error_spec import ErrorSpec, check_specs, format_bound, last_match
from isopress.format.presets import DEFAULT_PRESET, Preset, preset_bound
from isopress.format.settings import Promise
from isopress.format.source.dataset import Source
from isopress.format.source.packing import as_stored
from isopress.format.source.record import write_attrs, write_record
from isopress.format.source.sentinels import Findings
from isopress.format.store.chunking import (
    BLOCK_VALUES,
    TARGET_VALUES,
    check_chunk_dims,
    choose_chunks,
    choose_shards,
    default_blocks,
    default_chunks,
    default_shards,
)
from isopress.format.zarr.groups import quiet_zarr
from isopress.format.zarr.places import place

ZarrFormat = Literal[2, 3]
DEFAULT = "default"  # weights
UNFINISHED_TEXT = "not complete: it is being written, or `isopress compress ... --resume` goes on with it"


@dataclass(frozen=True)
class VariablePlan:
    """How one variable is stored.

    `asked` is the bound or target the user or preset states, `bound` the one the codec gets (mode range becomes
    abs over the whole variable, so that all chunks agree); both are None for what is stored exactly by
    Zarr's usual compressor. `streamed` variables are copied region by region, the others at once. `by_preset` says that
    the preset chose, not the user. Chunks lie together in `shards`, if there are any. `channels` are those of a
    variable that has them in another order than the weights `model`.
    """

    name: str
    chunks: tuple[int, ...]
    streamed: bool
    asked: Promise | None = None
    bound: Promise | None = None
    by_preset: bool = False
    shards: tuple[int, ...] | None = None
    model: str = DEFAULT
    channels: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return all that decides about the bytes of the variable."""
        chunks, shards = ("x".join(map(str, sizes)) for sizes in (self.chunks, self.shards or ()))
        limit = "exact" if self.asked is None else format_bound(self.asked)
        model = "" if self.model == DEFAULT else f", weights {self.model} ({find(self.model).sha256})"
        model += f", channels {', '.join(self.channels)}" if self.channels else ""
        return f"{limit}, chunks {chunks}" + (f", shards {shards}" if shards else "") + model

    def resolved(self, findings: Findings) -> "VariablePlan":
        """Return the plan with mode range turned into abs by the extremes of the whole variable, sentinels aside."""
        exact = tuple(sorted(findings.sentinels))
        if self.asked is None or isinstance(self.asked, Target) or self.asked.mode != "range":
            return replace(self, bound=self.asked and replace(self.asked, exact=exact))
        limit = self.asked.resolve(np.array([findings.low, findings.high]))
        bound = Bound("abs", limit, exact=exact) if limit > 0 else Bound("lossless")
        return replace(self, bound=bound)


@dataclass(frozen=True)
class Wishes:
    """What the user asks for.

    Bounds and targets, the preset for what they leave open, chunk sizes, neighbours (of bounded variables), the
    effort spent on those with a target, sizes of shards, the version of Zarr, and a VAEformer's weights for the
    variables that have their channels.
    """

    errors: Sequence[ErrorSpec] = ()
    preset: Preset = DEFAULT_PRESET
    chunks: Mapping[str, int] = field(default_factory=dict)
    context: str = "auto"
    effort: int = 0
    shards: Mapping[str, int] = field(default_factory=dict)
    zarr_format: ZarrFormat = 3
    model: str = DEFAULT


def plan_variables(source: Source, wishes: Wishes) -> list[VariablePlan]:
    """Return a plan for every variable; a lossy one gets the last error or target that names it, else the preset.

    Raises
    ------
    ArgumentError
        An error or target names no variable, or a chunk no dimension, of the source, or there is an effort
        but no target, or no variable has the channels of the weights that were named.
    ModelNotFoundError
        These are not installed.
    """
    named = [name for name in source.by_convention if any(spec.pattern == name for spec in wishes.errors)]
    names = [name for name in source.names if name in source.lossy or name in named]
    check_specs(wishes.errors, names, [name for name in source.exact if name not in named])
    check_chunk_dims("chunk", wishes.chunks, source.dims)
    check_chunk_dims("shard", wishes.shards, source.dims)
    if wishes.shards and wishes.zarr_format == 2:
        raise ArgumentError("Zarr 2 has no shards: leave out --shard, or take --zarr-format 3")
    fit = _fitting(source, names, wishes.model)
    lossy = [
        replace(_plan_lossy(source, name, wishes, wishes.model if name in fit else DEFAULT), channels=fit.get(name, ()))
        for name in names
    ]
    if wishes.effort and not any(isinstance(plan.asked, Target) for plan in lossy):
        raise ArgumentError(f"effort {wishes.effort} is for targets: set an error ratio:... or rmse:... too")
    exact = [_plan_exact(source, name, wishes) for name in source.exact if name not in named]
    return sorted(lossy + exact, key=lambda plan: source.names.index(plan.name))


def _fitting(source: Source, names: list[str], model: str) -> dict[str, tuple[str, ...]]:
    if model == DEFAULT:
        return {}
    from isopress.format.store.channels import fitting  # torch comes with it

    return fitting(source, names, model)


def _plan_lossy(source: Source, name: str, wishes: Wishes, model: str) -> VariablePlan:
    variable = source.variable(name, lossy=True)
    wanted = last_match(wishes.errors, name)
    asked = wanted or preset_bound(wishes.preset, name.rpartition("/")[2], variable.attrs)
    blocks = asked.mode != "lossless" and wishes.context != "field"
    dims = [str(dim) for dim in variable.dims]
    values = TARGET_VALUES if isinstance(asked, Target) else BLOCK_VALUES
    usual = default_blocks(dims, variable.shape, values) if blocks else default_chunks(variable.shape)
    if model == DEFAULT:
        chunks = choose_chunks(dims, variable.shape, wishes.chunks, usual)
    else:
        from isopress.codec.vaeformer.weights import load_vaeformer

        weights = load_vaeformer(model)
        fields = variable.ndim - (3 if len(weights.channels.names) > 1 else 2)  # of them a chunk has one
        usual = tuple(1 if axis < fields else size for axis, size in enumerate(variable.shape))
        chunks = choose_chunks(dims, variable.shape, wishes.chunks, usual)
        weights.check_shape(chunks)
    shards = _shards(variable, dims, chunks, wishes)
    return VariablePlan(name, chunks, True, asked, asked, wanted is None, shards, model)


def _plan_exact(source: Source, name: str, wishes: Wishes) -> VariablePlan:
    variable = source.stored(name)
    dims = [str(dim) for dim in variable.dims]
    index = dims == [name.rpartition("/")[2]]  # xarray holds those in memory
    if variable.ndim and variable.dtype.kind in "biufc" and not index:
        chunks = choose_chunks(dims, variable.shape, wishes.chunks, default_chunks(variable.shape))
        return VariablePlan(name, chunks, True, shards=_shards(variable, dims, chunks, wishes))
    return VariablePlan(name, tuple(max(size, 1) for size in variable.shape), False)


def _shards(
    variable: xr.Variable, dims: Sequence[str], chunks: tuple[int, ...], wishes: Wishes
) -> tuple[int, ...] | None:
    if wishes.zarr_format == 2:
        return None
    usual = default_shards(chunks, variable.shape, variable.dtype.itemsize)
    return choose_shards(dims, chunks, wishes.shards, usual)


def create_store(path: str, source: Source, plans: Sequence[VariablePlan], wishes: Wishes) -> None:
    """Write a store with all metadata and every variable that is not streamed; streamed ones are empty.

    It says of itself that it is unfinished.
    """
    by_name = {plan.name: plan for plan in plans}
    for group, dataset in source.groups.items():
        template = xr.Dataset(attrs=dataset.attrs)
        for key in dataset.variables:
            plan = by_name[f"{group}/{key}" if group else str(key)]
            template[str(key)] = _template(source, plan, wishes)
        if not group:
            template.attrs[UNFINISHED] = UNFINISHED_TEXT
        template.attrs[ORDER] = list(map(str, dataset.variables))
        if types := write_attrs(dataset.attrs):
            template.attrs[SOURCE_ENCODING] = types
        if dimensions := dataset.encoding.get("dimensions"):
            template.attrs[DIMENSIONS] = {str(name): int(size) for name, size in dimensions.items()}
        if unlimited := dataset.encoding.get("unlimited_dims"):
            template.attrs[UNLIMITED] = sorted(map(str, unlimited))
        with quiet_zarr():
            template.to_zarr(
                place(path),
                group=group or None,
                mode="a",  # there is nothing, but at a URL the lock of this run
                compute=False,
                consolidated=False,
                zarr_format=wishes.zarr_format,
            )


def source_record(source: Source, plan: VariablePlan, low: float = math.inf, high: float = -math.inf) -> str:
    """Return what `decompress` needs to write a variable as the source has it, as JSON.

    A variable that changes is not packed again, which would add an error of its own. Its fill values come back, unless
    one is inside `low` to `high`, the range of the decoded values: a value changed within its bound could hit it.
    """
    stored = source.stored(plan.name)
    if plan.bound is None:
        return write_record(stored, None, again=False, ranges=False)
    packing = source.packing(plan.name)
    lossless = plan.bound.mode == "lossless"
    reached = any(low <= float(fill) <= high for fill in packing.fills)
    again = lossless or not (packing.scaled or reached)
    return write_record(stored, packing, again=again, ranges=lossless)


def _template(source: Source, plan: VariablePlan, wishes: Wishes) -> xr.Variable:
    zarr_format = wishes.zarr_format
    variable = source.variable(plan.name, lossy=plan.bound is not None)
    data: Any = variable.data if not plan.streamed else _zeros(variable)
    if zarr_format == 3 and variable.dtype.kind == "U":
        data = np.asarray(variable.values, object)  # Zarr v3 specifies only strings of variable length
    attrs = storable_attrs(variable)
    encoding = variable_encoding(plan, wishes, has_fill="_FillValue" in attrs)
    if plan.asked is not None:
        attrs[ERROR] = format_bound(plan.asked)
    elif record := source_record(source, plan):
        attrs[SOURCE_ENCODING] = record
    return xr.Variable(variable.dims, data, attrs, encoding)


def variable_encoding(plan: VariablePlan, wishes: Wishes, *, has_fill: bool) -> dict[str, Any]:
    """Return what xarray needs to write a variable as planned; `has_fill`: its attributes have a fill value."""
    encoding: dict[str, Any] = {} if has_fill else {"_FillValue": None}
    if plan.streamed:
        encoding |= {"chunks": plan.chunks} | ({"shards": plan.shards} if plan.shards else {})
    return encoding | (_codec_encoding(plan, plan.bound, wishes) if plan.bound is not None else {})


def storable_attrs(variable: xr.Variable) -> dict[str, Any]:
    """Return the attributes; a fill value that the data cannot have, or several, would be none in Zarr."""
    attrs = dict(variable.attrs)
    if variable.dtype.kind in "iuf" and "_FillValue" in attrs:
        fill = np.asarray(attrs.pop("_FillValue"))
        known = as_stored(fill.reshape(-1)[0], variable.dtype, attrs) if fill.size == 1 else None
        if known is not None:
            attrs["_FillValue"] = known
    return attrs


def _zeros(variable: xr.Variable) -> Any:
    """Return an array that costs nothing: it only carries shape and dtype to the metadata."""
    return dask.array.zeros(variable.shape, dtype=variable.dtype.newbyteorder("="), chunks=-1)


def _codec_encoding(plan: VariablePlan, promise: Promise, wishes: Wishes) -> dict[str, Any]:
    settings = codec_settings(promise, wishes) | {"model": plan.model, "channels": plan.channels}
    if wishes.zarr_format == 3:
        from isopress.format.zarr.v3_codec import IsopressCodec

        return {"serializer": IsopressCodec(**settings), "compressors": ()}
    from isopress.format.zarr.v2_codec import Isopress

    # Without a fill value, v2 would pad the last chunks with zeros; NaN is what the codec masks for free.
    return {"compressors": [Isopress(**settings)], "_FillValue": np.nan}


def codec_settings(promise: Promise, wishes: Wishes) -> dict[str, Any]:
    """Return the settings of the codec that keeps a promise."""
    exact = {"exact": promise.exact} if promise.exact else {}
    if isinstance(promise, Target):
        return {"mode": promise.mode, "ratio": promise.ratio, "rmse": promise.rmse, "effort": wishes.effort} | exact
    return {"mode": promise.mode, "bound": promise.value, "floor": promise.floor, "context": wishes.context} | exact


def judge(plan: VariablePlan, findings: Findings, attrs: Mapping[str, Any]) -> list[str]:
    """Return what the user should know of a variable: values that stand for missing, a bound larger than its values.

    Raises
    ------
    ArgumentError
        The bound is larger than most of the values, and a preset made it of the range.
    """
    found = []
    units = str(attrs.get("units", ""))
    for number, count in sorted(findings.sentinels.items()):
        share = f"{count / max(findings.values, 1):.1%} of the values"
        found.append(
            f"{plan.name}: {number:g} ({share}) stands for missing, though no attribute says so; it is kept exactly"
        )
    size = _size_of_error(plan.bound)
    low, high = findings.bulk
    if not size or not low < high or findings.low == findings.high or size <= high - low:
        return found
    reach = max(abs(low), abs(high))
    what = "99 % of all values" if size >= reach else f"the range of 98 % of all values, {low:g} to {high:g}"
    text = f"{plan.name}: bound {size:g} {units}".rstrip() + f" exceeds {what}"
    if plan.by_preset and isinstance(plan.asked, Bound) and plan.asked.mode == "range":
        raise ArgumentError(
            f"{text}: a few values far from all others set its range; give a bound with --error {plan.name}=..."
        )
    return [*found, text]


def _size_of_error(promise: Promise | None) -> float | None:
    """Return how large errors may be, in the unit of the variable, where that does not depend on the value."""
    if isinstance(promise, Target):
        return promise.rmse
    return promise.value if promise is not None and promise.mode == "abs" else None
