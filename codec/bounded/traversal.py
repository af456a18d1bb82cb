"""The order in which a pyramid visits a field: levels from coarse to fine, and on each level three phases.

Encoder, decoder and training walk alike:

    values, errors = anchors, zeros
    for level in levels(height, width):
        grid = refine(values, errors, ...)                 the coarse points take every other place
        for context in CONTEXTS:
            if grid.has(context):                            some grids have no such points
                found = grid.look(context)                     which points are quiet
                predicted = grid.predict(context, networks)    the others
                ...                                            symbols <-> what is added to the prediction
                grid.put(context, values, added)
        values, errors = grid.values, grid.errors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.geometry import CONTEXTS, PAD, Context
from isopress.codec.bounded.predictor import ALONE, F64, Neighbours, Networks, Parity, Prediction, predict
from isopress.codec.bounded.quiet import Look, look
from isopress.codec.bounded.reference_prediction import Proxies

Shape3 = tuple[int, int, int]
I32 = NDArray[np.int32]
PAD_TOP = 2.0**30 - 1  # magnitude of what stands in padding


def depth(height: int, width: int) -> int:
    """Return the number of levels: halvings until at most 2 x 2 anchors are left."""
    return max(0, (max(height, width) - 1).bit_length() - 1)


@dataclass(frozen=True)
class Grid:
    """Fields (B, h, w) on the grid of one level while its phases are coded.

    values : int32, in units; errors : int32, what coding added to predictions, empty on level 0, where nobody asks;
    guess : what is subtracted from the values before they are predicted, or None; seen : padded planes of the
    points that are known so far.
    """

    level: int
    wraps: bool
    values: I32
    errors: I32
    guess: F64 | None
    seen: Neighbours

    def has(self, context: Context) -> bool:
        """Whether there are points of a phase; if not, later phases see others in their place."""
        shape = self.values[context.plane].shape
        if 0 not in shape:
            return True
        stand_in = _stand_in(context, self.values[:, ::2, ::2].shape, shape, self.seen.values[0, 0])
        self.seen.values[context.parity] = pad(stand_in, self.wraps)
        self.seen.errors[context.parity] = pad(np.zeros_like(stand_in), self.wraps, zero=True)
        return False

    def look(self, context: Context) -> Look:
        """Return what is cheaply known of the points of a phase, of which there are some."""
        found = look(context, self.seen, self.values[context.plane].shape)
        if self.guess is not None:
            np.add(found.value, self.guess[context.plane], out=found.value)
        return found

    def predict(self, context: Context, networks: Networks, wanted: NDArray[np.bool_] | None = None) -> Prediction:
        """Return what is known of the points of a phase, or of those that are `wanted`, before they are coded."""
        network = networks[min(self.level, len(networks) - 1)][context.name]
        if wanted is None:
            wanted = np.ones(self.values[context.plane].shape, bool)
        predicted = predict(network, context, self.seen, wanted, self.level)
        if self.guess is not None:
            np.add(predicted.value, self.guess[context.plane], out=predicted.value)
        return predicted

    def put(self, context: Context, predicted: F64, added: F64) -> None:
        """Enter the decoded values of a phase, what was `added` to the predicted ones included."""
        target = self.values[context.plane]
        np.add(predicted, added, out=target, casting="unsafe")
        if self.level:
            self.errors[context.plane] = added
        if context is not CONTEXTS[-1]:
            own = target if self.guess is None else target - self.guess[context.plane]
            self.seen.values[context.parity] = pad(own, self.wraps)
            self.seen.errors[context.parity] = pad(added, self.wraps, zero=True)


def refine(values: I32, errors: I32, shape: Shape3, level: int, *, wrap: bool, proxies: Proxies | None) -> Grid:
    """Return the grid of `level` of fields of `shape` (B, H, W), of which the next coarser one is known."""
    batch, height, width = shape
    size = batch, -(-height >> level), -(-width >> level)
    wraps = wrap and width % (2 << level) == 0
    fine = np.empty(size, np.int32)
    fine[:, ::2, ::2] = values
    all_errors = np.zeros(size if level else (0, 0, 0), np.int32)
    if level:
        all_errors[:, ::2, ::2] = errors
    guess, planes, condition = None, list[dict[Parity, F64]](), ALONE
    if proxies and min(size[1:]) > 1:  # grids one cell high or wide look at nothing but themselves
        fields, guess = proxies.at(level)
        condition = proxies.condition
        for field in fields:
            planes.append({(y, x): pad(field[:, y::2, x::2], wraps) for y in (0, 1) for x in (0, 1)})
    known = pad(values if guess is None else values - guess[:, ::2, ::2], wraps)
    seen = Neighbours({(0, 0): known}, {(0, 0): pad(errors, wraps, zero=True)}, tuple(planes), condition)
    return Grid(level, wraps, fine, all_errors, guess, seen)


def _stand_in(context: Context, known: tuple[int, ...], empty: tuple[int, ...], k: F64) -> F64:
    """Return values for a plane that has no points (a grid one cell high or wide) but is looked at."""
    _, h, w = known
    inner = k[:, PAD : PAD + h, PAD : PAD + w]
    if context.parity == (1, 1) and empty[1] == 0 and empty[2] > 0:
        right = k[:, PAD : PAD + h, PAD + 1 : PAD + 1 + empty[2]]
        return np.floor((inner[:, :, : empty[2]] + right) / 2)
    if context.parity == (1, 1) and empty[1] > 0:
        below = k[:, PAD + 1 : PAD + 1 + empty[1], PAD : PAD + w]
        return np.floor((inner[:, : empty[1]] + below) / 2)
    return inner[:, :, :1] if context.parity == (0, 1) else inner[:, :1, :1]


def pad(x: NDArray[Any], wraps: bool, *, zero: bool = False) -> NDArray[Any]:
    """Pad (B, h, w) by PAD cells: with periodic columns where the grid `wraps`, else along the line of the two
    outermost cells, as far as PAD_TOP. Where `zero`, with zeros in place of lines, as int32."""
    batch, h, w = x.shape
    shape = batch, h + 2 * PAD, w + 2 * PAD
    out = np.zeros(shape, np.int32) if zero else np.empty(shape)
    out[:, PAD:-PAD, PAD:-PAD] = x
    if wraps:
        out[:, PAD:-PAD] = x[:, :, np.arange(-PAD, w + PAD) % w]
    if zero:
        return out
    for edge, n in ((out[:, PAD:-PAD].transpose(2, 0, 1), w), (out.transpose(1, 0, 2), h))[wraps:]:
        first, last = edge[PAD], edge[PAD + n - 1]
        before = first - edge[PAD + 1] if n > 1 else np.zeros_like(first)
        after = last - edge[PAD + n - 2] if n > 1 else np.zeros_like(last)
        for k in range(1, PAD + 1):
            np.clip(first + k * before, -PAD_TOP, PAD_TOP, out=edge[PAD - k])
            np.clip(last + k * after, -PAD_TOP, PAD_TOP, out=edge[PAD + n - 1 + k])
    return out
