"""encode_chunk: code a chunk every way that applies, verify, keep the smallest.

array -> limits: what error is allowed of each value
      -> values: special values apart, the others in units of a step
      -> codings: constant | pyramid, block, pyramid on latents, integers | lossless
      -> verified: decoded as a reader would, what misses the bound listed, checked again
      -> the smallest
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isopress.codec.arrays import contiguous
from isopress.codec.bounded import block, fields_alone, pyramid, weights
from isopress.codec.bounded.choice import ContextMode, choose_context
from isopress.codec.chunk.final_values import (
    FLOATS,
    Sections,
    Value,
    assemble,
    encode_integers,
    encode_value,
    field_shape,
    special_section,
)
from isopress.codec.encoded import EncodedChunk, Method, Section, is_paid_for
from isopress.codec.errors import ArgumentError, BoundError
from isopress.codec.limits import Bound, check_fits, exceeds
from isopress.codec.models.registry import DEFAULT, NamedModel, is_of_kind
from isopress.codec.threads import IMPORTS
from isopress.codec.values.distortion import measure
from isopress.codec.values.label_map import encode_classes
from isopress.codec.values.lossless import encode_lossless, integers_may_reach, lossless_may_reach
from isopress.codec.values.outliers import (
    apply_exceptions,
    bits_of,
    decode_exceptions,
    encode_exceptions,
    find_exceptions,
)
from isopress.codec.values.plan import Plan, make_plan
from isopress.codec.values.quantiser import LINEAR, LOG, UNITS, reach
from isopress.codec.values.special_values import find_specials

Bounds = Bound | tuple[Bound, ...]
Tolerance = float | np.ndarray | None

MAX_PYRAMID_STEPS = 2.0**21
WORTH_A_BASE = 0.45  # bits per value: where pyramids alone take more, or have one field, a latent base never helped
MAX_BASED_FIELD = 2**19  # values: all latents are decoded for one field, which takes seconds when fields are larger
BASE_OVERHEAD = 200  # bytes: smaller chunks cannot gain what a base costs
MAX_INTEGERS = 2.0**46  # v = 64 * integer is then exact in float64


@dataclass(frozen=True)
class Chunk:
    """What is to be coded and what error is allowed.

    x : fields (B, H, W); leading : lengths of the axes before the last two.
    resolved : the bound as one number; tolerance : largest allowed error, one number or one per value, None for exact.
    extra : sections of every coding.
    model : names the pyramid's weights, or a VAEformer's, which is then tried as well.
    context : whether fields refer to each other; see `encode_chunk`.
    """

    x: np.ndarray
    leading: tuple[int, ...]
    bound: Bounds
    resolved: float
    tolerance: Tolerance
    extra: Sections
    model: NamedModel
    context: ContextMode

    @classmethod
    def of(cls, x: np.ndarray, bound: Bounds, model: NamedModel = DEFAULT, context: ContextMode = "auto") -> "Chunk":
        """Return the chunk of an array of any shape."""
        fields = x.reshape(field_shape(x.shape))
        if isinstance(bound, Bound):
            resolved = bound.resolve(x)
            tolerance: Tolerance = resolved or None
            if bound.mode == "pointwise":
                tolerance = bound.tolerance(fields)
            return cls(fields, x.shape[:-2], bound, resolved, tolerance, {}, model, context)
        each = np.array([b.value for b in bound], np.float64)
        tolerance = each.repeat(len(fields) // len(each))[:, None, None]
        extra = {Section.BOUNDS: each.astype("<f8").tobytes()}
        tolerance = np.broadcast_to(tolerance, fields.shape)
        return cls(fields, x.shape[:-2], bound, 1.0, tolerance, extra, model, context)


def encode_chunk(
    x: np.ndarray,
    bound: Bounds,
    *,
    model: NamedModel = DEFAULT,
    context: ContextMode = "auto",
) -> EncodedChunk:
    """Return the smallest coding found of `x` whose decoded values keep `bound`, checked on those values.

    Never more than 1 byte larger than zstd (level 3) or pcodec on the raw values, but for large arrays of which
    pieces tell that these take twice as much. NaN, infinities and -0.0
    come back with all their bits.

    Parameters
    ----------
    x : ndarray, any shape
        float32 or float64; with mode lossless also float16, integers and bool. The last two axes are the
        field (lat, lon).
    bound : Bound or tuple of Bound
        Mode range refers to the finite values of this chunk. Of a tuple, one absolute bound for each entry of
        the first axis.
    model : NamedModel
        The pyramid's weights, or a VAEformer's, which is then tried as well.
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
    check_fits(bound, x.dtype, x.shape)
    x = contiguous(x)
    chunk = Chunk.of(x, bound, model, context)
    found = list[EncodedChunk]()
    if x.dtype in FLOATS and x.size:
        check_channels(model, x.shape)
        found = codings(chunk)
    best = None
    for coding in found:
        if is_paid_for(x.nbytes, coding.nbytes) and (best is None or coding.nbytes < best.nbytes):
            best = coding
    if best is not None and lossless_may_reach(x, best.nbytes):
        plain = lossless_coding(x, chunk.extra, quick=True)
        best = best if best.nbytes < plain.nbytes else None
    return replace(best or lossless_coding(x, chunk.extra, quick=False), resolved_bound=chunk.resolved)


# --- codings ------------------------------------------------------------------------------------------------


def codings(chunk: Chunk) -> list[EncodedChunk]:
    """Return every coding that applies to floating-point values; each is verified."""
    x = chunk.x
    bits = bits_of(x)
    if (bits == bits[0, 0, 0]).all():
        return [_verified(chunk, Method.CONSTANT, {Section.PARAMETERS: encode_value(x[0, 0, 0])}, None)]
    zeros = isinstance(chunk.bound, Bound) and chunk.bound.mode == "pointwise" and chunk.bound.floor is None
    specials = find_specials(x, zeros=zeros, exact=chunk.bound.exact if isinstance(chunk.bound, Bound) else ())
    valid = None if specials is None else specials.valid
    ordinary = x.reshape(-1) if valid is None else x[valid]
    value = _common_value(ordinary, chunk.tolerance)
    if value is not None:
        sections = {Section.PARAMETERS: encode_value(value), **special_section(specials)}
        return [_verified(chunk, Method.CONSTANT, sections, None)]
    filled = x if valid is None else np.where(valid, x, ordinary[0])  # arithmetic on NaN would warn
    plan = make_plan(filled, valid, chunk.bound, chunk.tolerance)
    if plan is None:
        return []
    shared = {Section.PARAMETERS: plan.quantiser.to_bytes(), **special_section(specials)}
    if plan.quantiser.transform == LOG:
        negative = np.signbit(x) if valid is None else np.signbit(x) & valid
        if negative.any():
            shared[Section.SIGNS] = encode_classes(negative.astype(np.uint8), 2)
    return _codings_of_steps(chunk, plan, shared)


def _codings_of_steps(chunk: Chunk, plan: Plan, shared: Sections) -> list[EncodedChunk]:
    largest, found = reach(plan.y), list[EncodedChunk]()
    if largest <= MAX_PYRAMID_STEPS:
        patches = is_of_kind(chunk.model.name, "vaeformer")
        pyramid = DEFAULT.name if patches else chunk.model.name
        found = _pyramids(chunk, plan, shared, pyramid)
        if patches:
            found += _pyramid_on_vaeformer(chunk, plan, shared)
        found += _pyramid_on_latents(chunk, plan, shared, pyramid, smallest=_smallest(found))
    smallest = _smallest(found) if found else chunk.x.nbytes
    if largest <= MAX_INTEGERS and integers_may_reach(plan.y, smallest):
        section, integers = encode_integers(plan.y[:], plan.valid)
        if len(section) < _smallest(found):  # else it need not be verified
            v = integers * float(UNITS)
            found.append(_verified(chunk, Method.INTEGERS, {**shared, Section.INTEGERS: section}, v))
    return found


def _smallest(found: list[EncodedChunk]) -> float:
    """Return the bytes of the smallest coding, infinity if there is none."""
    smallest = math.inf
    for coding in found:
        smallest = min(smallest, coding.nbytes)
    return smallest


def _pyramids(chunk: Chunk, plan: Plan, shared: Sections, model: str) -> list[EncodedChunk]:
    """Return the codings of fields alone, as a block, or both."""
    alone, related = weights.load_pyramid(model), weights.load_pyramid(model, references=True)
    chosen = choose_context(plan, chunk.leading, alone, related, chunk.context)
    found = []
    if chosen.alone:
        section, v = fields_alone.encode(plan.y, plan.valid, model=alone, snap=plan.snap)
        sections = {**shared, Section.PYRAMID: section}
        found.append(_verified(chunk, Method.PYRAMID, sections, v, (alone.sha256,)))
    if chosen.axes is not None:
        section, v = block.encode(
            plan.y,
            plan.valid,
            leading=chunk.leading,
            axes=chosen.axes,
            model=related,
            quantisation=pyramid.Quantisation(chosen.taper, plan.snap),
        )
        found.append(_verified(chunk, Method.BLOCK, {**shared, Section.BLOCK: section}, v, (related.sha256,)))
    return found


def _pyramid_on_latents(
    chunk: Chunk, plan: Plan, shared: Sections, model: str, *, smallest: float
) -> list[EncodedChunk]:
    """Return the coding with a latent base, if it applies and is smaller than `smallest` bytes."""
    quantiser = plan.quantiser
    fitting = not plan.snap and quantiser.transform == LINEAR and plan.y.size // len(plan.y) <= MAX_BASED_FIELD
    if not fitting or len(plan.y) == 1 or not BASE_OVERHEAD < smallest <= WORTH_A_BASE / 8 * plan.y.size:
        return []
    with IMPORTS:
        from isopress.codec.latent import base_layer
        from isopress.codec.latent.weights import load_latent

    base, refinement = load_latent(), weights.load_pyramid(model)
    coded = base_layer.encode(plan.y[:], plan.valid, chunk.leading, quantiser.offset / quantiser.step, base, refinement)
    if coded is None or sum(map(len, coded[0].values())) >= smallest:
        return []
    sections, v = coded
    return _if_without_exceptions(
        _verified(chunk, Method.BASED, {**shared, **sections}, v, (base.sha256, refinement.sha256))
    )


def check_channels(model: NamedModel, shape: tuple[int, ...]) -> None:
    """Raise ArgumentError unless chunks of this shape have the channels of a VAEformer's weights, if it is one."""
    if is_of_kind(model.name, "vaeformer"):
        with IMPORTS:
            from isopress.codec.vaeformer.weights import load_vaeformer
        network = load_vaeformer(model.name)
        network.check_shape(shape)
        network.order_of(model.channels)
    elif model.channels:
        raise ArgumentError(
            f"channels {', '.join(model.channels[:8])}: the weights {model.name!r} are no VAEformer's: leave them out"
        )


def _pyramid_on_vaeformer(chunk: Chunk, plan: Plan, shared: Sections) -> list[EncodedChunk]:
    """Return the coding on top of a VAEformer's fields, if it applies."""
    if plan.snap or plan.quantiser.transform != LINEAR:
        return []
    with IMPORTS:
        from isopress.codec.vaeformer import base_layer
        from isopress.codec.vaeformer.weights import load_vaeformer

    base, refinement = load_vaeformer(chunk.model.name), weights.load_pyramid()
    order = base.order_of(chunk.model.channels)
    coded = base_layer.encode(plan, (*chunk.leading, *chunk.x.shape[1:]), base, order, refinement)
    if coded is None:
        return []
    sections, v = coded
    return _if_without_exceptions(
        _verified(chunk, Method.ON_VAEFORMER, {**shared, **sections}, v, (base.sha256, refinement.sha256))
    )


def _if_without_exceptions(coding: EncodedChunk) -> list[EncodedChunk]:
    # Exceptions would be corrections to values that are not the same on every machine.
    return [] if Section.EXCEPTIONS in dict(coding.sections) else [coding]


def lossless_coding(x: np.ndarray, extra: Sections, *, quick: bool) -> EncodedChunk:
    """Return the coding that restores every bit, of any dtype; `quick` leaves out the slow compressors."""
    sections = {Section.LOSSLESS: encode_lossless(x, quick=quick), **extra}
    return EncodedChunk(Method.LOSSLESS, tuple(sorted(sections.items())))


# --- verified values ----------------------------------------------------------------------------------------


def _verified(
    chunk: Chunk, method: Method, sections: Sections, v: np.ndarray | None, models: Sequence[bytes] = ()
) -> EncodedChunk:
    """Decode what was coded, list what misses the bound as exceptions, check again, measure."""
    x, tolerance = chunk.x, chunk.tolerance
    x_hat = assemble(sections, v, x.dtype, x.shape)
    missed = find_exceptions(x, x_hat, tolerance)
    if missed.positions.size:
        sections = {**sections, Section.EXCEPTIONS: encode_exceptions(missed, x_hat)}
        apply_exceptions(x_hat, decode_exceptions(sections[Section.EXCEPTIONS], x_hat))
        if find_exceptions(x, x_hat, tolerance).positions.size:
            raise BoundError(f"method {method.name} misses the bound in spite of its exceptions; please report it")
    max_error, rmse = measure(x, x_hat, tolerance if isinstance(chunk.bound, tuple) else None)
    ordered = tuple(sorted({**sections, **chunk.extra}.items()))
    return EncodedChunk(method, ordered, tuple(models), max_error=max_error, rmse=rmse)


def _common_value(ordinary: np.ndarray, tolerance: Tolerance) -> Value | None:
    """Return the value, if any, that may stand for every one of the `ordinary` values."""
    if not ordinary.size:
        zero: Value = np.zeros(1, ordinary.dtype)[0]
        return zero
    low: Value = ordinary.min()
    high: Value = ordinary.max()
    if low == high:
        return low
    if tolerance is None or isinstance(tolerance, np.ndarray):
        return None
    middle = np.array([float(low) / 2 + float(high) / 2]).astype(ordinary.dtype).repeat(2)
    value: Value = middle[0]
    return None if exceeds(np.array([low, high]), middle, tolerance).any() else value
