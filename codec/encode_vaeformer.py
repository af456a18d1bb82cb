"""Chunks coded by a VAEformer that was named: at the step that reaches a target, or under a pyramid within a bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import contiguous
from isopress.codec.bounded.fields_alone import looks_periodic
from isopress.codec.bounded.pyramid import PyramidModel
from isopress.codec.decode import Sections, assemble_latent, field_shape
from isopress.codec.encode import encode_value, lossless_coding, measure, special_section
from isopress.codec.encode_target import FARTHEST, evenly_coded, is_within_reach
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.latent import base_layer
from isopress.codec.limits import TARGET_TOLERANCE, Target, check_fits
from isopress.codec.models.registry import NamedModel
from isopress.codec.vaeformer.integer_scales import STEPS
from isopress.codec.vaeformer.normalisation import normalisation_of
from isopress.codec.vaeformer.section import INDEX_MAX, FieldDecoder, encode_fields
from isopress.codec.vaeformer.weights import VaeformerModel, load_vaeformer
from isopress.codec.values.outliers import bits_of
from isopress.codec.values.plan import Plan
from isopress.codec.values.special_values import fill_smoothly, find_specials

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

HEADER = 70  # bytes a payload has beside its sections, about
TRIES = 10
NEAR = 1 / (1 + TARGET_TOLERANCE), 1.025  # parts of the target that are near enough


def encode_target(x: np.ndarray, target: Target, model: NamedModel) -> EncodedChunk:
    """Return the coding of `x` (..., channel, lat, lon) that reaches `target`, errors measured on its decoded values.

    What is smaller without loss, or within a bound as fine as the target, is coded so; NaN, infinities and -0.0 come
    back with all their bits.

    Raises
    ------
    ArgumentError
        Another dtype, or a shape or channels that do not fit the channels of the weights.
    ModelNotFoundError
        `model` is not installed.
    """
    check_fits(target, x.dtype, x.shape)
    x = contiguous(x)
    weights = load_vaeformer(model.name)
    found = _coded(x, target, weights, weights.order_of(model.channels)) if x.size else None
    others = [lossless_coding(x, {}, quick=False)]
    if x.size and target.rmse is not None:
        others.append(evenly_coded(x, target.rmse, target.exact))
    if found is not None:
        others.append(found)
    return min((c for c in others if target.allows(c.rmse)), key=lambda c: c.nbytes)


def _coded(x: np.ndarray, target: Target, model: VaeformerModel, order: tuple[int, ...]) -> EncodedChunk | None:
    """Return the coding by the model alone, or None where it does not apply."""
    fields = x.reshape(field_shape(x.shape))
    specials = find_specials(fields, exact=target.exact)
    valid = None if specials is None else specials.valid
    if specials is not None:
        special = ~specials.valid
        if (specials.patterns[specials.classes[special] - 1] != bits_of(fields)[special]).any():
            return None  # more kinds of special values than a section names
    sections, ordinary = special_section(specials), fields if valid is None else fields[valid]
    if not ordinary.size or ordinary.min() == ordinary.max():
        value = ordinary[:1].reshape(-1)[0] if ordinary.size else fields.dtype.type(0)
        return EncodedChunk(
            Method.CONSTANT, tuple(sorted({Section.PARAMETERS: encode_value(value), **sections}.items()))
        )
    if not is_within_reach(target, float(ordinary.max()) / 2 - float(ordinary.min()) / 2):
        return None
    with np.errstate(invalid="ignore"):  # signalling NaN
        y = fields.astype(np.float64)
    if valid is not None:
        y = fill_smoothly(np.where(valid, y, 0.0), valid)
    prepared = _Prepared(fields, y.reshape(model.coded_shape(x.shape)), looks_periodic(y, valid), sections, order)
    return _search(prepared, target, model, x.nbytes)


@dataclass(frozen=True)
class _Prepared:
    """A chunk as the model takes it: values (B, H, W) with special ones, and numbers everywhere (T, C, H, W)."""

    fields: np.ndarray
    y: F64
    periodic: bool
    sections: Sections
    order: tuple[int, ...]


def _search(job: _Prepared, target: Target, model: VaeformerModel, nbytes: int) -> EncodedChunk:
    """Return the coding at the step that is nearest to the target, on the side that is allowed if there is one."""
    if target.ratio is None:
        assert target.rmse is not None
        goal, sign = target.rmse, 1.0  # errors rise with the step, sizes fall
        deviation = _deviation(job.y, model, job.order)
        index = _index(goal * math.sqrt(12) / float(deviation.astype(np.float64).mean()))
    else:
        goal, sign = max(nbytes / target.ratio - HEADER, 1.0), -1.0
        index = 0
    low, high, seen = -INDEX_MAX, INDEX_MAX, list[tuple[int, float]]()
    best: tuple[tuple[bool, float], EncodedChunk] | None = None
    for _ in range(TRIES):
        section, decoder = encode_fields(job.y, index, model, periodic=job.periodic, order=job.order)
        coding = _measured(job, section, decoder)
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


def _deviation(fields: F64, model: VaeformerModel, order: tuple[int, ...]) -> F32:
    """Return the deviation (C,) that each channel of the fields is normalised with, in their order."""
    places = list(order)
    deviation: F32 = normalisation_of(fields[:, np.argsort(places)], model.channels).deviation[places]
    return deviation


def _index(step: float) -> int:
    octaves = math.log2(min(max(step, 1 / FARTHEST), FARTHEST))
    return max(-INDEX_MAX + 1, min(round(STEPS * octaves), INDEX_MAX - 1))


def _measured(job: _Prepared, section: bytes, decoder: FieldDecoder) -> EncodedChunk:
    """Return the coding with the errors of its decoded values."""
    sections: Sections = {**job.sections, Section.VAEFORMER: section}
    x_hat = assemble_latent(sections, decoder.values().reshape(job.fields.shape), job.fields.dtype)
    max_error, rmse = measure(job.fields, x_hat, None)
    ordered = tuple(sorted(sections.items()))
    return EncodedChunk(Method.VAEFORMER, ordered, (decoder.model.sha256,), max_error=max_error, rmse=rmse)


def encode_base(
    plan: Plan,
    shape: tuple[int, ...],
    model: VaeformerModel,
    order: tuple[int, ...],
    refinement: PyramidModel,
) -> tuple[dict[Section, bytes], F64] | None:
    """Code what a plan holds as the model's fields and a pyramid of what is left; None if floats drift too far.

    Returns sections and v (B, H, W) in 1/64 steps.
    """
    offset, step = plan.quantiser.offset[:, None, None], plan.quantiser.step[:, None, None]
    four = model.coded_shape(shape)
    steps = np.broadcast_to(plan.quantiser.step, len(plan.y)).reshape(four[:2])
    # As coarse a base as pays: steps of latents against those of the pyramid, averaged over the channels.
    fields = (plan.y * step + offset).reshape(four)
    deviation = _deviation(fields, model, order)
    index = _index(base_layer.BASE_STEP * float(np.exp(np.log(steps / deviation).mean())))
    periodic = looks_periodic(plan.y, plan.valid)
    section, decoder = encode_fields(fields, index, model, periodic=periodic, order=order)
    y0 = (decoder.values().reshape(plan.y.shape) - offset) / step
    zero = plan.quantiser.offset / plan.quantiser.step
    rest = base_layer.encode_rest(plan.y, y0, plan.valid, zero, refinement, periodic=periodic)
    return None if rest is None else ({Section.VAEFORMER: section, **rest[0]}, rest[1])
