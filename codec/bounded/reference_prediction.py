"""What the references of a field say about it, as fields of integers on the grid of a level.

P is the mean of the references along the axis, Q half their difference, C their curvature, S how references
across differ from means of their own: the proxies. A linear combination of them, the guess, is subtracted from the
field before the pyramid sees it; the proxies themselves become features. The encoder fits the coefficients of the
guess and writes them into the field's stream, a few bits each. SPEC, "Proxies".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.predictor import F64, LIMIT, Condition
from isopress.codec.bounded.reference_order import PROXIES, Node, slots_of
from isopress.codec.entropy.coder import I32, Distribution, SymbolReader, SymbolWriter

COEFFICIENT_ONE = 64  # the integer that stands for a coefficient of one
LEVEL_SETS = 3  # coefficients exist for levels 0, 1 and all coarser ones
EXPONENT_MAX = 30
COEFFICIENT_MAX = 127
PRIOR = (COEFFICIENT_ONE, 0, 0, COEFFICIENT_ONE)  # of P, Q, C and S at the finest level; coarser ones expect the finer
CHEAP = 10  # bits that one fitted coefficient must save
SAMPLE = 48  # half the rows of a level's grid that are looked at
I8 = NDArray[np.int8]


@dataclass(frozen=True)
class Proxies:
    """Proxies of a batch of b fields of one kind.

    fields : per slot that the kind has, (b, H, W) int32 in units.
    coefficients : (b, LEVEL_SETS, PROXIES) int8, of the guess.
    """

    fields: dict[int, I32]
    coefficients: I8
    condition: Condition

    def at(self, level: int) -> tuple[list[I32], F64]:
        """Return the proxies and the guess on the grid of `level`, (b, h, w) each."""
        step = 1 << level
        fields, guess = [], None
        for slot, whole in self.fields.items():
            field = whole[:, ::step, ::step]
            part = self.coefficients[:, min(level, LEVEL_SETS - 1), slot, None, None] / COEFFICIENT_ONE * field
            guess = part if guess is None else guess + part
            fields.append(field)
        assert guess is not None
        return fields, np.clip(np.rint(guess), -LIMIT, LIMIT)


def proxies_of(nodes: Sequence[Node], decoded: I32, exponents: I8, coefficients: I8) -> Proxies | None:
    """Return P, Q, C and S of a batch of nodes of one kind, as far as it has them; None for fields without references.

    decoded : (B, H, W) int32, values in units; exponents : (b, PROXIES), powers of two that bring each proxy to the
    scale of its field; coefficients : (b, LEVEL_SETS, PROXIES).
    """
    if not nodes[0].kind:
        return None
    fields = {}
    for slot in slots_of(nodes[0].kind):
        fields[slot] = field = np.empty((len(nodes), *decoded.shape[1:]), np.int32)
        for row, node, exponent in zip(field, nodes, exponents[:, slot].tolist(), strict=True):
            proxy = _proxy(node, slot, decoded) * 2.0**exponent
            np.clip(np.rint(proxy, out=proxy), -LIMIT, LIMIT, out=row, casting="unsafe")
    return Proxies(fields, coefficients, Condition(nodes[0].kind, nodes[0].gap))


def _proxy(node: Node, slot: int, decoded: I32) -> F64:
    """Return one proxy of one field, exactly: sums of integers, divided by one, two or four."""
    if slot == 0:
        return _mean(node.along, decoded)
    if slot == 1:
        difference: F64 = decoded[node.along[1]] - decoded[node.along[0]].astype(np.float64)
        return difference / 2
    total = np.zeros(decoded.shape[1:])
    if slot == 2:  # the second difference at the references, the mean of two where there are fields beyond both
        first, second = node.along
        count = 0
        for far, near, other in ((node.beyond[0], first, second), (node.beyond[1], second, first)):
            if far is not None:
                total += decoded[far] - 2.0 * decoded[near] + decoded[other]
                count += 1
        return total / count
    for field, mean in node.across:  # how the references across differ from the means of their own references
        total += decoded[field] - _mean(mean, decoded)
    return total / len(node.across)


def _mean(fields: Sequence[int], decoded: I32) -> F64:
    total: F64 = decoded[fields[0]].astype(np.float64)
    for field in fields[1:]:
        total += decoded[field]
    return total / len(fields)


@cache
def models() -> tuple[Distribution, Distribution]:
    """Return the distributions of an exponent (-30..30) and of a coefficient less what is expected (-254..254)."""
    exponent = [4096 >> min(abs(e), 12) for e in range(-EXPONENT_MAX, EXPONENT_MAX + 1)]
    difference = [1 + (1 << 20) // (16 + d * d) for d in range(-2 * COEFFICIENT_MAX, 2 * COEFFICIENT_MAX + 1)]
    difference[2 * COEFFICIENT_MAX] = 1 << 20  # as expected: about a bit
    return Distribution(np.array(exponent, np.float64)), Distribution(np.array(difference, np.float64))


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
    proxies = proxies_of(nodes, decoded, exponents, coefficients)
    if proxies is None:
        return exponents, coefficients
    slots = list(proxies.fields)
    for i, wanted in enumerate(target):
        expected = np.array(PRIOR)[slots]
        for s in range(LEVEL_SETS):
            own = details(wanted, s)
            others = np.stack([details(field[i], s) for field in proxies.fields.values()])
            if s == 0:
                exponents[i, slots] = [_exponent(own, other) for other in others]
            others *= 2.0 ** exponents[i, slots].astype(np.float64)[:, None]
            points = wanted.size * 3 // 4 >> 2 * s
            expected = _least_squares(own, others, expected, points)
            coefficients[i, s, slots] = expected
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
