"""Mode latent of one chunk: targets are hit, errors are what is stored, special values exact, any shape and size."""

from typing import Any

import numpy as np
import pytest

import isopress
from isopress.codec.chunk.encode_target import HEADER, encode_target
from isopress.codec.encoded import EncodedChunk, Method
from isopress.codec.errors import ArgumentError, ModelNotFoundError
from isopress.codec.limits import TARGET_TOLERANCE, Target
from isopress.codec.models.registry import NamedModel
from isopress.format.api import TargetMissedWarning
from isopress.format.source.dataset import SAMPLE, open_source
from tests.contract import bits, many_nans
from tests.fields import blocky, decode_chunk, drifting_fields, spectral_field
from tests.make_golden import SMALL
from tests.strategies import Array

TINY, LARGE = 1e-300, 1e300


def weather(*shape: int, dtype: str = "f4", slope: float = 2.2) -> Array:
    """Return temperatures (..., h, w) in K that drift along all axes before the last two."""
    parts = drifting_fields(*shape, slope=slope) if len(shape) > 2 else spectral_field(*shape, slope=slope)
    return (280 + 10 * parts).astype(dtype)


def coded(x: Array, **target: float) -> tuple[EncodedChunk, Array]:
    encoded = encode_target(x, Target(**target))
    return encoded, decode_chunk(encoded, x.dtype.newbyteorder("="), x.shape)


def rmse(x: Array, y: Array) -> float:
    """Root mean square error over finite values, without overflow."""
    finite = np.isfinite(x)
    error = x[finite].astype("f8") - y[finite].astype("f8")
    largest = float(np.abs(error).max(initial=0)) or 1.0
    return float(np.sqrt(np.square(error / largest).mean())) * largest if error.size else 0.0


def assert_honest(x: Array, encoded: EncodedChunk, y: Array) -> None:
    """Assert that stored errors are those of the decoded values, and that special values have their bits."""
    assert (y.shape, y.dtype) == (x.shape, x.dtype.newbyteorder("="))
    special = ~np.isfinite(x) | ((x == 0) & np.signbit(x))
    assert bits(x[special]) == bits(y[special])
    assert np.isfinite(y[~special]).all()
    assert encoded.rmse == pytest.approx(rmse(x, y), rel=1e-6, abs=1e-320)
    assert encoded.max_error <= float(np.finfo(x.dtype).max)


SHAPES = [(64, 96), (3, 40, 48), (2, 3, 32, 40)]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_rmse_is_hit_within_three_per_cent_and_never_exceeded_by_more(shape: tuple[int, ...], dtype: str) -> None:
    x = weather(*shape, dtype=dtype)
    encoded, y = coded(x, rmse=0.4)
    assert encoded.method == Method.LATENT
    assert_honest(x, encoded, y)
    assert abs(rmse(x, y) / 0.4 - 1) <= TARGET_TOLERANCE


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_ratio_is_hit_within_three_per_cent(shape: tuple[int, ...], dtype: str) -> None:
    x = weather(*shape, dtype=dtype)
    payload = isopress.compress(x, mode="latent", ratio=30)
    info, y = isopress.inspect(payload), isopress.decompress(payload)
    assert abs(x.nbytes / len(payload) / 30 - 1) <= TARGET_TOLERANCE
    assert info.method == Method.LATENT
    assert info.rmse == pytest.approx(rmse(x, y), rel=1e-6)
    assert info.rmse < 0.5 * x.std()


def test_memory_order_changes_nothing_but_the_order() -> None:
    x = weather(3, 24, 32)
    c, f = (isopress.decompress(isopress.compress(np.asarray(x, order=o), mode="latent", rmse=0.5)) for o in "CF")  # type: ignore[call-overload]
    assert f.flags.f_contiguous
    np.testing.assert_array_equal(c, f)


def test_another_target_gives_another_size_and_error() -> None:
    x = weather(64, 96)
    found = [coded(x, rmse=target)[0] for target in (1.6, 0.8, 0.2)]
    assert [c.nbytes for c in found] == sorted({c.nbytes for c in found})
    assert [c.rmse for c in found] == sorted({c.rmse for c in found}, reverse=True)


def test_fields_that_share_much_are_coded_together() -> None:
    x = weather(8, 32, 40)
    together = coded(x, rmse=0.5)[0].nbytes
    alone = sum(coded(field, rmse=0.5)[0].nbytes for field in x)
    assert together < 0.8 * alone


@pytest.mark.parametrize("target", [{"rmse": 0.3}, {"ratio": 15}])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_special_values_come_back_with_their_bits(dtype: str, target: dict[str, float]) -> None:
    x = weather(2, 40, 48, dtype=dtype) - np.dtype(dtype).type(280)
    x[0, :9, :20] = np.nan
    x[1, 5, 3:6] = np.inf, -np.inf, -0.0
    x[1, 7].view(f"u{x.itemsize}")[:2] = np.array([np.nan, -np.nan], dtype).view(f"u{x.itemsize}") + 1
    encoded, y = coded(x, **target)
    assert encoded.method == Method.LATENT
    assert_honest(x, encoded, y)
    assert encoded.rmse < 3


@pytest.mark.parametrize("size", [TINY, 1e-200, 1e-30, 1e30, LARGE, 1.79e308])
@pytest.mark.parametrize("target", ["rmse", "ratio"])
def test_any_magnitude_is_coded(size: float, target: str) -> None:
    x = spectral_field(32, 40)
    x *= size / np.abs(x).max()
    encoded, y = coded(x, **{target: 0.03 * size if target == "rmse" else 12.0})
    assert_honest(x, encoded, y)
    assert encoded.rmse <= 0.1 * size
    if 1e-290 < size < 1e290:
        assert encoded.method == Method.LATENT


@pytest.mark.parametrize("size", [1e-45, 1e-39, 3e38])
def test_single_precision_at_the_edges_of_its_range_is_coded(size: float) -> None:
    x = spectral_field(32, 40)
    x = (x * size / np.abs(x).max()).astype("f4")
    for target in ({"rmse": max(0.03 * size, 1e-46)}, {"ratio": 12.0}):
        assert_honest(x, *coded(x, **target))


CASES: dict[str, Array] = {
    "only NaN": np.full((2, 20, 30), np.nan, "f4"),
    "constant": np.full((20, 30), 1.5, "f4"),
    "constant but for NaN": np.where(np.indices((20, 30)).sum(0) % 7, 2.5, np.nan),
    "zeros of both signs": np.where(np.indices((20, 30)).sum(0) % 2, 0.0, -0.0),
    "empty": np.zeros((0, 4, 5), "f4"),
    "no column": np.zeros((3, 4, 0)),
    "no axis": np.array(3.5, "f4"),
    "one value": np.full((1, 1), 2.5),
    "one axis": weather(1, 300)[0],
    "one row": weather(1, 200, slope=1.5),
    "one column": weather(200, 1, slope=1.5, dtype="f8"),
    "two values": np.array([[1.0, 2.0]]),
    "few values": weather(3, 4),
    "many tiny fields": weather(30, 2, 3),
    "noise": np.random.default_rng(0).normal(size=(24, 30)),
    "steps": np.rint(3 * spectral_field(24, 30)).astype("f4"),
    "an outlier": np.where(np.arange(720).reshape(24, 30) == 300, 1e20, spectral_field(24, 30)),
    "mostly NaN": np.where(np.arange(720).reshape(24, 30) % 60 == 7, spectral_field(24, 30), np.nan),
    "infinities": np.where(spectral_field(24, 30) > 1, np.inf, spectral_field(24, 30)).astype("f4"),
    "strange": np.array([[1, -0.0, np.inf], [np.nan, 2, 1e-300]]),
}


TARGETS = ({"rmse": 0.3}, {"ratio": 20.0}, {"rmse": 1e-9}, {"ratio": 1.01})


# An error and a ratio for each, usual for one of them and at the edge for the other.
@pytest.mark.parametrize(
    ("case", "target"), [(case, TARGETS[at]) for i, case in enumerate(CASES) for at in ((0, 3), (1, 2))[i % 2]]
)
def test_strange_chunks_are_valid_and_an_error_is_never_exceeded(case: str, target: dict[str, float]) -> None:
    x = CASES[case]
    encoded, y = coded(x, **target)
    assert_honest(x, encoded, y)
    assert encoded.rmse <= (1 + TARGET_TOLERANCE) * target.get("rmse", np.inf)
    assert encoded.nbytes <= x.nbytes + 16


def test_a_chunk_too_small_for_its_ratio_gets_a_small_coding_that_says_something() -> None:
    x = weather(12, 14)
    encoded, y = coded(x, ratio=1000)
    assert encoded.nbytes < x.nbytes / 5
    assert encoded.rmse == pytest.approx(rmse(x, y), rel=1e-6)
    assert encoded.rmse < 4 * x.std()


def test_an_error_far_below_what_latents_can_do_is_coded_another_way() -> None:
    x = weather(40, 48, dtype="f8")
    encoded, y = coded(x, rmse=1e-9)
    assert encoded.method != Method.LATENT
    assert_honest(x, encoded, y)
    assert encoded.rmse <= 1e-9
    assert encoded.nbytes < 0.9 * x.nbytes


def test_huge_targets_give_almost_nothing() -> None:
    x = weather(40, 48)
    encoded, y = coded(x, rmse=1e6)
    assert encoded.nbytes < 120
    assert_honest(x, encoded, y)


@pytest.mark.parametrize("name", ["t2m", "tp"])
def test_real_weather_is_on_target(name: str) -> None:
    with open_source(SAMPLE) as source:
        x = source.stored(name).isel(time_index=0, latitude=slice(20, 140), longitude=slice(0, 160)).values
    assert x.shape == (120, 160)
    target = 0.1 * float(x.std())
    encoded, y = coded(x, rmse=target)
    assert_honest(x, encoded, y)
    assert abs(encoded.rmse / target - 1) <= TARGET_TOLERANCE
    payload = isopress.compress(x, mode="latent", ratio=40)
    assert abs(x.nbytes / len(payload) / 40 - 1) <= TARGET_TOLERANCE


@pytest.mark.parametrize("effort", [1, 2])
def test_more_effort_is_never_larger_and_still_on_target(effort: int) -> None:
    x = weather(32, 48)
    quick, slow = (encode_target(x, Target(rmse=0.5), effort=e) for e in (0, effort))
    assert_honest(x, slow, decode_chunk(slow, x.dtype, x.shape))
    assert abs(slow.rmse / 0.5 - 1) <= TARGET_TOLERANCE
    # Both are somewhere within the tolerance: 3 % of error are about 3 % of size.
    assert slow.nbytes <= 1.04 * quick.nbytes


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ArgumentError, match="int16"):
        encode_target(np.zeros((3, 4), "i2"), Target(ratio=10))
    with pytest.raises(ModelNotFoundError, match="unknown-9"):
        encode_target(weather(8, 9), Target(ratio=10), model=NamedModel("unknown-9"))


def forged(**changes: Any) -> EncodedChunk:
    encoded = coded(weather(24, 32), rmse=0.5)[0]
    fields = {"method": encoded.method, "sections": encoded.sections, "models": encoded.models} | changes
    return EncodedChunk(**fields)


def test_weights_that_are_not_there_are_named() -> None:
    with pytest.raises(ModelNotFoundError, match="00000000"):
        decode_chunk(forged(models=(bytes(32),)), np.dtype("f4"), (24, 32))


@pytest.mark.parametrize(
    ("target", "size"),
    [({"rmse": 1e-9}, 1e200), ({"ratio": 1.01}, 1.0), ({"rmse": 0.05}, 1.0), ({"ratio": 60}, 1e200)],
)
def test_large_fields_of_which_a_part_is_tried_first_may_have_any_target(target: dict[str, float], size: float) -> None:
    x = spectral_field(400, 1100) * size
    if "rmse" in target:
        target = {"rmse": target["rmse"] * size}
    found = encode_target(x, Target(**target))
    assert Target(**target).allows(found.rmse)
    if "ratio" in target:
        assert x.nbytes / (found.nbytes + HEADER) * (1 + TARGET_TOLERANCE) >= target["ratio"]


LOW = {
    "smooth": lambda: weather(4, 40, 50),
    "noise": lambda: np.random.default_rng(0).standard_normal((64, 64)).astype("f4"),
    "many kinds of NaN": many_nans,
}


@pytest.mark.parametrize("ratio", [1.5, 2.04, 3.0])
@pytest.mark.parametrize("name", LOW)
def test_low_ratios_are_met_or_exceeded_without_an_error(name: str, ratio: float) -> None:
    x = LOW[name]()
    payload = isopress.compress(x, mode="latent", ratio=ratio)
    info = isopress.inspect(payload)
    achieved = x.nbytes / len(payload)
    assert 0.97 * ratio <= achieved
    # Small chunks have few sizes, and between a step of one ulp and no loss there may be none: the header says so.
    assert achieved <= 1.031 * ratio or not info.max_error or (name != "noise" and info.missed)


def test_a_target_that_cannot_be_met_is_in_the_header_and_a_warning() -> None:
    x = many_nans()
    with pytest.warns(TargetMissedWarning, match=r"times smaller instead of 10") as warned:
        info = isopress.inspect(isopress.compress(x, mode="latent", ratio=10))
    assert len(warned) == 1
    assert info.missed in str(warned[0].message)
    assert info.missed in repr(info)
    assert not isopress.inspect(isopress.compress(x, bound=1)).missed


@pytest.mark.parametrize("model", ["default", SMALL])
@pytest.mark.parametrize(
    ("scale", "target"),
    [(1, 5e-324), (1, 1.7e308), (1e-200, 1e289), (1e-200, 1e-289), (1e300, 5e-324), (1e300, 1.7e308), (1e-320, 1e308)],
)
def test_errors_that_no_search_can_aim_at_are_kept_all_the_same(scale: float, target: float, model: str) -> None:
    x = blocky(shape=(9, 11)).astype("f8") * scale
    encoded = encode_target(x, Target(rmse=target), model=NamedModel(model))
    assert rmse(x, decode_chunk(encoded, x.dtype, x.shape)) <= (1 + TARGET_TOLERANCE) * target


def test_a_ratio_that_nothing_has_gets_the_smallest_there_is() -> None:
    x = weather(12, 14, dtype="f8") * 1e-200
    assert encode_target(x, Target(ratio=1e300)).nbytes <= encode_target(x, Target(ratio=1e3)).nbytes
