"""The range coder of SPEC, chapter 7, and the tables under which it codes."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.native.dispatch import Kept, kernels

I32 = NDArray[np.int32]
I16 = NDArray[np.int16]
I8 = NDArray[np.int8]
U32 = NDArray[np.uint32]
UNDECODABLE = 2
# Of what kernels say, by entropy.h's numbers.
_ENDS: dict[int, tuple[type[Exception], str]] = {
    1: (MemoryError, "the compiled kernels found no memory"),
    UNDECODABLE: (CorruptPayloadError, "symbol stream is not decodable: no encoder writes such words"),
    3: (TruncatedPayloadError, "the escape bytes of a symbol stream end inside a symbol"),
    4: (CorruptPayloadError, "an escaped symbol is longer than it needs to be"),
    5: (CorruptPayloadError, "an escaped symbol is beyond the allowed 2**28"),
    6: (CorruptPayloadError, "a symbol is beyond the allowed 2**29"),
    7: (CorruptPayloadError, "a decoded value is beyond the pyramid's range"),
    8: (ValueError, "the compiled kernels refuse what they are given: a bug"),
}


def raise_for(outcome: int) -> None:
    """Raise what an outcome of the kernels other than 0 means."""
    if outcome:
        kind, message = _ENDS[outcome]
        raise kind(message)


def tables(cumulative: U32, support: I32, cost: I32, offsets: tuple[U32, U32], runs: tuple[U32, U32, U32, U32]) -> Kept:
    """Return tables of symbols: cumulative frequencies (288, width), how far each reaches (288,), what symbols cost by
    magnitude (288, reach + 1) in 2**-20 bit, both distributions of offsets (64,), and what runs of zeros take: those of
    rates (24, 25), runs (24, 66), other symbols (5,) and numbers of quiet classes (8,)."""
    return Kept(kernels.tables(cumulative.shape[1], cost.shape[1] - 1, cumulative, support, cost, *offsets, *runs))


class RangeEncoder:
    """The range coder of SPEC, chapter 7, and the bytes of what exceeds tables."""

    def __init__(self, peaked: bool) -> None:
        self.kept = Kept(kernels.writer(peaked))

    def symbol(self, value: int, cumulative: NDArray[np.uint32]) -> None:
        """Code an integer of one distribution."""
        kernels.write_symbol(self.kept, value, cumulative, cumulative.size - 1)

    def phase(self, tables: Kept, symbols: I32, scale: I16, tail: I8, corrected: bool) -> None:
        """Code all symbols of a phase, if `corrected` after the scale offset that suits them best."""
        arrays = _arrays(symbols, scale, tail)
        raise_for(kernels.write_phase(self.kept, tables, *arrays, corrected))

    def finish(self) -> tuple[bytes, bytes]:
        """Return all words, little-endian, and the bytes of escapes; the coder is sealed."""
        words, escapes = kernels.written(self.kept)
        return words if sys.byteorder == "little" else np.frombuffer(words, np.uint32).astype("<u4").tobytes(), escapes


class RangeDecoder:
    """Mirror of RangeEncoder."""

    def __init__(self, words: NDArray[np.uint32], escapes: memoryview, peaked: bool) -> None:
        self.kept = Kept(kernels.reader(words, escapes, peaked))

    def symbol(self, cumulative: NDArray[np.uint32]) -> int:
        """Return an integer of one distribution."""
        value = kernels.read_symbol(self.kept, cumulative, cumulative.size - 1)
        raise_for(UNDECODABLE if value < 0 else 0)
        return value

    def phase(self, tables: Kept, scale: I16, tail: I8, corrected: bool) -> I32:
        """Return all symbols of a phase."""
        symbols = np.empty(scale.size, np.int32)
        raise_for(kernels.read_phase(self.kept, tables, *_arrays(symbols, scale, tail), corrected))
        return symbols

    def is_exhausted(self) -> bool:
        """Whether all was read, and an encoder may have ended here."""
        return kernels.exhausted(self.kept)


def _arrays(symbols: I32, scale: I16, tail: I8) -> tuple[I32, I16, I8]:
    of = np.ascontiguousarray
    return of(symbols, np.int32), of(scale, np.int16), of(tail, np.int8)
