"""The order in which the coefficients of one channel are visited, shared by encoder, decoder and training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.latent.context_features import DEPTHS, PHASES, BandContext, PhaseContext, Prediction, Related
from isopress.codec.latent.context_maps import BANDS, BandMaps, LevelMaps
from isopress.codec.latent.wavelet import Level

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where a phase lies: level (0 finest), band (0..2), phase (0..3); and which of the networks' biases applies."""

    level: int
    band: int
    phase: int
    depth: int


Evaluate = Callable[[Place, PhaseContext, Scratch], Prediction]
Residual = Callable[[Place, PhaseContext, Prediction], F32]  # what is to be added to the means, in units


@dataclass(frozen=True)
class Channel:
    """A decoded channel: its values (h, w) in units, and the maps of its bands, level by level, finest first."""

    values: F64
    bands: tuple[tuple[BandMaps, ...], ...]


def walk(
    top: F64,
    levels: tuple[Level, ...],
    finest: int,
    *,
    evaluate: Evaluate,
    residual: Residual,
    before: tuple[tuple[Related, ...], ...] | None = None,
) -> Channel:
    """Rebuild one channel in units from its coarsest low band, level by level, band by band, phase by phase.

    finest : the finest level that holds anything but zeros
    before : what channels coded before say of every band, as levels are numbered
    """
    low, coarser, scratch = top, None, Scratch.of_thread()
    found: list[tuple[BandMaps, ...]] = []
    for number in range(len(levels) - 1, -1, -1):
        level = levels[number]
        numbers = range(level.band_count)
        if number < finest:
            found.append((BandMaps.zeros(level.low),) * len(numbers))
            bands = [np.zeros(level.band(band)) for band in numbers]
        else:
            coarser = LevelMaps.of(level.own(low), level, coarser if len(numbers) == BANDS else None)
            bands = [_decode_band(coarser, number, band, before, evaluate, residual, scratch) for band in numbers]
            found.append(tuple(coarser.bands))
        low = level.synthesise(low, bands, whole=True)
    return Channel(low, tuple(found[::-1]))


def _decode_band(
    maps: LevelMaps,
    number: int,
    band: int,
    before: tuple[tuple[Related, ...], ...] | None,
    evaluate: Evaluate,
    residual: Residual,
    scratch: Scratch,
) -> F64:
    """Decode one band and add it to `maps`; return its values."""
    context = BandContext(maps, band, before[number][band] if before else None)
    for index in range(len(PHASES)):
        phase = context.phase(index)
        if phase.size:
            place = Place(number, band, index, min(maps.level.depth, DEPTHS - 1))
            predicted = evaluate(place, phase, scratch)
            context.set(phase, predicted.mean + residual(place, phase, predicted))
    maps.bands.append(context.finish())
    return context.inner()


def related(newest: Channel, history: tuple[tuple[Related, ...], ...] | None) -> tuple[tuple[Related, ...], ...]:
    """Return what a channel and those before it say to the next one."""
    return tuple(
        tuple(Related(maps, _history(maps, history[i][k].history if history else None)) for k, maps in enumerate(level))
        for i, level in enumerate(newest.bands)
    )


def _history(newest: BandMaps, before: BandMaps | None) -> BandMaps:
    """Return mean magnitudes of all channels so far, the weight halved with every channel."""
    half = np.float32(0.5)
    magnitude = np.abs(newest.values)
    if before is None:
        return BandMaps(magnitude, newest.smooth)
    return BandMaps((magnitude + before.values) * half, (newest.smooth + before.smooth) * half)
