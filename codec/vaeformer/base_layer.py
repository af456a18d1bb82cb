"""A VAEformer's fields under the refinement pyramid: as `latent/base_layer.py`, with another base."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.fields_alone import looks_periodic
from isopress.codec.bounded.pyramid import PyramidModel
from isopress.codec.encoded import Section
from isopress.codec.latent.base_layer import BASE_STEP, encode_rest
from isopress.codec.vaeformer.integer_scales import STEPS
from isopress.codec.vaeformer.normalisation import normalisation_of
from isopress.codec.vaeformer.section import INDEX_MAX, encode_fields
from isopress.codec.vaeformer.weights import VaeformerModel
from isopress.codec.values.plan import Plan

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

FARTHEST = 2.0**100  # deviations, and their inverse: further off there are no steps


def encode(
    plan: Plan, shape: tuple[int, ...], model: VaeformerModel, order: tuple[int, ...], refinement: PyramidModel
) -> tuple[dict[Section, bytes], F64] | None:
    """Code what a plan holds as the model's fields and a pyramid of what is left; None if floats drift too far.

    Returns sections and v (B, H, W) in 1/64 steps.
    """
    y, offset, step = plan.y[:], plan.quantiser.offset[:, None, None], plan.quantiser.step[:, None, None]
    four = model.coded_shape(shape)
    steps = np.broadcast_to(plan.quantiser.step, len(y)).reshape(four[:2])
    # As coarse a base as pays: steps of latents against those of the pyramid, averaged over the channels.
    fields = (y * step + offset).reshape(four)
    index = nearest_index(BASE_STEP * float(np.exp(np.log(steps / deviation_of(fields, model, order)).mean())))
    periodic = looks_periodic(y, plan.valid)
    section, decoder = encode_fields(fields, index, model, periodic=periodic, order=order)
    y0 = (decoder.values().reshape(y.shape) - offset) / step
    zero = plan.quantiser.offset / plan.quantiser.step
    rest = encode_rest(y, y0, plan.valid, zero, refinement, periodic=periodic)
    return None if rest is None else ({Section.VAEFORMER: section, **rest[0]}, rest[1])


def deviation_of(fields: F64, model: VaeformerModel, order: tuple[int, ...]) -> F32:
    """Return the deviation (C,) that each channel of fields (T, C, H, W) is normalised with, in their order."""
    places = list(order)
    deviation: F32 = normalisation_of(fields[:, np.argsort(places)], model.channels).deviation[places]
    return deviation


def nearest_index(step: float) -> int:
    """Return the step index that is nearest to a step in deviations, one that has others on both sides."""
    octaves = math.log2(min(max(step, 1 / FARTHEST), FARTHEST))
    return max(-INDEX_MAX + 1, min(round(STEPS * octaves), INDEX_MAX - 1))
