"""Transforms of latents along leading axes, and gains by wavelength."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isopress
from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.errors import CorruptPayloadError, PayloadError, TruncatedPayloadError
from isopress.codec.latent import spectral_gain as equaliser
from isopress.codec.latent.decorrelation import COSINE, IDENTITY, MAX_STORED, ONE, STORED, Mixing, channel_order, choose
from isopress.codec.latent.section import Latent, code_fields, decode_fields
from isopress.codec.latent.spectral_gain import KNOTS, MOST_ERROR, ONE_OCTAVE, SPACING, equalise, find_gains
from tests.fields import drifting_fields, spectral_field
from tests.latent_models import encode_fields, small_model
from tests.spec.latent import equalised
from tests.strategies import Array, examples

# --- transforms along the axes before the field: undone, stored as coded, chosen where they make fields smaller -------

QUICK = examples(20)
MODEL = small_model()


def orthonormal(n: int, seed: int = 0) -> Array:
    return np.linalg.qr(np.random.default_rng((n, seed)).normal(size=(n, n)))[0]


def mixing(kind: int, n: int, m: int | None = None) -> Mixing:
    rows = {IDENTITY: np.eye(n), STORED: np.rint(orthonormal(n) * ONE) / ONE}
    rows[COSINE] = np.cos(np.pi / n * np.arange(n)[:, None] * (np.arange(n) + 0.5)) * np.sqrt(2 / n)
    rows[COSINE][0] /= np.sqrt(2)
    return Mixing(kind, rows[kind][:m])


def through(*mixings: Mixing) -> list[Mixing]:
    """Write transforms and read them again."""
    writer = SymbolWriter(peaked=True)
    for one in mixings:
        one.write(writer)
    reader = SymbolReader(memoryview(writer.finish()), peaked=True)
    found = [Mixing.read(reader, one.rows.shape[1]) for one in mixings]
    reader.finish()
    return found


@pytest.mark.parametrize("kind", [IDENTITY, COSINE, STORED])
@pytest.mark.parametrize("n", [2, 3, 13, 64])
def test_inverse_undoes_forward(kind: int, n: int) -> None:
    fields = np.random.default_rng(n).normal(size=(2, n, 3, 4))
    one = mixing(kind, n)
    np.testing.assert_allclose(one.inverse(one.forward(fields, 1), 1), fields, atol=1e-10)


@pytest.mark.parametrize("kind", [COSINE, STORED])
def test_an_error_in_channels_is_as_large_in_fields(kind: int) -> None:
    one = mixing(kind, 24)
    noise = np.random.default_rng(0).normal(size=(24, 5, 6))
    assert np.square(one.inverse(noise, 0)).sum() == pytest.approx(np.square(noise).sum(), rel=0.02)


@pytest.mark.parametrize("kind", [COSINE, STORED])
def test_channels_left_out_are_zero(kind: int) -> None:
    one = mixing(kind, 8)
    channels = np.random.default_rng(0).normal(size=(8, 2, 3))
    channels[5:] = 0
    short = one.shortened(5)
    assert short.rows.shape == (5, 8)
    np.testing.assert_allclose(short.inverse(channels[:5], 0), one.inverse(channels, 0), atol=1e-12)


@pytest.mark.parametrize("kind", [IDENTITY, COSINE, STORED])
@pytest.mark.parametrize(("n", "m"), [(2, 1), (2, 2), (7, 3), (40, 40), (64, 1)])
def test_a_transform_survives_its_stream(kind: int, n: int, m: int) -> None:
    written = [mixing(kind, n, n if kind == IDENTITY else m), mixing(COSINE, 5, 2)]
    for before, after in zip(written, through(*written), strict=True):
        assert after.kind == before.kind
        np.testing.assert_allclose(after.rows, before.rows, rtol=0, atol=1e-12)


@QUICK
@given(st.binary(max_size=60), st.integers(2, 64))
def test_streams_of_anything_are_a_transform_or_an_error(data: bytes, n: int) -> None:
    words = data[: len(data) // 4 * 4]
    reader = SymbolReader(memoryview(b"\0" + words), peaked=True)
    try:
        found = Mixing.read(reader, n)
    except PayloadError:
        return
    assert 1 <= len(found.rows) <= found.rows.shape[1] == n
    assert np.abs(found.rows).max() <= 2


# --- choice -----------------------------------------------------------------------------------------------------------


def size(fields: Array, mixings: tuple[Mixing, ...] | None) -> int:
    return len(encode_fields(fields, Latent(1.0, 0.0, False), MODEL, mixings=mixings)[0])


def mixed(n: int, parts: int, *, noise: float, slope: float = 2.0) -> Array:
    """Return n fields that are sums of a few common ones, with noise of their own."""
    common = np.array([spectral_field(24, 32, slope=slope, seed=i) for i in range(parts)])
    weights = np.random.default_rng(n).normal(size=(n, parts))
    return np.tensordot(weights, common, 1) * 30 + noise * np.random.default_rng(0).normal(size=(n, 24, 32))


def test_fields_of_few_common_parts_get_a_stored_transform_and_few_channels() -> None:
    fields = mixed(12, 3, noise=0.2)
    (one,) = choose(fields, 1.0)
    assert one.kind == STORED
    energy = np.square(one.forward(fields, 0)).sum((1, 2))
    assert energy[3:].sum() < 0.01 * energy.sum()
    assert size(fields, None) < 0.65 * size(fields, (mixing(IDENTITY, 12),))


def test_fields_that_share_nothing_and_differ_in_strength_are_left_alone() -> None:
    fields = np.array([spectral_field(24, 32, slope=1.0, seed=i) * 300 / 3**i for i in range(6)])
    (one,) = choose(fields, 1.0)
    assert one.kind == IDENTITY


def test_a_long_sequence_gets_the_transform_that_costs_nothing() -> None:
    fields = drifting_fields(MAX_STORED + 6, 12, 14) * 20
    (one,) = choose(fields, 1.0)
    assert one.kind == COSINE


@pytest.mark.parametrize(
    "fields",
    [mixed(5, 5, noise=1.0), mixed(3, 2, noise=20.0), drifting_fields(9, 16, 20) * 5, mixed(4, 1, noise=0.0)],
    ids=["many parts", "noise", "sequence", "one part"],
)
def test_what_is_chosen_is_never_much_worse_than_nothing(fields: Array) -> None:
    assert size(fields, None) <= 1.05 * size(fields, (mixing(IDENTITY, len(fields)),)) + 10


def test_every_leading_axis_has_its_transform() -> None:
    base = mixed(4, 2, noise=0.1)
    fields = np.array([[1.0, 0.5, -0.3][k] * base for k in range(3)])[:, None]
    chosen = choose(fields, 1.0)
    assert [one.rows.shape[1] for one in chosen] == [3, 1, 4]
    assert [one.kind for one in chosen] == [STORED, IDENTITY, STORED]
    y = fields
    for axis, one in enumerate(chosen):
        y = one.forward(y, axis)
    assert np.square(y[:1, :, :2]).sum() > 0.99 * np.square(y).sum()
    for axis, one in enumerate(chosen):
        y = one.inverse(y, axis)
    np.testing.assert_allclose(y, fields, atol=1e-9)


def test_stronger_channels_come_first() -> None:
    assert channel_order(()) == [0]
    assert channel_order((4,)) == [0, 1, 2, 3]
    assert channel_order((2, 3)) == [0, 1, 3, 2, 4, 5]


@pytest.mark.parametrize("shape", [(300, 2, 3), (2, 400, 1, 2), (5000, 2, 2)])
def test_long_axes_take_no_time_and_are_read_alike(shape: tuple[int, ...]) -> None:
    fields = np.cumsum(np.random.default_rng(0).normal(size=shape), -3)
    section, values = encode_fields(fields, Latent(2.0, 0.0, False), MODEL)
    np.testing.assert_array_equal(decode_fields(section, shape, MODEL), values)
    assert np.sqrt(np.square(values - fields).mean()) < 2


def test_sparse_fields_that_share_nothing_are_left_alone() -> None:
    rng = np.random.default_rng(5)
    fields = np.zeros((12, 64, 64))
    for field in fields:
        y, x = rng.integers(0, 48, 2)
        field[y : y + 12, x : x + 12] = 40 * rng.random((12, 12))
    (one,) = choose(fields, 1.0)
    assert one.kind == IDENTITY
    assert size(fields, None) < 0.9 * size(fields, (mixing(COSINE, 12),))


# --- gains by wavelength: decoded fields have the power of the original where it can be had for little ----------------

HEIGHT, WIDTH = 96, 256


def relative_power(original: Array, decoded: Array) -> Array:
    """Return decoded over original power, mean over rows, at wavelengths between those of the outermost knots."""
    waves = np.log2(original.shape[-1] / np.arange(1, original.shape[-1] // 2 + 1))
    power = [(np.abs(np.fft.rfft(x)) ** 2).mean(0)[1:] for x in (original, decoded)]
    inner = (waves > KNOTS[0] - SPACING / 2) & (waves < KNOTS[-1] + SPACING / 2)
    return power[1][inner] / power[0][inner]


def weakened(x: Array, *, part: float = 0.1, below: float = 40) -> Array:
    """Return the field with waves shorter than `below` cells weaker by a part, as codecs leave them."""
    spectrum = np.fft.rfft(x)
    waves = x.shape[-1] / np.maximum(np.arange(spectrum.shape[-1]), 0.5)
    spectrum[..., waves < below] *= 1 - part
    return np.fft.irfft(spectrum, n=x.shape[-1])


def field() -> Array:
    return 20 * spectral_field(HEIGHT, WIDTH, slope=2.0, seed=3)


def test_power_that_was_lost_comes_back() -> None:
    x = field()
    noise = np.random.default_rng(0).normal(size=x.shape)
    y = weakened(x) + noise  # the error of what is not coded at all: gains are cheap beside it
    gains = find_gains(x, y, periodic=True)
    assert gains is not None
    assert (gains > 0).all()
    better = y.copy()
    equalise(better, gains / ONE_OCTAVE, periodic=True)
    before, after = (np.abs(relative_power(x, z) - 1).mean() for z in (y, better))
    assert after < before / 3
    assert np.square(x - better).mean() <= (1 + MOST_ERROR) * np.square(x - y).mean()


def test_gains_fall_where_there_is_too_much_power() -> None:
    x = field()
    y = weakened(x, part=-0.2) + 0.1 * np.random.default_rng(0).normal(size=x.shape)
    gains = find_gains(x, y, periodic=True)
    assert gains is not None
    assert (gains < 0).all()
    better = y.copy()
    equalise(better, gains / ONE_OCTAVE, periodic=True)
    assert np.square(x - better).mean() < np.square(x - y).mean()


@pytest.mark.parametrize("decoded", ["as the original", "other waves", "nothing"])
def test_there_are_no_gains_where_they_would_not_pay(decoded: str) -> None:
    """Nothing is wrong; or what was decoded has nothing of the original; or nothing was decoded at all."""
    x = field()
    other = 0.5 * 20 * spectral_field(HEIGHT, WIDTH, slope=2.0, seed=4)
    y = {"as the original": weakened(x, part=0.01), "other waves": other, "nothing": np.zeros_like(x)}[decoded]
    gains = find_gains(x, y, periodic=True)
    if gains is not None:  # less of what is wrong
        assert decoded == "other waves"
        better = y.copy()
        equalise(better, gains / ONE_OCTAVE, periodic=True)
        assert np.square(x - better).mean() <= (1 + MOST_ERROR) * np.square(x - y).mean()


def test_single_wavenumbers_come_nearer_to_their_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wave of 14.2 cells came out too strong among others too weak: what is right for their mean is not for it."""
    x = field()
    spectrum = np.fft.rfft(weakened(x))
    spectrum[:, 18] *= 1.15
    y = np.fft.irfft(spectrum, n=WIDTH) + np.random.default_rng(0).normal(size=x.shape)

    def worst() -> float:
        gains = find_gains(x, y, periodic=True)
        assert gains is not None
        better = y.copy()
        equalise(better, gains / ONE_OCTAVE, periodic=True)
        inner = slice(HEIGHT // 6, -(HEIGHT // 6))
        return float(np.abs(relative_power(x[inner], better[inner]) - 1).max())

    for_each = worst()
    monkeypatch.setattr(equaliser, "_evened", lambda gains, *_: gains)
    assert for_each < 0.9 * worst()


def test_rows_near_the_poles_have_no_say_in_gains_of_global_fields() -> None:
    x = field()
    y = weakened(x) + np.random.default_rng(0).normal(size=x.shape)
    edges = np.r_[: HEIGHT // 6, HEIGHT - HEIGHT // 6 : HEIGHT]
    other = y.copy()
    other[edges] *= 2
    gains = [find_gains(x, each, periodic) for each in (y, other) for periodic in (True, False)]
    assert gains[0] is not None
    np.testing.assert_array_equal(gains[0], gains[2])
    assert gains[3] is None or (gains[3] != gains[1]).any()


def test_narrow_fields_have_none() -> None:
    x = field()[:, : equaliser.LEAST_WIDTH - 1]
    assert find_gains(x, 0.5 * x, periodic=False) is None


def test_all_gains_together_are_held_to_what_they_may_cost() -> None:
    """Half of the power is missing and there is no other error beside: full gains would cost too much."""
    x = field()
    rng = np.random.default_rng(1)
    spectrum = np.fft.rfft(x)
    spectrum *= rng.random(spectrum.shape) < 0.6  # some coefficients are right, the others are lost
    y = np.fft.irfft(spectrum, n=WIDTH)
    gains = find_gains(x, y, periodic=True)
    assert gains is not None
    better = y.copy()
    equalise(better, gains / ONE_OCTAVE, periodic=True)
    assert np.square(x - better).mean() <= (1 + MOST_ERROR + 1e-6) * np.square(x - y).mean()
    assert np.abs(relative_power(x, better) - 1).mean() < np.abs(relative_power(x, y) - 1).mean()


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("width", [64, 75, 129])
def test_what_gains_add_is_what_the_spec_says(width: int, periodic: bool) -> None:
    rng = np.random.default_rng(width)
    x = rng.normal(3, 5, (5, width))
    gains = rng.integers(-128, 128, 9) / ONE_OCTAVE
    y = x.copy()
    equalise(y, gains, periodic)
    expected = equalised(x, gains.tolist(), periodic)
    assert np.abs(expected - x).max() > 0.1
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_every_field_of_a_block_is_equalised_by_itself() -> None:
    fields = 9 * drifting_fields(2, 3, 20, 80)
    gains = np.arange(9) / ONE_OCTAVE
    together = fields.copy()
    equalise(together, gains, periodic=True)
    for at in np.ndindex(2, 3):
        alone = fields[at].copy()
        equalise(alone, gains, periodic=True)
        np.testing.assert_allclose(together[at], alone, atol=1e-12)


# --- in a section and in payloads -------------------------------------------------------------------------------------


def section_with_gains() -> tuple[bytes, Array, Array]:
    x = 280 + field()
    coded = code_fields(x, Latent(16.0, 280.0, periodic=True), MODEL)
    section, values = coded.equalised(x)
    assert section[0] & 20 == 20
    assert len(section) == len(coded.section) + 9
    return section, values, x


def test_a_section_holds_its_gains_and_the_reader_applies_them() -> None:
    section, values, x = section_with_gains()
    decoded = decode_fields(section, x.shape, MODEL)
    np.testing.assert_allclose(decoded, values, rtol=1e-12)
    plain = bytes([section[0] & ~20]) + section[1:17] + section[26:]
    without = decode_fields(plain, x.shape, MODEL)
    assert np.abs(relative_power(x, decoded) - 1).mean() < np.abs(relative_power(x, without) - 1).mean()


def test_a_unit_of_gains_without_gains_is_corrupt() -> None:
    section, _, x = section_with_gains()
    with pytest.raises(CorruptPayloadError):
        decode_fields(bytes([section[0] & ~4]) + section[1:17] + section[26:], x.shape, MODEL)


def test_a_section_that_ends_inside_its_gains_is_truncated() -> None:
    section, _, x = section_with_gains()
    for size in range(30):
        with pytest.raises(TruncatedPayloadError):
            decode_fields(section[:size], x.shape, MODEL)


def test_flags_that_nobody_knows_are_corrupt() -> None:
    section, _, x = section_with_gains()
    with pytest.raises(CorruptPayloadError, match="flags"):
        decode_fields(bytes([section[0] | 64]) + section[1:], x.shape, MODEL)


def test_small_sections_and_those_without_transformers_have_none() -> None:
    x = 280 + field()
    small = code_fields(x, Latent(150.0, 280.0, periodic=True), MODEL)
    assert small.equalised(x)[0] == small.section
    alone = code_fields(x, replace(Latent(16.0, 280.0, periodic=True), corrected=False), MODEL)
    assert alone.equalised(x)[0] == alone.section


def test_the_base_of_a_bound_has_none() -> None:
    x = 280 + field()
    section, _ = encode_fields(x, Latent(16.0, 280.0, periodic=True), MODEL)
    assert not section[0] & 4


@pytest.mark.parametrize("periodic", [True, False])
def test_payloads_reach_their_target_with_gains(periodic: bool) -> None:
    x = (280 + 20 * spectral_field(180, 360, slope=2.0, seed=1)[:, : 360 if periodic else 301]).astype("f4")
    payload = isopress.compress(x, mode="latent", rmse=0.4)
    y = isopress.decompress(payload).astype("f8")
    assert 0.97 * 0.4 <= np.sqrt(np.square(x - y).mean()) <= 1.03 * 0.4
    assert isopress.inspect(payload).rmse == pytest.approx(np.sqrt(np.square(x - y).mean()), rel=1e-5)
    assert np.abs(relative_power(x, y) - 1).mean() < 0.1
