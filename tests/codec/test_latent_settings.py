"""Steps and settings of latents."""

import json
import math
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

import isopress
from isopress.codec.chunk import encode_target as latent
from isopress.codec.chunk.encode_target import encode_target
from isopress.codec.encoded import Method
from isopress.codec.errors import ArgumentError
from isopress.codec.latent.step_forecast import FAR, WINDOW, WINDOWS, Forecast, next_step
from isopress.codec.limits import TARGET_TOLERANCE, Target
from isopress.format import Isopress, IsopressCodec
from isopress.format.store.distortion import measure
from tests.fields import drifting_fields, spectral_field, varied_fields
from tests.strategies import Array

# --- the search for a step: forecasts are monotone and invertible, few tries reach a target, odd samples do no harm ---

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


# --- targets: settings, options, reports and the checks of mode latent that need no weights ---------------------------

RATIO_300 = {"mode": "latent", "ratio": 300.0}
RMSE_HALF = {"mode": "latent", "rmse": 0.5, "effort": 2}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"mode": "latent"}, "takes a ratio or an rmse, one of the two; got neither"),
    ({"mode": "latent", "ratio": 300, "rmse": 0.5}, "got ratio=300 and rmse=0.5"),
    ({"mode": "latent", "ratio": 1}, "ratio must be a finite number > 1.*got 1$"),
    ({"mode": "latent", "ratio": -3.0}, "got -3.0"),
    ({"mode": "latent", "ratio": float("inf")}, "ratio must be a finite"),
    ({"mode": "latent", "ratio": "300"}, "got '300'"),
    ({"mode": "latent", "ratio": True}, "got True"),
    ({"mode": "latent", "rmse": 0}, "rmse must be a finite number > 0, in the unit of the data, got 0"),
    ({"mode": "latent", "rmse": float("nan")}, "got nan"),
    ({"mode": "latent", "rmse": [0.1, 0.2]}, "rmse must be"),
    ({"mode": "latent", "ratio": 300, "bound": 0.1}, "bound=0.1 belongs to the bounded modes.*leave out bound"),
    ({"mode": "latent", "ratio": 300, "bound": np.array([1, 2])}, "belongs to the bounded modes"),
    ({"mode": "latent", "ratio": 300, "floor": 0.1}, "floor=0.1 belongs"),
    ({"mode": "latent", "ratio": 300, "context": "block"}, "context='block' belongs"),
    ({"mode": "latent", "ratio": 300, "effort": -1}, "effort is an integer from 0 to 4, got -1"),
    ({"mode": "latent", "ratio": 300, "effort": 5}, "effort is an integer from 0 to 4, got 5"),
    ({"mode": "latent", "ratio": 300, "effort": 0.5}, "effort is an integer from 0 to 4, got 0.5"),
    ({"mode": "latent", "ratio": 300, "effort": True}, "effort is an integer from 0 to 4, got True"),
    ({"mode": "latent", "ratio": 300, "model": ""}, "model is a name"),
    ({"bound": 0.1, "ratio": 300}, "ratio=300 belongs to mode 'latent', not 'abs': leave it out, or set mode='latent'"),
    ({"ratio": 300}, "ratio=300 belongs to mode 'latent'"),
    ({"mode": "lossless", "rmse": 0.5}, "rmse=0.5 belongs to mode 'latent', not 'lossless'"),
    ({"bound": 0.1, "effort": 1}, "effort=1 belongs to mode 'latent'"),
    ({"mode": "neural", "ratio": 3}, "mode 'neural' is unknown; allowed are abs, range, pointwise, lossless, latent"),
]


@pytest.mark.parametrize(("settings", "reason"), BAD)
def test_a_target_that_is_none_is_refused_by_every_way_in(settings: dict[str, Any], reason: str) -> None:
    for way in (Isopress, IsopressCodec, lambda **kw: isopress.compress(np.zeros((3, 4), "f4"), **kw)):
        with pytest.raises(ArgumentError, match=reason):
            way(**settings)


@pytest.mark.parametrize("settings", [RATIO_300, RMSE_HALF])
def test_both_codecs_keep_targets_in_their_configuration(settings: dict[str, Any]) -> None:
    v2, v3 = Isopress(**settings), IsopressCodec(**settings)
    assert numcodecs.get_codec(json.loads(json.dumps(v2.get_config()))) == v2
    assert v2.get_config() == {"id": "isopress", **settings}
    assert IsopressCodec.from_dict(json.loads(json.dumps(v3.to_dict()))) == v3
    assert v3.to_dict() == {"name": "isopress", "configuration": settings}
    assert v2.limit == v3.limit == Target(settings.get("ratio"), settings.get("rmse"))


def test_numpy_numbers_become_plain_ones() -> None:
    codec = Isopress(mode="latent", ratio=np.float32(300), effort=np.int64(1))
    assert json.loads(json.dumps(codec.get_config())) == {"id": "isopress", **RATIO_300, "effort": 1}


@pytest.mark.parametrize("dtype", ["i2", "f2", "?", "u8"])
def test_only_single_and_double_floats_have_latents(dtype: str) -> None:
    x = np.zeros((4, 5), dtype)
    with pytest.raises(ArgumentError, match=f"mode 'latent' codes float32 and float64, not {np.dtype(dtype)}: use"):
        isopress.compress(x, mode="latent", ratio=10)
    with pytest.raises(ArgumentError, match="mode 'latent' codes"):
        Isopress(**RATIO_300).encode(x)
    with pytest.raises(ArgumentError, match="mode 'latent' codes"):
        zarr.create_array({}, shape=x.shape, dtype=x.dtype, serializer=IsopressCodec(**RATIO_300), compressors=None)


def test_a_chunk_is_on_target_within_three_per_cent() -> None:
    error, ratio = Target(rmse=0.5), Target(ratio=300)
    assert [error.allows(rmse) for rmse in (0.0, 0.5, 0.514, 0.516, np.nan)] == [True, True, True, False, False]
    assert ratio.allows(1e9)


# --- what is told of decoded values -----------------------------------------------------------------------------------


def test_errors_are_measured_against_a_target() -> None:
    x = np.zeros((10, 10), "f4")
    x[0, 0] = np.nan
    off = x + np.float32(0.5)
    assert measure(x, off, Target(rmse=0.5)).violations == 0
    assert measure(x, off, Target(rmse=0.48)).violations == 1
    assert measure(x, off, Target(ratio=9)).violations == 0
    assert measure(x, off, Target(ratio=9)).rmse == 0.5
    for target in (Target(rmse=1e9), Target(ratio=9)):
        filled, lost, infinite = off.copy(), off.copy(), off.copy()
        filled[0, 0], lost[1, 1], infinite[1, 1:4] = 0, np.nan, np.inf
        assert measure(x, filled, target).violations == 1
        assert measure(x, lost, target).violations >= 1
        assert measure(x, infinite, target).violations >= 3
    only_nan = np.full((2, 2), np.nan, "f4")
    assert measure(only_nan, only_nan, Target(rmse=0.1)).violations == 0
