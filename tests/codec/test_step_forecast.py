"""The search for a step: forecasts are monotone and invertible, few tries reach a target, odd samples do no harm."""

import math

import numpy as np
import pytest

from isopress.codec.chunk import encode_target as latent
from isopress.codec.chunk.encode_target import encode_target
from isopress.codec.encoded import Method
from isopress.codec.latent.step_forecast import FAR, WINDOW, WINDOWS, Forecast, next_step
from isopress.codec.limits import TARGET_TOLERANCE, Target
from tests.fields import drifting_fields, spectral_field, varied_fields
from tests.strategies import Array

STEPS = np.geomspace(0.02, 2, 40)
SAMPLES = {
    "one value": np.ones((1, 1)),
    "one zero": np.zeros((1, 1)),
    "zeros": np.zeros((2, 20, 24)),
    "a constant": np.ones((20, 24)),
    "two values": np.array([[-1.0, 1.0]]),
    "one point": np.where(np.arange(480).reshape(20, 24) == 250, math.sqrt(480), 0.0),
}


def standardised(x: Array) -> Array:
    return (x - x.mean()) / x.std()


def all_equal(of_error: bool) -> Forecast:
    """Return what is foretold of coefficients of one magnitude."""
    n = 100
    values = np.sqrt(np.linspace(1, 0.01, n)) if of_error else np.linspace(0, 4, n)
    return Forecast(np.ones(n), values, of_error)


def searched(curve: float, slope: float, goal: float, forecast: Forecast) -> tuple[int, list[tuple[float, float]]]:
    """Search value = curve * step**slope for a goal; return the tries it takes to within 2 %, and those that missed."""
    step, seen = forecast.step(goal), list[tuple[float, float]]()
    for tries in range(1, 10):
        value = curve * step**slope
        if abs(value / goal - 1) < 0.02:
            return tries, seen
        seen.append((step, value))
        step = next_step(seen, goal, forecast)
    return 10, seen


# --- forecasts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.0, 1.0, 1.8])
@pytest.mark.parametrize("of_error", [False, True])
def test_step_and_value_of_a_forecast_undo_each_other(slope: float, of_error: bool) -> None:
    forecast = Forecast.of(spectral_field(128, 160, slope=slope), of_error=of_error)
    for step in STEPS[STEPS < 1.5]:
        assert forecast.step(forecast.value(step)) == pytest.approx(step, rel=0.05)


@pytest.mark.parametrize("name", varied_fields())
@pytest.mark.parametrize("of_error", [False, True])
def test_a_value_leads_to_a_step_that_leads_back_to_it(name: str, of_error: bool) -> None:
    forecast = Forecast.of(standardised(varied_fields()[name]), of_error=of_error)
    for step in STEPS:
        value = forecast.value(step)
        at = int(np.argmin(np.abs(forecast.values - value)))
        near = forecast.values[max(at - 2, 0) : at + 3]
        assert near.min() <= forecast.value(forecast.step(value)) <= near.max()


@pytest.mark.parametrize("name", varied_fields())
def test_finer_steps_are_foretold_more_bits_and_smaller_errors(name: str) -> None:
    x = standardised(varied_fields()[name])
    bits, errors = (Forecast.of(x, of_error=of_error) for of_error in (False, True))
    for forecast, sign in ((bits, -1), (errors, 1)):
        values = np.array([forecast.value(step) for step in STEPS])
        assert (sign * np.diff(values) >= 0).all()
        steps = np.array([forecast.step(value) for value in np.geomspace(1e-4, 10, 60)])
        assert (sign * np.diff(steps) >= 0).all()
    assert errors.values[0] == pytest.approx(1, abs=0.5), "nothing coded: the deviation"


def test_errors_are_foretold_about_as_rounding_makes_them() -> None:
    forecast = Forecast.of(standardised(np.random.default_rng(0).normal(size=(96, 128))), of_error=True)
    for step in (0.02, 0.1, 0.3):
        assert forecast.value(step) == pytest.approx(step / math.sqrt(12), rel=0.15)


def test_what_fields_share_is_foretold_once() -> None:
    alike = Forecast.of(standardised(drifting_fields(8, 40, 48)), of_error=False)
    unlike = Forecast.of(np.stack([spectral_field(40, 48, slope=2, seed=i) for i in range(8)]), of_error=False)
    assert alike.value(0.1) < 0.7 * unlike.value(0.1)


@pytest.mark.parametrize(("columns", "seen"), [(1, 1), (WINDOW[1], WINDOW[1]), (3 * WINDOWS * WINDOW[1], None)])
def test_no_more_than_some_windows_are_looked_at(columns: int, seen: int | None) -> None:
    x = spectral_field(20, columns)
    forecast = Forecast.of(np.stack([x, x]), of_error=False)
    assert forecast.magnitudes.size == 2 * 20 * (seen or WINDOWS * WINDOW[1])


# --- next steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [1 / 1.6, 1.6])
@pytest.mark.parametrize("of_error", [False, True])
def test_few_steps_reach_a_goal_on_a_curve_that_is_off_its_forecast(of_error: bool, off: float) -> None:
    slope = 0.8 if of_error else -1.2
    forecast = Forecast.of(spectral_field(96, 128, slope=1.8), of_error=of_error)
    for goal in (0.03, 0.08) if of_error else (0.2, 0.6):
        tries, seen = searched(off * goal / forecast.step(goal) ** slope, slope, goal, forecast)
        assert tries <= 4
        assert abs(seen[0][1] / goal - off) < 1e-9


@pytest.mark.parametrize("of_error", [False, True])
def test_the_next_step_lies_between_those_that_enclose_the_goal(of_error: bool) -> None:
    forecast = Forecast.of(spectral_field(48, 64), of_error=of_error)
    rng = np.random.default_rng(0)
    for _ in range(50):
        steps, factors = np.sort(np.exp(rng.normal(size=4))), np.exp(rng.normal(size=4)).cumprod()
        values = (np.sort(factors) if of_error else np.sort(factors)[::-1]).tolist()
        goal = math.sqrt(values[1] * values[2])
        following = next_step(list(zip(steps.tolist(), values, strict=True)), goal, forecast)
        assert steps[1] < following < steps[2]


@pytest.mark.parametrize("of_error", [False, True])
def test_the_next_step_goes_towards_the_goal_and_not_too_far(of_error: bool) -> None:
    forecast = Forecast.of(spectral_field(48, 64), of_error=of_error)
    for step in (0.05, 0.3):
        for off in (0.1, 0.5, 0.9, 1.1, 2.0, 10.0):
            value = forecast.value(step) * off
            following = next_step([(step, value)], forecast.value(step), forecast)
            assert (following > step) is (off < 1 if of_error else off > 1)
            assert 1 / FAR <= following / step <= FAR


@pytest.mark.parametrize("of_error", [False, True])
@pytest.mark.parametrize("name", [*SAMPLES, "all equal"])
def test_samples_that_say_nothing_still_give_steps(name: str, of_error: bool) -> None:
    forecast = all_equal(of_error) if name == "all equal" else Forecast.of(SAMPLES[name], of_error=of_error)
    for goal in (1e-9, 0.01, 1.0, 1e9):
        assert 0 <= forecast.step(goal) < math.inf, "0 where there is nothing: the caller has a finest step"
        assert 0 <= forecast.value(goal) < math.inf
        for step in (1e-4, 0.1, 32.0):
            for value in (0.0, 1e-9, 0.5, 1e9):
                following = next_step([(step, value)], goal, forecast)
                assert 0 < following < math.inf
                again = next_step([(step, value), (following, 2 * goal)], goal, forecast)
                assert 0 < again < math.inf


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [Target(ratio=15), Target(ratio=40), Target(rmse=0.2), Target(rmse=1.0)])
@pytest.mark.parametrize("shape", [(96, 128), (4, 48, 64)])
def test_at_most_three_tries_reach_a_target(
    target: Target, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, code_fields = [], latent.code_fields

    def counted(*args, **options):  # type: ignore[no-untyped-def]
        tries.append(args[1].step)
        return code_fields(*args, **options)

    monkeypatch.setattr(latent, "code_fields", counted)
    parts = drifting_fields(*shape, slope=2.2) if len(shape) > 2 else spectral_field(*shape, slope=2.2)
    x = (280 + 10 * parts).astype("f4")
    encoded = encode_target(x, target)
    assert encoded.method == Method.LATENT
    ratio = x.nbytes / (sum(len(section) for _, section in encoded.sections) + latent.HEADER)
    assert abs((encoded.rmse / target.rmse if target.rmse else ratio / target.ratio) - 1) <= TARGET_TOLERANCE
    assert 1 <= len(tries) <= 3
    assert len(set(tries)) == len(tries)
