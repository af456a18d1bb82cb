"""Proxies: what the references of a field say about it, as fields of integers on the grid of a level.

P is the mean of the references along the axis, Q half their difference, C their curvature, S how references
across differ from means of their own. A linear combination of them, the guess G, is subtracted from the field
before the pyramid sees it; the proxies themselves become features. SPEC, section 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.predictor import F64, LIMIT, Condition
from isopress.codec.bounded.reference_order import PROXIES, Node, slots_of

COEFFICIENT_ONE = 64  # the integer that stands for a coefficient of one
LEVEL_SETS = 3  # coefficients exist for levels 0, 1 and all coarser ones
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]


@dataclass(frozen=True)
class Proxies:
    """Proxies of a batch of b fields of one kind.

    fields : per slot (4) None or (b, H, W) float64, integers in units.
    coefficients : (b, LEVEL_SETS, PROXIES) int8, of the guess.
    """

    fields: tuple[F64 | None, ...]
    coefficients: I8
    condition: Condition

    def at(self, level: int) -> LevelProxies:
        """Return the proxies on the grid of `level`."""
        step = 1 << level
        fields = {slot: f[:, ::step, ::step] for slot, f in enumerate(self.fields) if f is not None}
        guess = None
        for slot, field in fields.items():
            a = self.coefficients[:, min(level, LEVEL_SETS - 1), slot, None, None] / COEFFICIENT_ONE
            guess = a * field if guess is None else guess + a * field
        assert guess is not None
        return LevelProxies(tuple(fields.values()), np.clip(np.rint(guess), -LIMIT, LIMIT), self.condition)


@dataclass(frozen=True)
class LevelProxies:
    """Proxies that are there, and the guess, (b, h, w) each."""

    fields: tuple[F64, ...]
    guess: F64
    condition: Condition


def proxy_fields(nodes: Sequence[Node], decoded: I32, exponents: NDArray[np.int8]) -> tuple[F64 | None, ...]:
    """Return P, Q, C and S of a batch of nodes of one kind, None for what the kind lacks.

    decoded : (B, H, W) int32, values in units; exponents : (b, PROXIES) int8, powers of two that bring each
    proxy to the scale of its field.
    """
    shape = (len(nodes), *decoded.shape[1:])
    slots = slots_of(nodes[0].kind)
    fields: list[F64 | None] = [None] * PROXIES
    for slot in slots:
        fields[slot] = field = np.empty(shape)
        for row, node, exponent in zip(field, nodes, exponents[:, slot], strict=True):
            _fill(row, node, slot, decoded)
            row *= 2.0 ** int(exponent)
        np.clip(np.rint(field, out=field), -LIMIT, LIMIT, out=field)
    return tuple(fields)


def _fill(out: F64, node: Node, slot: int, decoded: I32) -> None:
    if slot == 0:
        _mean(out, node.along, decoded)
    elif slot == 1:
        _half_difference(out, node.along[0], node.along[1], decoded)
    elif slot == 2:
        _curvature(out, node, decoded)
    else:
        _innovation(out, node, decoded)


def _half_difference(out: F64, first: int, second: int, decoded: I32) -> None:
    np.subtract(decoded[second], decoded[first], out=out, dtype=np.float64)
    out /= 2


def _curvature(out: F64, node: Node, decoded: I32) -> None:
    """The second difference at the references, the mean of two where there are fields beyond both."""
    first, second = node.along
    sides = [(far, near, other) for far, near, other in zip(node.beyond, (first, second), (second, first), strict=True)
             if far is not None]  # fmt: skip
    out[...] = 0
    for far, near, other in sides:
        out += decoded[far]
        out -= 2.0 * decoded[near]
        out += decoded[other]
    out /= len(sides)


def _innovation(out: F64, node: Node, decoded: I32) -> None:
    """How the references across differ from the means of their own references."""
    out[...] = 0
    own = np.empty_like(out)
    for field, mean in node.across:
        _mean(own, mean, decoded)
        out += decoded[field] - own
    out /= len(node.across)


def _mean(out: F64, fields: Sequence[int], decoded: I32) -> None:
    out[...] = decoded[fields[0]]
    for field in fields[1:]:
        out += decoded[field]
    out /= len(fields)
