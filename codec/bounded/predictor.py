"""From decoded neighbours to a prediction and a scale index: the integer heart of the pyramid, in numpy.

Values are integers in float64 (units of 1/64 step), features and activations integers in float32. Nothing
here depends on the machine: sums are exact, and what is rounded is one IEEE product rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import (
    FEATURE_MAX,
    INDEXES,
    PAD,
    Context,
    Offset,
    algebra,
    log_index,
    scale_tables,
)
from isopress.codec.entropy.integer_mlp import F32, IntegerNetwork
from isopress.codec.entropy.tables import TAILS

F64 = NDArray[np.float64]
Parity = tuple[int, int]
# A network per phase for level 0, 1 and so on; the last ones also for all coarser levels.
Networks = Sequence[Mapping[str, IntegerNetwork]]

PROXY_FEATURES = 4
RIDGE = 4096.0  # of the local regression: the square of two neighbours of one roughness each

BLOCK = 4096  # points per block: features and activations stay in the cache
LIMIT = 2.0**27  # predictions stay inside, so that every sum on them is exact in float64
LOG_ONE = 1016  # log_index(1.0)
MEAN_REACH, SCALE_REACH = 1024, 256  # of the network's outputs
FLOOR_INDEX = 26  # about 8 * log2(ROUGHNESS_FLOOR): centres the logarithmic features


@dataclass(frozen=True)
class Condition:
    """What is known of a whole batch of fields: kind and gap class of their references (reference_order.Node)."""

    kind: int = 0
    gap: int = 0


ALONE = Condition()


@dataclass(frozen=True)
class Neighbours:
    """Padded planes of one level, keyed by parity: values and coding errors, (B, h + 2 PAD, w + 2 PAD).

    proxies : the same planes, all four, of every proxy that the fields have (reference_prediction).
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


@dataclass(frozen=True)
class Features:
    """Inputs of one block of M points.

    network : (n_features + PROXY_FEATURES * proxies + 1, M) integers in float32, the last row ones
    base : (M,) cubic prediction in units; rough : (M,) roughness index
    """

    network: F32
    base: F64
    rough: NDArray[np.int32]

    def of(self, points: NDArray[np.bool_]) -> Features:
        """Return those of some points."""
        return Features(np.ascontiguousarray(self.network[:, points]), self.base[points], self.rough[points])


def predict(
    network: IntegerNetwork, context: Context, seen: Neighbours, wanted: NDArray[np.bool_], level: int
) -> Prediction:
    """Return what is known of the `wanted` ones of all points (B, h, w) of one phase; block by block, in the cache."""
    shape = wanted.shape
    whole = Prediction(np.zeros(shape), np.zeros(shape, np.int16), np.zeros(shape, np.int8))
    scratch, condition = Scratch.of_thread(), seen.condition
    for at in blocks(shape):
        some = wanted[at].ravel()
        if not some.any():
            continue
        features = block_features(context, seen, at, shape[2], scratch)
        if not some.all():
            features = features.of(some)
        out = network(features.network, level, scratch, condition.kind, condition.gap)
        value, scale, tail = finish(context, features, out)
        whole.value[at][wanted[at]] = value
        whole.scale[at][wanted[at]] = scale
        whole.tail[at][wanted[at]] = tail
    return whole


def blocks(shape: tuple[int, ...], size: int = BLOCK) -> Iterator[tuple[slice, slice]]:
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
    values = _gather(seen.values, context, context.offsets, at, w, scratch, "values")
    m = values.shape[1]
    e = np.matmul(a.matrix, values, out=scratch.array("e", np.float64, n + 3, m))
    magnitudes = np.abs(e[:n], out=values)  # the values themselves are no longer needed
    rough = log_index(a.weights @ magnitudes + t.floor) - t.first_index
    np.clip(rough, 0, INDEXES - 1, out=rough)
    base = np.floor((e[n + 2] + context.cubic_divisor // 2) / context.cubic_divisor)
    near = _gather(seen.errors, context, context.near, at, w, scratch, "near")
    wide = _gather(seen.errors, context, context.wide, at, w, scratch, "wide")
    rows = context.n_features + PROXY_FEATURES * len(seen.proxies)
    network: F32 = scratch.array("network", np.float32, rows + 1, m)
    network[-1] = 1
    f = network[: context.n_features]
    f[:n], f[n:-4] = e[:n], near
    f[:n] *= t.residual[rough]
    f[n:-4] *= t.error[rough]
    np.rint(f[:-4], out=f[:-4])
    # Logarithms: roughness in steps; errors nearby and further off, and slope, in units of roughness.
    centre = rough + (LOG_ONE + FLOOR_INDEX)
    f[-4] = rough - 64
    f[-3] = log_index(np.abs(near).sum(0) + 4) - centre
    f[-2] = log_index(np.abs(wide).sum(0) + 4) - centre
    f[-1] = log_index(np.abs(e[n : n + 2]).sum(0) / a.denominator + 1) - centre
    np.clip(f, -FEATURE_MAX, FEATURE_MAX, out=f)
    for i, planes in enumerate(seen.proxies):
        start = context.n_features + PROXY_FEATURES * i
        values = _gather(planes, context, (*context.offsets, (0, 0)), at, w, scratch, "proxy")
        _proxy_features(network[start : start + PROXY_FEATURES], context, values, f[:n], rough, scratch)
    return Features(network, base, rough)


def _proxy_features(
    out: F32, context: Context, values: F64, own: F32, rough: NDArray[np.int32], scratch: Scratch
) -> None:
    """Fill the features of one proxy: its detail at the point, what a local regression on it foretells, their
    similarity and its roughness.

    values : (n + 1, m), the proxy at the offsets and at the point, used up; own : (n, m), the field's own residuals.
    """
    a, t = algebra(context), scale_tables(context)
    n = len(context.offsets)
    m = values.shape[1]
    e = np.matmul(a.proxy, values, out=scratch.array("e", np.float64, n + 1, m))
    magnitudes = np.abs(e[:n], out=values[:n])
    rough_p = log_index(a.weights @ magnitudes + t.floor) - t.first_index
    np.clip(rough_p, 0, INDEXES - 1, out=rough_p)
    f: F32 = scratch.array("proxy residuals", np.float32, n + 1, m)
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
    scratch: Scratch,
    name: str,
) -> F64:
    """Return what lies at the offsets of the points, (offsets, points), in the array `name`."""
    fields, rows = at
    nb, nr = fields.stop - fields.start, rows.stop - rows.start
    out: F64 = scratch.array(name, np.float64, len(offsets), nb, nr, w)
    ty, tx = context.parity
    for row, (dy, dx) in zip(out, offsets, strict=True):
        py, px = (ty + dy) % 2, (tx + dx) % 2
        y0 = rows.start + (ty + dy - py) // 2 + PAD
        x0 = (tx + dx - px) // 2 + PAD
        row[...] = planes[py, px][fields, y0 : y0 + nr, x0 : x0 + w]
    return out.reshape(len(offsets), -1)


def finish(context: Context, features: Features, out: F32) -> tuple[F64, NDArray[np.int16], NDArray[np.int8]]:
    """Turn network outputs (mean, log scale, tail) into value, scale and tail of a prediction."""
    mean = np.clip(out[0], -MEAN_REACH, MEAN_REACH).astype(np.float64)
    value = features.base + np.rint(mean * scale_tables(context).mean[features.rough])
    np.clip(value, -LIMIT, LIMIT, out=value)
    scale = features.rough + np.clip(out[1], -SCALE_REACH, SCALE_REACH)
    return value, scale.astype(np.int16), np.clip(out[2], 0, TAILS - 1).astype(np.int8)
