"""Training examples of the pyramid: what its networks see when they code random crops at random bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from isopress.codec.contexts import CONTEXTS, ROUGHNESS_FLOOR, UNITS, Context, scale_tables
from isopress.codec.intnet import IntegerNetwork
from isopress.codec.predictor import (
    F64,
    LEVELS,
    Features,
    Neighbours,
    Prediction,
    block_features,
    blocks,
    finish,
)
from isopress.codec.pyramid import TAPERS, phase_points, width_of
from isopress.codec.pyramid_walk import depth, walk
from isopress.codec.scratch import Scratch

Networks = dict[str, IntegerNetwork]
BOUNDS = (2e-4, 0.6)  # bounds drawn log-uniformly, in standard deviations of the field
LOGISTIC = 0.5513  # logistic scale of unit standard deviation
TAIL_SPREAD = 4.0
TAIL_WEIGHTS = (0.002, 0.01, 0.05, 0.25)


@dataclass(frozen=True)
class Field:
    """A two-dimensional float field with the name of its source."""

    name: str
    values: NDArray[np.floating]


@dataclass(frozen=True)
class Examples:
    """Points of one phase: features (N, n) int8, level (N,) int8, rough (N,) int16, target less base
    prediction in units (N,) float32, quantiser width (N,) float32 and weight (N,) float32."""

    features: NDArray[np.int8]
    level: NDArray[np.int8]
    rough: NDArray[np.int16]
    target: NDArray[np.float32]
    width: NDArray[np.float32]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.level)

    @classmethod
    def join(cls, parts: Sequence[Examples]) -> Examples:
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in cls.__dataclass_fields__))


@dataclass(frozen=True)
class Crop:
    """A piece of a field in units of one step, with its taper."""

    y: F64
    taper: int


class _Recorder:
    """Evaluates phases as NumpyPredictor does, and keeps what the network saw."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self.seen: list[tuple[Context, int, Features]] = []

    def __call__(self, context: Context, seen: Neighbours, shape: tuple[int, int, int], level: int) -> Prediction:
        # Fresh arrays for every block: what the network saw is kept.
        parts = [block_features(context, seen, at, shape[2], Scratch()) for at in blocks(shape)]
        whole = Features(
            np.concatenate([p.network for p in parts], 1),
            np.concatenate([p.base for p in parts]),
            np.concatenate([p.rough for p in parts]),
        )
        level = min(level, LEVELS - 1)
        self.seen.append((context, level, whole))
        p = finish(scale_tables(context), whole, self._networks[context.name](whole.network, level, Scratch()))
        return Prediction(p.value.reshape(shape), p.scale.reshape(shape), p.tail.reshape(shape))


def examples(crop: Crop, networks: Networks) -> tuple[dict[str, list[Examples]], float]:
    """Code one crop with integer networks; return its examples by phase, and its ideal size in bits."""
    recorder = _Recorder(networks)
    y, targets, bits = crop.y[None], list[tuple[F64, int]](), 0.0

    def residual(level: int, context: Context, predicted: Prediction) -> F64:
        nonlocal bits
        at, width = phase_points(level, context), width_of(crop.taper, level)
        target = y[at] * UNITS
        symbols = np.rint((target - predicted.value) / width)
        targets.append((target.ravel(), width))
        bits += float(code_length(symbols, predicted, width).sum())
        return symbols * width

    step = 1 << depth(*crop.y.shape)
    anchors = (np.rint(y[:, ::step, ::step]) * UNITS).astype(np.int32)
    walk(anchors, y.shape, wrap=False, evaluate=recorder, residual=residual)
    # The loss is the logarithm of the crop's size (every bound counts the same) plus half a bit-per-value of it.
    weight = 1.0 / padded_bits(bits, crop) + 1.0 / (2 * y.size)
    result: dict[str, list[Examples]] = {c.name: [] for c in CONTEXTS}
    for (context, level, f), (target, width) in zip(recorder.seen, targets, strict=True):
        n = len(f.base)
        result[context.name].append(
            Examples(
                f.network[:-1].T.astype(np.int8),
                np.full(n, level, np.int8),
                f.rough.astype(np.int16),
                (target - f.base).astype(np.float32),
                np.full(n, width, np.float32),
                np.full(n, weight, np.float32),
            )
        )
    return result, bits


def padded_bits(bits: float, crop: Crop) -> float:
    """Return bits plus what nobody would miss, so that crops that cost nothing do not rule the mean."""
    return bits + 0.015 * crop.y.size + 200


def code_length(symbols: F64, predicted: Prediction, width: int) -> F64:
    """Return the ideal bits of symbols under the logistic mixture that the tables are made from."""
    sigma = ROUGHNESS_FLOOR / width * np.exp2(predicted.scale / 8)
    tail = np.asarray(TAIL_WEIGHTS)[predicted.tail]
    p = (1 - tail) * logistic_mass(symbols, sigma) + tail * logistic_mass(symbols, sigma * TAIL_SPREAD)
    return -np.log2(np.maximum(p, 2.0**-24))


def logistic_mass(symbols: F64, sigma: F64) -> F64:
    """Return the probability of each symbol's unit interval under a centred logistic of deviation sigma."""
    s = LOGISTIC * sigma
    a = np.abs(symbols)
    upper = np.exp(-np.clip((a - 0.5) / s, -50, 700))
    lower = np.exp(-np.clip((a + 0.5) / s, -50, 700))
    mass: F64 = upper / (1 + upper) - lower / (1 + lower)
    return mass


def crops(fields: Sequence[Field], rng: np.random.Generator, size: int) -> Iterator[Crop]:
    """Draw crops for ever: fields by the root of their size, ERA5 and its operational kin twice as often."""
    weight = np.array([np.sqrt(f.values.size) * (2 if _is_kin(f.name) else 1) for f in fields])
    weight /= weight.sum()
    while True:
        f = fields[rng.choice(len(fields), p=weight)].values
        deviation = f.std(dtype=np.float64)
        y0, x0 = (int(rng.integers(0, max(0, n - size) + 1)) for n in f.shape)
        piece = f[y0 : y0 + size, x0 : x0 + size].astype(np.float64)
        piece = piece[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))] * rng.choice((-1, 1))
        bound = np.exp(rng.uniform(*np.log(BOUNDS)))
        # Tight bounds are best coded without a taper, loose ones with a strong one.
        taper = int(rng.integers(0, len(TAPERS))) if rng.random() < (0.3 if bound < 0.005 else 0.8) else 0
        # A random phase, or the anchors' rounding would always start from the same zero.
        yield Crop((piece - piece.mean()) / (2 * bound * deviation) + rng.random(), taper)


def _is_kin(name: str) -> bool:
    return name.startswith(("era5", "ifs", "aifs", "gfs"))


def pool(source: Iterator[Crop], networks: Networks, points: int, threads: int) -> tuple[dict[str, Examples], float]:
    """Return about `points` examples by phase (fewer if `source` ends), and the crops' mean log2(bits per value)."""
    parts: dict[str, list[Examples]] = {c.name: [] for c in CONTEXTS}
    rates, count = [], 0
    with ThreadPoolExecutor(threads) as executor:
        while count < points:
            batch = list(islice(source, 8 * threads))
            if not batch:
                break
            for crop, (found, bits) in zip(batch, executor.map(lambda c: examples(c, networks), batch), strict=True):
                rates.append(np.log2(padded_bits(bits, crop) / crop.y.size))
                count += crop.y.size
                for name, more in found.items():
                    parts[name] += more
    return {name: Examples.join(p) for name, p in parts.items()}, float(np.mean(rates))
