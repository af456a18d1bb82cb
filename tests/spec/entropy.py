"""SPEC chapter 7, and what chapter 2 defines: range coder, symbols, integer networks, CRC32C, logarithmic index."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Cumulative = Sequence[int]
Tensors = Mapping[str, NDArray[Any]]
WORD, STATE, ONE = 2**32, 2**64, 2**24
TABLES = "03cd1c2debf1379becf2d3d589512b1fd90f4bd5e936d76d69c579e5a2edea3b"


class Bytes:
    """Bytes that are read in order."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                assert byte or shift == 7
                assert value < 2**63
                return value

    def take(self, n: int) -> bytes:
        assert self.left >= n
        self.at += n
        return self.data[self.at - n : self.at]


def crc32c(data: bytes) -> int:
    """SPEC chapter 2."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_OF_BYTE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # 0x1EDC6F41 reflected
    return byte


CRC_OF_BYTE = [_crc_of(byte) for byte in range(256)]


def uniform(n: int) -> Cumulative:
    step = ONE // n
    return range(0, ONE + 1, step) if n * step == ONE else [*range(0, n * step, step), ONE]


@cache
def cumulative(frequencies: tuple[float, ...]) -> Cumulative:
    sums = [0.0]
    for p in frequencies:
        sums.append(sums[-1] + float(p))
    factor = (ONE - len(frequencies)) / sums[-1]
    return [*(i + int(s * factor) for i, s in enumerate(sums[:-1])), ONE]


@cache
def frequencies() -> Integers:
    """SPEC 7.2: the constants of the format."""
    data = Path(str(files("isopress.codec.entropy") / "tables.npy")).read_bytes()
    assert sha256(data).hexdigest() == TABLES
    return np.frombuffer(data[-288 * 500 * 4 :], "<u4").reshape(288, 500).astype(np.int64)


@cache
def table_of(j: int) -> Cumulative:
    """SPEC 7.2: the cumulatives of one table."""
    p = frequencies()[j]
    half = p[1 : np.flatnonzero(p)[-1] + 1].tolist()
    return [0, *accumulate([*half[::-1], int(p[0]), *half])]


DELTA = cumulative(tuple(12288 if o == 0 else 2 ** (12 - min(abs(o), 12)) for o in range(-31, 32)))


class RangeDecoder:
    def __init__(self, words: Sequence[int]) -> None:
        self._words: Iterator[int] = iter(words)
        self._left = len(words)
        self._lower, self._range = 0, STATE - 1
        self._point = self._next() * WORD + self._next()

    def _next(self) -> int:
        self._left -= 1
        return int(next(self._words, 0))

    @property
    def exhausted(self) -> bool:
        nothing_decoded = self._range == STATE - 1
        return self._left <= 0 and (nothing_decoded or (self._point - self._lower) % STATE < 2 * WORD - 1)

    def decode(self, table: Cumulative) -> int:
        scale = self._range // ONE
        quantile = (self._point - self._lower) % STATE // scale
        assert quantile < ONE
        i = bisect_right(table, quantile) - 1
        self._lower = (self._lower + scale * table[i]) % STATE
        self._range = scale * (table[i + 1] - table[i])
        if self._range < WORD:
            self._lower = self._lower * WORD % STATE
            self._range *= WORD
            self._point = self._point * WORD % STATE + self._next()
        return i


class CodedStream:
    """SPEC 7.1 and 7.2: the range coder and its escapes."""

    def __init__(self, data: bytes) -> None:
        reader = Bytes(data)
        self._escapes = Bytes(reader.take(reader.varint()))
        self._coder = RangeDecoder(np.frombuffer(reader.take(reader.left), "<u4").tolist())
        self.decode = self._coder.decode

    def delta(self) -> int:
        return self.decode(DELTA) - 31

    def symbols(self, c: Integers, k: Integers) -> Integers:
        """Return a symbol for each point of these scale indexes and tail classes."""
        c, f = c + 11, ((c + 11 - 72) // 8 + 1).clip(0, 20)
        tables = 72 * k + (c - 8 * f).clip(0, 71)
        found = np.zeros(len(c), np.int64)
        for j in np.unique(tables):
            table = table_of(int(j))
            a = len(table) // 2 - 1
            for i in np.flatnonzero(tables == j):
                g = self.decode(table) - a
                found[i] = g + (1 if g > 0 else -1) * self._escape() if abs(g) == a else g
        for shift in np.unique(f[f > 0]).tolist():
            low = uniform(2**shift)
            for i in np.flatnonzero(f == shift):
                found[i] = found[i] * 2**shift + self.decode(low) - 2 ** (shift - 1)
        assert (abs(found) <= 2**29).all()
        return found

    def runs(self, m: int, before: int) -> tuple[Integers, int]:
        """SPEC 7.4: return m symbols and their rate."""
        rate = self.decode(cumulative(tuple(1 + 64 // 2 ** abs(before - 2 - r) for r in range(24))))
        u, q = (4 - rate % 2) * 2 ** (11 - rate // 2), [2**24]
        for _ in range(64):
            q.append(q[-1] * (2**15 - u) // 2**15)
        table = cumulative((*(q[i] - q[i + 1] + 1 for i in range(64)), q[64] + 1))
        found, at, others = np.zeros(m, np.int64), 0, []
        while at < m:
            i = self.decode(table)
            at += i
            if i < 64 and at < m:
                others.append(at)
                at += 1
        for at in others:
            found[at] = (-2, -1, 1, 2)[self.decode(cumulative((1, 15, 15, 1)))]
        for at in others:
            if abs(found[at]) == 2:
                found[at] += np.sign(found[at]) * self._escape()
        return found, rate

    def _escape(self) -> int:
        x = self._escapes.varint()
        assert x < 2**28
        return x

    def finish(self) -> None:
        assert not self._escapes.left
        assert self._coder.exhausted


def network(tensors: Tensors, name: str, x: Integers, level: int, more: Integers | int = 0) -> Integers:
    """SPEC 7.3: features (n, in) to (n, 3); `more` joins the bias of layer 0."""
    layer = 0
    while f"{name}.{layer}.weight" in tensors:
        weight, bias, shift = (tensors[f"{name}.{layer}.{part}"] for part in ("weight", "bias", "shift"))
        assert x.shape[1] == weight.shape[1]
        sums = x @ weight.T.astype(np.int64) + bias[min(level, len(bias) - 1)] + (0 if layer else more)
        y = np.rint(np.ldexp(sums.astype(np.float64), -shift.astype(np.int32))).astype(np.int64)
        x = y.clip(0, 127)
        layer += 1
    return y


def lg(x: NDArray[Any]) -> Integers:
    return (x.astype(np.float32).view(np.int32) >> 20).astype(np.int64)


def centre(i: Integers) -> NDArray[np.float64]:
    return np.ldexp(1 + (i % 8 + 0.5) / 8, (i // 8 - 127).astype(np.int32))
