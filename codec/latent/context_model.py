"""What fixes the probabilities of latents: integer networks where there is activity, a table where there is none.

Compiled kernels do all of it, if there are any; without them the networks are products of numpy, in exact integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.predictor import MEAN_REACH, SCALE_REACH
from isopress.codec.entropy.integer_mlp import ACTIVATION_MAX, IntegerNetwork
from isopress.codec.entropy.tables import TAILS
from isopress.codec.latent.context_features import MEAN_OF, Phase
from isopress.codec.native import dispatch
from isopress.codec.native.dispatch import Kept, compiled
from isopress.codec.threads import share

F32 = NDArray[np.float32]

BLOCK = 8192  # points taken at a time by numpy,
PIECE = 1 << 12  # and by a thread, about


@dataclass(frozen=True)
class Prediction:
    """Mean (float32, integers in units), scale index (int16) and tail class (int8) of the points of one phase.

    active : which of the points a network was asked about, ascending
    """

    mean: F32
    scale: NDArray[np.int16]
    tail: NDArray[np.int8]
    active: NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class ContextModel:
    """Networks per band for channels without and with others before them, (BANDS, 2).

    quiet : (BANDS, DEPTHS, 2, Q) int16, scale index and tail class where the activity index is below Q
    """

    networks: tuple[tuple[IntegerNetwork, IntegerNetwork], ...]
    quiet: NDArray[np.int16]

    def predict(self, phase: Phase, depth: int) -> Prediction:
        """Return what is known of the points of a phase, with the biases and the table of this depth."""
        band, plan = phase.band, phase.plan
        network = self.networks[band.number][band.related is not None].folded(plan.rows, plan.known)
        if compiled():
            kept = network.kept(dispatch.level(), depth)
            return _compiled(phase, kept, self.quiet[band.number, depth])
        scales, tails = self.quiet[band.number, depth]
        scale = scales.take(phase.rough, mode="clip")
        tail = tails.astype(np.int8).take(phase.rough, mode="clip")
        mean = np.zeros(phase.rough.size, np.float32)
        active, scratch = np.flatnonzero(phase.rough >= len(scales)), Scratch.of_thread()
        for start in range(0, len(active), BLOCK):
            points = active[start : start + BLOCK]
            out = evaluate(network, phase.features(points, scratch), depth, scratch)
            rough = phase.rough[points]
            mean[points] = np.rint(np.clip(out[0], -MEAN_REACH, MEAN_REACH) * MEAN_OF[rough])
            scale[points] = rough + np.clip(out[1], -SCALE_REACH, SCALE_REACH).astype(np.int16)
            tail[points] = np.clip(out[2], 0, TAILS - 1)
        return Prediction(mean, scale, tail, active)


def _compiled(phase: Phase, network: Kept, quiet: NDArray[np.int16]) -> Prediction:
    """Return what the kernels say: of pieces of a large phase, by as many threads as are free."""
    n, whole = phase.size, phase.contexts(network, quiet, phase.band.place.table)
    mean, scale, tail = np.empty(n, np.float32), np.empty(n, np.int16), np.empty(n, np.int8)
    active = np.empty(n, np.int32)
    if n <= PIECE:
        return Prediction(mean, scale, tail, active[: whole.predict((mean, scale, tail, active))])
    pieces, start = list[tuple[NDArray[np.int32], slice]](), 0
    for strips, size in phase.parts(PIECE):
        pieces.append((strips, slice(start, start + size)))
        start += size

    def predict(piece: tuple[NDArray[np.int32], slice]) -> NDArray[np.int32]:
        strips, at = piece
        count = replace(whole, strips=strips).predict((mean[at], scale[at], tail[at], active[at]))
        return active[at][:count] + np.int32(at.start)

    return Prediction(mean, scale, tail, np.concatenate(share(predict, pieces)))


def evaluate(network: IntegerNetwork, features: F32, depth: int, scratch: Scratch) -> F32:
    """Map integer features (in + 1, M), last row ones, to the integers (out, M) that the network itself would give."""
    x = features
    for i, layer in enumerate(network.layers):
        affine, last = layer.affine[depth], i == len(network.layers) - 1
        shape = len(affine) + (not last), x.shape[1]  # hidden layers have a row of ones, too
        y = np.empty(shape, np.float32) if last else scratch.array(f"hidden {i}", np.float32, *shape)
        out = np.matmul(affine, x, out=y[: len(affine)])  # integers that binary32 holds
        np.rint(out, out=out)
        if not last:
            np.clip(out, 0, ACTIVATION_MAX, out=out)
            y[-1] = 1
        x = y
    return x
