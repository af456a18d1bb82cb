"""Small networks for the finest levels, made from large ones: neurons that others can stand in for are removed.

After B. Hassibi and D. G. Stork, "Optimal Brain Surgeon", 1993, layer by layer: the layer after a hidden one is fitted
anew, by least squares, to what it took from all neurons, and the neuron that this misses least goes first.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.bounded.geometry import FEATURE_ONE
from isopress.codec.entropy.integer_mlp import ACTIVATION_MAX
from isopress.codec.training.pyramid_network import ACTIVATION_ONE, RoundedMLP
from isopress.codec.training.pyramid_pool import Examples

F64 = NDArray[np.float64]

TOP = ACTIVATION_MAX / ACTIVATION_ONE
WEIGHT_OF_OUTPUTS = (1.0, 1.0, 0.3)  # what an error of mean, octaves of scale and tail class matters
RIDGE = 1e-6  # neurons that never fire have no covariance


def pruned(large: RoundedMLP, level: int, widths: tuple[int, int], examples: Examples) -> RoundedMLP:
    """Return a network of two hidden layers of `widths` for one level alone, as close to a large one on the examples
    as what is left allows."""
    first, second, last = large.linears()
    with torch.no_grad():
        x = torch.from_numpy(examples.features[:, : first.in_features]).float() / FEATURE_ONE
        bias = first.bias + large.level[level]
        more = large.kind[torch.from_numpy(examples.kind).long()] + large.gap[torch.from_numpy(examples.gap).long()]
        h1 = F.linear(x, first.weight, bias).add_(more).clamp_(0, TOP)
        h2 = F.linear(h1, second.weight, second.bias).clamp_(0, TOP)
    importance = np.sqrt(np.array(WEIGHT_OF_OUTPUTS))[:, None]
    kept2, weight3, offset3 = _survivors(_f64(h2), _f64(last.weight) * importance, widths[1])
    kept1, weight2, offset2 = _survivors(_f64(h1), _f64(second.weight)[kept2], widths[0])
    small = RoundedMLP(large.alone, widths, levels=1, references=large.references)
    layers = small.linears()
    with torch.no_grad():
        layers[0].weight.copy_(first.weight[kept1])
        layers[0].bias.copy_(bias[kept1])
        small.kind.copy_(large.kind[:, kept1])
        small.gap.copy_(large.gap[:, kept1])
        layers[1].weight.copy_(torch.from_numpy(weight2))
        layers[1].bias.copy_(second.bias[kept2] + torch.from_numpy(offset2))
        layers[2].weight.copy_(torch.from_numpy(weight3 / importance))
        layers[2].bias.copy_(last.bias + torch.from_numpy(offset3 / importance[:, 0]))
    return small


def _f64(x: Tensor) -> F64:
    return x.detach().numpy().astype(np.float64)


def _survivors(activations: F64, weight: F64, count: int) -> tuple[list[int], F64, F64]:
    """Return which `count` neurons to keep, and weights and an offset of the next layer for them.

    activations : (points, neurons); weight : (out, neurons), what the next layer takes of them.
    """
    covariance = np.cov(activations.T) + RIDGE * np.eye(activations.shape[1])
    wanted = weight @ covariance
    kept = list(range(activations.shape[1]))
    while len(kept) > count:
        inverse = np.linalg.inv(covariance[np.ix_(kept, kept)])
        # What the squared error of the fit grows by if a neuron goes (Hassibi and Stork, equation 5).
        cost = ((wanted[:, kept] @ inverse) ** 2).sum(0) / np.diag(inverse)
        kept.pop(int(cost.argmin()))
    fitted = wanted[:, kept] @ np.linalg.inv(covariance[np.ix_(kept, kept)])
    mean = activations.mean(0)
    return kept, fitted, weight @ mean - fitted @ mean[kept]
