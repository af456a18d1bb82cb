"""The correction of latents, written from SPEC 6.8 alone: whole numbers, and binary32 one operation at a time."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log, log2, sqrt
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tests.spec.layers import Tensors, blocks, pad, unblocked, windows

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
f32 = np.float32

P = (3.1969782e-07, 1.4426521, -0.7203866, 0.47249952, -0.32311594, 0.19042084, -0.07684872, 0.014778721)
Q = (0.9999999, 0.69315463, 0.24014077, 0.055863284, 0.008946215, 0.0018951073)
G = (1.407592, 0.7327393, -0.22679299, 0.15627347, -0.117204614, 0.067298606, -0.043379508, 0.043590862, -0.02027177)
LARGEST = 16383


def horner(c: tuple[float, ...], x: Floats) -> Floats:
    y = np.full(x.shape, c[-1], f32)
    for k in c[-2::-1]:
        y = y * x + f32(k)
    return y


def logarithm(y: Floats) -> Floats:
    mantissa, exponent = np.frexp(y)
    return ((exponent - 1).astype(f32) + horner(P, mantissa * f32(2) - f32(1))) * f32(log(2))


def power(t: Floats) -> Floats:
    return np.ldexp(horner(Q, t - np.floor(t)), np.floor(t).astype(int))


def gelu(x: Floats) -> Floats:
    t = np.minimum(abs(x), f32(4))
    return x * f32(0.5) + (horner(G, t * t * f32(0.125) - f32(1)) + (abs(x) - t) * f32(0.5))


def whole(x: Floats, top: int = LARGEST) -> Integers:
    return np.rint(x.clip(-top, top)).astype(np.int64)


def total(x: Floats) -> Floats:
    """Return sums over the last axis, kept with length 1."""
    n = 2 ** ceil(log2(x.shape[-1]))
    x = np.concatenate([x, np.zeros((*x.shape[:-1], n - x.shape[-1]), f32)], -1)
    while n > 1:
        n //= 2
        x = x[..., :n] + x[..., n:]
    return x


class Weights(Tensors):
    """Layers in whole numbers."""

    def of(self, name: str) -> tuple[Floats, Floats]:
        weight, bias = (self.tensors[f"{self.prefix}{name}.{kind}"].astype(f32) for kind in ("weight", "bias"))
        return weight, bias

    def product(self, name: str, x: Integers, u: int = 1) -> Floats:
        """Return y of a linear map, or of a cross-correlation of x (h, w, c)."""
        weight, bias = self.of(name)
        rows = weight.reshape(len(weight), -1).astype(np.float64)
        fine = np.array([finest(row) for row in rows])
        integers = np.rint(rows * 2.0 ** fine[:, None]).astype(np.int64)
        if weight.ndim == 4:
            x = sliding_window_view(x, weight.shape[2:], (0, 1)).reshape(x.shape[0] - 2, x.shape[1] - 2, -1)
        scale = (2.0**-fine / 512 * u).astype(f32)
        return (x @ integers.T).astype(f32) * scale + bias * f32(u)

    def norm(self, name: str, x: Floats) -> Integers:
        weight, bias = self.of(name)
        part = f32(1 / x.shape[-1])
        d = x - total(x) * part
        r = f32(1) / np.sqrt(total(d * d) * part + f32(1e-6))
        return whole((d * r * weight + bias) * f32(512))


def finest(row: Array) -> int:
    """Return k."""
    k = 14
    while True:
        integers = abs(np.rint(row * 2.0**k))
        if integers.max() <= 32767 and integers.sum() * 16383 < 2**31:
            return k
        k -= 1


def correction(x: Integers, periodic: bool, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Array:
    """Return what is added, in steps, to a channel in units."""
    weights, token = Weights(tensors, "synthesis."), config["token"]
    x = x.clip(-(2**34), 2**34)
    quality = spread(x) * f32(0.3) * weights.of("quality")[0][:, 0] + weights.of("quality")[1]
    h, w = x.shape
    x = np.pad(x, ((0, -h % token), (0, -w % token)), "edge")
    periodic = periodic and w % token == 0
    y = transformer(x, quality, periodic, config, weights)
    far = around(blocks(y[..., None], token).sum(-1), 2, periodic) / (25 * token**2)
    return ((y - far.repeat(token, 0).repeat(token, 1)) * 2.0**-10)[:h, :w]


def spread(x: Integers) -> np.float32:
    n = x.size
    mean = sum(x.ravel().tolist()) // n
    d = [v - mean for v in x.ravel().tolist()]
    b = max(0, max(map(abs, d)).bit_length() - 15)
    d = [v >> b for v in d]
    variance = (n * sum(v * v for v in d) - sum(d) ** 2) / n**2
    s: np.float32 = logarithm(np.array([sqrt(variance) * 2.0**b / 64 + 0.001], f32))[0]
    return s


def seen(x: Integers, cell: int, periodic: bool) -> Integers:
    """Return the activations that everything begins with."""
    n, v = cell**2, blocks(x[..., None], cell)
    m = v.sum(-1)
    near = 9 * n * v - around(m, 1, periodic)[..., None]
    last = 81 * m - around(m, 4, periodic)
    d = np.concatenate([near, last[..., None]], -1)
    g = np.array([3 / (576 * n)] * n + [3 / (5184 * n)], f32)
    size = whole(logarithm(abs(d).astype(f32) * g + f32(1)) * f32(512))
    return np.sign(d) * size


def transformer(x: Integers, quality: Floats, periodic: bool, config: Mapping[str, Any], weights: Weights) -> Integers:
    g = config["token"] // config["cell"]
    a = pad(seen(x, config["cell"], periodic), 4, periodic)
    for name in ("first", "second"):
        a = whole(gelu(weights.product(name, a)) * f32(512))
    z = weights.product("embed", blocks(a[2:-2, 2:-2], g)) + quality
    z = transformed(z, periodic, config, weights)
    b = unblocked(whole(weights.product("widen", pad(whole(z * f32(512)), 1, periodic), 512)), g)
    b = b[g - 2 : len(b) - g + 2, g - 2 : b.shape[1] - g + 2]
    a = whole(gelu(weights.product("third", np.concatenate([a, b], -1))) * f32(512))
    return unblocked(whole(weights.product("last", a, 1024), 32767), config["cell"])[..., 0]


def transformed(z: Floats, periodic: bool, config: Mapping[str, Any], weights: Weights) -> Floats:
    for n in range(config["blocks"]):
        z = block(z, config["window"], n % 2 == 1, periodic, config["heads"], weights.part(f"blocks.{n}"))
        if n == (config["blocks"] - 1) // 2:
            h, w = z.shape[:2]
            o = np.array([[mean(z[y : y + 4, x : x + 4]) for x in range(0, w, 4)] for y in range(0, h, 4)])
            more = block(o, max(o.shape[:2]), False, periodic, config["heads"], weights.part("overview")) - o
            z = z + more.repeat(4, 0).repeat(4, 1)[:h, :w]
    return z


def mean(z: Floats) -> Floats:
    found = np.zeros(z.shape[2], f32)
    for y, x in np.ndindex(z.shape[:2]):
        found = found + z[y, x]
    return found / f32(z.shape[0] * z.shape[1])


def block(z: Floats, window: int, odd: bool, periodic: bool, heads: int, weights: Weights) -> Floats:
    h, w = z.shape[:2]
    if f"{weights.prefix}conv.weight" in weights.tensors:
        weight, bias = weights.of("conv")
        beside = np.pad(z, ((1, 1), (0, 0), (0, 0)))
        beside = np.pad(beside, ((0, 0), (1, 1), (0, 0)), "wrap" if periodic else "constant")
        found = np.zeros_like(z) + bias
        for y, x in np.ndindex(3, 3):
            found = found + beside[y : y + h, x : x + w] * weight[:, 0, y, x]
        z = z + found
    qkv = whole(weights.product("attention.qkv", weights.norm("norm1", z), 256), 4095)
    taken = np.zeros(z.shape, np.int64)
    for down, height in windows(h, window, odd, False):
        for across, width in windows(w, window, odd, periodic):
            answer = attention(qkv[np.ix_(down, across)], heads)
            taken[np.ix_(down[:height], across[:width])] = answer[:height, :width]
    z = z + weights.product("attention.out", taken)
    hidden = whole(gelu(weights.product("mlp.0", weights.norm("norm2", z))) * f32(512))
    return z + weights.product("mlp.2", hidden)


def attention(qkv: Integers, heads: int) -> Integers:
    h, w, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3 // heads
    q, k, v = qkv.reshape(h * w, 3, heads, width).transpose(1, 2, 0, 3)
    scores = (q @ k.swapaxes(1, 2)).astype(f32) * f32(1 / (65536 * sqrt(width) * log(2)))
    t = np.maximum(scores - scores.max(-1, keepdims=True), f32(-40))
    e = np.rint(power(t) * f32(2**15))
    shares = np.rint(e * (f32(2**14) / e.astype(np.int64).sum(-1, keepdims=True).astype(f32)))
    answer = whole((shares.astype(np.int64) @ v).astype(f32) * f32(2**-13))
    return answer.swapaxes(0, 1).reshape(h, w, -1)


def around(a: Integers, p: int, periodic: bool) -> Integers:
    """Return sums over 2 p + 1 places each way."""
    found: Integers = sliding_window_view(pad(a, p, periodic), (2 * p + 1, 2 * p + 1), (0, 1)).sum((-2, -1))
    return found
