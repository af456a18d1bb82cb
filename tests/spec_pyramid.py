"""A second decoder of the pyramid section, written from SPEC 9 and 10 alone: plain Python, no numpy, no hurry."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from math import lcm

from tests.range_decoder import RangeDecoder, table, uniform

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


def decode(section: bytes, shape: tuple[int, int, int], tensors: dict[str, Sequence]) -> list[Grid]:
    """Return per field the values v by (row, column)."""
    fields, height, width = shape
    wrap, snap, taper = section[0] & 1, section[0] >> 1 & 1, section[0] >> 2
    reader, result = Reader(section[1:-4]), []
    size = max(1, 2**19 // (height * width))
    for start in range(0, fields, size):
        group = Reader(reader.take(reader.varint()))
        result += decode_group(group, (min(size, fields - start), height, width), tensors, wrap, snap, taper)
    return result


def decode_group(
    data: Reader, shape: tuple[int, int, int], tensors: dict[str, Sequence], wrap: int, snap: int, taper: int
) -> list[Grid]:
    fields, height, width = shape
    longest = max(height, width)
    levels = 0 if longest <= 2 else (longest - 1).bit_length() - 1
    values, errors = read_anchors(data, shape, levels)
    escapes = Reader(data.take(data.varint()))
    words = struct.unpack(f"<{(len(data.data) - data.at) // 4}I", data.data[data.at :])
    coder = RangeDecoder(words)
    for level in reversed(range(levels)):
        q = WIDTHS[taper][min(level, len(WIDTHS[taper]) - 1)]
        wraps = bool(wrap) and width % 2 ** (level + 1) == 0
        for phase in PHASES:
            points, seen = [], []
            for b in range(fields):
                looks = planes(values[b], errors[b], phase, shape, level, wraps)
                for row, column in grid(phase.parity, shape, level):
                    points.append((b, row, column))
                    seen.append(predict(phase, looks, row, column, min(level, 5), tensors))
            if not points:
                continue
            symbols = read_symbols(coder, escapes, [(c - NEARER[q], k) for _, c, k in seen], tensors)
            for (b, row, column), (p, _, _), s in zip(points, seen, symbols, strict=True):
                v = p + s * q
                if snap:
                    v = 64 * ((2 * (p // 2) + 1 + s * q + 32) // 64)
                at = (row << level, column << level)
                values[b][at], errors[b][at] = v, v - p
    return values


def read_anchors(data: Reader, shape: tuple[int, int, int], levels: int) -> tuple[list[Grid], list[Grid]]:
    fields, height, width = shape
    places = [(y, x) for y in range(0, height, 2**levels) for x in range(0, width, 2**levels)]
    values: list[Grid] = []
    for b in range(fields):
        numbers = [z // 2 if z % 2 == 0 else -(z + 1) // 2 for z in (data.varint() for _ in places)]
        if b == 0:
            anchors = [sum(numbers[: i + 1]) for i in range(len(numbers))]
        else:
            anchors = [n + values[-1][place] // 64 for n, place in zip(numbers, places, strict=True)]
        values.append({place: 64 * a for place, a in zip(places, anchors, strict=True)})
    return values, [dict.fromkeys(places, 0) for _ in range(fields)]


def grid(parity: Offset, shape: tuple[int, int, int], level: int) -> list[Offset]:
    """Return the fine-grid indexes of a plane in C order."""
    h, w = -(-shape[1] >> level), -(-shape[2] >> level)
    return [(y, x) for y in range(parity[0], h, 2) for x in range(parity[1], w, 2)]


def planes(
    values: Grid, errors: Grid, phase: Phase, shape: tuple[int, int, int], level: int, wraps: bool
) -> dict[Offset, tuple[Plane, Plane]]:
    h, w = -(-shape[1] >> level), -(-shape[2] >> level)
    result: dict[Offset, tuple[Plane, Plane]] = {}
    for parity in ((0, 0), (1, 1), (0, 1)):
        if parity == phase.parity:
            break
        rows, columns = (h + 1 - parity[0]) // 2, (w + 1 - parity[1]) // 2
        pair = Plane(rows, columns, wraps, True), Plane(rows, columns, wraps, False)
        for y, x in grid(parity, shape, level):
            pair[0].cells[y // 2, x // 2] = values[y << level, x << level]
            pair[1].cells[y // 2, x // 2] = errors[y << level, x << level]
        if not rows or not columns:
            pair = stand_in(parity, result[0, 0][0], h, w, wraps)
        result[parity] = pair
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


def predict(
    phase: Phase,
    looks: dict[Offset, tuple[Plane, Plane]],
    row: int,
    column: int,
    level: int,
    tensors: dict[str, Sequence],
) -> tuple[int, int, int]:
    """Return (prediction, scale index without the width's part, tail class) of one point."""

    def look(offset: Offset, which: int) -> int:
        y, x = row + offset[0], column + offset[1]
        return looks[y % 2, x % 2][which](y // 2, x // 2)

    o, w, den = phase.offsets, phase.w, phase.den
    x = [look(k, 0) for k in o]
    gy = sum(den * w[k] * o[k][0] // phase.sy * x[k] for k in range(len(o)))
    gx = sum(den * w[k] * o[k][1] // phase.sx * x[k] for k in range(len(o)))
    mean = sum(den // phase.s0 * w[k] * x[k] for k in range(len(o)))
    e = [den * x[i] - mean - o[i][0] * gy - o[i][1] * gx for i in range(len(o))]
    base = (sum(phase.cubic(*k) * v for k, v in zip(o, x, strict=True)) + phase.divisor // 2) // phase.divisor
    rough = clip(
        lg(float(sum(wk * abs(ek) for wk, ek in zip(w, e, strict=True)) + 10 * phase.unit)) - phase.first, 0, 319
    )
    middle = centre(phase.first + rough)
    roughness = middle / phase.unit
    near, wide = [look(k, 1) for k in phase.near], [look(k, 1) for k in phase.wide]
    features = [round(f32(f32(float(v)) * f32(32 * phase.s0 / middle))) for v in e]
    features += [round(f32(f32(float(v)) * f32(32 / roughness))) for v in near]
    features += [
        rough - 64,
        lg(float(sum(map(abs, near)) + 4)) - 1042 - rough,
        lg(float(sum(map(abs, wide)) + 4)) - 1042 - rough,
        lg((abs(gy) + abs(gx)) / den + 1) - 1042 - rough,
    ]
    m, t, k = network(phase.name, [clip(f, -127, 127) for f in features], level, tensors)
    p = clip(base + round(clip(m, -1024, 1024) * (roughness / 64)), -(2**27), 2**27)
    return p, rough + clip(t, -256, 256), clip(k, 0, 3)


def network(name: str, x: list[int], level: int, tensors: dict[str, Sequence]) -> list[int]:
    layer = 0
    while f"{name}.{layer}.weight" in tensors:
        weight, bias, shift = (tensors[f"{name}.{layer}.{part}"] for part in ("weight", "bias", "shift"))
        sums = [sum(a * b for a, b in zip(row, x, strict=True)) + bias[level][i] for i, row in enumerate(weight)]
        y = [round(s / 2 ** shift[i]) for i, s in enumerate(sums)]
        layer += 1
        x = [clip(v, 0, 127) for v in y]
    return y


def read_symbols(
    coder: RangeDecoder, escapes: Reader, points: list[tuple[int, int]], tensors: dict[str, Sequence]
) -> list[int]:
    offset = coder.decode(uniform(63)) - 31
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
