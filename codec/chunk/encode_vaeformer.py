"""Chunks coded by the latents of a VAEformer that was named, at the step that reaches a target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.fields_alone import looks_periodic
from isopress.codec.chunk.encode import lossless_coding
from isopress.codec.chunk.prepared import HEADER, Prepared, evenly_coded, prepare
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.limits import TARGET_TOLERANCE, Target
from isopress.codec.models.registry import NamedModel
from isopress.codec.vaeformer.base_layer import deviation_of, nearest_index
from isopress.codec.vaeformer.integer_scales import STEPS
from isopress.codec.vaeformer.section import INDEX_MAX, encode_fields
from isopress.codec.vaeformer.weights import VaeformerModel, load_vaeformer

F64 = NDArray[np.float64]

TRIES = 10
NEAR = 1 / (1 + TARGET_TOLERANCE), 1.025  # parts of the target that are near enough


def encode_by_vaeformer(x: np.ndarray, target: Target, model: NamedModel) -> EncodedChunk:
    """Return the coding of `x` (..., channel, lat, lon) that reaches `target`, errors measured on its decoded values.

    `x` is contiguous and has the channels of the weights. What is smaller without loss, or within a bound as fine as
    the target, is coded so; NaN, infinities and -0.0 come back with all their bits.
    """
    others = [lossless_coding(x, {}, quick=False)]
    if x.size:
        weights, prepared = load_vaeformer(model.name), prepare(x, target)
        if target.rmse is not None:
            others.append(evenly_coded(x, target.rmse, target.exact))
        if isinstance(prepared, Prepared):
            fields = prepared.filled.astype(np.float64).reshape(weights.coded_shape(x.shape))
            others.append(_search(_Job(prepared, fields, weights, weights.order_of(model.channels)), target))
        elif prepared is not None:
            others.append(prepared)
    return min((c for c in others if target.allows(c.rmse)), key=lambda c: c.nbytes)


@dataclass(frozen=True, eq=False)
class _Job:
    """A chunk as the model takes it: fields (T, C, H, W), whose channels are in an order of their own."""

    prepared: Prepared
    fields: F64
    model: VaeformerModel
    order: tuple[int, ...]


def _search(job: _Job, target: Target) -> EncodedChunk:
    """Return the coding at the step that is nearest to the target, on the side that is allowed if there is one."""
    if target.ratio is None:
        assert target.rmse is not None
        goal, sign = target.rmse, 1.0  # errors rise with the step, sizes fall
        deviation = deviation_of(job.fields, job.model, job.order)
        index = nearest_index(goal * math.sqrt(12) / float(deviation.astype(np.float64).mean()))
    else:
        goal, sign = max(job.prepared.fields.nbytes / target.ratio - HEADER, 1.0), -1.0
        index = 0
    periodic = looks_periodic(job.prepared.filled, job.prepared.valid)
    low, high, seen = -INDEX_MAX, INDEX_MAX, list[tuple[int, float]]()
    best: tuple[tuple[bool, float], EncodedChunk] | None = None
    for _ in range(TRIES):
        section, decoder = encode_fields(job.fields, index, job.model, periodic=periodic, order=job.order)
        own = Section.VAEFORMER, section
        coding = job.prepared.coding(Method.VAEFORMER, own, job.model.sha256, decoder.values())
        value = coding.rmse if target.ratio is None else float(coding.nbytes)
        least, most = (part * goal for part in NEAR)
        order = value > most, value if value > most else -value
        if best is None or order < best[0]:
            best = order, coding
        if least <= value <= most:
            break
        off = sign * math.log2(goal / value) if value else 1.0  # octaves of the step, if nothing else is known
        low, high = (max(low, index), high) if off > 0 else (low, min(high, index))
        seen.append((index, math.log2(max(value, 1e-300))))
        slope = sign / STEPS if len(seen) < 2 else _slope(seen, sign)
        move = (math.log2(goal) - seen[-1][1]) / slope
        following = index + (round(move) or int(math.copysign(1, move)))
        index = following if low < following < high else (low + high) // 2
        if index in (low, high):
            break
    assert best is not None
    return best[1]


def _slope(seen: list[tuple[int, float]], sign: float) -> float:
    """Return how much the logarithm of the value changes with the step index, by the newest two; never too little."""
    (a, before), (b, after) = seen[-2:]
    return sign * max(sign * (after - before) / (b - a), 0.1 / STEPS)
