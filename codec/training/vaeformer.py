"""What a patch VAEformer is trained for, and what is kept of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from isopress.codec.entropy.tables import FIRST_SCALE
from isopress.codec.vaeformer.channels import Channels
from isopress.codec.vaeformer.integer_scales import HYPER_MAX, OCTAVE, SMALLEST
from isopress.codec.vaeformer.model import Noise, PatchVAEformer, Rates, stage_one_objective, stage_two_objective
from isopress.codec.vaeformer.weights import stored_networks

# An orthonormal transform whose fine uniform quantiser has step q errs by D = q**2 / 12 and needs -log2(D) / 2 bits:
# at this weight of D / q**2 no other step is cheaper.
BALANCED_LMBDA = 6 / np.log(2)
TAIL = 1  # tail class of all symbols: of the four, Gaussians with the likeliest outliers


def loss_of(rates: Rates, x: Tensor, step: Tensor, noise: Noise, *, beta: float, lmbda: float, floor: float) -> Tensor:
    """Return the mean logarithm of the objective of the stage that `noise` belongs to, of each example of a batch."""
    if noise == "variational":
        objective = stage_one_objective(rates, x, beta, step)
    else:
        objective = stage_two_objective(rates, x, lmbda, step)
    return torch.log(objective + floor).mean()


def keep_patch(
    model: PatchVAEformer,
    path: Path,
    channels: Channels,
    measured: NDArray[np.floating] | None = None,
    largest: int = 0,
) -> None:
    """Write a model's weights (safetensors): networks in half precision, what decides about symbols in integers.

    measured : hyper-latents (Z, n) of typical fields, from which their tables are chosen; deviations of 1 if left out.
    largest : of integers that stand for the networks' matrices, at most 127; 0 for half precision.
    """
    config, integer = model.config, model.hyper_decoder.integer
    if integer is None:
        raise ValueError("a model without integer scales codes nothing")
    centre, deviation = np.zeros(config.hyper_latents), np.ones(config.hyper_latents)
    if measured is not None:
        centre = np.clip(np.rint(np.median(measured, 1)), -HYPER_MAX, HYPER_MAX)
        deviation = np.maximum((measured - centre[:, None]).std(1), SMALLEST)
    arrays = {
        **integer.integers(),
        "latents.tail": np.full(config.latents, TAIL, np.int8),
        "hyper.centre": centre.astype(np.int32),
        "hyper.scale": (np.rint(OCTAVE * np.log2(deviation / SMALLEST)) + FIRST_SCALE).astype(np.int16),
        "hyper.tail": np.full(config.hyper_latents, TAIL, np.int8),
        "channels.mean": channels.mean,
        "channels.deviation": channels.deviation,
    }
    tensors = stored_networks(model, largest)
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    texts = {"kind": "vaeformer", "config": json.dumps(asdict(config)), "channels": json.dumps(channels.names)}
    save_file(tensors, path, texts)
