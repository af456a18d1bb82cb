"""The trainable form of the context networks (torch), and its exact conversion to integers.

Trained, like the pyramid's, with every rounding in the loop: the integer network is this one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isopress.codec.bounded.geometry import FEATURE_ONE
from isopress.codec.latent.context_features import ALONE, DEPTHS, RELATED
from isopress.codec.training.pyramid_network import ACTIVATION_ONE, OUTPUT_ONE, RoundedLayers


class ContextMLP(RoundedLayers):
    """MLP of one band, with a bias per depth."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__(ALONE + RELATED, widths)
        self.depth = nn.Parameter(torch.zeros(DEPTHS, widths[0]))

    def forward(self, x: Tensor, depth: Tensor, rounded: bool) -> Tensor:
        """Map features (M, ALONE + RELATED) int8 and depths (M,) to (M, 3): mean, octaves of scale, tail."""
        return self.outputs(x, ((depth, self.depth),), rounded)

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

    def integers(self) -> list[tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.int8]]]:
        """Return (weight, bias, shift) of every layer of the integer network."""
        return [(layer.weight, layer.bias, layer.shift) for layer in self.integer_layers(self.depth)]
