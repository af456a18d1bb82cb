"""Exact evaluation of the small integer networks that choose entropy models.

Weights and activations are integers held in float32. Every partial sum stays below 2**24, so a GEMM in
float32 gives the same integers whatever the order of its additions: any CPU, BLAS or thread count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from isopress.codec.arrays import Scratch
from isopress.codec.native import dispatch, network
from isopress.codec.native.dispatch import Kept

F32 = NDArray[np.float32]

ACTIVATION_MAX = 127
WEIGHT_MAX = 127
EXACT = 2**24
SHIFT_MAX = 64  # of sums: their powers of two are far from the ends of float32


@dataclass(frozen=True)
class IntegerLayer:
    """One affine layer: weights and bias of every level as one matrix (levels, out, in + 1); the last level stands
    for all coarser ones too.

    Each row of int8 weights and int32 biases is stored times its 2**-shift: a power of two changes no digit,
    so the sums stay exact. The last column meets an input row of ones. `scale` (out,) holds those powers.
    """

    affine: F32
    scale: F32

    def at(self, level: int) -> F32:
        """Return the matrix (out, in + 1) of a level."""
        matrix: F32 = self.affine[min(level, len(self.affine) - 1)]
        return matrix

    @classmethod
    def from_integers(
        cls,
        weight: NDArray[np.int8],
        bias: NDArray[np.int32],
        shift: NDArray[np.int8],
        *,
        input_max: int,
        more: int = 0,
    ) -> IntegerLayer:
        """Build a layer and prove that no partial sum of it can leave the exact range of float32.

        Parameters
        ----------
        weight : (out, in) int8
        bias : (levels, out) int32, in units of 2**-shift
        shift : (out,) int8
        input_max : int
            Largest magnitude of any input.
        more : int
            Largest magnitude of what else is added, in units of 2**-shift.

        Raises
        ------
        ValueError
            Shapes do not fit, a shift is beyond 64, or a sum could exceed 2**24.
        """
        out = weight.shape[:1]
        if weight.ndim != 2 or bias.shape != (len(bias) or 1, *out) or shift.shape != out:
            raise ValueError(f"weights {weight.shape} with biases {bias.shape} and shifts {shift.shape}")
        if np.abs(shift.astype(np.int32)).max(initial=0) > SHIFT_MAX:
            raise ValueError(f"shifts of {shift.min()} to {shift.max()} bits")
        reach = np.abs(weight.astype(np.int64)).sum(1) * input_max + np.abs(bias.astype(np.int64)).max(0) + more
        if reach.max(initial=0) >= EXACT:
            raise ValueError(f"integer layer can reach {reach.max()}, beyond the exact {EXACT} of float32")
        rows = np.broadcast_to(weight, (len(bias), *weight.shape))
        affine = np.concatenate([rows, bias[:, :, None]], axis=2).astype(np.float32)
        scale = np.ldexp(np.float32(1), -shift.astype(np.int32))
        return cls(affine * scale[:, None], scale)


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the first layer adds for fields with references.

    columns : per kind of references, the inputs that fields of that kind have.
    kind, gap : (kinds, out) and (gaps, out), added to the bias of the first layer, scaled as it is.
    """

    columns: tuple[tuple[int, ...], ...]
    kind: F32
    gap: F32


class Network(Protocol):
    """What maps integer features (in + 1, M) to integers (out, M); `folded` is a network of some of the features."""

    def __call__(self, x: F32, level: int, scratch: Scratch, kind: int = 0, gap: int = 0) -> F32: ...

    def folded(self, rows: tuple[int, ...], known: tuple[tuple[int, int], ...]) -> Network: ...


@dataclass(frozen=True, eq=False)  # compared by identity: `first` is cached
class IntegerNetwork:
    """ReLU network of integer layers; hidden activations are clipped to 0..127.

    Without `conditioning` it knows nothing of references.
    """

    layers: tuple[IntegerLayer, ...]
    conditioning: Conditioning | None = None

    def __call__(self, x: F32, level: int, scratch: Scratch, kind: int = 0, gap: int = 0) -> F32:
        """Map integer features (in + 1, M), last row ones, to integer outputs (out, M) with the biases of `level`.

        `x` has the features of the proxies that fields of `kind` have, and no others. Sums are rounded to
        integers, ties to even.
        """
        affine = self.first(level, kind, gap)
        for i, layer in enumerate(self.layers[1:]):
            h = scratch.array(f"hidden {i}", np.float32, len(affine) + 1, x.shape[1])
            h[-1] = 1
            y = np.matmul(affine, x, out=h[:-1])
            np.rint(y, out=y)
            np.clip(y, 0, ACTIVATION_MAX, out=y)
            x, affine = h, layer.at(level)
        out: F32 = affine @ x
        return np.rint(out, out=out)

    @cache  # noqa: B019 - networks live as long as the process
    def first(self, level: int, kind: int, gap: int) -> F32:
        """Return the matrix of the first layer for fields of this kind and gap class.

        Raises
        ------
        ValueError
            The network knows nothing of references.
        """
        return self._first(level, kind, gap)

    def _first(self, level: int, kind: int, gap: int) -> F32:
        """Return what `first` does and keeps, megabytes in all."""
        affine = self.layers[0].at(level)
        c = self.conditioning
        if c is None:
            if kind:
                raise ValueError("these weights take no references")
            return affine
        result: F32 = affine[:, [*c.columns[kind], -1]]
        result[:, -1] += c.kind[kind] + c.gap[gap]
        return result

    def kept_at(self, level: int, kind: int = 0, gap: int = 0) -> Kept:
        """Return the network of `level` as the compiled kernels in use take it."""
        distinct = max(len(layer.affine) for layer in self.layers)
        return self.kept(dispatch.level(), min(level, distinct - 1), kind, gap)

    @cache  # noqa: B019
    def kept(self, name: str, level: int, kind: int = 0, gap: int = 0) -> Kept:
        """Return the network of `level` as the compiled kernels called `name` take it."""
        affine = [self._first(level, kind, gap), *(layer.at(level) for layer in self.layers[1:])]
        layers = [network.layer_of(a, layer.scale) for a, layer in zip(affine, self.layers, strict=True)]
        return network.of_layers(tuple(layers), name)

    @cache  # noqa: B019
    def folded(self, rows: tuple[int, ...], known: tuple[tuple[int, int], ...]) -> IntegerNetwork:
        """Return the network of the inputs `rows` alone, where of the others those in `known`, as (row, value), have
        that value, within the limits of all inputs, and the rest are zero. It gives the same integers.

        Raises
        ------
        ValueError
            The inputs depend on references.
        """
        if self.conditioning is not None:
            raise ValueError("inputs that depend on references cannot be folded")
        affine = self.layers[0].affine
        bias = affine[..., -1:] + sum(np.float32(value) * affine[..., row : row + 1] for row, value in known)
        first = IntegerLayer(np.concatenate([affine[..., list(rows)], bias], -1), self.layers[0].scale)
        return IntegerNetwork((first, *self.layers[1:]))
