"""encode_latent: code a chunk at the step that reaches a ratio or an error, by the VAEformer's latents alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isopress.codec.assembly import FLOATS, Sections, assemble_latent, field_shape
from isopress.codec.bound import Bound
from isopress.codec.chunk import encode_chunk, encode_value, lossless_coding, measure, special_section
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.errors import ArgumentError
from isopress.codec.exceptions import bits_of
from isopress.codec.fill import fill_smoothly
from isopress.codec.pyramid import looks_periodic
from isopress.codec.special import Specials, find_specials
from isopress.codec.target import MAX_EFFORT, TOLERANCE, Target
from isopress.codec.vaeformer.latents import TRADE
from isopress.codec.vaeformer.mixing import choose
from isopress.codec.vaeformer.model import LatentModel, load_vaeformer
from isopress.codec.vaeformer.section import Latent, coded_shape, encode_fields
from isopress.codec.vaeformer.wavelet import analyse, levels

F64 = NDArray[np.float64]

HEADER = 56  # bytes a payload has beside its sections, about
TRADES = (TRADE, 0.09, 0.15, 0.07, 0.18)  # squared steps per bit, likeliest first
SIZE_OF_ERROR = 1.3  # bytes fall with this power of the error, about
LOSSLESS_NEVER = 20  # times smaller: not worth a try
TRIES = 9
AIM = 0.985  # part of the target that a search aims at: inside its tolerance from both sides
COARSEST = 32.0  # steps beyond so many standard deviations hold nothing but the mean
FINEST = 2.0**-13  # of the largest deviation: finer latents are too large for binary32, and never small
TINIEST, HUGEST = 1e-290, 1e290  # what lies beyond is left to lossless coding
WINDOW = (768, 192)  # values of each field that the first guess looks at: all latitudes
LIKELY_STEP = 0.3  # standard deviations
DEAD = 0.72  # steps: coefficients below become zero, about
BITS_PER_SYMBOL = 4.5  # of a coefficient that does not, about, with what the zeros cost
KEPT_ERROR = 0.09  # squared steps of error of such a coefficient, about


def encode_latent(x: np.ndarray, target: Target, *, model: str = "default", effort: int = 0) -> EncodedChunk:
    """Return the coding of `x` that reaches `target` within 3 %, errors measured on its decoded values.

    NaN, infinities and -0.0 come back with all their bits. A chunk too small, or too noisy, for the ratio gets the
    smallest coding there is that still holds something; constant chunks and those that are smaller without loss are
    coded so.

    Parameters
    ----------
    x : ndarray, any shape
        float32 or float64. The last two axes are the field (lat, lon); what fields along the axes before them share
        is coded once.
    target : Target
    model : str
        Name of the weights.
    effort : int
        How many other ways to weigh rate against distortion are tried, 0 to 4; each costs as much time again.

    Raises
    ------
    ArgumentError
        Another dtype or effort.
    ModelNotFoundError
        `model` is not installed.
    """
    native = x.dtype.newbyteorder("=")
    if native not in FLOATS:
        raise ArgumentError(f"dtype {x.dtype} has no mode 'latent'; allowed are float32 and float64")
    if not 0 <= effort <= MAX_EFFORT:
        raise ArgumentError(f"effort is 0 to {MAX_EFFORT}, got {effort!r}")
    x = np.ascontiguousarray(x, native).reshape(x.shape)
    found = None
    if x.size:
        weights = load_vaeformer(model)
        found = _best([_Search(x, target, weights, trade).run() for trade in TRADES[: effort + 1]], target)
    if found is not None and LOSSLESS_NEVER * found.nbytes < x.nbytes and target.allows(found.rmse):
        return found
    others = [lossless_coding(x, {}, quick=False)]
    if x.size and target.rmse is not None:
        # So fine a target that latents do not pay: an even error within this bound has the target's RMSE.
        bounded = encode_chunk(x, Bound("abs", math.sqrt(3) * AIM * target.rmse))
        others.append(replace(bounded, resolved_bound=0.0))
    if found is not None:
        others.append(found)
    return min((c for c in others if target.allows(c.rmse)), key=lambda c: c.nbytes)


def _best(codings: list[EncodedChunk | None], target: Target) -> EncodedChunk | None:
    """Return the coding that would be smallest at equal error: none hits the target exactly."""
    found = [coding for coding in codings if coding is not None and target.allows(coding.rmse)]
    return min(found, key=lambda c: c.nbytes * c.rmse**SIZE_OF_ERROR) if found else codings[0]


@dataclass(frozen=True)
class _Search:
    x: np.ndarray
    target: Target
    model: LatentModel
    trade: float

    def run(self) -> EncodedChunk | None:
        """Return the coding nearest to the target on its good side; None where latents do not apply."""
        fields = self.x.reshape(field_shape(self.x.shape))
        specials = find_specials(fields)
        valid = None if specials is None else specials.valid
        if specials is not None and not _all_told_apart(specials, fields):
            return None
        sections: Sections = special_section(specials)
        ordinary = fields if valid is None else fields[valid]
        low, high = (ordinary.min(), ordinary.max()) if ordinary.size else (fields.dtype.type(0),) * 2
        if low == high:
            constant = {Section.PARAMETERS: encode_value(low), **sections}
            return EncodedChunk(Method.CONSTANT, tuple((int(s), constant[s]) for s in sorted(constant)))
        reach = float(high) / 2 - float(low) / 2
        if not TINIEST < reach < HUGEST:
            return None
        y = fields.astype(np.float64)
        if valid is not None:
            y = fill_smoothly(np.where(valid, y, 0.0), valid)
        offset = float(y.mean())
        deviation = float(((y - offset) / reach).std()) * reach
        shape = (*self.x.shape[:-2], *fields.shape[1:])
        latent = Latent(deviation, offset, looks_periodic(y, valid))
        return self._searched(
            y.reshape(coded_shape(shape)), fields, latent, sections, (FINEST * reach, COARSEST * deviation)
        )

    def _searched(
        self, y: F64, fields: np.ndarray, latent: Latent, sections: Sections, limits: tuple[float, float]
    ) -> EncodedChunk | None:
        goal = self._goal()
        step = float(np.clip(self._guess(y, latent, goal / latent.step) * latent.step, *limits))
        seen: list[tuple[float, float]] = []  # log step, log of what is aimed at
        best: EncodedChunk | None = None
        for _ in range(TRIES):
            coding = self._coded(y, fields, replace(latent, step=step), sections)
            value = self._value(coding)
            if best is None or self._nearer(value, self._value(best), goal):
                best = coding
            if 1 / (1 + TOLERANCE) <= value * AIM / goal <= 1:
                break
            seen.append((math.log(step), math.log(max(value, 1e-300))))
            wanted = _next(seen, math.log(goal), rising=self.target.ratio is None)
            following = math.exp(float(np.clip(wanted, math.log(limits[0]), math.log(limits[1]))))
            if math.isclose(following, step, rel_tol=1e-6):
                break
            step = following
        return best

    def _goal(self) -> float:
        """Return the number of bytes, or the error, that is aimed at."""
        if self.target.ratio is not None:
            return AIM * self.x.nbytes / self.target.ratio
        assert self.target.rmse is not None
        return AIM * self.target.rmse

    def _value(self, coding: EncodedChunk) -> float:
        return float(coding.nbytes + HEADER) if self.target.ratio is not None else coding.rmse

    def _nearer(self, value: float, best: float, goal: float) -> bool:
        """Whether a coding is to be preferred: on the good side of the target, and there the largest."""
        limit = goal / AIM
        return (value > limit, -value if value <= limit else value) < (best > limit, -best if best <= limit else best)

    def _coded(self, y: F64, fields: np.ndarray, latent: Latent, sections: Sections) -> EncodedChunk:
        section, decoded = encode_fields(y, latent, self.model, trade=self.trade)
        whole: Sections = {**sections, Section.LATENT: section}
        x_hat = assemble_latent(whole, decoded.reshape(fields.shape), fields.dtype)
        max_error, rmse = measure(fields, x_hat, None)
        ordered = tuple((int(s), whole[s]) for s in sorted(whole))
        return EncodedChunk(Method.LATENT, ordered, (self.model.sha256,), max_error=max_error, rmse=rmse)

    def _guess(self, y: F64, latent: Latent, goal: float) -> float:
        """Return a step that is near the goal, from the wavelet coefficients of a window of the channels alone.

        Step and goal are in standard deviations, which is what `latent.step` is so far.
        """
        h, w = y.shape[-2:]
        top, left = (max(0, (have - want) // 2) for have, want in zip((h, w), WINDOW, strict=True))
        low = (y[..., top : top + WINDOW[0], left : left + WINDOW[1]] - latent.offset) / latent.step
        for axis, mixing in enumerate(choose(low, LIKELY_STEP)):
            low = mixing.forward(low, axis)
        found = []
        for level in levels(low.shape[-2], low.shape[-1], periodic=False):
            low, bands = analyse(low, level)
            found += [np.abs(b).ravel() for b in bands]
        magnitudes = np.sort(np.concatenate([*found, np.abs(low).ravel()]))[::-1]
        if self.target.ratio is not None:
            count = int(8 * goal * latent.step / BITS_PER_SYMBOL * magnitudes.size / self.x.size)
            return float(magnitudes[min(max(count, 1), magnitudes.size - 1)]) / DEAD
        number = np.arange(magnitudes.size)
        smaller = np.cumsum(np.square(magnitudes[::-1]))[::-1]  # energy of this coefficient and all smaller ones
        error = smaller + number * np.square(magnitudes / DEAD) * KEPT_ERROR
        at = int(np.searchsorted(-error, -(goal**2) * magnitudes.size))
        return float(magnitudes[min(at, magnitudes.size - 1)]) / DEAD


def _all_told_apart(specials: Specials, fields: np.ndarray) -> bool:
    """Whether every special value keeps its bits; beyond 255 kinds the rarer ones would not."""
    special = ~specials.valid
    return bool((specials.patterns[specials.classes[special] - 1] == bits_of(fields)[special]).all())


def _next(seen: list[tuple[float, float]], goal: float, *, rising: bool) -> float:
    """Return the logarithm of the step to try: between two that enclose the goal, else along the usual slope."""
    below = [s for s in seen if s[1] <= goal]
    above = [s for s in seen if s[1] > goal]
    if below and above:
        (s0, v0), (s1, v1) = max(below, key=lambda s: s[1]), min(above, key=lambda s: s[1])
        part = min(max((goal - v0) / (v1 - v0), 0.05), 0.95)
        return s0 + part * (s1 - s0)
    step, value = min(seen, key=lambda s: abs(s[1] - goal))
    slope = 0.75 if rising else -1.0
    return step + (goal - value) / slope
