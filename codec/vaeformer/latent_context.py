"""What the context networks see of a coefficient: integer features of decoded neighbours, parents, bands and channels.

A point is normalised by the activity around it, so that one set of networks serves every variable, resolution and
ratio: they see shape, and answer in units of the activity (DESIGN 4; the refinement pyramid does the same).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.contexts import BINS, FEATURE_MAX, FEATURE_ONE, MEAN_ONE, log_index
from isopress.codec.entropy import TAILS
from isopress.codec.intnet import F32, Network
from isopress.codec.predictor import LOG_ONE, MEAN_REACH, SCALE_REACH
from isopress.codec.scratch import Scratch
from isopress.codec.vaeformer.maps import PAD, BandMaps, LevelMaps, box, wide, wrap

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


class BandContext:
    """Contexts of one band: grows with every phase that is decoded."""

    def __init__(self, maps: LevelMaps, band: int, related: Related | None) -> None:
        self.maps, self.band, self.related = maps, band, related
        self.height, self.width = maps.level.band(band)
        self.own = np.zeros_like(maps.bend)
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
        own_smooth = box(np.abs(self.own)) if index else self.own
        return PhaseContext(self, index, own_smooth, self.rest + own_smooth * np.float32(2))

    def set(self, index: int, values: F32) -> None:
        """Take in the decoded values (n,) of a phase, in units."""
        y, x = PHASES[index]
        target = self.own[PAD + y : PAD + self.height : 2, PAD + x : PAD + self.width : 2]
        target[...] = values.reshape(target.shape)
        if self.maps.level.periodic:
            wrap(self.own)

    def inner(self) -> NDArray[np.float64]:
        """Return the values of the band (h, w) without its padding."""
        return self.own[PAD : PAD + self.height, PAD : PAD + self.width].astype(np.float64)

    def finish(self) -> BandMaps:
        """Return the maps of the whole band."""
        return BandMaps.of(self.own)


class PhaseContext:
    """The points of one phase: their activity, and the features of any of them."""

    def __init__(self, band: BandContext, index: int, own_smooth: F32, activity: F32) -> None:
        self.band, self.index, self.own_smooth = band, index, own_smooth
        y, x = PHASES[index]
        rows = np.arange(y, band.height, 2)
        columns = np.arange(x, band.width, 2)
        stride = activity.shape[1]
        self.at = ((rows[:, None] + PAD) * stride + columns + PAD).ravel()
        rough = log_index(activity.ravel()[self.at] + np.float32(FLOOR)) - FLOOR_INDEX
        self.rough = np.minimum(rough, INDEXES - 1).astype(np.int32)
        parent_stride = band.maps.parents[0].values.shape[1]
        # At the coarsest level the parents are zeros of this level's own shape.
        self.parent_at = (((rows // 2)[:, None] + PAD) * parent_stride + columns // 2 + PAD).ravel()

    def features(self, points: NDArray[np.intp], scratch: Scratch) -> F32:
        """Return integer features (ALONE [+ RELATED] + 1, M) of some points, the last row ones."""
        related = self.band.related
        at, rough = self.at[points], self.rough[points]
        out = scratch.array("latent features", np.float32)(ALONE + (RELATED if related else 0) + 1, len(points))
        out[-1] = 1
        rows = _Rows(out, at, self.own_smooth.shape[1])
        self._signed(rows, self.parent_at[points])
        self._pooled(rows)
        scale = FEATURE_OF[rough]
        out[: SIGNED + POOLED] *= scale
        if related:
            _related_rows(_Rows(out, at, self.own_smooth.shape[1], ALONE), related)
            out[ALONE : ALONE + RELATED - 3] *= scale
            out[ALONE + RELATED - 1] = FEATURE_ONE
        self._logs(out, rows.next, at, rough)
        out[ALONE - FLAGS : ALONE] = 0
        out[ALONE - FLAGS + self.index] = FEATURE_ONE
        np.rint(out, out=out)
        return np.clip(out, -FEATURE_MAX, FEATURE_MAX, out=out)

    def _signed(self, rows: _Rows, parent_at: Index) -> None:
        """Fill the values of neighbours, of the bands before this one, of parents, and the bends of the low band."""
        band, maps = self.band, self.band.maps
        rows.take(band.own, _RING)
        for other in [*maps.bands, None, None][:2]:
            rows.take(other.values if other else None, _NINE)
        same, first, second = (maps.parents[(band.band + k) % 3].values for k in range(3))
        parent = _Rows(rows.out, parent_at, same.shape[1], rows.next)
        parent.take(same, _NINE)
        parent.take(first, _NINE[:1])
        parent.take(second, _NINE[:1])
        rows.next = parent.next
        rows.take(maps.bend_x, _CROSS)
        rows.take(maps.bend_y, _CROSS)

    def _pooled(self, rows: _Rows) -> None:
        """Fill magnitudes of the same, by direction, and of the other parents and what is around them."""
        magnitude = np.abs(rows.out[:SIGNED])
        rows.pool(magnitude[:8])
        for start in (8, 17, 26):
            rows.pool(magnitude[start + 1 : start + 9], magnitude[start])
        for k, start in ((1, 35), (2, 36)):
            rows.put(magnitude[start])
            rows.take(self.band.maps.parent_smooth[(self.band.band + k) % 3], _NINE[:1])

    def _logs(self, out: F32, start: int, at: Index, rough: NDArray[np.int32]) -> None:
        """Fill the logarithmic features: activity in steps, and its parts in units of it."""
        band, maps = self.band, self.band.maps
        earlier = [m.smooth for m in maps.bands] + [None, None]
        parts = [self.own_smooth, *earlier[:2], maps.parent_smooth[band.band], maps.bend, band.far]
        out[start] = rough - 48
        centre = rough + FLOOR_INDEX
        for k, part in enumerate(parts):
            out[start + 1 + k] = 0 if part is None else log_index(part.ravel()[at] + np.float32(4)) - centre
        if band.related:
            for k, part in enumerate((band.related.newest.smooth, band.related.history.smooth)):
                out[ALONE + RELATED - 3 + k] = log_index(part.ravel()[at] + np.float32(4)) - centre


def _related_rows(rows: _Rows, related: Related) -> None:
    """Fill values and magnitudes of the newest channel at the same place, and magnitudes of all."""
    start = rows.next
    rows.take(related.newest.values, _NINE)
    magnitude = np.abs(rows.out[start : start + 9])
    rows.pool(magnitude[1:], magnitude[0])
    rows.take(related.history.values, _NINE[:1])
    rows.take(related.history.smooth, _NINE[:1])


class _Rows:
    """Fills the rows of a feature matrix one after another."""

    def __init__(self, out: F32, at: Index, stride: int, start: int = 0) -> None:
        self.out, self.stride, self.next = out, stride, start
        self.lead = stride + 1  # no offset reaches farther back; maps are padded by more
        self.at = at - self.lead

    def take(self, map_: F32 | None, offsets: tuple[tuple[int, int], ...]) -> None:
        """Add a row for each offset from the points; zeros if there is no map."""
        if map_ is None:
            self.out[self.next : self.next + len(offsets)] = 0
        else:
            flat = map_.ravel()
            for row, (dy, dx) in enumerate(offsets, self.next):
                flat[self.lead + dy * self.stride + dx :].take(self.at, out=self.out[row], mode="clip")
        self.next += len(offsets)

    def put(self, values: F32) -> None:
        """Add one row."""
        self.out[self.next] = values
        self.next += 1

    def pool(self, ring: F32, centre: F32 | None = None) -> None:
        """Add mean magnitudes of the neighbours beside, above and below, and diagonal."""
        if centre is not None:
            self.put(centre)
        half = np.float32(0.5)
        self.put((ring[0] + ring[1]) * half)
        self.put((ring[2] + ring[3]) * half)
        self.put(((ring[4] + ring[5]) + (ring[6] + ring[7])) * (half * half))


def predict(
    phase: PhaseContext, network: Network, quiet: NDArray[np.int16], depth: int, scratch: Scratch
) -> Prediction:
    """Return what is known of the points of a phase: networks where there is activity, a table where there is none.

    quiet : (2, Q) scale index and tail class by activity index; from Q on, a point is worth a network.
    """
    n = len(phase.at)
    mean = np.zeros(n, np.float32)
    low = np.minimum(phase.rough, quiet.shape[1] - 1)
    scale, tail = quiet[0][low], quiet[1][low].astype(np.int8)
    active = np.flatnonzero(phase.rough >= quiet.shape[1])
    for start in range(0, len(active), BLOCK):
        points = active[start : start + BLOCK]
        out = network(phase.features(points, scratch), depth, scratch)
        rough = phase.rough[points]
        mean[points] = np.rint(np.clip(out[0], -MEAN_REACH, MEAN_REACH) * MEAN_OF[rough])
        scale[points] = rough + np.clip(out[1], -SCALE_REACH, SCALE_REACH).astype(np.int16)
        tail[points] = np.clip(out[2], 0, TAILS - 1)
    return Prediction(mean, scale, tail, active)
