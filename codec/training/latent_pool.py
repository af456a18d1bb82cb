"""Training examples of the context networks: what they see when they code random crops at random steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from isopress.codec.entropy import tables
from isopress.codec.entropy.coder import SymbolWriter, high_part, split_scale
from isopress.codec.latent.coefficients import Channel, Latents, write_phase
from isopress.codec.latent.context_features import ALONE, DEPTHS, RELATED, UNITS
from isopress.codec.latent.context_maps import BANDS
from isopress.codec.latent.context_model import ContextModel, Prediction
from isopress.codec.latent.decorrelation import choose
from isopress.codec.latent.halvings import choose_ahead, part_seen
from isopress.codec.latent.reduced_grid import AnyLevel, levels
from isopress.codec.training.pyramid_pool import Field

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

STEPS = (0.012, 1.6)  # steps drawn log-uniformly, in standard deviations of the fields
BLOCKS = 0.45  # part of the crops that hold several fields
RATE = 0.135  # squared steps per bit: what a smaller step buys (measured: 0.25 degree ERA5, 30x to 400x)
QUIET_SYMBOLS = 4  # |symbol| 0..3 are counted where there is no activity
MAX_FIELDS = 12


@dataclass(frozen=True)
class Crop:
    """Channels (n, h, w) in steps, strongest first."""

    channels: F64
    levels: tuple[AnyLevel, ...]


@dataclass(frozen=True)
class Examples:
    """Active points of one band: features (N, n) int8, depth (N,) int8, rough (N,) int16, coefficient in steps (N,)
    float32, symbol (N,) int32 and weight (N,) float32."""

    features: NDArray[np.int8]
    depth: NDArray[np.int8]
    rough: NDArray[np.int16]
    target: F32
    weight: F32

    def __len__(self) -> int:
        return len(self.depth)

    @classmethod
    def join(cls, parts: Sequence[Examples]) -> Examples:
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in cls.__dataclass_fields__))


@dataclass(frozen=True)
class Pool:
    """Examples per band, weighted counts of symbols where it is quiet (BANDS, DEPTHS, Q, QUIET_SYMBOLS), and the
    mean log2 of what crops cost per value: bits, and squared steps of error by what a bit buys."""

    examples: tuple[Examples, ...]
    quiet: F64
    cost: float


def crops(fields: Sequence[Field], rng: np.random.Generator, points: int) -> Iterator[Crop]:
    """Draw crops of about `points` values for ever: variables by the root of their size, ERA5 and kin doubly."""
    weight = np.array([drawn_as_often(f) for f in fields])
    weight /= weight.sum()
    while True:
        field = fields[int(rng.choice(len(fields), p=weight))]
        pieces = _piece(field, rng, points)
        pieces = pieces[:, :: rng.choice((-1, 1)), :: rng.choice((-1, 1))] * rng.choice((-1, 1))
        step = field.deviation * np.exp(rng.uniform(*np.log(STEPS)))
        y = (pieces - pieces.mean()) / step
        if len(y) > 1:
            y = choose(y, 1.0)[0].forward(y, 0)
        yield Crop(y, levels(y.shape[1], y.shape[2], False, choose_ahead(part_seen(y))))


def drawn_as_often(field: Field) -> float:
    """Return how often a variable is drawn, relative to others."""
    times, depth, height, width = field.values.shape
    return float(np.sqrt(height * width) * (1 + field.is_kin) * (1 + min(8, times * depth)) / 2)


def _piece(field: Field, rng: np.random.Generator, points: int) -> F64:
    times, depth, height, width = field.values.shape
    at: tuple[slice | int, ...]
    if times * depth > 1 and rng.random() < BLOCKS:
        axis = 0 if depth == 1 or (times > 1 and rng.random() < 0.6) else 1
        length = (times, depth)[axis]
        count = int(rng.integers(2, min(length, MAX_FIELDS) + 1))
        stride = int(rng.integers(1, max(1, min(3, (length - 1) // (count - 1))) + 1))
        start = int(rng.integers(0, length - (count - 1) * stride))
        run = slice(start, start + (count - 1) * stride + 1, stride)
        at = (run, int(rng.integers(depth))) if axis == 0 else (int(rng.integers(times)), run)
    else:
        count, start = 1, int(rng.integers(times))
        at = (slice(start, start + 1), int(rng.integers(depth)))
    side = max(64, int(np.sqrt(points / count)))
    tall, broad = side * 4 // 5, side * 5 // 4
    y0 = int(rng.integers(0, max(0, height - tall) + 1))
    x0 = int(rng.integers(0, max(0, width - broad) + 1))
    return np.asarray(field.values[at][:, y0 : y0 + tall, x0 : x0 + broad], np.float64)


def pool(source: Iterator[Crop], model: ContextModel, points: int, threads: int, trade: float) -> Pool:
    """Return examples from crops of `points` values in all (fewer if `source` ends)."""
    parts: list[list[Examples]] = [[] for _ in range(BANDS)]
    quiet = np.zeros((BANDS, DEPTHS, model.quiet.shape[-1], QUIET_SYMBOLS))
    costs, count = [], 0
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        while count < points:
            batch = list(islice(source, 4 * threads))
            if not batch:
                break
            for crop, found in zip(batch, executor.map(lambda c: _coded(c, model, trade), batch), strict=True):
                for band, more in enumerate(found.examples):
                    parts[band].append(more)
                quiet += found.quiet
                costs.append(found.cost)
                count += crop.channels.size
    return Pool(tuple(Examples.join(p) for p in parts), quiet, float(np.mean(costs)))


def _coded(crop: Crop, model: ContextModel, trade: float) -> Pool:
    """Code one crop as the encoder does; return what its contexts saw."""
    seen: list[list[tuple[int, NDArray[np.int8], I32, F32]]] = [[] for _ in range(BANDS)]
    quiet = np.zeros((BANDS, DEPTHS, model.quiet.shape[-1], QUIET_SYMBOLS))
    bits = error = 0.0
    writer, offset, before = SymbolWriter(peaked=True), 0, None
    for latents in (Latents.of(y, crop.levels) for y in crop.channels):
        channel = Channel(np.rint(latents.top).astype(np.int64), crop.levels, latents.finest, before)
        for phase, predicted in channel.phases(model):
            band = phase.band.number
            depth = min(phase.band.maps.level.depth, DEPTHS - 1)
            target = phase.take(latents.bands[phase.band.level][band], pad=0)
            k, offset = write_phase(writer, target, predicted, offset, trade)
            bits += _ideal_bits(predicted, k)
            error += float(np.square(target - predicted.mean / UNITS - k).sum())
            calm = phase.rough < quiet.shape[2]
            active = np.flatnonzero(~calm)
            if active.size:
                f = phase.all_features(active)
                whole = np.zeros((active.size, ALONE + RELATED), np.int8)
                whole[:, : len(f) - 1] = f[:-1].T
                seen[band].append((depth, whole, phase.rough[active], target[active]))
            at = phase.rough[calm], np.minimum(np.abs(k[calm]), QUIET_SYMBOLS - 1)
            np.add.at(quiet[band, depth], at, 1.0)
            phase.put(predicted.mean, k)
        before = channel.related(before) if len(crop.channels) > 1 else None
    # The loss is the logarithm of a crop's size: every step counts the same, but crops that cost nothing do not rule.
    size = crop.channels.size
    padded = bits + 0.002 * size + 100
    examples = []
    for found in seen:
        n = [len(rough) for _, _, rough, _ in found]
        examples.append(
            Examples(
                np.concatenate([f for _, f, _, _ in found] or [np.zeros((0, ALONE + RELATED), np.int8)]),
                np.repeat([depth for depth, _, _, _ in found], n).astype(np.int8),
                np.concatenate([r for _, _, r, _ in found] or [np.zeros(0, np.int32)]).astype(np.int16),
                np.concatenate([t for _, _, _, t in found] or [np.zeros(0, np.float32)]),
                np.full(sum(n), 1 / padded, np.float32),
            )
        )
    return Pool(tuple(examples), quiet / padded, float(np.log2((padded + error / RATE) / size)))


def _ideal_bits(predicted: Prediction, k: I32) -> float:
    table, shift = split_scale(predicted.scale)
    tail = predicted.tail.astype(np.int32)
    limit = tables.support()[table + tables.SCALES * tail]
    high = np.abs(high_part(k, shift))
    return float((tables.cost()[tail, table, np.minimum(high, limit)] + shift).sum())


def quiet_tables(counts: F64) -> NDArray[np.int16]:
    """Return the scale index and tail class (BANDS, DEPTHS, 2, Q) that suit the counted symbols best."""
    cost = tables.cost()[..., :QUIET_SYMBOLS]  # (TAILS, SCALES, symbols)
    prior = np.array([0.9999, 1e-4, 1e-5, 1e-6]) * counts.sum() / 1e5
    total = np.einsum("bdqs,tks->bdqtk", counts + prior, cost)
    best = total.reshape(*total.shape[:3], -1).argmin(-1)
    tail, table = np.divmod(best, tables.SCALES)
    return np.stack([table + tables.FIRST_SCALE, tail], 2).astype(np.int16)
