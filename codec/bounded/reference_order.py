"""Which decoded fields of a block a field may look at, and in which order a block is therefore coded.

Fields lie on a grid of a primary and a secondary axis (time and level, say). Both are visited by bisection:
first, last, then the midpoints of ever smaller intervals. SPEC, "Order of a block".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

PROXIES = 4  # P, Q, C, S
_SLOTS = ((), (0,), (0, 1), (0, 1, 2), (0, 3), (0, 1, 3), (0, 1, 2, 3))  # the proxies of each kind
KINDS = len(_SLOTS)
GAPS = 4  # distance to the references on their axis: 1, 2 to 3, 4 to 7, more


@dataclass(frozen=True)
class Stop:
    """One position of an axis: its references (0 to 2 positions visited before), rank and gap class.

    beyond : the next positions visited before on either side of the two references; None where there is none.
    """

    position: int
    references: tuple[int, ...]
    beyond: tuple[int | None, int | None]
    rank: int
    gap: int


@dataclass(frozen=True)
class Node:
    """One field of a block.

    field : flat index of the field in C order of the leading axes.
    along : 0 to 2 fields decoded before, whose mean stands for this one.
    beyond : the fields before and after those two, None where there is none: they tell how the mean is curved.
    across : 0 to 2 pairs of a field decoded before and the fields whose mean stands for that one: how they
        differ tells how this field differs from its own mean.
    """

    field: int
    along: tuple[int, ...]
    beyond: tuple[int | None, int | None]
    across: tuple[tuple[int, tuple[int, ...]], ...]
    gap: int

    @property
    def kind(self) -> int:
        """Which proxies there are, see `slots_of`."""
        curved = self.beyond != (None, None)
        return len(self.along) + curved + (3 if self.across else 0)

    @property
    def parents(self) -> set[int]:
        """Every field that must be decoded before this one."""
        found = {*self.along, *self.beyond} - {None}
        for field, mean in self.across:
            found |= {field, *mean}
        return found  # type: ignore[return-value]  # None is out


@dataclass(frozen=True)
class Axes:
    """The two leading axes along which fields refer to each other; None for none. Others are independent."""

    primary: int | None = None
    secondary: int | None = None


@lru_cache(64)
def bisection(n: int) -> tuple[Stop, ...]:
    """Return the `n` positions of an axis in the order of visit: 0, n - 1, then odd multiples of falling powers of two.

    An odd multiple p of s refers to p - s and p + s (or n - 1, if that is less); beyond them come p - 3 s and
    p + 3 s (or n - 1).
    """
    last, none = n - 1, (None, None)
    stops = [Stop(0, (), none, 0, 0)] if n else []
    if n > 1:
        stops.append(Stop(last, (0,), none, 1, _gap_class(last)))
    step, rank = 1 << max(0, (last - 1).bit_length() - 1), 2
    while step and n > 2:
        for p in range(step, last, 2 * step):
            before = p - 3 * step if p > step else None
            after = min(p + 3 * step, last) if p + step < last else None
            stops.append(Stop(p, (p - step, min(p + step, last)), (before, after), rank, _gap_class(step)))
        step, rank = step >> 1, rank + 1
    return tuple(stops)


def _gap_class(distance: int) -> int:
    return min(GAPS, distance.bit_length()) - 1


def order(leading: Sequence[int], axes: Axes) -> tuple[tuple[Node, ...], ...]:
    """Return the fields of a block in batches: all of a batch are of one kind and refer to earlier batches only.

    Parameters
    ----------
    leading : lengths of the axes before the field.
    axes : which of them carry references.
    """
    if 0 in leading:
        return ()
    n = len(leading)
    index = np.arange(prod(leading)).reshape(*leading, 1, 1)  # two axes of length 1 stand in for None
    named = [n + i if axis is None else axis for i, axis in enumerate((axes.primary, axes.secondary))]
    grid = np.moveaxis(index, named, [-2, -1])
    grid = grid.reshape(-1, *grid.shape[-2:])  # (independent, primary, secondary)
    batches: dict[tuple[int, int], list[Node]] = {}
    for p in bisection(grid.shape[1]):
        for s in bisection(grid.shape[2]):
            batches.setdefault((p.rank, s.rank), []).extend(_nodes(grid, p, s))
    return tuple(map(tuple, batches.values()))


def _nodes(grid: np.ndarray, p: Stop, s: Stop) -> list[Node]:
    """Return the fields at one place of every (primary, secondary) grid of field indices."""
    nodes = []
    for plane in grid:
        if p.references:
            stop, line = p, plane[:, s.position].tolist()
        else:  # the secondary axis takes the part of the primary one
            stop, line = s, plane[p.position].tolist()
        along = tuple([line[i] for i in stop.references])
        before, after = [None if i is None else line[i] for i in stop.beyond]
        across = []
        for j in s.references if p.references else ():
            across.append((int(plane[p.position, j]), tuple(plane[list(p.references), j].tolist())))
        nodes.append(Node(line[stop.position], along, (before, after), tuple(across), stop.gap))
    return nodes


def slots_of(kind: int) -> tuple[int, ...]:
    """Return which of the proxies P, Q, C, S (0 to 3) fields of a kind have."""
    return _SLOTS[kind]


def chain(batches: Sequence[Sequence[Node]], wanted: set[int]) -> list[list[Node]]:
    """Return, batch by batch, the nodes that must be decoded for the `wanted` fields."""
    needed, result = set(wanted), list[list[Node]]()
    for batch in reversed(batches):
        here = []
        for node in batch:
            if node.field in needed:
                needed |= node.parents
                here.append(node)
        if here:
            result.append(here)
    return result[::-1]
