"""Integer networks give the same integers whatever computes them."""

import numpy as np
import pytest

from isopress.codec.contexts import CONTEXTS, algebra, bin_centre, log_index, scale_tables
from isopress.codec.intnet import IntegerLayer, IntegerNetwork
from isopress.codec.scratch import Scratch


def layer(rng: np.random.Generator, n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight = rng.integers(-127, 128, (n_out, n_in)).astype(np.int8)
    return (
        weight,
        rng.integers(-9999, 9999, (6, n_out)).astype(np.int32),
        rng.integers(3, 9, n_out).astype(np.int8),
    )


def test_a_network_in_float32_equals_one_in_python_integers():
    rng = np.random.default_rng(0)
    parts = [layer(rng, 12, 16), layer(rng, 16, 3)]
    network = IntegerNetwork(tuple(IntegerLayer.from_integers(*p, input_max=127) for p in parts))
    x = rng.integers(-127, 128, (12, 50))
    inputs = np.vstack([x, np.ones((1, 50))]).astype(np.float32)
    for level in range(6):
        h = x.astype(object)
        for i, (weight, bias, shift) in enumerate(parts):
            total = weight.astype(object) @ h + bias[level].astype(object)[:, None]
            h = np.array([[round_half_even(v, int(s)) for v in row] for row, s in zip(total, shift, strict=True)])
            if i == 0:
                h = h.clip(0, 127)
        np.testing.assert_array_equal(network(inputs, level, Scratch()), h.astype(np.float32))


def round_half_even(value: int, shift: int) -> int:
    quotient, rest = divmod(value, 1 << shift)
    half = 1 << (shift - 1)
    return quotient + (rest > half or (rest == half and quotient % 2 == 1))


def test_a_layer_that_could_leave_the_exact_range_is_refused():
    weight = np.full((1, 2000), 127, np.int8)
    with pytest.raises(ValueError, match="exact"):
        IntegerLayer.from_integers(weight, np.zeros((6, 1), np.int32), np.zeros(1, np.int8), input_max=127)


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
    largest = 7 * (2.0**28)  # three cells of extrapolation of the largest value
    reach = np.abs(a.matrix[: len(context.offsets)]).sum(1) * largest
    assert reach.max() * a.weights.sum() < 2**53


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
