"""A transformer in whole numbers: the same on every machine, and the same by numpy and by every compiled kernel.

Products are of 16 bit integers, summed up in 32 bits; what lies between them is binary32, one rounded operation after
another in a fixed order; sums over many values are integers, or halve pairwise. SPEC, "Synthesis".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native import correction
from isopress.codec.native.dispatch import compiled
from isopress.codec.threads import share

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
T = TypeVar("T")
R = TypeVar("R")
STRIP = 8  # rows of tokens that convolutions take at a time
ONE, TOP = 512, 16383  # integer that stands for one in activations, and the largest magnitude of any
ONE_SCORED, TOP_SCORED = 256, 4095  # of queries, keys and values
LARGEST_SUM = 2**31 - 1
FINEST_WEIGHT, LARGEST_WEIGHT = 14, 32767  # weights are multiples of 2**-14 or coarser
SHARE = 14  # log2 of what the shares of an attention add up to, about
EPSILON = np.float32(1e-6)
LOWEST = np.float32(-40)  # of exponents
GELU_REACH = np.float32(4)
# gelu(x) = x / 2 + a polynomial of x**2 / 8 - 1, for |x| <= 4; 2**x for 0 <= x < 1; log2(1 + x) likewise
GELU = np.array(
    [1.407592, 0.7327393, -0.22679299, 0.15627347, -0.117204614, 0.067298606, -0.043379508, 0.043590862, -0.02027177],
    np.float32,
)
EXP2 = np.array([0.9999999, 0.69315463, 0.24014077, 0.055863284, 0.008946215, 0.0018951073], np.float32)
LOG2 = np.array(
    [3.1969782e-07, 1.4426521, -0.7203866, 0.47249952, -0.32311594, 0.19042084, -0.07684872, 0.014778721], np.float32
)


def polynomial(x: F32, coefficients: F32) -> F32:
    """Return the polynomial, lowest power first, by Horner's rule."""
    y = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        y *= x
        y += c
    return y


def gelu(x: F32) -> F32:
    """Return x times the normal distribution of x, within 2e-4."""
    size = np.abs(x)
    t = np.minimum(size, GELU_REACH)
    h = polynomial(t * t * np.float32(0.125) - np.float32(1), GELU)
    return np.asarray(x * np.float32(0.5) + (h + (size - t) * np.float32(0.5)), np.float32)


def exp2(x: F32) -> F32:
    """Return 2**x for x in -40..0."""
    whole = np.floor(x)
    return np.asarray(np.ldexp(polynomial(x - whole, EXP2), whole.astype(np.int32)), np.float32)


def log(x: F32) -> F32:
    """Return the natural logarithm of normal numbers."""
    bits = x.view(np.int32)
    mantissa = (bits & 0x7FFFFF | 0x3F800000).view(np.float32)
    whole = ((bits >> 23) - 127).astype(np.float32)
    return (whole + polynomial(mantissa - np.float32(1), LOG2)) * np.float32(math.log(2))


def rounded(x: F32, top: int) -> I16:
    """Return the nearest integers, at most `top` in magnitude."""
    return np.rint(np.clip(x, -np.float32(top), np.float32(top))).astype(np.int16)


def halved_sum(x: F32) -> F32:
    """Return sums (..., 1) along the last axis, filled with zeros to a power of two: of halves, until one is left."""
    n = x.shape[-1]
    size = 1 << (n - 1).bit_length()
    if size > n:
        x = np.concatenate([x, np.zeros((*x.shape[:-1], size - n), np.float32)], -1)
    while size > 1:
        size //= 2
        x = x[..., :size] + x[..., size:]
    return x


@dataclass(frozen=True, eq=False)
class Product:
    """A linear map or a 3 x 3 cross-correlation of integers: sums times `scale`, plus `bias`, (out,) each.

    weight : (rows, columns, in, out), integers; in is even
    """

    weight: I16
    scale: F32
    bias: F32

    @classmethod
    def of(cls, weight: NDArray[Any], bias: NDArray[Any], top: int = TOP, one: int = 1) -> Product:
        """Round float weights (out, in, ...), each output as finely as sums of inputs up to `top` allow.

        one : what the result stands for one with
        """
        w = weight.astype(np.float64).reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
        w = np.pad(w, [(0, 0), (0, w.shape[1] % 2), (0, 0), (0, 0)])
        fine = np.full(len(w), FINEST_WEIGHT)
        while True:
            integers = np.rint(np.ldexp(w, fine[:, None, None, None]))
            size = np.abs(integers).reshape(len(w), -1)
            large = (size.max(1) > LARGEST_WEIGHT) | (size.sum(1) * top > LARGEST_SUM)
            if not large.any():
                break
            fine[large] -= 1
        scale = np.ldexp(np.float32(one / ONE), -fine).astype(np.float32)
        weights = np.ascontiguousarray(integers.astype(np.int16).transpose(2, 3, 1, 0))
        return cls(weights, scale, bias.astype(np.float32) * np.float32(one))

    def __call__(self, *inputs: I16) -> F32:
        """Map integers (H, W, in), side by side if there are several, to (H - rows + 1, W - columns + 1, out)."""
        return np.asarray(self._made(inputs, correction.PLAIN, TOP))

    def integers(self, *inputs: I16, top: int = TOP) -> I16:
        """Return the same, rounded and at most `top`."""
        return self._made(inputs, correction.ROUNDED, top)

    def activations(self, *inputs: I16) -> I16:
        """Return gelu of the same, as integers."""
        return self._made(inputs, correction.GELU_ROUNDED, TOP)

    def _made(self, inputs: tuple[I16, ...], kind: int, top: int) -> NDArray[Any]:
        if compiled():
            packed, factors = self.packed(tuple(x.shape[2] for x in inputs))
            rows, _, _, outputs = self.weight.shape
            seen = tuple(map(np.ascontiguousarray, inputs))
            return correction.product(seen, packed, rows, outputs, factors, kind, top, ONE)
        sums = self._sums(*inputs)
        if kind == correction.PLAIN:
            return sums
        return rounded(sums if kind == correction.ROUNDED else gelu(sums) * np.float32(ONE), top)

    @cache  # noqa: B019 - there are few, and they live as long as their model
    def packed(self, channels: tuple[int, ...]) -> tuple[I16, tuple[F32, F32]]:
        """Return what the compiled kernels take, for inputs of so many channels each."""
        missing = -len(self.scale) % correction.OUT_BLOCK
        factors = np.pad(self.scale, (0, missing)), np.pad(self.bias, (0, missing))
        return correction.packed_weights(self.weight, channels), factors

    def _sums(self, *inputs: I16) -> F32:
        rows, columns, _, outputs = self.weight.shape
        h, w = inputs[0].shape[0] - rows + 1, inputs[0].shape[1] - columns + 1
        total, first = np.zeros((h * w, outputs)), 0  # binary64 holds such sums
        for x in inputs:
            weight, factors = self.weight[:, :, first : first + x.shape[2]].astype(np.float64), x.astype(np.float64)
            for y, c in np.ndindex(rows, columns):
                total += factors[y : y + h, c : c + w].reshape(h * w, -1) @ weight[y, c]
            first += x.shape[2]
        return (total.astype(np.float32) * self.scale + self.bias).reshape(h, w, outputs)


@dataclass(frozen=True)
class Windows:
    """How windows lie along one axis: first token, tokens, and of how many the answers count, (count, 3); beyond the
    end of the axis they go on at its start."""

    n: int
    table: I32

    @classmethod
    def divide(cls, n: int, window: int, *, odd: bool, periodic: bool) -> Windows:
        """Return as few windows as cover `n` tokens with at most `window` each; those of `odd` blocks start half a
        window in."""
        count = -(-n // window)
        size = -(-n // count)
        shift = size // 2 if odd and count > 1 else 0
        if periodic:
            rows = [((shift + i) % n, size, min(size, n - i)) for i in range(0, n, size)]
        else:
            edges = sorted({0, *range(shift, n, size), n})
            rows = [(start, stop - start, stop - start) for start, stop in pairwise(edges)]
        return cls(n, np.array(rows, np.int32))

    @classmethod
    def whole(cls, n: int) -> Windows:
        """Return one window."""
        return cls(n, np.array([(0, n, n)], np.int32))

    def places(self) -> Iterator[tuple[NDArray[np.intp], int]]:
        """Yield the tokens of each window, and of how many, from the first, the answers count."""
        for start, size, answered in self.table:
            yield (start + np.arange(size)) % self.n, answered


@dataclass(frozen=True, eq=False)
class Block:
    """A transformer block: depthwise convolution if there is one, attention, MLP, each added to its input."""

    conv: tuple[F32, F32] | None  # (3, 3, dim), (dim,)
    norms: tuple[tuple[F32, F32], tuple[F32, F32]]
    qkv: Product
    out: Product
    hidden: Product
    last: Product
    heads: int

    def __call__(self, x: F32, rows: Windows, columns: Windows, periodic: bool) -> F32:
        """Map tokens (h, w, dim) to the same shape."""
        if self.conv is None:
            found = x.copy()
        else:
            found = depthwise(x, *self.conv, periodic)
            found += x
        parts = [np.s_[start : start + STRIP] for start in range(0, len(found), STRIP)]
        taken = attended(self._asked(found, parts), self.heads, rows, columns)

        def rest(rows: slice) -> None:
            y = found[rows]
            y += self.out(taken[rows])
            y += self.last(self.hidden.activations(normalised(y, *self.norms[1])))

        each(rest, parts)
        return found

    def _asked(self, x: F32, parts: Sequence[slice]) -> I16:
        """Return queries, keys and values of tokens (h, w, dim), part by part."""
        qkv = np.empty((*x.shape[:2], 3 * x.shape[2]), np.int16)

        def ask(rows: slice) -> None:
            qkv[rows] = self.qkv.integers(normalised(x[rows], *self.norms[0]), top=TOP_SCORED)

        each(ask, parts)
        return qkv


def each(work: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """Return what `work` makes of every piece: kernels by several threads; numpy's products have their own."""
    return share(work, pieces) if compiled() else [work(piece) for piece in pieces]


def depthwise(x: F32, weight: F32, bias: F32, periodic: bool) -> F32:
    """Return the 3 x 3 cross-correlation of each channel by itself; zeros beyond edges."""
    if compiled():
        return correction.depthwise(np.ascontiguousarray(x), weight, bias, periodic)
    h, w, _ = x.shape
    seen = np.pad(x, ((1, 1), (0, 0), (0, 0)))
    seen = np.pad(seen, ((0, 0), (1, 1), (0, 0)), "wrap" if periodic else "constant")
    total = np.broadcast_to(bias, x.shape).copy()
    for i, j in np.ndindex(3, 3):
        total += seen[i : i + h, j : j + w] * weight[i, j]
    return total


def normalised(x: F32, weight: F32, bias: F32) -> I16:
    """Return the layer norm of tokens (..., dim), as integers."""
    part = np.float32(1 / x.shape[-1])
    if compiled():
        return correction.norm(np.ascontiguousarray(x), weight, bias, float(part), float(EPSILON), ONE, TOP)
    d = x - halved_sum(x) * part
    root = np.float32(1) / np.sqrt(halved_sum(d * d) * part + EPSILON)
    return rounded((d * root * weight + bias) * np.float32(ONE), TOP)


def attended(qkv: I16, heads: int, rows: Windows, columns: Windows) -> I16:
    """Return what tokens take from others of their window, of queries, keys and values (h, w, 3 * dim)."""
    (h, w), dim = qkv.shape[:2], qkv.shape[2] // 3
    scale = np.float32(1 / (ONE_SCORED**2 * math.sqrt(dim // heads) * math.log(2)))
    out = np.empty((h, w, dim), np.int16)
    if compiled():
        factors = float(scale), 2.0**SHARE, ONE / (ONE_SCORED * 2**SHARE), TOP
        each(lambda row: correction.attention(qkv, heads, row, columns.table, factors, out), list(rows.table[:, None]))
        return out
    for down, height in rows.places():
        for across, width in columns.places():
            here = qkv[np.ix_(down, across)].reshape(-1, 3, heads, dim // heads).transpose(1, 2, 0, 3)
            q, k, v = here.astype(np.float64)
            scores = (q @ k.transpose(0, 2, 1)).astype(np.float32) * scale
            scores = np.maximum(scores - scores.max(-1, keepdims=True), LOWEST)
            e = np.rint(exp2(scores) * np.float32(2**15))
            share = np.rint(e * (np.float32(2**SHARE) / e.sum(-1, keepdims=True, dtype=np.float64).astype(np.float32)))
            sums = (share.astype(np.float64) @ v).astype(np.float32)
            taken = rounded(sums * np.float32(ONE / (ONE_SCORED * 2**SHARE)), TOP)
            found = taken.transpose(1, 0, 2).reshape(len(down), len(across), dim)
            out[np.ix_(down[:height], across[:width])] = found[:height, :width]
    return out
