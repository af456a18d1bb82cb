"""The way of both directions through the levels and phases of fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.native.dispatch import Kept, kernels, level
from isopress.codec.native.entropy import raise_for

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]

KEPT = 1 << 21  # numbers of 64 bits: a walk's room, up to that of a field of 0.25 degree and more, is kept for the next


def geometry(
    counts: tuple[int, int, int],
    first_index: int,
    places: I32,
    look: tuple[I32, I32],
    reals: F64,
    constants: F64,
    by_index: tuple[F32, F32, F64],
) -> Kept:
    """Return the geometry of a phase; kernels.h says what each part means.

    counts : numbers of neighbours whose values, and whose errors near and further off, are looked at.
    places : (sum of counts + 1, 3) int32; look : nearest neighbours (4,), and bends (n, 5), weight and neighbours.
    reals : (6, n) float64; constants : (6,) float64.
    by_index : (320,) float32 twice and float64, multipliers by roughness index.
    """
    return Kept(kernels.geometry(*counts, len(look[1]), first_index, places, *look, reals, constants, *by_index))


@dataclass(frozen=True, eq=False)
class Walk:
    """All that both directions know of the fields of a walk.

    geometries : of D, H and V.
    levels : the finest first: quantiser width in units, by how much scale indexes are less, networks of D, H and V.
    proxies : (B, H, W) int32 each; coefficients : (B, 3, proxies) int8 of the guess; streams : one, or B of them.
    """

    wrap: bool
    snap: bool
    geometries: tuple[Kept, ...]
    levels: tuple[tuple[int, int, tuple[Kept, ...]], ...]
    tables: Kept
    proxies: tuple[I32, ...]
    coefficients: I8 | None
    streams: tuple[Kept, ...]

    def through(
        self,
        v: I32,
        y: F64 | F32 | None = None,
        valid: NDArray[np.bool_] | None = None,
        lattice: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """Decode all points of `v` (B, H, W) but the anchors, which stand there; or code those of `y`, and enter what
        the decoder gets.

        y : (B, H, W) float64 in steps; or float32, of which (y - offset) / step of the `lattice` are the steps.

        Raises
        ------
        TruncatedPayloadError, CorruptPayloadError
            Streams are none that an encoder writes.
        """
        room = kernels.walk_room(v.shape, len(self.proxies), len(self.streams))
        outcome = kernels.walk(
            level(), y is None, v.shape, self.wrap, self.snap, self.geometries, self.levels, self.tables,
            (self.proxies, self.coefficients), self.streams, v,
            None if y is None else np.ascontiguousarray(y),
            (y is not None and y.dtype == np.float32, *lattice),
            None if valid is None else np.ascontiguousarray(valid),
            np.empty(room, np.int64) if room > KEPT else Scratch.of_thread().array("walk", np.int64, room),
        )  # fmt: skip
        raise_for(outcome)
