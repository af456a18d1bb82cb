"""What a store records of itself: what was asked of each variable and what was achieved, and what it was made of."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

import isopress
from isopress.codec.limits import Bound
from isopress.format.attributes import KIND, PREFIX, SELECTION, SOURCE_ENCODING
from isopress.format.presets import Preset
from isopress.format.settings import Promise
from isopress.format.source.dataset import SAMPLE, Request, Source
from isopress.format.store.plan import VariablePlan, source_record
from isopress.format.store.tasks import Outcome
from isopress.format.zarr.groups import arrays

VALUES = PREFIX + "values"
INSTALL_HINT = "Compressed by isopress. To read it: pip install isopress, then xarray.open_zarr as usual."


def record_achieved(
    group: zarr.Group, source: Source, plans: Sequence[VariablePlan], totals: Mapping[str, Outcome]
) -> None:
    """Write into the attributes of every variable with a limit what was asked and what was achieved."""
    targets = arrays(group)
    for plan in plans:
        if plan.bound is None:
            continue
        outcome = totals.get(plan.name, Outcome(plan.name, 0))  # an empty variable has no tasks
        record = _promised(plan.bound, outcome) | {
            "max_error": outcome.distortion.max_error,
            "rmse": outcome.distortion.rmse,
            "values": outcome.distortion.values,
            "original_nbytes": source.nbytes(plan.name),
            "stored_nbytes": outcome.stored_nbytes,
            "models": sorted(outcome.models),
            "fallback": True if plan.by_preset and plan.asked and plan.asked.mode == "range" else None,
        }
        known = {key: value for key, value in record.items() if value is not None}
        attributes: dict[str, Any] = {PREFIX + key: value for key, value in known.items()}
        low, high = outcome.distortion.low, outcome.distortion.high
        if encoding := source_record(source, plan, low, high):
            attributes[SOURCE_ENCODING] = encoding
        attributes |= _widened(targets[plan.name].attrs, low, high, plan.bound)
        targets[plan.name].attrs.update(attributes)


def add_achieved(
    array: zarr.Array[Any], promise: Promise, added: Outcome, replaced: Outcome, original_nbytes: int
) -> None:
    """Write into the attributes of a variable what is achieved with what was `added`, which `replaced` some of it.

    The largest error counts the values that were replaced, too.
    """
    attrs: Any = dict(array.attrs)
    new, old = added.distortion, replaced.distortion
    count = int(attrs.get(VALUES, 0)) - old.values
    squares = float(attrs.get(PREFIX + "rmse", 0.0)) ** 2 * (count + old.values) - old.sum_squares
    values = count + new.values
    record = _promised(promise, added) | {
        "max_error": max(attrs.get(PREFIX + "max_error", 0.0), new.max_error),
        "rmse": math.sqrt(max(squares + new.sum_squares, 0.0) / values) if values else 0.0,
        "values": values,
        "original_nbytes": original_nbytes,
        "stored_nbytes": int(attrs.get(PREFIX + "stored_nbytes", 0)) + added.stored_nbytes - replaced.stored_nbytes,
        "models": sorted({*attrs.get(PREFIX + "models", ()), *added.models}),
    }
    if record.get("missed_chunks") is not None:
        record["missed_chunks"] += int(attrs.get(PREFIX + "missed_chunks", 0))
    known = {PREFIX + key: value for key, value in record.items() if value is not None}
    array.attrs.update(known | _widened(attrs, new.low, new.high, promise))


def _widened(attrs: Mapping[str, Any], low: float, high: float, promise: Promise) -> dict[str, Any]:
    """Return the limits of valid values that decoded values pass, moved outwards: readers mask what is beyond them."""
    wider: dict[str, Any] = {}
    limits = attrs.get("valid_range", [attrs.get("valid_min", -math.inf), attrs.get("valid_max", math.inf)])
    if not (isinstance(limits, list) and len(limits) == 2 and all(isinstance(x, (int, float)) for x in limits)):
        return wider
    reach = [0.0, 0.0]
    if isinstance(promise, Bound) and promise.value is not None:
        relative = promise.mode == "pointwise"
        reach = [max(promise.value * abs(x), promise.floor or 0.0) if relative else promise.value for x in limits]
    moved = limits[0] - reach[0], limits[1] + reach[1]
    if low < limits[0]:
        wider["valid_min"] = moved[0]
    if high > limits[1]:
        wider["valid_max"] = moved[1]
    if wider and "valid_range" in attrs:
        return {"valid_range": [wider.get("valid_min", limits[0]), wider.get("valid_max", limits[1])]}
    return wider


def _promised(promise: Promise, outcome: Outcome) -> dict[str, Any]:
    """Return what the codec was asked for, and how many chunks are more than 3 % off it."""
    if isinstance(promise, Bound):
        return {"mode": promise.mode, "bound": promise.value, "floor": promise.floor}
    return {
        "mode": promise.mode,
        "target_ratio": promise.ratio,
        "target_rmse": promise.rmse,
        "missed_chunks": outcome.missed_chunks,
    }


def record_source(group: zarr.Group, asked: Request, kind: str, preset: Preset) -> None:
    """Write into the attributes of the root how to read the store and what it was made of."""
    name = ", ".join(path if path == SAMPLE else Path(path).name for path in asked.paths)
    root = {"read_with": INSTALL_HINT, "version": isopress.__version__, "source": name, "preset": preset}
    attributes: dict[str, Any] = {PREFIX + key: value for key, value in root.items()} | {KIND: kind}
    if asked.partial:
        attributes[SELECTION] = {"variables": asked.variables, "sel": asked.sel, "isel": asked.isel}
    group.attrs.update(attributes)
