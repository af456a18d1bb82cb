"""What the context networks see of a coefficient: integer features of decoded neighbours, parents, bands and channels.

A point is normalised by the activity around it, so that one set of networks serves every variable, resolution and
ratio: they see shape, and answer in units of the activity (DESIGN 4; the refinement pyramid does the same).

    Band(maps, level, number, related)   one band while it is decoded
      for phase in band.phases():     points of one parity of row and column, at most four phases
        phase.features(points, ...)   what the network sees of some of them
        phase.put(mean, symbols)      the next phase sees them
      band.finish()                   values, and maps for later bands, levels and channels
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import BINS, FEATURE_MAX, FEATURE_ONE, MEAN_ONE, log_index
from isopress.codec.bounded.predictor import LOG_ONE
from isopress.codec.latent.context_maps import BANDS, PAD, BandMaps, LevelMaps, box, box_at, wide, wrap
from isopress.codec.native import maps as kernels
from isopress.codec.native.contexts import Contexts, context_plan
from isopress.codec.native.dispatch import Kept, compiled

F32 = NDArray[np.float32]
Index = NDArray[np.intp]

UNITS = 64  # integer units of one step
FLOOR = 8.0  # units added to every activity: what zeros around a point still allow
FLOOR_INDEX = LOG_ONE + 3 * BINS  # log_index(FLOOR)
INDEXES = 8 * 24  # activity indexes: twenty-four octaves above the floor
DEPTHS = 6  # biases exist for the finest levels 0..5; coarser ones share the last
PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # parities (lat, lon) of a band's points, in coding order

RING = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
CROSS = ((0, 0), *RING[:4])
NINE = ((0, 0), *RING)
SEEN = ((), range(4, 8), range(4), range(8))  # which of the ring are decoded before a phase
POOLS = ((0, 1), (2, 3), (4, 5, 6, 7))  # of the ring: beside, above and below, diagonal

# Numbers of the maps that features are gathered from.
OWN, EARLIER, PARENTS, BEND_X, BEND_Y = 0, 1, 3, 6, 7  # two earlier bands; parents of this band and of the two others
SAME_SMOOTH, PARENT_SMOOTH, EARLIER_SMOOTH, BEND, FAR = 8, 9, (11, 12), 13, 14
NEWEST, NEWEST_SMOOTH, HISTORY, HISTORY_SMOOTH = 15, 16, 17, 18
MAPS = 19
ACTIVITY, OWN_SMOOTH = 19, 20  # known for the points of a phase alone

SIGNED = 8 + 9 + 9 + 9 + 2 + 5 + 5
POOLED = 3 + 4 + 4 + 4 + 4
LOGS = 7
FLAGS = 4
ALONE = SIGNED + POOLED + LOGS + FLAGS
RELATED = 9 + 4 + 2 + 2 + 1  # features of channels coded before; the last says that there are any


@dataclass(frozen=True)
class Related:
    """The same band of channels coded before: the newest one's maps, and mean magnitudes of all, newer heavier."""

    newest: BandMaps
    history: BandMaps


def tables() -> tuple[F32, F32]:
    """Return per activity index the feature multiplier and the units of one output of the mean."""
    exponent, mantissa = np.divmod(np.arange(INDEXES) + FLOOR_INDEX, BINS)
    centre = np.ldexp(1.0 + (mantissa + 0.5) / BINS, exponent - 127)
    return (FEATURE_ONE / centre).astype(np.float32), (centre / MEAN_ONE).astype(np.float32)


FEATURE_OF, MEAN_OF = tables()


@dataclass(frozen=True)
class Plan:
    """Which features of a phase depend on what was decoded, and how they are made; the others are known or zero.

    rows : of all features those that do, ascending; a feature's place among them is its slot
    known : (row, value) of the others that are not zero
    gathered : (slot, map, dy, dx), the value of a map beside the point
    pooled : (slot, slots), the mean magnitude of some gathered features
    logs : (slot, map), the logarithm of a part of the activity
    scaled : stretches (start, stop) of slots that count in units of the activity
    """

    rows: tuple[int, ...]
    known: tuple[tuple[int, int], ...]
    gathered: tuple[tuple[int, int, int, int], ...]
    pooled: tuple[tuple[int, tuple[int, ...]], ...]
    logs: tuple[tuple[int, int], ...]
    scaled: tuple[tuple[int, int], ...]

    @property
    @cache  # noqa: B019 - there are few, and they live as long as the process
    def kept(self) -> Kept:
        """What the compiled kernels know of it."""
        pooled = [(slot, len(of), *of, *(0,) * (4 - len(of))) for slot, of in self.pooled]
        scaled = [*self.scaled, (0, 0)][:2]
        parts = [np.array(rows, np.int32) for rows in (self.gathered, pooled, self.logs, scaled)]
        return context_plan(len(self.rows), *parts)


@dataclass(frozen=True)
class Feature:
    """How one feature is made: from a map beside the point, as the pool of some rows, as a logarithm, or known."""

    map: int = -1
    offset: tuple[int, int] = (0, 0)
    pool: tuple[int, ...] = ()
    log: bool = False
    known: int = 0


def _features(index: int) -> list[Feature]:
    """Return all features of a phase in the order of the network's inputs."""
    made = [Feature(OWN, at) for at in RING]
    made += [Feature(EARLIER + k, at) for k in range(2) for at in NINE]
    made += [*(Feature(PARENTS, at) for at in NINE), Feature(PARENTS + 1), Feature(PARENTS + 2)]
    made += [Feature(bend, at) for bend in (BEND_X, BEND_Y) for at in CROSS]
    made += _pools(0)
    for centre in (8, 17, 26):
        made += [Feature(pool=(centre,)), *_pools(centre + 1)]
    for k in range(2):
        made += [Feature(pool=(35 + k,)), Feature(PARENT_SMOOTH + k)]
    made += [Feature(map_, log=True) for map_ in (ACTIVITY, OWN_SMOOTH, *EARLIER_SMOOTH, SAME_SMOOTH, BEND, FAR)]
    made += [Feature(known=FEATURE_ONE * (k == index)) for k in range(FLAGS)]
    made += [*(Feature(NEWEST, at) for at in NINE), Feature(pool=(ALONE,)), *_pools(ALONE + 1)]
    made += [Feature(HISTORY), Feature(HISTORY_SMOOTH)]
    return [*made, Feature(NEWEST_SMOOTH, log=True), Feature(HISTORY_SMOOTH, log=True), Feature(known=FEATURE_ONE)]


def _pools(ring: int) -> list[Feature]:
    return [Feature(pool=tuple(ring + k for k in pool)) for pool in POOLS]


@cache
def plan(earlier: int, index: int, related: bool) -> Plan:
    """Return the plan of phase 0..3 of a band with 0..2 bands of its level before it."""
    features = _features(index)[: ALONE + RELATED * related]
    missing = {m for k in range(earlier, 2) for m in (EARLIER + k, EARLIER_SMOOTH[k])}
    slots: dict[int, int] = {}
    for row, feature in enumerate(features):
        unseen = feature.map == OWN and RING.index(feature.offset) not in SEEN[index]
        there = set(feature.pool) <= slots.keys() if feature.pool else feature.map >= 0
        if there and not unseen and feature.map not in missing:
            slots[row] = len(slots)
    live = [(slot, features[row]) for row, slot in slots.items()]
    scaled = [(0, slots[SIGNED + POOLED])]
    if related:
        scaled.append((slots[ALONE], slots[ALONE + RELATED - 3]))
    return Plan(
        tuple(slots),
        tuple((row, feature.known) for row, feature in enumerate(features) if feature.known),
        tuple((slot, f.map, *f.offset) for slot, f in live if f.map >= 0 and not f.log),
        tuple((slot, tuple(slots[row] for row in f.pool)) for slot, f in live if f.pool),
        tuple((slot, f.map) for slot, f in live if f.log),
        tuple(scaled),
    )


class Band:
    """One band while it is decoded: grows with every phase."""

    def __init__(self, maps: LevelMaps, level: int, number: int, related: Related | None) -> None:
        self.maps, self.level, self.number, self.related = maps, level, number, related
        self.place = maps.level.bands[number]
        self.own = np.zeros_like(maps.bend)
        self.magnitude = np.zeros_like(maps.bend)
        self.rest, self.far = self._activity()
        self.sources = self._sources()

    def _activity(self) -> tuple[F32, F32]:
        """Return what is known of the activity around every point before the band, and its wide means."""
        maps, related = self.maps, self.related
        up = [maps.parent_smooth[(self.number + k) % BANDS] for k in range(BANDS)]
        if compiled():
            earlier = [*(other.smooth for other in maps.bands), None, None][:2]
            others = (related.newest.smooth, related.history.smooth) if related else (None, None)
            return kernels.rest((maps.bend, *up, *earlier, *others))
        rest = maps.bend * np.float32(0.25) + up[0]
        rest += np.float32(0.25) * (up[1] + up[2])
        for other in maps.bands:
            rest += other.smooth
        if related:
            rest += related.newest.smooth
            rest += np.float32(0.5) * related.history.smooth
        return rest, wide(rest)

    def _sources(self) -> dict[int, F32]:
        """Return the maps that features are gathered from, by number."""
        maps, related = self.maps, self.related
        found = {OWN: self.own, BEND_X: maps.bend_x, BEND_Y: maps.bend_y, BEND: maps.bend, FAR: self.far}
        for k, earlier in enumerate(maps.bands):
            found |= {EARLIER + k: earlier.values, EARLIER_SMOOTH[k]: earlier.smooth}
        for k in range(BANDS):
            other = (self.number + k) % BANDS
            found |= {PARENTS + k: maps.parents[other].values, SAME_SMOOTH + k: maps.parent_smooth[other]}
        if related:
            found |= {NEWEST: related.newest.values, NEWEST_SMOOTH: related.newest.smooth}
            found |= {HISTORY: related.history.values, HISTORY_SMOOTH: related.history.smooth}
        return found

    def phases(self) -> Iterator[Phase]:
        """Yield the phases that have points, in coding order; each must be `put` before the next."""
        for index in range(len(PHASES)):
            phase = Phase(self, index)
            if phase.size:
                yield phase

    def finish(self) -> tuple[F32, BandMaps]:
        """Return the values of the band (h, w), and its maps; a view of them."""
        h, w = self.place.shape
        values = self.own[PAD : PAD + h, PAD : PAD + w]
        return values, BandMaps(self.own, box(self.magnitude, self.maps.level))


class Phase:
    """The points of one phase: every second row and value of the strips of a band, strip by strip, in C order.

    size : how many there are
    """

    def __init__(self, band: Band, index: int) -> None:
        self.band, self.index, self.parity = band, index, PHASES[index]
        self.plan = plan(len(band.maps.bands), index, band.related is not None)
        (y, x), self.size = self.parity, 0
        for strip in band.place.strips:
            rows = (strip.stop - strip.start - strip.first(y) + 1) // 2
            self.size += max(rows, 0) * max((strip.count - x + 1) // 2, 0)
        self._around: tuple[NDArray[np.int32], F32] | None = None

    @property
    def rough(self) -> NDArray[np.int32]:
        """Activity index of every point."""
        return self._look()[0]

    @property
    def own_smooth(self) -> F32:
        """Smoothed magnitude of the band around every point, as far as it is decoded before this phase."""
        return self._look()[1]

    def _look(self) -> tuple[NDArray[np.int32], F32]:
        if self._around is None:
            rest = self.take(self.band.rest)
            smooth = np.zeros_like(rest)
            if self.index:
                parts, (y, x) = list[F32](), self.parity
                for strip in self.band.place.strips:
                    parts.append(box_at(self.band.magnitude, strip, strip.first(y), x).ravel())
                smooth = _joined(parts)
            activity = smooth * np.float32(2) + rest
            rough = log_index(activity + np.float32(FLOOR)) - FLOOR_INDEX
            self._around = np.minimum(rough, INDEXES - 1, out=rough), smooth
        return self._around

    def parts(self, most: int) -> list[tuple[NDArray[np.int32], int]]:
        """Cut the strips of the band into tables (n, 4) with about `most` points of the phase each; and how many."""
        (y, x), cut = self.parity, list[tuple[NDArray[np.int32], int]]()
        rows, size = list[tuple[int, int, int, int]](), 0
        for strip in self.band.place.strips:
            across = max((strip.count - x + 1) // 2, 0)
            height = 2 * max(1, most // max(across, 1))
            for start in range(strip.start, strip.stop, height):
                stop = min(start + height, strip.stop)
                rows.append((start, stop, strip.count, strip.stride))
                size += (stop - start + 1 - (y - start) % 2) // 2 * across
                if size >= most:
                    cut.append((np.array(rows, np.int32), size))
                    rows, size = [], 0
        if rows:
            cut.append((np.array(rows, np.int32), size))
        return cut

    def contexts(self, network: Kept, quiet: NDArray[np.int16], strips: NDArray[np.int32]) -> Contexts:
        """Return what the compiled kernels take to predict the points of some strips: a network of the plan's rows, and
        what is known of quiet points (2, Q)."""
        band, maps = self.band, self.band.maps
        parents = np.empty((0, 4), np.int32) if maps.parent_table is None else maps.parent_table
        sources = tuple(band.sources.get(number) for number in range(MAPS))
        return Contexts(
            self.plan.kept, network, sources, band.magnitude, band.rest,
            maps.parents[0].values.shape, strips, parents, self.parity, not self.index,
            np.ascontiguousarray(quiet), (FEATURE_OF, MEAN_OF),
        )  # fmt: skip

    def take(self, map_: NDArray[np.floating], pad: int = PAD) -> F32:
        """Return the values (n,) of all points, float32, in an array that is padded by so much."""
        if compiled() and not pad and map_.dtype == np.float32:
            return kernels.take(np.ascontiguousarray(map_, np.float32), self.band.place.table, self.parity, self.size)
        parts, (y, x) = list[NDArray[np.floating]](), self.parity
        for strip in self.band.place.strips:
            parts.append(strip.cells(map_[pad:, pad:])[strip.first(y) :: 2, x::2].ravel())
        return _joined(parts)

    def put(self, mean: F32, symbols: NDArray[np.int32]) -> None:
        """Enter the decoded values of all points, means in units and symbols in steps (n,), in the columns that they
        stand for."""
        if compiled():
            place = self.band.place.table, self.parity, self.band.maps.level.periodic
            kernels.enter((mean, symbols), *place, self.band.own, self.band.magnitude)
            return
        values = mean + symbols.astype(np.float32) * np.float32(UNITS)
        if not values.any():
            return
        magnitude = np.abs(values)
        (y, x), start = self.parity, 0
        for strip in self.band.place.strips:
            first = strip.start + strip.first(y)
            shape = (strip.stop - first + 1) // 2, (strip.count - x + 1) // 2
            here = slice(start, start + shape[0] * shape[1])
            for map_, all_ in ((self.band.own, values), (self.band.magnitude, magnitude)):
                cells, inner = all_[here].reshape(shape), map_[PAD:-PAD, PAD:-PAD]
                for k in range(strip.stride):
                    columns = slice(x * strip.stride + k, strip.count * strip.stride, 2 * strip.stride)
                    target = inner[first : strip.stop : 2, columns]
                    target[...] = cells[:, : target.shape[1]]
            start = here.stop
        if self.band.maps.level.periodic:
            wrap(self.band.own)
            wrap(self.band.magnitude)

    def all_features(self, points: Index) -> F32:
        """Return the integer features (ALONE [+ RELATED] + 1, M) of some points, the last row ones."""
        out = np.zeros((ALONE + RELATED * (self.band.related is not None) + 1, len(points)), np.float32)
        out[[*self.plan.rows, -1]] = self.features(points, Scratch())
        for row, value in self.plan.known:
            out[row] = value
        return out

    def features(self, points: Index, scratch: Scratch) -> F32:
        """Return those features of some points that depend on what was decoded, and a last row of ones."""
        todo, sources, rough = self.plan, self.band.sources, self.rough[points]
        out = scratch.array("latent features", np.float32, len(todo.rows) + 1, len(points))
        out[-1] = 1
        here, parents = self._places(points)
        for slot, number, dy, dx in todo.gathered:
            pitch, at, right = parents if PARENTS <= number < PARENTS + BANDS else here
            # No offset reaches farther back than `pitch + 1`, which was taken off; maps are padded by more.
            flat = sources[number].ravel()[(1 + dy) * pitch + 1 + dx :]
            flat.take(right if dx > 0 else at, out=out[slot], mode="clip")
        for slot, (first, *more) in todo.pooled:
            _pool(out, slot, first, more)
        scale = FEATURE_OF[rough]
        for start, stop in todo.scaled:
            out[start:stop] *= scale
        centre = rough + FLOOR_INDEX
        for slot, number in todo.logs:
            if number == ACTIVITY:
                out[slot] = rough - 48
                continue
            part = self.own_smooth[points] if number == OWN_SMOOTH else sources[number].ravel()[here[1] + here[0] + 1]
            part += np.float32(4)
            np.subtract(log_index(part), centre, out=out[slot], casting="unsafe")
        np.rint(out, out=out)
        return np.clip(out, -FEATURE_MAX, FEATURE_MAX, out=out)

    def _places(self, points: Index) -> tuple[Place, Place]:
        """Return where some points are in the maps of their level, and where their parents are in theirs."""
        (y, x), table, maps = self.parity, self.band.place.table.astype(np.intp), self.band.maps
        width, strides = maps.level.low.shape[1], None
        starts, stops, counts, all_ = table.T
        starts, lengths = starts + (y - starts) % 2, (counts - x + 1) // 2
        if len(table) == 1 and all_[0] == 1:
            row, column = np.divmod(points, lengths[0])
            rows, columns = 2 * row + starts[0], 2 * column + x
        else:
            last = ((stops - starts + 1) // 2 * lengths).cumsum()
            strip = np.searchsorted(last[:-1], points, "right")
            row, column = np.divmod(points - np.r_[0, last[:-1]][strip], lengths[strip])
            strides = all_[strip]
            rows, columns = 2 * row + starts[strip], (2 * column + x) * strides
        here = _place(rows, columns, strides, width, self.band.own.shape[1])
        rows, columns, strides = rows >> 1, columns >> 1, None
        if maps.parent_table is not None and maps.parent_table[:, 3].max() > 1:
            strides = maps.parent_table[np.searchsorted(maps.parent_table[:-1, 1], rows, "right"), 3]
            columns = columns & -strides
        # At the coarsest level the parents are zeros of this level's own shape.
        return here, _place(rows, columns, strides, -(-width // 2), maps.parents[0].values.shape[1])


Place = tuple[int, Index, Index]  # pitch of a padded map, flat indexes of points in it less pitch + 1: of the first
# and of the last column that their values stand for


def _place(rows: Index, columns: Index, strides: Index | None, width: int, pitch: int) -> Place:
    at = (rows + (PAD - 1)) * pitch + (columns + (PAD - 1))
    if strides is None:
        return pitch, at, at
    return pitch, at, at + (np.minimum(strides, width - columns) - 1)


def _pool(out: F32, slot: int, first: int, more: list[int]) -> None:
    """Fill a slot with the mean magnitude of one, two or four others, added in pairs."""
    total = np.abs(out[first], out=out[slot])
    if more:
        total += np.abs(out[more[0]])
        if more[1:]:
            total += np.abs(out[more[1]]) + np.abs(out[more[2]])
        total *= np.float32(1 / (1 + len(more)))


def _joined(parts: list[NDArray[Any]]) -> F32:
    if len(parts) == 1:
        return parts[0].astype(np.float32, copy=False)
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)
