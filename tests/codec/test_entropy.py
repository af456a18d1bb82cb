"""Entropy coding: integer networks choose tables, a range coder uses them."""

from collections.abc import Iterator
from contextlib import contextmanager

import constriction
import numpy as np
import pytest
import torch

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import CONTEXTS, PAD, algebra, bin_centre, log_index, scale_tables
from isopress.codec.bounded.predictor import LIMIT, PROXY_FEATURES
from isopress.codec.bounded.reference_order import GAPS, KINDS, PROXIES, slots_of
from isopress.codec.bounded.traversal import pad
from isopress.codec.bounded.weights import columns_of_kinds
from isopress.codec.bytes import read_varint
from isopress.codec.entropy import tables
from isopress.codec.entropy.coder import OFFSET_MAX, SHIFT_MAX, SymbolReader, SymbolWriter, best_offset, split_scale
from isopress.codec.entropy.integer_mlp import Conditioning, IntegerLayer, IntegerNetwork
from isopress.codec.entropy.tables import SCALES, TAILS
from isopress.codec.errors import PayloadError
from isopress.codec.latent.context_model import evaluate
from isopress.codec.training.tables import logistic_tables
from tests.spec.entropy import RangeDecoder, table_of, uniform

# --- integer networks give the same integers whatever computes them ---------------------------------------------------


def layer(rng: np.random.Generator, n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight = rng.integers(-127, 128, (n_out, n_in)).astype(np.int8)
    return (
        weight,
        rng.integers(-9999, 9999, (6, n_out)).astype(np.int32),
        rng.integers(3, 9, n_out).astype(np.int8),
    )


def in_python(parts, x: np.ndarray, level: int, extra: np.ndarray | int = 0) -> np.ndarray:
    """Evaluate layers (weight, bias, shift) in Python's integers; `extra` joins the bias of the first."""
    h = x.astype(object)
    for i, (weight, bias, shift) in enumerate(parts):
        first = bias[level] if i else bias[level] + extra
        total = weight.astype(object) @ h + first.astype(object)[:, None]
        h = np.array([[round_half_even(v, int(s)) for v in row] for row, s in zip(total, shift, strict=True)])
        if i < len(parts) - 1:
            h = h.clip(0, 127)
    return h.astype(np.float32)


def with_ones(x: np.ndarray) -> np.ndarray:
    return np.vstack([x, np.ones((1, x.shape[1]))]).astype(np.float32)


def test_a_network_in_float32_equals_one_in_python_integers():
    rng = np.random.default_rng(0)
    parts = [layer(rng, 12, 16), layer(rng, 16, 3)]
    network = IntegerNetwork(tuple(IntegerLayer.from_integers(*p, input_max=127) for p in parts))
    x = rng.integers(-127, 128, (12, 50))
    for level in range(6):
        np.testing.assert_array_equal(network(with_ones(x), level, Scratch()), in_python(parts, x, level))


def test_kind_and_gap_join_the_bias_and_missing_proxies_are_zeros():
    rng = np.random.default_rng(1)
    alone = 10
    parts = [layer(rng, alone + PROXIES * PROXY_FEATURES, 16), layer(rng, 16, 3)]
    kinds, gaps = (rng.integers(-9999, 9999, (n, 16)).astype(np.int32) for n in (KINDS, GAPS))
    scaled = [np.ldexp(x.astype(np.float32), -parts[0][2].astype(np.int32)) for x in (kinds, gaps)]
    layers = tuple(IntegerLayer.from_integers(*p, input_max=127) for p in parts)
    network = IntegerNetwork(layers, Conditioning(columns_of_kinds(alone), *scaled))
    for kind in range(KINDS):
        slots = [alone + PROXY_FEATURES * slot + i for slot in slots_of(kind) for i in range(PROXY_FEATURES)]
        there = [*range(alone), *slots]
        x = np.zeros((alone + PROXIES * PROXY_FEATURES, 20), int)
        x[there] = rng.integers(-127, 128, (len(there), 20))
        for gap in range(GAPS):
            for level in (0, 5):
                expected = in_python(parts, x, level, kinds[kind] + gaps[gap])
                found = network(with_ones(x[there]), level, Scratch(), kind, gap)
                np.testing.assert_array_equal(found, expected)


def test_inputs_that_are_known_fold_into_the_bias():
    rng = np.random.default_rng(3)
    parts = [layer(rng, 12, 16), layer(rng, 16, 3)]
    network = IntegerNetwork(tuple(IntegerLayer.from_integers(*p, input_max=127) for p in parts))
    rows, known = (0, 1, 4, 5, 11), ((2, 127), (7, -50))
    x = np.zeros((12, 50), int)
    x[list(rows)] = rng.integers(-127, 128, (len(rows), 50))
    for row, value in known:
        x[row] = value
    for level in range(6):
        expected = in_python(parts, x, level)
        folded, some = network.folded(rows, known), with_ones(x[list(rows)])
        np.testing.assert_array_equal(folded(some, level, Scratch()), expected)
        np.testing.assert_array_equal(evaluate(folded, some, level, Scratch()), expected)


def test_inputs_that_depend_on_references_are_not_folded():
    rng = np.random.default_rng(4)
    layers = (IntegerLayer.from_integers(*layer(rng, 8, 3), input_max=127),)
    network = IntegerNetwork(layers, Conditioning(((),) * KINDS, np.zeros((KINDS, 3), "f4"), np.zeros((GAPS, 3), "f4")))
    with pytest.raises(ValueError, match="references"):
        network.folded((0, 1), ())


def test_a_network_that_knows_nothing_of_references_refuses_them():
    network = IntegerNetwork((IntegerLayer.from_integers(*layer(np.random.default_rng(0), 4, 3), input_max=127),))
    x = np.ones((5, 2), np.float32)
    np.testing.assert_array_equal(network(x, 0, Scratch(), 0, 3), network(x, 0, Scratch()))
    with pytest.raises(ValueError, match="references"):
        network(x, 0, Scratch(), 1)


def round_half_even(value: int, shift: int) -> int:
    quotient, rest = divmod(value, 1 << shift)
    half = 1 << (shift - 1)
    return quotient + (rest > half or (rest == half and quotient % 2 == 1))


def test_a_layer_that_could_leave_the_exact_range_is_refused():
    weight = np.full((1, 2000), 127, np.int8)
    with pytest.raises(ValueError, match="exact"):
        IntegerLayer.from_integers(weight, np.zeros((6, 1), np.int32), np.zeros(1, np.int8), input_max=127)


def test_what_else_is_added_counts_when_a_layer_is_proved_exact():
    parts = np.full((1, 1000), 127, np.int8), np.zeros((6, 1), np.int32), np.zeros(1, np.int8)
    reach = 1000 * 127 * 127
    IntegerLayer.from_integers(*parts, input_max=127, more=2**24 - 1 - reach)
    with pytest.raises(ValueError, match="exact"):
        IntegerLayer.from_integers(*parts, input_max=127, more=2**24 - reach)


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda c: c.name)
def test_planes_leave_no_residual_and_the_cubic_is_exact_on_them(context):
    a = algebra(context)
    n = len(context.offsets)
    for slope in ((0, 0), (3, 0), (0, -7), (2, 5)):
        plane = np.array([1000.0 + slope[0] * y + slope[1] * x for y, x in context.offsets])
        e = a.matrix @ plane
        assert not e[:n].any()
        assert e[n : n + 2].tolist() == [a.denominator * slope[0], a.denominator * slope[1]]
        assert e[n + 2] == 1000 * context.cubic_divisor


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda c: c.name)
def test_no_sum_of_the_largest_values_leaves_the_exact_range_of_float64(context):
    a = algebra(context)
    n = len(context.offsets)
    largest = 3 * LIMIT  # a value of a damaged section, less a guess
    for h in range(2, 9):
        for w in range(2, 9):
            for seen in what_points_see(context, h, w):
                within = np.abs(a.matrix) @ np.abs(seen).sum(1)
                assert within.max() * largest < 2**53
                residuals = np.abs(a.matrix[:n] @ seen).sum(1)
                assert a.weights @ residuals * largest + scale_tables(context).floor < 2**53
                with_itself = np.append(np.abs(seen).sum(1), 1)
                assert (np.abs(a.proxy) @ with_itself).max() * LIMIT < 2**53


def what_points_see(context, h: int, w: int):
    """Yield, for every point of a phase on a fine grid of (h, w), its neighbours as sums of the grid's values."""
    planes = {(y, x): pad(np.eye(h * w).reshape(h * w, h, w)[:, y::2, x::2], False) for y in (0, 1) for x in (0, 1)}
    for y in range(context.parity[0], h, 2):
        for x in range(context.parity[1], w, 2):
            cells = [(y + dy, x + dx) for dy, dx in context.offsets]
            yield np.array([planes[r % 2, c % 2][:, r // 2 + PAD, c // 2 + PAD] for r, c in cells])


def test_logarithmic_indexes_count_eight_an_octave():
    x = np.array([1.0, 2.0, 3.0, 4.0, 2.0**40])
    assert (log_index(x) - 1016).tolist() == [0, 8, 12, 16, 320]
    index = np.arange(1016, 1400, dtype=np.int32)
    np.testing.assert_array_equal(log_index(bin_centre(index)), index)


def test_scale_tables_are_finite_and_monotone():
    for context in CONTEXTS:
        tables = scale_tables(context)
        assert np.isfinite(tables.roughness).all()
        assert (np.diff(tables.roughness) > 0).all()
        assert (np.diff(tables.residual) < 0).all()


# --- torch ------------------------------------------------------------------------------------------------------------


@contextmanager
def legacy_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def newer_precision() -> Iterator[None]:
    backend = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(backend, "fp32_precision"):
        pytest.skip("this torch has no precision per backend")
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


@contextmanager
def of_onednn() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DNNL_DEFAULT_FPMATH_MODE", "BF16")
        yield


@contextmanager
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocasting() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("setting", [legacy_precision, newer_precision, of_onednn, two_threads, autocasting])
def test_torch_gives_the_same_integers_whatever_precision_the_program_allows_it(setting) -> None:
    rng = np.random.default_rng(2)
    parts = [layer(rng, 70, 48), layer(rng, 48, 32), layer(rng, 32, 3)]
    network = IntegerNetwork(tuple(IntegerLayer.from_integers(*p, input_max=127) for p in parts))
    x = with_ones(rng.integers(-127, 128, (70, 9000)))
    expected = network(x, 2, Scratch())
    with setting():
        np.testing.assert_array_equal(evaluate(network, x, 2, Scratch()), expected)


# --- symbols, scale indexes and their bytes ---------------------------------------------------------------------------


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
