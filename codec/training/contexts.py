"""Training of the context networks: rounds of new examples made by the integer networks themselves, then descent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isopress.codec.bounded.geometry import ROUGHNESS_FLOOR
from isopress.codec.entropy.coder import Tables
from isopress.codec.latent.coefficients import TRADE, ContextModel
from isopress.codec.latent.context_features import DEPTHS, MEAN_OF, UNITS
from isopress.codec.latent.context_maps import BANDS
from isopress.codec.latent.weights import integer_networks
from isopress.codec.training.context_network import ContextMLP
from isopress.codec.training.latent_pool import Analyse, Crop, Examples, crops, pool, quiet_tables
from isopress.codec.training.pyramid import log_mass, tail_weight
from isopress.codec.training.pyramid_pool import LOGISTIC, TAIL_SPREAD, Field
from isopress.codec.training.tables import logistic_tables

QUIET = 26  # points with a smaller activity index are not worth a network: half of all, 1 % of the bits
ROUND_UP = 0.42  # what is added before symbols are rounded down: rate-distortion optimised rounding, on average
_MIN_SCALE, _SOFT_SCALE = 0.06, 0.25


@dataclass(frozen=True)
class ContextConfig:
    """Everything that shapes a training run; `minutes` of wall time on an idle machine."""

    minutes: float = 40.0
    widths: tuple[int, ...] = (96, 64)
    learning_rate: float = 1e-3
    memory: float = 0.998  # of the running mean of the weights, which is what is kept
    batch: int = 8192
    pool_points: int = 6_000_000
    crop: int = 160_000
    epochs_per_pool: float = 3.0
    trade: float = TRADE
    validation_points: int = 3_000_000
    validate_every: float = 180.0
    rounded_from: float = 0.4
    threads: int = 2
    seed: int = 0


@dataclass
class Progress:
    """State of a run."""

    seconds: float = 0.0
    rounds: int = 0
    train_cost: float = float("nan")
    validation: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Trainable:
    """What is trained, and what it stands for."""

    networks: list[ContextMLP]
    quiet: NDArray[np.int16]

    @classmethod
    def build(cls, widths: tuple[int, ...]) -> Trainable:
        """Return untrained networks, and tables that expect little where it is quiet."""
        quiet = np.zeros((BANDS, DEPTHS, 2, QUIET), np.int16)
        quiet[:, :, 0] = -6
        return cls([ContextMLP(widths) for _ in range(BANDS)], quiet)

    @classmethod
    def restore(cls, tensors: Mapping[str, NDArray[np.generic]], widths: tuple[int, ...]) -> Trainable:
        """Return the networks of a weights file, of the same widths, to go on training."""
        what = cls.build(widths)
        for band, network in enumerate(what.networks):
            network.set_integers(
                [tuple(tensors[f"contexts.{band}.{i}.{k}"] for k in ("weight", "bias", "shift"))
                 for i in range(len(widths) + 1)]
            )  # fmt: skip
        what.quiet = tensors["quiet"].astype(np.int16)
        return what

    def model(self) -> ContextModel:
        """Return the integer model."""
        frequencies, support = logistic_tables()
        tables = Tables(frequencies.astype(np.float64), support)
        return ContextModel(tuple(integer_networks(n.integers()) for n in self.networks), self.quiet, tables)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"networks": [n.state_dict() for n in self.networks], "quiet": self.quiet}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        for network, saved in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(saved)
        self.quiet = state["quiet"]

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything a weights file holds of the contexts."""
        frequencies, support = logistic_tables()
        result: dict[str, NDArray[np.generic]] = {
            "quiet": self.quiet, "tables.frequencies": frequencies, "tables.support": support,
        }  # fmt: skip
        for band, network in enumerate(self.networks):
            for i, parts in enumerate(network.integers()):
                named: dict[str, NDArray[Any]] = dict(zip(("weight", "bias", "shift"), parts, strict=True))
                result |= {f"contexts.{band}.{i}.{name}": part for name, part in named.items()}
        return result


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    checkpoint: Path,
    config: ContextConfig,
    *,
    start: Trainable | None = None,
    analyse: Analyse | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Trainable, Progress]:
    """Train the context networks; return the running mean of their weights that is best on validation.

    Parameters
    ----------
    fields, validation : sequences of Field
        Only the first are learned from.
    checkpoint : Path
        Written after every validation.
    start : Trainable, optional
        What to begin with, if not from scratch.
    analyse : callable, optional
        What is done to channels (h, w) in steps before the wavelet.
    resume : bool
        Go on from the checkpoint.
    """
    torch.manual_seed(config.seed)
    what, progress = start or Trainable.build(config.widths), Progress()
    optimizers = [torch.optim.AdamW(n.parameters(), weight_decay=0.0, betas=(0.9, 0.98)) for n in what.networks]
    mean = deepcopy(what)
    if resume:
        progress = _load(checkpoint, what, mean, optimizers)
    source = crops(fields, np.random.default_rng([config.seed, progress.rounds]), config.crop, analyse)
    held = _held(validation, config, analyse)
    best = mean if progress.validation else _validate(what, mean, None, held, progress, optimizers, checkpoint, config)
    earlier, counts = progress.seconds, np.zeros(())
    started, validated = time.monotonic() - earlier, earlier
    with ThreadPoolExecutor(BANDS) as executor:
        while progress.seconds < 60 * config.minutes:
            data = pool(source, mean.model(), config.pool_points, config.threads, config.trade)
            progress.train_cost = data.cost
            counts = counts * 0.9 + data.quiet
            what.quiet = mean.quiet = quiet_tables(counts, mean.model())
            done = progress.seconds / (60 * config.minutes)
            jobs = [
                executor.submit(_descend, n, m, o, data.examples[band], done, progress.rounds, config)
                for band, (n, m, o) in enumerate(zip(what.networks, mean.networks, optimizers, strict=True))
            ]
            for job in jobs:
                job.result()
            progress.rounds += 1
            progress.seconds = time.monotonic() - started
            if progress.seconds - validated >= config.validate_every or progress.seconds >= 60 * config.minutes:
                validated = progress.seconds
                best = _validate(what, mean, best, held, progress, optimizers, checkpoint, config)
            report(progress)
    return best, progress


def _held(validation: Sequence[Field], config: ContextConfig, analyse: Analyse | None) -> list[Crop]:
    source, found, total = crops(validation, np.random.default_rng(12345), config.crop, analyse), list[Crop](), 0
    while total < config.validation_points:
        found.append(next(source))
        total += found[-1].channels.size
    return found


def _validate(
    what: Trainable,
    mean: Trainable,
    best: Trainable | None,
    held: list[Crop],
    progress: Progress,
    optimizers: list[torch.optim.AdamW],
    checkpoint: Path,
    config: ContextConfig,
) -> Trainable:
    """Measure, save, and return the better of `mean` and `best`."""
    cost = pool(iter(held), mean.model(), 10**12, config.threads, config.trade).cost
    better = best is None or cost <= min(score for _, score in progress.validation)
    progress.validation.append((progress.seconds, cost))
    kept = deepcopy(mean) if better else best
    assert kept is not None
    state = {
        "newest": what.state(), "mean": mean.state(), "best": kept.state(),
        "optimizers": [o.state_dict() for o in optimizers], "progress": vars(progress),
    }  # fmt: skip
    torch.save(state, checkpoint)
    return kept


def _load(checkpoint: Path, what: Trainable, mean: Trainable, optimizers: list[torch.optim.AdamW]) -> Progress:
    state = torch.load(checkpoint, weights_only=False)
    what.load(state["newest"])
    mean.load(state["mean"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return Progress(**state["progress"])


def _descend(
    net: ContextMLP,
    mean: ContextMLP,
    optimizer: torch.optim.Optimizer,
    data: Examples,
    done: float,
    rounds: int,
    config: ContextConfig,
) -> None:
    torch.set_flush_denormal(True)  # of this thread, for speed
    tensors = [torch.from_numpy(getattr(data, f)) for f in data.__dataclass_fields__]
    unit = torch.from_numpy(MEAN_OF * 64 / UNITS).float()  # steps of one activity
    root = tensors[-1].double().sqrt()
    drawn, scale = root.cumsum(0), float(root.mean() / tensors[-1].double().mean())
    generator = torch.Generator().manual_seed(config.seed + 1000 * rounds)
    for i in range(max(1, int(config.epochs_per_pool * len(data) / config.batch))):
        for group in optimizer.param_groups:
            rate = 1.0 if done < 0.35 else max(0.02, (1 - done) / 0.65)
            group["lr"] = config.learning_rate * rate * (min(1.0, (i + 1) / 30) if rounds == 0 else 1.0)
        position = torch.rand(config.batch, generator=generator, dtype=torch.float64) * drawn[-1]
        at = torch.searchsorted(drawn, position).clamp_max(len(data) - 1)
        x, depth, rough, target, weight = (t[at] for t in tensors)
        y = net(x, depth, done >= config.rounded_from)
        noise = torch.rand(len(at), generator=generator) - 0.5
        bits = losses(y, unit[rough.long()], rough.float(), target, noise)
        loss = (bits * weight.sqrt()).mean() * scale
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        follow = 1 - config.memory if rounds else max(1 - config.memory, 1 / (i + 1))
        with torch.no_grad():
            for kept, newest in zip(mean.parameters(), net.parameters(), strict=True):
                kept.lerp_(newest, follow)


def losses(y: Tensor, unit: Tensor, rough: Tensor, target: Tensor, noise: Tensor) -> Tensor:
    """Return, per point, bits of the hard symbol (trains scale and tail) plus relaxed bits (trains the mean)."""
    residual = (target - y[:, 0] * unit).clamp(-1e5, 1e5)
    sigma = (ROUGHNESS_FLOOR / UNITS * torch.exp2(rough / 8 + y[:, 1].clamp(-12, 8))).clamp_min(_MIN_SCALE)
    scale = sigma * LOGISTIC
    symbol = torch.floor(residual.detach().abs() + ROUND_UP)
    tail = tail_weight(y[:, 2])
    hard = torch.logaddexp(
        torch.log1p(-tail) + log_mass(symbol, scale), torch.log(tail) + log_mass(symbol, scale * TAIL_SPREAD)
    )
    soft = log_mass((residual + noise).abs(), scale.detach().clamp_min(_SOFT_SCALE * LOGISTIC))
    return -(hard.clamp_min(-20.0) + soft) * 1.442695
