"""Chunks of several fields: bounds of their own, and latents under a pyramid."""

import math
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.chunk.decode import ChunkDecoder
from isopress.codec.chunk.encode import Chunk, codings, encode_chunk
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.errors import CorruptPayloadError, PayloadError, TruncatedPayloadError
from isopress.codec.latent import base_layer as based
from isopress.codec.latent.section import decode_fields
from isopress.codec.limits import Bound
from isopress.codec.values.outliers import bits_of, is_list
from isopress.codec.values.quantiser import Quantiser
from tests.codec.test_encode import sample
from tests.contract import bits
from tests.fields import decode_chunk, drifting_fields
from tests.latent_models import small_model
from tests.strategies import Array

# --- chunks of several fields: some fields of a block are decoded without the others, bit for bit the same ------------

PARTLY = (Method.BLOCK, Method.LAYERS, Method.VAEFORMER, Method.ON_VAEFORMER)  # decode only what is asked for


def block_of(x: Array, bound: Bound) -> EncodedChunk:
    """Code `x` as a block, even where another way would be smaller."""
    found = codings(Chunk.of(x, bound, context="block"))
    return next(coding for coding in found if coding.method == Method.BLOCK)


def special_values() -> Array:
    x = drifting_fields(6, 14, 16).astype("f4")
    x[:, 3:6] = np.nan
    x[2] = np.nan
    x[4, 0, :4] = [np.inf, -np.inf, -0.0, 0.0]
    x.view("u4")[5, 7, 7:9] = 0x7FC01234, 0xFFFFFFFF
    return x


def many_nans() -> Array:
    """More kinds of NaN than a table of special values holds: the rest is listed."""
    x = drifting_fields(5, 20, 22).astype("f4")
    rng = np.random.default_rng(0)
    x.view("u4").reshape(-1)[rng.permutation(x.size)[:265]] = 0x7FC00000 + rng.permutation(2**22)[:265]
    return x


def signs() -> Array:
    x = drifting_fields(4, 12, 14)
    x[1, 3] = 0
    return x.astype("f4")


def unpacked_twice() -> Array:
    """A lattice in float64 from which every other value is off by an ulp: corrections to the bits of all values."""
    return np.rint(drifting_fields(4, 16, 18) * 900) * 0.0123456789 + 251.0987654321


def offsets_of_their_own() -> Array:
    """Fields too far apart for one offset."""
    return drifting_fields(4, 12, 14) + 1e7 * np.arange(4)[:, None, None]


PARTIAL: dict[str, tuple[Callable[[], Array], Bound, set[Section]]] = {
    "plain": (lambda: drifting_fields(2, 4, 12, 14).astype("f4"), Bound("abs", 0.01), set()),
    "special": (special_values, Bound("abs", 0.01), {Section.SPECIAL}),
    "special, exact": (lambda: np.round(special_values(), 1), Bound("lossless"), {Section.SPECIAL}),
    "many kinds of NaN": (many_nans, Bound("abs", 0.01), {Section.SPECIAL, Section.EXCEPTIONS}),
    "pointwise": (signs, Bound("pointwise", 0.01), {Section.SPECIAL, Section.SIGNS}),
    "knee": (signs, Bound("pointwise", 0.01, 0.01), set()),
    "corrections": (unpacked_twice, Bound("lossless"), {Section.EXCEPTIONS}),
    "lattice": (lambda: (7 + np.rint(drifting_fields(5, 12, 14) * 40) / 40).astype("f4"), Bound("abs", 0.01), set()),
    "an offset each": (offsets_of_their_own, Bound("abs", 1.0), set()),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_some_fields_of_a_block_are_those_of_all_of_it_bit_for_bit(name: str) -> None:
    make, bound, sections = PARTIAL[name]
    x = make()
    encoded = block_of(x, bound)
    assert {section for section, _ in encoded.sections} == {Section.PARAMETERS, Section.BLOCK} | sections
    everything = ChunkDecoder(encoded, x.dtype, x.shape)
    whole = bits_of(everything.decode().copy()).reshape(-1, *x.shape[-2:])
    assert everything.decoded == len(whole)
    exceptions = dict(encoded.sections).get(Section.EXCEPTIONS, b"\0")
    for field in range(len(whole)):
        decoder = ChunkDecoder(encoded, x.dtype, x.shape)
        part = decoder.decode([field])
        assert (part.shape, part.dtype) == (x.shape, x.dtype)
        np.testing.assert_array_equal(bits_of(part).reshape(whole.shape)[field], whole[field])
        if not is_list(exceptions):
            assert decoder.decoded == len(whole)  # corrections are to all values at once
        elif field == 0:
            assert decoder.decoded == 1


@pytest.mark.parametrize("name", PARTIAL)
def test_fields_stay_as_they_are_when_others_are_asked_for_later(name: str) -> None:
    make, bound, _ = PARTIAL[name]
    x = make()
    encoded = block_of(x, bound)
    whole = bits_of(decode_chunk(encoded, x.dtype, x.shape)).reshape(-1, *x.shape[-2:])
    decoder = ChunkDecoder(encoded, x.dtype, x.shape)
    asked: list[int] = []
    for field in np.random.default_rng(0).permutation(len(whole)).tolist():
        asked.append(field)
        part = bits_of(decoder.decode([field, asked[0]])).reshape(whole.shape)
        np.testing.assert_array_equal(part[asked], whole[asked])
    assert decoder.decoded == len(whole)
    np.testing.assert_array_equal(bits_of(decoder.decode()).reshape(whole.shape), whole)


def test_the_exceptions_of_the_samples_are_a_list_and_corrections() -> None:
    lists = {}
    for name in ("many kinds of NaN", "corrections"):
        make, bound, _ = PARTIAL[name]
        lists[name] = is_list(dict(block_of(make(), bound).sections)[Section.EXCEPTIONS])
    assert lists == {"many kinds of NaN": True, "corrections": False}


@pytest.mark.parametrize("method", [m for m in Method if m not in PARTLY])
def test_other_methods_decode_whole_whatever_is_asked_for(method: Method) -> None:
    encoded, x = sample(method)
    decoder = ChunkDecoder(encoded, x.dtype, x.shape)
    assert decoder.decoded == 0
    part = decoder.decode([1])
    np.testing.assert_array_equal(bits_of(part), bits_of(decode_chunk(encoded, x.dtype, x.shape)))
    assert decoder.decoded == math.prod(x.shape[:-2])


@pytest.mark.parametrize("shape", [(), (5,), (12 * 14,)])
def test_a_block_in_a_payload_of_fewer_than_two_axes_is_refused_as_damage(shape: tuple[int, ...]) -> None:
    x = drifting_fields(3, 12, 14).astype("f4")
    encoded = block_of(x, Bound("abs", 0.05))
    assert {section for section, _ in encoded.sections} == {Section.PARAMETERS, Section.BLOCK}
    with pytest.raises(PayloadError):
        decode_chunk(encoded, x.dtype, shape)


def test_a_block_that_names_weights_without_references_is_corrupt() -> None:
    x = drifting_fields(2, 12, 14).astype("f4")
    encoded = replace(block_of(x, Bound("abs", 0.05)), models=(load_pyramid("field-0.9").sha256,))
    with pytest.raises(PayloadError):
        decode_chunk(encoded, x.dtype, x.shape)


def test_more_fields_than_a_block_has_bytes_are_refused_at_once() -> None:
    encoded = block_of(drifting_fields(3, 12, 14).astype("f4"), Bound("abs", 0.05))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            decode_chunk(encoded, np.dtype("f4"), (300_000, 1, 1))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


# --- latents under a pyramid: the bound holds although the base is float and differs a little between machines --------

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
