"""SPEC chapter 6: the second decoder of latents, from the text alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import cos, floor, log2, pi, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.spec.correction import correction
from tests.spec.entropy import CodedStream, Integers, Tensors, centre, crc32c, cumulative, lg, network, uniform
from tests.spec.wavelet import Grid, Level, fitted, joined, levels_of

Map = NDArray[np.float32]  # of the low band of a level, with PAD more rows and columns on every side
F32 = np.float32
PAD = 4
PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))
KNOWN = (slice(0, 0), slice(4, 8), slice(0, 4), slice(0, 8))  # of a ring, by phase
NINE = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))


@dataclass(frozen=True)
class Decoded:
    """Channels in units by their indexes on the leading axes, and what turns them into values."""

    shape: tuple[int, ...]
    periodic: bool
    corrected: bool
    step: float
    offset: float
    gains: list[float]
    transforms: list[NDArray[np.float64]]
    channels: dict[tuple[int, ...], Integers]


def values(section: bytes, shape: tuple[int, ...], config: Mapping[str, Any], tensors: Tensors) -> NDArray[np.float64]:
    """Return the values of section 10, in the shape of the array."""
    return restored(decode(section, shape, tensors), config, tensors).reshape(shape)


def restored(decoded: Decoded, config: Mapping[str, Any], tensors: Tensors) -> NDArray[np.float64]:
    """SPEC 6.7."""
    x = np.zeros([len(rows) for rows in decoded.transforms] + [*decoded.shape[-2:]])
    for at, channel in decoded.channels.items():
        x[at] = channel / 64
        if decoded.corrected and channel.any() and any(name.startswith("synthesis.") for name in tensors):
            x[at] += correction(channel, decoded.periodic, config, tensors)
    for axis, rows in enumerate(decoded.transforms):
        x = np.moveaxis(np.tensordot(rows, x, (0, axis)), 0, axis)
    if decoded.gains:
        for at in np.ndindex(x.shape[:-2]):
            x[at] = equalised(x[at], decoded.gains, decoded.periodic)
    return x * decoded.step + decoded.offset


def decode(section: bytes, shape: tuple[int, ...], tensors: Tensors) -> Decoded:
    """Return channels and transforms of section 10 of an array of this shape."""
    if max(shape[:-2], default=1) > 256 or prod(shape[:-2]) > 4096:
        shape = prod(shape[:-2]), shape[-2] * shape[-1]
    flags, step, offset = struct.unpack_from("<Bdd", section)
    assert flags < 64
    assert flags & 8
    assert flags & 20 in (0, 20)
    start = 26 if flags & 4 else 17
    gains = (np.frombuffer(section[17:start], "i1") / 128).tolist()
    stream = CodedStream(section[start:-4])
    transforms = [read_transform(stream, n) for n in shape[:-2]]
    ahead = read_ahead(stream, *shape[-2:]) if flags & 32 else []
    levels = levels_of(shape[-2], shape[-1], bool(flags & 1), ahead)
    reader = ChannelReader(stream, tensors, levels, shape[-2:])
    order = sorted(product(*(range(len(rows)) for rows in transforms)), key=lambda at: (sum(at), at))
    channels = {at: reader.read() for at in order}
    stream.finish()
    assert crc32c(b"".join(channels[at].astype("<i8").tobytes() for at in order)) == int.from_bytes(
        section[-4:], "little"
    )
    return Decoded(shape, bool(flags & 1), bool(flags & 2), step, offset, gains, transforms, channels)


def read_transform(stream: CodedStream, n: int) -> NDArray[np.float64]:
    """SPEC 6.2 and 6.7: the rows R."""
    if n == 1:
        return np.ones((1, 1))
    t = stream.decode(uniform(3))
    if t == 0:
        return np.eye(n)
    w = [2 ** (10 - min(i // 2, 10)) for i in range(n)]
    m = n - stream.decode(cumulative((w[0] + sum(w), *w[1:])))
    if t == 1:
        rows = [[sqrt((2 if i else 1) / n) * cos(pi * i * (j + 0.5) / n) for j in range(n)] for i in range(m)]
        return np.array(rows)
    index = np.full(m * n, 4 * (127**2 // n).bit_length() + 19 + stream.delta())
    integers = stream.symbols(index, np.full(m * n, 2))
    assert (abs(integers) <= 254).all()
    return integers.reshape(m, n) / 127


def read_ahead(stream: CodedStream, h: int, w: int) -> list[int]:
    """SPEC 6.3: the halvings of each block."""
    if h < 64 or w < 48:
        return []
    b, found = floor(log2(h // 16)), [0]
    for _ in range((h + 2 ** (b - 1) - 1) // 2**b):
        found.append(found[-1] + stream.delta())
        assert 0 <= found[-1] <= floor(log2(w // 24))
    return found[1:]


# --- SPEC 6.5: maps ---------------------------------------------------------------------------------------------------


class Frame:
    """Maps of one level: which columns a value has, where maps repeat, and what is left and right."""

    def __init__(self, level: Level) -> None:
        self.level, (self.h, self.w) = level, level.low
        self.strides = np.array([level.stride(y) for y in range(self.h)])

    def zeros(self) -> Map:
        return np.zeros((self.h + 2 * PAD, self.w + 2 * PAD), F32)

    def repeated(self, a: Map) -> Map:
        return a[:, PAD + np.arange(-PAD, self.w + PAD) % self.w] if self.level.periodic else a

    def spans(self, rows: Integers, columns: Integers) -> tuple[Integers, Integers]:
        """Return first and last column of the values that have these columns."""
        stride = self.strides[rows]
        first = columns // stride * stride
        return first, np.minimum(first + stride, self.w) - 1

    def of(self, rows: Integers, first: Integers, values: Map) -> Map:
        """Return the map of values that begin at these columns."""
        a = self.zeros()
        for k in range(max(self.strides)):
            here = (k < self.strides[rows]) & (first + k < self.w)
            a[PAD + rows[here], PAD + first[here] + k] = values[here]
        return self.repeated(a)

    def of_rows(self, rows: list[Map]) -> Map:
        """Return the map of whole rows of values."""
        a = self.zeros()
        for y, row in enumerate(rows):
            a[PAD + y, PAD : PAD + self.w] = row.repeat(self.strides[y])[: self.w]
        return self.repeated(a)

    def box(self, a: Map) -> Map:
        r, out = np.zeros_like(a), np.zeros_like(a)
        r[1:-1] = ((a[:-2] + a[2:]) + a[1:-1]) + a[1:-1]
        out[:, 1:-1] = (((r[:, :-2] + r[:, 2:]) + r[:, 1:-1]) + r[:, 1:-1]) * F32(1 / 16)
        for y in np.flatnonzero(self.strides > 1):
            columns = np.arange(self.w)
            first, last = self.spans(np.full(self.w, y), columns)
            row = r[PAD + y]
            here = (((row[PAD + first - 1] + row[PAD + last + 1]) + row[PAD + first]) + row[PAD + first]) * F32(1 / 16)
            out[PAD + y] = 0
            out[PAD + y, PAD:-PAD] = here
        return self.repeated(out)

    def smooth(self, a: Map) -> Map:
        return self.box(abs(a))

    def far(self, a: Map) -> Map:
        s, out = np.zeros_like(a), np.zeros_like(a)
        s[3:-3] = (a[:-6] + a[6:]) + a[3:-3]
        out[:, 3:-3] = ((s[:, :-6] + s[:, 6:]) + s[:, 3:-3]) * F32(1 / 9)
        return out

    def up(self, a: Map) -> Map:
        """Bring a map of the next level to this one."""
        rows, columns = np.arange(-PAD, self.h + PAD), np.arange(-PAD, self.w + PAD)
        if self.level.periodic:
            columns = columns % self.w
        return a[np.ix_(PAD + rows // 2, PAD + columns // 2)]


@dataclass(frozen=True)
class Band:
    values: Map
    smooth: Map


@dataclass(frozen=True)
class Before:
    """What channels decoded before say of a band."""

    newest: Band
    history: Band


class Known:
    """What is known of a level before and while its bands are decoded."""

    def __init__(self, frame: Frame, low: Grid, coarser: tuple[Frame, list[Band]] | None) -> None:
        self.frame, self.bands = frame, list[Band]()
        level, x, y = frame.level, list[Map](), list[Map]()
        rows = [low[level.start + i] for i in range(frame.h)]
        for i, row in enumerate(rows):
            v, n = row.astype(F32), len(row)
            bend = ((v + v) - np.roll(v, 1)) - np.roll(v, -1) if n > 2 else np.zeros(n, F32)
            if not level.periodic:
                bend[[0, -1]] = 0
            x.append(bend)
            if 0 < i < frame.h - 1:
                above, below = (fitted(rows[k], n, level.periodic).astype(F32) for k in (i - 1, i + 1))
                y.append(((v + v) - above) - below)
            else:
                y.append(np.zeros(n, F32))
        self.x, self.y = frame.of_rows(x), frame.of_rows(y)
        self.b = frame.box(abs(self.x) + abs(self.y))
        self.parent_frame = coarser[0] if coarser else frame
        self.parents = [band.values for band in coarser[1]] if coarser else [frame.zeros()] * 3
        self.u = [frame.up(band.smooth) for band in coarser[1]] if coarser else [frame.zeros()] * 3


# --- SPEC 6.4 and 6.5: channels ---------------------------------------------------------------------------------------


class ChannelReader:
    """Decodes channels one after another, each with what is known of those before."""

    def __init__(self, stream: CodedStream, tensors: Tensors, levels: list[Level], shape: tuple[int, ...]) -> None:
        self._stream, self._tensors, self._offset = stream, tensors, 0
        self._frames, self._shape = [Frame(level) for level in levels], shape
        self._scale, self._finest = 20, 0
        self._before: list[list[Before]] | None = None

    def read(self) -> Integers:
        """Return the next channel, in units."""
        self._scale += self._stream.delta()
        self._finest += self._stream.delta()
        assert 0 <= self._scale <= 100
        assert 0 <= self._finest <= len(self._frames)
        low = self._read_top(self._frames[-1].level.low if self._frames else self._shape)
        found: list[list[Band]] = [[] for _ in self._frames]
        for number in reversed(range(len(self._frames))):
            frame = self._frames[number]
            if number >= self._finest:
                has_parents = number + 1 < len(found) and not frame.level.ahead
                coarser = (self._frames[number + 1], found[number + 1]) if has_parents else None
                known = Known(frame, low, coarser)
                for b in range(1 if frame.level.ahead else 3):
                    before = self._before[number][b] if self._before else None
                    known.bands.append(self._read_band(known, b, before))
                found[number] = known.bands
            else:
                found[number] = [Band(frame.zeros(), frame.zeros())] * (1 if frame.level.ahead else 3)
            low = joined(frame.level, low, lambda d, y, frame=frame, bands=found[number]: row_of(frame, bands[d], d, y))
        self._before = [
            [told(band, self._before[number][b] if self._before else None) for b, band in enumerate(bands)]
            for number, bands in enumerate(found)
        ]
        return np.stack(low).astype(np.int64)

    def _read_top(self, shape: tuple[int, ...]) -> Grid:
        n = prod(shape)
        top = self._stream.symbols(np.full(n, 4 * self._scale - 8), np.full(n, 2)).reshape(shape)
        for y, x in product(*map(range, shape)):
            around = [int(top[at]) for at, there in (((y - 1, x), y), ((y, x - 1), x)) if there]
            top[y, x] += sum(around) // len(around) if around else 0
        assert (abs(top) <= 2**30).all()
        return list(64.0 * top)

    def _read_band(self, known: Known, b: int, before: Before | None) -> Band:
        frame, d1, d2 = known.frame, (b + 1) % 3, (b + 2) % 3
        counts, depth = np.array(frame.level.band(b)), min(frame.level.number, 5)
        t = known.b * F32(0.25) + known.u[b]
        t = t + F32(0.25) * (known.u[d1] + known.u[d2])
        for band in known.bands:
            t = t + band.smooth
        if before:
            t = t + before.newest.smooth
            t = t + F32(0.5) * before.history.smooth
        far, o, smooth = frame.far(t), frame.zeros(), frame.zeros()
        quiet = self._tensors["quiet"][b, depth].astype(np.int64)
        for phase, (py, px) in enumerate(PHASES):
            points = [(y, j) for y in range(py, len(counts), 2) for j in range(px, counts[y], 2)]
            if not points:
                continue
            rows, j = np.array(points).T
            first = j * frame.strides[rows]
            at = PAD + rows, PAD + first
            s = smooth[at] if phase else np.zeros(len(rows), F32)
            r = np.minimum(lg((t[at] + s * F32(2)) + F32(8)) - 1040, 191)
            answered = r < quiet.shape[1]
            mean, (c, k) = np.zeros(len(r), F32), quiet[:, np.minimum(r, quiet.shape[1] - 1)]
            sight = Sight(known, b, before, rows, first, r)
            features = sight.features(phase, o, s, far)[~answered]
            if len(features):
                inputs = self._tensors[f"contexts.{b}.0.weight"].shape[1]
                features = np.pad(features, ((0, 0), (0, inputs - features.shape[1])))
                m, more, tail = network(self._tensors, f"contexts.{b}", features, depth).T
                size = (centre(r[~answered] + 1040) / 64).astype(F32)
                mean[~answered] = np.rint(m.clip(-1024, 1024).astype(F32) * size)
                c[~answered], k[~answered] = r[~answered] + more.clip(-256, 256), tail.clip(0, 3)
            if len(features) >= 192:
                self._offset += self._stream.delta()
                assert abs(self._offset) <= 31
                c[~answered] += self._offset
            symbols = self._stream.symbols(c, k).astype(F32)
            new = frame.of(rows, first, mean + symbols * F32(64))
            o = o + new
            smooth = frame.smooth(o)
        return Band(o, frame.smooth(o))


def row_of(frame: Frame, band: Band, d: int, row: int) -> NDArray[np.float64]:
    """Return the coefficients of a row of a band."""
    first = np.arange(frame.level.band(d)[row]) * frame.strides[row]
    return band.values[PAD + row, PAD + first].astype(np.float64)


def told(band: Band, before: Before | None) -> Before:
    """Return what a channel says to the next one."""
    magnitude = abs(band.values)
    if before is None:
        return Before(band, Band(magnitude, band.smooth))
    old = before.history
    return Before(band, Band((magnitude + old.values) * F32(0.5), (band.smooth + old.smooth) * F32(0.5)))


@dataclass(frozen=True)
class Sight:
    """The points of one phase: rows, first columns and activity indexes."""

    known: Known
    b: int
    before: Before | None
    rows: Integers
    first: Integers
    r: Integers

    def features(self, phase: int, o: Map, s: Map, far: Map) -> Integers:
        known, d1, d2, n = self.known, (self.b + 1) % 3, (self.b + 2) % 3, len(self.rows)
        here, half = self._places(known.frame, self.rows, self.first), self._half()
        bands, nothing = known.bands, np.zeros((9, n), F32)
        ring = np.zeros((8, n), F32)
        ring[KNOWN[phase]] = o[here][1:][KNOWN[phase]]
        around = [bands[i].values[here] if i < len(bands) else nothing for i in (0, 1)]
        around.append(known.parents[self.b][half])
        others = [known.parents[d][half][0] for d in (d1, d2)]
        us = [known.u[d][here][0] for d in (d1, d2)]
        numbers = [*ring, *np.concatenate(around), *others, *known.x[here][:5], *known.y[here][:5], *pool(ring)]
        for a in around:
            numbers += [abs(a[0]), *pool(a[1:])]
        numbers += [abs(others[0]), us[0], abs(others[1]), us[1]]
        smooth = [self._log(bands[i].smooth[here][0]) if i < len(bands) else np.zeros(n, int) for i in (0, 1)]
        logs = [self._log(s), *smooth, *(self._log(m[here][0]) for m in (known.u[self.b], known.b, far))]
        features = [*self._scaled(numbers), self.r - 48, *logs, *(np.full(n, 32 * (i == phase)) for i in range(4))]
        if self.before:
            newest, old = self.before.newest, self.before.history
            a = newest.values[here]
            features += self._scaled([*a, abs(a[0]), *pool(a[1:]), old.values[here][0], old.smooth[here][0]])
            features += [self._log(newest.smooth[here][0]), self._log(old.smooth[here][0]), np.full(n, 32)]
        return np.stack(features, -1).clip(-127, 127).astype(np.int64)

    def _places(self, frame: Frame, rows: Integers, columns: Integers) -> tuple[Integers, Integers]:
        """Return where a padded map has `nine` of points with these columns."""
        first, last = frame.spans(rows, columns)
        beside = {-1: first - 1, 0: first, 1: last + 1}
        return np.stack([PAD + rows + y for y, _ in NINE]), np.stack([PAD + beside[x] for _, x in NINE])

    def _half(self) -> tuple[Integers, Integers]:
        return self._places(self.known.parent_frame, self.rows // 2, self.first // 2)

    def _scaled(self, numbers: list[Map]) -> list[Map]:
        factor = (32 / centre(self.r + 1040)).astype(F32)
        return [np.rint(x * factor) for x in numbers]

    def _log(self, x: Map) -> Integers:
        return lg(x + F32(4)) - 1040 - self.r


def pool(n: Map) -> list[Map]:
    a = abs(n)
    return [(a[0] + a[1]) * F32(0.5), (a[2] + a[3]) * F32(0.5), ((a[4] + a[5]) + (a[6] + a[7])) * F32(0.25)]


# --- gains by wavelength ----------------------------------------------------------------------------------------------


def equalised(x: np.ndarray, gains: list[float], periodic: bool) -> np.ndarray:
    """SPEC 6.9: a field (H, W) in steps with what the gains, in octaves, add to it."""
    width = x.shape[1]
    rows = x - x.mean(1, keepdims=True)
    if not periodic:
        rows = np.concatenate([rows, rows[:, ::-1]], 1)
    period = rows.shape[1]
    at = np.arange(period)
    added = np.zeros_like(rows)
    for k in range(period // 2 + 1):
        octaves = np.log2(period / max(k, 0.5))
        place = (octaves - 3) * 4  # 0 at 8 values, 1 at the first gain, 10 at 2**5.5
        if not 0 < place < 10:
            continue
        known = [0, *gains, 0]
        g = known[int(place)] + (place % 1) * (known[int(place) + 1] - known[int(place)])
        weight = (1 if k in (0, period / 2) else 2) / period
        for wave in (np.cos(2 * np.pi * k * at / period), np.sin(2 * np.pi * k * at / period)):
            added += (2**g - 1) * weight * np.outer(rows @ wave, wave)
    return x + added[:, :width]
