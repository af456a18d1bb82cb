"""Small networks for the two finest levels of given weights, where most points are: pruned, then trained on.

The large networks go on teaching them: to the bits of the symbols the loss adds how far the answers of both are from
each other, which has no noise in it. Rounding is in the loop from the start, and the levels above stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load, save
from torch import Tensor

from isopress.codec.bounded.geometry import CONTEXTS, ROUGHNESS_FLOOR, Context, scale_tables
from isopress.codec.bounded.predictor import Networks
from isopress.codec.bounded.weights import FINEST, parse_pyramid
from isopress.codec.training.loop import Budget, Progress, Report, State, check_same, descend, falling, run
from isopress.codec.training.pyramid import losses, tensors_of, validation_crops
from isopress.codec.training.pyramid_network import RoundedMLP
from isopress.codec.training.pyramid_pool import Examples, Field, crops, pool
from isopress.codec.training.pyramid_pruning import pruned

Widths = tuple[int, int]
DISTANCE = 10.0  # what a bit of distance from the large network costs, in bits of symbols
NEAR_STEP = 0.06  # square of a distance of means that a symbol does not tell, in steps
NEAR_SCALE = 0.15  # scale in steps below which few symbols tell it
INFORMATION = (0.8, 0.5, 0.02)  # on mean, octaves of scale, tail class: bits per square


@dataclass(frozen=True)
class FinestConfig:
    """Everything that shapes a training of networks for the finest levels; `minutes` of wall time.

    widths : hidden widths per group of weights (`weights.FINEST`), of the phases D, H and V.
    """

    minutes: float = 40.0
    widths: tuple[tuple[Widths, Widths, Widths], ...] = (((32, 24), (40, 24), (64, 48)), ((48, 32), (48, 32), (64, 48)))
    learning_rate: float = 1e-3
    batch: int = 4096
    pool_points: int = 3_000_000
    pruned_on: int = 100_000  # examples
    epochs_per_pool: float = 2.0
    crop: int = 60_000  # values
    validation_points: int = 1_000_000
    validate_every: float = 300.0  # seconds
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Small:
    """A network of one level and phase in training."""

    group: str
    level: int
    context: Context
    large: RoundedMLP
    net: RoundedMLP
    optimizer: torch.optim.Optimizer

    @property
    def name(self) -> str:
        """What precedes the names of its tensors."""
        return self.group + self.context.name

    def learn(self, data: Examples, done: float, number: int, config: FinestConfig) -> None:
        """Descend on a pool of examples of its phase."""
        data = data.of_level(self.level)
        roughness = torch.from_numpy(scale_tables(self.context).roughness).float()
        tensors = [torch.from_numpy(getattr(data, f)) for f in data.__dataclass_fields__]
        tensors.append(self._taught(tensors, config.batch))
        generator = torch.Generator().manual_seed(config.seed + 1000 * number)
        root = torch.from_numpy(data.weight).double().sqrt()
        drawn, unit = root.cumsum(0), float(root.mean() / torch.from_numpy(data.weight).double().mean())
        for i in range(max(1, int(config.epochs_per_pool * len(data) / config.batch))):
            position = torch.rand(config.batch, generator=generator, dtype=torch.float64) * drawn[-1]
            at = torch.searchsorted(drawn, position).clamp_max(len(data) - 1)
            x, level, kind, gap, rough, target, width, weight, taught = (t[at] for t in tensors)
            y = self.net(x, level, kind, gap, True)
            unit_of_mean, noise = roughness[rough.long()], torch.rand(len(at), generator=generator) - 0.5
            bits = losses(y, unit_of_mean, rough.float(), target, width, noise)
            bits = bits + DISTANCE * distance(y, taught, unit_of_mean, rough.float(), width)
            rate = config.learning_rate * falling(done, 0) * (min(1.0, (i + 1) / 100) if number == 0 else 1.0)
            descend(self.optimizer, self.net.parameters(), (bits * weight.sqrt()).mean() * unit, rate)

    @torch.no_grad()
    def _taught(self, tensors: Sequence[Tensor], batch: int) -> Tensor:
        """Return the answers of the large network to all examples."""
        parts = (slice(i, i + batch) for i in range(0, len(tensors[0]), batch))
        return torch.cat([self.large(*(t[at] for t in tensors[:4]), True) for at in parts])


def distance(y: Tensor, taught: Tensor, roughness: Tensor, index: Tensor, width: Tensor) -> Tensor:
    """Return about how many bits answers (M, 3) cost beyond those that taught them: the Kullback-Leibler distance of
    the symbols, to second order where it is small, growing like its root beyond."""
    sigma = ROUGHNESS_FLOOR / width * torch.exp2(index / 8 + taught[:, 1])
    moved = (y[:, 0] - taught[:, 0]) * roughness / width
    seen = sigma / (sigma + NEAR_SCALE)
    mean, scale, tail = INFORMATION
    square = mean * moved**2 / (sigma**2 + NEAR_STEP)
    square = square + seen * (scale * (y[:, 1] - taught[:, 1]) ** 2 + tail * (y[:, 2] - taught[:, 2]) ** 2)
    return torch.where(square < 1, square, 2 * square.clamp_min(1e-9).sqrt() - 1)


class FinestTask:
    """Training of the networks of the finest levels; weights with those that are best on validation go to `out`."""

    def __init__(
        self, fields: Sequence[Field], validation: Sequence[Field], init: Path, out: Path, config: FinestConfig
    ) -> None:
        torch.manual_seed(config.seed)
        self._fields, self._out, self._config = fields, out, config
        self._tensors = {k: v for k, v in load(init.read_bytes()).items() if not k.startswith(FINEST)}
        large = parse_pyramid(init.stem, save(self._tensors))
        self._coarse, self._references = large.networks[-1], large.takes_references
        self._rounds, self._source = 0, self._crops(0)
        self._held = validation_crops(validation, config.crop, config.validation_points, references=self._references)
        first, _ = pool(self._source, large.networks, config.pool_points // 4, config.threads)
        self._small = [
            self._pruned(group, level, context, widths, first[context.name])
            for level, (group, of_phases) in enumerate(zip(FINEST, config.widths, strict=False))
            for context, widths in zip(CONTEXTS, of_phases, strict=True)
        ]

    def _crops(self, rounds: int) -> Any:
        config = self._config
        rng = np.random.default_rng([config.seed, rounds])
        return crops(self._fields, rng, config.crop, references=self._references)

    def _pruned(self, group: str, level: int, context: Context, widths: Widths, data: Examples) -> Small:
        large = RoundedMLP.of(self._coarse[context.name], context.n_features)
        net = pruned(large, level, widths, data.of_level(level).some(self._config.pruned_on, self._config.seed))
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.0, betas=(0.9, 0.98))
        return Small(group, level, context, large, net, optimizer)

    def _networks(self) -> Networks:
        """Return the integer networks of all levels."""
        levels = [dict(self._coarse) for _ in FINEST]
        for small in self._small:
            levels[small.level][small.context.name] = small.net.integer_network()
        return (*levels, self._coarse)

    def round(self, number: int, done: float) -> float:
        """Learn from a new pool of examples."""
        config = self._config
        data, rate = pool(self._source, self._networks(), config.pool_points, config.threads)
        with ThreadPoolExecutor(config.threads) as executor:
            jobs = [executor.submit(s.learn, data[s.context.name], done, number, config) for s in self._small]
            for job in jobs:
                job.result()
        self._rounds = number + 1
        return rate

    def validate(self) -> float:
        """Return the mean log2(bits per value) of held crops."""
        points = sum(crop.y.size for crop in self._held)
        return pool(iter(self._held), self._networks(), points, self._config.threads)[1]

    def keep(self) -> None:
        """Write the integer weights."""
        tensors = dict(self._tensors)
        for small in self._small:
            tensors |= tensors_of(small.name, small.net)
        self._out.write_bytes(save(tensors, metadata={"kind": "pyramid"}))

    def state(self) -> State:
        """Return everything that goes on."""
        return {
            "widths": [[list(w) for w in group] for group in self._config.widths],
            "rounds": self._rounds,
            "networks": {s.name: s.net.state_dict() for s in self._small},
            "optimizers": {s.name: s.optimizer.state_dict() for s in self._small},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds, and draw other crops."""
        check_same("widths", state["widths"], self.state()["widths"])
        for small in self._small:
            small.net.load_state_dict(state["networks"][small.name])
            small.optimizer.load_state_dict(state["optimizers"][small.name])
        self._rounds = state["rounds"]
        self._source = self._crops(self._rounds)


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    init: Path,
    out: Path,
    config: FinestConfig,
    *,
    resume: bool = False,
    report: Report = lambda progress: None,
) -> Progress:
    """Write the weights `init` to `out` with small networks for the finest levels, those that are best on validation.

    Parameters
    ----------
    fields, validation : sequences of Field
        Only the first are learned from; weights that take no references learn from fields alone.
    init, out : Path
        Pyramid weights (safetensors); the checkpoint lies beside `out` (`.ckpt`).
    resume, report
        As of `loop.run`.
    """
    task = FinestTask(fields, validation, init, out, config)
    budget = Budget(config.minutes, config.validate_every)
    return run(task, out.with_suffix(".ckpt"), budget, resume=resume, report=report)
