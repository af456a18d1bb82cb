"""Filling: points that do not matter become like those around them, all others stay."""

import numpy as np
import pytest

from isopress.codec.values.fill import fill_smoothly
from tests.strategies import smooth_field


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 7), (1, 5, 1), (3, 8, 8), (2, 13, 22)])
def test_valid_points_stay_and_others_lie_within_their_range(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=shape) + 50
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        valid = rng.random(shape) < share
        filled = fill_smoothly(np.where(valid, y, 1e9), valid)
        assert (filled[valid] == y[valid]).all()
        for field, known in zip(filled, valid, strict=True):
            assert field.min() >= (field[known].min() - 1e-9 if known.any() else 0)
            assert field.max() <= (field[known].max() + 1e-9 if known.any() else 0)


def test_a_hole_in_a_smooth_field_is_filled_with_nearby_values() -> None:
    y = smooth_field(1, 40, 60)
    valid = np.ones(y.shape, bool)
    valid[:, 15:18, 20:24] = False
    filled = fill_smoothly(np.where(valid, y, 0), valid)
    assert np.abs(filled - y).max() < np.ptp(y) / 4
