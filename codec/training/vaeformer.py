"""Training and measuring of a small patch VAEformer on crops of 2-D fields, for comparison with other models.

One run has the stages of the publication: reconstruction with a KL term; rate and distortion with uniform noise in
place of rounding; at last hard rounding, with the encoder frozen. The steps are drawn log-uniformly, and the loss is
the logarithm of each crop's objective, so that every rate counts the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from isopress.codec.training.pyramid_pool import Field
from isopress.codec.vaeformer.config import CONFIGS, PatchConfig
from isopress.codec.vaeformer.model import Noise, PatchVAEformer, stage_one_objective, stage_two_objective

# An orthonormal transform whose fine uniform quantiser has step q errs by D = q**2 / 12 and needs -log2(D) / 2 bits:
# at this weight of D / q**2 no other step is cheaper.
BALANCED_LMBDA = 6 / np.log(2)
SCALING_BITS = 64  # of a field's mean and deviation, in float32
MIN_SIDE = 32


@dataclass(frozen=True)
class PatchTraining:
    """Everything that shapes a training run but its length."""

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
    checkpoint_every: float = 120.0  # seconds
    report_every: int = 100  # batches
    seed: int = 0


@dataclass
class PatchProgress:
    """State of a run; the history holds means since the last report of (seconds, loss, bits per value, rmse / step)."""

    seconds: float = 0.0
    batches: int = 0
    history: list[tuple[float, float, float, float]] = field(default_factory=list)


def train_patch(
    fields: Sequence[Field],
    minutes: float,
    out: Path,
    config: PatchTraining = PatchTraining(),
    *,
    resume: bool = False,
    report: Callable[[PatchProgress], None] = lambda progress: None,
) -> PatchVAEformer:
    """Train for `minutes` of wall time, in all runs together, and return the model; `out` is its checkpoint.

    Parameters
    ----------
    fields : sequence of Field
        Variables to learn from; fields are drawn by the root of their size.
    out : Path
        Written every two minutes and at the end; `load_patch` reads it.
    resume : bool
        Whether to go on from `out`.

    Raises
    ------
    FileNotFoundError
        There is no checkpoint to resume from.
    ValueError
        The checkpoint is of another configuration.
    ValueError
        No field is as large as 32 x 32 and not constant.
    """
    torch.manual_seed(config.seed)
    torch.set_flush_denormal(True)  # as in train_transforms: for speed
    model = PatchVAEformer(config.config)
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay
    )
    progress = PatchProgress()
    if resume:
        progress = _load(out, model, optimizer, config)
        torch.manual_seed(config.seed + progress.batches)
    source = batches(fields, config, np.random.default_rng([config.seed, progress.batches]))
    started = time.monotonic() - progress.seconds
    saved, recent = progress.seconds, list[tuple[float, float, float]]()
    while progress.seconds < 60 * minutes:
        recent.append(_descend(model, optimizer, next(source), progress, 60 * minutes, config))
        progress.batches += 1
        progress.seconds = time.monotonic() - started
        if progress.batches % config.report_every == 0:
            loss, rate, error = np.mean(recent, 0)
            progress.history.append((progress.seconds, float(loss), float(rate), float(error)))
            recent.clear()
            report(progress)
        if progress.seconds - saved >= config.checkpoint_every:
            saved = progress.seconds
            _save(out, model, optimizer, progress, config)
    _save(out, model, optimizer, progress, config)
    return model.eval()


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


def keep_patch(model: PatchVAEformer, path: Path) -> None:
    """Write a model's weights in half precision (safetensors), a quarter of what a checkpoint takes."""
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, {"config": json.dumps(asdict(model.config))})


def load_patch(path: Path) -> PatchVAEformer:
    """Return the model of a checkpoint that `train_patch` wrote, or of a file that `keep_patch` did."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            config, tensors = json.loads(file.metadata()["config"]), load_file(path)
    else:
        state = torch.load(path, weights_only=True)
        config, tensors = state["config"], state["model"]
    model = PatchVAEformer(PatchConfig(**{name: _pairs(value) for name, value in config.items()}))
    model.load_state_dict(tensors)
    return model.eval()


def _pairs(value: Any) -> Any:
    """Return lists as tuples: JSON has no tuples."""
    return tuple(map(_pairs, value)) if isinstance(value, list) else value


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


def _descend(
    model: PatchVAEformer,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    progress: PatchProgress,
    seconds: float,
    config: PatchTraining,
) -> tuple[float, float, float]:
    """Take one step of descent; return (loss, bits per value, rmse / step), each a mean of the batch."""
    x, step = batch
    done = progress.seconds / seconds
    noise = _noise(done, config)
    if noise == "hard":
        model.freeze_encoder()
    for group in optimizer.param_groups:
        group["lr"] = _learning_rate(done, progress.batches, config)
    rates = model(x, step, noise=noise)
    if noise == "variational":
        objective = stage_one_objective(rates, x, config.beta, step)
    else:
        objective = stage_two_objective(rates, x, config.lmbda, step)
    loss = torch.log(objective + config.floor).mean()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        error = (rates.x_hat - x).square().mean((1, 2, 3)).sqrt() / step
        return float(loss), float(rates.bits.mean()) / x[0].numel(), float(error.mean())


def _noise(done: float, config: PatchTraining) -> Noise:
    if done < config.stage_two_from:
        return "variational"
    return "uniform" if done < config.stage_three_from else "hard"


def _learning_rate(done: float, batches: int, config: PatchTraining) -> float:
    """Warm up, stay, then fall linearly to a fiftieth."""
    fall = 1.0 if done < config.constant_until else max(0.02, (1 - done) / (1 - config.constant_until))
    return config.learning_rate * fall * min(1.0, (batches + 1) / config.warm_up)


def _save(
    path: Path, model: PatchVAEformer, optimizer: torch.optim.Optimizer, progress: PatchProgress, config: PatchTraining
) -> None:
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
        "config": asdict(config.config),
    }
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    partial.replace(path)


def _load(path: Path, model: PatchVAEformer, optimizer: torch.optim.Optimizer, config: PatchTraining) -> PatchProgress:
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path} to resume from")
    state = torch.load(path, weights_only=True)
    if state["config"] != asdict(config.config):
        raise ValueError(f"checkpoint {path} is of another configuration: {state['config']}")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return PatchProgress(**state["progress"])
