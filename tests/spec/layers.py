"""Layers of VAEformers in binary64, and windows and grids that corrections have too, written from the SPEC alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, erf, sqrt
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]  # rows, columns and, last, channels
Axis = NDArray[np.int64]
Window = tuple[Axis, int]  # tokens along one axis, and how many of them, from the first on, it answers
ERF = np.vectorize(erf, otypes=[np.float64])


@dataclass(frozen=True)
class Tensors:
    """Those whose names begin with `prefix`."""

    tensors: Mapping[str, NDArray[Any]]
    prefix: str

    def part(self, name: str) -> Self:
        return replace(self, prefix=f"{self.prefix}{name}.")


class Weights(Tensors):
    """Layers in binary64."""

    def has(self, name: str) -> bool:
        return any(key.startswith(f"{self.prefix}{name}.") for key in self.tensors)

    def of(self, name: str) -> tuple[Array, Array]:
        return self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")

    def tensor(self, name: str) -> Array:
        """Return a tensor; integers count in a scale for each entry of the first axis (SPEC 9)."""
        found = self.tensors[f"{self.prefix}{name}"].astype(np.float64)
        scale = self.tensors.get(f"{self.prefix}{name}.scale")
        return found if scale is None else found * scale.astype(np.float64).reshape(-1, *[1] * (found.ndim - 1))

    def linear(self, name: str, a: Array) -> Array:
        weight, bias = self.of(name)
        return a @ weight.reshape(len(weight), -1).T + bias

    def conv(self, name: str, a: Array) -> Array:
        weight, bias = self.of(name)
        seen = sliding_window_view(a, weight.shape[2:], (0, 1))
        return np.tensordot(seen, weight, ((2, 3, 4), (1, 2, 3))) + bias

    def norm(self, name: str, a: Array) -> Array:
        weight, bias = self.of(name)
        d = a - a.mean(-1, keepdims=True)
        found: Array = d / np.sqrt((d**2).mean(-1, keepdims=True) + 1e-6) * weight + bias
        return found


# --- Tokens -----------------------------------------------------------------------------------------------------------


def block(x: Array, rows: list[Window], columns: list[Window], heads: int, periodic: bool, weights: Weights) -> Array:
    if weights.has("conv"):
        weight, bias = weights.of("conv")
        seen = np.pad(x, ((1, 1), (0, 0), (0, 0)))
        seen = np.pad(seen, ((0, 0), (1, 1), (0, 0)), "wrap" if periodic else "constant")
        x = x + np.einsum("hwcyx,cyx->hwc", sliding_window_view(seen, (3, 3), (0, 1)), weight[:, 0]) + bias
    normed, found = weights.norm("norm1", x), np.full_like(x, np.nan)
    for down, height in rows:
        for across, width in columns:
            seen = attention(normed[np.ix_(down, across)], heads, weights.part("attention"))
            found[np.ix_(down[:height], across[:width])] = seen[:height, :width]
    x = x + found
    return x + weights.linear("mlp.2", gelu(weights.linear("mlp.0", weights.norm("norm2", x))))


def attention(x: Array, heads: int, weights: Weights) -> Array:
    dim = x.shape[-1]
    q, k, v = weights.linear("qkv", x).reshape(-1, 3, heads, dim // heads).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1) / sqrt(dim // heads)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    found = p / p.sum(-1, keepdims=True) @ v
    return weights.linear("out", found.swapaxes(0, 1).reshape(x.shape))


def windows(n: int, window: int, odd: bool, periodic: bool) -> list[Window]:
    parts = ceil(n / window)
    g = ceil(n / parts)
    start = g // 2 if odd and parts > 1 else 0
    if periodic:
        turned = (start + np.arange(parts * g)) % n
        return [(turned[i : i + g], min(g, n - i)) for i in range(0, parts * g, g)]
    edges = sorted({0, *range(start, n, g), n})
    return [(np.arange(a, b), b - a) for a, b in pairwise(edges)]


# --- Grids ------------------------------------------------------------------------------------------------------------


def gelu(a: Array) -> Array:
    found: Array = a * (1 + ERF(a / sqrt(2))) / 2
    return found


def pad(a: Array, p: int, periodic: bool) -> Array:
    rows, columns = (np.arange(-p, n + p) for n in a.shape[:2])
    columns = columns % a.shape[1] if periodic else columns.clip(0, a.shape[1] - 1)
    found: Array = a[np.ix_(rows.clip(0, len(a) - 1), columns)]
    return found


def blocks(a: Array, n: int) -> Array:
    """Return the n x n values of each block as its channels, in C order, the channels of a value together."""
    h, w, c = a.shape
    return a.reshape(h // n, n, w // n, n, c).swapaxes(1, 2).reshape(h // n, w // n, n * n * c)


def unblocked(a: Array, n: int) -> Array:
    h, w, c = a.shape
    return a.reshape(h, w, n, n, c // n**2).swapaxes(1, 2).reshape(h * n, w * n, c // n**2)
