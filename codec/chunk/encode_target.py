"""encode_target: code a chunk at the step that reaches a ratio or an RMSE, by latents alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from isopress.codec.arrays import contiguous
from isopress.codec.bounded.fields_alone import looks_periodic
from isopress.codec.chunk.encode import check_channels, encode_chunk, lossless_coding
from isopress.codec.chunk.prepared import HEADER, Prepared, evenly_coded, prepare
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.latent.coefficients import TRADE
from isopress.codec.latent.section import WORTH_GAINS, CodedFields, Latent, Layout, Reals, code_fields, coded_shape
from isopress.codec.latent.spectral_gain import GAINS
from isopress.codec.latent.step_forecast import Forecast, next_step
from isopress.codec.latent.weights import LatentModel, load_latent
from isopress.codec.limits import TARGET_TOLERANCE, Bound, Target, check_effort, check_fits
from isopress.codec.models.registry import DEFAULT, NamedModel, is_of_kind
from isopress.codec.threads import IMPORTS

TRADES = (TRADE, 0.085, 0.12, 0.07, 0.15)  # squared steps per bit, likeliest first
SIZE_OF_ERROR = 1.3  # bytes fall with this power of the error, about
LOSSLESS_NEVER = 20  # times smaller: not worth a try
TRIES = 9
BOUNDED_TRIES = 6  # where latents are too small
AIM = 0.997  # part of the target that a search aims at
LEAST, MOST = 1 / (1 + TARGET_TOLERANCE), 1.025  # parts of the target that are near enough;
MOST_BYTES = 1 + TARGET_TOLERANCE - GAINS / WORTH_GAINS  # of bytes, to which gains are added at the end
PILOT = 4  # of how many parts one is coded to find the first step
LARGE = 100_000  # values of a part that is worth it
NEAR = 1.3  # times larger or smaller steps have the same transforms and halvings
EDGES = 1.02  # errors and bits per value of such a part over those of the whole, at 0.25 degree
COARSEST = 32.0  # steps beyond so many standard deviations hold nothing but the mean
FINEST = 2.0**-13  # of the largest deviation: finer latents are too large for binary32, and never small
TINIEST, HUGEST = 1e-290, 1e290  # what lies beyond is left to lossless coding
ROWS = 64  # of a field whose squares are summed at once


def encode_target(x: np.ndarray, target: Target, *, model: NamedModel = DEFAULT, effort: int = 0) -> EncodedChunk:
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
    model : NamedModel
        The weights; those of a VAEformer code in their own way, without effort.
    effort : int
        How many other ways to weigh rate against distortion are tried, 0 to 4; each costs as much time again.

    Raises
    ------
    ArgumentError
        Another dtype or effort.
    ModelNotFoundError
        `model` is not installed.
    """
    check_fits(target, x.dtype, x.shape)
    check_effort(effort)
    check_channels(model, x.shape)
    x, codings = contiguous(x), list[EncodedChunk]()
    if is_of_kind(model.name, "vaeformer"):
        with IMPORTS:
            from isopress.codec.chunk.encode_vaeformer import encode_by_vaeformer

        return encode_by_vaeformer(x, target, model)
    if x.size:
        weights, prepared = load_latent(model.name), prepare(x, target)
        if isinstance(prepared, EncodedChunk):
            codings.append(prepared)
        elif prepared is not None and TINIEST < prepared.reach < HUGEST:
            job = _Job.of(prepared, x.shape, weights)
            for trade in TRADES[: effort + 1]:
                codings.append(_search(job, target, trade))
    found, least = codings[0] if codings else None, math.inf
    for coding in codings:  # none hits the target exactly: the best would be smallest at equal error
        size = coding.nbytes * coding.rmse**SIZE_OF_ERROR
        if target.allows(coding.rmse) and size < least:
            found, least = coding, size
    if found is not None and LOSSLESS_NEVER * found.nbytes < x.nbytes and target.allows(found.rmse):
        return found
    others = [lossless_coding(x, {}, quick=False), *([found] if found is not None else [])]
    if target.ratio is not None:
        return _nearest(x, others, x.nbytes / target.ratio, target)
    if x.size and target.rmse is not None:
        # So fine a target that latents do not pay.
        others.append(evenly_coded(x, target.rmse, target.exact))
    return min((c for c in others if target.allows(c.rmse)), key=lambda c: c.nbytes)


def _nearest(x: np.ndarray, found: list[EncodedChunk], wanted: float, target: Target) -> EncodedChunk:
    """Return the coding of least error among those small enough; if there is none the smallest.

    Latents cannot be arbitrarily fine, nor hold every kind of NaN. Where they and a lossless coding leave a gap,
    bounded codings are tried: half the bound takes a bit more for each value.
    """
    most = (1 + TARGET_TOLERANCE) * wanted
    fit = [coding for coding in found if HEADER + coding.nbytes <= most]
    exact = any(not coding.max_error for coding in fit)
    latents = any(coding.method == Method.LATENT for coding in found)
    coarse = all(HEADER + coding.nbytes < LEAST * wanted for coding in fit) if fit else not latents
    if x.size and coarse and not exact:
        finite = x[np.isfinite(x)]
        reach = float(finite.max()) / 2 - float(finite.min()) / 2 if finite.size else 0.0
        bound = max((coding.rmse for coding in fit), default=0.0) or reach / 4
        for _ in range(BOUNDED_TRIES):
            if not TINIEST < bound < min(HUGEST, reach):
                break
            coding = replace(encode_chunk(x, Bound("abs", bound, exact=target.exact)), resolved_bound=0.0)
            found.append(coding)
            nbytes = HEADER + coding.nbytes
            if LEAST * wanted <= nbytes <= most:
                break
            bound *= 2.0 ** (8 * (nbytes - AIM * wanted) / x.size)
    small = [coding for coding in found if HEADER + coding.nbytes <= most]
    if not small:
        return min(found, key=lambda coding: coding.nbytes)
    return min(small, key=lambda coding: (coding.rmse, coding.nbytes))


@dataclass(frozen=True, eq=False)
class _Job:
    """A chunk as latents take it.

    y : what is coded, numbers everywhere (..., h, w): a view of the values where none are special
    unit : how y would be coded with a step of one standard deviation; finest : the finest step, in such
    """

    prepared: Prepared
    y: Reals
    unit: Latent
    finest: float
    model: LatentModel

    @classmethod
    def of(cls, prepared: Prepared, shape: tuple[int, ...], model: LatentModel) -> _Job:
        """Return the job of a chunk of this shape."""
        filled, reach = prepared.filled, prepared.reach
        offset = float(filled.mean(dtype=np.float64))
        deviation = _deviation(filled, offset, reach)
        unit = Latent(deviation, offset, looks_periodic(filled, prepared.valid))
        y = filled.reshape(coded_shape((*shape[:-2], *filled.shape[1:])))
        return cls(prepared, y, unit, FINEST * reach / deviation, model)

    def coding(self, coded: CodedFields) -> EncodedChunk:
        """Return the coding with the errors of its decoded values."""
        section, values = coded.equalised(self.y)
        return self.prepared.coding(Method.LATENT, (Section.LATENT, section), coded.model.sha256, values)


def _deviation(fields: Reals, offset: float, reach: float) -> float:
    """Return the standard deviation of fields (B, H, W) that lie within `reach` of their middle, about their mean."""
    total = 0.0
    for field in fields:
        for start in range(0, len(field), ROWS):  # a few rows at a time: no array as large as the fields
            part = np.subtract(field[start : start + ROWS], offset, dtype=np.float64)
            part /= reach
            total += float(np.square(part, out=part).sum())
    return math.sqrt(total / fields.size) * reach


def _search(job: _Job, target: Target, trade: float) -> EncodedChunk:
    """Try steps, in units of the standard deviation, until one reaches the target; return the coding nearest to it, on
    its good side if there is one."""
    fields, sections = job.prepared.fields, job.prepared.sections
    wanted = max(fields.nbytes / target.ratio, 1.0) if target.ratio is not None else target.rmse
    assert wanted is not None
    goal, most = AIM * wanted, (MOST_BYTES if target.rmse is None else MOST) * wanted
    mean, deviation = job.unit.offset, job.unit.step
    forecast = Forecast.of(job.y, of_error=target.ratio is None, mean=mean, deviation=deviation)
    step = forecast.step(goal / job.unit.step if forecast.of_error else 8 * goal / fields.size)
    step = laid_out = min(max(step, job.finest), COARSEST)
    layout = Layout.of(job.y, replace(job.unit, step=step * job.unit.step))
    step = _first_step(job, step, forecast, trade, layout)
    nbytes, seen = HEADER + sum(map(len, sections.values())), list[tuple[float, float]]()
    best: tuple[tuple[bool, float], CodedFields, EncodedChunk | None] | None = None
    for _ in range(TRIES):
        step = min(max(step, job.finest), COARSEST)
        latent = replace(job.unit, step=step * job.unit.step)
        if not 1 / NEAR < step / laid_out < NEAR:
            layout, laid_out = Layout.of(job.y, latent), step
        coded = code_fields(job.y, latent, job.model, mixings=layout.mixings, ahead=layout.ahead, trade=trade)
        chunk = job.coding(coded) if forecast.of_error else None
        value = float(nbytes + len(coded.section)) if chunk is None else chunk.rmse
        order = value > most, value if value > most else -value
        if best is None or order < best[0]:
            best = order, coded, chunk
        if LEAST * wanted <= value <= most:
            break
        seen.append((step, value))
        following = next_step(seen, goal, forecast)
        if math.isclose(min(max(following, job.finest), COARSEST), step, rel_tol=1e-6):
            break
        step = following
    assert best is not None
    return best[2] or job.coding(best[1])


def _first_step(job: _Job, step: float, forecast: Forecast, trade: float, layout: Layout) -> float:
    """Return the step to begin with: `step`, for large fields corrected by what it does to their middle part."""
    y, unit, w = job.y, job.unit, job.y.shape[-1] // PILOT
    if y.shape[-2] * w < LARGE:
        return step
    part = y[..., (y.shape[-1] - w) // 2 :][..., :w]
    latent, layout = replace(unit, step=step * unit.step, periodic=False), layout.of_part(*part.shape[-2:])
    coded = code_fields(part, latent, job.model, mixings=layout.mixings, ahead=layout.ahead, trade=trade)
    if forecast.of_error:
        found = math.sqrt(float(np.square((coded.fields() - part) / unit.step).mean()))
    else:
        found = 8 * len(coded.section) / part.size
    again = Forecast.of(part, of_error=forecast.of_error, mean=unit.offset, deviation=unit.step)
    foretold = again.value(step)
    return forecast.step(forecast.value(step) * EDGES * foretold / found) if found else step
