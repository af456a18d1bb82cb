"""Lattices: packed and rounded data are recognised, all else is left alone."""

import numpy as np
import pytest

from isopress.codec.values.lattice import MAX_LEVELS, find_lattice, fit_gaps, power_of_two_step
from isopress.codec.values.quantiser import Quantiser
from tests.strategies import Array, smooth_field

SMOOTH = smooth_field(1, 120, 160)


def misfits(x: Array, found: Quantiser) -> float:
    """The fraction of values that the lattice does not give back bit for bit."""
    y = np.rint(found.to_steps(x.astype("f8")))
    assert np.abs(y).max() <= MAX_LEVELS
    return float(np.mean(found.to_data(y * 64, x.dtype) != x))


def netcdf(x: Array, bits: int) -> tuple[Array, float]:
    """`x` packed to integers with scale and offset, then unpacked in float64."""
    step = (x.max() - x.min()) / (2**bits - 2)
    offset = (x.max() + x.min()) / 2
    return np.rint((x - offset) / step) * step + offset, step


def grib(x: Array, bits: int) -> tuple[Array, float]:
    """`x` packed with a float32 reference and a binary scale, then unpacked."""
    reference = float(np.float32(x.min()))
    step = float(2.0 ** np.ceil(np.log2((x.max() - reference) / (2**bits - 1))))
    return reference + np.rint((x - reference) / step) * step, step


@pytest.mark.parametrize("digits", [0, 1, 2, 3])
def test_decimals_in_float32_are_found_exactly(digits: int) -> None:
    x = np.round(SMOOTH, digits).astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert (found.offset[0], found.step[0]) == (0, float(f"1e-{digits}"))
    assert misfits(x, found) == 0


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("shift", [0.0, -280.0, 1e3])
def test_grib_packing_is_found_exactly(bits: int, shift: float) -> None:
    x, step = grib(SMOOTH + shift, bits)
    found = find_lattice(x.astype("f4"), None, least=0)
    assert found is not None
    assert found.step[0] == step
    assert misfits(x.astype("f4"), found) == 0


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_netcdf_packing_is_found_to_an_ulp(bits: int, dtype: str) -> None:
    x, step = netcdf(SMOOTH, bits)
    packed = x.astype(dtype)
    found = find_lattice(packed, None, least=0.9 * step)
    assert found is not None
    assert found.step[0] == pytest.approx(step, rel=1e-7)
    back = found.to_data(64 * np.rint(found.to_steps(packed.astype("f8"))), packed.dtype)
    assert np.abs(back - packed).max() <= 4 * np.spacing(packed.max())
    assert dtype == "f8" or misfits(packed, found) < 1 / 64


def test_few_bits_of_a_float_are_a_lattice_of_a_power_of_two() -> None:
    x = SMOOTH.astype("f2").astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert found.step[0] == float(np.spacing(x.min().astype("f2")))
    assert misfits(x, found) == 0


CONTINUOUS = (
    SMOOTH,
    SMOOTH * 1e-30,
    (SMOOTH - 280).astype("f4"),
    np.random.default_rng(0).normal(size=(1, 50, 50)).astype("f4"),
    np.random.default_rng(0).uniform(0, 1, (1, 50, 50)),
    np.array([[[1e308, -1e308, 3.0, 1e-308]]]),
)


@pytest.mark.parametrize("x", CONTINUOUS)
def test_continuous_fields_have_no_lattice(x: Array) -> None:
    assert find_lattice(x, None, least=0) is None
    assert find_lattice(x, None, least=float(np.median(np.abs(x))) / 100) is None


def test_a_lattice_finer_than_asked_for_is_ignored() -> None:
    x = np.round(SMOOTH, 1).astype("f4")
    assert find_lattice(x, None, least=0.2) is None
    assert find_lattice(x, None, least=0.1) is not None


def test_missing_values_do_not_count() -> None:
    x = np.round(SMOOTH, 1).astype("f4")
    valid = np.ones(x.shape, bool)
    valid[:, ::3] = False
    x[~valid] = 280.123456
    found = find_lattice(x, valid, least=0)
    assert found is not None
    assert found.step[0] == 0.1


def test_a_few_values_off_the_lattice_are_tolerated() -> None:
    x = np.round(SMOOTH, 1).astype("f4")
    valid = np.ones(x.shape, bool)
    x.reshape(-1)[1] += np.float32(0.0123)  # the sample takes other values
    assert find_lattice(x, valid, least=0) is not None


def test_each_field_has_its_own_lattice_and_constants_take_any() -> None:
    fields = [grib(SMOOTH[0], 12)[0], np.full(SMOOTH.shape[1:], 281.3), grib(0.01 * SMOOTH[0], 16)[0]]
    x = np.stack(fields).astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert found.step.size == 3
    assert misfits(x, found) == 0


def test_fields_of_one_packing_share_offset_and_step() -> None:
    x = np.round(smooth_field(4, 40, 50), 1).astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert (found.step.size, found.offset.size) == (1, 1)


def test_mostly_zero_fields_are_recognised_by_their_rare_values() -> None:
    x = np.where(SMOOTH > 310, np.round(SMOOTH - 310, 1), 0).astype("f4")
    found = find_lattice(x, None, least=0)
    assert found is not None
    assert found.step[0] == pytest.approx(0.1, rel=1e-6)


def test_the_gaps_of_a_sparse_sample_still_give_the_common_step() -> None:
    n = np.unique(np.random.default_rng(2).integers(0, 60_000, 500))
    fit = fit_gaps(np.diff(n * 0.37), ulp=1e-3, least=0.01)
    assert fit is not None
    assert (fit[0] == np.diff(n)).all()
    assert fit_gaps(np.diff(n * 0.37), ulp=1e-3, least=0.5) is None
    assert fit_gaps(np.diff(n * 0.37), ulp=0.1, least=0.01) is None


def test_the_power_of_two_step_divides_every_value() -> None:
    assert power_of_two_step(np.array([0.0, 0.75, -12.0])) == 0.25
    assert power_of_two_step(np.array([2.0**-1074, 1.0])) == 2.0**-1074


@pytest.mark.parametrize(("v", "dtype"), [("i4", "f4"), ("f8", "f8"), ("i4", "f8"), ("f8", "f4")])
def test_values_take_the_place_of_steps_of_their_size(v: str, dtype: str) -> None:
    quantiser = Quantiser(np.array([3.0]), np.array([0.01]))
    steps = np.rint(1000 * SMOOTH).astype(v)
    apart, before = quantiser.to_data(steps, np.dtype(dtype)), steps.copy()
    np.testing.assert_array_equal(steps, before)
    x = quantiser.to_data(steps, np.dtype(dtype), in_place=True)
    np.testing.assert_array_equal(x, apart)
    assert np.shares_memory(x, steps) == (v[1] == dtype[1])
