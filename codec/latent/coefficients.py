"""Quantised latents of channels <-> bytes: top bands by fixed tables, details by the context networks.

Encoder, decoder and training walk alike, from coarse to fine:

    channel = Channel(top band, levels, finest, what channels before say)
    for phase, predicted in channel.phases(model):
        ...                                          symbols <-> coefficients, in steps
        phase.put(predicted.mean, symbols)           the next phase sees them
    channel.values, channel.related(before)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.entropy import tables
from isopress.codec.entropy.coder import SymbolReader, SymbolWriter, cheapest, high_part, split_scale
from isopress.codec.entropy.distributions import OFFSET_MAX, offset_model
from isopress.codec.errors import CorruptPayloadError
from isopress.codec.latent.context_features import DEPTHS, UNITS, Band, Phase, Related
from isopress.codec.latent.context_maps import BANDS, BandMaps, LevelMaps
from isopress.codec.latent.context_model import ContextModel, Prediction
from isopress.codec.latent.reduced_grid import AnyLevel
from isopress.codec.native import contexts
from isopress.codec.native.dispatch import compiled

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Units = I32 | F64  # integers
History = Sequence[Sequence[Related]]  # what channels coded before say of every band, as levels are numbered

OFFSET_FROM = 192  # points of a phase that a network was asked about: so many are worth a scale offset
SAMPLE = 2048  # of them looked at to choose it
REACH = 8  # how far it is looked for, in eighths of an octave
TRADE = 0.1  # rate-distortion multiplier, squared steps per bit (measured: 0.09 to 0.12 are alike)
EMPTY_BELOW = 0.6  # steps: levels with nothing larger are not coded
MAX_SCALE = 100  # of a head: no integers are that large
MAX_TOP = 2**30  # steps


@dataclass(frozen=True)
class Latents:
    """Coefficients of one channel in steps: the top band and the detail bands of every level, finest first.

    finest : the finest level that is worth coding; the number of levels if none is
    """

    top: F64
    bands: tuple[tuple[NDArray[np.floating], ...], ...]
    finest: int

    @classmethod
    def of(
        cls, y: F64, levels: Sequence[AnyLevel], dtype: type[np.floating] = np.float64, *, used_up: bool = False
    ) -> Latents:
        """Transform a field (h, w), in steps, if it is `used_up` where it lies; bands are kept as `dtype`."""
        bands, finest = list[tuple[NDArray[np.floating], ...]](), len(levels)
        for number, level in enumerate(levels):
            y, details = level.analyse(y, dtype, used_up=used_up or number > 0)
            bands.append(details)
            for band in details:
                if max(band.max(initial=0), -band.min(initial=0)) >= EMPTY_BELOW:
                    finest = min(finest, number)
            del details
        return cls(y, tuple(bands), finest)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the channel is worth coding."""
        return self.finest == len(self.bands) and not np.rint(self.top).any()


class Channel:
    """One channel while it is coded: `values` grow from the coarsest low band to the field (h, w), in units.

    Maps are kept for channels that follow, unless it is `alone`.
    """

    def __init__(
        self, top: I64, levels: Sequence[AnyLevel], finest: int, before: History | None, *, alone: bool = False
    ) -> None:
        self.values = top.astype(np.float64) * UNITS
        self._levels, self._finest, self._before, self._alone = levels, finest, before, alone
        self._maps = list[Sequence[BandMaps]]()  # of the bands of every level, coarsest first

    def phases(self, model: ContextModel) -> Iterator[tuple[Phase, Prediction]]:
        """Yield every phase, coarse to fine, and what is known of it; each must be `put` before the next."""
        coarser = None
        for number in range(len(self._levels) - 1, -1, -1):
            level = self._levels[number]
            if number < self._finest:
                if not self._alone:
                    self._maps.append((BandMaps.zeros(level.low.shape),) * len(level.bands))
                details = [np.zeros(band.shape, np.float32) for band in level.bands]
            else:
                coarser = LevelMaps.of(self.values, level, coarser if len(level.bands) == BANDS else None)
                details = []
                for index in range(len(level.bands)):
                    band = Band(coarser, number, index, self._before[number][index] if self._before else None)
                    for phase in band.phases():
                        yield phase, model.predict(phase, min(level.depth, DEPTHS - 1))
                        del phase
                    values, maps = band.finish()
                    coarser.bands.append(maps)
                    details.append(np.ascontiguousarray(values))
                    del band, maps
                if not self._alone:
                    self._maps.append(coarser.bands)
                if number == 0 or len(self._levels[number - 1].bands) != BANDS:
                    coarser = None  # most of what is held, and nothing needs it now
            self.values = level.synthesise(self.values, details, whole=True)

    def related(self, before: History | None) -> History:
        """Return what this channel and those before it say to the next: mean magnitudes, halved with every channel."""
        found, half = list[list[Related]](), np.float32(0.5)
        for number, bands in enumerate(reversed(self._maps)):
            found.append([])
            for index, newest in enumerate(bands):
                history = BandMaps(np.abs(newest.values), newest.smooth)
                if before is not None:
                    old = before[number][index].history
                    history = BandMaps((history.values + old.values) * half, (history.smooth + old.smooth) * half)
                found[-1].append(Related(newest, history))
        return found


def encode(
    writer: SymbolWriter, channels: Sequence[Latents], levels: Sequence[AnyLevel], model: ContextModel, trade: float
) -> list[Units]:
    """Code channels one after another, each in view of those before it; return the decoded fields (h, w) in units."""
    head, offset, before, fields = FIRST_HEAD, 0, None, list[Units]()
    for latents in channels:
        top = np.rint(latents.top).astype(np.int64)
        head = write_head(writer, head, top, latents.finest)
        channel = Channel(top, levels, latents.finest, before, alone=len(channels) == 1)
        for phase, predicted in channel.phases(model):
            y = phase.take(latents.bands[phase.band.level][phase.band.number], pad=0)
            symbols, offset = write_phase(writer, y, predicted, offset, trade)
            phase.put(predicted.mean, symbols)
            del phase, predicted  # they hold the maps of their level
        before = channel.related(before) if len(channels) > 1 else None
        fields.append(narrowed(channel.values))
    return fields


def decode(
    reader: SymbolReader, count: int, levels: Sequence[AnyLevel], top: tuple[int, int], model: ContextModel
) -> list[Units]:
    """Return the decoded fields (h, w) in units of `count` channels, whose top bands have the shape `top`.

    Raises
    ------
    CorruptPayloadError, TruncatedPayloadError
        The stream does not decode.
    """
    head, offset, before, fields = FIRST_HEAD, 0, None, list[Units]()
    for _ in range(count):
        head, whole = read_head(reader, head, top)
        if head.finest > len(levels):
            raise CorruptPayloadError(f"a channel's finest level is {head.finest} of {len(levels)}")
        channel = Channel(whole, levels, head.finest, before, alone=count == 1)
        for phase, predicted in channel.phases(model):
            symbols, offset = read_phase(reader, predicted, offset)
            phase.put(predicted.mean, symbols)
            del phase, predicted  # they hold the maps of their level
        before = channel.related(before) if count > 1 else None
        fields.append(narrowed(channel.values))
    return fields


def narrowed(values: F64) -> Units:
    """Return integers as int32 if that holds them."""
    largest = max(values.max(initial=0), -values.min(initial=0))
    return values.astype(np.int32) if largest < 2**31 else values


def write_phase(writer: SymbolWriter, y: F32, predicted: Prediction, last: int, trade: float) -> tuple[I32, int]:
    """Code the coefficients `y` (n,) of a phase, in steps; return their symbols, and the scale offset.

    The scale offset corrects what networks miss of this field, in eighths of an octave; it is coded as its difference
    from the `last` one, and added to the scale indexes.
    """
    symbols, change = choose(y, predicted, last, trade)
    if len(predicted.active) >= OFFSET_FROM:
        writer.symbol(change + OFFSET_MAX, offset_model(True))
    writer.phase(symbols, predicted.scale, predicted.tail, corrected=False)
    return symbols, last + change


def read_phase(reader: SymbolReader, predicted: Prediction, last: int) -> tuple[I32, int]:
    """Undo `write_phase`."""
    if len(predicted.active) >= OFFSET_FROM:
        last += reader.symbol(offset_model(True)) - OFFSET_MAX
        if abs(last) > OFFSET_MAX:
            raise CorruptPayloadError(f"a phase has the scale offset {last}, beyond the allowed {OFFSET_MAX}")
        predicted.scale[predicted.active] += np.int16(last)
    return reader.phase(predicted.scale, predicted.tail, corrected=False), last


def choose(y: F32, predicted: Prediction, last: int, trade: float) -> tuple[I32, int]:
    """Return the symbols of coefficients `y` (n,), in steps, and by how much the scale offset changes from the `last`
    one; adds it to the scale indexes."""
    scale, tail, active = predicted.scale, predicted.tail, predicted.active
    if compiled():
        seen = predicted.mean, scale, tail, active.astype(np.int32, copy=False)
        return contexts.choose(tables.kept(), y, seen, tables.cost(), trade, last)
    if len(active) < OFFSET_FROM:
        return quantise(y, predicted, trade), 0
    scale[active] += np.int16(last)
    symbols = quantise(y, predicted, trade)
    changes = np.arange(max(-REACH, -OFFSET_MAX - last), min(REACH, OFFSET_MAX - last) + 1, dtype=np.int16)
    change = cheapest(symbols[active], scale[active], tail[active], changes, peaked=True, sample=SAMPLE)
    scale[active] += np.int16(change)
    return symbols, change


def quantise(y: F32, predicted: Prediction, trade: float) -> I32:
    """Return the symbols of coefficients `y` (n,) in steps that are cheapest in squared steps + `trade` * bits."""
    x = y - predicted.mean * np.float32(1 / UNITS)
    k = np.rint(x).astype(np.int32)
    at = np.flatnonzero(k)
    if not at.size or not trade:
        return k
    table, shift = split_scale(predicted.scale[at])
    tail = predicted.tail[at]
    limit = tables.support()[table + tables.SCALES * tail.astype(np.int32)]
    magnitude, sign, least = np.abs(k[at]), np.sign(k[at]), np.full(at.size, np.inf)
    for fewer in (0, 1, 2):
        symbol = np.maximum(magnitude - fewer, 0)
        high = np.minimum(high_part(symbol, shift), limit)
        cost = (x[at] - sign * symbol) ** 2 + np.float32(trade) * tables.cost()[tail, table, high]
        k[at] = np.where(cost < least, sign * symbol, k[at])
        least = np.minimum(cost, least)
    return k


@dataclass(frozen=True)
class Head:
    """What a channel begins with: scale of its top band in half octaves, and its finest level that is not empty.

    Each is coded as its difference from the channel before: hyper-latents under one fixed table.
    """

    scale: int
    finest: int


FIRST_HEAD = Head(20, 0)


def write_head(writer: SymbolWriter, before: Head, top: I64, finest: int) -> Head:
    """Code a channel's head and its top band: each value less the mean of those above and to the left."""
    above, left = np.zeros_like(top), np.zeros_like(top)
    above[1:], left[:, 1:] = top[:-1], top[:, :-1]
    foretold = (above + left) >> 1
    foretold[0], foretold[:, 0] = left[0], above[:, 0]
    e = (top - foretold).astype(np.int32).ravel()
    wanted = round(2 * np.log2(np.abs(e).mean() + 0.05)) + 8
    head = Head(int(np.clip(wanted, max(0, before.scale - OFFSET_MAX), before.scale + OFFSET_MAX)), finest)
    writer.symbol(head.scale - before.scale + OFFSET_MAX, offset_model(True))
    writer.symbol(head.finest - before.finest + OFFSET_MAX, offset_model(True))
    writer.phase(e, *_top_tables(head, e.size), corrected=False)
    return head


def read_head(reader: SymbolReader, before: Head, shape: tuple[int, int]) -> tuple[Head, I64]:
    """Undo `write_head`."""
    scale = before.scale + reader.symbol(offset_model(True)) - OFFSET_MAX
    finest = before.finest + reader.symbol(offset_model(True)) - OFFSET_MAX
    if not 0 <= scale <= MAX_SCALE or finest < 0:
        raise CorruptPayloadError(f"a channel's head says scale {scale} and finest level {finest}")
    head = Head(scale, finest)
    top = reader.phase(*_top_tables(head, shape[0] * shape[1]), corrected=False).astype(np.int64).reshape(shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            above, left = (top[y - 1, x] if y else 0), (top[y, x - 1] if x else 0)
            top[y, x] += (above + left) >> 1 if y and x else above + left
    if np.abs(top).max(initial=0) > MAX_TOP:
        raise CorruptPayloadError("the top band of a channel exceeds 2**30 steps")
    return head, top


def _top_tables(head: Head, size: int) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    return np.full(size, 4 * head.scale - 8, np.int16), np.full(size, 2, np.int8)
