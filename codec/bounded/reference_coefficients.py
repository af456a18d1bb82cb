"""Coefficients of the guess: fitted by the encoder, a few bits each in the stream of a field."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import constriction
import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.predictor import F64
from isopress.codec.bounded.reference_order import PROXIES, Node, slots_of
from isopress.codec.bounded.reference_prediction import COEFFICIENT_ONE, LEVEL_SETS, proxy_fields
from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter

EXPONENT_MAX = 30
COEFFICIENT_MAX = 127
PRIOR = (COEFFICIENT_ONE, 0, 0, COEFFICIENT_ONE)  # of P, Q, C and S at the finest level; coarser ones expect the finer
CHEAP = 10  # bits that one fitted coefficient must save
SAMPLE = 128  # rows of a level's grid that are looked at
I8 = NDArray[np.int8]
Models = tuple[constriction.stream.model.Categorical, constriction.stream.model.Categorical]


@cache
def models() -> Models:
    """Return the models of an exponent (-30..30) and of a coefficient less what is expected (-254..254)."""
    exponent = [4096 >> min(abs(e), 12) for e in range(-EXPONENT_MAX, EXPONENT_MAX + 1)]
    difference = [1 + (1 << 20) // (16 + d * d) for d in range(-2 * COEFFICIENT_MAX, 2 * COEFFICIENT_MAX + 1)]
    difference[2 * COEFFICIENT_MAX] = 1 << 20  # as expected: about a bit
    exponent_model, difference_model = (
        constriction.stream.model.Categorical(np.array(w, np.float64), perfect=False, lazy=False)
        for w in (exponent, difference)
    )
    return exponent_model, difference_model


def write_coefficients(writer: SymbolWriter, kind: int, exponents: I8, coefficients: I8) -> None:
    """Code the exponents (PROXIES,) and coefficients (LEVEL_SETS, PROXIES) of the proxies that `kind` has."""
    exponent_model, difference_model = models()
    for slot in slots_of(kind):
        expected = PRIOR[slot]
        writer.symbol(int(exponents[slot]) + EXPONENT_MAX, exponent_model)
        for coefficient in coefficients[:, slot].tolist():
            writer.symbol(coefficient - expected + 2 * COEFFICIENT_MAX, difference_model)
            expected = coefficient


def read_coefficients(reader: SymbolReader, kind: int) -> tuple[I8, I8]:
    """Return exponents (PROXIES,) and coefficients (LEVEL_SETS, PROXIES), 0 for proxies that `kind` lacks."""
    exponent_model, difference_model = models()
    exponents, coefficients = np.zeros(PROXIES, np.int8), np.zeros((LEVEL_SETS, PROXIES), np.int8)
    for slot in slots_of(kind):
        expected = PRIOR[slot]
        exponents[slot] = reader.symbol(exponent_model) - EXPONENT_MAX
        for i in range(LEVEL_SETS):
            expected += reader.symbol(difference_model) - 2 * COEFFICIENT_MAX
            # Differences of damaged data may add up to more than any writer's.
            expected = max(-COEFFICIENT_MAX, min(COEFFICIENT_MAX, expected))
            coefficients[i, slot] = expected
    return exponents, coefficients


def fit(nodes: Sequence[Node], target: F64, decoded: I32) -> tuple[I8, I8]:
    """Return exponents (b, PROXIES) and coefficients (b, LEVEL_SETS, PROXIES) that suit the fields of a batch.

    Parameters
    ----------
    nodes : batch of one kind
    target : (b, H, W), the fields in units
    decoded : (B, H, W), with the fields that the nodes refer to
    """
    exponents = np.zeros((len(nodes), PROXIES), np.int8)
    coefficients = np.zeros((len(nodes), LEVEL_SETS, PROXIES), np.int8)
    slots = slots_of(nodes[0].kind)
    if not slots:
        return exponents, coefficients
    fields = [field for field in proxy_fields(nodes, decoded, exponents) if field is not None]
    for i, wanted in enumerate(target):
        expected = np.array([PRIOR[slot] for slot in slots])
        for s in range(LEVEL_SETS):
            own, others = details(wanted, s), [details(field[i], s) for field in fields]
            if s == 0:
                exponents[i, list(slots)] = [_exponent(own, other) for other in others]
            powers = 2.0 ** exponents[i, list(slots)].astype(np.float64)
            points = wanted.size * 3 // 4 >> 2 * s
            expected = _least_squares(own, powers[:, None] * others, expected, points)
            coefficients[i, s, list(slots)] = expected
    return exponents, coefficients


def details(x: F64, level: int) -> F64:
    """Return what cubic interpolation along rows and along columns misses on the grid of `level`, (n,)."""
    step = 1 << level
    grid = x[::step, ::step]
    grid = grid[: 2 * SAMPLE] if grid.shape[0] <= 2 * SAMPLE else _some_rows(grid)
    parts = []
    for g in (grid, grid.T):
        if g.shape[0] >= 7:
            parts.append((g[3:-3:2] - (9 * (g[2:-4:2] + g[4:-2:2]) - (g[0:-6:2] + g[6::2])) / 16).ravel())
    return np.concatenate(parts) if parts else np.zeros(0)


def _some_rows(grid: F64) -> F64:
    """Return strips of 16 rows from all over the grid."""
    count = SAMPLE // 8
    starts = np.linspace(0, grid.shape[0] - 16, count).astype(int)
    return np.concatenate([grid[s : s + 16] for s in starts])


def _exponent(own: F64, other: F64) -> int:
    """Return the power of two between the usual sizes of two details, 0 if they are less than two apart."""
    a, b = float(np.abs(own).mean()) if own.size else 0.0, float(np.abs(other).mean()) if other.size else 0.0
    if a < 16 or b < 16:  # quantisation noise
        return 0
    exponent = round(float(np.log2(a / b)))
    return 0 if abs(exponent) < 2 else max(-EXPONENT_MAX, min(EXPONENT_MAX, exponent))


def _least_squares(own: F64, others: F64, expected: NDArray[np.int64], points: int) -> NDArray[np.int64]:
    """Return the coefficients that make own - sum(a * others) small, or the `expected` ones if little is gained.

    own : (n,) a sample of the details; others : (proxies, n); points : how many details there are.
    """
    if own.size < 32:
        return expected
    # Every region counts alike, be it rough or smooth; 20 units are the noise of quantisation.
    weight = 1 / (400 + own**2 + (others**2).sum(0))
    gram = (others * weight) @ others.T
    gram[np.diag_indices(len(others))] += 1e-3 * own.size
    fitted = np.linalg.solve(gram, (others * weight) @ own) * COEFFICIENT_ONE
    fitted = np.clip(np.rint(fitted), -COEFFICIENT_MAX, COEFFICIENT_MAX).astype(np.int64)
    left, before = (_spread(own - a @ others / COEFFICIENT_ONE) for a in (fitted, expected))
    return fitted if points * (before - left) > CHEAP * len(others) else expected


def _spread(residual: F64) -> float:
    """Return about how many bits a residual in units takes per value."""
    return float(np.log2(1 + np.abs(residual) / 20).mean())
