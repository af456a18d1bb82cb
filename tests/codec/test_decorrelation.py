"""Transforms along the axes before the field: undone, stored as coded, chosen where they make fields smaller."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.errors import PayloadError
from isopress.codec.latent.decorrelation import COSINE, IDENTITY, MAX_STORED, ONE, STORED, Mixing, channel_order, choose
from isopress.codec.latent.section import Latent, decode_fields
from tests.fields import drifting_fields, spectral_field
from tests.latent_models import encode_fields, small_model
from tests.strategies import Array, examples

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
