"""encode_chunk / decode_chunk: code a chunk every way that applies, verify, keep the smallest.

The one place where mask, plan, pyramid, exceptions and lossless coding meet.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from isopress.codec import pyramid, weights
from isopress.codec.bound import Bound, exceeds
from isopress.codec.classes import decode_classes, encode_classes
from isopress.codec.contexts import UNITS
from isopress.codec.encoded import EncodedChunk, Method, Section, checked_sections
from isopress.codec.errors import ArgumentError, BoundError, CorruptPayloadError, TruncatedPayloadError
from isopress.codec.exceptions import (
    apply_exceptions,
    bits_of,
    decode_exceptions,
    encode_exceptions,
    find_exceptions,
)
from isopress.codec.lossless import decode_lossless, encode_lossless
from isopress.codec.plan import Plan, make_plan
from isopress.codec.quantiser import LOG, Quantiser
from isopress.codec.special import Specials, decode_specials, encode_specials, find_specials, restore_specials

Shape3 = tuple[int, int, int]
Tolerance = float | np.ndarray | None
Sections = dict[Section, bytes]
Value = np.floating[Any]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
MAX_PYRAMID_STEPS = 2.0**21
MAX_INTEGERS = 2.0**46  # v = 64 * integer is then exact in float64


def encode_chunk(x: np.ndarray, bound: Bound, *, model: str = "default") -> EncodedChunk:
    """Return the smallest coding found of `x` whose decoded values keep `bound`, checked on those values.

    Never more than 1 byte larger than zstd (level 3) or pcodec on the raw values. NaN, infinities and -0.0
    come back with all their bits.

    Parameters
    ----------
    x : ndarray, any shape
        float32 or float64; with mode lossless also float16, integers and bool. The last two axes are the
        field (lat, lon); the axes before them are coded field by field.
    bound : Bound
        Mode range refers to the finite values of this chunk.
    model : str
        Name of the pyramid's weights.

    Raises
    ------
    ArgumentError
        The dtype does not go with the mode, or with isopress at all.
    ModelNotFoundError
        `model` is not installed.
    BoundError
        The final check failed: a bug, since exceptions repair any value.
    """
    native = x.dtype.newbyteorder("=")
    if native not in FLOATS and bound.mode != "lossless":
        raise ArgumentError(
            f"dtype {x.dtype} has no mode {bound.mode!r}; allowed are float32 and float64, or mode 'lossless'"
        )
    x = np.ascontiguousarray(x, native).reshape(x.shape)
    best = _lossless_coding(x, quick=True)
    if x.dtype in FLOATS and x.size:
        for coding in _codings(x.reshape(_field_shape(x.shape)), bound, model):
            best = min(best, coding, key=lambda chunk: chunk.nbytes)
    if best.method == Method.LOSSLESS:
        best = _lossless_coding(x, quick=False)
    return replace(best, resolved_bound=bound.resolve(x))


def decode_chunk(encoded: EncodedChunk, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values of `encoded` in `dtype` and `shape`, C order, native byte order.

    Raises
    ------
    UnsupportedVersionError
        A method or section this reader does not know.
    CorruptPayloadError, TruncatedPayloadError
        Sections that are missing, foreign, damaged, or of another size than `dtype` and `shape` need.
    ModelNotFoundError
        The weights are not installed.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    sections = checked_sections(encoded)
    if encoded.method == Method.LOSSLESS:
        return decode_lossless(sections[Section.LOSSLESS], dtype, math.prod(shape)).reshape(shape)
    fields = _field_shape(shape)
    if dtype not in FLOATS or not math.prod(fields):
        raise CorruptPayloadError(f"method {encoded.method} holds float32 or float64 values, not {dtype}{shape}")
    v = None
    if encoded.method == Method.PYRAMID:
        network = weights.load_pyramid(encoded.models[0].hex())
        v = pyramid.decode(sections[Section.PYRAMID], fields, model=network)
    elif encoded.method == Method.INTEGERS:
        v = _decode_integers(sections[Section.INTEGERS], fields)
    return _assemble(sections, v, dtype, fields).reshape(shape)


def _lossless_coding(x: np.ndarray, *, quick: bool) -> EncodedChunk:
    return EncodedChunk(Method.LOSSLESS, ((int(Section.LOSSLESS), encode_lossless(x, quick=quick)),))


def _field_shape(shape: tuple[int, ...]) -> Shape3:
    """The (B, H, W) that `shape` is coded as; fewer than two axes make one row."""
    height, width = (1, 1, *shape)[-2:]
    return math.prod(shape[:-2]), height, width


def _codings(x: np.ndarray, bound: Bound, model: str) -> Iterator[EncodedChunk]:
    """Yield every coding of `x`, (B, H, W), that applies; each is verified."""
    bits = bits_of(x)
    if (bits == bits[0, 0, 0]).all():
        yield _verified(x, Method.CONSTANT, {Section.PARAMETERS: encode_value(x[0, 0, 0])}, None, None)
        return
    tolerance = bound.tolerance(x) if bound.resolve(x) else None
    specials = find_specials(x, zeros=bound.mode == "pointwise" and bound.floor is None)
    valid = None if specials is None else specials.valid
    ordinary = x.reshape(-1) if valid is None else x[valid]
    value = _common_value(ordinary, tolerance)
    if value is not None:
        sections = {Section.PARAMETERS: encode_value(value), **_special_section(specials)}
        yield _verified(x, Method.CONSTANT, sections, None, tolerance)
        return
    filled = x if valid is None else np.where(valid, x, ordinary[0])  # arithmetic on NaN would warn
    plan = make_plan(filled, valid, bound, tolerance)
    if plan is None:
        return
    shared = {
        Section.PARAMETERS: plan.quantiser.to_bytes(),
        **_special_section(specials),
        **_sign_section(x, valid, plan),
    }
    reach = float(np.abs(plan.y).max())
    largest = math.inf
    if reach <= MAX_PYRAMID_STEPS:
        coding = _pyramid_coding(x, plan, valid, shared, tolerance, model)
        largest = coding.nbytes
        yield coding
    if reach <= MAX_INTEGERS:
        section, v = _encode_integers(plan.y, valid)
        if len(section) < largest:  # else it need not be verified
            yield _verified(x, Method.INTEGERS, {**shared, Section.INTEGERS: section}, v, tolerance)


def _pyramid_coding(
    x: np.ndarray, plan: Plan, valid: np.ndarray | None, shared: Sections, tolerance: Tolerance, model: str
) -> EncodedChunk:
    network = weights.load_pyramid(model)
    section, v = pyramid.encode(plan.y, valid, model=network, snap=plan.snap)
    sections = {**shared, Section.PYRAMID: section}
    return _verified(x, Method.PYRAMID, sections, v, tolerance, models=(network.sha256,))


def _verified(
    x: np.ndarray,
    method: Method,
    sections: Sections,
    v: np.ndarray | None,
    tolerance: Tolerance,
    models: tuple[bytes, ...] = (),
) -> EncodedChunk:
    """Decode what was coded, list what misses the bound as exceptions, check again, measure."""
    x_hat = _assemble(sections, v, x.dtype, x.shape)
    missed = find_exceptions(x, x_hat, tolerance)
    if missed.positions.size:
        sections = {**sections, Section.EXCEPTIONS: encode_exceptions(missed, x_hat)}
        apply_exceptions(x_hat, decode_exceptions(sections[Section.EXCEPTIONS], x_hat))
        if find_exceptions(x, x_hat, tolerance).positions.size:
            raise BoundError(f"method {method.name} misses the bound in spite of its exceptions; please report it")
    max_error, rmse = _measure(x, x_hat)
    ordered = tuple((int(section), sections[section]) for section in sorted(sections))
    return EncodedChunk(method, ordered, models, max_error=max_error, rmse=rmse)


def _assemble(sections: Sections, v: np.ndarray | None, dtype: np.dtype, shape: Shape3) -> np.ndarray:
    """Return the final values: decoded steps (or the constant), then signs, special values, exceptions."""
    if v is None:
        x_hat = np.full(shape, decode_value(sections[Section.PARAMETERS], dtype))
    else:
        quantiser = Quantiser.from_bytes(sections[Section.PARAMETERS], shape[0])
        x_hat = quantiser.to_data(v, dtype)
    if Section.SIGNS in sections:
        negative = decode_classes(sections[Section.SIGNS], shape, 2)
        np.negative(x_hat, out=x_hat, where=negative.astype(bool))
    if Section.SPECIAL in sections:
        restore_specials(x_hat, decode_specials(sections[Section.SPECIAL], dtype, shape))
    if Section.EXCEPTIONS in sections:
        apply_exceptions(x_hat, decode_exceptions(sections[Section.EXCEPTIONS], x_hat))
    return x_hat


def _measure(x: np.ndarray, x_hat: np.ndarray) -> tuple[float, float]:
    """Return the largest and the root mean square |x - x_hat| over the finite values of `x`."""
    finite = np.isfinite(x)
    with np.errstate(invalid="ignore"):  # signalling NaN
        error = np.subtract(x, x_hat, dtype=np.float64, where=finite, out=np.zeros(x.shape))
    np.abs(error, out=error)
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


def decode_value(section: bytes, dtype: np.dtype) -> Value:
    """Return the one value of `dtype` that `section` holds."""
    if len(section) < dtype.itemsize:
        raise TruncatedPayloadError(f"the constant has {len(section)} bytes, {dtype.itemsize} are needed")
    if len(section) > dtype.itemsize:
        raise CorruptPayloadError(f"the constant has {len(section)} bytes, only {dtype.itemsize} belong there")
    value: Value = np.frombuffer(section, dtype.newbyteorder("<")).astype(dtype)[0]
    return value


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


def _special_section(specials: Specials | None) -> Sections:
    return {} if specials is None else {Section.SPECIAL: encode_specials(specials)}


def _sign_section(x: np.ndarray, valid: np.ndarray | None, plan: Plan) -> Sections:
    if plan.quantiser.transform != LOG:
        return {}
    negative = np.signbit(x) if valid is None else np.signbit(x) & valid
    return {Section.SIGNS: encode_classes(negative.astype(np.uint8), 2)} if negative.any() else {}


def _encode_integers(y: np.ndarray, valid: np.ndarray | None) -> tuple[bytes, np.ndarray]:
    """Code rint(y), invalid points repeating the value before them; return the section and v."""
    integers = np.rint(y).astype(np.int64)
    if valid is not None:
        last = np.maximum.accumulate(np.where(valid.reshape(-1), np.arange(valid.size), 0))
        integers = integers.reshape(-1)[last].reshape(y.shape)
    width = 4 if np.abs(integers).max() < 2**31 else 8
    section = bytes([width]) + encode_lossless(integers.astype(f"i{width}"), quick=True)
    return section, integers * float(UNITS)


def _decode_integers(section: bytes, shape: Shape3) -> np.ndarray:
    if not section:
        raise TruncatedPayloadError("the integers section is empty; at least 2 bytes are needed")
    if section[0] not in (4, 8):
        raise CorruptPayloadError(f"the integers section has integers of {section[0]} bytes; known are 4 and 8")
    integers = decode_lossless(section[1:], np.dtype(f"i{section[0]}"), math.prod(shape))
    return integers.reshape(shape) * float(UNITS)
