"""Symbols, scale indexes and their bytes."""

import constriction
import numpy as np
import pytest

from isopress.codec.bytes import read_varint
from isopress.codec.entropy import tables
from isopress.codec.entropy.coder import OFFSET_MAX, SHIFT_MAX, SymbolReader, SymbolWriter, best_offset, split_scale
from isopress.codec.entropy.tables import SCALES, TAILS
from isopress.codec.errors import PayloadError
from isopress.codec.training.tables import logistic_tables
from tests.spec.entropy import RangeDecoder, table_of, uniform


def draw(rng: np.random.Generator, n: int, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scale = rng.integers(-40, 150, n).astype(np.int16)
    tail = rng.integers(0, TAILS, n).astype(np.int8)
    symbols = np.rint(rng.standard_cauchy(n) * spread).clip(-(2**27), 2**27).astype(np.int32)
    return symbols, scale, tail


@pytest.mark.parametrize("spread", [0.01, 1.0, 1e3, 1e6])
def test_symbols_come_back_whatever_scale_was_predicted(spread):
    rng = np.random.default_rng(int(spread * 100))
    phases = [draw(rng, n, spread) for n in (1, 7, 3000)]
    writer = SymbolWriter()
    for phase in phases:
        writer.phase(*phase)
    reader = SymbolReader(memoryview(writer.finish()))
    for symbols, scale, tail in phases:
        np.testing.assert_array_equal(reader.phase(scale, tail), symbols)
    reader.finish()


def test_a_second_decoder_written_from_the_spec_reads_the_same_symbols():
    rng = np.random.default_rng(3)
    symbols, scale, tail = draw(rng, 800, 2.0)
    writer = SymbolWriter()
    writer.phase(symbols, scale, tail)
    data = memoryview(writer.finish())
    size, start = read_varint(data, 0)
    escapes, decoder = (
        data[start : start + size],
        RangeDecoder(np.frombuffer(data[start + size :], "<u4").tolist()),
    )
    offset = decoder.decode(uniform(63)) - 31
    c = scale.astype(int) + offset + 11
    shift = np.clip((c - 72) // 8 + 1, 0, 20)
    which = 72 * tail.astype(int) + np.clip(c - 8 * shift, 0, 71)
    high = np.empty(800, int)
    position = 0
    for t in sorted(set(which.tolist())):
        table = table_of(t)
        a = len(table) // 2 - 1
        for i in np.flatnonzero(which == t):
            high[i] = decoder.decode(table) - a
            if abs(high[i]) == a:
                excess, position = read_varint(escapes, position)
                high[i] += np.sign(high[i]) * excess
    for f in sorted(set(shift[shift > 0].tolist())):
        for i in np.flatnonzero(shift == f):
            high[i] = high[i] * 2**f + decoder.decode(uniform(2**f)) - 2 ** (f - 1)
    np.testing.assert_array_equal(high, symbols)


def test_the_offset_of_a_phase_makes_up_for_wrong_scales():
    rng = np.random.default_rng(0)
    symbols = np.rint(rng.logistic(size=5000) * 4).astype(np.int32)
    tail = np.zeros(5000, np.int8)
    sizes = []
    for scale in (0, 40):  # the first is five octaves too low for what the reach of a large phase is
        writer = SymbolWriter()
        writer.phase(symbols, np.full(5000, scale, np.int16), tail)
        sizes.append(len(writer.finish()))
    assert abs(best_offset(symbols, np.full(5000, 32, np.int16), tail)) <= OFFSET_MAX
    assert sizes[1] < sizes[0]


def test_scales_beyond_the_last_table_shift_symbols_by_an_octave_each():
    table_index, shift = split_scale(np.array([-100, 60, 61, 69, 1000], np.int32))
    assert table_index.tolist() == [0, SCALES - 1, SCALES - 8, SCALES - 8, SCALES - 1]
    assert shift.tolist() == [0, 0, 1, 2, SHIFT_MAX]


def test_stored_tables_are_distributions_and_fresh_ones_equal_them():
    kept = tables.frequencies()
    np.testing.assert_array_equal(logistic_tables(), kept)
    assert (kept[:, 0].astype(int) + 2 * kept[:, 1:].sum(1, dtype=int) == 2**24).all()
    assert all(row[: a + 1].all() and not row[a + 1 :].any() for row, a in zip(kept, tables.support(), strict=True))


def test_damaged_streams_raise_or_decode_to_something_but_never_crash():
    rng = np.random.default_rng(5)
    symbols, scale, tail = draw(rng, 400, 3.0)
    writer = SymbolWriter()
    writer.phase(symbols, scale, tail)
    data = bytearray(writer.finish())
    for i in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[i] ^= 1 << (i % 8)
        try:
            reader = SymbolReader(memoryview(damaged))
            assert reader.phase(scale, tail).shape == symbols.shape
        except PayloadError:
            continue


# --- the second decoder -----------------------------------------------------------------------------------------------


queue, Uniform = constriction.stream.queue, constriction.stream.model.Uniform


def test_both_range_decoders_agree_on_what_is_exhausted() -> None:
    rng = np.random.default_rng(0)
    found = []
    for trial in range(300):
        sizes = rng.choice([2, 3, 63, 256, 1000], rng.integers(0, 12)).tolist()
        encoder = queue.RangeEncoder()
        for size in sizes:
            encoder.encode(rng.integers(0, size, 1).astype(np.int32), Uniform(size))
        more = rng.integers(0, 3, trial % 3).astype(np.uint32)
        words = np.append(encoder.get_compressed(), more).astype(np.uint32)
        theirs, ours = queue.RangeDecoder(words), RangeDecoder(words.tolist())
        for size in sizes[: len(sizes) - trial % 2]:
            assert theirs.decode(Uniform(size), 1)[0] == ours.decode(uniform(size))
        found.append(ours.exhausted)
        assert theirs.maybe_exhausted() == found[-1]
    assert set(found) == {False, True}
