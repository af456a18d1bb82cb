"""Chunks of several fields: some fields of a block are decoded without the others, bit for bit the same."""

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.chunk.decode import ChunkDecoder
from isopress.codec.chunk.encode import Chunk, codings
from isopress.codec.encoded import EncodedChunk, Method, Section
from isopress.codec.errors import PayloadError
from isopress.codec.limits import Bound
from isopress.codec.values.outliers import bits_of, is_list
from tests.codec.test_encode import sample
from tests.fields import decode_chunk, drifting_fields
from tests.strategies import Array

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
