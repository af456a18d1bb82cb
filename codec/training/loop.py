"""The loop of every training: rounds until the time is up, validations, a checkpoint that is plain data, resuming.

task.round(number, done)     makes examples, descends on them, returns the loss
task.validate()              score of what would be kept; less is better
task.keep()                  called when that is the best so far
task.state(), task.load()    everything that goes on, as plain tensors and numbers
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from isopress.codec.errors import ArgumentError

State = dict[str, Any]


class Task(Protocol):
    """What is trained."""

    def round(self, number: int, done: float) -> float:
        """Learn from new examples, `done` being the part of the time that is over; return the mean loss."""

    def validate(self) -> float:
        """Return the score on what is never learned from; less is better."""

    def keep(self) -> None:
        """Keep what was validated last: it is the best so far."""

    def state(self) -> State:
        """Return what a checkpoint holds: tensors, numbers, texts, lists and dicts of them."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds."""


@dataclass
class Progress:
    """State of a training: seconds and rounds so far, the newest loss, (seconds, score) of every validation."""

    seconds: float = 0.0
    rounds: int = 0
    loss: float = math.nan
    validation: list[tuple[float, float]] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The lowest score."""
        return min((score for _, score in self.validation), default=math.inf)


@dataclass(frozen=True)
class Budget:
    """How long a training takes, in minutes of wall time, and how often it validates, in seconds.

    With `rounds`, both are counted in rounds: processes that train together must stop and validate together.
    """

    minutes: float
    validate_every: float = 180.0
    rounds: int = 0
    validate_rounds: int = 20

    def done(self, progress: Progress) -> float:
        """Return which part of the training is over."""
        return progress.rounds / self.rounds if self.rounds else progress.seconds / (60 * self.minutes)

    def is_due(self, progress: Progress, validated: float) -> bool:
        """Return whether to validate, the last time having been after so many seconds."""
        if self.rounds:
            return progress.rounds % self.validate_rounds == 0 or progress.rounds >= self.rounds
        return progress.seconds - validated >= self.validate_every or progress.seconds >= 60 * self.minutes


Report = Callable[[Progress], None]


@contextmanager
def subnormal_as_zero() -> Iterator[None]:
    """Let the calling thread take subnormal numbers for zero, and be as it was afterwards.

    Small gradients are subnormal, and several times, on a gelu up to thirty times slower.
    """
    before = not np.float32(2**-149) * np.float32(1.0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(bool(before))


@subnormal_as_zero()
def run(
    task: Task, checkpoint: Path, budget: Budget, *, resume: bool = False, report: Report = lambda progress: None
) -> Progress:
    """Train until the time is up; a validation and a checkpoint at the start, now and then, and at the end.

    Parameters
    ----------
    checkpoint : Path
        Written whole or not at all, after every validation.
    resume : bool
        Go on from the checkpoint.

    Raises
    ------
    FileNotFoundError
        There is no checkpoint to resume from.
    ArgumentError
        It is no checkpoint of this training.
    """
    progress = Progress()
    if resume:
        saved = load_checkpoint(checkpoint)
        progress = Progress(**saved["progress"])
        progress.validation = [(seconds, score) for seconds, score in progress.validation]
        task.load(saved["task"])
    else:
        _validate(task, progress, checkpoint)
    started, validated = time.monotonic() - progress.seconds, progress.seconds
    while budget.done(progress) < 1:
        progress.loss = task.round(progress.rounds, budget.done(progress))
        progress.rounds += 1
        progress.seconds = time.monotonic() - started
        if budget.is_due(progress, validated):
            validated = progress.seconds
            _validate(task, progress, checkpoint)
        report(progress)
    return progress


def _validate(task: Task, progress: Progress, checkpoint: Path) -> None:
    score, leads = task.validate(), team()[0] == 0
    if score <= progress.best and leads:
        task.keep()
    progress.validation.append((progress.seconds, score))
    if leads:
        save_checkpoint(checkpoint, {"task": task.state(), "progress": asdict(progress)})


def save_checkpoint(path: Path, state: State) -> None:
    """Write a checkpoint, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> State:
    """Return what `save_checkpoint` wrote. Only plain data is read: a crafted file runs no code.

    Raises
    ------
    FileNotFoundError
        There is none.
    ArgumentError
        It is no checkpoint, or holds more than plain data.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path} to resume from")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ArgumentError(f"{path} is no checkpoint of a training: {error}") from error
    if not isinstance(state, dict) or not {"task", "progress"} <= state.keys():
        raise ArgumentError(f"{path} is no checkpoint of a training: it holds no task and progress")
    return state


def check_same(name: str, saved: object, asked: object) -> None:
    """Refuse a checkpoint of another shape.

    Raises
    ------
    ArgumentError
        `saved` and `asked` differ.
    """
    if saved != asked:
        raise ArgumentError(f"the checkpoint has {name} {saved}, asked for {asked}")


def falling(done: float, constant_until: float) -> float:
    """Return the learning rate as a part of the largest: constant, then a linear fall to a fiftieth."""
    return 1.0 if done < constant_until else max(0.02, (1 - done) / (1 - constant_until))


def cosine(done: float) -> float:
    """Return the learning rate as a part of the largest: half a cosine, down to a fiftieth."""
    return max(0.02, (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def team() -> tuple[int, int]:
    """Return which process this is of those that train together, and how many they are; (0, 1) for one alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextmanager
def together(device: str) -> Iterator[tuple[int, str]]:
    """Join the processes that torchrun started, if it did; give this one's number and device.

    Devices `cuda` become `cuda:0`, `cuda:1`, ..., one for each process of a machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, device
        return
    place = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    distributed.init_process_group("nccl" if place.startswith("cuda") else "gloo")
    try:
        yield distributed.get_rank(), place
    finally:
        distributed.destroy_process_group()


def of_team(model: nn.Module) -> nn.Module:
    """Return a model whose gradients are the mean over all processes, itself where there is one.

    It is to be made anew where other parameters of the model learn than before.
    """
    if team()[1] == 1:
        return model
    return DistributedDataParallel(model, find_unused_parameters=True)  # stages leave parts out


def descend(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], loss: Tensor, rate: float) -> None:
    """Take one step of descent; gradients of more than unit length are shortened."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


@torch.no_grad()
def follow(mean: nn.Module, newest: nn.Module, part: float) -> None:
    """Move the running mean of weights by a part of the way to the newest."""
    for kept, parameter in zip(mean.parameters(), newest.parameters(), strict=True):
        kept.lerp_(parameter, part)
