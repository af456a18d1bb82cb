"""Maps and wavelet levels of latents by compiled kernels: as numpy makes them, and nothing outside of a buffer."""

from collections.abc import Iterator

import numpy as np
import pytest

from isopress.codec.latent import context_maps
from isopress.codec.latent.context_features import Band, Related
from isopress.codec.latent.context_maps import PAD, BandMaps, LevelMaps
from isopress.codec.latent.reduced_grid import AnyLevel, Level, levels
from isopress.codec.native import dispatch, maps, wavelet
from tests.strategies import Array

KERNELS = dispatch.levels()[:-1]
SPLITS = [
    levels(21, 30, True),
    levels(1, 5, False),
    levels(128, 384, True, (2, 1, *[0] * 28, 1, 3)),
    levels(150, 200, False, (3, 2, 1, *[0] * 30, 2)),
]

pytestmark = pytest.mark.skipif(not KERNELS, reason="the kernels were not built")


def random_map(level: AnyLevel, seed: int) -> Array:
    shape = level.low.shape[0] + 2 * PAD, level.low.shape[1] + 2 * PAD
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def made_by(name: str, level: AnyLevel, coarser: LevelMaps | None) -> Iterator[Array]:
    """Yield all maps that come up while a level's bands are decoded to noise."""
    rng = np.random.default_rng(1)
    with dispatch.using(name):
        low = rng.normal(size=level.low.shape if isinstance(level, Level) else (150, 400)) * 100
        known = LevelMaps.of(low, level, coarser)
        yield from (known.bend_x, known.bend_y, known.bend, *known.parent_smooth)
        for number in range(len(level.bands)):
            before = BandMaps(random_map(level, 2), random_map(level, 3))
            band = Band(known, 0, number, Related(before, before) if number == 1 else None)
            yield from (band.rest, band.far)
            for phase in band.phases():
                mean = np.rint(rng.normal(size=phase.size) * 50).astype(np.float32)
                phase.put(mean, rng.integers(-3, 4, phase.size, np.int32))
            values, finished = band.finish()
            known.bands.append(finished)
            yield from (values, band.own, band.magnitude, finished.smooth)


@pytest.mark.parametrize("split", SPLITS)
def test_every_level_of_the_kernels_makes_the_maps_that_numpy_makes(split: tuple[AnyLevel, ...]) -> None:
    coarser = None
    for level in split[::-1]:
        for name in KERNELS:
            wanted = made_by(dispatch.NUMPY, level, coarser)
            for one, other in zip(wanted, made_by(name, level, coarser), strict=True):
                np.testing.assert_array_equal(one, other)
        coarser = None
        if isinstance(level, Level):
            low = np.random.default_rng(0).normal(size=level.low.shape)
            smooth = random_map(level, 7)
            coarser = LevelMaps.of(low, level, None)
            coarser.bands += [BandMaps(smooth, smooth)] * context_maps.BANDS


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_level_of_the_kernels_transforms_as_numpy_does(
    split: tuple[AnyLevel, ...], dtype: type[np.floating]
) -> None:
    for level in split:
        x = np.random.default_rng(0).normal(size=(2, level.height, level.width)) * 1000
        found = list[tuple[Array, ...]]()
        if not isinstance(level, Level):
            continue
        for name in dispatch.levels():
            with dispatch.using(name):
                low, details = level.analyse(x, dtype)
                whole = [np.rint(band) for band in details]
                back = level.synthesise(low, details), level.synthesise(np.rint(low), whole, whole=True)
                found.append((low, *details, *back))
        for other in found[:-1]:
            for one, wanted in zip(other, found[-1], strict=True):
                np.testing.assert_array_equal(one, wanted)
                assert one.dtype == wanted.dtype


def test_kernels_refuse_maps_that_do_not_fit_together() -> None:
    level = levels(21, 30, True)[0]
    table, flat = level.low.table, np.zeros((19, 23), np.float32)
    zeros = np.zeros(9, np.float32), np.zeros(9, np.int32)
    bent = np.zeros((11, 15)), table, True, flat, flat
    with dispatch.using(KERNELS[0]):
        for work, message in (
            (lambda: maps.box(flat[:8, :], None, table, True), "map"),
            (lambda: maps.box(flat, flat[1:], table, True), "buffer"),
            (lambda: maps.box(flat, None, table + np.int32(1), True), "strip"),
            (lambda: maps.bends(bent[0], table[:, :2].copy(), *bent[2:]), "buffer"),
            (lambda: maps.bends(bent[0], np.repeat(table, 2, 0), *bent[2:]), "strips"),
            (lambda: maps.bends(*bent[:4], flat[1:]), "buffer"),
            (lambda: maps.rest((flat, flat, flat, flat[1:], None, None, None, None)), "buffer"),
            (lambda: maps.upsample(flat, (40, 60), True), "coarser"),
            (lambda: maps.enter(zeros, table, (0, 0), True, flat, flat), "points"),
            (lambda: maps.enter(zeros, table, (2, 0), True, flat, flat), "phase"),
        ):
            with pytest.raises(ValueError, match=message):
                work()


def test_kernels_refuse_levels_of_a_wavelet_that_do_not_fit_together() -> None:
    x, good = np.zeros((20, 32)), np.array([[0, 8, 16, 2, 0, 1], [8, 20, 32, 1, 1, 1]], np.int32)
    with dispatch.using(KERNELS[0]):
        low, details = wavelet.analyse(x, good, True, np.float32)
        for place, value, message in (
            ((0, 1), 6, "rows"),
            ((1, 1), 22, "rows"),
            ((0, 2), 17, "cells"),
            ((0, 3), 3, "cells"),
            ((1, 4), 0, "stride"),
            ((1, 2), 30, "side by side"),
        ):
            zones = good.copy()
            zones[place] = value
            with pytest.raises(ValueError, match=message):
                wavelet.analyse(x, zones, True, np.float32)
            with pytest.raises(ValueError, match=message):
                wavelet.synthesise(low, details, zones, (20, 32), True, True)
        with pytest.raises(ValueError, match="buffer"):
            wavelet.synthesise(low, details, good, (22, 32), True, True)
        with pytest.raises(ValueError, match="rows"):
            wavelet.analyse(x, good[:1], True, np.float32)
