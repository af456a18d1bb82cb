"""The integer networks in torch: the same integers, in the threads that torch has anyway.

Beside a transformer the products of numpy's BLAS are slow: its threads and those of torch wait for each other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isopress.codec.arrays import Scratch
from isopress.codec.entropy.integer_mlp import ACTIVATION_MAX, F32, IntegerNetwork, Network

_ONEDNN = "DNNL_DEFAULT_FPMATH_MODE"  # what does torch's products on some CPUs


def on_torch(network: Network) -> TorchNetwork:
    """Return what runs an integer network by torch.

    Raises
    ------
    TypeError
        It is another kind of network.
    """
    if not isinstance(network, IntegerNetwork):
        raise TypeError(f"{type(network).__name__} is no IntegerNetwork")
    return TorchNetwork(network)


@dataclass(frozen=True, eq=False)
class TorchNetwork:
    """Stands in for the network that it runs."""

    network: IntegerNetwork

    def __call__(self, x: F32, level: int, scratch: Scratch, kind: int = 0, gap: int = 0) -> F32:
        """Map integer features to integers, as `IntegerNetwork` does."""
        with torch.inference_mode():
            return np.asarray(run(self.network, torch.from_numpy(x), level, scratch, kind, gap))

    def folded(self, rows: tuple[int, ...], known: tuple[tuple[int, int], ...]) -> TorchNetwork:
        """Return what runs the network of some inputs, the others being known."""
        return TorchNetwork(self.network.folded(rows, known))


def run(network: IntegerNetwork, x: Tensor, level: int, scratch: Scratch, kind: int = 0, gap: int = 0) -> Tensor:
    """Map integer features (in + 1, M), last row ones, to integer outputs (out, M) with the biases of `level`."""
    affine = network.first(level, kind, gap)
    for i, layer in enumerate(network.layers[1:]):
        hidden = torch.from_numpy(scratch.array(f"hidden {i}", np.float32, len(affine) + 1, x.shape[1]))
        hidden[-1] = 1
        _product(affine, x, hidden[:-1]).round_().clamp_(0, ACTIVATION_MAX)
        x, affine = hidden, layer.affine[level]
    out = torch.empty(len(affine), x.shape[1], dtype=torch.float32, device="cpu")
    return _product(affine, x, out).round_()


def _product(affine: F32, x: Tensor, out: Tensor) -> Tensor:
    """Return the product in `out`: exact in float32, and in float64 where the program lets torch shorten float32.

    Autocasting does not reach products that are given their output.
    """
    weight = torch.from_numpy(affine)
    return torch.mm(weight, x, out=out) if _is_exact() else out.copy_(weight.double() @ x.double())


def _is_exact() -> bool:
    """Whether products of float32 are products of float32: a program may let torch round factors to bfloat16."""
    try:
        allowed = torch.get_float32_matmul_precision()
    except RuntimeError:  # torch's answer where the newer, finer settings are used
        return False
    return allowed == "highest" and os.environ.get(_ONEDNN, "STRICT").upper() == "STRICT"
