"""A chunk that is to reach a target, whichever latents code it: what is not theirs apart, numbers everywhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from isopress.codec.chunk.encode import encode_chunk
from isopress.codec.chunk.final_values import Sections, assemble_latent, encode_value, field_shape, special_section
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.limits import Bound, Target
from isopress.codec.values.distortion import measure
from isopress.codec.values.outliers import bits_of
from isopress.codec.values.special_values import fill_smoothly, find_specials

HEADER = 70  # bytes a payload has beside its sections, about
EVEN = 0.99 * sqrt(3)  # bound of an error that is the same everywhere below it, over its RMSE
FARTHEST = 1e30  # so many times the reach of values, and as small a part of it, are no errors that latents can aim at


@dataclass(frozen=True, eq=False)
class Prepared:
    """Fields (B, H, W) with special values, and `filled` with numbers in their places: the same where there are none.

    valid : where numbers are the original ones, None for everywhere; reach : how far they are from their middle
    """

    fields: np.ndarray
    filled: np.ndarray
    valid: NDArray[np.bool_] | None
    reach: float
    sections: Sections

    def coding(self, method: Method, section: tuple[Section, bytes], model: bytes, values: np.ndarray) -> EncodedChunk:
        """Return the coding by one section of latents, with the errors of the `values` that they decode to, which are
        used up."""
        sections = dict([*self.sections.items(), section])
        x_hat = assemble_latent(sections, values.reshape(self.fields.shape), self.fields.dtype)
        max_error, rmse = measure(self.fields, x_hat, None)
        return EncodedChunk(method, tuple(sorted(sections.items())), (model,), max_error=max_error, rmse=rmse)


def prepare(x: np.ndarray, target: Target) -> Prepared | EncodedChunk | None:
    """Return what is to be coded of values that are some, the coding of a constant chunk, or None where latents do not
    apply."""
    fields = x.reshape(field_shape(x.shape))
    specials = find_specials(fields, exact=target.exact)
    valid, sections = None if specials is None else specials.valid, special_section(specials)
    if specials is not None:
        special = ~specials.valid
        if (specials.patterns[specials.classes[special] - 1] != bits_of(fields)[special]).any():
            return None  # beyond 255 kinds of special values the rarer ones would not keep their bits
    ordinary = fields if valid is None else fields[valid]
    low, high = (ordinary.min(), ordinary.max()) if ordinary.size else (fields.dtype.type(0),) * 2
    if low == high:
        constant = {Section.PARAMETERS: encode_value(low), **sections}
        return EncodedChunk(Method.CONSTANT, tuple(sorted(constant.items())))
    reach = float(high) / 2 - float(low) / 2
    if target.rmse is not None and not 1 / FARTHEST < target.rmse / reach < FARTHEST:
        return None
    filled = fields
    if valid is not None:
        with np.errstate(invalid="ignore"):  # signalling NaN
            filled = fill_smoothly(np.where(valid, fields.astype(np.float64), 0.0), valid)
    return Prepared(fields, filled, valid, reach, sections)


def evenly_coded(x: np.ndarray, rmse: float, exact: tuple[float, ...]) -> EncodedChunk:
    """Return the bounded coding whose error is this RMSE if it is the same everywhere below the bound."""
    bound = min(EVEN * rmse, sys.float_info.max)
    return replace(encode_chunk(x, Bound("abs", bound, exact=exact)), resolved_bound=0.0)
