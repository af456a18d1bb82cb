"""Encoder: the coefficients of a guess that suit a field, by least squares on a sample of its details.

Only details are looked at, what cubic interpolation misses, since the pyramid predicts the rest. Their weighted
products add up as whole 2**-28, and bits are estimated in whole 2**-20, so that numpy and every kernel choose alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.predictor import F64
from isopress.codec.bounded.reference_order import PROXIES, Node, slots_of
from isopress.codec.bounded.reference_prediction import (
    COEFFICIENT_MAX,
    COEFFICIENT_ONE,
    EXPONENT_MAX,
    I8,
    LEVEL_SETS,
    PRIOR,
)
from isopress.codec.entropy.coder import I32
from isopress.codec.native import references
from isopress.codec.native.dispatch import compiled
from isopress.codec.values.quantiser import UNITS

CHEAP = 10  # bits that one fitted coefficient must save
SAMPLED_ROWS, STRIP = 96, 16  # of a level's grid: all, or strips from all over it
LEAST_DETAILS = 32
NOISE = 20  # units: of quantisation
RIDGE = 1e-3  # per detail
PRODUCT_ONE = 1 << 28
HALF_OCTAVE = 0.7071067811865476  # the number next to it
LOG_BITS, BIT = 10, 20  # mantissa bits that a logarithm is looked up by; 2**-20 bit is the unit of the answer


def fit(nodes: Sequence[Node], y: F64, proxies: dict[int, I32]) -> tuple[I8, I8]:
    """Return exponents (b, PROXIES) and coefficients (b, LEVEL_SETS, PROXIES) that suit the fields of a batch.

    Parameters
    ----------
    nodes : batch of one kind
    y : (b, H, W), the fields in steps
    proxies : (b, H, W) each, in units: those of the nodes with exponents of 0, `plain_proxies`
    """
    exponents = np.zeros((len(nodes), PROXIES), np.int8)
    coefficients = np.zeros((len(nodes), LEVEL_SETS, PROXIES), np.int8)
    slots = list(slots_of(nodes[0].kind))
    if slots and y.size:
        expected, work = np.array(PRIOR, np.int32)[slots], references.fit if compiled() else _fit
        for i, wanted in enumerate(y):
            own = tuple([proxies[slot][i] for slot in slots])
            exponents[i, slots], coefficients[i][:, slots] = work(wanted, own, expected, logarithms())
    return exponents, coefficients


@cache
def logarithms() -> I32:
    """Return log2 of the middles of equal parts of 1 to 2, in 2**-20."""
    middles = 1 + (np.arange(1 << LOG_BITS) + 0.5) / (1 << LOG_BITS)
    found: I32 = np.rint(np.log2(middles) * (1 << BIT)).astype(np.int32)
    return found


def _fit(y: F64, proxies: tuple[I32, ...], expected: I32, logarithms: I32) -> tuple[I8, I8]:
    """Return what `native.references.fit` does."""
    exponents, coefficients = np.zeros(len(proxies), np.int8), np.empty((LEVEL_SETS, len(proxies)), np.int8)
    for level in range(LEVEL_SETS):
        own, others = details(y * UNITS, level), [details(field.astype(np.float64), level) for field in proxies]
        if level == 0:
            exponents[:] = [_exponent(own, other) for other in others]
        others = [np.ldexp(other, e) for other, e in zip(others, exponents.tolist(), strict=True)]
        points = y.size * 3 // 4 >> 2 * level
        expected = _least_squares(own, others, expected, points, logarithms)
        coefficients[level] = expected
    return exponents, coefficients


def details(x: F64, level: int) -> F64:
    """Return what cubic interpolation along rows and along columns misses on the grid of `level`, (n,)."""
    grid = x[:: 1 << level, :: 1 << level]
    if len(grid) > SAMPLED_ROWS:
        strips = SAMPLED_ROWS // STRIP
        starts = np.arange(strips) * (len(grid) - STRIP) // (strips - 1)
        grid = grid[(starts[:, None] + np.arange(STRIP)).ravel()]
    parts = []
    for g in (grid, grid.T):
        if g.shape[0] >= 7:
            parts.append((g[3:-3:2] - (9 * (g[2:-4:2] + g[4:-2:2]) - (g[0:-6:2] + g[6::2])) / 16).ravel())
    return np.concatenate(parts) if parts else np.zeros(0)


def _exponent(own: F64, other: F64) -> int:
    """Return the power of two between the usual sizes of two details, 0 if they are less than two apart, or noise."""
    a, b = (int(np.rint(np.abs(x) * 16).astype(np.int64).sum()) for x in (own, other))
    if not own.size or min(a, b) < 16 * 16 * own.size:
        return 0
    mantissa, exponent = math.frexp(a / b)
    exponent -= mantissa < HALF_OCTAVE
    return 0 if abs(exponent) < 2 else max(-EXPONENT_MAX, min(EXPONENT_MAX, exponent))


def _least_squares(own: F64, others: list[F64], expected: I32, points: int, logarithms: I32) -> I32:
    """Return the coefficients that make own - sum(a * others) small, or the `expected` ones if little is gained.

    own : (n,) a sample of the details; others : likewise, of each proxy; points : how many details there are.
    """
    if own.size < LEAST_DETAILS:
        return expected
    size = own * own + float(NOISE**2)  # every region counts alike, be it rough or smooth
    for other in others:
        size += other * other
    weight = 1 / size
    rows = list[list[float]]()
    for k, other in enumerate(others):
        weighted = other * weight
        row = [rows[j][k] for j in range(k)] + [_product(weighted, x) for x in (*others[k:], own)]
        rows.append(row)
    for k, row in enumerate(rows):
        row[k] += RIDGE * own.size
    wanted = np.rint(np.array(_solve(rows)) * COEFFICIENT_ONE)
    fitted = np.clip(wanted, -COEFFICIENT_MAX, COEFFICIENT_MAX).astype(np.int32)
    saved = _spread(own, others, expected, logarithms) - _spread(own, others, fitted, logarithms)
    cost = float(CHEAP * len(others)) * (1 << BIT) * own.size
    return fitted if float(points) * float(saved) > cost else expected


def _product(a: F64, b: F64) -> float:
    return int(np.rint(a * b * PRODUCT_ONE).astype(np.int64).sum()) / PRODUCT_ONE


def _solve(rows: list[list[float]]) -> list[float]:
    """Solve n equations, whose right side is the last column, by elimination: the matrix is positive definite."""
    n = len(rows)
    for p in range(n):
        for r in range(p + 1, n):
            factor = rows[r][p] / rows[p][p]
            for c in range(p, n + 1):
                rows[r][c] -= factor * rows[p][c]
    x = [0.0] * n
    for r in reversed(range(n)):
        x[r] = rows[r][n]
        for c in range(r + 1, n):
            x[r] -= rows[r][c] * x[c]
        x[r] /= rows[r][r]
    return x


def _spread(own: F64, others: list[F64], coefficients: NDArray[np.int32], logarithms: I32) -> int:
    """Return about how many bits all details take less the guess, in 2**-20 bit."""
    left = own.copy()
    for other, coefficient in zip(others, coefficients.tolist(), strict=True):
        left -= coefficient / COEFFICIENT_ONE * other
    bits = (np.abs(left) + NOISE).view(np.int64)
    mantissa = (bits >> (52 - LOG_BITS)) & ((1 << LOG_BITS) - 1)
    return int((((bits >> 52) - 1023) << BIT).sum() + logarithms[mantissa].sum(dtype=np.int64))
