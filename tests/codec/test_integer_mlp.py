"""Integer networks give the same integers whatever computes them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import CONTEXTS, PAD, algebra, bin_centre, log_index, scale_tables
from isopress.codec.bounded.predictor import LIMIT, PROXY_FEATURES
from isopress.codec.bounded.reference_order import GAPS, KINDS, PROXIES, slots_of
from isopress.codec.bounded.traversal import pad
from isopress.codec.bounded.weights import columns_of_kinds
from isopress.codec.entropy.integer_mlp import Conditioning, IntegerLayer, IntegerNetwork
from isopress.codec.latent.context_model import evaluate


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
