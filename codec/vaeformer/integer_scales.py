"""The integer hyper-synthesis: rounded hyper-latents and the step -> the table of every latent.

A network of two layers looks at 3 x 3 hyper-latents. It is trained with every rounding in the loop, so the integers
that numpy computes from its int8 weights are those that training saw: on every machine, whatever the order of the sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.arrays import Scratch
from isopress.codec.entropy.integer_mlp import ACTIVATION_MAX, WEIGHT_MAX, IntegerLayer, IntegerNetwork
from isopress.codec.vaeformer.config import Pair, PatchConfig

I16 = NDArray[np.int16]
I32 = NDArray[np.int32]

HYPER_MAX = 127  # of hyper-latents, which are the network's inputs
ONE = 16  # the integer that stands for an input or a hidden activation of one
OCTAVE = 8  # scale indexes in an octave
STEPS = 32  # step indexes in an octave: the step is 2**(index / 32) standard deviations
STEP_INPUT = 8  # step indexes that the network takes for one
REACH = 240  # of scale indexes, for a step of one
SMALLEST = 0.06  # the scale of index -11


def step_of(index: int) -> float:
    """Return the step of an index, in standard deviations."""
    return float(2.0 ** (index / STEPS))


def scale_of(index: Tensor) -> Tensor:
    """Return the scale that an index stands for, in steps."""
    return SMALLEST * torch.exp2((index + 11) / OCTAVE)


class IntegerScales(nn.Module):
    """Scale indexes of latents as a function of hyper-latents and the step."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.patch, self.latents = config.hyper_patch, config.latents
        self.first = nn.Linear(9 * config.hyper_latents + 1, config.scale_neurons)
        self.last = nn.Linear(config.scale_neurons, config.hyper_patch**2 * config.latents)
        # Hyper-latents of one, and no smaller ones, are to be heard from the start: they are divided by ONE.
        nn.init.normal_(self.first.weight, std=ONE / (2 * self.first.in_features**0.5))
        nn.init.uniform_(self.first.bias, 0, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.constant_(self.last.bias, float(np.log2(1 / SMALLEST)) - 11 / OCTAVE)  # scales of one deviation

    def forward(self, z: Tensor, step: Tensor, shape: Pair, periodic: bool) -> Tensor:
        """Map hyper-latents (B, Z, h, w) and steps (B,) to scale indexes (B, L, H, W) of latents of `shape`.

        Indexes are whole numbers; gradients pass as if they were not.
        """
        B, _, h, w = z.shape
        index = torch.round(STEPS * torch.log2(step))[:, None, None, None]
        x = torch.cat([neighbours(z.clamp(-HYPER_MAX, HYPER_MAX), periodic), _step_input(index, z)], 1)
        hidden = _rounded_relu(self._layer(self.first, x.permute(0, 2, 3, 1) / ONE))
        y = OCTAVE * self._layer(self.last, hidden)
        y = y + (torch.round(y) - y).detach()
        y = y.clamp(-REACH, REACH).reshape(B, h, w, self.patch, self.patch, self.latents)
        y = y.permute(0, 5, 1, 3, 2, 4).reshape(B, self.latents, h * self.patch, w * self.patch)
        return y[:, :, : shape[0], : shape[1]] - torch.floor(index * OCTAVE / STEPS)

    @torch.no_grad()
    def start_from(self, latents: Tensor) -> None:
        """Begin with the scales that typical latents (B, L, H, W) have, in standard deviations, wherever they lie.

        Biases are octaves: descent alone would take thousands of steps to the scales of fine details.
        """
        p = self.patch
        latents = latents.repeat(1, 1, *(-(-p // side) for side in latents.shape[2:]))  # at least one hyper-latent's
        B, L, H, W = latents.shape
        h, w = H // p, W // p
        squares = latents[:, :, : h * p, : w * p].square().reshape(B, L, h, p, w, p).mean((2, 4))
        scale = squares.clamp_min(SMALLEST**2 * 2.0**-40).log2().mean(0) / 2  # (L, p, p)
        self.last.bias.copy_((scale - float(np.log2(SMALLEST)) - 11 / OCTAVE).permute(1, 2, 0).reshape(-1))

    def _layer(self, layer: nn.Linear, x: Tensor) -> Tensor:
        scale = _row_scale(layer)
        return F.linear(x, _round(layer.weight, scale[:, None]), _round(layer.bias, scale * ONE))

    @torch.no_grad()
    def integers(self) -> dict[str, NDArray[Any]]:
        """Return the tensors of the integer network, as files of weights have them."""
        tensors = dict[str, NDArray[Any]]()
        for name, layer, one in (("first", self.first, ONE), ("last", self.last, OCTAVE)):
            scale = _row_scale(layer)
            tensors[f"scales.{name}.weight"] = torch.round(layer.weight * scale[:, None]).to(torch.int8).cpu().numpy()
            tensors[f"scales.{name}.bias"] = torch.round(layer.bias * scale * ONE).to(torch.int32).cpu().numpy()
            tensors[f"scales.{name}.shift"] = torch.log2(scale * ONE / one).to(torch.int8).cpu().numpy()
        return tensors


def integer_network(tensors: dict[str, NDArray[Any]]) -> IntegerNetwork:
    """Return the network of a file of weights.

    Raises
    ------
    ValueError
        A sum of it could leave the exact range.
    """
    layers = []
    for name in ("first", "last"):
        weight, bias, shift = (tensors[f"scales.{name}.{part}"] for part in ("weight", "bias", "shift"))
        layers.append(IntegerLayer.from_integers(weight, bias[None], shift, input_max=ACTIVATION_MAX))
    return IntegerNetwork(tuple(layers))


def scale_indexes(network: IntegerNetwork, z: I32, step: int, patch: int, shape: Pair, periodic: bool) -> I16:
    """Return the scale indexes (L, H, W) of latents of `shape`; z (Z, h, w) are hyper-latents, `step` an index."""
    _, h, w = z.shape
    x = np.concatenate(
        [
            _neighbours(z, periodic).reshape(-1, h * w),
            np.full((1, h * w), np.clip(step // STEP_INPUT, -HYPER_MAX, HYPER_MAX)),
            np.ones((1, h * w), z.dtype),
        ]
    )
    y = network(x.astype(np.float32), 0, Scratch.of_thread())
    indexes = np.clip(y, -REACH, REACH).astype(np.int16).reshape(patch, patch, -1, h, w)
    indexes = indexes.transpose(2, 3, 0, 4, 1).reshape(-1, h * patch, w * patch)
    out: I16 = indexes[:, : shape[0], : shape[1]] - np.int16(step * OCTAVE // STEPS)
    return np.ascontiguousarray(out)


def neighbours(z: Tensor, periodic: bool) -> Tensor:
    """Return the 3 x 3 surroundings (B, 9 * Z, h, w) of hyper-latents; rows end, columns may go on from the start."""
    (up, _, down), (left, _, right) = (_around(n, wraps) for n, wraps in ((z.shape[2], False), (z.shape[3], periodic)))
    rows = [z[:, :, up], z, z[:, :, down]]
    return torch.cat([row[..., columns] for row in rows for columns in (left, slice(None), right)], 1)


def _neighbours(z: I32, periodic: bool) -> I32:
    """The same of (Z, h, w) in numpy."""
    (up, _, down), (left, _, right) = (_around(n, wraps) for n, wraps in ((z.shape[1], False), (z.shape[2], periodic)))
    rows = [z[:, up], z, z[:, down]]
    return np.concatenate([row[..., columns] for row in rows for columns in (left, slice(None), right)])


def _around(n: int, wraps: bool) -> tuple[list[int], list[int], list[int]]:
    """Return the places before, at and after each of n."""
    places = list(range(n))
    if wraps:
        return [places[i - 1] for i in places], places, [(i + 1) % n for i in places]
    return [max(i - 1, 0) for i in places], places, [min(i + 1, n - 1) for i in places]


def _step_input(index: Tensor, z: Tensor) -> Tensor:
    value = torch.floor(index / STEP_INPUT).clamp(-HYPER_MAX, HYPER_MAX)
    return value.expand(-1, 1, *z.shape[2:])


def _row_scale(layer: nn.Linear) -> Tensor:
    """Return per row the largest power of two whose product with the row, and with its bias, fits the integers."""
    top = layer.weight.detach().abs().amax(1).clamp_min(2.0**-7)
    return torch.exp2(torch.floor(torch.log2(WEIGHT_MAX / top)).clamp(-8, 12))


def _round(x: Tensor, scale: Tensor) -> Tensor:
    """Round to multiples of 1 / scale, with the gradient of the identity."""
    return x + (torch.round(x * scale) / scale - x).detach()


def _rounded_relu(x: Tensor) -> Tensor:
    """ReLU, clipped and rounded as the integers are; gradients pass the rounding, but nothing that was clipped.

    With the gradient of the plain ReLU hyper-latents went on growing for the sake of neurons at their limit.
    """
    y = x.clamp(0, ACTIVATION_MAX / ONE)
    return y + (torch.round(y * ONE) / ONE - y).detach()
