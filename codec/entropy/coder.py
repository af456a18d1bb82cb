"""Symbols and scale indexes <-> bytes: frozen probability tables and constriction's range coder.

A table is chosen per symbol by two integers, its tail class and its scale index (eight per octave); symbols
are grouped by table before they are coded, so that the coder runs over long stretches with one model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bytes import read_varint, varint
from isopress.codec.entropy import tables
from isopress.codec.entropy.distributions import OFFSET_MAX, Distribution, offset_model
from isopress.codec.entropy.tables import BIT, FIRST_SCALE, SCALES
from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.native import entropy
from isopress.codec.native.dispatch import compiled

try:
    import constriction
except ImportError:  # it has no build for this machine; kernels do without
    constriction = None

I32 = NDArray[np.int32]

SCALE_MAX = 1024  # magnitude of a scale index that weights may give
SHIFT_MAX = 20  # raw low bits of a symbol
SYMBOL_MAX = 2**29
_SAMPLE = 1024  # symbols looked at to choose that correction
_NEAR = 8  # its reach for phases of many symbols


@dataclass(frozen=True)
class Grouped:
    """Raw bits, sorting and tables of the symbols of one phase: `counts` of the sorted ones are coded with each of
    `tables`, ascending."""

    shift: NDArray[np.int8]
    order: NDArray[np.intp]
    tables: NDArray[np.intp]
    counts: NDArray[np.intp]

    @classmethod
    def of(cls, scale: NDArray[np.int16], tail: NDArray[np.int8], offset: int) -> Grouped:
        """Group points by table; `scale` may lie outside 0..SCALES-1, `offset` is added first."""
        table, shift = split_scale(scale + np.int16(offset))
        table += SCALES * tail.astype(np.int16)
        counts = np.bincount(table, minlength=1)
        used = np.flatnonzero(counts)
        return cls(shift, np.argsort(table, kind="stable"), used, counts[used])


def split_scale(scale: NDArray[np.int16]) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """Return (scale index 0..SCALES-1, raw low bits): scales beyond the last table shift the symbol right."""
    scale = scale - np.int16(FIRST_SCALE)
    if scale.max(initial=0) < SCALES:  # as nearly always
        return np.maximum(scale, 0, out=scale), np.zeros(scale.shape, np.int8)
    shift = np.clip((scale - SCALES) // 8 + 1, 0, SHIFT_MAX)
    return np.clip(scale - 8 * shift, 0, SCALES - 1), shift.astype(np.int8)


OFFSET_BITS = np.array(
    [0, *range(3, OFFSET_MAX + 3)], np.int64
)  # by magnitude: what coding it costs more than coding 0, peaked


def _queue() -> Any:
    """Return constriction's range coder, for machines without kernels."""
    if constriction is None:
        raise ImportError(
            "isopress has neither compiled kernels here nor the package constriction: install it, or install isopress "
            "anew where there is a C compiler"
        )
    return constriction.stream.queue


class SymbolWriter:
    """Range-codes phases of symbols; `finish` returns the bytes. `peaked` makes offsets near 0 cheap."""

    def __init__(self, *, peaked: bool = False) -> None:
        self._peaked = peaked
        self.native = entropy.RangeEncoder(peaked) if compiled() else None
        self._coder: Any = _queue().RangeEncoder() if self.native is None else None
        self._escapes = bytearray()

    def symbol(self, value: int, distribution: Distribution) -> None:
        """Code one integer with a distribution of its own."""
        if self.native is not None:
            self.native.symbol(value, distribution.cumulative)
        else:
            self._coder.encode(np.array([value], np.int32), distribution.model)

    def integers(self, values: I32, distribution: Distribution) -> None:
        """Code integers (n,) of one distribution; kernels have their own way."""
        self._coder.encode(values, distribution.model)

    def escapes(self, beyond: I32) -> None:
        """Write by how much symbols (n,) exceed what was coded of them."""
        for value in beyond.tolist():
            self._escapes += varint(value)

    def phase(self, symbols: I32, scale: NDArray[np.int16], tail: NDArray[np.int8], *, corrected: bool = True) -> None:
        """Code the symbols (n,) of one phase, if `corrected` after the scale offset that suits them best."""
        if self.native is not None:
            self.native.phase(tables.kept(), symbols, scale, tail, corrected)
            return
        offset = 0
        if corrected:
            offset = best_offset(symbols, scale, tail, self._peaked)
            self.symbol(offset + OFFSET_MAX, offset_model(self._peaked))
        group = Grouped.of(scale, tail, offset)
        high = high_part(symbols, group.shift)[group.order]
        limit = tables.support()[group.tables].repeat(group.counts)
        excess = np.abs(high) - limit
        self.escapes(excess[excess >= 0])
        index = np.minimum(np.maximum(high, -limit), limit) + limit
        start = 0
        for table, count in zip(group.tables.tolist(), group.counts.tolist(), strict=True):
            self._coder.encode(index[start : start + count], tables.models()[table])
            start += count
        for bits in _shifts(group.shift):
            low = (symbols[group.shift == bits] + (1 << (bits - 1))) & ((1 << bits) - 1)
            self._coder.encode(low, constriction.stream.model.Uniform(1 << bits))

    def finish(self) -> bytes:
        """Return varint(escape bytes), the escape bytes, and the range coder's little-endian words."""
        if self.native is not None:
            words, escapes = self.native.finish()
        else:
            words, escapes = self._coder.get_compressed().astype("<u4").tobytes(), bytes(self._escapes)
        return varint(len(escapes)) + escapes + words


class SymbolReader:
    """Mirror of SymbolWriter.

    Raises
    ------
    TruncatedPayloadError, CorruptPayloadError
        The bytes end early, or escapes do not fit the symbols.
    """

    def __init__(self, data: memoryview, *, peaked: bool = False) -> None:
        self._peaked = peaked
        size, start = read_varint(data, 0)
        if start + size > len(data) or (len(data) - start - size) % 4:
            raise TruncatedPayloadError(f"symbol stream of {len(data)} bytes ends inside its {size} escape bytes")
        self._escapes, self._position = data[start : start + size], 0
        words = np.frombuffer(data[start + size :], "<u4").astype(np.uint32)
        self.native = entropy.RangeDecoder(words, self._escapes, peaked) if compiled() else None
        self._coder: Any = _queue().RangeDecoder(words) if self.native is None else None

    def symbol(self, distribution: Distribution) -> int:
        """Return one integer coded with a distribution of its own."""
        if self.native is not None:
            return self.native.symbol(distribution.cumulative)
        return int(self._decode(distribution.model, 1)[0])

    def integers(self, count: int, distribution: Distribution) -> I32:
        """Return integers (count,) of one distribution; kernels have their own way."""
        return self._decode(distribution.model, count)

    def phase(self, scale: NDArray[np.int16], tail: NDArray[np.int8], *, corrected: bool = True) -> I32:
        """Return the symbols (n,) coded with these scale indexes and tail classes."""
        if self.native is not None:
            return self.native.phase(tables.kept(), scale, tail, corrected)
        offset = self.symbol(offset_model(self._peaked)) - OFFSET_MAX if corrected else 0
        group = Grouped.of(scale, tail, offset)
        ordered = np.empty(scale.size, np.int32)
        start = 0
        for table, count in zip(group.tables.tolist(), group.counts.tolist(), strict=True):
            ordered[start : start + count] = self._decode(tables.models()[table], count)
            start += count
        limit = tables.support()[group.tables].repeat(group.counts)
        ordered -= limit
        beyond = np.flatnonzero(np.abs(ordered) == limit)
        if beyond.size:
            ordered[beyond] += np.sign(ordered[beyond]) * self.escapes(beyond.size)
        high = np.empty_like(ordered)
        high[group.order] = ordered
        return self._join(high, group.shift)

    def _join(self, high: I32, shift: NDArray[np.int8]) -> I32:
        for bits in _shifts(shift):
            at = np.flatnonzero(shift == bits)
            low = self._decode(constriction.stream.model.Uniform(1 << bits), at.size)
            whole = (high[at].astype(np.int64) << bits) + low - (1 << (bits - 1))
            if np.abs(whole).max() > SYMBOL_MAX:
                raise CorruptPayloadError(f"a symbol of {np.abs(whole).max()} is beyond the allowed {SYMBOL_MAX}")
            high[at] = whole
        return high

    def escapes(self, count: int) -> I32:
        """Return by how much symbols (count,) exceed what was coded of them."""
        values = np.empty(count, np.int64)
        for i in range(count):
            values[i], self._position = read_varint(self._escapes, self._position)
        if values.max(initial=0) >= 2**28:
            raise CorruptPayloadError(f"an escaped symbol of {values.max()} is beyond the allowed 2**28")
        return values.astype(np.int32)

    def _decode(self, model: constriction.stream.model.Model, count: int) -> I32:
        try:
            return np.asarray(self._coder.decode(model, count), np.int32)
        except AssertionError as error:  # how constriction says that no such data could have been encoded
            raise CorruptPayloadError(f"symbol stream is not decodable: {error}") from error

    def finish(self) -> None:
        """Check that everything was read."""
        if self.native is not None:
            exhausted = self.native.is_exhausted()
        else:
            exhausted = self._coder.maybe_exhausted() and self._position == len(self._escapes)
        if not exhausted:
            raise CorruptPayloadError("symbol stream holds more data than its symbols need")


def best_offset(symbols: I32, scale: NDArray[np.int16], tail: NDArray[np.int8], peaked: bool = False) -> int:
    """Return the offset of all scale indexes that makes (a sample of) the phase smallest."""
    # Of few points the networks know little, of many they are never far off.
    few = symbols[:: -(-symbols.size // _SAMPLE)].size < _SAMPLE // 4
    reach = OFFSET_MAX if few else _NEAR
    offsets = np.array(sorted(range(-reach, reach + 1), key=abs), np.int16)
    return cheapest(symbols, scale, tail, offsets, peaked=peaked, sample=_SAMPLE)


def cheapest(
    symbols: I32,
    scale: NDArray[np.int16],
    tail: NDArray[np.int8],
    offsets: NDArray[np.int16],
    *,
    peaked: bool,
    sample: int,
) -> int:
    """Return the one of some offsets that makes about `sample` of the symbols smallest, its own bits included."""
    pick = slice(None, None, -(-symbols.size // sample))
    some = symbols[pick]
    total = offset_bits(some, scale[pick], tail[pick], offsets)
    if peaked:
        total = total + OFFSET_BITS[np.abs(offsets)] * BIT * some.size // symbols.size
    return int(offsets[total.argmin()])


def offset_bits(
    symbols: I32, scale: NDArray[np.int16], tail: NDArray[np.int8], offsets: NDArray[np.int16]
) -> NDArray[np.int64]:
    """Return what symbols (n,) cost for each offset (m,) of their scale indexes, in 1 / BIT bit, as far as tables can
    tell."""
    table, shift = split_scale(scale + offsets[:, None])
    high = np.abs(high_part(symbols, shift))
    kind = tail.astype(np.int32)
    limit = tables.support()[table + SCALES * kind]
    cost = tables.whole_cost()[kind, table, np.minimum(high, limit)] + shift.astype(np.int64) * BIT
    cost += np.where(high >= limit, _escape_cost(np.maximum(high - limit, 0)), 0)
    total: NDArray[np.int64] = np.asarray(cost.sum(1))
    return total


def _escape_cost(excess: I32) -> NDArray[np.int64]:
    """Return about 10 + log2(excess + 1) bits, in 1 / BIT bit: the logarithm from the bits of a binary32 number."""
    bits = (excess.astype(np.int64) + 1).astype(np.float32).view(np.int32).astype(np.int64)
    m = (bits & 0x7FFFFF) >> 3
    cost: NDArray[np.int64] = ((bits >> 23) - 127 + 10) * BIT + m + ((m * (BIT - m) >> 20) * 11 >> 5)
    return cost


def high_part(symbols: I32, shift: NDArray[np.int8]) -> I32:
    """Return symbols / 2**shift, rounded: what the table codes."""
    if not shift.any():
        return symbols
    wide = shift.astype(np.int32)
    high: I32 = (symbols + ((1 << wide) >> 1)) >> wide
    return high


def _shifts(shift: NDArray[np.int8]) -> list[int]:
    """Return the raw bit counts > 0 that occur, ascending."""
    raw: list[int] = np.unique(shift[shift > 0]).tolist() if shift.any() else []
    return raw
