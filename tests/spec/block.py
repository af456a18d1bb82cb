"""SPEC 5.6 and 5.7: the second decoder of blocks, from the text alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tests.spec.entropy import Bytes, CodedStream, Integers, Tensors, crc32c, cumulative
from tests.spec.pyramid import Flags, Hint, read_levels, top_level

Position = tuple[int, int]  # on the primary and on the secondary axis
Values = NDArray[np.float64]  # exact: integers over small powers of two
KINDS = ("", "P", "PQ", "PQC", "PS", "PQS", "PQCS")
EXPONENTS = cumulative(tuple(2 ** (12 - min(abs(e), 12)) for e in range(-30, 31)))
STEPS = cumulative(tuple(2**20 if d == 0 else 1 + 2**20 // (16 + d * d) for d in range(-254, 255)))


class Axis:
    """SPEC 5.6: the order in which the positions of an axis are visited, and what they refer to."""

    def __init__(self, n: int) -> None:
        self.ranks: list[list[int]] = [[0]]
        self.references: dict[int, list[int]] = {0: []}
        self.beyond: dict[int, list[int | None]] = {0: []}  # one for each reference, None where there is none
        self.gaps = {0: 0}
        if n == 1:
            return
        self.ranks.append([n - 1])
        self.references[n - 1], self.beyond[n - 1], self.gaps[n - 1] = [0], [None], n - 1
        s = 1
        while 2 * s < n - 1:
            s *= 2
        while s and s < n - 1:
            rank = range(s, n - 1, 2 * s)
            self.ranks.append(list(rank))
            for p in rank:
                self.references[p] = [p - s, min(p + s, n - 1)]
                self.beyond[p] = [p - 3 * s if p > s else None, min(p + 3 * s, n - 1) if p + s < n - 1 else None]
                self.gaps[p] = s
            s //= 2


@dataclass(frozen=True)
class References:
    along: list[Position]
    beyond: list[Position | None]
    across: list[tuple[Position, list[Position]]]
    gap: int  # its class

    @classmethod
    def of(cls, primary: Axis, secondary: Axis, at: Position) -> References:
        p, q = at
        axis, i = (primary, p) if p else (secondary, q)

        def place(r: int) -> Position:
            return (r, q) if p else (0, r)

        gap = axis.gaps[i]
        return cls(
            [place(r) for r in axis.references[i]],
            [None if b is None else place(b) for b in axis.beyond[i]],
            [((p, t), [(r, t) for r in axis.references[i]]) for t in secondary.references[q]] if p else [],
            (gap > 1) + (gap > 3) + (gap > 7),
        )

    def proxies(self, v: dict[Position, Integers]) -> dict[str, Values]:
        """Return the proxies by their names, before exponents."""
        if not self.along:
            return {}
        along = [v[at] for at in self.along]
        found: dict[str, Values] = {"P": np.mean(along, 0)}
        if len(along) == 2:
            found["Q"] = (along[1] - along[0]) / 2
        sides = [
            v[beyond] - 2 * along[side] + along[1 - side]
            for side, beyond in enumerate(self.beyond)
            if beyond is not None
        ]
        if sides:
            found["C"] = np.mean(sides, 0)
        if self.across:
            found["S"] = np.mean([v[one] - np.mean([v[at] for at in others], 0) for one, others in self.across], 0)
        return found


@dataclass
class Guess:
    """SPEC 5.7, 1.: what the stream of a field says of its proxies."""

    gap: int
    exponents: dict[str, int] = field(default_factory=dict)
    coefficients: dict[str, list[int]] = field(default_factory=dict)
    proxies: dict[str, Integers] = field(default_factory=dict)

    @classmethod
    def read(cls, stream: CodedStream, gap: int, means: dict[str, Values]) -> Guess:
        guess = cls(gap)
        for name, mean in means.items():
            guess.exponents[name] = stream.decode(EXPONENTS) - 30
            last, row = 64 if name in "PS" else 0, []
            for _ in range(3):
                last = min(max(last + stream.decode(STEPS) - 254, -127), 127)
                row.append(last)
            guess.coefficients[name] = row
            scaled = np.rint(mean * 2.0 ** guess.exponents[name]).clip(-(2**27), 2**27)
            guess.proxies[name] = scaled.astype(np.int64)
        return guess

    def at(self, level: int) -> Integers:
        """Return G on the fine grid of a level, (1, h, w)."""
        total = sum(
            self.coefficients[name][min(level, 2)] * proxy[None, :: 2**level, :: 2**level]
            for name, proxy in self.proxies.items()
        )
        return np.rint(np.asarray(total) / 64).clip(-(2**27), 2**27).astype(np.int64)

    def hint(self, level: int) -> Hint | None:
        if not self.proxies:
            return None
        grids = {name: proxy[None, :: 2**level, :: 2**level] for name, proxy in self.proxies.items()}
        if 1 in grids["P"].shape[1:]:
            return None
        return Hint(KINDS.index("".join(self.proxies)), self.gap, self.at(level), [grids.get(n) for n in "PQCS"])


def decode(section: bytes, shape: tuple[int, ...], tensors: Tensors) -> Integers:
    """Return v of section 8, in the shape of the array."""
    v, _ = decode_fields(section, shape, tensors)
    return v


def decode_fields(
    section: bytes, shape: tuple[int, ...], tensors: Tensors
) -> tuple[Integers, dict[tuple[int, ...], Guess]]:
    """Return v, and what each field's stream says of its proxies."""
    leading, flags = shape[:-2], Flags.of(section[0])
    first, second = (section[1] & 15) - 1, (section[1] >> 4) - 1
    assert leading
    assert max(first, second) < len(leading)
    assert second < 0 <= first or first < 0 > second or first != second
    primary, secondary = (Axis(leading[axis] if axis >= 0 else 1) for axis in (first, second))
    others = list(product(*(range(1 if i in (first, second) else n) for i, n in enumerate(leading))))
    order = [
        (p, q, other)
        for rank, second_rank in product(primary.ranks, secondary.ranks)
        for p, q, other in product(rank, second_rank, others)
    ]
    reader = Bytes(section[2:])
    lengths = [reader.varint() for _ in order]
    done: dict[tuple[int, ...], dict[Position, Integers]] = {other: {} for other in others}
    v, guesses = np.zeros(shape, np.int64), {}
    for (p, q, other), length in zip(order, lengths, strict=True):
        known = References.of(primary, secondary, (p, q))
        at = tuple(p if i == first else q if i == second else k for i, k in enumerate(other))
        v[at], guesses[at] = decode_field(reader.take(length), shape[-2:], tensors, flags, known, done[other])
        done[other][p, q] = v[at]
    assert not reader.left
    return v, guesses


def decode_field(
    data: bytes,
    shape: tuple[int, ...],
    tensors: Tensors,
    flags: Flags,
    known: References,
    done: dict[Position, Integers],
) -> tuple[Integers, Guess]:
    stream, level = CodedStream(data[:-2]), top_level(shape)
    guess = Guess.read(stream, known.gap, known.proxies(done))
    v = np.zeros((1, *shape), np.int64)
    anchors = v[:, :: 2**level, :: 2**level]
    index = np.full(anchors.size, 21 + stream.delta())
    sums = stream.symbols(index, np.full(anchors.size, 3)).cumsum().reshape(anchors.shape)
    anchors[:] = sums + np.rint(guess.at(level) / 64).astype(np.int64)
    assert (abs(anchors) <= 2**21).all()
    anchors *= 64
    read_levels(stream, v, tensors, flags, stream.delta, guess.hint)
    stream.finish()
    assert crc32c(v.astype("<i4").tobytes()) % 2**16 == int.from_bytes(data[-2:], "little")
    return v[0], guess
