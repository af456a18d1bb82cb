"""The pointwise transform: monotone, smooth, invertible within the bound, free of libm in the decoder."""

import inspect
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.values import log_transform as pointwise
from isopress.codec.values.log_transform import C, Knee, exp2, forward, inverse, make_knee, tolerance_in_t
from tests.strategies import QUICK


def test_powers_of_two_are_right_to_one_part_in_ten_to_the_fourteen() -> None:
    getcontext().prec = 40
    t = np.concatenate([np.linspace(-3, 3, 401), np.random.default_rng(0).uniform(-1020, 1023, 200)])
    for value, power in zip(t.tolist(), exp2(t).tolist(), strict=True):
        exact = Decimal(2) ** Decimal(value)
        assert abs(Decimal(power) / exact - 1) < Decimal("1e-14")


def test_whole_powers_of_two_are_exact_down_to_subnormals_and_up_to_infinity() -> None:
    t = np.arange(-1080.0, 1024.0)
    assert (exp2(t) == np.ldexp(1.0, t.astype(int))).all()
    assert exp2(np.array([5000.0, np.inf])).tolist() == [np.inf, np.inf]
    assert exp2(np.array([-5000.0, -np.inf])).tolist() == [0, 0]


def test_the_inverse_meets_no_libm_function() -> None:
    source = "".join(inspect.getsource(f) for f in (inverse, exp2, pointwise._power_of_two))
    for name in ("np.exp", "np.log", "np.power", "np.ldexp", "np.sqrt", "math.", "**"):
        assert name not in source.replace("2**t", "").replace("2.0**exponent", "").replace("2**exponent", "")


@given(
    floor=st.sampled_from((None, 1e-300, 1e-9, 1.0, 1e30)),
    value=st.sampled_from((1e-9, 1e-4, 0.01, 0.5, 0.99)),
    seed=st.integers(0, 1000),
)
@QUICK
def test_an_error_within_the_tolerance_in_t_keeps_the_pointwise_bound(
    floor: float | None, value: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    knee = None if floor is None else make_knee(value, floor)
    x = rng.normal(size=200) * 10.0 ** rng.uniform(-30, 30, 200)
    near_knee = [] if floor is None else [floor / value * rng.uniform(0.9, 1.1, 50), np.zeros(1)]
    x = np.abs(x) if floor is None else np.concatenate([x, *near_knee])
    t = forward(x, knee)
    allowed = np.maximum(value * np.abs(x), floor or 0)
    room = tolerance_in_t(value, np.dtype("f8"))
    assert room > 0.9 * np.log2(1 + value)
    for shift in (-room, 0.0, room):
        assert (np.abs(inverse(t + shift, knee) - x) <= allowed).all()


def test_the_transform_is_odd_increasing_and_smooth_at_the_knee() -> None:
    knee = make_knee(0.01, 0.02)
    x = np.linspace(-6, 6, 4001)
    t = forward(x, knee)
    assert (np.diff(t) > 0).all()
    np.testing.assert_allclose(t, -t[::-1], rtol=1e-13, atol=1e-15)
    assert forward(np.array([2.0]), knee)[0] == pytest.approx(C, rel=1e-14)
    slopes = np.diff(forward(np.array([2 - 1e-6, 2.0, 2 + 1e-6]), knee))
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-5)


def test_a_fraction_below_the_rounding_of_the_dtype_leaves_no_room() -> None:
    assert tolerance_in_t(1e-8, np.dtype("f4")) == 0
    assert tolerance_in_t(1e-6, np.dtype("f4")) > 0
    assert tolerance_in_t(1e-13, np.dtype("f8")) == 0


def test_values_that_are_no_numbers_pass_through_without_a_warning() -> None:
    t = np.array([np.nan, np.inf, -np.inf, 1e300])
    for knee in (None, Knee(1.0, 0.0)):
        inverse(t, knee)
