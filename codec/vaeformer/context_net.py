"""The trainable form of the context networks (torch), and its exact conversion to integers.

Trained, like the pyramid's, with every rounding in the loop: the integer network is this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.contexts import FEATURE_ONE
from isopress.codec.pyramid_net import (
    ACTIVATION_ONE,
    INITIAL_OUTPUT,
    OUTPUT_ONE,
    RoundedReLU,
    round_ste,
    row_scale,
)
from isopress.codec.vaeformer.latent_context import ALONE, DEPTHS, RELATED


class ContextMLP(nn.Module):
    """MLP of one band, with a bias per depth: features (M, ALONE + RELATED) to mean, octaves of scale, tail."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (ALONE + RELATED, *widths, len(OUTPUT_ONE))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.depth = nn.Parameter(torch.zeros(DEPTHS, widths[0]))
        last = self.linears()[-1]
        nn.init.zeros_(last.weight)
        last.bias.data = torch.tensor(INITIAL_OUTPUT)

    def linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor, depth: Tensor, rounded: bool) -> Tensor:
        """Map int8 features (M, n) and depths (M,) to (M, 3)."""
        h = x.float() / FEATURE_ONE
        hot = F.one_hot(depth.long(), DEPTHS).to(h)  # the gradient of indexing is slow
        for i, layer in enumerate(self.linears()):
            weight: Tensor = layer.weight
            bias: Tensor = layer.bias
            extra: Tensor = self.depth
            if rounded:
                scale = row_scale(layer)
                unit = scale * (ACTIVATION_ONE if i else FEATURE_ONE)
                weight, bias = round_ste(weight, scale[:, None]), round_ste(bias, unit)
                extra = round_ste(extra, unit) if i == 0 else extra
            y = h @ weight.t() + bias
            if i == 0:
                y = y + hot @ extra
            h = RoundedReLU.apply(y) if rounded else F.relu(y)  # type: ignore[no-untyped-call]
        return round_ste(y, torch.tensor(OUTPUT_ONE, dtype=y.dtype)) if rounded else y

    @torch.no_grad()
    def set_integers(self, layers: Sequence[tuple[NDArray[np.generic], ...]]) -> None:
        """Take over the layers of an integer network: the weights become what rounds to them."""
        for i, (layer, (weight, bias, shift)) in enumerate(zip(self.linears(), layers, strict=True)):
            one = torch.tensor(OUTPUT_ONE if i == len(layers) - 1 else ACTIVATION_ONE, dtype=torch.float32)
            unit = torch.exp2(torch.from_numpy(shift.astype(np.float32))) * one
            scale = unit / (ACTIVATION_ONE if i else FEATURE_ONE)
            whole = torch.from_numpy(bias.astype(np.float32)) / unit
            layer.weight.copy_(torch.from_numpy(weight.astype(np.float32)) / scale[:, None])
            layer.bias.copy_(whole[0])
            if i == 0:
                self.depth.copy_(whole - layer.bias)

    @torch.no_grad()
    def integers(self) -> list[tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.int8]]]:
        """Return (weight, bias, shift) of every layer of the integer network."""
        linears, result = self.linears(), []
        for i, layer in enumerate(linears):
            scale = row_scale(layer)
            unit = scale * (ACTIVATION_ONE if i else FEATURE_ONE)
            bias = torch.round(layer.bias * unit).expand(DEPTHS, -1)
            if i == 0:
                bias = bias + torch.round(self.depth * unit)
            one = torch.tensor(OUTPUT_ONE if i == len(linears) - 1 else ACTIVATION_ONE, dtype=torch.float32)
            result.append(
                (
                    torch.round(layer.weight * scale[:, None]).numpy().astype(np.int8),
                    bias.numpy().astype(np.int32),
                    torch.log2(unit / one).numpy().astype(np.int8),
                )
            )
        return result
