"""Latents under a pyramid: the bound holds although the base is float and differs a little between machines."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.chunk.encode import encode_chunk
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.errors import CorruptPayloadError, PayloadError, TruncatedPayloadError
from isopress.codec.latent import base_layer as based
from isopress.codec.latent.section import decode_fields
from isopress.codec.limits import Bound
from isopress.codec.values.quantiser import Quantiser
from tests.contract import bits
from tests.fields import decode_chunk, drifting_fields
from tests.latent_models import small_model
from tests.strategies import Array

LATENTS, PYRAMID = small_model(), load_pyramid()
SHAPE = (4, 24, 32)
ZERO = np.array([30.0])
DRIFT = 1e-5  # relative: several times what is seen between machines
LOOSE = Bound("abs", 3.0)


def steps() -> Array:
    return drifting_fields(*SHAPE) * 6


def weather(dtype: str = "f4") -> Array:
    return (280 + 10 * drifting_fields(10, 48, 64)).astype(dtype)


def drifting(monkeypatch: pytest.MonkeyPatch, zero: float, size: float, seed: int = 0) -> None:
    """Let the base come out `size` too large or small at every value, relative to the data: another machine."""

    def decode(*arguments: object) -> Array:
        y = decode_fields(*arguments)  # type: ignore[arg-type]
        return y + size * (y + zero) * np.random.default_rng(seed).choice([-1.0, 1.0], y.shape)

    monkeypatch.setattr(based, "decode_fields", decode)


def test_every_value_is_within_half_a_step_and_decodes_alike() -> None:
    y = steps()
    coded = based.encode(y, None, SHAPE[:1], ZERO, LATENTS, PYRAMID)
    assert coded is not None
    sections, v = coded
    assert np.abs(v / 64 - y).max() <= 0.5
    np.testing.assert_array_equal(based.decode(sections, SHAPE, SHAPE[:1], LATENTS, PYRAMID), v)


@pytest.mark.parametrize("zero", [0.0, 30.0, -900.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_half_a_step_holds_where_the_base_drifts(zero: float, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    y = steps()
    coded = based.encode(y, None, SHAPE[:1], np.array([zero]), LATENTS, PYRAMID)
    assert coded is not None
    drifting(monkeypatch, zero, DRIFT, seed)
    v = based.decode(coded[0], SHAPE, SHAPE[:1], LATENTS, PYRAMID)
    assert np.abs(v - coded[1]).max() > 0
    assert np.abs(v / 64 - y).max() <= 0.5


def test_values_too_far_from_zero_have_no_base() -> None:
    assert based.encode(steps(), None, SHAPE[:1], np.array([1e5]), LATENTS, PYRAMID) is None


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_loose_bounds_on_several_fields_get_a_base(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = weather(dtype)
    x[2, :5, :7] = np.nan
    coded = encode_chunk(x, LOOSE)
    assert coded.method == Method.BASED
    assert len(coded.models) == 2
    assert Section.EXCEPTIONS not in dict(coded.sections)
    y = decode_chunk(coded, x.dtype, x.shape)
    finite = np.isfinite(x)
    assert bits(x[~finite]) == bits(y[~finite])
    error = np.abs(x.astype("g") - y)[finite]
    assert error.max() <= 3
    assert coded.max_error == pytest.approx(float(error.max()), rel=1e-6)
    quantiser = Quantiser.from_bytes(dict(coded.sections)[Section.PARAMETERS], len(x))
    drifting(monkeypatch, float((quantiser.offset / quantiser.step)[0]), DRIFT)
    drifted = decode_chunk(coded, x.dtype, x.shape)
    assert bits(drifted) != bits(y)
    assert np.abs(x.astype("g") - drifted)[finite].max() <= 3


def test_large_fields_have_no_base_as_one_would_cost_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x = weather()
    monkeypatch.setattr("isopress.codec.chunk.encode.MAX_BASED_FIELD", x[0].size - 1)
    assert encode_chunk(x, LOOSE).method != Method.BASED
    monkeypatch.setattr("isopress.codec.chunk.encode.MAX_BASED_FIELD", x[0].size)
    assert encode_chunk(x, LOOSE).method == Method.BASED


def test_one_field_and_tight_bounds_have_no_base() -> None:
    x = weather()
    assert encode_chunk(x[:1], LOOSE).method != Method.BASED
    assert encode_chunk(x, Bound("abs", 0.05)).method != Method.BASED


# --- damage -----------------------------------------------------------------------------------------------------------


def sections() -> dict[Section, bytes]:
    coded = based.encode(steps(), None, SHAPE[:1], ZERO, LATENTS, PYRAMID)
    assert coded is not None
    return coded[0]


@pytest.mark.parametrize(
    ("margin", "error"),
    [
        (b"", TruncatedPayloadError),
        (bytes(7), TruncatedPayloadError),
        (bytes(9), CorruptPayloadError),
        (struct.pack("<d", -0.01), CorruptPayloadError),
        (struct.pack("<d", 0.2), CorruptPayloadError),
        (struct.pack("<d", float("nan")), CorruptPayloadError),
    ],
)
def test_a_margin_that_is_none_is_an_error(margin: bytes, error: type[PayloadError]) -> None:
    with pytest.raises(error):
        based.decode(sections() | {Section.MARGIN: margin}, SHAPE, SHAPE[:1], LATENTS, PYRAMID)


@pytest.mark.parametrize("damaged", [Section.LATENT, Section.PYRAMID])
def test_damaged_parts_are_an_error(damaged: Section) -> None:
    whole = sections()
    rng = np.random.default_rng(0)
    start = 17 if damaged == Section.LATENT else 1  # before it: step and offset, any of which is valid
    for bit in 8 * start + rng.permutation(8 * (len(whole[damaged]) - start))[:12]:
        data = bytearray(whole[damaged])
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PayloadError):
            based.decode(whole | {damaged: bytes(data)}, SHAPE, SHAPE[:1], LATENTS, PYRAMID)
    for length in range(0, len(whole[damaged]), len(whole[damaged]) // 8):
        with pytest.raises(PayloadError):
            based.decode(whole | {damaged: whole[damaged][:length]}, SHAPE, SHAPE[:1], LATENTS, PYRAMID)


def test_exceptions_and_missing_models_are_refused() -> None:
    coded: EncodedChunk = encode_chunk(weather(), LOOSE)
    assert coded.method == Method.BASED
    more = (*coded.sections, (int(Section.EXCEPTIONS), bytes(20)))
    for bad in (replace(coded, sections=more), replace(coded, models=coded.models[:1])):
        with pytest.raises(CorruptPayloadError):
            decode_chunk(bad, np.dtype("f4"), (10, 48, 64))
