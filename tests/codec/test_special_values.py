"""Special values: NaN payloads, infinities, signed zeros and their places, for few bytes."""

import numpy as np
import pytest
from hypothesis import given

from isopress.codec.errors import CorruptPayloadError, PayloadError
from isopress.codec.values.label_map import decode_classes, encode_classes
from isopress.codec.values.outliers import bits_of
from isopress.codec.values.special_values import (
    decode_specials,
    encode_specials,
    fill_smoothly,
    find_specials,
    restore_specials,
)
from tests.strategies import QUICK, Array, class_maps, fields, smooth_field


@given(x=fields())
@QUICK
def test_special_values_come_back_with_all_their_bits(x: Array) -> None:
    x = x.reshape(1, 1, -1)
    for zeros in (False, True):
        specials = find_specials(x, zeros=zeros)
        exact = ~np.isfinite(x) | ((x == 0) & (np.signbit(x) | zeros))
        if specials is None:
            assert not exact.any()
            continue
        assert (specials.valid == ~exact).all()
        x_hat = np.where(exact, x.dtype.type(7), x)
        restore_specials(x_hat, decode_specials(encode_specials(specials), x.dtype, x.shape))
        same = bits_of(x) == bits_of(x_hat)
        assert same.all() or np.unique(bits_of(x)[exact]).size > 255


def test_more_patterns_than_fit_keep_the_commonest() -> None:
    x = (np.arange(600, dtype="u4") + 0x7FC00000).view("f4").reshape(1, 20, 30)
    x = np.concatenate([x, np.full((1, 20, 30), np.nan, "f4")])
    specials = find_specials(x)
    assert specials is not None
    assert specials.patterns.size == 255
    x_hat = np.zeros_like(x)
    restore_specials(x_hat, decode_specials(encode_specials(specials), x.dtype, x.shape))
    assert (bits_of(x)[1] == bits_of(x_hat)[1]).all()
    assert np.isnan(x_hat).all()


@given(drawn=class_maps())
@QUICK
def test_class_maps_round_trip(drawn: tuple[Array, int]) -> None:
    classes, count = drawn
    assert (decode_classes(encode_classes(classes, count), classes.shape, count) == classes).all()


def test_padding_at_an_edge_costs_a_few_bytes() -> None:
    classes = np.zeros((4, 721, 360), np.uint8)
    classes[:, 700:] = 1
    assert len(encode_classes(classes, 2)) < 40
    classes[:, :, 300:] = 1
    assert len(encode_classes(classes, 2)) < 100


def test_a_coast_line_costs_little_and_its_repetition_nothing() -> None:
    land = (smooth_field(1, 180, 360) > 285).astype(np.uint8)
    one = len(encode_classes(land, 2))
    many = len(encode_classes(np.repeat(land, 24, axis=0), 2))
    assert one < 0.35 * land.size / 8
    assert many < one + 60


def test_damaged_special_sections_raise_payload_errors() -> None:
    x = smooth_field(2, 30, 40).astype("f4")
    x[x > 290] = np.nan
    x[0, 0, :3] = np.inf
    specials = find_specials(x)
    assert specials is not None
    section = encode_specials(specials)
    for end in range(len(section)):
        with pytest.raises(PayloadError):
            decode_specials(section[:end], x.dtype, x.shape)
    for bit in range(8 * len(section)):
        bad = bytearray(section)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            found = decode_specials(bytes(bad), x.dtype, x.shape)
        except PayloadError:
            continue
        assert found.classes.shape == x.shape
        assert found.classes.max() <= found.patterns.size
    for shape in ((2, 30, 41), (1, 30, 40)):
        with pytest.raises(PayloadError):
            decode_specials(section, x.dtype, shape)


def test_a_class_without_a_pattern_is_corrupt() -> None:
    section = encode_classes(np.full((1, 2, 2), 3, np.uint8), 4)
    with pytest.raises(CorruptPayloadError, match="class 3"):
        decode_classes(section, (1, 2, 2), 3)
    with pytest.raises(CorruptPayloadError, match="no pattern"):
        decode_specials(b"\0" + section, np.dtype("f4"), (1, 2, 2))


def test_runs_that_would_fill_the_memory_are_refused() -> None:
    bomb = bytes([1]) + (1).to_bytes(4, "little") + b"\0\0" + (2**32 - 1).to_bytes(4, "little")
    with pytest.raises(CorruptPayloadError, match="add up"):
        decode_classes(bomb, (1, 2, 2), 2)


# --- what lies under a mask -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 7), (1, 5, 1), (3, 8, 8), (2, 13, 22)])
def test_valid_points_stay_and_others_lie_within_their_range(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=shape) + 50
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        valid = rng.random(shape) < share
        filled = fill_smoothly(np.where(valid, y, 1e9), valid)
        assert (filled[valid] == y[valid]).all()
        for field, known in zip(filled, valid, strict=True):
            assert field.min() >= (field[known].min() - 1e-9 if known.any() else 0)
            assert field.max() <= (field[known].max() + 1e-9 if known.any() else 0)


def test_a_hole_in_a_smooth_field_is_filled_with_nearby_values() -> None:
    y = smooth_field(1, 40, 60)
    valid = np.ones(y.shape, bool)
    valid[:, 15:18, 20:24] = False
    filled = fill_smoothly(np.where(valid, y, 0), valid)
    assert np.abs(filled - y).max() < np.ptp(y) / 4
