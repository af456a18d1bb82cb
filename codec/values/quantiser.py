"""Quantiser: data units <-> steps. Holds all a decoder must know to turn pyramid values into data."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError, UnsupportedVersionError
from isopress.codec.native.dispatch import compiled
from isopress.codec.native.values import restore
from isopress.codec.values import log_transform as pointwise
from isopress.codec.values.log_transform import Knee

UNITS = 64  # integer units of one step
PIECE = 1 << 15  # values
LINEAR, LOG, KNEE = 0, 1, 2
PER_FIELD_OFFSET, PER_FIELD_STEP = 4, 8


@dataclass(frozen=True)
class Quantiser:
    """x = T^-1(offset + (v / 64) * step), evaluated in float64 in this order, then rounded to the dtype.

    Parameters
    ----------
    offset, step : ndarray, (1,) or (B,), float64
        One for all fields or one each, in the unit of t = T(x); finite, step > 0.
    transform : {LINEAR, LOG, KNEE}
        T: identity, log2|x|, or linear below and logarithmic above the knee.
    knee : Knee or None
        Present with transform KNEE only.
    """

    offset: np.ndarray
    step: np.ndarray
    transform: int = LINEAR
    knee: Knee | None = None

    def of_field(self, field: int) -> "Quantiser":
        """Return the quantiser of one field alone."""
        offset, step = (x if x.size == 1 else x[field : field + 1] for x in (self.offset, self.step))
        return Quantiser(offset, step, self.transform, self.knee)

    def to_steps(self, t: np.ndarray) -> np.ndarray:
        """Return y = (t - offset) / step for t of shape (B, H, W), float64, in its place."""
        with np.errstate(over="ignore"):
            t -= self.offset[:, None, None]
            t /= self.step[:, None, None]
        return t

    def to_data(self, v: np.ndarray, dtype: np.dtype, *, in_place: bool = False) -> np.ndarray:
        """Return the values, (B, H, W) of `dtype`, that v (integers, in steps / 64) stand for; if they take as many
        bytes as v, and `in_place` says so, where v was."""
        x = v.view(dtype) if in_place and v.itemsize == dtype.itemsize else np.empty(v.shape, dtype)
        rows = max(1, PIECE // max(1, v.shape[2]))  # in the cache, and without a second array of binary64
        steps, offsets = np.broadcast_to(self.step, len(v)).tolist(), np.broadcast_to(self.offset, len(v)).tolist()
        natively = compiled() and self.transform == LINEAR and v.size > 0
        natively &= v.dtype == np.int32 and v.flags.c_contiguous and x.dtype in (np.float32, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # wrong v must surface as wrong values, no warning
            for out, field, step, offset in zip(x, v, steps, offsets, strict=True):
                if natively:
                    restore(field, step, offset, out)
                    continue
                for start in range(0, len(field), rows):
                    t = field[start : start + rows] / UNITS
                    t *= step
                    t += offset
                    out[start : start + rows] = t if self.transform == LINEAR else pointwise.inverse(t, self.knee)
        return x

    def to_bytes(self) -> bytes:
        """Return the parameters section: flags, offsets, steps, then slope and shift of the knee."""
        flags = self.transform
        flags |= PER_FIELD_OFFSET if self.offset.size > 1 else 0
        flags |= PER_FIELD_STEP if self.step.size > 1 else 0
        knee = struct.pack("<2d", self.knee.slope, self.knee.shift) if self.knee else b""
        return bytes([flags]) + self.offset.astype("<f8").tobytes() + self.step.astype("<f8").tobytes() + knee

    @classmethod
    def from_bytes(cls, section: bytes, fields: int) -> "Quantiser":
        """Return the quantiser of a chunk of `fields` fields.

        Raises
        ------
        TruncatedPayloadError
            `section` ends early.
        UnsupportedVersionError
            Flags or a transform this reader does not know.
        CorruptPayloadError
            Bytes left over, an offset that is not finite, or a step that is not finite and positive.
        """
        if not section:
            raise TruncatedPayloadError("the parameters section is empty; at least 17 bytes are needed")
        flags = section[0]
        if flags >> 4 or flags & 3 > KNEE:
            raise UnsupportedVersionError(f"the parameters section has flags {flags:#04x}; known are bits 0 to 3")
        offsets = fields if flags & PER_FIELD_OFFSET else 1
        steps = fields if flags & PER_FIELD_STEP else 1
        knees = 2 if flags & 3 == KNEE else 0
        size = 1 + 8 * (offsets + steps + knees)
        if len(section) < size:
            raise TruncatedPayloadError(f"the parameters section has {len(section)} bytes, {size} are needed")
        if len(section) > size:
            raise CorruptPayloadError(f"the parameters section has {len(section)} bytes, only {size} belong there")
        numbers = np.frombuffer(section[1:], "<f8").astype(np.float64)
        offset, step, knee = np.split(numbers, [offsets, offsets + steps])
        if not (np.isfinite(numbers).all() and (step > 0).all() and (knee[:1] > 0).all()):
            raise CorruptPayloadError("the parameters section holds a number that is not finite, or a step <= 0")
        return cls(offset, step, flags & 3, Knee(*knee.tolist()) if knees else None)


def uniform_quantiser(
    t: np.ndarray, valid: np.ndarray | None, step: float, *, transform: int = LINEAR, knee: Knee | None = None
) -> Quantiser:
    """Return a quantiser of one `step` whose offsets keep |y| small at little cost.

    Offset 0 if that keeps |y| <= 2**20 (zeros then stay zeros), else one middle for the chunk, else one
    middle per field.
    """
    where = np.True_ if valid is None else valid
    low = np.min(t, axis=(1, 2), where=where, initial=np.inf)
    high = np.max(t, axis=(1, 2), where=where, initial=-np.inf)
    low, high = np.where(low <= high, (low, high), 0.0).astype(np.float64)  # 0 of a field without a valid value
    reach = 2.0**20 * step
    if max(-low.min(), high.max()) <= reach:
        offset = np.zeros(1)
    elif high.max() / 2 - low.min() / 2 <= reach:
        offset = np.array([low.min() / 2 + high.max() / 2])
    else:
        offset = low / 2 + high / 2
    return Quantiser(offset, np.array([step]), transform, knee)


# --- steps, computed where they are looked at: an array would be most of the encoder's memory -------------------------


@dataclass(frozen=True, eq=False)
class Steps:
    """(t - offset) / step, binary64, of values `t` (float32 or float64, any shape); of `snap`, the integers next to it.

    An index gives a new array; more than an index or another shape it does not know.
    """

    t: np.ndarray
    offset: float
    step: float
    snap: bool

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape of the values."""
        return self.t.shape

    @property
    def size(self) -> int:
        """Number of values."""
        return self.t.size

    def __len__(self) -> int:
        return len(self.t)

    def reshape(self, *shape: int) -> "Steps":
        """Return the same in another shape."""
        return Steps(self.t.reshape(*shape), self.offset, self.step, self.snap)

    def __getitem__(self, at: Any) -> np.ndarray:
        y = np.array(self.t[at], np.float64)  # a copy, which changes in its place
        with np.errstate(over="ignore"):
            y -= self.offset
            y /= self.step
        return np.rint(y, out=y) if self.snap else y

    def fields(self, at: slice) -> "Steps":
        """Return some of the fields."""
        return Steps(self.t[at], self.offset, self.step, self.snap)

    def reach(self) -> float:
        """Return the largest magnitude, 0 of no values; not finite if a value's is not."""
        if not self.size:
            return 0.0
        ends = Steps(np.array([self.t.min(), self.t.max()]), self.offset, self.step, self.snap)[:]  # it is monotone
        return float(np.abs(ends).max())


Fields = np.ndarray | Steps


def reach(y: Fields) -> float:
    """Return the largest magnitude of fields, 0 of none."""
    return y.reach() if isinstance(y, Steps) else float(max(y.max(initial=0), -y.min(initial=0)))
