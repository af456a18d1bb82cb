"""Training and measuring of a patch VAEformer on crops of 2-D fields.

One run has the stages of the publication: reconstruction with a KL term; rate and distortion with uniform noise in
place of rounding; at last hard rounding, with the encoder frozen. The steps are drawn log-uniformly, and the loss is
the logarithm of each crop's objective, so that every rate counts the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from isopress.codec.entropy.coder import FIRST_SCALE
from isopress.codec.training.loop import Budget, Progress, Report, State, check_same, descend, falling, run
from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.tables import logistic_tables
from isopress.codec.vaeformer.channels import Channels
from isopress.codec.vaeformer.config import CONFIGS, PatchConfig
from isopress.codec.vaeformer.integer_scales import HYPER_MAX, OCTAVE, SMALLEST
from isopress.codec.vaeformer.model import Noise, PatchVAEformer, Rates, stage_one_objective, stage_two_objective
from isopress.codec.vaeformer.weights import parse_config

# An orthonormal transform whose fine uniform quantiser has step q errs by D = q**2 / 12 and needs -log2(D) / 2 bits:
# at this weight of D / q**2 no other step is cheaper.
BALANCED_LMBDA = 6 / np.log(2)
SCALING_BITS = 64  # of a field's mean and deviation, in float32
MIN_SIDE = 32
TAIL = 1  # tail class of all symbols: of the four, Gaussians with the likeliest outliers
SCORE = "mean log(cost per value)"  # what validations measure


@dataclass(frozen=True)
class PatchTraining:
    """Everything that shapes a training; `minutes` of wall time on an idle machine."""

    minutes: float = 60.0
    config: PatchConfig = CONFIGS["patch-small"]
    steps: tuple[float, float] = (0.05, 2.0)  # of the quantiser, in standard deviations of a field
    lmbda: float = float(BALANCED_LMBDA)
    beta: float = 0.1
    floor: float = 0.02  # bits per value that nobody would miss
    stage_two_from: float = 0.08  # parts of the run
    stage_three_from: float = 0.8
    crop: int = 128
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: int = 100  # batches
    constant_until: float = 0.4  # part of the run; then the learning rate falls linearly
    round: int = 50  # batches
    validation: int = 16  # batches
    validate_every: float = 120.0  # seconds
    seed: int = 0


class PatchTask:
    """Training of a patch VAEformer in three stages; the weights that are best on validation are written to `out`."""

    def __init__(self, fields: Sequence[Field], validation: Sequence[Field], out: Path, config: PatchTraining) -> None:
        torch.manual_seed(config.seed)
        torch.set_flush_denormal(True)  # as for the synthesis: for speed
        self._fields, self._out, self._config = fields, out, config
        self.model = PatchVAEformer(config.config)
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay
        )
        self._batches = 0
        self._source = batches(fields, config, np.random.default_rng(config.seed))
        self._held = list(islice(batches(validation, config, np.random.default_rng(4321)), config.validation))

    def round(self, number: int, done: float) -> float:
        """Take some steps of descent."""
        return float(np.mean([self._descend(done) for _ in range(self._config.round)]))

    def _descend(self, done: float) -> float:
        config = self._config
        x, step = next(self._source)
        noise = _noise(done, config)
        if noise == "hard":
            self.model.freeze_encoder()
        self._batches += 1
        rate = config.learning_rate * falling(done, config.constant_until) * min(1.0, self._batches / config.warm_up)
        loss = _loss(self.model, x, step, noise, config)
        descend(self._optimizer, self.model.parameters(), loss, rate)
        return float(loss.detach())

    @torch.no_grad()
    def validate(self) -> float:
        """Return the mean loss of held crops, latents rounded."""
        self.model.eval()
        losses = [float(_loss(self.model, x, step, "hard", self._config)) for x, step in self._held]
        self.model.train()
        return float(np.mean(losses))

    def keep(self) -> None:
        """Write the weights."""
        keep_patch(self.model, self._out, one_channel(self._config.config.channels))

    def state(self) -> State:
        """Return everything that goes on."""
        return {
            "config": _plain(asdict(self._config.config)),
            "batches": self._batches,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds, and draw other crops."""
        check_same("configuration", state["config"], _plain(asdict(self._config.config)))
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._batches = state["batches"]
        torch.manual_seed(self._config.seed + self._batches)
        rng = np.random.default_rng([self._config.seed, self._batches])
        self._source = batches(self._fields, self._config, rng)


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    out: Path,
    config: PatchTraining,
    *,
    resume: bool = False,
    report: Report = lambda progress: None,
) -> Progress:
    """Train a patch VAEformer; the weights that are best on validation are in `out` (safetensors).

    Parameters
    ----------
    fields, validation : sequences of Field
        Only the first are learned from; fields are drawn by the root of their size.
    out : Path
        The checkpoint lies beside it (`.ckpt`).
    resume, report
        As of `loop.run`.

    Raises
    ------
    ArgumentError
        The checkpoint is of another configuration.
    ValueError
        No field is as large as 32 x 32 and not constant.
    """
    task = PatchTask(fields, validation, out, config)
    budget = Budget(config.minutes, config.validate_every)
    return run(task, out.with_suffix(".ckpt"), budget, resume=resume, report=report)


def _loss(model: PatchVAEformer, x: Tensor, step: Tensor, noise: Noise, config: PatchTraining) -> Tensor:
    """Return the mean logarithm of each crop's objective."""
    rates = model(x, step, noise=noise)
    return loss_of(rates, x, step, noise, beta=config.beta, lmbda=config.lmbda, floor=config.floor)


def loss_of(rates: Rates, x: Tensor, step: Tensor, noise: Noise, *, beta: float, lmbda: float, floor: float) -> Tensor:
    """Return the mean logarithm of the objective of the stage that `noise` belongs to, of each example of a batch."""
    if noise == "variational":
        objective = stage_one_objective(rates, x, beta, step)
    else:
        objective = stage_two_objective(rates, x, lmbda, step)
    return torch.log(objective + floor).mean()


def ideal_rate(
    model: PatchVAEformer, values: NDArray[np.floating], step: float, *, periodic: bool = False
) -> tuple[float, float]:
    """Return (ideal bits, root mean square error in data units) of one field at one step of the quantiser.

    Parameters
    ----------
    values : ndarray, (lat, lon), float32 or float64
        Finite, not constant.
    step : float
        In standard deviations of the field.
    periodic : bool
        Whether longitude closes on itself.

    Raises
    ------
    ValueError
        The field is constant or not finite.
    """
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    if not (np.isfinite(deviation) and deviation > 0):
        raise ValueError(f"a field must be finite and vary, its standard deviation is {deviation}")
    x = torch.from_numpy(((values - mean) / deviation).astype(np.float32))[None, None]
    with torch.inference_mode():
        rates = model(x, torch.tensor([step], dtype=torch.float32), noise="hard", periodic=periodic)
    rmse = (rates.x_hat - x).double().square().mean().sqrt()
    return SCALING_BITS + float(rates.bits), float(rmse) * deviation


def keep_patch(
    model: PatchVAEformer,
    path: Path,
    channels: Channels,
    measured: NDArray[np.floating] | None = None,
    reach: int = 100,
) -> None:
    """Write a model's weights (safetensors): networks in half precision, what decides about symbols in integers.

    measured : hyper-latents (Z, n) of typical fields, from which their tables are chosen; deviations of 1 if left out.
    reach : largest symbol of a table.
    """
    config, integer = model.config, model.hyper_decoder.integer
    if integer is None:
        raise ValueError("a model without integer scales codes nothing")
    frequencies, support = logistic_tables(reach)
    centre, deviation = np.zeros(config.hyper_latents), np.ones(config.hyper_latents)
    if measured is not None:
        centre = np.clip(np.rint(np.median(measured, 1)), -HYPER_MAX, HYPER_MAX)
        deviation = np.maximum((measured - centre[:, None]).std(1), SMALLEST)
    arrays = {
        **integer.integers(),
        "tables.frequencies": frequencies,
        "tables.support": support,
        "latents.tail": np.full(config.latents, TAIL, np.int8),
        "hyper.centre": centre.astype(np.int32),
        "hyper.scale": (np.rint(OCTAVE * np.log2(deviation / SMALLEST)) + FIRST_SCALE).astype(np.int16),
        "hyper.tail": np.full(config.hyper_latents, TAIL, np.int8),
        "channels.mean": channels.mean,
        "channels.deviation": channels.deviation,
    }
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    texts = {"kind": "vaeformer", "config": json.dumps(asdict(config)), "channels": json.dumps(channels.names)}
    save_file(tensors, path, texts)


def one_channel(count: int) -> Channels:
    """Return channels of no name, already normalised."""
    names = tuple((f"channel {i}", None) for i in range(count))
    return Channels(names, np.zeros(count, np.float32), np.ones(count, np.float32))


def load_patch(path: Path) -> PatchVAEformer:
    """Return the model of a weights file."""
    with safe_open(path, "pt") as file:
        config = file.metadata()["config"]
    model = PatchVAEformer(parse_config(config))
    tensors = load_file(path)
    model.load_state_dict({name: tensors[name].float() for name in model.state_dict()})
    return model.eval()


def _plain(config: dict[str, Any]) -> Any:
    """Return a configuration as JSON holds it."""
    return json.loads(json.dumps(config))


def batches(
    fields: Sequence[Field], config: PatchTraining, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (crops (B, 1, crop, crop) of fields with mean 0 and deviation 1, steps (B,)) for ever."""
    usable = [f for f in fields if min(f.values.shape[2:]) >= MIN_SIDE and f.deviation > 0]
    if not usable:
        raise ValueError(f"no field is as large as {MIN_SIDE} x {MIN_SIDE} and varies")
    weight = np.array([np.sqrt(f.values[0, 0].size) * min(8, f.values[..., 0, 0].size) for f in usable])
    weight /= weight.sum()
    low, high = np.log(config.steps)
    while True:
        drawn = (_crop(usable[i], config.crop, rng) for i in rng.choice(len(usable), config.batch, p=weight))
        steps = np.exp(rng.uniform(low, high, config.batch))
        yield torch.from_numpy(np.stack(list(drawn)))[:, None], torch.from_numpy(steps.astype(np.float32))


def _crop(f: Field, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a random piece (side, side) of a random field, mirrored and of either sign; small fields are reflected."""
    x = f.values[rng.integers(f.values.shape[0]), rng.integers(f.values.shape[1])].astype(np.float32)
    # Some fields of a variable can be constant: they stay 0.
    x = (x - x.mean()) / max(float(x.std()), 1e-6 * f.deviation)
    missing = [max(0, side - n) for n in x.shape]
    if any(missing):
        x = np.pad(x, [(0, n) for n in missing], mode="reflect")
    top, left = (int(rng.integers(n - side + 1)) for n in x.shape)
    x = x[top : top + side, left : left + side]
    crop: NDArray[np.float32] = x[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))] * np.float32(rng.choice((-1, 1)))
    return crop


def _noise(done: float, config: PatchTraining) -> Noise:
    if done < config.stage_two_from:
        return "variational"
    return "uniform" if done < config.stage_three_from else "hard"
