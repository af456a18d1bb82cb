"""The latent base under the refinement pyramid: steps = what latents say + what the pyramid adds, bound guaranteed.

The base is float and may come out a little different on another machine. That drift is allowed for: the pyramid codes
the rest in steps smaller by a margin, which the payload records.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded import fields_alone
from isopress.codec.bounded.fields_alone import looks_periodic
from isopress.codec.bounded.pyramid import PyramidModel
from isopress.codec.encoded import Section
from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.latent.section import Latent, code_fields, decode_fields
from isopress.codec.latent.weights import LatentModel
from isopress.codec.values.quantiser import UNITS

F64 = NDArray[np.float64]

BASE_STEP = 1.5  # steps of the pyramid in one of the base (measured: 1 to 2 are near the best)
DRIFT = 2.0**-16  # largest relative difference of the base between machines: ten times what is seen in binary32
LEAST_MARGIN, MOST_MARGIN = 2.0**-10, 0.125
_MARGIN = struct.Struct("<d")


def encode(
    y: F64,
    valid: NDArray[np.bool_] | None,
    leading: tuple[int, ...],
    zero: F64,
    base: LatentModel,
    refinement: PyramidModel,
) -> tuple[dict[Section, bytes], F64] | None:
    """Code fields y (B, H, W) in steps; return sections and v in 1/64 steps, or None if the margin would be too large.

    zero : (1,) or (B,), what 0 steps are in data units, in steps: drift is relative to the values themselves.
    """
    middle = float(y.min() + y.max()) / 2
    latent = Latent(BASE_STEP, middle, looks_periodic(y, valid))
    coded = code_fields(y.reshape(*leading, *y.shape[1:]), latent, base)
    y0 = coded.fields().reshape(y.shape)
    rest = encode_rest(y, y0, valid, zero, refinement, periodic=latent.periodic)
    return None if rest is None else ({Section.LATENT: coded.section, **rest[0]}, rest[1])


def encode_rest(
    y: F64, y0: F64, valid: NDArray[np.bool_] | None, zero: F64, refinement: PyramidModel, *, periodic: bool
) -> tuple[dict[Section, bytes], F64] | None:
    """Code what a base y0 leaves of y (B, H, W), in steps; arguments and result as of `encode`."""
    margin = max(LEAST_MARGIN, 4 * DRIFT * float(np.abs(y0 + zero[:, None, None]).max()))
    if margin > MOST_MARGIN:
        return None
    rest = (y - y0) * (1 + margin)
    refined, v = fields_alone.encode(rest, valid, model=refinement, periodic=periodic, taper=0)
    return {Section.PYRAMID: refined, Section.MARGIN: _MARGIN.pack(margin)}, _joined(y0, v, margin)


def decode(
    sections: dict[Section, bytes],
    shape: tuple[int, int, int],
    leading: tuple[int, ...],
    base: LatentModel,
    refinement: PyramidModel,
) -> F64:
    """Return v (B, H, W) in 1/64 steps.

    Raises
    ------
    CorruptPayloadError, TruncatedPayloadError
        A section is damaged.
    """
    y0 = decode_fields(sections[Section.LATENT], (*leading, *shape[1:]), base).reshape(shape)
    return decode_rest(sections, y0, refinement)


def decode_rest(sections: dict[Section, bytes], y0: F64, refinement: PyramidModel) -> F64:
    """Return v (B, H, W) in 1/64 steps: a base, and what was coded of the rest. Raises as `decode` does."""
    height, width = y0.shape[1:]
    rest = Rest.of(sections, (len(y0), height, width), refinement)
    return rest.on(y0, slice(None))


@dataclass(frozen=True)
class Rest:
    """What was coded of the rest (B, H, W), in 1/64 steps: integers that need no base to be read."""

    v: NDArray[np.int32]
    margin: float

    @classmethod
    def of(cls, sections: dict[Section, bytes], shape: tuple[int, int, int], refinement: PyramidModel) -> Rest:
        """Return what the sections hold. Raises as `decode` does."""
        stored = sections[Section.MARGIN]
        if len(stored) < _MARGIN.size:
            raise TruncatedPayloadError(f"the margin section has {len(stored)} bytes, {_MARGIN.size} are needed")
        (margin,) = _MARGIN.unpack_from(stored)
        if len(stored) > _MARGIN.size or not 0 <= margin <= MOST_MARGIN:
            raise CorruptPayloadError(f"the margin section holds {margin} in {len(stored)} bytes")
        return cls(fields_alone.decode(sections[Section.PYRAMID], shape, model=refinement), margin)

    def on(self, y0: F64, fields: slice) -> F64:
        """Return v of some fields on their base, in 1/64 steps."""
        return _joined(y0, self.v[fields], self.margin)


def _joined(y0: F64, v: NDArray[np.int32], margin: float) -> F64:
    return y0 * UNITS + v / (1 + margin)
