"""For pipelines that write with xarray: the `encoding` that stores a dataset as `isopress compress` would."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import dask.base
import numpy as np
import xarray as xr
import zarr.abc.store

import isopress
from isopress.codec.limits import Bound
from isopress.format.attributes import ERROR, PREFIX
from isopress.format.error_spec import as_specs, format_bound
from isopress.format.presets import DEFAULT_PRESET, Preset
from isopress.format.source.dataset import in_memory
from isopress.format.store.achieved import INSTALL_HINT
from isopress.format.store.plan import VariablePlan, Wishes, ZarrFormat, plan_variables, variable_encoding
from isopress.format.zarr.groups import quiet_zarr

Errors = Mapping[str, str | float] | str | float | None

_OF_TIMES = ("units", "calendar")  # in the encoding of a source: what is left of it


def encoding(
    dataset: xr.Dataset,
    error: Errors = None,
    *,
    preset: Preset = DEFAULT_PRESET,
    chunks: Mapping[str, int] | None = None,
    shards: Mapping[str, int] | None = None,
    context: str = "auto",
    effort: int = 0,
    zarr_format: ZarrFormat = 3,
    model: str = "default",
) -> dict[str, dict[str, Any]]:
    """Return the `encoding` for `dataset.to_zarr` that keeps the limits which `isopress compress` would keep.

    It names every variable, so that nothing of the encoding stays that the dataset was read with, such as packing,
    chunks and other codecs; times keep their units. A fraction of the range is turned into data units by the range
    of the whole variable, which is read for that; what stands for missing without saying so (-9999) is not looked for.

    Parameters
    ----------
    dataset : Dataset
        In memory or lazy.
    error : mapping of name or pattern to limit, or a limit, optional
        Limits as `--error` takes them, in the unit of the variable: `{"t2m": 0.1, "tp": "pointwise:1%"}`. The last
        that names a variable wins; what none names gets a bound from `preset`.
    preset, chunks, shards, context, effort, zarr_format, model
        As `isopress compress` takes them. Give the same `zarr_format` to `to_zarr`.

    Returns
    -------
    dict
        By variable. Chunks of dask that are not whole chunks, or shards, xarray refuses: rechunk, or use
        `dataset.isopress.to_zarr`.

    Raises
    ------
    ArgumentError
        A limit is not one or names nothing, or a chunk or shard no dimension, or no variable has the channels of
        `model`.
    """
    wishes = Wishes(as_specs(error), preset, chunks or {}, context, effort, shards or {}, zarr_format, model)
    return _encoding(dataset, planned(dataset, wishes), wishes)


def to_zarr(
    dataset: xr.Dataset,
    store: str | Path | zarr.abc.store.Store,
    error: Errors = None,
    *,
    preset: Preset = DEFAULT_PRESET,
    chunks: Mapping[str, int] | None = None,
    shards: Mapping[str, int] | None = None,
    zarr_format: ZarrFormat = 3,
    mode: Literal["w", "w-"] = "w-",
) -> None:
    """Write a dataset with `encoding`, lazy arrays cut into whole shards, and record what was asked for."""
    wishes = Wishes(as_specs(error), preset, chunks or {}, shards=shards or {}, zarr_format=zarr_format)
    plans = planned(dataset, wishes)
    out = dataset.copy()
    out.attrs |= {PREFIX + "read_with": INSTALL_HINT, PREFIX + "version": isopress.__version__}
    for plan in plans:
        variable = out.variables[plan.name]
        if plan.streamed and variable.chunks is not None:
            out[plan.name] = out[plan.name].chunk(dict(zip(variable.dims, plan.shards or plan.chunks, strict=True)))
        if plan.asked is not None:
            out[plan.name].attrs[ERROR] = format_bound(plan.asked)
    target: Any = store  # any Zarr store will do; xarray's type has paths only
    with quiet_zarr():
        out.to_zarr(
            target, encoding=_encoding(dataset, plans, wishes), mode=mode, zarr_format=zarr_format, consolidated=False
        )
        if getattr(store, "supports_consolidated_metadata", True):
            zarr.consolidate_metadata(target, zarr_format=zarr_format)


def planned(dataset: xr.Dataset, wishes: Wishes) -> list[VariablePlan]:
    """Return the plans of a dataset's variables, with the range of those whose limit is a part of it."""
    plans = plan_variables(in_memory(dataset), wishes)
    of_range = [plan.name for plan in plans if isinstance(plan.asked, Bound) and plan.asked.mode == "range"]
    ranges = dict(zip(of_range, dask.base.compute(*map(_extremes, (dataset[name] for name in of_range))), strict=True))
    return [_resolved(plan, ranges[plan.name]) if plan.name in ranges else plan for plan in plans]


def _extremes(array: xr.DataArray) -> list[Any]:
    finite = array.where(np.isfinite(array))
    return [finite.min().data, finite.max().data]


def _resolved(plan: VariablePlan, extremes: Sequence[Any]) -> VariablePlan:
    low, high = (float(value) for value in extremes)
    assert isinstance(plan.asked, Bound)
    limit = plan.asked.resolve(np.array([low, high])) if low < high else 0.0
    return replace(plan, bound=Bound("abs", limit) if limit > 0 else Bound("lossless"))


def _encoding(dataset: xr.Dataset, plans: Sequence[VariablePlan], wishes: Wishes) -> dict[str, dict[str, Any]]:
    found = {}
    for plan in plans:
        variable = dataset.variables[plan.name]
        if variable.dtype.kind in "Mm" or variable.dtype == object:
            found[plan.name] = {key: value for key, value in variable.encoding.items() if key in _OF_TIMES}
            continue
        found[plan.name] = variable_encoding(plan, wishes, has_fill="_FillValue" in variable.attrs)
    return found
