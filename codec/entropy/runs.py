"""Symbols that are nearly all zero <-> integers of the range coder: how many zeros come before each other one.

A run of zeros is an integer of 0..LONGEST whose distribution follows from the rate of what is not zero; LONGEST says
that many zeros and nothing else. What is not zero comes after all runs. SPEC, 7.4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter
from isopress.codec.entropy.distributions import LONGEST, RATE_ONE, RATES, of_rate, other_model, rate_model, run_model

OUTER = 2  # magnitude from which on a symbol is followed by how much it is more


def rate_of(others: int, count: int) -> int:
    """Return the number of the rate that suits `count` symbols of which `others` are not zero."""
    for rate in range(RATES - 1):
        if 8 * RATE_ONE * others >= 7 * of_rate(rate) * count:
            return rate
    return RATES - 1


def write_runs(writer: SymbolWriter, symbols: I32, before: int) -> int:
    """Code symbols (n,), n > 0, after others with the rate `before`; return the number of their rate."""
    at = np.flatnonzero(symbols)
    rate = rate_of(at.size, symbols.size)
    writer.symbol(rate, rate_model(before))
    zeros = np.diff(at, prepend=-1) - 1
    # Whole stretches of LONGEST zeros, then what is left of each run; at the end one more if any are left.
    integers = np.full(int((zeros // LONGEST + 1).sum()), LONGEST, np.int32)
    integers[np.cumsum(zeros // LONGEST + 1) - 1] = zeros % LONGEST
    after = symbols.size - 1 - (int(at[-1]) if at.size else -1)
    last = np.full(-(-after // LONGEST), LONGEST, np.int32)
    writer.integers(np.concatenate([integers, last]), run_model(rate))
    others = symbols[at]
    writer.integers(_index_of(others), other_model())
    writer.escapes(np.abs(others)[np.abs(others) >= OUTER] - OUTER)
    return rate


def read_runs(reader: SymbolReader, count: int, before: int) -> tuple[I32, int]:
    """Return symbols (count,), count > 0, and the number of their rate: mirror of `write_runs`."""
    rate = reader.symbol(rate_model(before))
    symbols, model = np.zeros(count, np.int32), run_model(rate)
    start, at = 0, list[NDArray[np.int64]]()
    while start < count:  # none of them stands for more than LONGEST symbols
        runs = reader.integers(-(-(count - start) // LONGEST), model)
        ends = start + np.cumsum(runs + (runs < LONGEST), dtype=np.int64)
        at.append(ends[(runs < LONGEST) & (ends <= count)] - 1)
        start = int(ends[-1])
    places = np.concatenate(at)
    others = np.array([-2, -1, 1, 2], np.int32)[reader.integers(places.size, other_model())]
    outer = np.abs(others) >= OUTER
    others[outer] += np.sign(others[outer]) * reader.escapes(int(np.count_nonzero(outer)))
    symbols[places] = others
    return symbols, rate


def _index_of(others: I32) -> I32:
    """Return which of -2, -1, 1 and 2 stand for symbols other than 0."""
    index: NDArray[np.int32] = np.clip(others, -OUTER, OUTER) + OUTER
    index[others > 0] -= 1
    return index
