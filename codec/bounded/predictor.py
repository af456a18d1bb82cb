"""From decoded neighbours to a prediction and a scale index: the integer heart of the pyramid, in numpy.

Values are integers in float64 (units of 1/64 step), features and activations integers in float32. Nothing
here depends on the machine: sums are exact, and what is rounded is one IEEE product rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import (
    FEATURE_MAX,
    INDEXES,
    PAD,
    Context,
    Offset,
    ScaleTables,
    algebra,
    log_index,
    scale_tables,
)
from isopress.codec.entropy.coder import TAILS
from isopress.codec.entropy.integer_mlp import F32, IntegerNetwork

F64 = NDArray[np.float64]
Parity = tuple[int, int]

PROXY_FEATURES = 4
RIDGE = 4096.0  # of the local regression: the square of two neighbours of one roughness each

BLOCK = 4096  # points per block: features and activations stay in the cache
LIMIT = 2.0**27  # predictions stay inside, so that every sum on them is exact in float64
LEVELS = 6  # biases exist for the finest levels 0..5; coarser ones share the last
LOG_ONE = 1016  # log_index(1.0)
MEAN_REACH, SCALE_REACH = 1024, 256  # of the network's outputs
FLOOR_INDEX = 26  # about 8 * log2(ROUGHNESS_FLOOR): centres the logarithmic features


@dataclass(frozen=True)
class Condition:
    """What is known of a whole batch of fields: kind and gap class of their references (references.Node)."""

    kind: int = 0
    gap: int = 0


ALONE = Condition()


@dataclass(frozen=True)
class Neighbours:
    """Padded planes of one level, keyed by parity: values and coding errors, (B, h + 2 PAD, w + 2 PAD).

    proxies : the same planes, all four, of every proxy that the fields have (codec.proxies).
    """

    values: dict[Parity, F64]
    errors: dict[Parity, NDArray[np.int32]]
    proxies: tuple[dict[Parity, F64], ...] = ()
    condition: Condition = ALONE


@dataclass(frozen=True)
class Prediction:
    """What is known of the points of a phase before they are decoded.

    value : float64, integers in units; scale : int16, eighths of an octave over the floor; tail : int8, 0..3.
    """

    value: F64
    scale: NDArray[np.int16]
    tail: NDArray[np.int8]


class Evaluate(Protocol):
    """Predict all points (B, h, w) of one phase."""

    def __call__(self, context: Context, seen: Neighbours, shape: tuple[int, int, int], level: int) -> Prediction: ...


@dataclass(frozen=True)
class Features:
    """Inputs of one block of M points.

    network : (n_features + PROXY_FEATURES * proxies + 1, M) integers in float32, the last row ones
    base : (M,) cubic prediction in units; rough : (M,) roughness index
    """

    network: F32
    base: F64
    rough: NDArray[np.int32]


def blocks(shape: tuple[int, int, int], size: int = BLOCK) -> Iterator[tuple[slice, slice]]:
    """Cut (B, h, w) into blocks of whole fields, or of rows of one field, of about `size` points."""
    batch, h, w = shape
    fields = max(1, size // max(1, h * w))
    rows = h if fields > 1 else max(1, size // w)
    for b in range(0, batch, fields):
        for y in range(0, h, rows):
            yield slice(b, min(b + fields, batch)), slice(y, min(y + rows, h))


def block_features(context: Context, seen: Neighbours, at: tuple[slice, slice], w: int, scratch: Scratch) -> Features:
    """Return the features of the points (fields, rows, all w columns) of one phase, in arrays of `scratch`."""
    a, t = algebra(context), scale_tables(context)
    n = len(context.offsets)
    values = _gather(seen.values, context, context.offsets, at, w, scratch.array("values", np.float64))
    m = values.shape[1]
    e = np.matmul(a.matrix, values, out=scratch.array("e", np.float64)(n + 3, m))
    magnitudes = np.abs(e[:n], out=values)  # the values themselves are no longer needed
    rough = log_index(a.weights @ magnitudes + t.floor) - t.first_index
    np.clip(rough, 0, INDEXES - 1, out=rough)
    base = np.floor((e[n + 2] + context.cubic_divisor // 2) / context.cubic_divisor)
    near = _gather(seen.errors, context, context.near, at, w, scratch.array("near", np.float64))
    wide = _gather(seen.errors, context, context.wide, at, w, scratch.array("wide", np.float64))
    rows = context.n_features + PROXY_FEATURES * len(seen.proxies)
    network = scratch.array("network", np.float32)(rows + 1, m)
    network[-1] = 1
    f = network[: context.n_features]
    f[:n], f[n:-4] = e[:n], near
    f[:n] *= t.residual[rough]
    f[n:-4] *= t.error[rough]
    np.rint(f[:-4], out=f[:-4])
    _log_features(f[-4:], rough, np.abs(near).sum(0), np.abs(wide).sum(0), np.abs(e[n : n + 2]).sum(0) / a.denominator)
    np.clip(f, -FEATURE_MAX, FEATURE_MAX, out=f)
    for i, planes in enumerate(seen.proxies):
        start = context.n_features + PROXY_FEATURES * i
        _proxy_features(network[start : start + PROXY_FEATURES], context, planes, at, f[:n], rough, w, scratch)
    return Features(network, base, rough)


def _proxy_features(
    out: F32,
    context: Context,
    planes: Mapping[Parity, F64],
    at: tuple[slice, slice],
    own: F32,
    rough: NDArray[np.int32],
    w: int,
    scratch: Scratch,
) -> None:
    """Fill the features of one proxy: its detail at the point, what a local regression on it foretells,
    their similarity and its roughness; `own` (n, M) are the normalised residuals of the field itself."""
    a, t = algebra(context), scale_tables(context)
    n = len(context.offsets)
    values = _gather(planes, context, (*context.offsets, (0, 0)), at, w, scratch.array("proxy", np.float64))
    m = values.shape[1]
    e = np.matmul(a.proxy, values, out=scratch.array("e", np.float64)(n + 1, m))
    magnitudes = np.abs(e[:n], out=values[:n])
    rough_p = log_index(a.weights @ magnitudes + t.floor) - t.first_index
    np.clip(rough_p, 0, INDEXES - 1, out=rough_p)
    f = scratch.array("proxy residuals", np.float32)(n + 1, m)
    f[...] = e
    f[:n] *= t.residual[rough_p]
    f[n] *= t.error[rough_p] / np.float32(context.cubic_divisor)
    np.rint(f, out=f)
    np.clip(f, -FEATURE_MAX, FEATURE_MAX, out=f)
    both = np.einsum("im,im->m", own, f[:n]).astype(np.float64)
    square_p = np.einsum("im,im->m", f[:n], f[:n]).astype(np.float64)
    square = np.einsum("im,im->m", own, own).astype(np.float64)
    out[0] = f[n]
    out[1] = np.rint(both * f[n] / (square_p + RIDGE))
    out[2] = np.rint(2 * FEATURE_MAX * both / (square + square_p + RIDGE))
    out[3] = rough_p - rough
    np.clip(out, -FEATURE_MAX, FEATURE_MAX, out=out)


def _gather(
    planes: Mapping[Parity, F64 | NDArray[np.int32]],
    context: Context,
    offsets: tuple[Offset, ...],
    at: tuple[slice, slice],
    w: int,
    array: Callable[..., F64],
) -> F64:
    fields, rows = at
    nb, nr = fields.stop - fields.start, rows.stop - rows.start
    out = array(len(offsets), nb, nr, w)
    ty, tx = context.parity
    for row, (dy, dx) in zip(out, offsets, strict=True):
        py, px = (ty + dy) % 2, (tx + dx) % 2
        y0 = rows.start + (ty + dy - py) // 2 + PAD
        x0 = (tx + dx - px) // 2 + PAD
        row[...] = planes[py, px][fields, y0 : y0 + nr, x0 : x0 + w]
    return out.reshape(len(offsets), -1)


def _log_features(out: F32, rough: NDArray[np.int32], near: F64, wide: F64, slope: F64) -> None:
    """Fill the four logarithmic features: roughness in steps; errors nearby and slope in units of roughness."""
    centre = rough + (LOG_ONE + FLOOR_INDEX)
    out[0] = rough - 64
    out[1] = log_index(near + 4) - centre
    out[2] = log_index(wide + 4) - centre
    out[3] = log_index(slope + 1) - centre


@dataclass(frozen=True)
class NumpyPredictor:
    """Evaluate phases with numpy alone, block by block; `networks` are keyed by the context's name."""

    networks: dict[str, IntegerNetwork]

    def __call__(self, context: Context, seen: Neighbours, shape: tuple[int, int, int], level: int) -> Prediction:
        whole = Prediction(np.empty(shape), np.empty(shape, np.int16), np.empty(shape, np.int8))
        network, scratch = self.networks[context.name], Scratch.of_thread()
        for at in blocks(shape):
            features = block_features(context, seen, at, shape[2], scratch)
            condition = seen.condition
            out = network(features.network, min(level, LEVELS - 1), scratch, condition.kind, condition.gap)
            block = finish(scale_tables(context), features, out)
            size = whole.value[at].shape
            whole.value[at] = block.value.reshape(size)
            whole.scale[at] = block.scale.reshape(size)
            whole.tail[at] = block.tail.reshape(size)
        return whole


def finish(tables: ScaleTables, features: Features, out: F32) -> Prediction:
    """Turn network outputs (mean, log scale, tail) into a prediction."""
    mean = np.clip(out[0], -MEAN_REACH, MEAN_REACH).astype(np.float64)
    prediction = features.base + np.rint(mean * tables.mean[features.rough])
    np.clip(prediction, -LIMIT, LIMIT, out=prediction)
    scale = features.rough + np.clip(out[1], -SCALE_REACH, SCALE_REACH)
    return Prediction(prediction, scale.astype(np.int16), np.clip(out[2], 0, TAILS - 1).astype(np.int8))
