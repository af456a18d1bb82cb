"""SPEC 5.1 to 5.5 and 5.8: the second decoder of the refinement pyramid, from the text alone.

What a block (SPEC 5.7) adds to the prediction of a level comes in as a `Hint`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm

import numpy as np
from numpy.typing import NDArray

from tests.spec.entropy import Bytes, CodedStream, Integers, Tensors, centre, cumulative, lg, network, uniform

Offset = tuple[int, int]
Planes = dict[Offset, Integers]  # padded, by parity
PAD = 3
K, D, H, V = (0, 0), (1, 1), (0, 1), (1, 0)
CUBIC = {-3: -1, -1: 9, 1: 9, 3: -1}


def stars(*pairs: Offset) -> list[Offset]:
    return [(sy * y, sx * x) for y, x in pairs for sy in ((-1, 1) if y else (1,)) for sx in ((-1, 1) if x else (1,))]


class Phase:
    """A row of the table of SPEC 5.4, and the constants that follow from it."""

    def __init__(self, name: str, parity: Offset, offsets: list[Offset], near: list[Offset], wide: list[Offset]):
        self.name, self.parity, self.offsets, self.near, self.wide = name, parity, offsets, near, wide
        y, x = np.array(offsets).T
        self.w = np.array([max(1, round(24 / (1 + a * a + b * b))) for a, b in offsets])
        s0, sy, sx = (int((self.w * factor).sum()) for factor in (1, y * y, x * x))
        self.den = lcm(s0, sy, sx)
        self.s0, self.unit = s0, self.den * s0
        self.plane = np.stack([self.den * self.w * v // s for v, s in ((1, s0), (y, sy), (x, sx))])
        self.at = np.stack([np.ones_like(y), y, x])
        self.divisor = 256 if parity == D else 32
        self.numerators = np.array([self._numerator(*offset) for offset in offsets])
        self.first = int(lg(np.array(10 * self.unit)))

    def _numerator(self, dy: int, dx: int) -> int:
        if self.parity == D:
            return CUBIC.get(dy, 0) * CUBIC.get(dx, 0)
        return CUBIC.get(dy + dx, 0) if dy * dx == 0 else 0


PHASES = (
    Phase("D", D, stars((1, 1), (1, 3), (3, 1), (3, 3), (1, 5), (5, 1)), stars((1, 1)), stars((1, 3), (3, 1))),
    Phase(
        "H", H, stars((0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 0), (2, 3), (3, 2)),
        stars((0, 1), (1, 0)), stars((1, 2), (2, 1)),
    ),
    Phase(
        "V", V, stars((0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (0, 3), (3, 0), (1, 3), (3, 1)),
        stars((0, 1), (1, 0), (1, 1)), stars((1, 2), (2, 1)),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Flags:
    wrap: bool
    snap: bool
    taper: int

    @classmethod
    def of(cls, byte: int) -> Flags:
        assert byte < 16
        assert not (byte & 2 and byte >> 2)
        return cls(bool(byte & 1), bool(byte & 2), byte >> 2)


@dataclass(frozen=True)
class Hint:
    """SPEC 5.7: what a field with proxies knows of a level, on its fine grid (1, h, w)."""

    kind: int
    gap: int
    guess: Integers
    proxies: list[Integers | None]  # P, Q, C, S


def decode(section: bytes, shape: tuple[int, int, int], tensors: Tensors) -> Integers:
    """Return v (B, H, W) of section 4."""
    fields, height, width = shape
    flags, reader, groups = Flags.of(section[0]), Bytes(section[1:-4]), []
    size = max(1, 2**19 // (height * width))
    for start in range(0, fields, size):
        group = reader.take(reader.varint())
        groups.append(decode_group(group, (min(size, fields - start), height, width), tensors, flags))
    assert not reader.left
    return np.concatenate(groups)


def decode_group(data: bytes, shape: tuple[int, int, int], tensors: Tensors, flags: Flags) -> Integers:
    reader, step = Bytes(data), 2 ** top_level(shape)
    v = np.zeros(shape, np.int64)
    anchors = v[:, ::step, ::step]
    numbers = [z // 2 if z % 2 == 0 else -(z + 1) // 2 for z in (reader.varint() for _ in range(anchors.size))]
    anchors[:] = np.reshape(numbers, anchors.shape)
    anchors[0] = anchors[0].cumsum().reshape(anchors[0].shape)
    anchors[:] = anchors.cumsum(0)
    assert (abs(anchors) <= 2**21).all()
    anchors *= 64
    stream = CodedStream(reader.take(reader.left))
    read_levels(stream, v, tensors, flags, lambda: stream.decode(uniform(63)) - 31)
    stream.finish()
    return v


def top_level(shape: tuple[int, ...]) -> int:
    longest = max(shape[-2:])
    return 0 if longest <= 2 else (longest - 1).bit_length() - 1


def read_levels(
    stream: CodedStream,
    v: Integers,
    tensors: Tensors,
    flags: Flags,
    offset: Callable[[], int],
    hint: Callable[[int], Hint | None] = lambda level: None,
) -> None:
    """SPEC 5.2: complete v (B, H, W), which holds the anchors, in place."""
    errors = np.zeros_like(v)
    for level in reversed(range(top_level(v.shape))):
        q = max(20, round(64 / (1, 1.08, 1.17, 1.3)[flags.taper] ** level))
        wraps = flags.wrap and v.shape[2] % 2 ** (level + 1) == 0
        grid, missed = (a[:, :: 2**level, :: 2**level] for a in (v, errors))
        known = hint(level)
        for phase in PHASES:
            cells = grid[:, phase.parity[0] :: 2, phase.parity[1] :: 2]
            if not cells.size:
                continue
            p, c, k = predict(phase, grid, missed, wraps, level, tensors, known)
            c = c.reshape(p.shape) - round(8 * np.log2(q / 64))
            quiet = np.full(p.shape, -1)
            if p.size >= 4096:
                limit = stream.decode(cumulative((6, 1, 1, 1, 1, 1, 1)))
                cheap, classes = look_around(phase, grid, missed, wraps, known)
                p, quiet = np.where(classes < limit, cheap, p), np.where(classes < limit, classes, -1)
            s = read_symbols(stream, c, k.reshape(p.shape), quiet, offset)
            cells[:] = 64 * ((2 * (p // 2) + 1 + s * q + 32) // 64) if flags.snap else p + s * q
            missed[:, phase.parity[0] :: 2, phase.parity[1] :: 2] = cells - p
    assert (abs(v) <= 2**28).all()


def read_symbols(stream: CodedStream, c: Integers, k: Integers, quiet: Integers, offset: Callable[[], int]) -> Integers:
    """Return the symbols of a phase; `quiet` are classes, -1 of points that are not quiet."""
    s, loud, rate = np.zeros_like(c), quiet < 0, 20
    if loud.any():
        s[loud] = stream.symbols(c[loud] + offset(), k[loud])
    for number in sorted(set(quiet[~loud].tolist())):
        s[quiet == number], rate = stream.runs(int((quiet == number).sum()), rate)
    return s


# --- SPEC 5.3 ---------------------------------------------------------------------------------------------------------


def padded(plane: Integers, wraps: bool, linear: bool = True) -> Integers:
    """Return planes (B, n, m) with three more cells on every side."""
    if wraps:
        plane = np.pad(plane, ((0, 0), (0, 0), (PAD, PAD)), "wrap")
    elif linear:
        plane = extended(plane.swapaxes(1, 2)).swapaxes(1, 2)
    else:
        plane = np.pad(plane, ((0, 0), (0, 0), (PAD, PAD)))
    return extended(plane) if linear else np.pad(plane, ((0, 0), (PAD, PAD), (0, 0)))


def extended(plane: Integers) -> Integers:
    """Continue lines along axis 1."""
    n, k = plane.shape[1], np.arange(1, PAD + 1)[:, None]
    first, last = (
        edge[:, None] + k * (edge - inner)[:, None] if n > 1 else edge[:, None] + 0 * k
        for edge, inner in ((plane[:, 0], plane[:, min(1, n - 1)]), (plane[:, -1], plane[:, max(n - 2, 0)]))
    )
    limit = 2**30 - 1
    return np.concatenate([np.clip(first[:, ::-1], -limit, limit), plane, np.clip(last, -limit, limit)], 1)


def planes(grid: Integers, wraps: bool, parities: list[Offset], linear: bool = True) -> Planes:
    """Return planes of a fine grid (B, h, w), padded, with stand-ins for those that are empty."""
    found: Planes = {}
    for y, x in parities:
        plane = grid[:, y::2, x::2]
        if not plane.size:
            plane = stand_in((y, x), found[K], grid.shape) if linear else np.zeros((len(grid), 1, 1), np.int64)
        found[y, x] = padded(plane, wraps and plane.shape[2] > 0, linear)
    return found


def stand_in(parity: Offset, k: Integers, shape: tuple[int, ...]) -> Integers:
    """Return what takes the place of an empty plane, K being padded."""
    _, h, w = shape
    k = k[:, PAD:, PAD:]
    if parity == H:
        return k[:, : (h + 1) // 2, :1]
    if w > 1:
        return (k[:, :1, : w // 2] + k[:, :1, 1 : w // 2 + 1]) // 2
    return (k[:, : h // 2, :1] + k[:, 1 : h // 2 + 1, :1]) // 2


# --- SPEC 5.4 and 5.5 -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What SPEC 5.4 works out of the values at the offsets of a phase; arrays are (..., points)."""

    slopes: Integers
    cubic: Integers
    r: Integers
    roughness: NDArray[np.float64]
    first: Integers  # features 1, (points, offsets)

    @classmethod
    def of(cls, phase: Phase, x: Integers) -> Seen:
        """`x` is (points, offsets)."""
        plane = x @ phase.plane.T
        e = phase.den * x - plane @ phase.at
        r = (lg((abs(e) * phase.w).sum(-1) + 10 * phase.unit) - phase.first).clip(0, 319)
        middle = centre(phase.first + r)
        first = scaled(e, (32 * phase.s0 / middle)[:, None])
        return cls(abs(plane[:, 1:]).sum(-1), x @ phase.numerators, r, middle / phase.unit, first)


def scaled(x: Integers, factor: NDArray[np.float64]) -> Integers:
    return np.rint(x.astype(np.float32) * factor.astype(np.float32)).clip(-127, 127).astype(np.int64)


def look(found: Planes, phase: Phase, offsets: list[Offset], shape: tuple[int, ...]) -> Integers:
    """Return what padded planes have at offsets from all points of a phase: (points, offsets)."""
    columns = []
    for dy, dx in offsets:
        y, x = phase.parity[0] + dy, phase.parity[1] + dx
        top, left = PAD + y // 2, PAD + x // 2
        columns.append(found[y % 2, x % 2][:, top : top + shape[1], left : left + shape[2]].ravel())
    return np.stack(columns, -1)


def predict(
    phase: Phase, grid: Integers, missed: Integers, wraps: bool, level: int, tensors: Tensors, hint: Hint | None
) -> tuple[Integers, Integers, Integers]:
    """Return prediction, scale index without the part of the width, and tail class of all points."""
    shape = grid[:, phase.parity[0] :: 2, phase.parity[1] :: 2].shape
    known = [K, D, H][: PHASES.index(phase) + 1]
    values = planes(grid - hint.guess if hint else grid, wraps, known)
    errors = planes(missed, wraps, known, linear=False)
    for parity in known:  # a stand-in has error 0
        if errors[parity].shape != values[parity].shape:
            errors[parity] = np.zeros_like(values[parity])
    seen = Seen.of(phase, look(values, phase, phase.offsets, shape))
    near, wide = (look(errors, phase, offsets, shape) for offsets in (phase.near, phase.wide))
    sizes = [abs(near).sum(-1) + 4, abs(wide).sum(-1) + 4, seen.slopes / phase.den + 1]
    logs = [seen.r - 64, *(lg(x) - 1042 - seen.r for x in sizes)]
    features = [seen.first, scaled(near, (32 / seen.roughness)[:, None]), np.stack(logs, -1).clip(-127, 127)]
    more: Integers | int = 0
    name = network_of(phase, level, tensors)
    if f"{name}.kind" in tensors:
        kind, gap, proxies = (hint.kind, hint.gap, hint.proxies) if hint else (0, 0, [None] * 4)
        more = tensors[f"{name}.kind"][kind] + tensors[f"{name}.gap"][gap]
        features += [proxy_features(phase, proxy, wraps, seen, shape) for proxy in proxies]
    m, t, k = network(tensors, name, np.concatenate(features, -1), level, more).T
    base = (seen.cubic + phase.divisor // 2) // phase.divisor
    p = (base + np.rint(m.clip(-1024, 1024) * (seen.roughness / 64)).astype(np.int64)).clip(-(2**27), 2**27)
    p = p.reshape(shape)
    if hint:
        p = p + hint.guess[:, phase.parity[0] :: 2, phase.parity[1] :: 2]
    return p, seen.r + t.clip(-256, 256), k.clip(0, 3)


def look_around(
    phase: Phase, grid: Integers, missed: Integers, wraps: bool, hint: Hint | None
) -> tuple[Integers, Integers]:
    """SPEC 5.8: prediction and class of all points, were they quiet."""
    shape = grid[:, phase.parity[0] :: 2, phase.parity[1] :: 2].shape
    known = [K, D, H][: PHASES.index(phase) + 1]
    values = planes(grid - hint.guess if hint else grid, wraps, known)
    errors = planes(missed, wraps, known, linear=False)
    if phase.name == "D":
        corners, weight = [(-1, -1), (1, 1), (-1, 1), (1, -1)], 1
        pairs = [((-1, -1), (-1, 1)), ((1, -1), (1, 1)), ((-1, -1), (1, -1)), ((-1, 1), (1, 1))]
    else:
        corners, weight = [(0, -1), (0, 1), (-1, 0), (1, 0)], 2
        pairs = [((0, -1), (0, 1)), ((-1, 0), (1, 0))]
    x = look(values, phase, corners, shape)
    a, total = 2 * abs(modulo(x @ np.array([1, 1, -1, -1]))), modulo(x.sum(1))
    sum_of_bends = np.zeros_like(a)
    for o, p in pairs:
        beyond = [(2 * i[0] - j[0], 2 * i[1] - j[1]) for i, j in ((o, p), (p, o))]
        bend = modulo(look(values, phase, [o, p, *beyond], shape) @ np.array([1, 1, -1, -1]))
        a, sum_of_bends = a + weight * abs(bend), sum_of_bends + bend
    near, wide = (abs(look(errors, phase, offsets, shape)).sum(1) for offsets in (phase.near, phase.wide))
    a = (a + 4 * near + 2 * wide) % 2**32
    p = (total // 4 + modulo(8 * (total % 4) + sum_of_bends + 16) // 32).clip(-(2**27), 2**27).reshape(shape)
    if hint:
        p = p + hint.guess[:, phase.parity[0] :: 2, phase.parity[1] :: 2]
    return p, sum(a >= edge for edge in (256, 512, 724, 1024, 1448, 2048)).reshape(shape)


def modulo(x: Integers) -> Integers:
    return (x + 2**31) % 2**32 - 2**31


def network_of(phase: Phase, level: int, tensors: Tensors) -> str:
    """SPEC 9: the name of the network of a phase at a level."""
    own = ("fine.", "middle.", "")[min(level, 2)] + phase.name
    return own if f"{own}.0.weight" in tensors else phase.name


def proxy_features(phase: Phase, proxy: Integers | None, wraps: bool, own: Seen, shape: tuple[int, ...]) -> Integers:
    """The four features of SPEC 5.7."""
    if proxy is None:
        return np.zeros((len(own.r), 4), np.int64)
    found = planes(proxy, wraps, [K, D, H, V])
    seen = Seen.of(phase, look(found, phase, phase.offsets, shape))
    detail = (phase.divisor * look(found, phase, [(0, 0)], shape)[:, 0] - seen.cubic).astype(np.float32)
    factor = (32 / seen.roughness).astype(np.float32) / np.float32(phase.divisor)
    a = np.rint(detail * factor).clip(-127, 127)
    c, q, w = ((f * g).sum(-1) for f, g in ((seen.first, own.first), (seen.first, seen.first), (own.first, own.first)))
    features = [a, np.rint(c * a / (q + 4096)), np.rint(254 * c / (w + q + 4096)), seen.r - own.r]
    return np.stack(features, -1).clip(-127, 127).astype(np.int64)
