"""Training of the synthesis transformer on the very symbols that the encoder chooses.

The loss of each crop is the logarithm of a Lagrangian: squared error, in squared steps, plus RATE times bits. Only the
error depends on the synthesis; the bits make every step count the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isopress.codec.entropy.coder import SymbolWriter
from isopress.codec.latent.coefficients import TRADE, Latents, encode
from isopress.codec.latent.context_features import UNITS
from isopress.codec.latent.context_model import ContextModel
from isopress.codec.latent.correction import SynthesisConfig
from isopress.codec.latent.decorrelation import choose
from isopress.codec.latent.halvings import choose_ahead, part_seen
from isopress.codec.latent.reduced_grid import levels
from isopress.codec.latent.synthesis import Synthesis
from isopress.codec.training.latent_pool import RATE, drawn_as_often
from isopress.codec.training.loop import Budget, Progress, Report, State, check_same, descend, falling, follow, run
from isopress.codec.training.pyramid_pool import Field

F32 = NDArray[np.float32]
STEPS = (0.03, 1.8)  # steps drawn log-uniformly, in standard deviations of the fields
BLOCKS = 0.08  # part of the draws that are the channels of a block
LEAST_ERROR = 2e-4  # squared steps per value: what nobody would miss


@dataclass(frozen=True)
class SynthesisTraining:
    """Everything that shapes a training; `minutes` of wall time on an idle machine."""

    minutes: float = 60.0
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    learning_rate: float = 1.5e-3
    memory: float = 0.997  # of the running mean of the weights, which is what is kept
    crop: tuple[int, int] = (192, 256)
    batch: int = 4
    pool: int = 64  # crops
    epochs: int = 4
    trade: float = TRADE
    validation: int = 48
    validate_every: float = 240.0
    seed: int = 0


@dataclass(frozen=True)
class Original:
    """One channel (h, w) in steps, and the log of its standard deviation."""

    x: F32
    spread: float


@dataclass(frozen=True)
class Example:
    """One channel, coded: original and decoded values (h, w) in steps, log standard deviation, bits."""

    x: F32
    decoded: F32
    spread: float
    bits: float


def originals(fields: Sequence[Field], rng: np.random.Generator, crop: tuple[int, int]) -> Iterator[Original]:
    """Draw channels of `crop` values for ever; those of a block come in a row."""
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
        if times * depth > 1 and rng.random() < BLOCKS:
            pieces = f.values[t : t + 5, d] if times > 1 else f.values[0, d : d + 5]
        x = np.asarray(_window(pieces, rng, crop), np.float64)
        x = x[:, :: rng.choice((-1, 1)), :: rng.choice((-1, 1))] * rng.choice((-1, 1))
        step = f.deviation * math.exp(rng.uniform(*np.log(STEPS)))
        y = (x - x.mean()) / step
        if len(y) == 1:
            yield Original(y[0].astype(np.float32), math.log(f.deviation / step))
            continue
        for channel in choose(y, 1.0)[0].forward(y, 0):
            if np.abs(channel).max() > 2:
                spread = math.log(channel.std() + 1e-3) + rng.uniform(0, 0.5)
                yield Original(channel.astype(np.float32), spread)


def _window(pieces: NDArray[np.floating], rng: np.random.Generator, crop: tuple[int, int]) -> NDArray[np.floating]:
    """Return a window of exactly `crop` values, mirrored where a field is smaller."""
    missing = [max(0, want - have) for want, have in zip(crop, pieces.shape[1:], strict=True)]
    if any(missing):
        pieces = np.pad(pieces, ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect")
    y, x = (int(rng.integers(0, have - want + 1)) for want, have in zip(crop, pieces.shape[1:], strict=True))
    return pieces[:, y : y + crop[0], x : x + crop[1]]


def code(original: Original, model: ContextModel, trade: float) -> Example:
    """Code one channel as the encoder does."""
    y = original.x.astype(np.float64)
    split = levels(*y.shape, False, choose_ahead(part_seen(y)))
    writer = SymbolWriter(peaked=True)
    decoded = encode(writer, [Latents.of(y, split)], split, model, trade)
    bits = 8.0 * len(writer.finish())
    return Example(original.x, (decoded[0] / UNITS).astype(np.float32), original.spread, bits)


class SynthesisTask:
    """Training of a synthesis around trained contexts; the running mean of its weights is kept."""

    def __init__(
        self,
        fields: Sequence[Field],
        validation: Sequence[Field],
        model: ContextModel,
        config: SynthesisTraining,
        start: Synthesis | None,
    ) -> None:
        torch.manual_seed(config.seed)
        self._fields, self._model, self._config = fields, model, config
        self._newest = (start or Synthesis(config.synthesis)).train().requires_grad_(True)
        self._optimizer = torch.optim.AdamW(self._newest.parameters(), weight_decay=1e-3, betas=(0.9, 0.98))
        self.mean = deepcopy(self._newest).requires_grad_(False)
        self._steps = 0
        self._source = originals(fields, np.random.default_rng(config.seed), config.crop)
        held = originals(validation, np.random.default_rng(4321), config.crop)
        self._held = [code(x, model, config.trade) for x in islice(held, config.validation)]
        self._executor = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self._next: Future[list[Example]] | None = None

    def round(self, number: int, done: float) -> float:
        """Learn from a pool of crops, while the next one is coded."""
        config = self._config
        examples = (self._next or self._executor.submit(self._pool)).result()
        self._next = self._executor.submit(self._pool)
        rng, losses = np.random.default_rng(number), list[float]()
        for _ in range(config.epochs):
            order = rng.permutation(len(examples))
            for i in range(0, len(order) - config.batch + 1, config.batch):
                loss = objective(self._newest, [examples[k] for k in order[i : i + config.batch]]).mean()
                self._steps += 1
                rate = config.learning_rate * min(1, self._steps / 100) * falling(done, 0.3)
                descend(self._optimizer, self._newest.parameters(), loss, rate)
                follow(self.mean, self._newest, 1 - config.memory)
                losses.append(float(loss.detach()))
        return float(np.mean(losses))

    def _pool(self) -> list[Example]:
        return [code(x, self._model, self._config.trade) for x in islice(self._source, self._config.pool)]

    @torch.no_grad()
    def validate(self) -> float:
        """Return the mean log2 of what held channels cost: 0.01 less is about 1 % of size at equal error."""
        return float(np.mean([float(objective(self.mean, [example])) for example in self._held])) / math.log(2)

    def keep(self) -> None:
        """Keep nothing: the running mean at the end is what is wanted."""

    def state(self) -> State:
        """Return everything that goes on."""
        return {
            "synthesis": asdict(self._config.synthesis),
            "newest": self._newest.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self._steps,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds, and draw other crops."""
        check_same("synthesis", state["synthesis"], asdict(self._config.synthesis))
        self._newest.load_state_dict(state["newest"])
        self.mean.load_state_dict(state["mean"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._steps = state["steps"]
        self._source = originals(
            self._fields, np.random.default_rng([self._config.seed, self._steps]), self._config.crop
        )

    def close(self) -> None:
        """End the thread that codes crops."""
        self._executor.shutdown(cancel_futures=True)


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    model: ContextModel,
    checkpoint: Path,
    config: SynthesisTraining,
    *,
    start: Synthesis | None = None,
    resume: bool = False,
    report: Report = lambda progress: None,
) -> tuple[Synthesis, Progress]:
    """Train the synthesis around trained contexts; return the running mean of its weights.

    Parameters
    ----------
    fields, validation : sequences of Field
        Only the first are learned from.
    start : Synthesis, optional
        What to begin with, if not from scratch.
    checkpoint, resume, report
        As of `loop.run`.
    """
    task = SynthesisTask(fields, validation, model, config, start)
    try:
        budget = Budget(config.minutes, config.validate_every)
        progress = run(task, checkpoint, budget, resume=resume, report=report)
    finally:
        task.close()
    return task.mean.eval(), progress


def objective(synthesis: Synthesis, batch: Sequence[Example]) -> Tensor:
    """Return the loss (B,) of channels of one shape: the logarithm of what they cost.

    In float32: with products in bfloat16 the synthesis learns corrections that only hold there.
    """
    x = torch.from_numpy(np.stack([e.x for e in batch]))[:, None]
    decoded = torch.from_numpy(np.stack([e.decoded for e in batch]))[:, None]
    error = decoded + synthesis(decoded, torch.tensor([e.spread for e in batch]), False) - x
    bits = torch.tensor([e.bits for e in batch])
    return torch.log(error.square().sum((1, 2, 3)) + RATE * bits + LEAST_ERROR * error[0].numel())
