"""Compiled kernels of the bounded codec, and the one Python face they have; numpy does the same work without them.

Which instruction set is used is decided when this module is loaded: the best that the machine has, or what the
environment variable ISOPRESS_KERNELS names (numpy, generic, avx2). Every one gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.errors import ArgumentError

try:
    from isopress.codec.native import _kernels
except ImportError:  # built without a compiler
    _kernels = None  # type: ignore[assignment]

VARIABLE = "ISOPRESS_KERNELS"
NUMPY = "numpy"

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
# Values, coding errors and proxies of one of the four planes of a level, (B, h, w) each, padded; None for none.
Plane = tuple[F64 | None, I32 | None, tuple[F64, ...]]
# (inputs, outputs, weight (out, in) int8, bias (out,) int32, scale (out,) float32): round(sums * scale) comes out.
Layer = tuple[int, int, NDArray[np.int8], I32, F32]


def levels() -> tuple[str, ...]:
    """Return the names of what can be used here, best first; the last is numpy."""
    return (*(_kernels.levels() if _kernels else ()), NUMPY)


def _default() -> str:
    name = os.environ.get(VARIABLE) or levels()[0]
    if name not in levels():
        raise ArgumentError(f"{VARIABLE}={name}: this installation and machine have {', '.join(levels())}")
    return name


_DEFAULT = _default()
_LEVEL: ContextVar[str | None] = ContextVar("level", default=None)


def level() -> str:
    """Return the name of what is in use."""
    return _LEVEL.get() or _DEFAULT


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use another level within a `with` block of this thread, as tests do."""
    token = _LEVEL.set(name)
    try:
        yield
    finally:
        _LEVEL.reset(token)


def status() -> str:
    """Return one line that says which kernels are in use."""
    if _kernels is None:
        return "numpy (the compiled kernels were not built: slower, the same bytes)"
    return level() if level() != NUMPY else f"numpy ({VARIABLE} says so: slower, the same bytes)"


@dataclass(frozen=True, eq=False)
class Geometry:
    """Geometry of one phase; kernels.h says what each part means.

    counts : numbers of neighbours whose values, and whose errors near and further off, are looked at.
    places : (sum of counts + 1, 3) int32; sums : (6, n) float64; constants : (6,) float64.
    residual, error : (320,) float32, and mean : (320,) float64, multipliers by roughness index.
    """

    counts: tuple[int, int, int]
    places: I32
    sums: F64
    constants: F64
    first_index: int
    residual: F32
    error: F32
    mean: F64


def layer_of(affine: F32, scale: F32) -> Layer:
    """Return integer weights and biases of a matrix (out, in + 1) of integers times `scale` (out,)."""
    whole = affine / scale[:, None]
    weight = np.ascontiguousarray(whole[:, :-1].astype(np.int8))
    bias = np.ascontiguousarray(whole[:, -1].astype(np.int32))
    return weight.shape[1], weight.shape[0], weight, bias, np.ascontiguousarray(scale, np.float32)


def predict(
    planes: tuple[Plane, ...],
    geometry: Geometry,
    layers: tuple[Layer, ...],
    value: F64,
    scale: NDArray[np.int16],
    tail: NDArray[np.int8],
) -> None:
    """Predict all points of a phase into `value`, `scale` and `tail`, (B, h, w) each.

    Raises
    ------
    ValueError
        A buffer has another type or size than the phase needs: a bug of the caller.
    """
    described = []
    for values, errors, proxies in planes:
        some = next((x for x in (values, errors, *proxies) if x is not None), None)
        rows, columns = (0, 0) if some is None else some.shape[1:]
        described.append((rows, columns, values, errors, proxies))
    g = geometry
    _kernels.predict(
        level(),
        value.shape,
        len(planes[0][2]),
        tuple(described),
        (*g.counts, g.first_index, g.places, g.sums, g.constants, g.residual, g.error, g.mean),
        layers,
        value,
        scale,
        tail,
    )


@dataclass(frozen=True, eq=False)
class Tables:
    """Cumulative frequencies of all tables of symbols, (288, width) uint32, and how far each reaches, (288,) int32."""

    cumulative: NDArray[np.uint32]
    support: I32


class RangeEncoder:
    """The range coder of SPEC, chapter 7; its state is four integers, its words are kept in pieces."""

    def __init__(self) -> None:
        self._state = np.array([0, 2**64 - 1, 0, 0], np.uint64)  # lower, range, inverted words, the first of them
        self._words: list[NDArray[np.uint32]] = []

    def _room(self, count: int) -> NDArray[np.uint32]:
        return np.empty(count + int(self._state[2]) + 1, np.uint32)

    def row(self, integers: I32, cumulative: NDArray[np.uint32] | None, bits: int = 0) -> None:
        """Code integers of one distribution, or where `cumulative` is None of 2**bits equally likely ones."""
        integers = np.ascontiguousarray(integers, np.int32)
        words, size = self._room(integers.size), 0 if cumulative is None else cumulative.size - 1
        written = _kernels.encode_row(self._state, integers.size, integers, cumulative, size, bits, words)
        self._words.append(words[:written].copy())

    def phase(
        self, tables: Tables, symbols: I32, scale: NDArray[np.int16], tail: NDArray[np.int8], offset: int
    ) -> tuple[I32, NDArray[np.int8] | None]:
        """Code the high parts of symbols; return what exceeds tables, in the order of coding, and the raw low bits of
        each symbol, None if there are none."""
        n = symbols.size
        words, excess, group = self._room(n), np.empty(n, np.int32), _group(scale, tail, offset)
        symbols = np.ascontiguousarray(symbols, np.int32)
        written, escapes, top = _kernels.encode_phase(
            self._state, group, (tables.cumulative, tables.support, tables.cumulative.shape[1]), symbols, words, excess
        )
        self._words.append(words[:written].copy())
        return excess[:escapes], group[-1] if top else None

    def finish(self) -> NDArray[np.uint32]:
        """Return all words, the coder sealed."""
        lower, span, inverted, first = (int(x) for x in self._state)
        end = []
        if span != 2**64 - 1:
            point = (lower + 2**32 - 1) % 2**64
            if inverted:
                carry = point < lower
                end += [(first + carry) % 2**32, *[0 if carry else 2**32 - 1] * (inverted - 1)]
            end.append(point >> 32)
            if (lower + span) % 2**64 >> 32 == point >> 32:
                end.append(0)
        return np.concatenate([*self._words, np.array(end, np.uint32)])


class RangeDecoder:
    """Mirror of RangeEncoder; `None` and False tell what no encoder writes."""

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._words = np.ascontiguousarray(words, np.uint32)
        first = [int(w) for w in self._words[:2]] + [0, 0]
        position = min(2, self._words.size)
        self._state = np.array([0, 2**64 - 1, first[0] << 32 | first[1], position], np.uint64)

    def row(self, count: int, cumulative: NDArray[np.uint32] | None, bits: int = 0) -> I32 | None:
        """Return `count` integers of one distribution."""
        integers = np.empty(count, np.int32)
        size, words = 0 if cumulative is None else cumulative.size - 1, self._words
        wrong = _kernels.decode_row(self._state, count, integers, cumulative, size, bits, words, words.size)
        return None if wrong else integers

    def phase(
        self, tables: Tables, scale: NDArray[np.int16], tail: NDArray[np.int8], offset: int
    ) -> tuple[I32, I32, NDArray[np.int8] | None] | None:
        """Return the high parts of symbols, the places of those that exceed their table, in the order of coding, and
        the raw low bits of each symbol, None if there are none."""
        n, words, group = scale.size, self._words, _group(scale, tail, offset)
        symbols, escaped = np.empty(n, np.int32), np.empty(n, np.int32)
        described = tables.cumulative, tables.support, tables.cumulative.shape[1]
        escapes, top = _kernels.decode_phase(self._state, group, described, words, words.size, symbols, escaped)
        return None if escapes < 0 else (symbols, escaped[:escapes], group[-1] if top else None)

    def maybe_exhausted(self) -> bool:
        """Whether an encoder may have ended here."""
        lower, span, point, position = (int(x) for x in self._state)
        return position == self._words.size and (span == 2**64 - 1 or (point - lower) % 2**64 < 2**33 - 1)


def _group(scale: NDArray[np.int16], tail: NDArray[np.int8], offset: int) -> tuple[Any, ...]:
    """Return what the kernels need to sort symbols by table; the last is the raw low bits of each, to be filled in."""
    n = scale.size
    scale, tail = np.ascontiguousarray(scale, np.int16), np.ascontiguousarray(tail, np.int8)
    return n, scale, tail, offset, np.empty(n, np.int32), np.empty(n, np.int16), np.empty(n, np.int8)
