"""Chunks: the bound holds and special values survive for every array, mode and pyramid."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numcodecs import zstd
from pcodec import ChunkConfig, standalone

from isopress.codec.bounded import fields_alone
from isopress.codec.chunk.encode import Chunk, codings, encode_chunk
from isopress.codec.chunk.encode_target import encode_target
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.errors import ArgumentError, PayloadError, UnsupportedVersionError
from isopress.codec.limits import Bound, Target, exceeds
from isopress.codec.models.registry import NamedModel
from isopress.codec.values.outliers import bits_of
from tests.fields import blocky, decode_chunk, drifting_fields
from tests.make_golden import FLOATING, SMALL, with_nans
from tests.strategies import QUICK, Array, anything, bounds, fields, smooth_field

SMOOTH = smooth_field(2, 24, 40).astype("f4")
FIELDS = (SMOOTH, SMOOTH.astype("f8"), SMOOTH - 280, np.maximum(SMOOTH - 290, 0))
BOUNDS = (
    Bound("abs", 0.01),
    Bound("abs", 3.0),
    Bound("range", 1e-3),
    Bound("pointwise", 0.01),
    Bound("pointwise", 0.01, 0.5),
    Bound("lossless"),
)


def assert_kept(x: Array, bound: Bound) -> EncodedChunk:
    """Code `x`; check bound, special values, shape, dtype and the errors that are reported."""
    encoded = encode_chunk(x, bound)
    y = decode_chunk(encoded, x.dtype, x.shape)
    assert (y.shape, y.dtype, y.flags.c_contiguous) == (x.shape, x.dtype, True)
    same = bits_of(x) == bits_of(y)
    if bound.mode == "lossless" or bound.resolve(x) == 0:
        assert same.all()
    else:
        exact = ~np.isfinite(x) | ((x == 0) & np.signbit(x))
        assert same[exact].all()
        assert (same | ~exceeds(x, y, bound.tolerance(x))).all()
    finite = np.isfinite(x)
    with np.errstate(invalid="ignore"):  # signalling NaN
        error = np.abs(np.subtract(x, y, dtype="f8", where=finite, out=np.zeros(x.shape)))
    assert encoded.max_error == error.max(initial=0)
    assert encoded.rmse <= encoded.max_error * (1 + 1e-12)
    if bound.mode != "pointwise":
        assert encoded.max_error <= encoded.resolved_bound
    return encoded


@given(x=fields(), bound=bounds())
@QUICK
def test_every_bound_is_kept_on_every_array(x: Array, bound: Bound) -> None:
    assert_kept(x, bound)


@given(x=anything())
@QUICK
def test_every_dtype_round_trips_without_loss(x: Array) -> None:
    y = decode_chunk(encode_chunk(x, Bound("lossless")), x.dtype, x.shape)
    assert (y.dtype, y.shape, y.tobytes()) == (x.dtype, x.shape, x.tobytes())


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
@pytest.mark.parametrize("x", FIELDS)
def test_smooth_fields_keep_the_bound_and_shrink(x: Array, bound: Bound) -> None:
    assert assert_kept(x, bound).nbytes < x.nbytes


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
def test_nan_land_infinities_and_negative_zeros_come_back_bit_exact(bound: Bound) -> None:
    x = SMOOTH.copy()
    x[:, 5:15, 10:30] = np.nan
    x[0, 0, :4] = [np.inf, -np.inf, -0.0, 0.0]
    x.view("u4")[1, 20, 20:22] = 0x7FC01234, 0xFFFFFFFF
    assert_kept(x, bound)


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
@pytest.mark.parametrize("pattern", [0x7FC00000, 0xFFC00001, 0x7F800000, 0x80000000, 0, 0x42F6E979])
def test_one_value_everywhere_costs_that_value(pattern: int, bound: Bound) -> None:
    x = np.full((3, 50, 70), pattern, "u4").view("f4")
    encoded = assert_kept(x, bound)
    assert (encoded.method, encoded.nbytes) == (Method.CONSTANT, 4)


def test_constant_fields_of_different_values_cost_little() -> None:
    x = np.broadcast_to(np.array([250.1, 260.7, 271.3], "f4")[:, None, None], (3, 60, 80))
    for bound in (Bound("abs", 0.01), Bound("lossless")):
        assert assert_kept(x, bound).nbytes < 200


def test_a_smooth_field_takes_the_pyramid_and_missing_values_make_it_smaller() -> None:
    x = smooth_field(1, 90, 180).astype("f4")
    whole = assert_kept(x, Bound("abs", 0.05))
    assert whole.method == Method.PYRAMID
    x[:, 20:50, 30:100] = np.nan
    assert assert_kept(x, Bound("abs", 0.05)).nbytes < whole.nbytes


def test_a_constant_field_with_missing_values_costs_its_mask() -> None:
    x = np.full((1, 60, 80), 3.5, "f4")
    x[:, :, 40:] = np.nan
    assert assert_kept(x, Bound("abs", 0.1)).nbytes < 60


def test_a_bound_wider_than_the_range_costs_one_value() -> None:
    encoded = assert_kept(SMOOTH, Bound("abs", 1000.0))
    assert encoded.method == Method.CONSTANT


@pytest.mark.parametrize("bound", [Bound("abs", 1e-9), Bound("abs", 1e-3), Bound("abs", 0.3), *BOUNDS], ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_noise_never_costs_more_than_lossless_coding(dtype: str, bound: Bound) -> None:
    x = np.random.default_rng(1).normal(size=(1, 40, 50)).astype(dtype)
    rivals = (zstd.compress(x.tobytes(), 3), standalone.simple_compress(x.reshape(-1), ChunkConfig()))
    assert assert_kept(x, bound).nbytes <= min(map(len, rivals)) + 1


@pytest.mark.parametrize("factor", [1e-300, 1e-40, 1e-20, 1e20, 1e36, 1e300])
def test_tiny_and_huge_magnitudes_keep_the_bound(factor: float) -> None:
    x = (SMOOTH.astype("f8") - 280) * factor
    for bound in (Bound("abs", 0.01 * factor), Bound("range", 1e-3), Bound("pointwise", 0.01)):
        assert_kept(x, bound)
        assert_kept(x.clip(-3e38, 3e38).astype("f4"), bound)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_largest_and_smallest_numbers_of_a_dtype_keep_the_bound(dtype: str) -> None:
    info = np.finfo(dtype)
    ends = np.array([info.max, -info.max, info.tiny, -info.tiny, info.smallest_subnormal, 0, 1, -1], dtype)
    x = np.tile(ends, (8, 2))
    for bound in (*BOUNDS, Bound("abs", 1e300), Bound("abs", float(info.max)), Bound("range", 0.9)):
        assert_kept(x, bound)


@pytest.mark.parametrize("ulps", [0.4, 0.5, 0.6, 1, 1.5, 2, 3, 10])
def test_bounds_of_about_an_ulp_are_kept(ulps: float) -> None:
    ulp = float(np.spacing(np.float32(256)))
    noise = np.random.default_rng(3).integers(-50, 50, SMOOTH.shape) * ulp
    x = (300 + noise).astype("f4")
    encoded = assert_kept(x, Bound("abs", ulps * ulp))
    assert encoded.nbytes < 0.5 * x.nbytes


@pytest.mark.parametrize(("step", "bound"), [(0.01, 0.004), (0.125, 0.05), (0.3, 0.1)])
def test_a_lattice_is_restored_exactly_when_the_bound_is_finer(step: float, bound: float) -> None:
    x = (np.rint(SMOOTH.astype("f8") / step) * step).astype("f4")
    encoded = assert_kept(x, Bound("abs", bound))
    assert encoded.max_error == 0
    assert encoded.nbytes <= assert_kept(x, Bound("abs", bound / 100)).nbytes


def test_a_lattice_is_coded_without_loss_in_far_fewer_bytes_than_its_bits() -> None:
    x = (np.rint(SMOOTH.astype("f8") * 10) / 10).astype("f4")
    encoded = assert_kept(x, Bound("lossless"))
    assert encoded.method in (Method.PYRAMID, Method.INTEGERS)
    assert encoded.nbytes < standalone_size(x)


def test_float64_that_was_unpacked_in_two_roundings_is_restored_by_corrections() -> None:
    x = np.rint((SMOOTH.astype("f8") - 250) / 0.0123) * 0.0123456789 + 251.0987654321
    encoded = assert_kept(x, Bound("lossless"))
    assert encoded.nbytes < x.nbytes / 3


def standalone_size(x: Array) -> int:
    return len(standalone.simple_compress(x.reshape(-1), ChunkConfig()))


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (7,), (0, 5), (3, 0), (2, 0, 4), (1, 1, 1, 1, 1, 3), (2, 1, 2, 1, 5, 4)]
)
def test_any_number_of_axes_is_coded(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype("f4")
    for bound in BOUNDS:
        assert_kept(x, bound)


@pytest.mark.parametrize("dtype", ["f2", "i2", "u1", "?", "i8"])
def test_other_dtypes_with_a_bound_are_refused_with_the_remedy(dtype: str) -> None:
    with pytest.raises(ArgumentError, match="lossless"):
        encode_chunk(np.zeros((3, 3), dtype), Bound("abs", 0.1))


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "U3"])
def test_dtypes_that_are_no_numbers_are_refused(dtype: str) -> None:
    with pytest.raises(ArgumentError, match="dtype"):
        encode_chunk(np.zeros((3, 3), dtype), Bound("lossless"))


def test_big_endian_and_fortran_arrays_decode_to_native_c_order() -> None:
    x = np.asfortranarray(SMOOTH[0]).astype(">f4")
    y = decode_chunk(encode_chunk(x, Bound("abs", 0.01)), x.dtype, x.shape)
    assert y.dtype == np.dtype("f4").newbyteorder("=")
    assert np.abs(x.astype("f8") - y).max() <= 0.01


LIES: dict[str, Callable[[Array], Array]] = {
    "zeros": np.zeros_like,
    "negated": np.negative,
    "noisy": lambda v: v + np.random.default_rng(5).integers(-100, 100, v.shape),
    "shifted": lambda v: np.roll(v, 1, axis=-1),
    "nan": lambda v: np.full_like(v, np.nan),
    "infinite": lambda v: v * np.inf,
    "huge": lambda v: v * 1e300,
}


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
@pytest.mark.parametrize("lie", LIES)
def test_a_pyramid_that_lies_cannot_break_the_bound(lie: str, bound: Bound, monkeypatch: Any) -> None:
    told: list[Array] = []

    def encode(y: Array, valid: Array | None, **options: Any) -> tuple[bytes, Array]:
        with np.errstate(all="ignore"):
            told.append(LIES[lie](np.rint(y) * 64))
        return b"", told[-1].copy()  # whoever gets it uses it up

    monkeypatch.setattr(fields_alone, "encode", encode)
    monkeypatch.setattr(fields_alone, "decode", lambda section, shape, **options: told[-1].copy())
    for x in FIELDS:
        assert_kept(x, bound)
        packed = np.rint(x)
        packed[:, 3:5] = np.nan
        assert_kept(packed, bound)


CHUNKS = [method for method in Method if method != Method.LAYERS]  # a payload, not a chunk, has layers


@cache
def sample(method: Method) -> tuple[EncodedChunk, Array]:
    """A chunk of this method, with most of the sections it may have."""
    x = (SMOOTH - 280)[:, :12, :12].copy()
    x[0, :3, :3] = np.nan
    if method == Method.LOSSLESS:
        return encode_chunk(np.random.default_rng(0).normal(size=x.shape).astype("f4"), Bound("lossless")), x
    if method == Method.LATENT:
        return encode_target(SMOOTH[:, :12, :12], Target(rmse=2.0)), x
    if method == Method.BASED:
        x = drifting_fields(8, 40, 60, slope=3.0).astype("f4")
        x[0, :3, :3] = np.nan
        return encode_chunk(x, Bound("abs", 0.5)), x
    if method in (Method.VAEFORMER, Method.ON_VAEFORMER):
        x = with_nans(blocky(2, shape=(13, 17)))
        rmse = method == Method.VAEFORMER
        if rmse:
            return encode_target(blocky(2, shape=(13, 17)), Target(rmse=0.5), model=NamedModel(SMALL)), x
        return encode_chunk(x, Bound("abs", 0.5), model=NamedModel(SMALL)), x
    if method == Method.CONSTANT:
        x = np.where(np.isnan(x), x, np.float32(1))
    found = codings(Chunk.of(x, Bound("pointwise", 0.05)))
    return next(coding for coding in found if coding.method == method), x


def try_decode(encoded: EncodedChunk, x: Array) -> None:
    """Decoding either raises a payload error or returns an array of the shape."""
    try:
        y = decode_chunk(encoded, x.dtype, x.shape)
    except PayloadError:
        return
    assert (y.dtype, y.shape) == (x.dtype, x.shape)


@pytest.mark.parametrize("method", CHUNKS)
def test_a_sample_is_of_the_method_it_stands_for(method: Method) -> None:
    assert sample(method)[0].method == method


@pytest.mark.parametrize("method", CHUNKS)
def test_damaged_sections_raise_payload_errors_and_nothing_else(method: Method) -> None:
    encoded, x = sample(method)
    parts = 4 if method in FLOATING else 15  # a decode of latents takes its time
    for i, (name, content) in enumerate(encoded.sections):
        cuts = [content[:n] for n in range(0, len(content), max(1, len(content) // parts))]
        flips = [flip(content, bit) for bit in range(0, 8 * len(content), max(1, 4 * len(content) // parts))]
        for bad in [*cuts, *flips, content + b"\0"]:
            sections = (*encoded.sections[:i], (name, bad), *encoded.sections[i + 1 :])
            try_decode(replace(encoded, sections=sections), x)


def flip(content: bytes, bit: int) -> bytes:
    out = bytearray(content)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


@pytest.mark.parametrize("method", CHUNKS)
def test_missing_repeated_and_foreign_sections_are_refused(method: Method) -> None:
    encoded, x = sample(method)
    foreign = Section.SPECIAL if encoded.method == Method.LOSSLESS else Section.LOSSLESS
    for sections in (
        encoded.sections[1:],  # the first is always one the method needs
        (),
        (*encoded.sections, encoded.sections[0]),
        (*encoded.sections, (foreign, b"")),
    ):
        with pytest.raises(PayloadError):
            decode_chunk(replace(encoded, sections=sections), x.dtype, x.shape)
    with pytest.raises(UnsupportedVersionError):
        decode_chunk(replace(encoded, sections=(*encoded.sections, (99, b""))), x.dtype, x.shape)
    with pytest.raises(UnsupportedVersionError):
        decode_chunk(replace(encoded, method=99), x.dtype, x.shape)
    with pytest.raises(PayloadError):
        decode_chunk(replace(encoded, models=(b"m" * 32,) * 3), x.dtype, x.shape)


@pytest.mark.parametrize("shape", [(2, 12, 13), (3, 12, 12), (2, 11, 12), (1,)])
def test_a_chunk_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    encoded, x = sample(Method.INTEGERS)
    with pytest.raises(PayloadError):
        decode_chunk(encoded, x.dtype, shape)
