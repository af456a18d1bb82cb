"""A second decoder of the pyramid section, written from SPEC 9 and 10 alone: plain Python, no numpy, no hurry.

What a block (SPEC 13) adds to a prediction comes in as a `Hint`; the pyramid section has none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import lcm
from operator import mul

from safetensors.numpy import load

from tests.spec.range_decoder import RangeDecoder, table, uniform

Grid = dict[tuple[int, int], int]
Offset = tuple[int, int]
WIDTHS = (
    [64],
    [64, 59, 55, 51, 47, 44, 40, 37, 35, 32, 30, 27, 25, 24, 22, 20],
    [64, 55, 47, 40, 34, 29, 25, 21, 20],
    [64, 49, 38, 29, 22, 20],
)
NEARER = {64: 0, 59: -1, 55: -2, 51: -3, 49: -3, 47: -4, 44: -4, 40: -5, 38: -6, 37: -6, 35: -7}
NEARER |= {34: -7, 32: -8, 30: -9, 29: -9, 27: -10, 25: -11, 24: -11, 22: -12, 21: -13, 20: -13}
CUBIC = {1: 9, 3: -1}


def stars(*pairs: Offset) -> list[Offset]:
    return [(sy * y, sx * x) for y, x in pairs for sy in ((-1, 1) if y else (1,)) for sx in ((-1, 1) if x else (1,))]


class Phase:
    def __init__(
        self, name: str, parity: Offset, offsets: list[Offset], near: list[Offset], wide: list[Offset], divisor: int
    ) -> None:
        self.name, self.parity, self.offsets, self.near, self.wide = name, parity, offsets, near, wide
        self.divisor = divisor
        self.w = [max(1, round(24 / (1 + y * y + x * x))) for y, x in offsets]
        self.s0 = sum(self.w)
        self.sy = sum(w * y * y for w, (y, _) in zip(self.w, offsets, strict=True))
        self.sx = sum(w * x * x for w, (_, x) in zip(self.w, offsets, strict=True))
        self.den = lcm(self.s0, self.sy, self.sx)
        self.unit = self.den * self.s0
        self.first = lg(10.0 * self.unit)

    def cubic(self, y: int, x: int) -> int:
        if self.name == "D":
            return CUBIC.get(abs(y), 0) * CUBIC.get(abs(x), 0)
        return CUBIC.get(abs(y + x), 0) if y == 0 or x == 0 else 0


def f32(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def lg(x: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", x))[0]) >> 20


def centre(i: int) -> float:
    return 2.0 ** (i // 8 - 127) * (1 + (i % 8 + 0.5) / 8)


def clip(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


PHASES = (
    Phase(
        "D", (1, 1), stars((1, 1), (1, 3), (3, 1), (3, 3), (1, 5), (5, 1)), stars((1, 1)), stars((1, 3), (3, 1)), 256
    ),
    Phase(
        "H",
        (0, 1),
        stars((0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 0), (2, 3), (3, 2)),
        stars((0, 1), (1, 0)),
        stars((1, 2), (2, 1)),
        32,
    ),
    Phase(
        "V",
        (1, 0),
        stars((0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (0, 3), (3, 0), (1, 3), (3, 1)),
        stars((0, 1), (1, 0), (1, 1)),
        stars((1, 2), (2, 1)),
        32,
    ),
)


class Reader:
    """Bytes with varints."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def take(self, n: int) -> bytes:
        self.at += n
        return self.data[self.at - n : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)


class Plane:
    """One plane of one field, with the padding of SPEC 9.4 worked out at every look."""

    def __init__(self, rows: int, columns: int, wraps: bool, linear: bool) -> None:
        self.rows, self.columns, self.wraps, self.linear = rows, columns, wraps, linear
        self.cells: Grid = {}

    def __call__(self, row: int, column: int) -> int:
        return self._line(row, self.rows, lambda r: self._in_row(r, column))

    def _in_row(self, row: int, column: int) -> int:
        if self.wraps:
            return self.cells[row, column % self.columns]
        return self._line(column, self.columns, lambda c: self.cells[row, c])

    def _line(self, i: int, n: int, at: Callable[[int], int]) -> int:
        if 0 <= i < n:
            return at(i)
        if not self.linear:
            return 0
        edge, inner, distance = (0, 1, -i) if i < 0 else (n - 1, n - 2, i - n + 1)
        return at(edge) + distance * (at(edge) - at(inner) if n > 1 else 0)


@dataclass(frozen=True)
class Hint:
    """What a field with references knows at one level, on the level's fine grid."""

    kind: int
    gap: int
    guess: Grid
    proxies: list[Grid | None]  # P, Q, C, S


@dataclass(frozen=True)
class Flags:
    wrap: bool
    snap: bool
    taper: int

    @classmethod
    def of(cls, byte: int) -> Flags:
        return cls(bool(byte & 1), bool(byte >> 1 & 1), byte >> 2)


@cache
def tensors_of(name: str) -> dict[str, Sequence]:
    """Return the tensors of installed weights as lists."""
    path = files("isopress.codec.models").joinpath(f"{name}.safetensors")
    return {key: tensor.tolist() for key, tensor in load(path.read_bytes()).items()}


def decode(section: bytes, shape: tuple[int, int, int], tensors: dict[str, Sequence]) -> list[Grid]:
    """Return per field the values v by (row, column)."""
    fields, height, width = shape
    flags = Flags.of(section[0])
    reader, result = Reader(section[1:-4]), []
    size = max(1, 2**19 // (height * width))
    for start in range(0, fields, size):
        group = Reader(reader.take(reader.varint()))
        result += decode_group(group, (min(size, fields - start), height, width), tensors, flags)
    return result


def decode_group(data: Reader, shape: tuple[int, int, int], tensors: dict[str, Sequence], flags: Flags) -> list[Grid]:
    values, errors = read_anchors(data, shape, top_level(shape))
    escapes = Reader(data.take(data.varint()))
    coder = RangeDecoder(words(data.rest()))
    read_levels(coder, escapes, values, errors, shape, tensors, flags, uniform(63))
    assert escapes.at == len(escapes.data)
    assert coder.exhausted
    return values


def words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)


def top_level(shape: tuple[int, int, int]) -> int:
    longest = max(shape[1:])
    return 0 if longest <= 2 else (longest - 1).bit_length() - 1


def read_levels(
    coder: RangeDecoder,
    escapes: Reader,
    values: list[Grid],
    errors: list[Grid],
    shape: tuple[int, int, int],
    tensors: dict[str, Sequence],
    flags: Flags,
    offsets: list[int],
    hint: Callable[[int], Hint | None] = lambda level: None,
) -> None:
    """Complete values that hold the anchors; `offsets` are the cumulatives of the offset of a phase."""
    for level in reversed(range(top_level(shape))):
        q = WIDTHS[flags.taper][min(level, len(WIDTHS[flags.taper]) - 1)]
        wraps = flags.wrap and shape[2] % 2 ** (level + 1) == 0
        known = hint(level)
        for phase in PHASES:
            points, seen = [], []
            for b in range(shape[0]):
                looks = planes(values[b], errors[b], phase, shape, level, wraps, known)
                references = [p and whole(p, shape, level, wraps) for p in known.proxies] if known else []
                for row, column in grid(phase.parity, shape, level):
                    points.append((b, row, column))
                    seen.append(predict(phase, looks, row, column, min(level, 5), tensors, known, references))
            if not points:
                continue
            symbols = read_symbols(coder, escapes, [(c - NEARER[q], k) for _, c, k in seen], tensors, offsets)
            for (b, row, column), (p, _, _), s in zip(points, seen, symbols, strict=True):
                v = p + s * q
                if flags.snap:
                    v = 64 * ((2 * (p // 2) + 1 + s * q + 32) // 64)
                at = (row << level, column << level)
                values[b][at], errors[b][at] = v, v - p


def anchor_places(shape: tuple[int, int, int], levels: int) -> list[Offset]:
    return [(y, x) for y in range(0, shape[1], 2**levels) for x in range(0, shape[2], 2**levels)]


def read_anchors(data: Reader, shape: tuple[int, int, int], levels: int) -> tuple[list[Grid], list[Grid]]:
    places = anchor_places(shape, levels)
    values: list[Grid] = []
    for b in range(shape[0]):
        numbers = [z // 2 if z % 2 == 0 else -(z + 1) // 2 for z in (data.varint() for _ in places)]
        if b == 0:
            anchors = [sum(numbers[: i + 1]) for i in range(len(numbers))]
        else:
            anchors = [n + values[-1][place] // 64 for n, place in zip(numbers, places, strict=True)]
        values.append({place: 64 * a for place, a in zip(places, anchors, strict=True)})
    return values, [dict.fromkeys(places, 0) for _ in range(shape[0])]


def fine(shape: tuple[int, int, int], level: int) -> tuple[int, int]:
    return -(-shape[1] >> level), -(-shape[2] >> level)


def grid(parity: Offset, shape: tuple[int, int, int], level: int) -> list[Offset]:
    """Return the fine-grid indexes of a plane in C order."""
    h, w = fine(shape, level)
    return [(y, x) for y in range(parity[0], h, 2) for x in range(parity[1], w, 2)]


def planes(
    values: Grid,
    errors: Grid,
    phase: Phase,
    shape: tuple[int, int, int],
    level: int,
    wraps: bool,
    hint: Hint | None,
) -> dict[Offset, tuple[Plane, Plane]]:
    h, w = fine(shape, level)
    result: dict[Offset, tuple[Plane, Plane]] = {}
    for parity in ((0, 0), (1, 1), (0, 1)):
        if parity == phase.parity:
            break
        rows, columns = (h + 1 - parity[0]) // 2, (w + 1 - parity[1]) // 2
        pair = Plane(rows, columns, wraps, True), Plane(rows, columns, wraps, False)
        for y, x in grid(parity, shape, level):
            pair[0].cells[y // 2, x // 2] = values[y << level, x << level] - (hint.guess[y, x] if hint else 0)
            pair[1].cells[y // 2, x // 2] = errors[y << level, x << level]
        if not rows or not columns:
            pair = stand_in(parity, result[0, 0][0], h, w, wraps)
        result[parity] = pair
    return result


def whole(values: Grid, shape: tuple[int, int, int], level: int, wraps: bool) -> dict[Offset, Plane]:
    """Return all four planes of a proxy, given on the fine grid of the level."""
    h, w = fine(shape, level)
    result = {}
    for parity in ((0, 0), (1, 1), (0, 1), (1, 0)):
        plane = result[parity] = Plane((h + 1 - parity[0]) // 2, (w + 1 - parity[1]) // 2, wraps, True)
        plane.cells = {(y // 2, x // 2): values[y, x] for y, x in grid(parity, shape, level)}
    return result


def stand_in(parity: Offset, k: Plane, h: int, w: int, wraps: bool) -> tuple[Plane, Plane]:
    if parity == (1, 1) and w > 1:
        cells = {(0, j): (k(0, j) + k(0, j + 1)) // 2 for j in range(w // 2)}
    elif parity == (1, 1):
        cells = {(i, 0): (k(i, 0) + k(i + 1, 0)) // 2 for i in range(h // 2)}
    else:
        cells = {(i, 0): k(i, 0) for i in range(k.rows)}
    rows, columns = max(i for i, _ in cells) + 1, max(j for _, j in cells) + 1
    values, errors = Plane(rows, columns, wraps, True), Plane(rows, columns, wraps, False)
    values.cells, errors.cells = cells, dict.fromkeys(cells, 0)
    return values, errors


@dataclass(frozen=True)
class Surroundings:
    """What SPEC 9.5 works out from the values at the offsets of a phase."""

    residuals: list[int]
    slopes: tuple[int, int]
    cubic: int  # the sum of numerators times values
    rough: int
    roughness: float
    first: list[int]  # features 1, clipped


def surroundings(phase: Phase, x: list[int]) -> Surroundings:
    o, w, den = phase.offsets, phase.w, phase.den
    gy = sum(den * w[k] * o[k][0] // phase.sy * x[k] for k in range(len(o)))
    gx = sum(den * w[k] * o[k][1] // phase.sx * x[k] for k in range(len(o)))
    mean = sum(den // phase.s0 * w[k] * x[k] for k in range(len(o)))
    e = [den * x[i] - mean - o[i][0] * gy - o[i][1] * gx for i in range(len(o))]
    cubic = sum(phase.cubic(*k) * v for k, v in zip(o, x, strict=True))
    rough = clip(
        lg(float(sum(wk * abs(ek) for wk, ek in zip(w, e, strict=True)) + 10 * phase.unit)) - phase.first, 0, 319
    )
    middle = centre(phase.first + rough)
    scale = f32(32 * phase.s0 / middle)
    first = [feature(f32(f32(float(v)) * scale)) for v in e]
    return Surroundings(e, (gy, gx), cubic, rough, middle / phase.unit, first)


def feature(x: float) -> int:
    return clip(round(x), -127, 127)


def predict(
    phase: Phase,
    looks: dict[Offset, tuple[Plane, Plane]],
    row: int,
    column: int,
    level: int,
    tensors: dict[str, Sequence],
    hint: Hint | None,
    proxies: list[dict[Offset, Plane] | None],
) -> tuple[int, int, int]:
    """Return (prediction, scale index without the width's part, tail class) of one point."""

    def look(offset: Offset, which: int) -> int:
        y, x = row + offset[0], column + offset[1]
        return looks[y % 2, x % 2][which](y // 2, x // 2)

    near, wide = [look(k, 1) for k in phase.near], [look(k, 1) for k in phase.wide]
    seen = surroundings(phase, [look(k, 0) for k in phase.offsets])
    rough, (gy, gx) = seen.rough, seen.slopes
    features = [*seen.first, *(feature(f32(f32(float(v)) * f32(32 / seen.roughness))) for v in near)]
    features += [
        clip(f, -127, 127)
        for f in (
            rough - 64,
            lg(float(sum(map(abs, near)) + 4)) - 1042 - rough,
            lg(float(sum(map(abs, wide)) + 4)) - 1042 - rough,
            lg((abs(gy) + abs(gx)) / phase.den + 1) - 1042 - rough,
        )
    ]
    for proxy in proxies:
        features += proxy_features(phase, proxy, row, column, seen) if proxy else [0] * 4
    m, t, k = network(phase.name, features, level, tensors, hint.kind if hint else 0, hint.gap if hint else 0)
    base = (seen.cubic + phase.divisor // 2) // phase.divisor
    p = clip(base + round(clip(m, -1024, 1024) * (seen.roughness / 64)), -(2**27), 2**27)
    if hint:
        p += hint.guess[row, column]
    return p, rough + clip(t, -256, 256), clip(k, 0, 3)


def proxy_features(phase: Phase, proxy: dict[Offset, Plane], row: int, column: int, own: Surroundings) -> list[int]:
    """SPEC 13.5."""

    def look(offset: Offset) -> int:
        y, x = row + offset[0], column + offset[1]
        return proxy[y % 2, x % 2](y // 2, x // 2)

    seen = surroundings(phase, [look(k) for k in phase.offsets])
    detail = f32(float(phase.divisor * look((0, 0)) - seen.cubic))
    d = feature(f32(detail * f32(f32(32 / seen.roughness) / phase.divisor)))
    c = sum(map(mul, seen.first, own.first))
    q, w = (sum(map(mul, f, f)) for f in (seen.first, own.first))
    return [
        d,
        feature(c * d / (q + 4096)),
        feature(254 * c / (w + q + 4096)),
        clip(seen.rough - own.rough, -127, 127),
    ]


def network(name: str, x: list[int], level: int, tensors: dict[str, Sequence], kind: int, gap: int) -> list[int]:
    layer = 0
    while f"{name}.{layer}.weight" in tensors:
        weight, bias, shift = (tensors[f"{name}.{layer}.{part}"] for part in ("weight", "bias", "shift"))
        bias = bias[level]
        if layer == 0 and f"{name}.kind" in tensors:
            x = x + [0] * (len(weight[0]) - len(x))
            bias = [sum(b) for b in zip(bias, tensors[f"{name}.kind"][kind], tensors[f"{name}.gap"][gap], strict=True)]
        assert len(x) == len(weight[0])
        sums = [sum(map(mul, row, x)) + b for row, b in zip(weight, bias, strict=True)]
        y = [round(s / 2 ** shift[i]) for i, s in enumerate(sums)]
        layer += 1
        x = [clip(v, 0, 127) for v in y]
    return y


def read_symbols(
    coder: RangeDecoder,
    escapes: Reader,
    points: list[tuple[int, int]],
    tensors: dict[str, Sequence],
    offsets: list[int] | None,
) -> list[int]:
    """Return the symbols of a phase; without `offsets` it has no offset (SPEC 14.1)."""
    offset = coder.decode(offsets) - 31 if offsets else 0
    shifts = [clip((c + offset + 11 - 72) // 8 + 1, 0, 20) for c, _ in points]
    which = [72 * k + clip(c + offset + 11 - 8 * f, 0, 71) for (c, k), f in zip(points, shifts, strict=True)]
    symbols = [0] * len(points)
    for t in sorted(set(which)):
        a, row = tensors["tables.support"][t], tensors["tables.frequencies"][t]
        top = len(row) // 2
        cumulative = table(row[top - a : top + a + 1])
        for i in (i for i, w in enumerate(which) if w == t):
            g = coder.decode(cumulative) - a
            symbols[i] = g + (1 if g > 0 else -1) * escapes.varint() if abs(g) == a else g
    for f in sorted(set(shifts) - {0}):
        for i in (i for i, s in enumerate(shifts) if s == f):
            symbols[i] = symbols[i] * 2**f + coder.decode(uniform(2**f)) - 2 ** (f - 1)
    return symbols
