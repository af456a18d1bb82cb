"""Which decoded fields of a block a field may look at, and in which order a block is therefore coded.

Fields lie on a grid of a primary and a secondary axis (time and level, say). Both are visited by bisection:
first, last, then the midpoints of ever smaller intervals. SPEC, section 13.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

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
    def parents(self) -> tuple[int, ...]:
        """Every field that must be decoded before this one."""
        across = (f for field, mean in self.across for f in (field, *mean))
        return (*self.along, *(f for f in self.beyond if f is not None), *across)


@dataclass(frozen=True)
class Axes:
    """The two leading axes along which fields refer to each other; None for none. Others are independent."""

    primary: int | None = None
    secondary: int | None = None


@cache
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


def order(leading: Sequence[int], axes: Axes) -> list[list[Node]]:
    """Return the fields of a block in batches: all of a batch are of one kind and refer to earlier batches only.

    Parameters
    ----------
    leading : lengths of the axes before the field.
    axes : which of them carry references.
    """
    if 0 in leading:
        return []
    index: NDArray[np.intp] = np.arange(int(np.prod(leading, dtype=np.int64))).reshape(tuple(leading))
    grid = _as_grid(index, axes)
    batches: dict[tuple[int, int], list[Node]] = {}
    for p in bisection(grid.shape[1]):
        for s in bisection(grid.shape[2]):
            nodes = batches.setdefault((p.rank, s.rank), [])
            nodes += [_node(plane, p, s) for plane in grid]
    return list(batches.values())


def _as_grid(index: NDArray[np.intp], axes: Axes) -> NDArray[np.intp]:
    """Return field indexes as (independent, primary, secondary)."""
    moved = [axis for axis in (axes.primary, axes.secondary) if axis is not None]
    ends = list(range(index.ndim, index.ndim + 2 - len(moved)))  # axes of length 1 stand in for None
    grid = index.reshape(*index.shape, *(1 for _ in ends))
    if axes.primary is None:
        moved, ends = [*ends], []
    grid = np.moveaxis(grid, [*moved, *ends], [-2, -1])
    return grid.reshape(-1, *grid.shape[-2:])


def _node(grid: NDArray[np.intp], p: Stop, s: Stop) -> Node:
    def at(i: int, j: int) -> int:
        return int(grid[i, j])

    field = at(p.position, s.position)
    if not p.references:  # the secondary axis takes the part of the primary one
        along = tuple(at(p.position, j) for j in s.references)
        left, right = (None if j is None else at(p.position, j) for j in s.beyond)
        return Node(field, along, (left, right), (), s.gap)
    along = tuple(at(i, s.position) for i in p.references)
    left, right = (None if i is None else at(i, s.position) for i in p.beyond)
    across = tuple((at(p.position, j), tuple(at(i, j) for i in p.references)) for j in s.references)
    return Node(field, along, (left, right), across, p.gap)


def slots_of(kind: int) -> tuple[int, ...]:
    """Return which of the proxies P, Q, C, S (0 to 3) fields of a kind have."""
    return _SLOTS[kind]


def chain(batches: Sequence[Sequence[Node]], wanted: set[int]) -> Iterator[list[Node]]:
    """Yield, batch by batch, the nodes that must be decoded for the `wanted` fields."""
    needed: set[int] = set(wanted)
    for batch in reversed(batches):
        for node in batch:
            if node.field in needed:
                needed.update(node.parents)
    for batch in batches:
        if nodes := [node for node in batch if node.field in needed]:
            yield nodes
