"""Training of the transformers of analysis and synthesis in the two stages of the CRA5 paper (arXiv 2405.03376).

Stage one is a variational autoencoder: latents are drawn from the posterior and pay their divergence from the prior,
which is what the context networks say. Stage two is rate and distortion, latents rounded; at its end the analysis is
frozen and the synthesis learns from the very symbols that will be coded.

Every loss is the logarithm of a Lagrangian: squared error, in squared steps, plus RATE times bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from isopress.codec.bounded.geometry import ROUGHNESS_FLOOR
from isopress.codec.entropy.coder import SymbolWriter
from isopress.codec.latent.band_walk import Place
from isopress.codec.latent.coefficients import TRADE, ContextModel, Latents, encode
from isopress.codec.latent.context_features import PHASES, UNITS, PhaseContext, Prediction
from isopress.codec.latent.decorrelation import choose
from isopress.codec.latent.halvings import choose_ahead
from isopress.codec.latent.reduced_grid import zoned_levels
from isopress.codec.latent.synthesis import CorrectorConfig
from isopress.codec.latent.transforms import Transforms
from isopress.codec.latent.wavelet import levels
from isopress.codec.training.latent_pool import RATE, drawn_as_often
from isopress.codec.training.pyramid import log_mass
from isopress.codec.training.pyramid_pool import LOGISTIC, Field

F32 = NDArray[np.float32]
STEPS = (0.03, 1.8)  # steps drawn log-uniformly, in standard deviations of the fields
LEAST_SCALE = 0.06
SOFT_STEPS = 4  # symbols beyond are rounded straight through
SOFTNESS = 0.12  # steps
LEAST_ERROR = 2e-4  # squared steps per value: what nobody would miss


@dataclass(frozen=True)
class TransformConfig:
    """Everything that shapes a training run; the three phases take these parts of it."""

    minutes: float = 60.0
    corrector: CorrectorConfig = field(default_factory=CorrectorConfig)
    learning_rate: float = 1.5e-3
    memory: float = 0.997  # of the running mean of the weights, which is what is kept
    variational: float = 0.12
    rate_distortion: float = 0.48
    crop: tuple[int, int] = (192, 256)
    batch: int = 4
    pool: int = 64  # crops
    epochs: int = 4
    trade: float = TRADE
    validation: int = 48
    validate_every: float = 240.0
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """One channel of a crop, coded: the original and what was decoded (h, w) in steps, and, if analysis learns, of
    every band the contexts' means and scales (h, w) in steps."""

    x: F32
    decoded: F32
    spread: float
    priors: tuple[tuple[tuple[F32, F32], ...], ...]
    bits: float


@dataclass
class Progress:
    """State of a run."""

    seconds: float = 0.0
    steps: int = 0
    loss: float = float("nan")
    validation: list[tuple[float, float]] = field(default_factory=list)


def originals(
    fields: Sequence[Field], rng: np.random.Generator, crop: tuple[int, int], blocks: float = 0.08
) -> Iterator[tuple[F32, float]]:
    """Draw channels (h, w) in steps, and log standard deviations, for ever; those of a block come in a row."""
    usable = [f for f in fields if f.values.shape[2] >= crop[0] and f.values.shape[3] >= crop[1]]
    small = [f for f in fields if min(f.values.shape[2:]) >= 96 and f.values[0, 0].size >= crop[0] * crop[1] // 2]
    usable += [f for f in small if f not in usable]
    weight = np.array([drawn_as_often(f) for f in usable])
    weight /= weight.sum()
    while True:
        f = usable[int(rng.choice(len(usable), p=weight))]
        times, depth = f.values.shape[:2]
        t, d = int(rng.integers(times)), int(rng.integers(depth))
        pieces = f.values[t : t + 1, d]
        if times * depth > 1 and rng.random() < blocks:
            pieces = f.values[t : t + 5, d] if times > 1 else f.values[0, d : d + 5]
        x = np.asarray(_window(pieces, rng, crop), np.float64)
        x = x[:, :: rng.choice((-1, 1)), :: rng.choice((-1, 1))] * rng.choice((-1, 1))
        step = f.deviation * math.exp(rng.uniform(*np.log(STEPS)))
        y = (x - x.mean()) / step
        if len(y) == 1:
            yield y[0].astype(np.float32), math.log(f.deviation / step)
            continue
        for channel in choose(y, 1.0)[0].forward(y, 0):
            if np.abs(channel).max() > 2:
                yield channel.astype(np.float32), math.log(channel.std() + 1e-3) + rng.uniform(0, 0.5)


def _window(pieces: NDArray[np.floating], rng: np.random.Generator, crop: tuple[int, int]) -> NDArray[np.floating]:
    """Return a window of exactly `crop` values, mirrored where a field is smaller."""
    missing = [max(0, want - have) for want, have in zip(crop, pieces.shape[1:], strict=True)]
    if any(missing):
        pieces = np.pad(pieces, ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect")
    y, x = (int(rng.integers(0, have - want + 1)) for want, have in zip(crop, pieces.shape[1:], strict=True))
    return pieces[:, y : y + crop[0], x : x + crop[1]]


def code(x: F32, original: F32, spread: float, model: ContextModel, trade: float, *, analysis: bool = False) -> Example:
    """Code one channel `x` (the analysis of `original`); if analysis learns, with what its contexts said, and without
    halvings ahead."""
    y = x.astype(np.float64)
    split = zoned_levels(x.shape[0], x.shape[1], False, () if analysis else choose_ahead(y[None]))
    priors = [[(np.zeros(lv.band(b), np.float32), np.full(lv.band(b), LEAST_SCALE, np.float32)) for b in range(3)]
              for lv in split if analysis]  # fmt: skip

    def watch(place: Place, phase: PhaseContext, predicted: Prediction, target: F32, k: NDArray[np.int32]) -> None:
        if not analysis:
            return
        y, x = PHASES[place.phase]
        mean, scale = (p[y::2, x::2] for p in priors[place.level][place.band])
        mean[...] = predicted.mean.reshape(mean.shape) / UNITS
        sigma = ROUGHNESS_FLOOR / UNITS * np.exp2(predicted.scale / 8)
        scale[...] = np.maximum(sigma, LEAST_SCALE).reshape(scale.shape)

    writer = SymbolWriter(model.tables, peaked=True)
    decoded = encode(writer, [Latents.of(y, split)], split, model, trade, watch)
    bits = 8.0 * len(writer.finish())
    return Example(original, (decoded[0] / UNITS).astype(np.float32), spread, tuple(tuple(b) for b in priors), bits)


@torch.no_grad()
def analysed(transforms: Transforms, x: F32, spread: float) -> F32:
    """Return the field plus the correction of analysis."""
    if transforms.analysis.is_zero:
        return x
    t = torch.from_numpy(x)[None, None]
    result: F32 = (t + corrected(transforms.analysis, t, torch.tensor([spread])))[0, 0].numpy()
    return result


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    model: ContextModel,
    checkpoint: Path,
    config: TransformConfig,
    *,
    start: Transforms | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Transforms, Progress]:
    """Train analysis and synthesis around trained contexts; return the running mean of their weights.

    Parameters
    ----------
    fields, validation : sequences of Field
        Only the first are learned from.
    model : ContextModel
        The prior.
    checkpoint : Path
        Written after every validation.
    start : Transforms, optional
        What to begin with, if not from scratch.
    resume : bool
        Go on from the checkpoint.
    """
    torch.manual_seed(config.seed)
    torch.set_flush_denormal(True)  # gradients far out on a gelu are denormal: up to thirty times slower
    transforms, progress = start or Transforms(config.corrector), Progress()
    transforms.train().requires_grad_(True)
    mean = deepcopy(transforms).requires_grad_(False)
    optimizer = torch.optim.AdamW(transforms.parameters(), weight_decay=1e-3, betas=(0.9, 0.98))
    if resume:
        state = torch.load(checkpoint, weights_only=False)
        transforms.load_state_dict(state["transforms"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
    source = originals(fields, np.random.default_rng([config.seed, progress.steps]), config.crop)
    held_source = originals(validation, np.random.default_rng(4321), config.crop)
    held = [next(held_source) for _ in range(config.validation)]

    def validate() -> None:
        progress.validation.append((progress.seconds, score(mean, model, held, config)))
        state = {
            "transforms": transforms.state_dict(), "mean": mean.state_dict(),
            "optimizer": optimizer.state_dict(), "progress": vars(progress),
        }  # fmt: skip
        torch.save(state, checkpoint)

    if not progress.validation:
        validate()
    started, validated = time.monotonic() - progress.seconds, progress.seconds
    with ThreadPoolExecutor(1) as executor:
        pending = executor.submit(_pool, source, transforms, model, config)
        while progress.seconds < 60 * config.minutes:
            examples = pending.result()
            pending = executor.submit(_pool, source, transforms, model, config)
            _descend(transforms, mean, optimizer, examples, progress, started, config)
            if progress.seconds - validated >= config.validate_every or progress.seconds >= 60 * config.minutes:
                validated = progress.seconds
                validate()
            report(progress)
        pending.cancel()
    return mean, progress


def _descend(
    transforms: Transforms,
    mean: Transforms,
    optimizer: torch.optim.AdamW,
    examples: list[Example],
    progress: Progress,
    started: float,
    config: TransformConfig,
) -> None:
    rng, losses = np.random.default_rng(progress.steps), list[float]()
    for _ in range(config.epochs):
        order = rng.permutation(len(examples))
        for i in range(0, len(order) - config.batch + 1, config.batch):
            done = progress.seconds / (60 * config.minutes)
            rate = config.learning_rate * min(1, (progress.steps + 1) / 100)
            for group in optimizer.param_groups:
                group["lr"] = rate * (1.0 if done < 0.3 else max(0.02, (1 - done) / 0.7))
            loss = objective(transforms, [examples[k] for k in order[i : i + config.batch]], _phase(done, config))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(transforms.parameters(), 1.0)
            optimizer.step()
            _follow(mean, transforms, config.memory)
            losses.append(float(loss.detach()))
            progress.steps += 1
            progress.seconds = time.monotonic() - started
    progress.loss = float(np.mean(losses))


@torch.no_grad()
def _follow(mean: Transforms, transforms: Transforms, memory: float) -> None:
    """Move the running mean of the weights towards the newest."""
    for kept, newest in zip(mean.parameters(), transforms.parameters(), strict=True):
        kept.lerp_(newest, 1 - memory)


def _phase(done: float, config: TransformConfig) -> str:
    if done < config.variational:
        return "variational"
    return "rounded" if done < config.variational + config.rate_distortion else "frozen"


def _pool(
    source: Iterator[tuple[F32, float]], transforms: Transforms, model: ContextModel, config: TransformConfig
) -> list[Example]:
    found, analysis = [], config.variational + config.rate_distortion > 0
    for _ in range(config.pool):
        x, spread = next(source)
        found.append(code(analysed(transforms, x, spread), x, spread, model, config.trade, analysis=analysis))
    return found


def objective(transforms: Transforms, batch: Sequence[Example], phase: str) -> Tensor:
    """Return the loss of one batch of channels of one shape.

    Once latents are rounded the synthesis learns from the symbols that were coded, the analysis through the synthesis
    as it is: one that learns from soft steps too is worse on hard ones.
    """
    x = torch.from_numpy(np.stack([e.x for e in batch]))[:, None]
    spread = torch.tensor([e.spread for e in batch])
    if phase == "variational":
        return _soft(transforms, batch, x, spread, phase)
    decoded = torch.from_numpy(np.stack([e.decoded for e in batch]))[:, None]
    error = decoded + corrected(transforms.synthesis, decoded, spread) - x
    hard = _lagrangian(error, torch.tensor([e.bits for e in batch]))
    return hard if phase == "frozen" else hard + _soft(transforms, batch, x, spread, phase)


def _soft(transforms: Transforms, batch: Sequence[Example], x: Tensor, spread: Tensor, phase: str) -> Tensor:
    """Return the loss of latents drawn from the posterior, or rounded in soft steps."""
    seen = x + corrected(transforms.analysis, x, spread)
    split = levels(x.shape[2], x.shape[3], periodic=False)
    low, bits, kept = seen, torch.zeros(len(batch)), list[tuple[Tensor, Tensor, Tensor]]()
    for number, level in enumerate(split):
        low, bands = level.analyse(low)
        drawn = []
        for band, y in enumerate(bands):
            said = np.stack([np.stack(e.priors[number][band]) for e in batch])[:, :, None]
            mean, scale = torch.from_numpy(said).unbind(1)
            if phase == "variational":
                deviation = transforms.posterior(number, spread)
                bits = bits + _divergence(y - mean, deviation, scale)
                drawn.append(y + deviation * torch.randn_like(y))
            else:
                symbols, spent = quantised(y - mean, scale, TRADE)
                bits = bits + spent.sum((1, 2, 3))
                drawn.append(mean + symbols)
        kept.append((drawn[0], drawn[1], drawn[2]))
    for level, three in zip(split[::-1], kept[::-1], strict=True):
        low = level.synthesise(low, three)
    learns = phase == "variational"
    weights = {name: w if learns else w.detach() for name, w in transforms.synthesis.named_parameters()}
    error = low + functional_call(transforms.synthesis, weights, (low, spread, False)) - x
    return _lagrangian(error, bits)


def quantised(y: Tensor, scale: Tensor, trade: float) -> tuple[Tensor, Tensor]:
    """Return the symbols that an encoder would choose, and their bits; gradients are those of soft steps instead.

    A coefficient moves a symbol only near the threshold where that changes, after the soft rounding of Agustsson and
    Theis (arXiv 2006.09952). Where most symbols are zero, gradients straight through teach to raise what stays zero.
    """
    size = y.abs()
    beyond = torch.relu(size - SOFT_STEPS - 0.5)
    symbol, below = beyond, _bits(torch.zeros_like(scale), scale)
    bits = below
    for k in range(1, SOFT_STEPS + 1):
        cost = _bits(torch.full_like(scale, k), scale)
        threshold = k - 0.5 + 0.5 * trade * (cost - below)
        soft = torch.sigmoid((size - threshold) / SOFTNESS)
        chosen = (size >= threshold).float() + soft - soft.detach()
        symbol, bits = symbol + chosen, bits + chosen * (cost - below)
        step, below = cost - below, cost
    rounded = symbol + (torch.round(beyond) - beyond).detach()
    return torch.sign(y) * rounded, bits + beyond * step


def _bits(symbol: Tensor, scale: Tensor) -> Tensor:
    return -1.442695 * log_mass(symbol, scale * LOGISTIC).clamp_min(-20.0)


def _lagrangian(error: Tensor, bits: Tensor) -> Tensor:
    """Return the mean logarithm of what channels (B, 1, h, w) cost: every step counts the same."""
    return torch.log(error.square().sum((1, 2, 3)) + RATE * bits + LEAST_ERROR * error[0].numel()).mean()


def corrected(corrector: nn.Module, x: Tensor, spread: Tensor) -> Tensor:
    """Return a corrector's output, in float32: with products in bfloat16 it learns corrections that only hold there."""
    output: Tensor = corrector(x, spread, False)
    return output


def _divergence(missed: Tensor, deviation: Tensor, scale: Tensor) -> Tensor:
    """Return KL(N(missed, deviation^2) || N(0, scale^2 + 1/12)) in bits, summed over each latent.

    The contexts' scale is that of rounded coefficients; 1/12 is the variance that rounding takes away.
    """
    variance = scale.square() + 1 / 12
    ratio = deviation.square() / variance
    each = 0.5 * (ratio + missed.square() / variance - 1 - torch.log(ratio))
    return 1.442695 * each.sum((1, 2, 3))


def score(
    transforms: Transforms, model: ContextModel, held: Sequence[tuple[F32, float]], config: TransformConfig
) -> float:
    """Return the mean log2 of what channels cost with real symbols: 0.01 less is about 1 % of size at equal error."""
    found = []
    for x, spread in held:
        e = code(analysed(transforms, x, spread), x, spread, model, config.trade)
        decoded = torch.from_numpy(e.decoded)[None, None]
        with torch.no_grad():
            error = decoded + corrected(transforms.synthesis, decoded, torch.tensor([spread])) - torch.from_numpy(x)
            found.append(float(_lagrangian(error, torch.tensor([e.bits]))) / math.log(2))
    return float(np.mean(found))
