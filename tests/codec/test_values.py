"""Values: lattices, logarithms, special values, lossless streams."""

import inspect
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import zstd
from pcodec import ChunkConfig, standalone

from isopress.codec.errors import ArgumentError, CorruptPayloadError, PayloadError, TruncatedPayloadError
from isopress.codec.values import log_transform as pointwise
from isopress.codec.values.label_map import decode_classes, encode_classes
from isopress.codec.values.lattice import MAX_LEVELS, find_lattice, fit_gaps, power_of_two_step
from isopress.codec.values.log_transform import C, Knee, exp2, forward, inverse, make_knee, tolerance_in_t
from isopress.codec.values.lossless import Stream, decode_lossless, encode_lossless
from isopress.codec.values.outliers import bits_of
from isopress.codec.values.packing import decompress_zstd, pack, unpack
from isopress.codec.values.quantiser import Quantiser
from isopress.codec.values.special_values import (
    decode_specials,
    encode_specials,
    fill_smoothly,
    find_specials,
    restore_specials,
)
from tests.strategies import QUICK, Array, anything, class_maps, fields, smooth_field

# --- lattices: packed and rounded data are recognised, all else is left alone -----------------------------------------

SMOOTH = smooth_field(1, 120, 160)


def misfits(x: Array, found: Quantiser) -> float:
    """The fraction of values that the lattice does not give back bit for bit."""
    y = np.rint(found.to_steps(x.astype("f8")))
    assert np.abs(y).max() <= MAX_LEVELS
    return float(np.mean(found.to_data(y * 64, x.dtype) != x))


def netcdf(x: Array, bits: int) -> tuple[Array, float]:
    """`x` packed to integers with scale and offset, then unpacked in float64."""
    step = (x.max() - x.min()) / (2**bits - 2)
    offset = (x.max() + x.min()) / 2
    return np.rint((x - offset) / step) * step + offset, step


def grib(x: Array, bits: int) -> tuple[Array, float]:
    """`x` packed with a float32 reference and a binary scale, then unpacked."""
    reference = float(np.float32(x.min()))
    step = float(2.0 ** np.ceil(np.log2((x.max() - reference) / (2**bits - 1))))
    return reference + np.rint((x - reference) / step) * step, step


@pytest.mark.parametrize("digits", [0, 1, 2, 3])
def test_decimals_in_float32_are_found_exactly(digits: int) -> None:
    x = np.round(SMOOTH, digits).astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert (found.offset[0], found.step[0]) == (0, float(f"1e-{digits}"))
    assert misfits(x, found) == 0


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("shift", [0.0, -280.0, 1e3])
def test_grib_packing_is_found_exactly(bits: int, shift: float) -> None:
    x, step = grib(SMOOTH + shift, bits)
    found = find_lattice(x.astype("f4"), None, least=0)
    assert found is not None
    assert found.step[0] == step
    assert misfits(x.astype("f4"), found) == 0


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_netcdf_packing_is_found_to_an_ulp(bits: int, dtype: str) -> None:
    x, step = netcdf(SMOOTH, bits)
    packed = x.astype(dtype)
    found = find_lattice(packed, None, least=0.9 * step)
    assert found is not None
    assert found.step[0] == pytest.approx(step, rel=1e-7)
    back = found.to_data(64 * np.rint(found.to_steps(packed.astype("f8"))), packed.dtype)
    assert np.abs(back - packed).max() <= 4 * np.spacing(packed.max())
    assert dtype == "f8" or misfits(packed, found) < 1 / 64


def test_few_bits_of_a_float_are_a_lattice_of_a_power_of_two() -> None:
    x = SMOOTH.astype("f2").astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert found.step[0] == float(np.spacing(x.min().astype("f2")))
    assert misfits(x, found) == 0


CONTINUOUS = (
    SMOOTH,
    SMOOTH * 1e-30,
    (SMOOTH - 280).astype("f4"),
    np.random.default_rng(0).normal(size=(1, 50, 50)).astype("f4"),
    np.random.default_rng(0).uniform(0, 1, (1, 50, 50)),
    np.array([[[1e308, -1e308, 3.0, 1e-308]]]),
)


@pytest.mark.parametrize("x", CONTINUOUS)
def test_continuous_fields_have_no_lattice(x: Array) -> None:
    assert find_lattice(x, None, least=0) is None
    assert find_lattice(x, None, least=float(np.median(np.abs(x))) / 100) is None


def test_a_lattice_finer_than_asked_for_is_ignored() -> None:
    x = np.round(SMOOTH, 1).astype("f4")
    assert find_lattice(x, None, least=0.2) is None
    assert find_lattice(x, None, least=0.1) is not None


def test_missing_values_do_not_count() -> None:
    x = np.round(SMOOTH, 1).astype("f4")
    valid = np.ones(x.shape, bool)
    valid[:, ::3] = False
    x[~valid] = 280.123456
    found = find_lattice(x, valid, least=0)
    assert found is not None
    assert found.step[0] == 0.1


def test_a_few_values_off_the_lattice_are_tolerated() -> None:
    x = np.round(SMOOTH, 1).astype("f4")
    valid = np.ones(x.shape, bool)
    x.reshape(-1)[1] += np.float32(0.0123)  # the sample takes other values
    assert find_lattice(x, valid, least=0) is not None


def test_each_field_has_its_own_lattice_and_constants_take_any() -> None:
    fields = [grib(SMOOTH[0], 12)[0], np.full(SMOOTH.shape[1:], 281.3), grib(0.01 * SMOOTH[0], 16)[0]]
    x = np.stack(fields).astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert found.step.size == 3
    assert misfits(x, found) == 0


def test_fields_of_one_packing_share_offset_and_step() -> None:
    x = np.round(smooth_field(4, 40, 50), 1).astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert (found.step.size, found.offset.size) == (1, 1)


def test_mostly_zero_fields_are_recognised_by_their_rare_values() -> None:
    x = np.where(SMOOTH > 310, np.round(SMOOTH - 310, 1), 0).astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert found.step[0] == pytest.approx(0.1, rel=1e-6)


def test_the_gaps_of_a_sparse_sample_still_give_the_common_step() -> None:
    n = np.unique(np.random.default_rng(2).integers(0, 60_000, 500))
    fit = fit_gaps(np.diff(n * 0.37), ulp=1e-3, least=0.01)
    assert fit is not None
    assert (fit[0] == np.diff(n)).all()
    assert fit_gaps(np.diff(n * 0.37), ulp=1e-3, least=0.5) is None
    assert fit_gaps(np.diff(n * 0.37), ulp=0.1, least=0.01) is None


def test_the_power_of_two_step_divides_every_value() -> None:
    assert power_of_two_step(np.array([0.0, 0.75, -12.0])) == 0.25
    assert power_of_two_step(np.array([2.0**-1074, 1.0])) == 2.0**-1074


@pytest.mark.parametrize(("v", "dtype"), [("i4", "f4"), ("f8", "f8"), ("i4", "f8"), ("f8", "f4")])
def test_values_take_the_place_of_steps_of_their_size(v: str, dtype: str) -> None:
    quantiser = Quantiser(np.array([3.0]), np.array([0.01]))
    steps = np.rint(1000 * SMOOTH).astype(v)
    apart, before = quantiser.to_data(steps, np.dtype(dtype)), steps.copy()
    np.testing.assert_array_equal(steps, before)
    x = quantiser.to_data(steps, np.dtype(dtype), in_place=True)
    np.testing.assert_array_equal(x, apart)
    assert np.shares_memory(x, steps) == (v[1] == dtype[1])


# --- the pointwise transform: monotone, smooth, invertible within the bound, free of libm in the decoder --------------


def test_powers_of_two_are_right_to_one_part_in_ten_to_the_fourteen() -> None:
    getcontext().prec = 40
    t = np.concatenate([np.linspace(-3, 3, 401), np.random.default_rng(0).uniform(-1020, 1023, 200)])
    for value, power in zip(t.tolist(), exp2(t).tolist(), strict=True):
        exact = Decimal(2) ** Decimal(value)
        assert abs(Decimal(power) / exact - 1) < Decimal("1e-14")


def test_whole_powers_of_two_are_exact_down_to_subnormals_and_up_to_infinity() -> None:
    t = np.arange(-1080.0, 1024.0)
    assert (exp2(t) == np.ldexp(1.0, t.astype(int))).all()
    assert exp2(np.array([5000.0, np.inf])).tolist() == [np.inf, np.inf]
    assert exp2(np.array([-5000.0, -np.inf])).tolist() == [0, 0]


def test_the_inverse_meets_no_libm_function() -> None:
    source = "".join(inspect.getsource(f) for f in (inverse, exp2, pointwise._power_of_two))
    for name in ("np.exp", "np.log", "np.power", "np.ldexp", "np.sqrt", "math.", "**"):
        assert name not in source.replace("2**t", "").replace("2.0**exponent", "").replace("2**exponent", "")


@given(
    floor=st.sampled_from((None, 1e-300, 1e-9, 1.0, 1e30)),
    value=st.sampled_from((1e-9, 1e-4, 0.01, 0.5, 0.99)),
    seed=st.integers(0, 1000),
)
@QUICK
def test_an_error_within_the_tolerance_in_t_keeps_the_pointwise_bound(
    floor: float | None, value: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    knee = None if floor is None else make_knee(value, floor)
    x = rng.normal(size=200) * 10.0 ** rng.uniform(-30, 30, 200)
    near_knee = [] if floor is None else [floor / value * rng.uniform(0.9, 1.1, 50), np.zeros(1)]
    x = np.abs(x) if floor is None else np.concatenate([x, *near_knee])
    t = forward(x, knee)
    allowed = np.maximum(value * np.abs(x), floor or 0)
    room = tolerance_in_t(value, np.dtype("f8"))
    assert room > 0.9 * np.log2(1 + value)
    for shift in (-room, 0.0, room):
        assert (np.abs(inverse(t + shift, knee) - x) <= allowed).all()


def test_the_transform_is_odd_increasing_and_smooth_at_the_knee() -> None:
    knee = make_knee(0.01, 0.02)
    x = np.linspace(-6, 6, 4001)
    t = forward(x, knee)
    assert (np.diff(t) > 0).all()
    np.testing.assert_allclose(t, -t[::-1], rtol=1e-13, atol=1e-15)
    assert forward(np.array([2.0]), knee)[0] == pytest.approx(C, rel=1e-14)
    slopes = np.diff(forward(np.array([2 - 1e-6, 2.0, 2 + 1e-6]), knee))
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-5)


def test_a_fraction_below_the_rounding_of_the_dtype_leaves_no_room() -> None:
    assert tolerance_in_t(1e-8, np.dtype("f4")) == 0
    assert tolerance_in_t(1e-6, np.dtype("f4")) > 0
    assert tolerance_in_t(1e-13, np.dtype("f8")) == 0


def test_values_that_are_no_numbers_pass_through_without_a_warning() -> None:
    t = np.array([np.nan, np.inf, -np.inf, 1e300])
    for knee in (None, Knee(1.0, 0.0)):
        inverse(t, knee)


# --- special values: NaN payloads, infinities, signed zeros and their places, for few bytes ---------------------------


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


# --- lossless coding: every bit of every dtype, never longer than zstd or pcodec plus one byte ------------------------

STREAMS = {
    Stream.STORED: np.random.default_rng(0).integers(0, 2**64, 50, np.uint64),
    Stream.ZSTD: np.tile(np.arange(200, dtype="u1"), 20),
    Stream.SHUFFLED_ZSTD: np.tile(np.random.default_rng(1).integers(0, 2**32, 60, np.uint32), 30) + np.uint32(1),
    Stream.PCODEC: smooth_field(30, 40).astype("f4"),
}


@given(x=anything())
@QUICK
def test_every_bit_comes_back(x: Array) -> None:
    y = decode_lossless(encode_lossless(x), x.dtype, x.size)
    assert (y.dtype, y.tobytes()) == (x.dtype, x.tobytes())


@given(x=anything())
@QUICK
def test_the_cost_is_at_most_that_of_zstd_or_pcodec_plus_one_byte(x: Array) -> None:
    rivals = [x.nbytes, len(zstd.compress(x.tobytes(), 3))]
    if x.size and x.itemsize > 1:
        rivals.append(len(standalone.simple_compress(x.reshape(-1), ChunkConfig())))
    assert len(encode_lossless(x)) <= min(rivals) + 1


@pytest.mark.parametrize("stream", STREAMS)
def test_damaged_streams_raise_payload_errors(stream: Stream) -> None:
    x = STREAMS[stream].reshape(-1)
    section = encode_lossless(x)
    if stream != Stream.SHUFFLED_ZSTD:
        assert section[0] == stream
    for end in range(0, len(section), max(1, len(section) // 50)):
        with pytest.raises(PayloadError):
            decode_lossless(section[:end], x.dtype, x.size)
    for count in (0, x.size - 1, x.size + 1):
        with pytest.raises(PayloadError):
            decode_lossless(section, x.dtype, count)
    for bit in range(0, 8 * len(section), max(1, len(section) // 25)):
        bad = bytearray(section)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            y = decode_lossless(bytes(bad), x.dtype, x.size)
        except PayloadError:
            continue
        assert y.size == x.size


def test_unknown_streams_and_dtypes_are_refused() -> None:
    with pytest.raises(TruncatedPayloadError):
        decode_lossless(b"", np.dtype("f4"), 0)
    with pytest.raises(CorruptPayloadError, match="stream 7"):
        decode_lossless(b"\7", np.dtype("f4"), 0)
    with pytest.raises(CorruptPayloadError, match="cannot hold"):
        decode_lossless(bytes([Stream.PCODEC]), np.dtype("i1"), 1)
    for dtype in ("c8", "M8[s]", "O"):
        with pytest.raises(ArgumentError, match="dtype"):
            encode_lossless(np.zeros(2, dtype))


def test_a_zstd_bomb_is_refused_before_anything_is_allocated() -> None:
    bomb = zstd.compress(bytes(100_000_000), 3)
    with pytest.raises(CorruptPayloadError, match="100000000"):
        decompress_zstd(bomb, 1000)
    forged = bomb[:5] + (1000).to_bytes(4, "little") + bomb[9:]
    with pytest.raises(CorruptPayloadError):
        decompress_zstd(forged, 1000)


def test_packed_blocks_hold_exactly_the_size_that_is_needed() -> None:
    for raw in (b"", b"short", bytes(1000), bytes(range(256)) * 3, np.random.default_rng(0).bytes(500)):
        assert unpack(pack(raw), len(raw)) == raw
        for size in (len(raw) + 1, max(0, len(raw) - 1)):
            if size != len(raw):
                with pytest.raises(PayloadError):
                    unpack(pack(raw), size)
    with pytest.raises(TruncatedPayloadError):
        unpack(b"", 0)
    with pytest.raises(CorruptPayloadError, match="kind 5"):
        unpack(b"\5", 0)
