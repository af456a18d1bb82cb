"""Symbols of latents: what compiled kernels choose is what numpy chooses."""

import numpy as np
import pytest

from isopress.codec import native
from isopress.codec.entropy.coder import OFFSET_MAX
from isopress.codec.latent.coefficients import OFFSET_FROM, TRADE, choose
from isopress.codec.latent.context_model import Prediction
from tests.latent_models import small_model

TABLES = small_model().contexts.tables
KERNELS = pytest.mark.skipif(native.levels() == (native.NUMPY,), reason="kernels were not built")


def made(seed: int, n: int, largest: int, reach: int) -> tuple[np.ndarray, Prediction]:
    """Return n coefficients in steps, and predictions with scale indexes up to `reach`, most of them active."""
    rng = np.random.default_rng(seed)
    mean = rng.integers(-200, 200, n).astype(np.float32)
    y = (mean / 64 + rng.laplace(0, largest, n)).astype(np.float32)
    y[::7] = mean[::7] / 64 + 0.5  # ties
    scale, tail = rng.integers(-30, reach, n).astype(np.int16), rng.integers(0, 4, n).astype(np.int8)
    return y, Prediction(mean, scale, tail, np.flatnonzero(rng.random(n) < 0.8))


@KERNELS
@pytest.mark.parametrize("n", [0, 1, OFFSET_FROM, 6000])
@pytest.mark.parametrize(("largest", "reach"), [(1, 40), (300, 90), (10_000_000, 260)])
@pytest.mark.parametrize(("last", "trade"), [(0, TRADE), (-OFFSET_MAX, 1.5), (OFFSET_MAX - 3, 0.0)])
def test_kernels_choose_the_symbols_and_the_scale_offset_that_numpy_does(
    n: int, largest: int, reach: int, last: int, trade: float
) -> None:
    found = []
    for level in (native.levels()[0], native.NUMPY):
        y, predicted = made(n, n, largest, reach)
        with native.using(level):
            symbols, change = choose(TABLES, y, predicted, last, trade)
        found.append((symbols, predicted.scale, change))
    (symbols, scale, change), (expected, their_scale, their_change) = found
    assert change == their_change
    np.testing.assert_array_equal(symbols, expected)
    np.testing.assert_array_equal(scale, their_scale)


@KERNELS
def test_kernels_refuse_points_and_tail_classes_that_are_none() -> None:
    y, predicted = made(1, 10, 1, 40)
    for active, tail, last in (([3, 3], 0, 0), ([10], 0, 0), ([-1], 0, 0), ([1], 4, 0), ([1], 0, OFFSET_MAX + 1)):
        seen = predicted.mean, predicted.scale, np.full(10, tail, np.int8), np.array(active, np.int32)
        with pytest.raises(ValueError, match=r"an active point|a tail class|a scale offset"):
            native.choose(TABLES.kept, y, seen, TABLES.cost, TRADE, last)
    seen = predicted.mean, predicted.scale, predicted.tail, np.array([1], np.int32)
    with pytest.raises(ValueError, match="buffer"):
        native.choose(TABLES.kept, y, seen, TABLES.cost[:1], TRADE, 0)
