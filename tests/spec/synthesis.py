"""The correction of latents, written from SPEC 6.8 alone: numpy in binary64, no torch, no hurry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, erf, log, sqrt
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]  # rows, columns and, last, channels
Axis = NDArray[np.int64]
Window = tuple[Axis, int]  # tokens along one axis, and how many of them, from the first on, it answers
ERF = np.vectorize(erf, otypes=[np.float64])


@dataclass(frozen=True)
class Weights:
    """The tensors whose names begin with `prefix`."""

    tensors: Mapping[str, NDArray[Any]]
    prefix: str

    def part(self, name: str) -> Weights:
        return Weights(self.tensors, f"{self.prefix}{name}.")

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


def correction(x: Array, periodic: bool, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Array:
    """Return what is added to a channel in steps."""
    weights = Weights(tensors, "synthesis.")
    token = config["token"]
    u = x - x.mean()
    s = log(sqrt((u**2).mean()) + 0.001)
    h, w = x.shape
    u = np.pad(u, ((0, -h % token), (0, -w % token)), "edge")
    periodic = periodic and w % token == 0
    found = transformer(u[..., None], 0.3 * s, periodic, config, weights)
    far = around(means(found, token), 2, periodic)
    return (found - far.repeat(token, 0).repeat(token, 1))[:h, :w, 0]


def transformer(u: Array, quality: float, periodic: bool, config: Mapping[str, Any], weights: Weights) -> Array:
    cell, g = config["cell"], config["token"] // config["cell"]
    v = blocks(u, cell)
    m = v.mean(-1, keepdims=True)
    f = 3 * np.concatenate([v - around(m, 1, periodic), m - around(m, 4, periodic)], -1)
    a = pad(np.sign(f) * np.log1p(abs(f)), 4, periodic)
    a = gelu(weights.conv("second", gelu(weights.conv("first", a))))
    tokens = weights.linear("embed", blocks(a[2:-2, 2:-2], g)) + weights.linear("quality", np.array([quality]))
    tokens = transformed(tokens, periodic, config, weights)
    wide = unblocked(weights.linear("widen", pad(tokens, 1, periodic)), g)
    wide = wide[g - 2 : len(wide) - g + 2, g - 2 : wide.shape[1] - g + 2]
    a = gelu(weights.conv("third", np.concatenate([a, wide], -1)))
    return unblocked(weights.conv("last", a), cell)


# --- Tokens -----------------------------------------------------------------------------------------------------------


def transformed(tokens: Array, periodic: bool, config: Mapping[str, Any], weights: Weights) -> Array:
    number, heads = config["blocks"], config["heads"]
    for n in range(number):
        rows = windows(tokens.shape[0], config["window"], n % 2 == 1, False)
        columns = windows(tokens.shape[1], config["window"], n % 2 == 1, periodic)
        tokens = block(tokens, rows, columns, heads, periodic, weights.part(f"blocks.{n}"))
        if n == (number - 1) // 2:
            h, w = tokens.shape[:2]
            starts = [(y, x) for y in range(0, h, 4) for x in range(0, w, 4)]
            z = np.array([tokens[y : y + 4, x : x + 4].mean((0, 1)) for y, x in starts])
            z = z.reshape(ceil(h / 4), ceil(w / 4), -1)
            all_rows, all_columns = ([(np.arange(size), size)] for size in z.shape[:2])
            d = block(z, all_rows, all_columns, heads, periodic, weights.part("overview")) - z
            tokens = tokens + d.repeat(4, 0).repeat(4, 1)[:h, :w]
    return tokens


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


def around(a: Array, p: int, periodic: bool) -> Array:
    """Return means over 2 p + 1 values each way."""
    found: Array = sliding_window_view(pad(a, p, periodic), (2 * p + 1, 2 * p + 1), (0, 1)).mean((-2, -1))
    return found


def blocks(a: Array, n: int) -> Array:
    """Return the n x n values of each block as its channels, in C order, the channels of a value together."""
    h, w, c = a.shape
    return a.reshape(h // n, n, w // n, n, c).swapaxes(1, 2).reshape(h // n, w // n, n * n * c)


def unblocked(a: Array, n: int) -> Array:
    h, w, c = a.shape
    return a.reshape(h, w, n, n, c // n**2).swapaxes(1, 2).reshape(h * n, w * n, c // n**2)


def means(a: Array, n: int) -> Array:
    """Return the mean of each block of a field."""
    found: Array = blocks(a, n).mean(-1, keepdims=True)
    return found
