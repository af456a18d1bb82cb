"""A second decoder of the latents of a section, written from SPEC 14 (not 14.7 to 14.10) and 16 alone: plain Python.

The transformer (14.9) is float arithmetic and not read here (`spec_corrector` does); 14.8 without it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import cos, floor, log2, pi, prod, sqrt

import numpy as np

from tests.spec.block import OFFSETS
from tests.spec.pyramid import Grid, Reader, centre, clip, f32, lg, network, read_symbols, words
from tests.spec.range_decoder import RangeDecoder, table, uniform
from tests.spec.reader import crc32c
from tests.spec.wavelet import Level, Offset, Row, fitted, join, levels_of, runs

Tensors = dict[str, Sequence]
F32 = np.float32
PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))
SEEN = ((), (4, 5, 6, 7), (0, 1, 2, 3), tuple(range(8)))  # of the ring, by phase (14.11)
NINE = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
NINTH = F32(1 / 9)


class Map:
    """SPEC 14.4: a function on all pairs of integers, worked out where it is looked at."""

    def __init__(self, level: Level, at: Callable[[int, int], F32]) -> None:
        self.level, self._at, self._known = level, at, dict[Offset, F32]()

    def __call__(self, row: int, column: int) -> F32:
        if self.level.periodic:
            column %= self.level.low[1]
        if (row, column) not in self._known:
            self._known[row, column] = self._at(row, column)
        return self._known[row, column]

    @classmethod
    def of(cls, level: Level, cells: dict[Offset, F32]) -> Map:
        """Return a map of values (row, value)."""
        return cls(
            level,
            lambda y, x: cells.get((y, level.value_at(y, x)), F32(0)) if 0 <= x < level.low[1] else F32(0),
        )

    def magnitude(self) -> Map:
        return Map(self.level, lambda y, x: abs(self(y, x)))

    def box(self) -> Map:
        def rows(y: int, x: int) -> F32:
            return ((self(y - 1, x) + self(y + 1, x)) + self(y, x)) + self(y, x)

        def at(y: int, x: int) -> F32:
            columns = range(x, x + 1)
            if self.level.stride(y) > 1:
                if not 0 <= x < self.level.low[1]:
                    return F32(0)
                columns = self.level.columns(y, self.level.value_at(y, x))
            left, here, right = (r(y, c) for c in (columns[0] - 1, columns[0], columns[-1] + 1))
            return (((left + right) + here) + here) * F32(1 / 16)

        r = Map(self.level, rows)
        return Map(self.level, at)

    def smooth(self) -> Map:
        return self.magnitude().box()

    def far(self) -> Map:
        s = Map(self.level, lambda y, x: (self(y - 3, x) + self(y + 3, x)) + self(y, x))
        return Map(self.level, lambda y, x: ((s(y, x - 3) + s(y, x + 3)) + s(y, x)) * NINTH)

    def up(self, finer: Level) -> Map:
        return Map(finer, lambda y, x: self(y // 2, x // 2))


@dataclass(frozen=True)
class Band:
    """Decoded values and their smooth map."""

    values: Map
    smooth: Map

    @classmethod
    def of(cls, values: Map) -> Band:
        return cls(values, values.smooth())


@dataclass(frozen=True)
class Before:
    """What channels decoded before say of one band."""

    newest: Band
    history: Band


@dataclass
class Known:
    """What is known of a level before and while its bands are decoded."""

    level: Level
    x: Map
    y: Map
    b: Map
    parents: list[Map]
    u: list[Map]
    bands: list[Band] = field(default_factory=list)

    @classmethod
    def of(cls, level: Level, low: Grid, parents: list[Band] | None) -> Known:
        h = level.low[0]

        def row(y: int, like: int) -> list[F32]:
            values = [float(low[y, j]) for j in range(level.values(y))]
            return [F32(v) for v in fitted(values, level.values(like), level.periodic)]

        def bend(below: F32, at: F32, above: F32) -> F32:
            return ((at + at) - below) - above

        x, y_ = dict[Offset, F32](), dict[Offset, F32]()
        for y in range(h):
            here, n = row(y, y), level.values(y)
            for j in range(n):
                if n > 2 and (level.periodic or 0 < j < n - 1):
                    x[y, j] = bend(here[j - 1], here[j], here[(j + 1) % n])
                if 0 < y < h - 1:
                    y_[y, j] = bend(row(y - 1, y)[j], here[j], row(y + 1, y)[j])
        bend_x, bend_y = Map.of(level, x), Map.of(level, y_)
        b = Map(level, lambda y, x: abs(bend_x(y, x)) + abs(bend_y(y, x))).box()
        nothing = Map.of(level, {})
        if parents is None:
            return cls(level, bend_x, bend_y, b, [nothing] * 3, [nothing] * 3)
        return cls(level, bend_x, bend_y, b, [p.values for p in parents], [p.smooth.up(level) for p in parents])


@dataclass
class Stream:
    """The range coder with its escapes, and the weights."""

    coder: RangeDecoder
    escapes: Reader
    tensors: Tensors
    adapted: bool
    offset: int = 0

    def symbols(self, points: list[tuple[int, int]], offsets: list[int] | None = None) -> list[int]:
        return read_symbols(self.coder, self.escapes, points, self.tensors, offsets) if points else []


def decode(section: bytes, shape: tuple[int, ...], tensors: Tensors) -> Decoded:
    """Return channels and transforms of a section for an array of this shape."""
    if max(shape[:-2], default=1) > 256 or prod(shape[:-2]) > 4096:
        shape = prod(shape[:-2]), shape[-2] * shape[-1]
    flags, step, offset = struct.unpack_from("<Bdd", section)
    assert flags < 64
    start = 26 if flags & 4 else 17
    gains = (np.frombuffer(section[17:start], "i1") / (128 if flags & 16 else 64)).tolist()
    reader = Reader(section[start:-4])
    stream = Stream(None, Reader(reader.take(reader.varint())), tensors, bool(flags & 8))  # type: ignore[arg-type]
    stream.coder = RangeDecoder(words(reader.rest()))
    transforms = [read_transform(stream, n) for n in shape[:-2]]
    ahead = read_ahead(stream, shape[-2], shape[-1]) if flags & 32 else []
    split = levels_of(shape[-2], shape[-1], bool(flags & 1), ahead)
    order = sorted(product(*(range(len(rows)) for rows in transforms)), key=lambda at: (sum(at), at))
    channels: dict[tuple[int, ...], Grid] = {}
    head, before = (20, 0), None
    for at in order:
        head, channels[at], before = read_channel(stream, head, split, (shape[-2], shape[-1]), before)
    assert stream.escapes.at == len(stream.escapes.data)
    assert stream.coder.exhausted
    cells = b"".join(
        channels[at][point].to_bytes(8, "little", signed=True)
        for at in order
        for point in product(range(shape[-2]), range(shape[-1]))
    )
    assert crc32c(cells) == int.from_bytes(section[-4:], "little")
    return Decoded(bool(flags & 2), step, offset, transforms, channels, gains)


@dataclass(frozen=True)
class Decoded:
    """Channels in units by their position on the leading axes; per axis the rows R."""

    corrected: bool
    step: float
    offset: float
    transforms: list[list[list[float]]]
    channels: dict[tuple[int, ...], Grid]
    gains: list[float]

    def value(self, field: tuple[int, ...], point: Offset) -> float:
        """SPEC 14.8, without correction."""
        total = sum(
            grid[point] / 64 * prod(rows[i][j] for rows, i, j in zip(self.transforms, at, field, strict=True))
            for at, grid in self.channels.items()
        )
        return total * self.step + self.offset


def read_transform(stream: Stream, n: int) -> list[list[float]]:
    """SPEC 14.2 and 14.8."""
    if n == 1:
        return [[1.0]]
    t = stream.coder.decode(uniform(3))
    if t == 0:
        return [[float(i == j) for j in range(n)] for i in range(n)]
    w = [2 ** (10 - min(i // 2, 10)) for i in range(n)]
    m = n - stream.coder.decode(table([w[0] + sum(w), *w[1:]]))
    if t == 1:
        return [[sqrt((2 if i else 1) / n) * cos(pi * i * (j + 0.5) / n) for j in range(n)] for i in range(m)]
    c = 4 * (127**2 // n).bit_length() + 19
    integers = stream.symbols([(c, 2)] * (m * n), OFFSETS)
    assert max(map(abs, integers)) <= 254
    return [[r / 127 for r in integers[i * n : i * n + n]] for i in range(m)]


def read_ahead(stream: Stream, h: int, w: int) -> list[int]:
    """SPEC 14.11."""
    b = floor(log2(max(1, h // 16)))
    if b < 2 or w < 48:
        return []
    found = [0]
    for _ in range((h + 2**b // 2 - 1) // 2**b):
        found.append(found[-1] + stream.coder.decode(OFFSETS) - 31)
        assert 0 <= found[-1] <= floor(log2(w // 24))
    return found[1:]


def read_channel(
    stream: Stream, head: tuple[int, int], split: list[Level], shape: Offset, before: list[list[Before]] | None
) -> tuple[tuple[int, int], Grid, list[list[Before]]]:
    """Return a channel in units with its head, and what it says to the next one."""
    scale, finest = (value + stream.coder.decode(OFFSETS) - 31 for value in head)
    assert 0 <= scale <= 100
    assert 0 <= finest <= len(split)
    low = read_top(stream, scale, split[-1].low if split else shape)
    found: list[list[Band]] = [[] for _ in split]
    for number in reversed(range(len(split))):
        level = split[number]
        if number >= finest:
            known_low = {(y, j): low[level.start + y, j] for y in range(level.low[0]) for j in range(level.values(y))}
            has_parents = number + 1 < len(split) and not level.ahead
            known = Known.of(level, known_low, found[number + 1] if has_parents else None)
            for b in range(1 if level.ahead else 3):
                known.bands.append(read_band(stream, known, number, b, before[number][b] if before else None))
            found[number] = known.bands
        else:
            found[number] = [Band.of(Map.of(level, {}))] * (1 if level.ahead else 3)
        low = joined(level, low, found[number])
    told = [
        [Before(band, history(band, before[number][b].history if before else None)) for b, band in enumerate(bands)]
        for number, bands in enumerate(found)
    ]
    return (scale, finest), low, told


def read_top(stream: Stream, scale: int, shape: Offset) -> Grid:
    places = list(product(range(shape[0]), range(shape[1])))
    top: Grid = {}
    for (y, x), e in zip(places, stream.symbols([(4 * scale - 8, 2)] * len(places)), strict=True):
        around = [top[at] for at in ((y - 1, x), (y, x - 1)) if at in top]
        top[y, x] = e + (sum(around) // len(around) if around else 0)
        assert abs(top[y, x]) <= 2**30
    return {at: 64 * value for at, value in top.items()}


def history(band: Band, before: Band | None) -> Band:
    magnitude = band.values.magnitude()
    if before is None:
        return Band(magnitude, band.smooth)
    level = magnitude.level
    return Band(
        Map(level, lambda y, x: (magnitude(y, x) + before.values(y, x)) * F32(0.5)),
        Map(level, lambda y, x: (band.smooth(y, x) + before.smooth(y, x)) * F32(0.5)),
    )


def read_band(stream: Stream, known: Known, number: int, b: int, before: Before | None) -> Band:
    """SPEC 14.5."""
    level, d1, d2 = known.level, (b + 1) % 3, (b + 2) % 3
    rows = level.band(b)

    def total(y: int, x: int) -> F32:
        t = known.b(y, x) * F32(0.25) + known.u[b](y, x)
        t = t + F32(0.25) * (known.u[d1](y, x) + known.u[d2](y, x))
        for band in known.bands:
            t = t + band.smooth(y, x)
        if before:
            t = t + before.newest.smooth(y, x)
            t = t + F32(0.5) * before.history.smooth(y, x)
        return t

    t = Map(level, total)
    far, cells = t.far(), dict[Offset, F32]()
    for phase, parity in enumerate(PHASES):
        o = Map.of(level, dict(cells))
        s = o.smooth() if phase else Map.of(level, {})
        sight = Sight(known, b, before, phase, o, s, far)
        places = [(y, j) for y in range(parity[0], len(rows), 2) for j in range(parity[1], rows[y], 2)]
        answers, quiet = [], list[bool]()
        for y, j in places:
            at, depth = (y, level.columns(y, j)[0]), min(level.number, 5)
            r = min(lg(float((t(*at) + s(*at) * F32(2)) + F32(8))) - 1040, 191)
            answers.append(answer(stream.tensors, b, depth, r, sight, (y, j)))
            quiet.append(r < len(stream.tensors["quiet"][b][depth][0]))
        if stream.adapted and quiet.count(False) >= 192:
            stream.offset += stream.coder.decode(OFFSETS) - 31
            assert abs(stream.offset) <= 31
            answers = [(m, c + stream.offset * (not q), k) for (m, c, k), q in zip(answers, quiet, strict=True)]
        symbols = stream.symbols([(c, k) for _, c, k in answers])
        for at, (mean, _, _), q in zip(places, answers, symbols, strict=True):
            cells[at] = F32(mean) + F32(F32(q) * F32(64))
    return Band.of(Map.of(level, cells))


def answer(tensors: Tensors, b: int, depth: int, r: int, sight: Sight, at: Offset) -> tuple[float, int, int]:
    """Return mean, scale index and tail class."""
    quiet = tensors["quiet"][b][depth]
    if r < len(quiet[0]):
        return 0.0, quiet[0][r], quiet[1][r]
    features = sight.features(r, at)
    features += [0] * (len(tensors[f"contexts.{b}.0.weight"][0]) - len(features))
    m, t, k = network(f"contexts.{b}", features, depth, tensors, 0, 0)
    mean = round(f32(clip(m, -1024, 1024) * f32(centre(r + 1040) / 64)))
    return float(mean), r + clip(t, -256, 256), clip(k, 0, 3)


@dataclass(frozen=True)
class Sight:
    """What the points of one phase see."""

    known: Known
    b: int
    before: Before | None
    phase: int
    o: Map
    s: Map
    far: Map

    def features(self, r: int, place: Offset) -> list[int]:
        known, d1, d2 = self.known, (self.b + 1) % 3, (self.b + 2) % 3
        scale = F32(32 / centre(r + 1040))
        where = place[0], known.level.columns(*place)
        at, coarser = (place[0], where[1][0]), known.parents[self.b].level
        half = at[0] // 2, range(at[1] // 2, at[1] // 2 + 1)
        if coarser is not known.level:
            half = half[0], coarser.columns(half[0], coarser.value_at(half[0], half[1][0]))
        bands = [band.values for band in known.bands] + [None, None]
        ring = [v if k in SEEN[self.phase] else F32(0) for k, v in enumerate(nine(self.o, where)[1:])]
        around = [nine(bands[0], where), nine(bands[1], where), nine(known.parents[self.b], half)]
        others = [known.parents[d](half[0], half[1][0]) for d in (d1, d2)]
        numbers = [*ring, *(v for values in around for v in values), *others]
        numbers += nine(known.x, where)[:5] + nine(known.y, where)[:5]
        numbers += pool(ring)
        for values in around:
            numbers += [abs(values[0]), *pool(values[1:])]
        numbers += [abs(others[0]), known.u[d1](*at), abs(others[1]), known.u[d2](*at)]
        logs = [self.s, *([band.smooth for band in known.bands] + [None, None])[:2], known.u[self.b], known.b, self.far]
        features = [scaled(v, scale) for v in numbers] + [r - 48] + [log(m, at, r) for m in logs]
        features += [32 if i == self.phase else 0 for i in range(4)]
        if self.before:
            newest, old = self.before.newest, self.before.history
            values = nine(newest.values, where)
            values += [abs(values[0]), *pool(values[1:]), old.values(*at), old.smooth(*at)]
            features += [scaled(v, scale) for v in values]
            features += [log(newest.smooth, at, r), log(old.smooth, at, r), 32]
        return [clip(f, -127, 127) for f in features]


def nine(m: Map | None, where: tuple[int, range]) -> list[F32]:
    """Return what a map has at and around a point, which stands for some columns of a row."""
    row, columns = where
    beside = {-1: columns[0] - 1, 0: columns[0], 1: columns[-1] + 1}
    return [m(row + y, beside[x]) if m else F32(0) for y, x in NINE]


def pool(n: list[F32]) -> list[F32]:
    a = [abs(v) for v in n]
    return [(a[0] + a[1]) * F32(0.5), (a[2] + a[3]) * F32(0.5), ((a[4] + a[5]) + (a[6] + a[7])) * F32(0.25)]


def scaled(v: F32, scale: F32) -> int:
    return round(float(v * scale))


def log(m: Map | None, at: Offset, r: int) -> int:
    return lg(float(m(*at) + F32(4))) - 1040 - r if m else 0


# --- SPEC 14.6 --------------------------------------------------------------------------------------------------------


def joined(level: Level, low: Grid, bands: list[Band]) -> Grid:
    """Return the values (row, value) that a level makes of the low band; an ahead level changes its own rows only."""
    if level.ahead:
        out = dict(low)
        for y in range(level.h):
            lower = [low[level.start + y, j] for j in range(level.low[1])]
            row = join([[v] for v in lower], [[v] for v in band_row(level, bands, 0, y)], level.periodic, False)
            out |= {(level.start + y, j): int(v) for j, (v,) in enumerate(row)}
        return out
    n = level.low[0]
    lower = join(
        [[low[i, j] for j in range(level.values(i))] for i in range(n)],
        [band_row(level, bands, 1, i) for i in range(level.h // 2)], False, level.periodic,
    )  # fmt: skip
    out: Grid = {}
    for i, last in runs([(level.early[i], level.splits(i)) for i in range(n)]):
        if level.splits(i):
            upper = join(
                [band_row(level, bands, 0, k) for k in range(i, last)],
                [band_row(level, bands, 2, k) for k in range(i, min(last, level.h // 2))], False, False,
            )  # fmt: skip
        for y in range(2 * i, min(2 * last, level.h)):
            row = lower[y]
            if level.splits(i):
                high = [[v] for v in upper[y - 2 * i]]
                circle = level.circle(level.number + level.early[i])
                row = [v for (v,) in join([[v] for v in row], high, circle, False)]
            out |= {(y, j): int(v) for j, v in enumerate(row)}
    return out


def band_row(level: Level, bands: list[Band], d: int, row: int) -> Row:
    return [int(bands[d].values(row, level.columns(row, j)[0])) for j in range(level.band(d)[row])]
