"""Training of the pyramid: rounds of new examples made by the integer networks themselves, then descent on them.

The three phases have independent networks, each trained by a thread of its own. The scale is trained on the
hard symbols that will be coded; the mean on a uniform-noise relaxation, which is differentiable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.bounded.geometry import CONTEXTS, ROUGHNESS_FLOOR, scale_tables
from isopress.codec.bounded.predictor import Networks
from isopress.codec.training.loop import Budget, Progress, Report, State, check_same, descend, falling, run
from isopress.codec.training.pyramid_network import RoundedMLP, build
from isopress.codec.training.pyramid_pool import (
    LOGISTIC,
    TAIL_SPREAD,
    TAIL_WEIGHTS,
    Crop,
    Examples,
    Field,
    crops,
    pool,
)

Trained = dict[str, RoundedMLP]

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


class PyramidTask:
    """Training of the pyramid's networks; the integer weights that are best on validation are written to `out`."""

    def __init__(self, fields: Sequence[Field], validation: Sequence[Field], out: Path, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self._fields, self._out, self._config = fields, out, config
        self._networks = build(config.widths)
        self._optimizers = {
            name: torch.optim.AdamW(n.parameters(), weight_decay=0.0, betas=(0.9, 0.98))
            for name, n in self._networks.items()
        }
        self._rounds = 0
        self._source = crops(fields, np.random.default_rng(config.seed), config.crop)
        self._held = validation_crops(validation, 2 * config.crop, config.validation_points)

    def round(self, number: int, done: float) -> float:
        """Learn from a new pool of examples, the phases side by side."""
        config, networks = self._config, self._networks
        data, rate = pool(self._source, integer_networks(networks), config.pool_points, config.threads)
        with ThreadPoolExecutor(len(CONTEXTS)) as executor:
            jobs = [
                executor.submit(_descend, networks[n], self._optimizers[n], n, data[n], done, number, config)
                for n in networks
            ]
            for job in jobs:
                job.result()
        self._rounds = number + 1
        return rate

    def validate(self) -> float:
        """Return the mean log2(bits per value) of held crops."""
        points = sum(crop.y.size for crop in self._held)
        return pool(iter(self._held), integer_networks(self._networks), points, self._config.threads)[1]

    def keep(self) -> None:
        """Write the integer weights."""
        self._out.write_bytes(to_bytes(self._networks))

    def state(self) -> State:
        """Return everything that goes on."""
        return {
            "widths": list(self._config.widths),
            "rounds": self._rounds,
            "networks": {n: net.state_dict() for n, net in self._networks.items()},
            "optimizers": {n: o.state_dict() for n, o in self._optimizers.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds, and draw other crops."""
        check_same("widths", state["widths"], list(self._config.widths))
        for name, network in self._networks.items():
            network.load_state_dict(state["networks"][name])
            self._optimizers[name].load_state_dict(state["optimizers"][name])
        self._rounds = state["rounds"]
        rng = np.random.default_rng([self._config.seed, self._rounds])
        self._source = crops(self._fields, rng, self._config.crop)


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    report: Report = lambda progress: None,
) -> Progress:
    """Train the pyramid's networks, keeping the integer weights that are best on validation in `out`.

    Parameters
    ----------
    fields, validation : sequences of Field
        Two-dimensional fields; only the first are learned from.
    out : Path
        Weights, written as safetensors at every improvement; the checkpoint lies beside it (`.ckpt`).
    resume, report
        As of `loop.run`.
    """
    task = PyramidTask(fields, validation, out, config)
    budget = Budget(config.minutes, config.validate_every)
    return run(task, out.with_suffix(".ckpt"), budget, resume=resume, report=report)


def integer_networks(networks: Trained) -> Networks:
    """Return the integer networks that the trained ones stand for."""
    return ({name: net.integer_network() for name, net in networks.items()},)


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
        position = torch.rand(config.batch, generator=generator, dtype=torch.float64) * drawn[-1]
        at = torch.searchsorted(drawn, position).clamp_max(len(data) - 1)
        x, level, kind, gap, rough, target, width, weight = (t[at] for t in tensors)
        y = net(x, level, kind, gap, done >= config.rounded_from)
        noise = torch.rand(len(at), generator=generator) - 0.5
        bits = losses(y, roughness[rough.long()], rough.float(), target, width.float(), noise)
        rate = config.learning_rate * falling(done, 0.35) * (min(1.0, (i + 1) / 30) if rounds == 0 else 1.0)
        descend(optimizer, net.parameters(), (bits * weight.sqrt()).mean() * scale, rate)


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


def validation_crops(fields: Sequence[Field], crop: int, points: int, *, references: bool = True) -> list[Crop]:
    """Return crops of about `crop` values each, `points` in all, that are the same every time."""
    source = crops(fields, np.random.default_rng(12345), crop, references=references)
    result = list[Crop]()
    while sum(crop.y.size for crop in result) < points:
        result.append(next(source))
    return result


def to_bytes(networks: Trained) -> bytes:
    """Return the safetensors file of the integer networks."""
    tensors = dict[str, np.ndarray]()
    for name, net in networks.items():
        tensors |= tensors_of(name, net)
    return save(tensors)


def tensors_of(name: str, net: RoundedMLP) -> dict[str, np.ndarray]:
    """Return the tensors of an integer network by their names in a file."""
    tensors = {f"{name}.{key}": value for key, value in net.conditions().items()}
    for i, layer in enumerate(net.integers()):
        tensors |= {f"{name}.{i}.{key}": np.ascontiguousarray(value) for key, value in vars(layer).items()}
    return tensors
