"""Geometry of the refinement pyramid: which decoded neighbours each phase sees, and fixed integer algebra on them.

A level halves the spacing of a grid. Its fine grid falls into four planes by the parity (y, x) of the
point: K (0, 0) is already decoded, then come the phases D (1, 1), H (0, 1) and V (1, 0), each of which
sees all planes before it. Everything here is integer and fixed for the format (SPEC, Pyramid section).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import lcm

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native import walk
from isopress.codec.native.dispatch import Kept

PAD = 3  # cells of padding around every plane; the widest offset is 5 fine cells

Offset = tuple[int, int]
F64 = NDArray[np.float64]


def _ring(*pairs: Offset) -> tuple[Offset, ...]:
    """All sign combinations of each (|dy|, |dx|), nearest first as given."""
    out: list[Offset] = []
    for y, x in pairs:
        out += [(sy * y, sx * x) for sy in ((-1, 1) if y else (1,)) for sx in ((-1, 1) if x else (1,))]
    return tuple(out)


@dataclass(frozen=True, eq=False)  # compared by identity: there are three
class Context:
    """What one phase sees; `offsets` are (dy, dx) in fine cells from the point to be coded.

    `near` and `wide` are the offsets whose coding errors are looked at, nearest first.
    """

    name: str
    parity: tuple[int, int]
    offsets: tuple[Offset, ...]
    near: tuple[Offset, ...]
    wide: tuple[Offset, ...]
    cubic: dict[Offset, int]  # numerators of the base prediction
    cubic_divisor: int

    n_features: int = field(init=False)  # inputs of its network that every field has
    plane: tuple[slice, slice, slice] = field(init=False)  # where its points lie among those (B, h, w) of a grid

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_features", len(self.offsets) + len(self.near) + 4)
        y, x = self.parity
        object.__setattr__(self, "plane", (slice(None), slice(y, None, 2), slice(x, None, 2)))


_SEPARABLE = {
    (y, x): cy * cx for y, cy in ((-3, -1), (-1, 9), (1, 9), (3, -1)) for x, cx in ((-3, -1), (-1, 9), (1, 9), (3, -1))
}
_CROSS = {(s * d, 0): c for s in (-1, 1) for d, c in ((1, 9), (3, -1))} | {
    (0, s * d): c for s in (-1, 1) for d, c in ((1, 9), (3, -1))
}

CONTEXTS = (
    Context("D", (1, 1), _ring((1, 1), (1, 3), (3, 1), (3, 3), (1, 5), (5, 1)), _ring((1, 1)),
            _ring((1, 3), (3, 1)), _SEPARABLE, 256),
    Context("H", (0, 1), _ring((0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 0), (2, 3), (3, 2)), _ring((0, 1), (1, 0)),
            _ring((1, 2), (2, 1)), _CROSS, 32),
    Context("V", (1, 0), _ring((0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (0, 3), (3, 0), (1, 3), (3, 1)),
            _ring((0, 1), (1, 0), (1, 1)), _ring((1, 2), (2, 1)), _CROSS, 32),
)  # fmt: skip


@dataclass(frozen=True)
class Algebra:
    """Integer matrices of one context, held as float64 (all products and sums stay exact).

    matrix : (n + 3, n): `denominator` times the residuals from the weighted plane fit, then `denominator`
        times the plane's two slopes, then the numerators of the cubic prediction.
    weights : (n,): weights of the fit and of the roughness.
    proxy : (n + 1, n + 1): of a proxy, whose value at the point is the last column: `denominator` times its
        residuals from the weighted plane fit, then `cubic_divisor` times its detail, what the cubic prediction misses.
    """

    matrix: F64
    weights: F64
    proxy: F64
    denominator: int


@cache
def algebra(context: Context) -> Algebra:
    """Return the exact integer algebra of `context`: plane-free residuals, slopes and cubic prediction."""
    o = context.offsets
    w = [max(1, round(24 / (1 + y * y + x * x))) for y, x in o]
    total = sum(w)
    yy = sum(wi * y * y for wi, (y, _) in zip(w, o, strict=True))
    xx = sum(wi * x * x for wi, (_, x) in zip(w, o, strict=True))
    den = lcm(total, yy, xx)
    # The offsets are symmetric, so mean and slopes of the weighted fit decouple.
    fit = [[Fraction(wk, total) + Fraction(wk * yi * yk, yy) + Fraction(wk * xi * xk, xx)
            for wk, (yk, xk) in zip(w, o, strict=True)] for yi, xi in o]  # fmt: skip
    rows = [[int(den * ((i == k) - fit[i][k])) for k in range(len(o))] for i in range(len(o))]
    rows.append([den * wk * yk // yy for wk, (yk, _) in zip(w, o, strict=True)])
    rows.append([den * wk * xk // xx for wk, (_, xk) in zip(w, o, strict=True)])
    rows.append([context.cubic.get(k, 0) for k in o])
    proxy = [[*row, 0] for row in rows[: len(o)]] + [[*(-c for c in rows[-1]), context.cubic_divisor]]
    return Algebra(np.array(rows, np.float64), np.array(w, np.float64), np.array(proxy, np.float64), den)


# --- logarithmic indexes: eight per octave, read from the bits of a binary32 number -------------------------

BINS = 8
_EXPONENT_SHIFT = 20  # keeps the exponent and the first three bits of the mantissa


def log_index(x: F64 | NDArray[np.float32]) -> NDArray[np.int32]:
    """Return 8 * exponent + leading mantissa bits of `x` >= 1 rounded to binary32: about 8 * log2(x)."""
    return x.astype(np.float32).view(np.int32) >> _EXPONENT_SHIFT


def bin_centre(index: NDArray[np.int32]) -> F64:
    """Return the centre of each logarithmic bin, exactly."""
    exponent, mantissa = np.divmod(index.astype(np.int64), BINS)
    centre: F64 = np.ldexp(1.0 + (mantissa + 0.5) / BINS, exponent - 127)
    return centre


ROUGHNESS_FLOOR = 10  # units (of 1/64 step): quantisation noise of the neighbours themselves
INDEXES = 8 * 40  # roughness indexes: forty octaves above the floor
FEATURE_ONE = 32  # the integer that stands for one roughness
FEATURE_MAX = 127
MEAN_ONE = 64  # network output that moves the mean by one roughness


@dataclass(frozen=True)
class ScaleTables:
    """Per roughness index: multipliers that turn residuals and errors into features, and back into units.

    residual : FEATURE_ONE / roughness for residuals scaled by the denominator; error : the same for plain units;
    mean : roughness / MEAN_ONE in units; roughness : roughness in units.
    """

    floor: float
    first_index: int
    residual: NDArray[np.float32]
    error: NDArray[np.float32]
    mean: F64
    roughness: F64


@cache
def scale_tables(context: Context) -> ScaleTables:
    """Return the multiplier tables of `context`; binary64 arithmetic only, correctly rounded everywhere."""
    a = algebra(context)
    unit = a.denominator * float(a.weights.sum())  # S of a residual field of one unit
    floor = ROUGHNESS_FLOOR * unit
    first = int(log_index(np.array([floor]))[0])
    centre = bin_centre(np.arange(first, first + INDEXES, dtype=np.int32))
    roughness = centre / unit
    return ScaleTables(
        floor,
        first,
        (FEATURE_ONE * float(a.weights.sum()) / centre).astype(np.float32),
        (FEATURE_ONE / roughness).astype(np.float32),
        roughness / MEAN_ONE,
        roughness,
    )


@dataclass(frozen=True)
class Bend:
    """x_a + x_b - x_c - x_d, for which activity counts `weight` times the magnitude."""

    weight: int
    offsets: tuple[Offset, Offset, Offset, Offset]


@dataclass(frozen=True)
class Shape:
    """What activity and interpolation of a phase are made of: the four nearest offsets, how much pairs of them differ,
    and how much lines through them bend."""

    nearest: tuple[Offset, Offset, Offset, Offset]
    twist: Bend
    bends: tuple[Bend, ...]


@cache
def shape_of(context: Context) -> Shape:
    """Return the shape of a phase."""
    if context.parity == (1, 1):
        a, b, c, d = (-1, -1), (-1, 1), (1, -1), (1, 1)
        lines = [(p, q, (2 * p[0] - q[0], 2 * p[1] - q[1]), (2 * q[0] - p[0], 2 * q[1] - p[1]))
                 for p, q in ((a, b), (c, d), (a, c), (b, d))]  # fmt: skip
        return Shape((a, b, c, d), Bend(2, (a, d, b, c)), tuple(Bend(1, line) for line in lines))
    left, right, up, down = (0, -1), (0, 1), (-1, 0), (1, 0)
    bends = Bend(2, (left, right, (0, -3), (0, 3))), Bend(2, (up, down, (-3, 0), (3, 0)))
    return Shape((left, right, up, down), Bend(2, (left, right, up, down)), bends)


@cache
def kernel_geometry(context: Context) -> Kept:
    """Return what the compiled kernels must know of a context; planes are numbered 2 * y + x by their parity."""
    a, t = algebra(context), scale_tables(context)
    n, w = len(context.offsets), a.weights
    y, x = np.array(context.offsets, np.float64).T
    seen = (*context.offsets, *context.near, *context.wide, (0, 0))
    # The plane fit by its three sums: `denominator` times mean and slopes are whole multiples of them.
    factors = [a.denominator / total for total in (w.sum(), (w * y * y).sum(), (w * x * x).sum())]
    shape, number = shape_of(context), {o: i for i, o in enumerate(context.offsets)}
    bends = [[bend.weight, *(number[o] for o in bend.offsets)] for bend in (shape.twist, *shape.bends)]
    return walk.geometry(
        (n, len(context.near), len(context.wide)),
        t.first_index,
        np.array([_place(context, o) for o in seen], np.int32),
        (np.array([number[o] for o in shape.nearest], np.int32), np.array(bends, np.int32)),
        np.stack([w, w * y, w * x, y, x, a.matrix[n + 2]]),
        np.array([*factors, a.denominator, context.cubic_divisor, t.floor], np.float64),
        (t.residual, t.error, t.mean),
    )


def _place(context: Context, offset: Offset) -> tuple[int, int, int]:
    """Return the plane of a neighbour, and its row and column there, padded, seen from a phase's first point."""
    (ty, tx), (dy, dx) = context.parity, offset
    py, px = (ty + dy) % 2, (tx + dx) % 2
    return 2 * py + px, (ty + dy - py) // 2 + PAD, (tx + dx - px) // 2 + PAD
