"""The order in which a pyramid visits a field, shared by encoder, decoder and training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isopress.codec.bounded.geometry import CONTEXTS, PAD, Context
from isopress.codec.bounded.predictor import ALONE, F64, Evaluate, Neighbours, Parity, Prediction
from isopress.codec.bounded.reference_prediction import LevelProxies, Proxies
from isopress.codec.entropy.coder import I32

Shape3 = tuple[int, int, int]
Residual = Callable[[int, Context, Prediction], F64]


def depth(height: int, width: int) -> int:
    """Return the number of levels: halvings until at most 2 x 2 anchors are left."""
    return max(0, (max(height, width) - 1).bit_length() - 1)


def coarse(size: int, level: int) -> int:
    """Return how many of `size` points stay on the grid of spacing 2**level."""
    return -(-size >> level)


def walk(
    anchors: I32,
    shape: Shape3,
    *,
    wrap: bool,
    evaluate: Evaluate,
    residual: Residual,
    proxies: Proxies | None = None,
) -> I32:
    """Rebuild fields (B, H, W) in units from their anchors, level by level, phase by phase.

    `evaluate` predicts a phase; `residual(level, context, prediction)` returns what is to be added:
    the encoder computes it from the original, the decoder decodes it.
    """
    batch, height, width = shape
    fine, errors = anchors, np.zeros_like(anchors)
    for level in range(depth(height, width) - 1, -1, -1):
        wraps = wrap and width % (2 << level) == 0
        size = (batch, coarse(height, level), coarse(width, level))
        # Grids one cell high or wide look at nothing but themselves.
        at_level = proxies.at(level) if proxies and min(size[1:]) > 1 else None
        fine, errors = _refine(fine, errors, size, level, wraps, evaluate, residual, at_level)
    return fine


def _refine(
    k: I32,
    error_k: I32,
    size: Shape3,
    level: int,
    wraps: bool,
    evaluate: Evaluate,
    residual: Residual,
    proxies: LevelProxies | None,
) -> tuple[I32, I32]:
    fine = np.empty(size, np.int32)
    errors = np.zeros(size if level else (0, 0, 0), np.int32)  # nobody looks at those of the finest level
    fine[:, ::2, ::2], errors[:, ::2, ::2] = k, error_k if level else 0
    guess = proxies.guess if proxies else None
    seen = Neighbours(
        {(0, 0): pad(k if guess is None else k - guess[:, ::2, ::2], wraps)},
        {(0, 0): pad_zero(error_k, wraps)},
        tuple(_planes(field, wraps) for field in proxies.fields) if proxies else (),
        proxies.condition if proxies else ALONE,
    )
    for context in CONTEXTS:
        plane = (slice(None), *(slice(p, None, 2) for p in context.parity))
        target = fine[plane]
        if target.size:
            predicted = evaluate(context, seen, target.shape, level)
            if guess is not None:
                np.add(predicted.value, guess[plane], out=predicted.value)
            added = residual(level, context, predicted)
            np.add(predicted.value, added, out=target, casting="unsafe")
            if level:
                errors[plane] = added
        if context is CONTEXTS[-1]:
            break
        if target.size:
            seen.values[context.parity] = pad(target if guess is None else target - guess[plane], wraps)
            seen.errors[context.parity] = pad_zero(added, wraps)
        else:
            stand_in = _stand_in(context, seen.values[0, 0], k.shape, target.shape)
            seen.values[context.parity] = pad(stand_in, wraps)
            seen.errors[context.parity] = pad_zero(np.zeros_like(stand_in), wraps)
    return fine, errors


def _planes(field: F64, wraps: bool) -> dict[Parity, F64]:
    """Return the four padded planes of a proxy."""
    return {(y, x): pad(field[:, y::2, x::2], wraps) for y in (0, 1) for x in (0, 1)}


def _stand_in(context: Context, k: F64, known: Shape3, empty: Shape3) -> F64:
    """Return values for a plane that has no points (a grid one cell high or wide) but is looked at."""
    _, h, w = known
    inner = k[:, PAD : PAD + h, PAD : PAD + w]
    if context.parity == (1, 1) and empty[1] == 0 and empty[2] > 0:
        right = k[:, PAD : PAD + h, PAD + 1 : PAD + 1 + empty[2]]
        return np.floor((inner[:, :, : empty[2]] + right) / 2)
    if context.parity == (1, 1) and empty[1] > 0:
        below = k[:, PAD + 1 : PAD + 1 + empty[1], PAD : PAD + w]
        return np.floor((inner[:, : empty[1]] + below) / 2)
    return inner[:, :, :1] if context.parity == (0, 1) else inner[:, :1, :1]


def pad(x: I32 | F64, wraps: bool) -> F64:
    """Pad (B, h, w) by PAD cells: linear extrapolation, or periodic columns where `wraps`."""
    batch, h, w = x.shape
    out = np.empty((batch, h + 2 * PAD, w + 2 * PAD))
    out[:, PAD:-PAD, PAD:-PAD] = x
    if wraps:
        columns = np.arange(-PAD, w + PAD) % w
        out[:, PAD:-PAD] = x[:, :, columns]
    else:
        _extrapolate(out[:, PAD:-PAD].transpose(2, 0, 1), w)
    _extrapolate(out.transpose(1, 0, 2), h)
    return out


def _extrapolate(x: F64, n: int) -> None:
    """Fill the PAD leading and trailing rows of x in place, along the line of the two outermost ones."""
    first, last = x[PAD], x[PAD + n - 1]
    before = first - x[PAD + 1] if n > 1 else np.zeros_like(first)
    after = last - x[PAD + n - 2] if n > 1 else np.zeros_like(last)
    for k in range(1, PAD + 1):
        x[PAD - k] = first + k * before
        x[PAD + n - 1 + k] = last + k * after


def pad_zero(x: I32 | F64, wraps: bool) -> I32:
    """Pad coding errors by PAD cells of zero, or periodic columns where `wraps`."""
    batch, h, w = x.shape
    out = np.zeros((batch, h + 2 * PAD, w + 2 * PAD), np.int32)
    out[:, PAD:-PAD, PAD:-PAD] = x
    if wraps:
        out[:, PAD:-PAD] = x[:, :, np.arange(-PAD, w + PAD) % w]
    return out
