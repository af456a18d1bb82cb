"""The steps of latents' corrections that take the time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native.dispatch import kernels, level

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
I16 = NDArray[np.int16]
OUT_BLOCK = 16  # outputs whose weights lie together
PLAIN, ROUNDED, GELU_ROUNDED = range(3)  # what a product gives: float32; integers; integers after gelu


def packed_weights(weight: I16, channels: tuple[int, ...]) -> I16:
    """Return weights (rows, columns, in, out) as `product` takes them, for inputs of so many channels each."""
    outputs = weight.shape[3]
    filled = np.pad(weight, ((0, 0), (0, 0), (0, 0), (0, -outputs % OUT_BLOCK)))
    parts, first = list[I16](), 0
    for n in channels:
        part = filled[:, :, first : first + n].reshape(len(weight), -1, 2, filled.shape[3] // OUT_BLOCK, OUT_BLOCK)
        parts.append(part.transpose(3, 0, 1, 4, 2))  # (blocks, rows, pairs, OUT_BLOCK, 2)
        first += n
    return np.ascontiguousarray(np.concatenate(parts, 2))


def product(
    inputs: tuple[I16, ...],
    weight: I16,
    side: int,
    outputs: int,
    factors: tuple[F32, F32],
    kind: int,
    top: int,
    one: int,
) -> NDArray[Any]:
    """Return (H - side + 1, W - side + 1, outputs) of inputs (H, W, channels); correction.h says how.

    weight : of `packed_weights`; factors : scale and bias, filled up to whole blocks of outputs.
    """
    h, w = inputs[0].shape[:2]
    channels = inputs[0].shape[2], inputs[-1].shape[2]
    out = np.empty((h - side + 1, w - side + 1, outputs), np.float32 if kind == PLAIN else np.int16)
    shape = (h, w) if side > 1 else (1, h * w)
    kernels.product(level(), inputs, channels, shape, side, outputs, kind, weight, *factors, top, one, out)
    return out


def features(
    units: I64, around: I64, beside: I64, cell: int, scale: int, factors: tuple[float, float, int, int]
) -> I16:
    """Return (H, W, cell * cell + 1, rounded up to even) of units (H * cell, W * cell); correction.h says how.

    around, beside : (H, W), sums around each cell, and what is told of the cell itself
    factors : of values and of cells, what stands for one, and the largest.
    """
    values, shape = cell * cell, around.shape
    out = np.empty((*shape, (values + 2) // 2 * 2), np.int16)
    kernels.features(level(), units, around, beside, shape, cell, out.shape[2], scale, factors, out)
    return out


def depthwise(x: F32, weight: F32, bias: F32, wrap: bool) -> F32:
    """Return the 3 x 3 cross-correlation of each channel of x (h, w, channels) by itself, and bias."""
    out = np.empty(x.shape, np.float32)
    kernels.depthwise(level(), x, x.shape[:2], x.shape[2], wrap, weight, bias, out)
    return out


def norm(x: F32, weight: F32, bias: F32, part: float, epsilon: float, one: int, top: int) -> I16:
    """Return the layer norm of tokens (..., channels) as integers, at most `top`, of which `one` stands for one."""
    out = np.empty(x.shape, np.int16)
    kernels.norm(level(), x, x.size // x.shape[-1], x.shape[-1], weight, bias, part, epsilon, one, top, out)
    return out


def attention(
    qkv: I16, heads: int, rows: I32, columns: I32, factors: tuple[float, float, float, int], out: I16
) -> None:
    """Fill `out` (h, w, dim) where windows of rows and columns, (n, 3) int32 each, answer.

    qkv : (h, w, 3 * dim); factors : of scores, of all shares together, of the result, and its largest.
    """
    shape = (*out.shape[:2], heads, out.shape[2] // heads)
    kernels.attention(level(), qkv, shape, rows, columns, len(rows), len(columns), factors, out)
