"""A second decoder of the block section, written from SPEC 9, 10 and 13 alone: plain Python, no numpy, no hurry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from tests.spec.pyramid import (
    Flags,
    Grid,
    Hint,
    Reader,
    anchor_places,
    clip,
    fine,
    read_levels,
    read_symbols,
    top_level,
    words,
)
from tests.spec.range_decoder import RangeDecoder, table
from tests.spec.reader import crc32c

Position = tuple[int, int]  # on the primary and on the secondary axis
KINDS = ("", "P", "PQ", "PQC", "PS", "PQS", "PQCS")
LIMIT = 2**27
OFFSETS = table([12288 if o == 0 else 2 ** (12 - min(abs(o), 12)) for o in range(-31, 32)])
EXPONENTS = table([2 ** (12 - min(abs(e), 12)) for e in range(-30, 31)])
STEPS = table([2**20 if d == 0 else 1 + 2**20 // (16 + d * d) for d in range(-254, 255)])


@dataclass(frozen=True)
class Field:
    """A decoded field, and what its stream says of its guess."""

    values: Grid
    exponents: dict[str, int]
    coefficients: dict[str, list[int]]


class Axis:
    """SPEC 13.2: the order in which the positions of an axis are visited, and what they refer to."""

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


def gap_class(gap: int) -> int:
    return 0 if gap < 2 else 1 if gap < 4 else 2 if gap < 8 else 3


@dataclass(frozen=True)
class References:
    along: list[Position]
    beyond: list[Position | None]
    across: list[tuple[Position, list[Position]]]
    gap: int

    @property
    def proxies(self) -> str:
        return (
            "P" * bool(self.along)
            + "Q" * (len(self.along) == 2)
            + "C" * any(b is not None for b in self.beyond)
            + "S" * bool(self.across)
        )


def references(primary: Axis, secondary: Axis, at: Position) -> References:
    p, q = at
    if p == 0:
        return References(
            [(0, t) for t in secondary.references[q]],
            [None if t is None else (0, t) for t in secondary.beyond[q]],
            [],
            gap_class(secondary.gaps[q]),
        )
    return References(
        [(r, q) for r in primary.references[p]],
        [None if r is None else (r, q) for r in primary.beyond[p]],
        [((p, t), [(r, t) for r in primary.references[p]]) for t in secondary.references[q]],
        gap_class(primary.gaps[p]),
    )


def decode(section: bytes, shape: tuple[int, ...], tensors: dict[str, Sequence]) -> dict[tuple[int, ...], Field]:
    """Return every field by its position on the leading axes."""
    leading, (height, width) = shape[:-2], shape[-2:]
    flags = Flags.of(section[0])
    first, second = (section[1] & 15) - 1, (section[1] >> 4) - 1
    primary = Axis(leading[first] if first >= 0 else 1)
    secondary = Axis(leading[second] if second >= 0 else 1)
    order = [
        (other, p, q)
        for rank, second_rank in product(primary.ranks, secondary.ranks)
        for p, q in product(rank, second_rank)
        for other in product(*(range(1 if i in (first, second) else n) for i, n in enumerate(leading)))
    ]

    def place(other: tuple[int, ...], p: int, q: int) -> tuple[int, ...]:
        return tuple(p if i == first else q if i == second else k for i, k in enumerate(other))

    reader = Reader(section[2:])
    lengths = [reader.varint() for _ in order]
    fields: dict[tuple[int, ...], Field] = {}
    for (other, p, q), length in zip(order, lengths, strict=True):
        known = references(primary, secondary, (p, q))
        proxies = means(known, lambda at, other=other: fields[place(other, *at)].values)
        fields[place(other, p, q)] = decode_field(
            reader.take(length), (1, height, width), tensors, flags, known, proxies
        )
    assert reader.at == len(reader.data)
    return fields


def means(known: References, field: Callable[[Position], Grid]) -> dict[str, dict[tuple[int, int], Fraction]]:
    """The proxies of SPEC 13.3 in units of v, before exponents."""
    along = [field(at) for at in known.along]
    result: dict[str, dict[tuple[int, int], Fraction]] = {}
    for name in known.proxies:
        result[name] = {}
        for point in along[0]:
            if name == "P":
                value = Fraction(sum(f[point] for f in along), len(along))
            elif name == "Q":
                value = Fraction(along[1][point] - along[0][point], 2)
            elif name == "C":
                sides = [
                    field(beyond)[point] - 2 * along[side][point] + along[1 - side][point]
                    for side, beyond in enumerate(known.beyond)
                    if beyond is not None
                ]
                value = Fraction(sum(sides), len(sides))
            else:
                pairs = [
                    field(one)[point] - Fraction(sum(field(at)[point] for at in others), len(others))
                    for one, others in known.across
                ]
                value = sum(pairs, Fraction(0)) / len(pairs)
            result[name][point] = value
    return result


def decode_field(
    stream: bytes,
    shape: tuple[int, int, int],
    tensors: dict[str, Sequence],
    flags: Flags,
    known: References,
    means: dict[str, dict[tuple[int, int], Fraction]],
) -> Field:
    data = Reader(stream[:-2])
    escapes = Reader(data.take(data.varint()))
    coder = RangeDecoder(words(data.rest()))
    levels = top_level(shape)
    exponents: dict[str, int] = {}
    coefficients: dict[str, list[int]] = {}
    proxies: dict[str, Grid] = {}
    for name, mean in means.items():
        exponents[name] = coder.decode(EXPONENTS) - 30
        expected, coefficients[name] = 64 if name in "PS" else 0, []
        for _ in range(3):
            expected = clip(expected + coder.decode(STEPS) - 254, -127, 127)
            coefficients[name].append(expected)
        scale = Fraction(2) ** exponents[name]
        proxies[name] = {at: clip(round(value * scale), -LIMIT, LIMIT) for at, value in mean.items()}

    def guess(level: int, row: int, column: int) -> int:
        at = row << level, column << level
        return clip(
            round(Fraction(sum(coefficients[name][min(level, 2)] * proxies[name][at] for name in proxies), 64)),
            -LIMIT,
            LIMIT,
        )

    def hint(level: int) -> Hint | None:
        h, w = fine(shape, level)
        if h == 1 or w == 1 or not proxies:
            return None
        points = list(product(range(h), range(w)))
        return Hint(
            KINDS.index("".join(proxies)),
            known.gap,
            {point: guess(level, *point) for point in points},
            [
                {(y, x): proxies[name][y << level, x << level] for y, x in points} if name in proxies else None
                for name in "PQCS"
            ],
        )

    places = anchor_places(shape, levels)
    symbols = read_symbols(coder, escapes, [(21, 3)] * len(places), tensors, OFFSETS)
    values: Grid = {}
    for i, (y, x) in enumerate(places):
        values[y, x] = 64 * (sum(symbols[: i + 1]) + round(Fraction(guess(levels, y >> levels, x >> levels), 64)))
    read_levels(coder, escapes, [values], [dict.fromkeys(places, 0)], shape, tensors, flags, OFFSETS, hint)
    assert escapes.at == len(escapes.data)
    assert coder.exhausted
    cells = b"".join(values[y, x].to_bytes(4, "little", signed=True) for y, x in product(*map(range, shape[1:])))
    assert crc32c(cells) % 2**16 == int.from_bytes(stream[-2:], "little")
    return Field(values, exponents, coefficients)
