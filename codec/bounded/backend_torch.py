"""The predictor in torch: another implementation of the same integers, for machines where torch is quicker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import FEATURE_MAX, INDEXES, PAD, Context, Offset, algebra, scale_tables
from isopress.codec.bounded.predictor import (
    FLOOR_INDEX,
    LEVELS,
    LIMIT,
    LOG_ONE,
    MEAN_REACH,
    RIDGE,
    SCALE_REACH,
    Neighbours,
    Prediction,
    blocks,
)
from isopress.codec.bounded.pyramid import PyramidModel
from isopress.codec.entropy.coder import TAILS
from isopress.codec.entropy.integer_mlp import IntegerNetwork
from isopress.codec.entropy.integer_mlp_torch import run

BLOCK = 1 << 15


def on_torch(model: PyramidModel) -> PyramidModel:
    """Return `model` with its phases evaluated by torch; what it codes and decodes does not change by a bit."""
    networks = getattr(model.evaluate, "networks", None)
    if networks is None:
        raise TypeError(f"{model.name} is not evaluated by numpy networks")
    return replace(model, evaluate=TorchPredictor(networks))


@dataclass(frozen=True)
class TorchPredictor:
    """Evaluate phases with torch; `networks` are keyed by the context's name."""

    networks: dict[str, IntegerNetwork]

    def __call__(self, context: Context, seen: Neighbours, shape: tuple[int, int, int], level: int) -> Prediction:
        whole = Prediction(np.empty(shape), np.empty(shape, np.int16), np.empty(shape, np.int8))
        with torch.inference_mode():
            values = {parity: torch.from_numpy(plane) for parity, plane in seen.values.items()}
            errors = {parity: torch.from_numpy(plane) for parity, plane in seen.errors.items()}
            proxies = [{parity: torch.from_numpy(x) for parity, x in planes.items()} for planes in seen.proxies]
            which = min(level, LEVELS - 1), Scratch.of_thread(), seen.condition.kind, seen.condition.gap
            for at in blocks(shape, BLOCK):
                alone, base, rough = _features(
                    context, _view(context, values, at, shape[2]), _view(context, errors, at, shape[2])
                )
                views = [_view(context, planes, at, shape[2]) for planes in proxies]
                own = alone[: len(context.offsets)]
                network = torch.cat([
                    alone,
                    *(_proxy_features(context, view, own, rough) for view in views),
                    torch.ones(1, alone.shape[1]),
                ])  # fmt: skip
                out = run(self.networks[context.name], network, *which)
                mean = out[0].clamp(-MEAN_REACH, MEAN_REACH).double()
                value = base + torch.round(mean * _tables(context)["mean"][rough])
                size = whole.value[at].shape
                whole.value[at] = value.clamp(-LIMIT, LIMIT).reshape(size).numpy()
                scale = rough + out[1].clamp(-SCALE_REACH, SCALE_REACH).int()
                whole.scale[at] = scale.reshape(size).numpy().astype(np.int16)
                whole.tail[at] = out[2].clamp(0, TAILS - 1).reshape(size).numpy().astype(np.int8)
        return whole


@cache
def _tables(context: Context) -> dict[str, Tensor]:
    a, t = algebra(context), scale_tables(context)
    arrays = {
        "matrix": a.matrix,
        "proxy": a.proxy,
        "weights": a.weights,
        "residual": t.residual,
        "error": t.error,
        "mean": t.mean,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _view(
    context: Context, planes: dict[tuple[int, int], Tensor], at: tuple[slice, slice], w: int
) -> Callable[[Offset], Tensor]:
    """Return a function from an offset to the neighbours there of the points of a block."""
    fields, rows = at

    def neighbours(offset: Offset) -> Tensor:
        (ty, tx), (dy, dx) = context.parity, offset
        py, px = (ty + dy) % 2, (tx + dx) % 2
        y0, x0 = (ty + dy - py) // 2 + PAD, (tx + dx - px) // 2 + PAD
        return planes[py, px][fields, y0 + rows.start : y0 + rows.stop, x0 : x0 + w].reshape(-1)

    return neighbours


def _features(
    context: Context, value: Callable[[Offset], Tensor], error: Callable[[Offset], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (features of the field itself, base prediction, roughness index), as predictor.block_features."""
    a, t, tables = algebra(context), scale_tables(context), _tables(context)
    n = len(context.offsets)
    e = tables["matrix"] @ torch.stack([value(o) for o in context.offsets])
    rough = (_log_index(tables["weights"] @ e[:n].abs() + t.floor) - t.first_index).clamp(0, INDEXES - 1)
    base = torch.floor((e[n + 2] + context.cubic_divisor // 2) / context.cubic_divisor)
    near = torch.stack([error(o) for o in context.near]).double()
    wide = torch.stack([error(o) for o in context.wide]).double()
    centre = rough + (LOG_ONE + FLOOR_INDEX)
    rows = (
        rough - 64,
        _log_index(near.abs().sum(0) + 4) - centre,
        _log_index(wide.abs().sum(0) + 4) - centre,
        _log_index(e[n : n + 2].abs().sum(0) / a.denominator + 1) - centre,
    )
    network = torch.cat([
        torch.round(e[:n].float() * tables["residual"][rough]),
        torch.round(near.float() * tables["error"][rough]),
        torch.stack(rows).float(),
    ]).clamp_(-FEATURE_MAX, FEATURE_MAX)  # fmt: skip
    return network, base, rough


def _proxy_features(context: Context, value: Callable[[Offset], Tensor], own: Tensor, rough: Tensor) -> Tensor:
    """Return the features of one proxy (PROXY_FEATURES, M), as predictor does."""
    t, tables = scale_tables(context), _tables(context)
    n = len(context.offsets)
    e = tables["proxy"] @ torch.stack([value(o) for o in (*context.offsets, (0, 0))])
    rough_p = (_log_index(tables["weights"] @ e[:n].abs() + t.floor) - t.first_index).clamp(0, INDEXES - 1)
    f = torch.round(e[:n].float() * tables["residual"][rough_p]).clamp_(-FEATURE_MAX, FEATURE_MAX).double()
    detail = torch.round(e[n].float() * (tables["error"][rough_p] / context.cubic_divisor))
    detail = detail.clamp_(-FEATURE_MAX, FEATURE_MAX).double()
    own = own.double()
    both, square, square_p = (own * f).sum(0), (own * own).sum(0), (f * f).sum(0)
    rows = (
        detail,
        torch.round(both * detail / (square_p + RIDGE)),
        torch.round(2 * FEATURE_MAX * both / (square + square_p + RIDGE)),
        (rough_p - rough).double(),
    )
    return torch.stack(rows).clamp_(-FEATURE_MAX, FEATURE_MAX).float()


def _log_index(x: Tensor) -> Tensor:
    return x.float().view(torch.int32) >> 20
