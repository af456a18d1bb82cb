"""Training examples of the pyramid: what its networks see when they code random crops at random bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import CONTEXTS, ROUGHNESS_FLOOR, Context
from isopress.codec.bounded.predictor import (
    F64,
    PROXY_FEATURES,
    Condition,
    Features,
    Networks,
    Prediction,
    block_features,
    blocks,
    finish,
)
from isopress.codec.bounded.pyramid import TAPERS, Quantisation, phase_points
from isopress.codec.bounded.reference_fit import fit
from isopress.codec.bounded.reference_order import PROXIES, Axes, Node, order, slots_of
from isopress.codec.bounded.reference_prediction import plain_proxies, proxies_of
from isopress.codec.bounded.traversal import Grid, depth, refine
from isopress.codec.entropy.integer_mlp import F32
from isopress.codec.values.quantiser import UNITS

BOUNDS = (2e-4, 0.6)  # bounds drawn log-uniformly, in standard deviations of the field
LOGISTIC = 0.5513  # logistic scale of unit standard deviation
LENGTHS = (2, 3, 5, 5, 9, 9)  # of axes with references
SINGLE = 0.15  # of the crops with several fields: part that is one field all the same
PAIRS = 0.2  # part of the crops of sources with several variables that hold two of them
TAIL_SPREAD = 4.0
TAIL_WEIGHTS = (0.002, 0.01, 0.05, 0.25)


@dataclass(frozen=True)
class Field:
    """All fields of one variable: name of the source, values (time, level, lat, lon), length 1 for what it lacks."""

    name: str
    values: NDArray[np.floating]
    deviation: float = field(init=False)  # standard deviation of all values

    def __post_init__(self) -> None:
        object.__setattr__(self, "deviation", float(self.values.std(dtype=np.float64)))

    @property
    def is_kin(self) -> bool:
        """Whether the source is ERA5, or a model much like the one behind it."""
        return self.name.startswith(("era5", "ifs", "aifs", "gfs"))


@dataclass(frozen=True)
class Examples:
    """Points of one phase: features (N, n) int8, level, kind and gap (N,) int8, rough (N,) int16, target less base
    prediction in units (N,) float32, quantiser width (N,) float32 and weight (N,) float32."""

    features: NDArray[np.int8]
    level: NDArray[np.int8]
    kind: NDArray[np.int8]
    gap: NDArray[np.int8]
    rough: NDArray[np.int16]
    target: NDArray[np.float32]
    width: NDArray[np.float32]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.level)

    @classmethod
    def join(cls, parts: Sequence[Examples]) -> Examples:
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in cls.__dataclass_fields__))

    def of_level(self, level: int) -> Examples:
        """Return the points of one level."""
        return self._at(np.flatnonzero(self.level == level))

    def some(self, count: int, seed: int) -> Examples:
        """Return points drawn as training draws them: in proportion to the root of their weight."""
        root = np.sqrt(self.weight.astype(np.float64))
        return self._at(np.random.default_rng(seed).choice(len(self), count, p=root / root.sum()))

    def _at(self, at: NDArray[np.intp]) -> Examples:
        return Examples(*(getattr(self, f)[at] for f in self.__dataclass_fields__))


@dataclass(frozen=True)
class Crop:
    """A piece of a block in units of one step, (a, b, h, w), with the axes of its references and its taper."""

    y: F64
    axes: Axes
    taper: int


def examples(crop: Crop, networks: Networks) -> tuple[dict[str, list[Examples]], float]:
    """Code one crop with integer networks; return its examples by phase, and its ideal size in bits."""
    result: dict[str, list[Examples]] = {c.name: [] for c in CONTEXTS}
    total, size = 0.0, crop.y[0, 0].size
    for seen in _coded(crop, networks):
        bits = np.sum([s.bits for s in seen], axis=0)
        total += float(bits.sum())
        # The loss is the logarithm of a field's size (every bound counts the same) plus half a bit-per-value of it.
        weight = 1.0 / padded_bits(bits, size) + 1.0 / (2 * size)
        for s in seen:
            result[s.context.name].append(s.examples(weight))
    return result, total


def bits_of_phases(crop: Crop, networks: Networks) -> Iterator[tuple[int, str, int, float]]:
    """Code one crop; yield level, phase, number of points and ideal size in bits of every phase of its fields."""
    for seen in _coded(crop, networks):
        for s in seen:
            yield s.level, s.context.name, len(s.missed), float(s.bits.sum())


def _coded(crop: Crop, networks: Networks) -> Iterator[list[_Seen]]:
    """Code one crop; yield what was seen of all phases of the fields that are coded together."""
    y = crop.y.reshape(-1, *crop.y.shape[2:])
    decoded = np.zeros(y.shape, np.int32)
    for nodes in order(crop.y.shape[:2], crop.axes):
        fields = [node.field for node in nodes]
        seen, decoded[fields] = _batch(nodes, y[fields], decoded, crop.taper, networks)
        yield seen


def _batch(
    nodes: Sequence[Node], y: F64, decoded: NDArray[np.int32], taper: int, networks: Networks
) -> tuple[list[_Seen], NDArray[np.int32]]:
    quantisation, plain = Quantisation(taper), plain_proxies(nodes, decoded)
    proxies = proxies_of(nodes, decoded, *fit(nodes, y, plain), plain)
    seen = list[_Seen]()
    step = 1 << depth(*y.shape[1:])
    v = (np.rint(y[:, ::step, ::step]) * UNITS).astype(np.int32)
    errors = np.zeros_like(v)
    for level in reversed(range(depth(*y.shape[1:]))):
        grid = refine(v, errors, y.shape, level, wrap=False, proxies=proxies)
        width = quantisation.width(level)
        for context in filter(grid.has, CONTEXTS):
            features, predicted = _predicted(grid, context, networks)
            target = y[phase_points(level, context)]
            symbols = quantisation.quantise(predicted.value, target, width)
            bits = code_length(symbols, predicted, width).sum((1, 2))
            guess = 0 if grid.guess is None else grid.guess[context.plane]
            missed = target * UNITS - guess - features.base.reshape(target.shape)
            seen.append(_Seen(context, level, grid.seen.condition, features, missed.ravel(), width, bits))
            grid.put(context, predicted.value, quantisation.dequantise(predicted.value, symbols, width))
        v, errors = grid.values, grid.errors
    return seen, v


@dataclass(frozen=True)
class _Seen:
    """What the network saw of a phase, what it missed (target less base prediction, in units), and what that costs,
    in bits per field."""

    context: Context
    level: int
    condition: Condition
    features: Features
    missed: F64
    width: int
    bits: F64

    def examples(self, weight: F64) -> Examples:
        n = len(self.missed)
        return Examples(
            _all_features(self.features.network, self.context.n_features, self.condition.kind),
            np.full(n, self.level, np.int8),
            np.full(n, self.condition.kind, np.int8),
            np.full(n, self.condition.gap, np.int8),
            self.features.rough.astype(np.int16),
            self.missed.astype(np.float32),
            np.full(n, self.width, np.float32),
            np.repeat(weight, n // len(weight)).astype(np.float32),
        )


def _predicted(grid: Grid, context: Context, networks: Networks) -> tuple[Features, Prediction]:
    """Return what the network sees of a phase, in arrays that are kept, and what `grid.predict` says."""
    shape, c = grid.values[context.plane].shape, grid.seen.condition
    parts = [block_features(context, grid.seen, at, shape[2], Scratch()) for at in blocks(shape)]
    whole = Features(
        np.concatenate([p.network for p in parts], 1),
        np.concatenate([p.base for p in parts]),
        np.concatenate([p.rough for p in parts]),
    )
    network = networks[min(grid.level, len(networks) - 1)][context.name]
    out = network(whole.network, grid.level, Scratch(), c.kind, c.gap)
    value, scale, tail = finish(context, whole, out)
    value = value.reshape(shape)
    if grid.guess is not None:
        value += grid.guess[context.plane]
    return whole, Prediction(value, scale.reshape(shape), tail.reshape(shape))


def _all_features(network: F32, alone: int, kind: int) -> NDArray[np.int8]:
    """Return features (N, n) with zeros for the proxies that a kind lacks."""
    out = np.zeros((network.shape[1], alone + PROXIES * PROXY_FEATURES), np.int8)
    out[:, :alone] = network[:alone].T
    for i, slot in enumerate(slots_of(kind)):
        start, there = alone + slot * PROXY_FEATURES, alone + i * PROXY_FEATURES
        out[:, start : start + PROXY_FEATURES] = network[there : there + PROXY_FEATURES].T
    return out


def padded_bits(bits: F64, size: int) -> F64:
    """Return bits of fields plus what nobody would miss, so that fields that cost nothing do not rule the mean."""
    return bits + 0.015 * size + 200


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


def crops(fields: Sequence[Field], rng: np.random.Generator, points: int, *, references: bool = True) -> Iterator[Crop]:
    """Draw crops of about `points` values for ever: variables by the root of their size and the number of their
    fields, ERA5 and its operational kin twice as often. Without `references`, of single fields only."""
    weight = np.array([_weight(f) for f in fields])
    weight /= weight.sum()
    partners = _partners(fields)
    while True:
        i = int(rng.choice(len(fields), p=weight))
        bound = np.exp(rng.uniform(*np.log(BOUNDS)))
        # Tight bounds are best coded without a taper, loose ones with a strong one.
        taper = int(rng.integers(0, len(TAPERS))) if rng.random() < (0.3 if bound < 0.005 else 0.8) else 0
        others = partners[i] if references else []
        pair = [i, int(rng.choice(others))] if len(others) and rng.random() < PAIRS else [i]
        stack, axes = _block([fields[k].values for k in pair], rng, points, references)
        steps = [2 * bound * fields[k].deviation for k in pair]
        # A random phase, or the anchors' rounding would always start from the same zero. Variables of a pair take
        # the place of levels.
        y = np.concatenate([(x - x.mean()) / step + rng.random() for x, step in zip(stack, steps, strict=True)], axis=1)
        yield Crop(y[..., :: rng.choice((-1, 1)), :: rng.choice((-1, 1))] * rng.choice((-1, 1)), axes, taper)


def _weight(f: Field) -> float:
    times, levels, height, width = f.values.shape
    kin = 2 if f.is_kin else 1
    count = min(8, times * levels)
    return float(np.sqrt(height * width) * count * (1 + count / 2) * kin)


def _partners(fields: Sequence[Field]) -> list[list[int]]:
    """Return, per field, the other variables of its source that have its shape."""
    keys = [(f.name.split("/")[0], f.values.shape) for f in fields]
    return [[k for k, key in enumerate(keys) if key == own and k != i] for i, own in enumerate(keys)]


def _block(
    stack: Sequence[NDArray[np.floating]], rng: np.random.Generator, points: int, references: bool
) -> tuple[list[F64], Axes]:
    """Return the same piece (a, b, h, w) of every array, and axes for the references between its fields."""
    times, levels = stack[0].shape[:2]
    nt, nl = 1, 1
    if references and rng.random() >= SINGLE:
        nt = min(times, int(rng.choice(LENGTHS)))
        nl = min(levels, int(rng.choice((1, 2, 3)) if nt > 1 and rng.random() < 0.7 else rng.choice(LENGTHS)))
        nt, nl = min(nt, 9 // min(nl, 3)), 1 if len(stack) > 1 else nl
    stride = int(rng.integers(1, max(1, min(4, (times - 1) // max(1, nt - 1))) + 1)) if nt > 1 else 1
    t0 = int(rng.integers(0, times - (nt - 1) * stride))
    l0 = int(rng.integers(0, levels - nl + 1))
    side = max(48, int(np.sqrt(points / (nt * nl * len(stack)))))
    y0, x0 = (int(rng.integers(0, max(0, n - side) + 1)) for n in stack[0].shape[2:])
    at = np.s_[t0 : t0 + (nt - 1) * stride + 1 : stride, l0 : l0 + nl, y0 : y0 + side, x0 : x0 + side]
    turn = np.s_[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    pieces = [x[at].astype(np.float64)[turn] for x in stack]
    return pieces, Axes(0, 1) if rng.random() < 0.75 or nt == 1 else Axes(1, 0)


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
                fields = crop.y.shape[0] * crop.y.shape[1]
                rates.append(np.log2(padded_bits(np.array(bits / fields), crop.y[0, 0].size) / crop.y[0, 0].size))
                count += crop.y.size
                for name, more in found.items():
                    parts[name] += more
    return {name: Examples.join(p) for name, p in parts.items()}, float(np.mean(rates))
