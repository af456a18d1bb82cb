"""The leaves: limits and bytes."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.bytes import crc32c, read_varint, varint
from isopress.codec.errors import ArgumentError, CorruptPayloadError, PayloadError, TruncatedPayloadError
from isopress.codec.limits import Bound, exceeds, largest_ulp
from isopress.codec.values.outliers import (
    CORRECTIONS,
    LIST,
    Exceptions,
    apply_exceptions,
    bits_of,
    decode_exceptions,
    encode_exceptions,
    find_exceptions,
)
from tests.strategies import QUICK, Array, examples, fields

# --- bounds: what is accepted, how they resolve, and that the test of a value is exact --------------------------------


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, None, "0.1", True])
@pytest.mark.parametrize("mode", ["abs", "range", "pointwise"])
def test_a_bound_that_is_not_finite_and_positive_is_refused_with_the_remedy(mode: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=r"> 0.*lossless"):
        Bound(mode, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "value", "floor", "message"),
    [
        ("relative", 1.0, None, "abs, range, pointwise, lossless"),
        ("lossless", 1.0, None, "takes no bound"),
        ("lossless", None, 1.0, "floor"),
        ("abs", 1.0, 1.0, "floor"),
        ("pointwise", 1.0, None, "< 1"),
        ("pointwise", 0.1, 0.0, "> 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    mode: str, value: float | None, floor: float | None, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        Bound(mode, value, floor)  # type: ignore[arg-type]


def test_range_refers_to_the_finite_values() -> None:
    x = np.array([[1.0, np.nan, 5.0, np.inf, -np.inf]], "f4")
    assert Bound("range", 0.5).resolve(x) == 2.0
    assert Bound("range", 0.5).resolve(np.full((2, 2), np.nan)) == 0.0
    assert Bound("range", 0.5).resolve(np.array([1e308, -1e308])) == 1e308


def test_pointwise_tolerance_is_a_fraction_with_a_floor() -> None:
    x = np.array([0.0, -2.0, 1e-9, np.inf])
    np.testing.assert_allclose(Bound("pointwise", 0.5).tolerance(x)[:3], [0, 1, 5e-10], rtol=1e-15)
    np.testing.assert_allclose(Bound("pointwise", 0.5, 0.1).tolerance(x)[:3], [0.1, 1, 0.1], rtol=1e-15)


@given(x=fields(special=False))
@QUICK
def test_the_test_of_a_value_agrees_with_exact_arithmetic(x: Array) -> None:
    x = x[np.isfinite(x)].ravel()[:30]
    x_hat = np.roll(x, 1)
    for tolerance in (0.0, 1e-300, 0.1, 1.0, 1e38, *np.abs(x - x_hat.astype("f8"))[:3].tolist()):
        if np.isfinite(tolerance):
            differences = [abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(x, x_hat, strict=True)]
            expected = [difference > Fraction(tolerance) for difference in differences]
            assert exceeds(x, x_hat, tolerance).tolist() == expected


def test_a_tie_that_rounding_hides_is_found() -> None:
    x, x_hat = np.array([1.0, -1.0, 1.0]), np.array([-(2.0**-60), 2.0**-60, 2.0**-60])
    assert exceeds(x, x_hat, 1.0).tolist() == [True, True, False]


def test_values_that_are_no_numbers_exceed_every_bound() -> None:
    x_hat = np.array([np.nan, np.inf, -np.inf], "f4")
    assert exceeds(np.zeros(3, "f4"), x_hat, 1e300).all()


def test_arrays_that_differ_in_dtype_or_shape_are_refused() -> None:
    for other in (np.zeros(2, "f8"), np.zeros(3, "f4")):
        with pytest.raises(ArgumentError, match="must agree"):
            exceeds(np.zeros(2, "f4"), other, 1.0)
        with pytest.raises(ArgumentError, match="must agree"):
            find_exceptions(np.zeros(2, "f4"), other, 1.0)


def test_the_largest_ulp_is_that_below_the_largest_value() -> None:
    assert largest_ulp(np.array([1.5, -300], "f4")) == 2.0**-15
    assert largest_ulp(np.array([np.finfo("f8").max])) == 2.0**971
    assert largest_ulp(np.zeros(3, "f4")) == 0


@given(x=fields())
@QUICK
def test_exceptions_repair_any_decoded_array(x: Array) -> None:
    rng = np.random.default_rng(x.size)
    guesses = (np.zeros_like(x), np.roll(x, 1), np.full_like(x, np.nan), (bits_of(x) ^ 1).view(x.dtype))
    for guess in guesses:
        for tolerance in (None, 0.5, np.abs(rng.normal(size=x.shape))):
            x_hat = np.ascontiguousarray(guess).reshape(x.shape)
            missed = find_exceptions(x, x_hat, tolerance)
            section = encode_exceptions(missed, x_hat)
            apply_exceptions(x_hat, decode_exceptions(section, x_hat))
            assert not find_exceptions(x, x_hat, tolerance).positions.size
            if tolerance is None:
                assert (bits_of(x) == bits_of(x_hat)).all()


def test_few_exceptions_are_listed_and_many_small_ones_are_corrections() -> None:
    x_hat = np.linspace(280, 290, 5000, dtype="f4")
    few, many = x_hat.copy(), (bits_of(x_hat) + np.arange(5000, dtype="u4") % 3).view("f4")
    few[[7, 4000]] = 5
    for x, form, limit in ((few, LIST, 40), (many, CORRECTIONS, 2000)):
        section = encode_exceptions(find_exceptions(x, x_hat, None), x_hat)
        assert (section[0], len(section) < limit) == (form, True)


def test_damaged_exceptions_raise_payload_errors() -> None:
    x_hat = np.zeros(100, "f4")
    x = x_hat.copy()
    x[[3, 50, 99]] = [1, 2, 3]
    section = encode_exceptions(find_exceptions(x, x_hat, None), x_hat)
    for end in range(len(section)):
        with pytest.raises(PayloadError):
            decode_exceptions(section[:end], x_hat)
    with pytest.raises(CorruptPayloadError):
        decode_exceptions(section, x_hat[:99])  # a position beyond the array
    with pytest.raises(CorruptPayloadError):
        decode_exceptions(bytes([9]) + section[1:], x_hat)
    with pytest.raises(CorruptPayloadError):
        decode_exceptions(section[:2] + (2**60).to_bytes(8, "little") + section[10:], x_hat)


def test_no_exceptions_are_a_valid_section() -> None:
    x_hat = np.zeros(3, "f8")
    section = encode_exceptions(Exceptions(np.zeros(0, "i8"), np.zeros(0, "u8")), x_hat)
    assert not decode_exceptions(section, x_hat).positions.size


@pytest.mark.parametrize("value", [10**400, math.inf, math.nan, "1", True, None])
def test_what_is_no_finite_number_is_refused(value):
    for make in (lambda: Bound("abs", value), lambda: Bound("pointwise", 0.1, value or 10**400)):
        with pytest.raises(ArgumentError, match="finite"):
            make()


def test_a_bound_relative_to_the_range_is_rounded_down():
    rng = np.random.default_rng(0)
    for _ in range(300):
        x = rng.normal(size=3) * 10.0 ** rng.integers(-300, 300)
        value = float(rng.uniform(0, 1))
        exact = Fraction(value) * (Fraction(float(x.max())) - Fraction(float(x.min())))
        assert 0 <= exact - Fraction(Bound("range", value).resolve(x)) <= exact / 2**51


# --- varints and checksums --------------------------------------------------------------------------------------------


@examples(50)
@given(st.integers(0, 2**35 - 1))
def test_varints_come_back(value):
    data = varint(value)
    assert read_varint(memoryview(data), 0) == (value, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff"])
def test_a_cut_varint_is_truncated(data):
    with pytest.raises(TruncatedPayloadError):
        read_varint(memoryview(data), 0)


@pytest.mark.parametrize("data", [b"\x80\x80\x80\x80\x80\x01", b"\x80\x00"])
def test_a_varint_that_is_longer_than_needed_is_corrupt(data):
    with pytest.raises(CorruptPayloadError):
        read_varint(memoryview(data), 0)


def test_nine_bytes_are_read_where_they_are_allowed():
    data = varint(2**62 + 5)
    assert read_varint(data, 0, most=9) == (2**62 + 5, 9)


def test_checksums_are_those_of_castagnoli_whole_or_in_parts():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(memoryview(bytearray(b"6789")), crc32c(b"12345")) == 0xE3069283
    assert crc32c(np.arange(6, dtype="<i4").data) == crc32c(np.arange(6, dtype="<i4").tobytes())
