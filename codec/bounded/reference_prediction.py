"""What the references of a field say about it, as fields of integers on the grid of a level.

P is the mean of the references along the axis, Q half their difference, C their curvature, S how references
across differ from means of their own: the proxies. A linear combination of them, the guess, is subtracted from the
field before the pyramid sees it; the proxies themselves become features. The encoder fits the coefficients of the
guess (reference_fit.py) and writes them into the field's stream, a few bits each. SPEC, "Proxies".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.predictor import F64, LIMIT, Condition
from isopress.codec.bounded.reference_order import PROXIES, Node, slots_of
from isopress.codec.entropy.coder import I32, SymbolReader, SymbolWriter
from isopress.codec.entropy.distributions import Distribution
from isopress.codec.native import references
from isopress.codec.native.dispatch import compiled

COEFFICIENT_ONE = 64  # the integer that stands for a coefficient of one
LEVEL_SETS = 3  # coefficients exist for levels 0, 1 and all coarser ones
EXPONENT_MAX = 30
COEFFICIENT_MAX = 127
PRIOR = (COEFFICIENT_ONE, 0, 0, COEFFICIENT_ONE)  # of P, Q, C and S at the finest level; coarser ones expect the finer
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


def proxies_of(
    nodes: Sequence[Node], decoded: I32, exponents: I8, coefficients: I8, plain: dict[int, I32] | None = None
) -> Proxies | None:
    """Return P, Q, C and S of a batch of nodes of one kind, as far as it has them; None for fields without references.

    decoded : (B, H, W) int32, values in units; exponents : (b, PROXIES), powers of two that bring each proxy to the
    scale of its field; coefficients : (b, LEVEL_SETS, PROXIES).
    plain : what `plain_proxies` returned for the batch, if that was called; its arrays become the result's.
    """
    if not nodes[0].kind:
        return None
    fields = dict[int, I32]()
    for slot in slots_of(nodes[0].kind):
        field = np.empty((len(nodes), *decoded.shape[1:]), np.int32) if plain is None else plain[slot]
        fields[slot] = field
        for row, node, exponent in zip(field, nodes, exponents[:, slot].tolist(), strict=True):
            if plain is None or exponent:
                proxy(node, slot, decoded, exponent, row)
    return Proxies(fields, coefficients, Condition(nodes[0].kind, nodes[0].gap))


def plain_proxies(nodes: Sequence[Node], decoded: I32) -> dict[int, I32]:
    """Return the proxies (b, H, W) of a batch of nodes of one kind by slot, with exponents of 0."""
    nothing = np.zeros((len(nodes), PROXIES), np.int8)
    found = proxies_of(nodes, decoded, nothing, nothing[:, None])
    return {} if found is None else found.fields


def proxy(node: Node, slot: int, decoded: I32, exponent: int = 0, out: I32 | None = None) -> I32:
    """Return one proxy (H, W) of one field in units, times 2**exponent, in `out` if given."""
    out = np.empty(decoded.shape[1:], np.int32) if out is None else out
    weights = _weights(node, slot)
    if compiled() and out.size:
        references.combine(decoded, weights, exponent, out)
        return out
    total = np.zeros(out.shape)  # of integers: exact
    for field, weight in weights.items():
        total += weight * decoded[field].astype(np.float64)
    total *= 2.0 ** (exponent - 2)
    np.clip(np.rint(total, out=total), -LIMIT, LIMIT, out=out, casting="unsafe")
    return out


def _weights(node: Node, slot: int) -> dict[int, int]:
    """Return how many quarters of which decoded fields are a proxy."""
    found: dict[int, int] = {}
    if slot == 0:
        _add(found, 4, node.along)
    elif slot == 1:
        found = {node.along[0]: -2, node.along[1]: 2}
    elif slot == 2:  # the second difference at the references, the mean of two where there are fields beyond both
        first, second = node.along
        ends = [(far, *near) for far, near in zip(node.beyond, ((first, second), (second, first)), strict=True)
                if far is not None]  # fmt: skip
        for far, near, other in ends:
            for field, weight in ((far, 1), (near, -2), (other, 1)):
                _add(found, weight * 4 // len(ends), (field,))
    else:  # how the references across differ from the means of their own references
        for field, mean in node.across:
            _add(found, 4 // len(node.across), (field,))
            _add(found, -4 // len(node.across), mean)
    return found


def _add(weights: dict[int, int], quarters: int, fields: Sequence[int]) -> None:
    """Let the mean of some fields count for so many quarters more."""
    for field in fields:
        weights[field] = weights.get(field, 0) + quarters // len(fields)


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
