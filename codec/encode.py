"""encode_chunk / decode_chunk: code a chunk every way that applies, verify, keep the smallest.

The one place where mask, plan, pyramid, exceptions and lossless coding meet.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from isopress.codec.bounded import block, pyramid, weights
from isopress.codec.bounded.choice import ContextMode, choose_context
from isopress.codec.decode import FLOATS, ChunkDecoder, Sections, Value, assemble, field_shape
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.errors import ArgumentError, BoundError
from isopress.codec.limits import Bound, exceeds
from isopress.codec.values.label_map import encode_classes
from isopress.codec.values.lossless import encode_lossless
from isopress.codec.values.outliers import (
    apply_exceptions,
    bits_of,
    decode_exceptions,
    encode_exceptions,
    find_exceptions,
)
from isopress.codec.values.plan import Plan, make_joint_plan, make_plan
from isopress.codec.values.quantiser import LINEAR, LOG, UNITS
from isopress.codec.values.special_values import Specials, encode_specials, find_specials

__all__ = ["ChunkDecoder", "ContextMode", "decode_chunk", "encode_chunk"]

Bounds = Bound | tuple[Bound, ...]
Tolerance = float | np.ndarray | None

MAX_PYRAMID_STEPS = 2.0**21
WORTH_A_BASE = 0.45  # bits per value: where pyramids alone take more, or have one field, a latent base never helped
BASE_OVERHEAD = 200  # bytes: smaller chunks cannot gain what a base costs
MAX_INTEGERS = 2.0**46  # v = 64 * integer is then exact in float64


def encode_chunk(
    x: np.ndarray, bound: Bounds, *, model: str = "default", context: ContextMode = "auto"
) -> EncodedChunk:
    """Return the smallest coding found of `x` whose decoded values keep `bound`, checked on those values.

    Never more than 1 byte larger than zstd (level 3) or pcodec on the raw values. NaN, infinities and -0.0
    come back with all their bits.

    Parameters
    ----------
    x : ndarray, any shape
        float32 or float64; with mode lossless also float16, integers and bool. The last two axes are the
        field (lat, lon).
    bound : Bound or tuple of Bound
        Mode range refers to the finite values of this chunk. Of a tuple, one absolute bound for each entry of
        the first axis.
    model : str
        Name of the pyramid's weights.
    context : {"auto", "field", "block"}
        Whether fields refer to each other along the axes before the last two: where that is smaller (found on
        a sample, for small chunks on all of it), never, or whenever there are such axes.

    Raises
    ------
    ArgumentError
        The dtype does not go with the mode, or with isopress at all; the bounds do not go with the shape.
    ModelNotFoundError
        `model` is not installed.
    BoundError
        The final check failed: a bug, since exceptions repair any value.
    """
    modes = {b.mode for b in bound} if isinstance(bound, tuple) else {bound.mode}
    native = x.dtype.newbyteorder("=")
    if native not in FLOATS and modes != {"lossless"}:
        raise ArgumentError(
            f"dtype {x.dtype} has no mode {min(modes)!r}; allowed are float32 and float64, or mode 'lossless'"
        )
    if isinstance(bound, tuple) and (modes != {"abs"} or x.ndim < 3 or len(bound) != x.shape[0]):
        raise ArgumentError(
            f"{len(bound)} bounds of modes {sorted(modes)} for an array of shape {x.shape}; joint coding takes one "
            "bound of mode 'abs' for each entry of the first of at least 3 axes"
        )
    x = np.ascontiguousarray(x, native).reshape(x.shape)
    extra = {Section.BOUNDS: _bounds_section(bound)} if isinstance(bound, tuple) else {}
    best = lossless_coding(x, extra, quick=True)
    if x.dtype in FLOATS and x.size:
        job = _Job(x.reshape(field_shape(x.shape)), x.shape[:-2], bound, model, context, extra)
        for coding in job.codings():
            best = min(best, coding, key=lambda chunk: chunk.nbytes)
    if best.method == Method.LOSSLESS:
        best = lossless_coding(x, extra, quick=False)
    return replace(best, resolved_bound=1.0 if isinstance(bound, tuple) else bound.resolve(x))


def decode_chunk(encoded: EncodedChunk, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values of `encoded` in `dtype` and `shape`, C order, native byte order.

    Raises as `ChunkDecoder` does.
    """
    return ChunkDecoder(encoded, dtype, shape).decode()


def _bounds_section(bounds: tuple[Bound, ...]) -> bytes:
    return np.array([b.value for b in bounds], "<f8").tobytes()


def lossless_coding(x: np.ndarray, extra: Sections, *, quick: bool) -> EncodedChunk:
    sections = {Section.LOSSLESS: encode_lossless(x, quick=quick), **extra}
    return EncodedChunk(Method.LOSSLESS, tuple((int(s), sections[s]) for s in sorted(sections)))


@dataclass(frozen=True)
class _Job:
    """What is to be coded: fields (B, H, W), lengths of the axes before them, and how; `extra` is in every coding."""

    x: np.ndarray
    leading: tuple[int, ...]
    bound: Bounds
    model: str
    context: ContextMode
    extra: Sections

    def codings(self) -> Iterator[EncodedChunk]:
        """Yield every coding that applies; each is verified."""
        x, bound = self.x, self.bound
        bits = bits_of(x)
        tolerance = self._tolerance()
        if (bits == bits[0, 0, 0]).all():
            yield self._verified(Method.CONSTANT, {Section.PARAMETERS: encode_value(x[0, 0, 0])}, None, tolerance)
            return
        zeros = isinstance(bound, Bound) and bound.mode == "pointwise" and bound.floor is None
        specials = find_specials(x, zeros=zeros)
        valid = None if specials is None else specials.valid
        ordinary = x.reshape(-1) if valid is None else x[valid]
        value = _common_value(ordinary, tolerance)
        if value is not None:
            sections = {Section.PARAMETERS: encode_value(value), **special_section(specials)}
            yield self._verified(Method.CONSTANT, sections, None, tolerance)
            return
        filled = x if valid is None else np.where(valid, x, ordinary[0])  # arithmetic on NaN would warn
        plan = (
            make_joint_plan(filled, valid, bound)
            if isinstance(bound, tuple)
            else make_plan(filled, valid, bound, tolerance)
        )
        if plan is None:
            return
        shared = {
            Section.PARAMETERS: plan.quantiser.to_bytes(),
            **special_section(specials),
            **_sign_section(x, valid, plan),
        }
        yield from self._planned(plan, valid, shared, tolerance)

    def _planned(
        self, plan: Plan, valid: np.ndarray | None, shared: Sections, tolerance: Tolerance
    ) -> Iterator[EncodedChunk]:
        reach = float(np.abs(plan.y).max())
        smallest = math.inf
        if reach <= MAX_PYRAMID_STEPS:
            for coding in self._pyramids(plan, valid, shared, tolerance):
                smallest = min(smallest, coding.nbytes)
                yield coding
            yield from self._based(plan, valid, shared, tolerance, smallest)
        if reach <= MAX_INTEGERS:
            section, integers = _encode_integers(plan.y, valid)
            if len(section) < smallest:  # else it need not be verified
                v = integers * float(UNITS)
                yield self._verified(Method.INTEGERS, {**shared, Section.INTEGERS: section}, v, tolerance)

    def _pyramids(
        self, plan: Plan, valid: np.ndarray | None, shared: Sections, tolerance: Tolerance
    ) -> Iterator[EncodedChunk]:
        alone, related = weights.load_pyramid(self.model), weights.load_pyramid(self.model, references=True)
        chosen = choose_context(plan, valid, self.leading, alone, related, self.context)
        if chosen.alone:
            section, v = pyramid.encode(plan.y, valid, model=alone, snap=plan.snap)
            sections = {**shared, Section.PYRAMID: section}
            yield self._verified(Method.PYRAMID, sections, v, tolerance, (alone.sha256,))
        if chosen.axes is not None:
            section, v = block.encode(
                plan.y,
                valid,
                leading=self.leading,
                axes=chosen.axes,
                model=related,
                quantisation=pyramid.Quantisation(chosen.taper, plan.snap),
            )
            yield self._verified(Method.BLOCK, {**shared, Section.BLOCK: section}, v, tolerance, (related.sha256,))

    def _based(
        self, plan: Plan, valid: np.ndarray | None, shared: Sections, tolerance: Tolerance, smallest: float
    ) -> Iterator[EncodedChunk]:
        """Yield the coding with a latent base, where it applies and may be smaller than `smallest` bytes."""
        quantiser = plan.quantiser
        fitting = not plan.snap and quantiser.transform == LINEAR
        if not fitting or len(plan.y) == 1 or not BASE_OVERHEAD < smallest <= WORTH_A_BASE / 8 * plan.y.size:
            return
        from isopress.codec.latent import base_layer as based  # this imports torch
        from isopress.codec.latent.weights import load_latent

        base, refinement = load_latent(), weights.load_pyramid(self.model)
        coded = based.encode(plan.y, valid, self.leading, quantiser.offset / quantiser.step, base, refinement)
        if coded is None or sum(map(len, coded[0].values())) >= smallest:
            return
        sections, v = coded
        models = (base.sha256, refinement.sha256)
        coding = self._verified(Method.BASED, {**shared, **sections}, v, tolerance, models)
        # Exceptions would be corrections to values that are not the same on every machine.
        if Section.EXCEPTIONS not in dict(coding.sections):
            yield coding

    def _tolerance(self) -> Tolerance:
        """Return the largest allowed error: one number, one per value, or None for exact."""
        if isinstance(self.bound, Bound):
            return self.bound.tolerance(self.x) if self.bound.resolve(self.x) else None
        each = np.repeat([b.resolve(self.x) for b in self.bound], len(self.x) // len(self.bound))
        return np.broadcast_to(each[:, None, None], self.x.shape)

    def _verified(
        self,
        method: Method,
        sections: Sections,
        v: np.ndarray | None,
        tolerance: Tolerance,
        models: tuple[bytes, ...] = (),
    ) -> EncodedChunk:
        """Decode what was coded, list what misses the bound as exceptions, check again, measure."""
        x = self.x
        x_hat = assemble(sections, v, x.dtype, x.shape)
        missed = find_exceptions(x, x_hat, tolerance)
        if missed.positions.size:
            sections = {**sections, Section.EXCEPTIONS: encode_exceptions(missed, x_hat)}
            apply_exceptions(x_hat, decode_exceptions(sections[Section.EXCEPTIONS], x_hat))
            if find_exceptions(x, x_hat, tolerance).positions.size:
                raise BoundError(f"method {method.name} misses the bound in spite of its exceptions; please report it")
        unit = tolerance if isinstance(self.bound, tuple) else None
        max_error, rmse = measure(x, x_hat, unit)
        sections = {**sections, **self.extra}
        ordered = tuple((int(section), sections[section]) for section in sorted(sections))
        return EncodedChunk(method, ordered, models, max_error=max_error, rmse=rmse)


def measure(x: np.ndarray, x_hat: np.ndarray, unit: Tolerance) -> tuple[float, float]:
    """Return the largest and the root mean square |x - x_hat|, in `unit` if given, over the finite values of `x`."""
    finite = np.isfinite(x)
    with np.errstate(invalid="ignore"):  # signalling NaN
        error = np.subtract(x, x_hat, dtype=np.float64, where=finite, out=np.zeros(x.shape))
    np.abs(error, out=error)
    if unit is not None:
        error /= unit
    largest = float(error.max())
    if not largest:
        return 0.0, 0.0
    error /= largest  # squares must neither overflow nor vanish
    np.square(error, out=error)
    # Summed pairwise by numpy, not by a BLAS, and kept to binary32: the header too is the same on every machine.
    mean_square = float(error.sum()) / max(1, int(finite.sum()))
    return largest, float(np.float32(math.sqrt(mean_square))) * largest


def encode_value(value: Value) -> bytes:
    """Return the little-endian bits of one value."""
    return value.astype(value.dtype.newbyteorder("<")).tobytes()


def _common_value(ordinary: np.ndarray, tolerance: Tolerance) -> Value | None:
    """Return the value, if any, that may stand for every one of the `ordinary` values."""
    if not ordinary.size:
        return _as(ordinary.dtype, 0.0)
    low: Value = ordinary.min()
    high: Value = ordinary.max()
    if low == high:
        return low
    if tolerance is None or isinstance(tolerance, np.ndarray):
        return None
    middle = _as(ordinary.dtype, float(low) / 2 + float(high) / 2)
    ends = np.array([low, high])
    return None if exceeds(ends, np.array([middle, middle]), tolerance).any() else middle


def _as(dtype: np.dtype, number: float) -> Value:
    value: Value = dtype.type(number)
    return value


def special_section(specials: Specials | None) -> Sections:
    return {} if specials is None else {Section.SPECIAL: encode_specials(specials)}


def _sign_section(x: np.ndarray, valid: np.ndarray | None, plan: Plan) -> Sections:
    if plan.quantiser.transform != LOG:
        return {}
    negative = np.signbit(x) if valid is None else np.signbit(x) & valid
    return {Section.SIGNS: encode_classes(negative.astype(np.uint8), 2)} if negative.any() else {}


def _encode_integers(y: np.ndarray, valid: np.ndarray | None) -> tuple[bytes, np.ndarray]:
    """Code rint(y), invalid points repeating the value before them; return the section and the integers."""
    steps = np.rint(y)
    if valid is not None:
        last = np.maximum.accumulate(np.where(valid.reshape(-1), np.arange(valid.size), 0))
        steps = steps.reshape(-1)[last].reshape(y.shape)
    width = 4 if np.abs(steps).max() < 2**31 else 8
    integers = steps.astype(f"i{width}")
    return bytes([width]) + encode_lossless(integers, quick=True), integers
