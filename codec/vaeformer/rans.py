"""The range coder of CRA5's files: integers <-> strings of 32-bit words, one rANS stream each.

A stream is decoded with a table per symbol, chosen by an index. A wrong index ruins all that follows without an error,
but not the end: a stream that was followed rightly ends with all its words used and the state of an empty one.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.errors import CorruptPayloadError

I32 = NDArray[np.int32]

PRECISION = 16  # bits of a frequency
LOW = 2**31  # the state is never below it between two symbols, and exactly it when nothing is left
NIBBLE = 4  # bits of what is outside the tables, raw
_WORD = 2**32
_MOST_NIBBLES = 8  # of a value outside the tables


class DerailedError(CorruptPayloadError):
    """A stream did not end as streams end: some index was wrong, or the bytes are damaged."""


@dataclass(frozen=True)
class Rows:
    """Cumulative frequencies of every table, as plain lists: of all but the last symbol, which means "outside".

    Raises
    ------
    ValueError
        A row does not rise from 0 to 2**16.
    """

    cumulative: tuple[list[int], ...]
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, cdf: I32, lengths: I32, offsets: I32) -> Rows:
        """Return the rows of tables (rows, entries) of which only the first `lengths` count."""
        if not (len(cdf) == len(lengths) == len(offsets)) or lengths.max() > cdf.shape[1] or lengths.min() < 3:
            raise ValueError(f"tables of shape {cdf.shape} with lengths {lengths.min()} to {lengths.max()}")
        rows = tuple(row[:n].tolist() for row, n in zip(cdf, lengths.tolist(), strict=True))
        for row in rows:
            if row[0] != 0 or row[-1] != 1 << PRECISION or min(np.diff(row)) <= 0:
                raise ValueError("cumulative frequencies that do not rise from 0 to 65536")
        return cls(rows, tuple(offsets.tolist()))


def encode(values: I32, indexes: I32, rows: Rows) -> bytes:
    """Return the stream of values (n,), each coded with the row of its index."""
    parts = list[tuple[int, int]]()  # (start, frequency) of symbols, (nibble, 0) of what is outside
    for value, index in zip(values.tolist(), indexes.tolist(), strict=True):
        row = rows.cumulative[index]
        last, relative = len(row) - 2, value - rows.offsets[index]
        symbol = relative if 0 <= relative < last else last
        parts.append((row[symbol], row[symbol + 1] - row[symbol]))
        if symbol == last:
            parts += [(nibble, 0) for nibble in _nibbles(2 * (relative - last) if relative >= 0 else -2 * relative - 1)]
    state, words = LOW, list[int]()
    for start, frequency in reversed(parts):
        room = (LOW >> PRECISION) * _WORD * (frequency or 1 << (PRECISION - NIBBLE))
        if state >= room:
            words.append(state % _WORD)
            state //= _WORD
        state = (state // frequency << PRECISION) + state % frequency + start if frequency else state << NIBBLE | start
    words += [state >> 32, state % _WORD]
    return np.array(words[::-1], "<u4").tobytes()


def _nibbles(raw: int) -> list[int]:
    """Return the number of nibbles, 15 meaning "and more", and then the nibbles, lowest first."""
    count = -(-raw.bit_length() // NIBBLE)
    return [15] * (count // 15) + [count % 15] + [raw >> NIBBLE * i & 15 for i in range(count)]


def decode(stream: bytes, indexes: I32, rows: Rows) -> I32:
    """Return the values (n,) of a stream.

    Raises
    ------
    DerailedError
        The stream ends too early or too late: an index was wrong, or a byte is.
    """
    if len(stream) < 8 or len(stream) % 4:
        raise DerailedError(f"a stream of {len(stream)} bytes is none of whole words with a state")
    reader = _Reader(np.frombuffer(stream, "<u4").tolist())
    values = np.empty(indexes.size, np.int32)
    try:
        for i, index in enumerate(indexes.tolist()):
            row = rows.cumulative[index]
            symbol = reader.symbol(row)
            value = symbol if symbol < len(row) - 2 else reader.outside(symbol)
            values[i] = value + rows.offsets[index]
    except IndexError as error:
        raise DerailedError("a stream ends before its last symbol") from error
    if reader.at != len(reader.words) or reader.state != LOW:
        left = len(reader.words) - reader.at
        raise DerailedError(f"a stream ends with {left} words left and state {reader.state}, not 0 and {LOW}")
    return values


class _Reader:
    """State and place of a stream that is being read."""

    def __init__(self, words: list[int]) -> None:
        self.words, self.at = words, 2
        self.state = words[0] | words[1] << 32

    def symbol(self, row: list[int]) -> int:
        """Return the next symbol of a row of cumulative frequencies."""
        state = self.state
        f = state & 0xFFFF
        symbol = bisect_right(row, f) - 1
        state = (row[symbol + 1] - row[symbol]) * (state >> PRECISION) + f - row[symbol]
        if state < LOW:
            state = state << 32 | self.words[self.at]
            self.at += 1
        self.state = state
        return symbol

    def outside(self, last: int) -> int:
        """Return a value that is below 0, or at least `last`."""
        count = nibble = self._nibble()
        while nibble == 15:
            nibble = self._nibble()
            count += nibble
        if count > _MOST_NIBBLES:
            raise DerailedError(f"a stream holds a number of {count} nibbles")
        raw = 0
        for i in range(count):
            raw |= self._nibble() << NIBBLE * i
        value = -(raw >> 1) - 1 if raw & 1 else (raw >> 1) + last
        if abs(value) >= 2**30:
            raise DerailedError(f"a stream holds the number {value}")
        return value

    def _nibble(self) -> int:
        nibble = self.state & 15
        self.state >>= NIBBLE
        if self.state < LOW:
            self.state = self.state << 32 | self.words[self.at]
            self.at += 1
        return nibble
