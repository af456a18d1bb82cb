"""The correction of latents in whole numbers: numpy and every level of the kernels agree on every step."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isopress.codec.latent.correction import features, spread_of
from isopress.codec.latent.integer_transformer import (
    TOP,
    TOP_SCORED,
    Product,
    Windows,
    attended,
    depthwise,
    exp2,
    gelu,
    log,
    normalised,
)
from isopress.codec.native import correction, dispatch

COMPILED = [name for name in dispatch.levels() if name != dispatch.NUMPY]
needs_kernels = pytest.mark.skipif(not COMPILED, reason="no kernels were built")


def assert_levels_agree(work: Callable[[], NDArray[Any]]) -> None:
    """Compare what every level makes of the same work with what numpy makes of it, bit by bit."""
    with dispatch.using(dispatch.NUMPY):
        expected = work()
    for level in COMPILED:
        with dispatch.using(level):
            found = work()
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, err_msg=level)


def activations(rng: np.random.Generator, *shape: int, top: int = TOP) -> NDArray[np.int16]:
    """Return small and large integers up to the largest."""
    size = rng.choice([3, 300, top], shape[-1])
    return (rng.integers(-size, size + 1, shape)).astype(np.int16)


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("channels", [(2,), (18,), (6, 10)])
@pytest.mark.parametrize("outputs", [1, 16, 17, 40])
def test_products_are_those_of_numpy(side: int, channels: tuple[int, ...], outputs: int) -> None:
    rng = np.random.default_rng(outputs)
    weight = rng.standard_t(2, (outputs, sum(channels), *((3, 3) if side == 3 else ())))
    product = Product.of(weight, rng.normal(size=outputs), one=7)
    for shape in ((3, 3), (4, 9), (5, 8), (3, 14)):
        inputs = [activations(rng, *shape, n) for n in channels]
        assert_levels_agree(lambda: product(*inputs))  # noqa: B023
        assert_levels_agree(lambda: product.integers(*inputs, top=TOP_SCORED))  # noqa: B023
        assert_levels_agree(lambda: product.activations(*inputs))  # noqa: B023


def test_no_sum_leaves_32_bits_and_weights_are_as_fine_as_that_allows() -> None:
    weight = np.random.default_rng(0).standard_cauchy((9, 400)) * 10.0 ** np.arange(-4, 5)[:, None]
    product = Product.of(weight, np.zeros(9))
    sums = np.abs(product.weight.astype(np.int64)).sum((0, 1, 2)) * TOP
    assert (sums < 2**31).all()
    assert (np.abs(product.weight).max((0, 1, 2)) > 2**13).any()
    worst = (np.sign(product.weight[0, 0, :, 4]) * TOP).astype(np.int16)[None, None]
    assert_levels_agree(lambda: product(worst))
    with dispatch.using(dispatch.NUMPY):
        np.testing.assert_allclose(product(worst)[0, 0, 4] * 512, np.abs(weight[4]).sum() * TOP, rtol=1e-2)


@pytest.mark.parametrize("n", [1, 2, 7, 16, 48, 130])
def test_norms_and_convolutions_of_tokens_are_those_of_numpy(n: int) -> None:
    rng = np.random.default_rng(n)
    weight, bias = rng.normal(size=(2, n)).astype("f4")
    for size in (1e-6, 1, 1e4):
        x = (rng.normal(size=(4, 5, n)) * size).astype("f4")
        assert_levels_agree(lambda: normalised(x, weight, bias))  # noqa: B023
        for periodic in (False, True):
            kernel = rng.normal(size=(3, 3, n)).astype("f4")
            assert_levels_agree(lambda: depthwise(x, kernel, bias, periodic))  # noqa: B023


@pytest.mark.parametrize(("heads", "width"), [(1, 2), (2, 8), (3, 16), (1, 34), (1, 128)])
def test_attention_is_that_of_numpy(heads: int, width: int) -> None:
    rng = np.random.default_rng(width)
    for h, w, window in ((1, 1, 4), (3, 5, 8), (9, 14, 4), (6, 20, 5)):
        qkv = activations(rng, h, w, 3 * heads * width, top=TOP_SCORED)
        for odd, periodic in ((False, False), (True, False), (True, True)):
            rows = Windows.divide(h, window, odd=odd, periodic=False)
            columns = Windows.divide(w, window, odd=odd, periodic=periodic)
            assert_levels_agree(lambda: attended(qkv, heads, rows, columns))  # noqa: B023


@pytest.mark.parametrize("cell", [1, 2, 3, 4, 5])
def test_features_are_those_of_numpy(cell: int) -> None:
    rng = np.random.default_rng(cell)
    for size in (1, 64, 1e6, 2**34):
        units = np.rint(rng.uniform(-size, size, (cell * 7, cell * 5))).astype(np.int64)
        for periodic in (False, True):
            assert_levels_agree(lambda: features(units, cell, periodic))  # noqa: B023


def test_functions_of_binary32_are_near_what_they_stand_for() -> None:
    x = np.linspace(-9, 9, 20001, dtype=np.float32)
    erf = np.vectorize(math.erf)
    assert np.abs(gelu(x) - x * (1 + erf(x.astype("f8") / np.sqrt(2))) / 2).max() < 2e-4
    t = np.linspace(-40, 0, 999, dtype=np.float32)
    np.testing.assert_allclose(exp2(t), 2 ** t.astype(np.float64), rtol=3e-6)
    y = np.logspace(-3, 30, 999, dtype=np.float32)
    np.testing.assert_allclose(log(y), np.log(y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e7])
def test_the_spread_is_the_logarithm_of_the_deviation(size: float) -> None:
    steps = np.random.default_rng(0).normal(5, 1, (40, 50)) * size
    expected = np.log(np.rint(steps * 64).std() / 64 + 1e-3)
    assert abs(spread_of(np.rint(steps * 64).astype(np.int64))[0] - expected) < 1e-3


@needs_kernels
def test_kernels_refuse_what_does_not_fit_together() -> None:
    x, weight = np.zeros((4, 5, 6), np.int16), np.zeros((3, 3, 6, 8), np.int16)
    factors = np.zeros(16, np.float32), np.zeros(16, np.float32)
    packed = correction.packed_weights(weight, (6,))
    good: list[Any] = [(x,), packed, 3, 8, factors, correction.ROUNDED, TOP, 1]
    with dispatch.using(COMPILED[0]):
        correction.product(*good)
        large = packed.copy()
        large[:, :, 0] = 32767
        for place, value in (
            (0, (x[..., :5].copy(),)),
            (0, (x,) * 3),
            (0, (x[:2].copy(),)),
            (0, (x.astype(np.int32),)),
            (1, packed[:, :1]),
            (1, np.where(large > 0, large, large + 32000).astype(np.int16)),
            (2, 4),
            (3, 0),
            (4, (factors[0][1:], factors[1])),
            (5, 3),
        ):
            with pytest.raises((ValueError, BufferError)):
                correction.product(*[*good[:place], value, *good[place + 1 :]])
        qkv, out = np.zeros((4, 5, 12), np.int16), np.zeros((4, 5, 4), np.int16)
        rows, columns = (np.array([[0, n, n]], np.int32) for n in (4, 5))
        correction.attention(qkv, 2, rows, columns, (1, 1, 1, 1), out)
        for bad in ([[4, 1, 1]], [[-1, 2, 2]], [[0, 5, 4]], [[0, 2, 3]], [[0, 0, 0]], np.empty((0, 3))):
            with pytest.raises(ValueError, match="window"):
                correction.attention(qkv, 2, np.array(bad, np.int32), columns, (1, 1, 1, 1), out)
        with pytest.raises(ValueError, match="buffer"):
            correction.attention(qkv[:3], 2, rows, columns, (1, 1, 1, 1), out)
        units, cells = np.zeros((8, 12), np.int64), np.zeros((2, 3), np.int64)
        correction.features(units, cells, cells, 4, 144, (1, 1, 1, 1))
        for cell, field in ((3, units), (17, units), (4, units[1:])):
            with pytest.raises(ValueError, match=r"buffer|cell"):
                correction.features(field, cells, cells, cell, 144, (1, 1, 1, 1))
        tokens, n = np.zeros((2, 3, 4), np.float32), np.zeros(4, np.float32)
        with pytest.raises(ValueError, match="buffer"):
            correction.norm(tokens, n[1:], n, 0.25, 0, 1, 1)
        with pytest.raises(ValueError, match="buffer"):
            correction.depthwise(tokens, np.zeros((3, 3, 3), np.float32), n, False)
