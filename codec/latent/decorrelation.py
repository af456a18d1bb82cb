"""Fields <-> channels: per leading axis, an orthonormal transform that takes what fields share out of all but one.

For Gaussian latents no linear transform packs more into fewer channels than that of Karhunen and Loeve; it is stored
with the chunk. The cosine transform costs nothing to store and does as well on long even
axes. The encoder estimates which is smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.entropy.distributions import Distribution
from isopress.codec.errors import CorruptPayloadError
from isopress.codec.latent.reduced_grid import levels

F64 = NDArray[np.float64]

IDENTITY, COSINE, STORED = range(3)
MAX_AXIS = 256  # longest axis that is transformed
MAX_STORED = 64  # longest axis whose transform is stored
ONE = 127  # integer that stands for one in a stored transform: coarser ones cost more in channels than they save
SAMPLE = (256, 512)  # values of each field that are looked at to choose
NOISE = 0.15  # squared steps of variance that cost nothing
NEAR = 4  # coefficients in a row that have one variance (measured: estimates are 0.7 to 1.5 times the bytes)
_KIND = Distribution(None, 3)


@dataclass(frozen=True, eq=False)
class Mixing:
    """The transform of one axis: rows (m, n) of `kind`, integers over ONE if they are stored.

    Channels beyond the first m are zero.
    """

    kind: int
    rows: F64

    def write(self, writer: SymbolWriter) -> None:
        """Code kind; unless it is the identity the number of channels; if they are stored the rows."""
        m, n = self.rows.shape
        writer.symbol(self.kind, _KIND)
        if self.kind != IDENTITY:
            writer.symbol(n - m, _left_out(n))
        if self.kind == STORED:
            integers = np.rint(self.rows * ONE).astype(np.int32)
            writer.phase(integers.ravel(), *_tables(m, n))

    @classmethod
    def read(cls, reader: SymbolReader, n: int) -> Mixing:
        """Read the transform of an axis of length n, at most MAX_AXIS.

        Raises
        ------
        CorruptPayloadError, TruncatedPayloadError
            There is none.
        """
        kind = reader.symbol(_KIND)
        if kind == IDENTITY:
            return identity(n)
        m = n - reader.symbol(_left_out(n))
        if kind == COSINE:
            return cls(COSINE, _cosine(n)[:m])
        integers = reader.phase(*_tables(m, n)).reshape(m, n)
        if np.abs(integers).max() > 2 * ONE:
            raise CorruptPayloadError(f"a stored transform has a weight of {np.abs(integers).max() / ONE}")
        return cls(STORED, integers / ONE)

    def forward(self, fields: F64, axis: int) -> F64:
        """Return channels: what `inverse` turns into the fields nearest to these."""
        if self.kind == IDENTITY and len(self.rows) == self.rows.shape[1]:
            return fields
        solve: F64 = np.linalg.pinv(self.rows.T).astype(np.float64) if self.kind == STORED else self.rows
        return _along(solve, fields, axis)

    def inverse(self, channels: F64, axis: int) -> F64:
        """Return fields."""
        return channels if self.kind == IDENTITY else _along(self.rows.T, channels, axis)

    def shortened(self, m: int) -> Mixing:
        """Return the transform of the first m channels alone."""
        return Mixing(self.kind, self.rows[:m])


def identity(n: int) -> Mixing:
    """Return the transform that leaves an axis of length n alone."""
    return Mixing(IDENTITY, np.eye(n))


def choose(fields: F64, step: float) -> tuple[Mixing, ...]:
    """Return the transforms of all leading axes of fields (..., h, w) that promise the fewest bytes at this step."""
    chosen: list[Mixing] = []
    sample = _bands(fields) if any(n > 1 for n in fields.shape[:-2]) else []
    for axis, n in enumerate(fields.shape[:-2]):
        if n == 1:
            chosen.append(identity(1))
            continue
        covariances = [(_covariance(band, axis), band[..., 0].size / n * band.shape[-1]) for band in sample]
        candidates = [identity(n), Mixing(COSINE, _cosine(n))]
        if n <= MAX_STORED:
            candidates.append(Mixing(STORED, np.rint(_karhunen_loeve(covariances, step) * ONE) / ONE))
        part = np.prod(fields.shape[-2:]) / max(1, sum(band[(0,) * (fields.ndim - 2)].size for band in sample))
        channels = [[_along(mixing.rows, band, axis) for band in sample] for mixing in candidates]
        bits = [_stored_bits(m) + float(part) * _estimate(c, step) for m, c in zip(candidates, channels, strict=True)]
        best = int(np.argmin(bits))
        chosen.append(candidates[best])
        sample = channels[best]
    return tuple(chosen)


def channel_order(shape: Sequence[int]) -> list[int]:
    """Return flat indices of channels (leading axes `shape`) in coding order: strongest first, as far as is known."""
    total = np.indices(tuple(shape)).sum(0).ravel() if shape else np.zeros(1, int)
    order: list[int] = np.argsort(total, kind="stable").tolist()
    return order


def _along(matrix: F64, values: F64, axis: int) -> F64:
    along: F64 = np.ascontiguousarray(np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis))
    return along


@cache
def _cosine(n: int) -> F64:
    rows = np.cos(np.pi / n * np.arange(n)[:, None] * (np.arange(n) + 0.5)) * np.sqrt(2 / n)
    rows[0] *= np.sqrt(0.5)
    return np.asarray(rows)


@cache
def _left_out(n: int) -> Distribution:
    """Return how likely it is that 0 to n - 1 of n channels are left out: 0 half of the time, then ever rarer."""
    weights = [1024 >> min(i // 2, 10) for i in range(n)]
    weights[0] += sum(weights)
    return Distribution(np.array(weights, np.float64))


def _tables(m: int, n: int) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """Return scale index and tail class of stored rows: n weights share a sum of squares of one."""
    octaves = np.frexp(float(ONE**2 // n))[1] / 2  # exact on every machine
    return np.full(m * n, int(8 * octaves) + 19, np.int16), np.full(m * n, 2, np.int8)


def _bands(fields: F64) -> list[F64]:
    """Return the detail coefficients (..., points) of every level, of a window in the middle of the fields."""
    h, w = fields.shape[-2:]
    y, x = max(0, (h - SAMPLE[0]) // 2), max(0, (w - SAMPLE[1]) // 2)
    low = fields[..., y : y + SAMPLE[0], x : x + SAMPLE[1]]
    bands = []
    h, w = low.shape[-2:]
    for level in levels(h, w, periodic=False):
        low, details = level.analyse(low)
        flat = list[NDArray[Any]]()
        for band in details:
            flat.append(band.reshape(*band.shape[:-2], -1))
        bands.append(np.concatenate(flat, -1))
    return bands or [low.reshape(*low.shape[:-2], -1)]


def _covariance(band: F64, axis: int) -> F64:
    """Return the mean products (n, n) of coefficients along one leading axis."""
    flat = np.moveaxis(band, axis, 0).reshape(band.shape[axis], -1)
    products: F64 = flat @ flat.T / max(1, flat.shape[1])
    return products


def _karhunen_loeve(covariances: list[tuple[F64, float]], step: float) -> F64:
    """Return the transform that suits all levels: each counts as much as its logarithm can still fall."""
    n = len(covariances[0][0])
    total = np.zeros((n, n))
    for covariance, size in covariances:
        total += covariance * (size / (np.trace(covariance) / n + NOISE * step**2))
    _, vectors = np.linalg.eigh(total)
    rows = vectors[:, ::-1].T
    # The sign that makes the largest weight positive: the same channels whatever library found them.
    signed: F64 = rows * np.sign(rows[np.arange(n), np.abs(rows).argmax(1)])[:, None]
    return signed


def _stored_bits(mixing: Mixing) -> float:
    """Return about how many bits the transform itself takes."""
    return (
        mixing.rows.size * float(2.05 + np.log2(ONE / np.sqrt(mixing.rows.shape[1]))) if mixing.kind == STORED else 0.0
    )


def _estimate(bands: list[F64], step: float) -> float:
    """Return about how many bits channels take whose coefficients (..., points) these are.

    Contexts know how large coefficients are around a place, so every few neighbours have a variance of their own: with
    one for a whole channel, rain would seem to gain by any transform.
    """
    bits = 0.0
    for band in bands:
        near = max(1, min(NEAR, band.shape[-1]))
        energy = np.square(band[..., : band.shape[-1] // near * near] / step)
        variance = energy.reshape(*band.shape[:-1], -1, near).mean(-1)
        bits += 0.5 * near * float(np.log2(1 + variance / NOISE).sum())
    return bits
