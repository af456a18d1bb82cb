"""The trainable form of the pyramid's networks (torch), and its exact conversion to integers.

Trained with the rounding of every activation and weight in the loop (straight-through), so that the
integer network is not an approximation of this one: it is this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.bounded.geometry import BINS, CONTEXTS, FEATURE_MAX, FEATURE_ONE, MEAN_ONE
from isopress.codec.bounded.predictor import PROXY_FEATURES
from isopress.codec.bounded.reference_order import GAPS, KINDS, PROXIES
from isopress.codec.bounded.weights import columns_of_kinds
from isopress.codec.entropy.integer_mlp import ACTIVATION_MAX, WEIGHT_MAX, Conditioning, IntegerLayer, IntegerNetwork

ACTIVATION_ONE = 16  # the integer that stands for a hidden activation of one
LEVELS = 6  # biases of the levels 0 to 5; coarser ones share the last
OUTPUT_ONE = (MEAN_ONE, BINS, 1)  # of mean, log2 of scale, tail class
INITIAL_OUTPUT = (0.0, -1.0, 1.0)


@dataclass(frozen=True)
class IntegerWeights:
    """One layer as stored: weight (out, in), bias (levels, out) in units of 2**-shift, shift (out,)."""

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    shift: NDArray[np.int8]


class RoundedReLU(torch.autograd.Function):
    """ReLU, clipped and rounded as the integers are, with the gradient of the plain ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = F.relu(x)
        ctx.save_for_backward(y)
        return (y * ACTIVATION_ONE).round_().clamp_max_(ACTIVATION_MAX).mul_(1 / ACTIVATION_ONE)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        result: Tensor = torch.ops.aten.threshold_backward(gradients[0], y, 0)
        return result


class RoundedLayers(nn.Module):
    """MLP (mean, octaves of scale, tail) whose first layer has biases chosen by indices.

    With `rounded` it computes the integer network's numbers, scaled.
    """

    def __init__(self, n_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((n_in, *widths, len(OUTPUT_ONE))))
        last = self.linears()[-1]
        nn.init.zeros_(last.weight)
        last.bias.data = torch.tensor(INITIAL_OUTPUT)

    def linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def outputs(self, x: Tensor, chosen: Sequence[tuple[Tensor, Tensor]], rounded: bool) -> Tensor:
        """Map features (M, n_in) int8 to (M, 3); `chosen` are (indices (M,), biases (n, width)) for the first layer."""
        h = x.float() / FEATURE_ONE
        # The gradient of indexing is slow.
        one_hot = torch.cat([F.one_hot(i.long(), len(biases)) for i, biases in chosen], 1).to(h)
        for i, layer in enumerate(self.linears()):
            weight: Tensor = layer.weight
            bias: Tensor = layer.bias
            extra: Tensor = torch.cat([biases for _, biases in chosen])
            if rounded:
                scale = row_scale(layer)
                unit = scale * (ACTIVATION_ONE if i else FEATURE_ONE)
                weight, bias = round_ste(weight, scale[:, None]), round_ste(bias, unit)
                extra = round_ste(extra, unit) if i == 0 else extra
            y = h @ weight.t() + bias
            if i == 0:
                y = y + one_hot @ extra
            h = RoundedReLU.apply(y) if rounded else F.relu(y)  # type: ignore[no-untyped-call]
        return round_ste(y, torch.tensor(OUTPUT_ONE, dtype=y.dtype)) if rounded else y

    @torch.no_grad()
    def integer_layers(self, levels: Tensor) -> list[IntegerWeights]:
        """Return the layers of the integer network, the biases (n, width) of `levels` within those of the first."""
        linears, result = self.linears(), []
        for i, layer in enumerate(linears):
            scale = row_scale(layer)
            unit = scale * (ACTIVATION_ONE if i else FEATURE_ONE)
            bias = torch.round(layer.bias * unit).expand(len(levels), -1)
            if i == 0:
                bias = bias + torch.round(levels * unit)
            one = torch.tensor(OUTPUT_ONE if i == len(linears) - 1 else ACTIVATION_ONE, dtype=torch.float32)
            result.append(
                IntegerWeights(
                    torch.round(layer.weight * scale[:, None]).numpy().astype(np.int8),
                    bias.numpy().astype(np.int32),
                    torch.log2(unit / one).numpy().astype(np.int8),
                )
            )
        return result


class RoundedMLP(RoundedLayers):
    """MLP of one phase with a bias per level, kind and gap class of references; without `references` it knows of
    none, and takes the features alone that every field has."""

    def __init__(self, alone: int, widths: tuple[int, ...], *, levels: int = LEVELS, references: bool = True) -> None:
        super().__init__(alone + PROXIES * PROXY_FEATURES * references, widths)
        self.alone, self.references = alone, references
        self.level = nn.Parameter(torch.zeros(levels, widths[0]))
        self.kind, self.gap = (nn.Parameter(torch.zeros(n, widths[0]), requires_grad=references) for n in (KINDS, GAPS))

    @classmethod
    def of(cls, network: IntegerNetwork, alone: int) -> RoundedMLP:
        """Return the network that rounds to an integer network, to go on training."""
        affine, conditioning = [torch.from_numpy(layer.affine) for layer in network.layers], network.conditioning
        widths = tuple(a.shape[1] for a in affine[:-1])
        net = cls(alone, widths, levels=len(affine[0]), references=conditioning is not None)
        ones = (FEATURE_ONE, *[ACTIVATION_ONE] * len(widths))
        for i, (layer, a, one) in enumerate(zip(net.linears(), affine, ones, strict=True)):
            unit = torch.tensor(OUTPUT_ONE if i == len(widths) else ACTIVATION_ONE, dtype=a.dtype)
            layer.weight.data, layer.bias.data = (a[0, :, :-1].T * one / unit).T.contiguous(), a[0, :, -1] / unit
        net.level.data = (affine[0][..., -1] - affine[0][0, :, -1]) / ACTIVATION_ONE
        if conditioning is not None:
            net.kind.data, net.gap.data = (
                torch.from_numpy(x) / ACTIVATION_ONE for x in (conditioning.kind, conditioning.gap)
            )
        return net

    def forward(self, x: Tensor, level: Tensor, kind: Tensor, gap: Tensor, rounded: bool) -> Tensor:
        """Map features (M, n_in) int8, levels, kinds and gap classes (M,) int8 to (M, 3): mean, octaves of scale, tail.

        Features of proxies that a kind lacks are 0.
        """
        chosen = ((level.clamp_max(len(self.level) - 1), self.level), (kind, self.kind), (gap, self.gap))
        x = x[:, : self.linears()[0].in_features]
        return self.outputs(x, chosen if self.references else chosen[:1], rounded)

    def integers(self) -> list[IntegerWeights]:
        """Return the layers of the integer network."""
        return self.integer_layers(self.level)

    def conditions(self) -> dict[str, NDArray[np.int32]]:
        """Return what kind and gap class add to the bias of the first layer, in its units; nothing if no references."""
        if not self.references:
            return {}
        unit = row_scale(self.linears()[0]) * FEATURE_ONE
        parts = {"kind": self.kind, "gap": self.gap}
        return {name: torch.round(x.detach() * unit).numpy().astype(np.int32) for name, x in parts.items()}

    def integer_network(self) -> IntegerNetwork:
        """Return the integer network, ready to run."""
        limits = [FEATURE_MAX, *[ACTIVATION_MAX] * (len(self.layers) - 1)]
        layers, extra = self.integers(), self.conditions()
        more = sum(int(np.abs(x).max()) for x in extra.values())
        scaled = [np.ldexp(x.astype(np.float32), -layers[0].shift.astype(np.int32)) for x in extra.values()]
        return IntegerNetwork(
            tuple(
                IntegerLayer.from_integers(w.weight, w.bias, w.shift, input_max=limit, more=0 if i else more)
                for i, (w, limit) in enumerate(zip(layers, limits, strict=True))
            ),
            Conditioning(columns_of_kinds(self.alone), *scaled) if self.references else None,
        )


def row_scale(layer: nn.Linear) -> Tensor:
    """Return per row of the weights the largest power of two whose product with the row fits int8."""
    top = layer.weight.detach().abs().amax(1).clamp_min(1e-6)
    return torch.exp2(torch.floor(torch.log2(WEIGHT_MAX / top)).clamp(-8, 14))


def round_ste(x: Tensor, scale: Tensor) -> Tensor:
    """Round x to multiples of 1/scale, with the gradient of the identity."""
    return x + (torch.round(x * scale) / scale - x).detach()


def build(widths: tuple[int, ...]) -> dict[str, RoundedMLP]:
    """Return one network per phase, of these hidden widths."""
    return {c.name: RoundedMLP(c.n_features, widths) for c in CONTEXTS}
