"""The 9/7 wavelet: undone exactly, nearly orthonormal, the same in integers."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.latent.coefficients import Latents
from isopress.codec.latent.reduced_grid import STOP, AnyLevel, levels
from isopress.codec.latent.wavelet import LATITUDE, LONGITUDE, join, split
from isopress.codec.native import dispatch
from tests.fields import spectral_field
from tests.strategies import Array, examples

QUICK = examples(25)
SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def noise(*shape: int, size: float = 1.0) -> Array:
    return np.random.default_rng(shape).normal(size=shape) * size


def rebuilt(latents: Latents, split: tuple[AnyLevel, ...], *, whole: bool = False) -> Array:
    low = latents.top
    for level, bands in zip(split[::-1], latents.bands[::-1], strict=True):
        low = level.synthesise(low, bands, whole=whole)
    return low


def coefficients(latents: Latents) -> Array:
    return np.concatenate([latents.top.ravel(), *(band.ravel() for bands in latents.bands for band in bands)])


@QUICK
@given(SHAPES, st.booleans())
def test_synthesis_undoes_analysis_for_every_shape(shape: tuple[int, int], periodic: bool) -> None:
    x = noise(*shape)
    split = levels(*shape, periodic)
    latents = Latents.of(x, split)
    assert coefficients(latents).size == x.size
    assert max(latents.top.shape) <= STOP
    for level, bands in zip(split, latents.bands, strict=True):
        assert [band.shape for band in bands] == [each.shape for each in level.bands]
    np.testing.assert_allclose(rebuilt(latents, split), x, rtol=0, atol=1e-13 * 4 ** len(split))


@QUICK
@given(SHAPES, st.booleans(), st.sampled_from([1.0, 64.0, 1e4, 2.0**30]))
def test_whole_synthesis_gives_integers_near_the_float_ones(
    shape: tuple[int, int], periodic: bool, size: float
) -> None:
    split = levels(*shape, periodic)
    latents = Latents.of(noise(*shape, size=size), split)
    latents = Latents(np.rint(latents.top), tuple(tuple(np.rint(b) for b in bands) for bands in latents.bands), 0)
    whole, real = rebuilt(latents, split, whole=True), rebuilt(latents, split)
    assert np.array_equal(whole, np.rint(whole))
    assert np.abs(whole - real).max() <= 8  # an eighth of a step


@pytest.mark.parametrize(("shape", "periodic"), [((8, 16), True), ((9, 13), False), ((1, 40), True), ((37, 1), False)])
def test_each_level_is_nearly_orthonormal(shape: tuple[int, int], periodic: bool) -> None:
    count = shape[0] * shape[1]
    low, bands = levels(*shape, periodic)[0].analyse(np.eye(count).reshape(count, *shape))
    scales = np.linalg.svd(np.concatenate([b.reshape(count, -1) for b in (low, *bands)], 1), compute_uv=False)
    assert 0.65 < scales.min() <= scales.max() < 1.6


def test_all_levels_keep_the_energy_of_noise() -> None:
    x = noise(70, 90)
    energy = np.square(coefficients(Latents.of(x, levels(70, 90, True)))).sum()
    assert energy == pytest.approx(np.square(x).sum(), rel=0.1)


def test_a_field_turned_by_two_to_the_levels_has_latents_turned_by_one() -> None:
    x = noise(16, 64)
    split = levels(16, 64, True)[:3]
    assert all(level.periodic for level in split)
    here, turned = Latents.of(x, split), Latents.of(np.roll(x, 8, 1), split)
    np.testing.assert_allclose(turned.top, np.roll(here.top, 1, 1), atol=1e-12)
    for number, (ours, theirs) in enumerate(zip(here.bands, turned.bands, strict=True)):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(b, np.roll(a, 8 >> (number + 1), 1), atol=1e-12)


def test_longitude_closes_on_itself_only_while_its_width_is_even() -> None:
    assert [level.periodic for level in levels(10, 40, True)] == [True, True, True, False]
    assert not any(level.periodic for level in levels(10, 25, True))
    assert not any(level.periodic for level in levels(10, 40, False))
    x = np.cos(2 * np.pi * (np.arange(32) / 32)) * np.ones((8, 1))
    (closed,), (open_,) = levels(8, 32, True)[:1], levels(8, 32, False)[:1]
    edge = [np.abs(level.analyse(x)[1][0][:, [0, -1]]).max() for level in (closed, open_)]
    assert edge[0] < 0.1 * edge[1]


@pytest.mark.parametrize("degree", range(4))
def test_details_of_polynomials_vanish_away_from_the_edges(degree: int) -> None:
    along = ((np.arange(64) - 30) / 10.0) ** degree
    _, (hl, lh, hh) = levels(64, 64, False)[0].analyse(along[:, None] * along)
    inner = slice(3, -3)
    for band in (hl, lh, hh):
        assert np.abs(band[inner, inner]).max() < 1e-10 * np.abs(along).max() ** 2
    fourth = ((np.arange(64) - 30) / 10.0) ** 4
    assert np.abs(levels(64, 64, False)[0].analyse(fourth[:, None] * np.ones(64))[1][1][inner]).max() > 1e-4


def test_smooth_fields_end_up_in_few_coefficients() -> None:
    x = spectral_field(90, 128, slope=2.5)
    energy = np.sort(np.square(coefficients(Latents.of(x, levels(90, 128, True)))))[::-1]
    assert energy[: x.size // 20].sum() > 0.99 * energy.sum()


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (7, 16), (16, 7), (33, 64)])
def test_every_level_of_the_kernels_lifts_as_numpy_does(shape: tuple[int, int]) -> None:
    x = np.rint(np.random.default_rng(0).normal(size=shape) * 1000)
    for axis, periodic, whole in product((LATITUDE, LONGITUDE), (False, True), (False, True)):
        with dispatch.using(dispatch.NUMPY):
            low, high = split([x], axis, periodic)
            joined = join(low, [np.rint(part) for part in high], axis, periodic, whole)
        for level in dispatch.levels():
            with dispatch.using(level):
                again = split([x], axis, periodic)
                found = join(low, [np.rint(part) for part in high], axis, periodic, whole)
            for one, other in zip((*low, *high, *joined), (*again[0], *again[1], *found), strict=True):
                np.testing.assert_array_equal(one, other)
