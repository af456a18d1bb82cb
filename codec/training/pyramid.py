"""Training of the pyramid: rounds of new examples made by the integer networks themselves, then descent on them.

The three phases have independent networks, each trained by a thread of its own. The scale is trained on the
hard symbols that will be coded; the mean on a uniform-noise relaxation, which is differentiable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.bounded.geometry import CONTEXTS, ROUGHNESS_FLOOR, scale_tables
from isopress.codec.training.pyramid_network import PyramidConfig, RoundedMLP, build
from isopress.codec.training.pyramid_pool import (
    LOGISTIC,
    TAIL_SPREAD,
    TAIL_WEIGHTS,
    Crop,
    Examples,
    Field,
    Networks,
    crops,
    pool,
)
from isopress.codec.training.tables import logistic_tables

Trained = dict[str, RoundedMLP]
Optimizers = dict[str, torch.optim.AdamW]

_MIN_SCALE = 0.06
_SOFT_SCALE = 0.25  # the mean's loss never looks finer than this part of a step


@dataclass(frozen=True)
class TrainConfig:
    """Everything that shapes a training run; `minutes` of wall time on an idle machine."""

    minutes: float = 90.0
    widths: tuple[int, ...] = (96, 64)
    learning_rate: float = 1e-3
    batch: int = 16384
    pool_points: int = 6_000_000
    epochs_per_pool: float = 2.0
    crop: int = 120_000  # values
    validation_points: int = 2_000_000
    validate_every: float = 180.0  # seconds
    rounded_from: float = 0.5  # part of the run after which rounding is in the loop
    threads: int = 2
    seed: int = 0


@dataclass
class Progress:
    """State of a run, reported after every round and kept in its checkpoint."""

    seconds: float = 0.0
    rounds: int = 0
    train_rate: float = float("nan")  # mean log2(bits per value) of the newest pool
    validation: list[tuple[float, float]] = field(default_factory=list)  # (seconds, the same on validation)

    @property
    def best(self) -> float:
        return min((rate for _, rate in self.validation), default=float("inf"))


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Train the pyramid's networks, keeping the integer weights that are best on validation in `out`.

    Parameters
    ----------
    fields, validation : sequences of Field
        Two-dimensional fields; only the first are learned from.
    out : Path
        Weights, written as safetensors at every improvement; the checkpoint lies beside it (`.ckpt`).
    resume : bool
        Go on from the checkpoint.
    """
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    networks = build(PyramidConfig(config.widths))
    optimizers = {
        name: torch.optim.AdamW(n.parameters(), weight_decay=0.0, betas=(0.9, 0.98)) for name, n in networks.items()
    }
    progress, checkpoint = Progress(), out.with_suffix(".ckpt")
    if resume:
        progress = _load(checkpoint, networks, optimizers, config)
        rng = np.random.default_rng([config.seed, progress.rounds])
    source = crops(fields, rng, config.crop)
    held = _validation_crops(validation, config)
    started = time.monotonic() - progress.seconds
    validated = progress.validation[-1][0] if progress.validation else 0.0
    with ThreadPoolExecutor(len(CONTEXTS)) as executor:
        while progress.seconds < 60 * config.minutes:
            data, progress.train_rate = pool(source, integer_networks(networks), config.pool_points, config.threads)
            done = progress.seconds / (60 * config.minutes)
            jobs = [
                executor.submit(_descend, networks[n], optimizers[n], n, data[n], done, progress.rounds, config)
                for n in networks
            ]
            for job in jobs:
                job.result()
            progress.rounds += 1
            progress.seconds = time.monotonic() - started
            if progress.seconds - validated >= config.validate_every or progress.seconds >= 60 * config.minutes:
                validated = progress.seconds
                _validate(networks, held, progress, out, config)
                _save(checkpoint, networks, optimizers, progress, config)
            report(progress)
    return progress


def integer_networks(networks: Trained) -> Networks:
    """Return the integer networks that the trained ones stand for."""
    return {name: net.integer_network() for name, net in networks.items()}


def _descend(
    net: RoundedMLP,
    optimizer: torch.optim.Optimizer,
    name: str,
    data: Examples,
    done: float,
    rounds: int,
    config: TrainConfig,
) -> None:
    tensors = [torch.from_numpy(getattr(data, f)) for f in data.__dataclass_fields__]
    roughness = torch.from_numpy(scale_tables(next(c for c in CONTEXTS if c.name == name)).roughness).float()
    # Points of loosely bounded crops weigh hundreds of times more than others: drawing them in proportion to
    # the root of their weight keeps the gradient's noise down.
    root = tensors[-1].double().sqrt()
    drawn, scale = root.cumsum(0), float(root.mean() / tensors[-1].double().mean())
    generator = torch.Generator().manual_seed(config.seed + 1000 * rounds)
    for i in range(max(1, int(config.epochs_per_pool * len(data) / config.batch))):
        for group in optimizer.param_groups:
            group["lr"] = _rate(done, config) * min(1.0, (i + 1) / 30 if rounds == 0 else 1.0)
        position = torch.rand(config.batch, generator=generator, dtype=torch.float64) * drawn[-1]
        at = torch.searchsorted(drawn, position).clamp_max(len(data) - 1)
        x, level, kind, gap, rough, target, width, weight = (t[at] for t in tensors)
        y = net(x, level, kind, gap, done >= config.rounded_from)
        noise = torch.rand(len(at), generator=generator) - 0.5
        bits = losses(y, roughness[rough.long()], rough.float(), target, width.float(), noise)
        loss = (bits * weight.sqrt()).mean() * scale
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()


def _rate(done: float, config: TrainConfig) -> float:
    """Constant, then a linear fall to a fiftieth."""
    return config.learning_rate * (1.0 if done < 0.35 else max(0.02, (1 - done) / 0.65))


def losses(y: Tensor, roughness: Tensor, index: Tensor, target: Tensor, width: Tensor, noise: Tensor) -> Tensor:
    """Return, per point, bits of the hard symbol (trains scale and tail) plus relaxed bits (trains the mean)."""
    residual = ((target - y[:, 0] * roughness) / width).clamp(-1e5, 1e5)
    sigma = (ROUGHNESS_FLOOR / width * torch.exp2(index / 8 + y[:, 1].clamp(-12, 8))).clamp_min(_MIN_SCALE)
    scale = sigma * LOGISTIC
    symbol = torch.round(residual.detach()).abs()
    tail = tail_weight(y[:, 2])
    hard = torch.logaddexp(
        torch.log1p(-tail) + log_mass(symbol, scale), torch.log(tail) + log_mass(symbol, scale * TAIL_SPREAD)
    )
    soft = log_mass((residual + noise).abs(), scale.detach().clamp_min(_SOFT_SCALE * LOGISTIC))
    return -(hard.clamp_min(-20.0) + soft) * 1.442695


def tail_weight(u: Tensor) -> Tensor:
    """Return the weight of the wide component: geometric between the stored classes."""
    first, last = TAIL_WEIGHTS[0], TAIL_WEIGHTS[-1]
    top = len(TAIL_WEIGHTS) - 1
    return first * (last / first) ** (u.clamp(0, top) / top)


def log_mass(a: Tensor, scale: Tensor) -> Tensor:
    """Return log P(|symbol| = a) of a centred logistic, stable for every scale."""
    x, w = (0.5 - a) / scale, 1 / scale
    return F.logsigmoid(x) + F.logsigmoid(w - x) + torch.log(-torch.expm1(-w.clamp_max(60.0)) + 1e-30)


def _validation_crops(fields: Sequence[Field], config: TrainConfig) -> list[Crop]:
    source = crops(fields, np.random.default_rng(12345), 2 * config.crop)
    result, points = [], 0
    while points < config.validation_points:
        crop = next(source)
        result.append(crop)
        points += crop.y.size
    return result


def _validate(networks: Trained, held: list[Crop], progress: Progress, out: Path, config: TrainConfig) -> None:
    _, rate = pool(iter(held), integer_networks(networks), sum(c.y.size for c in held), config.threads)
    if rate < progress.best:
        out.write_bytes(to_bytes(networks))
    progress.validation.append((progress.seconds, rate))


def to_bytes(networks: Trained) -> bytes:
    """Return the safetensors file of the integer networks and their tables."""
    tensors: dict[str, np.ndarray] = {}
    for name, net in networks.items():
        for i, layer in enumerate(net.integers()):
            tensors |= {f"{name}.{i}.{key}": np.ascontiguousarray(value) for key, value in vars(layer).items()}
        tensors |= {f"{name}.{key}": value for key, value in net.conditions().items()}
    frequencies, support = logistic_tables()
    return save(tensors | {"tables.frequencies": frequencies, "tables.support": support})


def _save(
    path: Path,
    networks: Trained,
    optimizers: Optimizers,
    progress: Progress,
    config: TrainConfig,
) -> None:
    state: dict[str, Any] = {
        "networks": {n: net.state_dict() for n, net in networks.items()},
        "optimizers": {n: o.state_dict() for n, o in optimizers.items()},
        "progress": asdict(progress),
        "widths": config.widths,
    }
    partial = path.with_suffix(".ckpt.partial")
    torch.save(state, partial)
    partial.replace(path)


def _load(
    path: Path,
    networks: Trained,
    optimizers: Optimizers,
    config: TrainConfig,
) -> Progress:
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path} to resume from")
    state = torch.load(path, weights_only=True)
    if tuple(state["widths"]) != tuple(config.widths):
        raise ValueError(f"checkpoint {path} has widths {state['widths']}, asked for {config.widths}")
    for name, net in networks.items():
        net.load_state_dict(state["networks"][name])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    saved = state["progress"]
    return Progress(saved["seconds"], saved["rounds"], saved["train_rate"], [tuple(v) for v in saved["validation"]])
