"""Quantised latents of channels <-> bytes: top bands by fixed tables, details by the context networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.entropy.coder import (
    OFFSET_MAX,
    SCALES,
    SymbolReader,
    SymbolWriter,
    Tables,
    cheapest,
    high_part,
    offset_model,
    split_scale,
)
from isopress.codec.entropy.integer_mlp import Network
from isopress.codec.errors import CorruptPayloadError
from isopress.codec.latent.band_walk import Place, related, walk
from isopress.codec.latent.context_features import UNITS, PhaseContext, Prediction, predict
from isopress.codec.latent.wavelet import Level

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

OFFSET_FROM = 192  # points of a phase that a network was asked about: so many are worth a scale offset
SAMPLE = 2048  # of them looked at to choose it
REACH = 8  # how far it is looked for, in eighths of an octave
TRADE = 0.1  # squared steps that a bit saved may cost (measured: 0.09 to 0.12 are alike)
EMPTY_BELOW = 0.6  # steps: levels with nothing larger are not coded


@dataclass(frozen=True, eq=False)
class ContextModel:
    """Everything that fixes probabilities.

    networks : per band, for channels with and without others before them, (BANDS, 2)
    quiet : (BANDS, DEPTHS, 2, Q) int16, scale index and tail class where the activity index is below Q
    """

    networks: tuple[tuple[Network, Network], ...]
    quiet: NDArray[np.int16]
    tables: Tables

    def evaluate(self, place: Place, phase: PhaseContext, scratch: Scratch) -> Prediction:
        """Predict the points of one phase."""
        network = self.networks[place.band][phase.band.related is not None]
        return predict(phase, network, self.quiet[place.band, place.depth], place.depth, scratch)


@dataclass(frozen=True)
class Latents:
    """Coefficients of one channel in steps: the top band and the detail bands of every level, finest first."""

    top: F64
    bands: tuple[tuple[F64, ...], ...]

    @cached_property
    def finest(self) -> int:
        """The finest level that is worth coding; the number of levels if none is."""
        for number, bands in enumerate(self.bands):
            if any(band.size and np.abs(band).max() >= EMPTY_BELOW for band in bands):
                return number
        return len(self.bands)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the channel is worth coding."""
        return self.finest == len(self.bands) and not np.rint(self.top).any()

    @classmethod
    def of(cls, y: F64, levels: tuple[Level, ...]) -> Latents:
        """Transform a field (h, w), in steps."""
        bands = []
        for level in levels:
            y, detail = level.analyse(y)
            bands.append(detail)
        return cls(y, tuple(bands))


class Quantiser:
    """Chooses symbols by rate and distortion: the one that costs less than `trade` squared steps per bit saved."""

    def __init__(self, tables: Tables, trade: float) -> None:
        self.tables, self.trade = tables, np.float32(trade)

    def symbols(self, y: F32, predicted: Prediction) -> I32:
        """Return the symbols of coefficients `y` (n,) in steps."""
        x = y - predicted.mean * np.float32(1 / UNITS)
        k = np.rint(x).astype(np.int32)
        at = np.flatnonzero(k)
        if not at.size or not self.trade:
            return k
        table, shift = split_scale(predicted.scale[at])
        limit = self.tables.support[table + SCALES * predicted.tail[at].astype(np.int32)]
        best, chosen = None, k[at]
        magnitude, sign = np.abs(k[at]), np.sign(k[at])
        for fewer in (0, 1, 2):
            m = np.maximum(magnitude - fewer, 0)
            high = np.minimum(high_part(m, shift), limit)
            cost = (x[at] - sign * m) ** 2 + self.trade * self.tables.cost[predicted.tail[at], table, high]
            if best is None:
                best = cost
            else:
                better = cost < best
                best = np.where(better, cost, best)
                chosen = np.where(better, sign * m, chosen)
        k[at] = chosen
        return k


class Offsets:
    """The scale offset of one phase after another, in eighths of an octave: what networks miss of this field.

    Each is coded as its difference from the one before.
    """

    def __init__(self) -> None:
        self.last = 0

    def read(self, reader: SymbolReader, predicted: Prediction) -> None:
        """Read the offset of a phase and add it to its scale indexes."""
        if len(predicted.active) < OFFSET_FROM:
            return
        self.last += reader.symbol(offset_model(True)) - OFFSET_MAX
        if abs(self.last) > OFFSET_MAX:
            raise CorruptPayloadError(f"a phase has the scale offset {self.last}, beyond the allowed {OFFSET_MAX}")
        predicted.scale[predicted.active] += np.int16(self.last)

    def choose(self, writer: SymbolWriter, y: F32, predicted: Prediction, quantiser: Quantiser) -> I32:
        """Return the symbols of a phase's coefficients `y` (n,) in steps, after the offset that makes them cheapest."""
        active = predicted.active
        if len(active) < OFFSET_FROM:
            return quantiser.symbols(y, predicted)
        plain = predicted.scale[active]
        predicted.scale[active] = plain + np.int16(self.last)
        k = quantiser.symbols(y, predicted)
        lowest, highest = max(-REACH, -OFFSET_MAX - self.last), min(REACH, OFFSET_MAX - self.last)
        changes = np.arange(lowest, highest + 1, dtype=np.int16)
        scale, tail = predicted.scale[active], predicted.tail[active]
        change = cheapest(quantiser.tables, k[active], scale, tail, changes, peaked=True, sample=SAMPLE)
        self.last += change
        writer.symbol(change + OFFSET_MAX, offset_model(True))
        predicted.scale[active] = plain + np.int16(self.last)
        return k


Watch = Callable[[Place, PhaseContext, Prediction, F32, I32], None]


def encode(
    writer: SymbolWriter,
    channels: Sequence[Latents],
    levels: tuple[Level, ...],
    model: ContextModel,
    trade: float,
    watch: Watch | None = None,
) -> list[F64]:
    """Code channels one after another, each in view of those before it; return the decoded fields (h, w) in units.

    `watch` sees every phase (training).
    """
    quantiser = Quantiser(model.tables, trade)
    offsets = Offsets()
    head, before, decoded = FIRST_HEAD, None, list[F64]()
    for latents in channels:

        def residual(place: Place, phase: PhaseContext, predicted: Prediction, latents: Latents = latents) -> F32:
            target = phase.points.take(latents.bands[place.level][place.band], pad=0).astype(np.float32)
            k = offsets.choose(writer, target, predicted, quantiser)
            writer.phase(k, predicted.scale, predicted.tail, corrected=False)
            if watch:
                watch(place, phase, predicted, target, k)
            return k.astype(np.float32) * np.float32(UNITS)

        top, finest = np.rint(latents.top).astype(np.int64), latents.finest
        head = _write_head(writer, head, top, finest)
        low = top.astype(np.float64) * UNITS
        channel = walk(low, levels, finest, evaluate=model.evaluate, residual=residual, before=before)
        before = related(channel, before) if len(channels) > 1 else None
        decoded.append(channel.values)
    return decoded


def decode(
    reader: SymbolReader,
    count: int,
    levels: tuple[Level, ...],
    top: tuple[int, int],
    model: ContextModel,
    *,
    adapted: bool = True,
) -> list[F64]:
    """Return the decoded fields (h, w) in units of `count` channels, whose top bands have the shape `top`.

    adapted : whether phases have scale offsets; before payload 0.5 they had none

    Raises
    ------
    CorruptPayloadError, TruncatedPayloadError
        The stream does not decode.
    """

    offsets = Offsets()

    def residual(place: Place, phase: PhaseContext, predicted: Prediction) -> F32:
        if adapted:
            offsets.read(reader, predicted)
        k = reader.phase(predicted.scale, predicted.tail, corrected=False)
        return k.astype(np.float32) * np.float32(UNITS)

    head, before, decoded = FIRST_HEAD, None, list[F64]()
    for number in range(count):
        head, whole = _read_head(reader, head, top)
        if head.finest > len(levels):
            raise CorruptPayloadError(f"a channel's finest level is {head.finest} of {len(levels)}")
        low = whole.astype(np.float64) * UNITS
        channel = walk(low, levels, head.finest, evaluate=model.evaluate, residual=residual, before=before)
        before = related(channel, before) if number + 1 < count else None
        decoded.append(channel.values)
    return decoded


@dataclass(frozen=True)
class Head:
    """What a channel begins with: scale of its top band in half octaves, and its finest level that is not empty.

    Each is coded as its difference from the channel before: hyper-latents under one fixed table.
    """

    scale: int
    finest: int


FIRST_HEAD = Head(20, 0)
MAX_SCALE = 100  # of a head: no integers are that large


def _write_head(writer: SymbolWriter, before: Head, top: NDArray[np.int64], finest: int) -> Head:
    """Code a channel's head and its top band: each value less the mean of those above and to the left."""
    e = (top - _foretold(top)).astype(np.int32).ravel()
    wanted = round(2 * np.log2(np.abs(e).mean() + 0.05)) + 8
    head = Head(int(np.clip(wanted, max(0, before.scale - OFFSET_MAX), before.scale + OFFSET_MAX)), finest)
    for name in ("scale", "finest"):
        writer.symbol(getattr(head, name) - getattr(before, name) + OFFSET_MAX, offset_model(True))
    writer.phase(e, *_top_tables(head, e.size), corrected=False)
    return head


def _read_head(reader: SymbolReader, before: Head, shape: tuple[int, int]) -> tuple[Head, NDArray[np.int64]]:
    """Undo `_write_head`."""
    scale, finest = (
        getattr(before, name) + reader.symbol(offset_model(True)) - OFFSET_MAX for name in ("scale", "finest")
    )
    if not 0 <= scale <= MAX_SCALE or finest < 0:
        raise CorruptPayloadError(f"a channel's head says scale {scale} and finest level {finest}")
    head = Head(scale, finest)
    top = reader.phase(*_top_tables(head, shape[0] * shape[1]), corrected=False).astype(np.int64).reshape(shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            above, left = (top[y - 1, x] if y else 0), (top[y, x - 1] if x else 0)
            top[y, x] += (above + left) >> 1 if y and x else above + left
    if np.abs(top).max(initial=0) > 2**30:
        raise CorruptPayloadError("the top band of a channel exceeds 2**30 steps")
    return head, top


def _top_tables(head: Head, size: int) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    return np.full(size, 4 * head.scale - 8, np.int16), np.full(size, 2, np.int8)


def _foretold(top: NDArray[np.int64]) -> NDArray[np.int64]:
    above, left = np.zeros_like(top), np.zeros_like(top)
    above[1:], left[:, 1:] = top[:-1], top[:, :-1]
    both = (above + left) >> 1
    both[0], both[:, 0] = left[0], above[:, 0]
    return both
