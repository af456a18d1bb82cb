"""Training of a VAEformer on windows that are read as they are needed, by one process or several.

One run has the stages of the publication: reconstruction with a KL term; rate and distortion with uniform noise in
place of rounding; at last hard rounding, with the encoder frozen. Quantiser steps are drawn log-uniformly, and the loss
is the logarithm of each window's objective, so that every rate counts the same. Lengths are in steps of descent:
processes that train together must all do the same. Example i is the same whoever draws it, its noise included, so that
N processes with batches of B learn what one learns with a batch of N * B. The weights that are kept are a running mean
of those that learn.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isopress.codec.errors import ArgumentError
from isopress.codec.training.loop import (
    Budget,
    Progress,
    Report,
    State,
    check_same,
    cosine,
    descend,
    follow,
    of_team,
    run,
    subnormal_as_zero,
    team,
)
from isopress.codec.training.vaeformer import BALANCED_LMBDA, keep_patch, loss_of
from isopress.codec.vaeformer.channels import ANY, Channels
from isopress.codec.vaeformer.config import CONFIGS, ModelSpec
from isopress.codec.vaeformer.integer_scales import STEPS, step_of
from isopress.codec.vaeformer.model import Noise, PatchVAEformer

F32 = NDArray[np.float32]
Batch = tuple[Tensor, Tensor, list[int]]  # windows (B, C, h, w), steps (B,), seeds of their noise
SCORE = "mean log(cost per value)"
_HELD_SEED = 4321
# Keys' biases have no gradient but its rounding errors; with less than this Adam would make whole steps of them.
ADAM_EPSILON = 1e-6
_TRIAL = 3  # steps


class Windows(Protocol):
    """Where examples come from."""

    def window(self, rng: np.random.Generator, shape: tuple[int, int]) -> F32:
        """Return a random window (C, h, w) of a random time, in the units of the data; nothing missing."""


@dataclass(frozen=True)
class ChannelTraining:
    """Everything that shapes a training but the model; the table `training` of a TOML file may change all of it.

    `stage_two` is "uniform" as published, or "mixed"; `measured` says whether means and deviations of the channels
    are taken from windows: if not, windows have mean 0 and deviation 1, and so must what is coded.
    """

    steps: int = 100_000
    batch: int = 8  # of each process
    crop: tuple[int, int] = (128, 128)
    step_range: tuple[float, float] = (0.05, 2.0)  # of the quantiser, in standard deviations
    lmbda: float = float(BALANCED_LMBDA)
    beta: float = 0.1
    floor: float = 0.01  # bits per value that nobody would miss
    stage_two_from: float = 0.08  # parts of the run
    stage_three_from: float = 0.8
    stage_two: Noise = "uniform"
    measured: bool = True
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    warm_up: int = 200
    mean: float = 0.002  # part of the way that the running mean moves with every step
    round: int = 50  # steps
    validate_every: int = 20  # rounds
    validation: int = 16  # examples
    validation_crop: tuple[int, int] | None = None  # `crop` if left out; larger ones show what only whole fields suffer
    statistics: int = 64  # windows that means and deviations are taken from
    largest: int = 0  # of integers that stand for the networks' matrices in the file, at most 127; 0 for half precision
    seed: int = 0


# For weights like `small`: single fields of any variable, one core and two hours. The shipped ones were trained in
# parts, which their card tells.
SMALL = ModelSpec(CONFIGS["small"], (ANY,))
SINGLE_FIELDS = ChannelTraining(
    steps=17_200,
    batch=4,
    validation_crop=(256, 512),
    step_range=(0.025, 8.0),
    stage_two_from=0.0,
    stage_three_from=0.94,
    stage_two="mixed",
    measured=False,
    learning_rate=1e-3,
    warm_up=50,
    mean=0.004,
    round=25,
    validate_every=16,
    validation=24,
    largest=20,
)


class ChannelTask:
    """What `loop.run` trains: the model, its running mean, and examples drawn ahead by a thread."""

    def __init__(
        self, spec: ModelSpec, windows: Windows, held: Windows, out: Path, config: ChannelTraining, device: str
    ) -> None:
        torch.manual_seed(config.seed)
        self.channels = measured_channels(spec, windows, config)
        self.model = PatchVAEformer(spec.config).to(device)
        _start_scales(self.model, self.channels, windows, config)
        self._learner: nn.Module = of_team(self.model)
        self.mean = deepcopy(self.model).requires_grad_(False).eval()
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            config.learning_rate,
            betas=(0.9, 0.95),
            eps=ADAM_EPSILON,
            weight_decay=config.weight_decay,
        )
        self._windows, self._out, self._config, self._spec, self._device = windows, out, config, spec, device
        self._steps = 0
        crop = config.validation_crop or config.crop
        draws = (self._example(held, _HELD_SEED, i, crop) for i in range(config.validation))
        self._held = [self._tensors([draw]) for draw in draws]

    def round(self, number: int, done: float) -> float:
        """Take some steps of descent."""
        config, losses = self._config, list[float]()
        for batch in self._ahead(min(config.round, config.steps - self._steps)):
            done = self._steps / config.steps
            losses.append(self.learn(batch, noise_of(done, config), done))
        return float(np.mean(losses))

    def learn(self, batch: Batch, noise: Noise, done: float) -> float:
        """Take one step of descent; return the loss."""
        config = self._config
        if noise == "hard" and self.model.encoder.head.weight.requires_grad:
            self.model.freeze_encoder()
            self._learner = of_team(self.model)
        loss = self._loss(self._learner, batch, noise)
        rate = config.learning_rate * cosine(done) * min(1.0, (self._steps + 1) / config.warm_up)
        descend(self._optimizer, self.model.parameters(), loss, rate)
        follow(self.mean, self.model, max(config.mean, 1 / (self._steps + 1)))
        self._steps += 1
        return float(loss.detach())

    def batch(self, step: int) -> Batch:
        """Return the examples that are this process's part of a step."""
        rank, processes = team()
        config, first = self._config, (step * processes + rank) * self._config.batch
        return self._tensors(
            [self._example(self._windows, config.seed, first + i, config.crop) for i in range(config.batch)]
        )

    @torch.no_grad()
    def validate(self) -> float:
        """Return the mean loss of held windows, latents rounded."""
        return float(np.mean([float(self._loss(self.mean, batch, "hard")) for batch in self._held]))

    @torch.no_grad()
    def keep(self) -> None:
        """Write the running mean of the weights, with tables that fit its hyper-latents."""
        found = [self.mean.hyper_analysis(self.mean.analysis(x, step)[0], step) for x, step, _ in self._held]
        values = torch.cat([z.transpose(0, 1).flatten(1) for z in found], 1).cpu().numpy()
        keep_patch(deepcopy(self.mean).cpu(), self._out, self.channels, values, largest=self._config.largest)

    def state(self) -> State:
        """Return everything that goes on."""
        return {
            "config": _plain(asdict(self._spec.config)),
            "steps": self._steps,
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "channels": {"mean": self.channels.mean.tolist(), "deviation": self.channels.deviation.tolist()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds; examples go on where they stopped."""
        check_same("configuration", state["config"], _plain(asdict(self._spec.config)))
        self.model.load_state_dict(state["model"])
        self.mean.load_state_dict(state["mean"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._steps = state["steps"]
        mean, deviation = (np.array(state["channels"][name], np.float32) for name in ("mean", "deviation"))
        self.channels = Channels(self._spec.channels, mean, deviation)

    def _ahead(self, count: int) -> Iterator[Batch]:
        """Yield batches; the next one is read while the newest is learned from."""
        first = self._steps
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(self.batch, first)
            for i in range(first, first + count):
                batch = waiting.result()
                if i + 1 < first + count:
                    waiting = thread.submit(self.batch, i + 1)
                yield batch

    def _example(self, windows: Windows, seed: int, i: int, crop: tuple[int, int]) -> tuple[F32, float, int]:
        """Return a normalised window, the step it is coded at, and the seed of its noise."""
        rng = np.random.default_rng([seed, i])
        x = self.channels.normalised(windows.window(rng, crop)).astype(np.float32)
        low, high = np.log2(self._config.step_range) * STEPS
        return x, step_of(round(rng.uniform(low, high))), int(rng.integers(2**62))

    def _tensors(self, batch: list[tuple[F32, float, int]]) -> Batch:
        x = torch.from_numpy(np.stack([x for x, _, _ in batch])).to(self._device)
        step = torch.tensor([step for _, step, _ in batch], dtype=torch.float32, device=self._device)
        return x, step, [seed for _, _, seed in batch]

    def _loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        x, step, seeds = batch
        rates, config = model(x, step, noise=noise, seeds=seeds), self._config
        return loss_of(rates, x, step, noise, beta=config.beta, lmbda=config.lmbda, floor=config.floor)


def train(
    spec: ModelSpec,
    windows: Windows,
    held: Windows,
    out: Path,
    config: ChannelTraining,
    *,
    device: str = "cpu",
    resume: bool = False,
    report: Report = lambda progress: None,
) -> Progress:
    """Train the model of `spec`; the weights that are best on `held` are in `out`, a checkpoint lies beside it.

    With torch.distributed at work, all processes of the group train together, and the first writes.

    Raises
    ------
    ArgumentError
        The model has no integer scales, so that nothing could be coded with it, or the checkpoint is of another.
    """
    if not spec.config.scale_neurons:
        raise ArgumentError("a model without scale_neurons codes nothing; give it some")
    task = ChannelTask(spec, windows, held, out, config, device)
    rounds = -(-config.steps // config.round)
    budget = Budget(0, rounds=rounds, validate_rounds=config.validate_every)
    return run(task, out.with_suffix(".ckpt"), budget, resume=resume, report=report)


def noise_of(done: float, config: ChannelTraining) -> Noise:
    """Return what becomes of latents in this part of the run."""
    if done < config.stage_two_from:
        return "variational"
    return config.stage_two if done < config.stage_three_from else "hard"


def measured_channels(spec: ModelSpec, windows: Windows, config: ChannelTraining) -> Channels:
    """Return the channels with mean and deviation of some windows.

    Raises
    ------
    ArgumentError
        A channel does not vary.
    """
    if not config.measured:
        count = len(spec.channels)
        return Channels(spec.channels, np.zeros(count, np.float32), np.ones(count, np.float32))
    rng = np.random.default_rng([config.seed, 10**9])
    drawn = np.stack([windows.window(rng, config.crop) for _ in range(config.statistics)]).astype(np.float64)
    mean, deviation = drawn.mean((0, 2, 3)), drawn.std((0, 2, 3))
    if not (deviation > 0).all():
        still = spec.channels[int(deviation.argmin())]
        raise ArgumentError(f"channel {still[0]}, level {still[1]}: all values are {mean[deviation.argmin()]}")
    return Channels(spec.channels, mean.astype(np.float32), deviation.astype(np.float32))


def _start_scales(model: PatchVAEformer, channels: Channels, windows: Windows, config: ChannelTraining) -> None:
    """Let the integer scales begin with those of some windows' latents."""
    if model.hyper_decoder.integer is None:
        return
    device, latents = model.encoder.head.weight.device, list[Tensor]()
    for i in range(config.statistics):
        x = channels.normalised(windows.window(np.random.default_rng([config.seed, 10**9 + 1, i]), config.crop))
        with torch.no_grad():
            found, _ = model.analysis(
                torch.from_numpy(x[None].astype(np.float32)).to(device), torch.ones(1, device=device)
            )
        latents.append(found)
    model.hyper_decoder.integer.start_from(torch.cat(latents))


def _plain(config: Mapping[str, Any]) -> Any:
    """Return a configuration as JSON holds it."""
    return json.loads(json.dumps(config))


@subnormal_as_zero()
def trial(spec: ModelSpec, windows: Windows, config: ChannelTraining, device: str) -> dict[str, str]:
    """Take a few steps of the second stage, keep nothing; return parameters, memory, speed and days in words."""
    task = ChannelTask(spec, windows, windows, Path(), replace(config, validation=1, statistics=4), device)
    batch = task.batch(0)
    task.learn(batch, "uniform", 0.0)  # what is set up only once
    started = time.perf_counter()
    for _ in range(_TRIAL):
        task.learn(batch, "uniform", 0.0)
    speed = _TRIAL / (time.perf_counter() - started)
    started = time.perf_counter()
    task.batch(1)
    reading = time.perf_counter() - started
    count = sum(parameter.numel() for parameter in task.model.parameters())
    return {
        "parameters": f"{count / 1e6:.2f} M",
        "memory": f"{_peak(device) / 2**30:.2f} GiB at its peak, {20 * count / 2**30:.2f} of them weights and state",
        "speed": f"{speed:.3g} steps of {config.batch} windows a second; reading one batch takes {reading:.3g} s",
        "time": f"{config.steps / min(speed, 1 / reading) / 86400:.3g} days for {config.steps} steps",
    }


def _peak(device: str) -> float:
    """Return the most bytes that were in use: of the device, or of this process."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
