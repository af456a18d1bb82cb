"""encode_latent: code a chunk at the step that reaches a ratio or an error, by the VAEformer's latents alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.pyramid import looks_periodic
from isopress.codec.decode import Sections, assemble_latent, field_shape
from isopress.codec.encode import encode_chunk, encode_value, lossless_coding, measure, special_section
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.latent.coefficients import TRADE
from isopress.codec.latent.section import GAINS, WORTH_GAINS, CodedFields, Latent, code_fields, coded_shape
from isopress.codec.latent.step_forecast import Forecast, next_step
from isopress.codec.latent.weights import LatentModel, load_latent
from isopress.codec.limits import TARGET_TOLERANCE, Bound, Target, check_effort, check_fits
from isopress.codec.threads import in_turn
from isopress.codec.values.fill import fill_smoothly
from isopress.codec.values.outliers import bits_of
from isopress.codec.values.special_values import Specials, find_specials

F64 = NDArray[np.float64]

HEADER = 70  # bytes a payload has beside its sections, about
TRADES = (TRADE, 0.085, 0.12, 0.07, 0.15)  # squared steps per bit, likeliest first
SIZE_OF_ERROR = 1.3  # bytes fall with this power of the error, about
LOSSLESS_NEVER = 20  # times smaller: not worth a try
TRIES = 9
AIM = 0.997  # part of the target that a search aims at
LEAST, MOST = 1 / (1 + TARGET_TOLERANCE), 1.025  # parts of the target that are near enough;
MOST_BYTES = 1 + TARGET_TOLERANCE - GAINS / WORTH_GAINS  # of bytes, to which gains are added at the end
EVEN = 0.99 * math.sqrt(3)  # bound of an error that is the same everywhere below it, over its RMSE
PILOT = 4  # of how many parts one is coded to find the first step
LARGE = 100_000  # values of a part that is worth it
EDGES = 1.02  # errors and bits per value of such a part over those of the whole, at 0.25 degree
COARSEST = 32.0  # steps beyond so many standard deviations hold nothing but the mean
FINEST = 2.0**-13  # of the largest deviation: finer latents are too large for binary32, and never small
TINIEST, HUGEST = 1e-290, 1e290  # what lies beyond is left to lossless coding


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
    check_fits(target, x.dtype, x.shape)
    check_effort(effort)
    x = np.ascontiguousarray(x, native).reshape(x.shape)
    found = None
    if x.size:
        weights = load_latent(model)
        found = _best([_Search(x, target, weights, trade).run() for trade in TRADES[: effort + 1]], target)
    if found is not None and LOSSLESS_NEVER * found.nbytes < x.nbytes and target.allows(found.rmse):
        return found
    others = [lossless_coding(x, {}, quick=False)]
    if x.size and target.rmse is not None:
        # So fine a target that latents do not pay.
        bounded = encode_chunk(x, Bound("abs", EVEN * target.rmse))
        others.append(replace(bounded, resolved_bound=0.0))
    if found is not None:
        others.append(found)
    return min((c for c in others if target.allows(c.rmse)), key=lambda c: c.nbytes)


def _best(codings: list[EncodedChunk | None], target: Target) -> EncodedChunk | None:
    """Return the coding that would be smallest at equal error: none hits the target exactly."""
    found = [coding for coding in codings if coding is not None and target.allows(coding.rmse)]
    return min(found, key=lambda c: c.nbytes * c.rmse**SIZE_OF_ERROR) if found else codings[0]


@dataclass(frozen=True)
class _Try:
    """Fields coded at one step; their errors are measured when somebody asks.

    filled : the values that were coded, numbers where `fields` may have NaN
    """

    coded: CodedFields
    filled: F64
    fields: np.ndarray
    sections: Sections

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the payload."""
        return HEADER + len(self.coded.section) + sum(len(s) for s in self.sections.values())

    @cached_property
    def chunk(self) -> EncodedChunk:
        """The coding with the errors of its decoded values."""
        section, values = self.coded.equalised(self.filled)
        whole: Sections = {**self.sections, Section.LATENT: section}
        x_hat = assemble_latent(whole, values.reshape(self.fields.shape), self.fields.dtype)
        max_error, rmse = measure(self.fields, x_hat, None)
        ordered = tuple((int(s), whole[s]) for s in sorted(whole))
        return EncodedChunk(Method.LATENT, ordered, (self.coded.model.sha256,), max_error=max_error, rmse=rmse)


@dataclass(frozen=True)
class _Search:
    x: np.ndarray
    target: Target
    model: LatentModel
    trade: float

    @in_turn
    def run(self) -> EncodedChunk | None:
        """Return the coding nearest to the target on its good side; None where latents do not apply."""
        fields = self.x.reshape(field_shape(self.x.shape))
        specials = find_specials(fields, exact=self.target.exact)
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
        unit = Latent(deviation, offset, looks_periodic(y, valid))
        finest = FINEST * reach / deviation
        return self._searched(y.reshape(coded_shape(shape)), fields, unit, sections, finest).chunk

    def _searched(self, y: F64, fields: np.ndarray, unit: Latent, sections: Sections, finest: float) -> _Try:
        """Try steps, in units of the standard deviation, until one reaches the target."""
        goal = AIM * self._wanted()
        forecast = Forecast.of((y - unit.offset) / unit.step, of_error=self.target.ratio is None)
        foretold = forecast.step(goal / unit.step if forecast.of_error else 8 * goal / self.x.size)
        step = self._first(y, unit, min(max(foretold, finest), COARSEST), forecast)
        seen: list[tuple[float, float]] = []
        best: _Try | None = None
        for _ in range(TRIES):
            step = min(max(step, finest), COARSEST)
            latent = replace(unit, step=step * unit.step)
            found = _Try(code_fields(y, latent, self.model, trade=self.trade), y, fields, sections)
            value = self._value(found)
            if best is None or self._nearer(value, self._value(best)):
                best = found
            if LEAST <= value / self._wanted() <= self._most:
                break
            seen.append((step, value))
            following = next_step(seen, goal, forecast)
            if math.isclose(min(max(following, finest), COARSEST), step, rel_tol=1e-6):
                break
            step = following
        assert best is not None
        return best

    def _first(self, y: F64, unit: Latent, step: float, forecast: Forecast) -> float:
        """Return the step to begin with: `step`, for large fields corrected by what it does to their middle part."""
        w = y.shape[-1] // PILOT
        if y.shape[-2] * w < LARGE:
            return step
        part = y[..., (y.shape[-1] - w) // 2 :][..., :w]
        coded = code_fields(part, replace(unit, step=step * unit.step, periodic=False), self.model, trade=self.trade)
        if forecast.of_error:
            found = math.sqrt(float(np.square((coded.fields() - part) / unit.step).mean()))
        else:
            found = 8 * len(coded.section) / part.size
        foretold = Forecast.of((part - unit.offset) / unit.step, of_error=forecast.of_error).value(step)
        return forecast.step(forecast.value(step) * EDGES * foretold / found) if found else step

    @property
    def _most(self) -> float:
        """Return the largest part of the target that is near enough."""
        return MOST_BYTES if self.target.rmse is None else MOST

    def _wanted(self) -> float:
        """Return the number of bytes, or the error, that is wanted."""
        if self.target.ratio is not None:
            return self.x.nbytes / self.target.ratio
        assert self.target.rmse is not None
        return self.target.rmse

    def _value(self, found: _Try) -> float:
        return float(found.nbytes) if self.target.ratio is not None else found.chunk.rmse

    def _nearer(self, value: float, best: float) -> bool:
        """Whether a coding is to be preferred: on the good side of the target, and there the largest."""
        limit = self._most * self._wanted()
        return (value > limit, -value if value <= limit else value) < (best > limit, -best if best <= limit else best)


def _all_told_apart(specials: Specials, fields: np.ndarray) -> bool:
    """Whether every special value keeps its bits; beyond 255 kinds the rarer ones would not."""
    special = ~specials.valid
    return bool((specials.patterns[specials.classes[special] - 1] == bits_of(fields)[special]).all())
