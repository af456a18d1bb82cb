"""What a patch VAEformer is trained for, what is kept of it, and what fields would cost with it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from isopress.codec.entropy.coder import FIRST_SCALE
from isopress.codec.training.tables import logistic_tables
from isopress.codec.vaeformer.channels import Channels
from isopress.codec.vaeformer.integer_scales import HYPER_MAX, OCTAVE, SMALLEST
from isopress.codec.vaeformer.model import Noise, PatchVAEformer, Rates, stage_one_objective, stage_two_objective
from isopress.codec.vaeformer.weights import parse_config

# An orthonormal transform whose fine uniform quantiser has step q errs by D = q**2 / 12 and needs -log2(D) / 2 bits:
# at this weight of D / q**2 no other step is cheaper.
BALANCED_LMBDA = 6 / np.log(2)
SCALING_BITS = 64  # of a field's mean and deviation, in float32
TAIL = 1  # tail class of all symbols: of the four, Gaussians with the likeliest outliers


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


def load_patch(path: Path) -> PatchVAEformer:
    """Return the model of a weights file."""
    with safe_open(path, "pt") as file:
        config = file.metadata()["config"]
    model = PatchVAEformer(parse_config(config))
    tensors = load_file(path)
    model.load_state_dict({name: tensors[name].float() for name in model.state_dict()})
    return model.eval()
