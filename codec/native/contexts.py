"""Contexts of latents: what is foreseen of a phase, and the symbols chosen then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native.dispatch import Kept, kernels, level

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I16 = NDArray[np.int16]
I8 = NDArray[np.int8]


def context_plan(slots: int, gathered: I32, pooled: I32, logs: I32, scaled: I32) -> Kept:
    """Return how the features of a phase are made, one per slot; contexts.h says what each part means.

    gathered : (n, 4) int32, slot, map and offset; pooled : (n, 6), slot, count and up to four slots; logs : (n, 2),
    slot and map; scaled : (2, 2), stretches of slots.
    """
    return Kept(kernels.context_plan(slots, len(gathered), len(pooled), len(logs), gathered, pooled, logs, scaled))


@dataclass(frozen=True, eq=False)
class Contexts:
    """All that is known around the latents of one phase.

    maps : (rows, columns) float32 by number, those of parents (3 to 5) of a shape of their own; None where not needed.
    strips, parent_strips : (n, 4) int32, start, stop, count and stride; parity : of the points, latitude first.
    quiet : (2, Q) int16; by_index : multipliers of features and means (192,) float32.
    """

    plan: Kept
    network: Kept
    maps: tuple[F32 | None, ...]
    magnitude: F32
    rest: F32
    parent_shape: tuple[int, int]
    strips: I32
    parent_strips: I32
    parity: tuple[int, int]
    first: bool
    quiet: I16
    by_index: tuple[F32, F32]

    def predict(self, out: tuple[F32, I16, I8, I32]) -> int:
        """Fill in means, scale indexes and tail classes of all points (n,), and ascending those that passed the
        network; return how many did."""
        shape = (*self.rest.shape, *self.parent_shape)
        return kernels.contexts(
            level(), self.plan, self.network, shape, self.maps, self.magnitude, self.rest, self.strips,
            self.parent_strips, len(self.strips), len(self.parent_strips), (*self.parity, self.first), *self.quiet,
            self.quiet.shape[1], *self.by_index, len(out[0]), *out,
        )  # fmt: skip


def choose(
    tables: Kept, y: F32, prediction: tuple[F32, I16, I8, I32], bits: F32, trade: float, last: int
) -> tuple[I32, int]:
    """Return the symbols of coefficients y (n,) in steps, and by how much the scale offset changes from `last` on.

    prediction : means, scale indexes, to which the offset is added, tail classes, and which of the points are active
    bits : (288, reach + 1) float32, of symbols by magnitude; trade : squared steps per bit
    """
    mean, scale, tail, active = prediction
    symbols = np.empty(y.size, np.int32)
    return symbols, kernels.choose(tables, y, mean, scale, tail, active, bits, trade, last, symbols)
