"""The tables of symbols: constants of the format (SPEC, 7.2), in one file that all weights share.

A table is chosen per symbol by two integers, its tail class and its scale index (eight per octave). Each is symmetric:
`tables.npy` holds the frequencies of the magnitudes 0..A, uint32 (TAILS * SCALES, A + 1). In each row 0, and twice all
others, add up to 2**24; zeros are beyond the table's support.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isopress.codec.entropy.distributions import (
    ONE,
    RATES,
    limit_model,
    offset_model,
    other_model,
    rate_model,
    run_model,
)
from isopress.codec.errors import TruncatedPayloadError
from isopress.codec.native import entropy
from isopress.codec.native.dispatch import Kept

try:
    import constriction
except ImportError:  # it has no build for this machine; kernels do without
    constriction = None

I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]

SCALES = 72  # tables per tail class: scales of 0.06 to 31 steps; beyond, low bits are coded raw
TAILS = 4
FIRST_SCALE = -11  # scale index of the first table: 0.06 steps
BIT = 2**20  # a bit, where whole numbers say what symbols cost
FILE = Path(__file__).with_name("tables.npy")


@cache  # as everything derived from them: kept as long as the process
def frequencies() -> U32:
    """Return the frequencies (TAILS * SCALES, A + 1) of magnitudes, in 2**-24."""
    kept: U32 = np.load(FILE, allow_pickle=False).astype(np.uint32)
    return kept


@cache
def support() -> I32:
    """Return the largest magnitude (TAILS * SCALES,) of each table: it means "at least", and an escape follows."""
    largest: I32 = np.count_nonzero(frequencies(), axis=1).astype(np.int32) - 1
    return largest


@cache
def cumulative() -> U32:
    """Return the cumulative frequencies (TAILS * SCALES, 2 A + 2) of each table's symbols -support..support."""
    rows = np.zeros((TAILS * SCALES, 2 * int(support().max()) + 2), np.uint32)
    for row, magnitudes, a in zip(rows, frequencies(), support().tolist(), strict=True):
        row[1 : 2 * a + 2] = np.cumsum(np.concatenate([magnitudes[a:0:-1], magnitudes[: a + 1]]))
    return rows


@cache
def models() -> list[constriction.stream.model.Categorical]:
    """Return one constriction model per table."""
    # It gives each symbol 1, and shares out the rest by weights: these make it the frequencies exactly.
    return [
        constriction.stream.model.Categorical(
            np.diff(row[: 2 * a + 2]).astype(np.float64) - 1, perfect=False, lazy=False
        )
        for row, a in zip(cumulative(), support().tolist(), strict=True)
    ]


@cache
def cost() -> NDArray[np.float32]:
    """Return bits per symbol, (TAILS, SCALES, A + 1) of magnitudes, by which encoders choose; 24 beyond the support."""
    bits = 24 - np.log2(np.maximum(frequencies(), 1))
    return bits.astype(np.float32).reshape(TAILS, SCALES, -1)


@cache
def whole_cost() -> I32:
    """Return the same as integers, in 1 / BIT bit: their sums decide, and are the same on every machine."""
    return np.rint(cost().astype(np.float64) * BIT).astype(np.int32)


@cache
def kept() -> Kept:
    """Return what the compiled kernels know of the tables, and of the distributions of other integers."""
    offsets = offset_model(False).cumulative, offset_model(True).cumulative
    rates, runs = (np.stack([of(i).cumulative for i in range(RATES)]) for of in (rate_model, run_model))
    more = rates, runs, other_model().cumulative, limit_model().cumulative
    return entropy.tables(cumulative(), support(), whole_cost().reshape(TAILS * SCALES, -1), offsets, more)


@cache
def _most_frequent() -> int:
    return int(frequencies().max())


def check_count(symbols: int, nbytes: int) -> None:
    """Raise TruncatedPayloadError if so few bytes cannot hold so many symbols, whatever they are.

    Called before anything is allocated for the symbols that a damaged payload claims.
    """
    least = np.log2(ONE / _most_frequent())  # bits of the cheapest symbol
    if symbols * least * 0.9 > 8 * nbytes + 64:  # with room for the logarithm's last digits, and for the coder's end
        raise TruncatedPayloadError(f"a stream of {nbytes} bytes is too short for {symbols} symbols")


def refuse_own(tensors: Iterable[str]) -> None:
    """Raise ValueError if tensors of weights are tables, which were of weights before payload 0.12."""
    if "tables.frequencies" in tensors:
        raise ValueError("tables of their own, as of weights for payloads before 0.12; train them anew")
