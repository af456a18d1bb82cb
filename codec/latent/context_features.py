"""What the context networks see of a coefficient: integer features of decoded neighbours, parents, bands and channels.

A point is normalised by the activity around it, so that one set of networks serves every variable, resolution and
ratio: they see shape, and answer in units of the activity (DESIGN 4; the refinement pyramid does the same).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import BINS, FEATURE_MAX, FEATURE_ONE, MEAN_ONE, log_index
from isopress.codec.bounded.predictor import LOG_ONE, MEAN_REACH, SCALE_REACH
from isopress.codec.entropy.coder import TAILS
from isopress.codec.entropy.integer_mlp import F32, Network
from isopress.codec.latent.context_maps import PAD, BandMaps, LevelMaps, wide, wrap
from isopress.codec.latent.context_points import Points, Where

Index = NDArray[np.intp]

UNITS = 64  # integer units of one step
FLOOR = 8.0  # units added to every activity: what zeros around a point still allow
FLOOR_INDEX = LOG_ONE + 3 * BINS  # log_index(FLOOR)
INDEXES = 8 * 24  # activity indexes: twenty-four octaves above the floor
DEPTHS = 6  # biases exist for the finest levels 0..5; coarser ones share the last
BLOCK = 8192
PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # parities (lat, lon) of a band's points, in coding order

_RING = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
_CROSS = ((0, 0), *_RING[:4])
_NINE = ((0, 0), *_RING)
_SEEN = ((), range(4, 8), range(4), range(8))  # which of the ring are decoded before a phase

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


@dataclass(frozen=True)
class Prediction:
    """Mean (float32, integers in units), scale index (int16) and tail class (int8) of the points of one phase.

    active : which of the points a network was asked about, ascending
    """

    mean: F32
    scale: NDArray[np.int16]
    tail: NDArray[np.int8]
    active: Index


def tables() -> tuple[F32, F32]:
    """Return per activity index the feature multiplier and the units of one output of the mean."""
    exponent, mantissa = np.divmod(np.arange(INDEXES) + FLOOR_INDEX, BINS)
    centre = np.ldexp(1.0 + (mantissa + 0.5) / BINS, exponent - 127)
    return (FEATURE_ONE / centre).astype(np.float32), (centre / MEAN_ONE).astype(np.float32)


FEATURE_OF, MEAN_OF = tables()


@dataclass(frozen=True)
class Live:
    """Which features of a phase depend on what was decoded: the others are zero, or have a value known beforehand.

    rows : of all features those that do, ascending
    known : (row, value) of the others that are not zero
    slots : by row its place among `rows`, or -1
    """

    rows: tuple[int, ...]
    known: tuple[tuple[int, int], ...]
    slots: tuple[int, ...]


@cache
def live(earlier: int, index: int, related: bool) -> Live:
    """Return what is live in phase 0..3 of a band with 0..2 bands of its level before it."""
    pooled, logs = SIGNED, SIGNED + POOLED
    dead = {k for k in range(8) if k not in _SEEN[index]}
    dead |= {pooled + k for k, ring in enumerate(((0, 1), (2, 3), (4, 5, 6, 7))) if dead.issuperset(ring)}
    for k in range(earlier, 2):
        dead |= {*range(8 + 9 * k, 17 + 9 * k), *range(pooled + 3 + 4 * k, pooled + 7 + 4 * k), logs + 2 + k}
    known = [(ALONE - FLAGS + index, FEATURE_ONE)]
    dead |= set(range(ALONE - FLAGS, ALONE))
    if related:
        known.append((ALONE + RELATED - 1, FEATURE_ONE))
        dead.add(ALONE + RELATED - 1)
    rows = [row for row in range(ALONE + RELATED * related) if row not in dead]
    slots = np.full(ALONE + RELATED, -1)
    slots[rows] = np.arange(len(rows))
    return Live(tuple(rows), tuple(known), tuple(slots.tolist()))


class BandContext:
    """Contexts of one band: grows with every phase that is decoded."""

    def __init__(self, maps: LevelMaps, band: int, related: Related | None) -> None:
        self.maps, self.band, self.related = maps, band, related
        self.height, self.width = maps.level.band(band)
        self.strips = maps.level.strips(band)
        self.own = np.zeros_like(maps.bend)
        self.magnitude = np.zeros_like(maps.bend)
        self.rest = maps.bend * np.float32(0.25) + maps.parent_smooth[band]
        self.rest += np.float32(0.25) * (maps.parent_smooth[(band + 1) % 3] + maps.parent_smooth[(band + 2) % 3])
        for other in maps.bands:
            self.rest += other.smooth
        if related:
            self.rest += related.newest.smooth
            self.rest += np.float32(0.5) * related.history.smooth
        self.far = wide(self.rest)

    def phase(self, index: int) -> PhaseContext:
        """Return the contexts of phase 0..3, all phases before it having been set."""
        points = Points(self.strips, PHASES[index])
        rest = points.take(self.rest)
        own_smooth = points.box(self.magnitude) if index else np.zeros_like(rest)
        return PhaseContext(self, index, points, own_smooth, own_smooth * np.float32(2) + rest)

    def set(self, phase: PhaseContext, values: F32) -> None:
        """Take in the decoded values (n,) of a phase, in units."""
        if values.any():
            phase.points.put(self.own, values)
            phase.points.put(self.magnitude, np.abs(values))
            if self.maps.level.periodic:
                wrap(self.own)
                wrap(self.magnitude)

    def inner(self) -> NDArray[np.float64]:
        """Return the values of the band (h, w) without its padding."""
        return self.own[PAD : PAD + self.height, PAD : PAD + self.width].astype(np.float64)

    def finish(self) -> BandMaps:
        """Return the maps of the whole band."""
        return BandMaps.of(self.own, self.magnitude, self.maps.level)


class PhaseContext:
    """The points of one phase: their activity, and the features of any of them."""

    def __init__(self, band: BandContext, index: int, points: Points, own_smooth: F32, activity: F32) -> None:
        self.band, self.index, self.points, self.own_smooth = band, index, points, own_smooth
        rough = log_index(activity + np.float32(FLOOR)) - FLOOR_INDEX
        self.rough = np.minimum(rough, INDEXES - 1, out=rough)
        self.live = live(len(band.maps.bands), index, band.related is not None)

    @property
    def size(self) -> int:
        """Number of points."""
        return self.rough.size

    def all_features(self, points: Index) -> F32:
        """Return the integer features (ALONE [+ RELATED] + 1, M) of some points, the last row ones."""
        count = ALONE + (RELATED if self.band.related else 0)
        out = np.zeros((count + 1, len(points)), np.float32)
        out[[*self.live.rows, -1]] = self.features(points, Scratch())
        for row, value in self.live.known:
            out[row] = value
        return out

    def features(self, points: Index, scratch: Scratch) -> F32:
        """Return those features of some points that are live, and a last row of ones."""
        related, slots, rough = self.band.related, self.live.slots, self.rough[points]
        out = scratch.array("latent features", np.float32, len(self.live.rows) + 1, len(points))
        out[-1] = 1
        where = self.points.where(points, self.band.maps.level.low[1])
        pitch = self.band.own.shape[1]
        at, right = where.flat(pitch)
        rows = _Rows(out, slots, at, right, pitch)
        self._signed(rows, where)
        self._pooled(rows)
        scale = FEATURE_OF[rough]
        out[: slots[SIGNED + POOLED]] *= scale
        if related:
            first, last = slots[ALONE], slots[ALONE + RELATED - 3]
            _related_rows(_Rows(out, slots, at, right, pitch, ALONE), related)
            out[first:last] *= scale
        self._logs(out, points, at, rough)
        np.rint(out, out=out)
        return np.clip(out, -FEATURE_MAX, FEATURE_MAX, out=out)

    def _signed(self, rows: _Rows, where: Where) -> None:
        """Fill the values of neighbours, of the bands before this one, of parents, and the bends of the low band."""
        band, maps = self.band, self.band.maps
        rows.take(band.own, _RING)
        for other in [*maps.bands, None, None][:2]:
            rows.take(other.values if other else None, _NINE)
        same, first, second = (maps.parents[(band.band + k) % 3].values for k in range(3))
        # At the coarsest level the parents are zeros of this level's own shape.
        parent = _Rows(rows.out, rows.slots, *where.parents(maps).flat(same.shape[1]), same.shape[1], rows.next)
        parent.take(same, _NINE)
        parent.take(first, _NINE[:1])
        parent.take(second, _NINE[:1])
        rows.next = parent.next
        rows.take(maps.bend_x, _CROSS)
        rows.take(maps.bend_y, _CROSS)

    def _pooled(self, rows: _Rows) -> None:
        """Fill magnitudes of the same, by direction, and of the other parents and what is around them."""
        magnitude = rows.magnitude(0, 37)
        rows.pool(magnitude, 0)
        for start in (8, 17, 26):
            rows.pool(magnitude, start + 1, start)
        for k, start in ((1, 35), (2, 36)):
            rows.put(magnitude[start])
            rows.take(self.band.maps.parent_smooth[(self.band.band + k) % 3], _NINE[:1])

    def _logs(self, out: F32, points: Index, at: Index, rough: NDArray[np.int32]) -> None:
        """Fill the logarithmic features: activity in steps, and its parts in units of it."""
        band, maps, slots = self.band, self.band.maps, self.live.slots
        earlier = [m.smooth for m in maps.bands] + [None, None]
        parts = [*earlier[:2], maps.parent_smooth[band.band], maps.bend, band.far]
        start = SIGNED + POOLED
        out[slots[start]] = rough - 48
        centre = rough + FLOOR_INDEX
        _log_row(out[slots[start + 1]], self.own_smooth[points], centre)
        for row, part in enumerate(parts, start + 2):
            if part is not None:
                _log_row(out[slots[row]], part.ravel()[at], centre)
        if band.related:
            for row, part in enumerate((band.related.newest.smooth, band.related.history.smooth), ALONE + RELATED - 3):
                _log_row(out[slots[row]], part.ravel()[at], centre)


def _log_row(out: F32, part: F32, centre: NDArray[np.int32]) -> None:
    """Fill a row with the logarithm of a part of the activity, fresh from its map, in units of the whole."""
    part += np.float32(4)
    np.subtract(log_index(part), centre, out=out, casting="unsafe")


def _related_rows(rows: _Rows, related: Related) -> None:
    """Fill values and magnitudes of the newest channel at the same place, and magnitudes of all."""
    rows.take(related.newest.values, _NINE)
    rows.pool(rows.magnitude(ALONE, ALONE + 9), ALONE + 1, ALONE)
    rows.take(related.history.values, _NINE[:1])
    rows.take(related.history.smooth, _NINE[:1])


class _Rows:
    """Fills the live rows of a feature matrix, one of all rows after another.

    at, right : flat indexes of the points, and of the last columns that their values stand for
    """

    def __init__(self, out: F32, slots: tuple[int, ...], at: Index, right: Index, pitch: int, start: int = 0) -> None:
        self.out, self.slots, self.pitch, self.next = out, slots, pitch, start
        self.lead = pitch + 1  # no offset reaches farther back; maps are padded by more
        self.at = at - self.lead
        self.right = self.at if right is at else right - self.lead

    def take(self, map_: F32 | None, offsets: tuple[tuple[int, int], ...]) -> None:
        """Go on by a row for each offset from the points; without a map they are dead."""
        if map_ is not None:
            flat = map_.ravel()
            for slot, (dy, dx) in zip(self.slots[self.next :], offsets, strict=False):
                if slot >= 0:
                    at = self.right if dx > 0 else self.at
                    flat[self.lead + dy * self.pitch + dx :].take(at, out=self.out[slot], mode="clip")
        self.next += len(offsets)

    def put(self, values: F32 | None) -> None:
        """Go on by one row; a dead one has no values."""
        if self.slots[self.next] >= 0:
            self.out[self.slots[self.next]] = values
        self.next += 1

    def magnitude(self, start: int, stop: int) -> dict[int, F32]:
        """Return the magnitudes of those of some rows that are live, one after another in memory."""
        rows = [row for row in range(start, stop) if self.slots[row] >= 0]
        values = np.abs(self.out[self.slots[rows[0]] : self.slots[rows[-1]] + 1])
        return dict(zip(rows, values, strict=True))

    def pool(self, magnitude: dict[int, F32], ring: int, centre: int | None = None) -> None:
        """Go on by the mean magnitudes of the neighbours beside, above and below, and diagonal, from row `ring`."""
        if centre is not None:
            self.put(magnitude.get(centre))
        for first, count in ((0, 2), (2, 2), (4, 4)):
            slot, self.next = self.slots[self.next], self.next + 1
            if slot >= 0:
                a, b, *more = (magnitude[ring + k] for k in range(first, first + count))
                np.add(a, b, out=self.out[slot])
                if more:
                    self.out[slot] += more[0] + more[1]
                self.out[slot] *= np.float32(1 / count)


def predict(
    phase: PhaseContext, network: Network, quiet: NDArray[np.int16], depth: int, scratch: Scratch
) -> Prediction:
    """Return what is known of the points of a phase: networks where there is activity, a table where there is none.

    quiet : (2, Q) scale index and tail class by activity index; from Q on, a point is worth a network.
    """
    mean = np.zeros(phase.size, np.float32)
    network = network.folded(phase.live.rows, phase.live.known)
    scale, tail = (one.take(phase.rough, mode="clip") for one in (quiet[0], quiet[1].astype(np.int8)))
    active = np.flatnonzero(phase.rough >= quiet.shape[1])
    for start in range(0, len(active), BLOCK):
        points = active[start : start + BLOCK]
        out = network(phase.features(points, scratch), depth, scratch)
        rough = phase.rough[points]
        mean[points] = np.rint(np.clip(out[0], -MEAN_REACH, MEAN_REACH) * MEAN_OF[rough])
        scale[points] = rough + np.clip(out[1], -SCALE_REACH, SCALE_REACH).astype(np.int16)
        tail[points] = np.clip(out[2], 0, TAILS - 1)
    return Prediction(mean, scale, tail, active)
