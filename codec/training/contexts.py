"""Training of the context networks: rounds of new examples made by the integer networks themselves, then descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isopress.codec.bounded.geometry import ROUGHNESS_FLOOR
from isopress.codec.latent.coefficients import TRADE
from isopress.codec.latent.context_features import DEPTHS, MEAN_OF, UNITS
from isopress.codec.latent.context_maps import BANDS
from isopress.codec.latent.context_model import ContextModel
from isopress.codec.latent.weights import integer_networks
from isopress.codec.training.context_network import ContextMLP
from isopress.codec.training.latent_pool import Crop, Examples, crops, pool, quiet_tables
from isopress.codec.training.loop import Budget, Progress, Report, State, check_same, descend, falling, follow, run
from isopress.codec.training.pyramid import log_mass, tail_weight
from isopress.codec.training.pyramid_pool import LOGISTIC, TAIL_SPREAD, Field

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
        return ContextModel(tuple(integer_networks(n.integers()) for n in self.networks), self.quiet)

    def state(self) -> State:
        """Return what a checkpoint holds."""
        return {"networks": [n.state_dict() for n in self.networks], "quiet": torch.from_numpy(self.quiet)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        for network, saved in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(saved)
        self.quiet = state["quiet"].numpy()

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything a weights file holds of the contexts."""
        result: dict[str, NDArray[np.generic]] = {"quiet": self.quiet}
        for band, network in enumerate(self.networks):
            for i, parts in enumerate(network.integers()):
                named: dict[str, NDArray[Any]] = dict(zip(("weight", "bias", "shift"), parts, strict=True))
                result |= {f"contexts.{band}.{i}.{name}": part for name, part in named.items()}
        return result


class ContextTask:
    """Training of the context networks; the running mean of their weights that is best on validation is kept."""

    def __init__(
        self, fields: Sequence[Field], validation: Sequence[Field], config: ContextConfig, start: Trainable | None
    ) -> None:
        torch.manual_seed(config.seed)
        self._fields, self._config = fields, config
        self._what = start or Trainable.build(config.widths)
        self._optimizers = [
            torch.optim.AdamW(n.parameters(), weight_decay=0.0, betas=(0.9, 0.98)) for n in self._what.networks
        ]
        self._mean = deepcopy(self._what)
        self.best = deepcopy(self._mean)
        self._counts, self._rounds = np.zeros(()), 0
        self._source = crops(fields, np.random.default_rng(config.seed), config.crop)
        self._held = _held(validation, config)

    def round(self, number: int, done: float) -> float:
        """Learn from a new pool of examples, the bands side by side."""
        config, mean = self._config, self._mean
        data = pool(self._source, mean.model(), config.pool_points, config.threads, config.trade)
        self._counts = self._counts * 0.9 + data.quiet
        self._what.quiet = mean.quiet = quiet_tables(self._counts)
        with ThreadPoolExecutor(BANDS) as executor:
            jobs = [
                executor.submit(_descend, network, kept, optimizer, examples, done, number, config)
                for network, kept, optimizer, examples in zip(
                    self._what.networks, mean.networks, self._optimizers, data.examples, strict=True
                )
            ]
            for job in jobs:
                job.result()
        self._rounds = number + 1
        return data.cost

    def validate(self) -> float:
        """Return the mean log2 of what held crops cost per value."""
        return pool(iter(self._held), self._mean.model(), 10**12, self._config.threads, self._config.trade).cost

    def keep(self) -> None:
        """Keep the running mean as it is."""
        self.best = deepcopy(self._mean)

    def state(self) -> State:
        """Return everything that goes on."""
        return {
            "widths": list(self._config.widths),
            "rounds": self._rounds,
            "newest": self._what.state(),
            "mean": self._mean.state(),
            "best": self.best.state(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds, and draw other crops."""
        check_same("widths", state["widths"], list(self._config.widths))
        for what, saved in ((self._what, "newest"), (self._mean, "mean"), (self.best, "best")):
            what.load(state[saved])
        for optimizer, saved_state in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved_state)
        self._rounds = state["rounds"]
        rng = np.random.default_rng([self._config.seed, self._rounds])
        self._source = crops(self._fields, rng, self._config.crop)


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    checkpoint: Path,
    config: ContextConfig,
    *,
    start: Trainable | None = None,
    resume: bool = False,
    report: Report = lambda progress: None,
) -> tuple[Trainable, Progress]:
    """Train the context networks; return the running mean of their weights that is best on validation.

    Parameters
    ----------
    fields, validation : sequences of Field
        Only the first are learned from.
    start : Trainable, optional
        What to begin with, if not from scratch.
    checkpoint, resume, report
        As of `loop.run`.
    """
    task = ContextTask(fields, validation, config, start)
    budget = Budget(config.minutes, config.validate_every)
    progress = run(task, checkpoint, budget, resume=resume, report=report)
    return task.best, progress


def _held(validation: Sequence[Field], config: ContextConfig) -> list[Crop]:
    source, found, total = crops(validation, np.random.default_rng(12345), config.crop), list[Crop](), 0
    while total < config.validation_points:
        found.append(next(source))
        total += found[-1].channels.size
    return found


def _descend(
    net: ContextMLP,
    mean: ContextMLP,
    optimizer: torch.optim.Optimizer,
    data: Examples,
    done: float,
    rounds: int,
    config: ContextConfig,
) -> None:
    tensors = [torch.from_numpy(getattr(data, f)) for f in data.__dataclass_fields__]
    unit = torch.from_numpy(MEAN_OF * 64 / UNITS).float()  # steps of one activity
    root = tensors[-1].double().sqrt()
    drawn, scale = root.cumsum(0), float(root.mean() / tensors[-1].double().mean())
    generator = torch.Generator().manual_seed(config.seed + 1000 * rounds)
    for i in range(max(1, int(config.epochs_per_pool * len(data) / config.batch))):
        position = torch.rand(config.batch, generator=generator, dtype=torch.float64) * drawn[-1]
        at = torch.searchsorted(drawn, position).clamp_max(len(data) - 1)
        x, depth, rough, target, weight = (t[at] for t in tensors)
        y = net(x, depth, done >= config.rounded_from)
        noise = torch.rand(len(at), generator=generator) - 0.5
        bits = losses(y, unit[rough.long()], rough.float(), target, noise)
        rate = config.learning_rate * falling(done, 0.35) * (min(1.0, (i + 1) / 30) if rounds == 0 else 1.0)
        descend(optimizer, net.parameters(), (bits * weight.sqrt()).mean() * scale, rate)
        follow(mean, net, 1 - config.memory if rounds else max(1 - config.memory, 1 / (i + 1)))


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
