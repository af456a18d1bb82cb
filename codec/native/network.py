"""Integer networks, as the kernels take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native.dispatch import Kept, kernels

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
# (inputs, outputs, weight (out, in) int8, bias (out,) int32, scale (out,) float32): round(sums * scale) comes out.
Layer = tuple[int, int, I8, I32, F32]


def layer_of(affine: F32, scale: F32) -> Layer:
    """Return integer weights and biases of a matrix (out, in + 1) of integers times `scale` (out,)."""
    whole = affine / scale[:, None]
    weight = np.ascontiguousarray(whole[:, :-1].astype(np.int8))
    bias = np.ascontiguousarray(whole[:, -1].astype(np.int32))
    return weight.shape[1], weight.shape[0], weight, bias, np.ascontiguousarray(scale, np.float32)


def of_layers(layers: tuple[Layer, ...], name: str) -> Kept:
    """Return a network as the kernels of the level `name` want it.

    Raises
    ------
    ValueError
        A size or weight is beyond what they can do.
    """
    return Kept(kernels.network(name, layers))
