"""Exceptions: the values that miss their bound, restored bit-exactly.

A sparse list where they are few; where many are wrong by an ulp or two (a lattice rounded twice), a small
integer for every value instead.
"""

from dataclasses import dataclass

import numpy as np

from isopress.codec.arrays import contiguous
from isopress.codec.errors import ArgumentError, CorruptPayloadError, TruncatedPayloadError
from isopress.codec.limits import exceeds
from isopress.codec.native.dispatch import compiled
from isopress.codec.native.values import keep
from isopress.codec.values.lossless import decode_lossless, encode_lossless
from isopress.codec.values.packing import pack, shuffle, unpack, unshuffle

LIST, CORRECTIONS = 0, 1


@dataclass(frozen=True)
class Exceptions:
    """Flat C-order positions (int64, strictly ascending) and the values' bits (uint32 or uint64)."""

    positions: np.ndarray
    bits: np.ndarray


def bits_of(x: np.ndarray) -> np.ndarray:
    """Return `x` reinterpreted as unsigned integers of the same width and shape."""
    return contiguous(x).view(f"u{x.dtype.itemsize}")


def find_exceptions(x: np.ndarray, x_hat: np.ndarray, tolerance: float | np.ndarray | None) -> Exceptions:
    """Return every value of `x` that `x_hat` misses by more than `tolerance`, bit-exact, in scan order.

    Parameters
    ----------
    x, x_hat : ndarray, equal shapes, float32 or float64
        Original and decoded values, both in the dtype the reader will get.
    tolerance : float, ndarray of the shape of `x`, or None
        Allowed |x - x_hat|; None allows no bit to differ. NaN, infinities and -0.0 in `x` must always
        come back with all their bits.

    Raises
    ------
    ArgumentError
        Shapes or dtypes differ.
    """
    bits = bits_of(x)
    if x.shape != x_hat.shape or x.dtype != x_hat.dtype:
        raise ArgumentError(f"x is {x.dtype}{x.shape} but x_hat is {x_hat.dtype}{x_hat.shape}; they must agree")
    one = tolerance if isinstance(tolerance, float) and compiled() else None
    if one is not None and keep(contiguous(x), contiguous(x_hat), one):
        return Exceptions(np.zeros(0, np.int64), bits.reshape(-1)[:0])
    wrong = bits != bits_of(x_hat)
    if tolerance is not None:
        with np.errstate(invalid="ignore"):  # signalling NaN
            wrong &= exceeds(x, x_hat, tolerance) | ~np.isfinite(x) | ((x == 0) & np.signbit(x))
    positions = np.flatnonzero(wrong)
    return Exceptions(positions, bits.reshape(-1)[positions])


def apply_exceptions(x_hat: np.ndarray, exceptions: Exceptions) -> None:
    """Overwrite the listed values of C-contiguous `x_hat`, in place."""
    x_hat.reshape(-1).view(exceptions.bits.dtype)[exceptions.positions] = exceptions.bits


def encode_exceptions(exceptions: Exceptions, x_hat: np.ndarray) -> bytes:
    """Return the shorter of two sections: a list, or corrections to the bits of all of `x_hat`."""
    return min(_encode_list(exceptions), _encode_corrections(exceptions, x_hat), key=len)


def decode_exceptions(section: bytes, x_hat: np.ndarray) -> Exceptions:
    """Return the exceptions to the values of `x_hat`.

    Raises
    ------
    TruncatedPayloadError
        `section` ends early.
    CorruptPayloadError
        An unknown form, more exceptions than values, a position outside the array, or damaged content.
    """
    if len(section) < 2:
        raise TruncatedPayloadError(f"the exceptions section has {len(section)} bytes, at least 2 are needed")
    form, content = section[0], section[1:]
    if form == LIST:
        return _decode_list(content, x_hat.dtype, x_hat.size)
    if form == CORRECTIONS:
        return _decode_corrections(content, x_hat)
    raise CorruptPayloadError(f"the exceptions section has form {form}; known are 0 (list) and 1 (corrections)")


def is_list(section: bytes) -> bool:
    """Return whether a section lists its exceptions, so that they can be known before the values are."""
    return section[:1] == bytes([LIST])


def _encode_list(exceptions: Exceptions) -> bytes:
    gaps = np.diff(exceptions.positions, prepend=-1) - 1
    width = max(1, (int(gaps.max(initial=0)).bit_length() + 7) // 8)
    planes = shuffle(gaps.astype("<u8"))[: width * gaps.size]
    return bytes([LIST, width]) + gaps.size.to_bytes(8, "little") + pack(planes + shuffle(exceptions.bits))


def _decode_list(content: bytes, dtype: np.dtype, count: int) -> Exceptions:
    if len(content) < 9:
        raise TruncatedPayloadError(f"a list of exceptions has {len(content)} bytes, at least 9 are needed")
    width, listed = content[0], int.from_bytes(content[1:9], "little")
    if listed > count or not 1 <= width <= 8:
        raise CorruptPayloadError(
            f"the exceptions section lists {listed} values with gaps of {width} bytes; "
            f"allowed are 0 to {count} values and 1 to 8 bytes"
        )
    raw = unpack(content[9:], listed * (width + dtype.itemsize))
    planes = raw[: listed * width] + bytes(listed * (8 - width))
    gaps = unshuffle(planes, np.dtype("u8"), listed)
    if (gaps >= count).any():
        raise CorruptPayloadError(f"the exceptions section names a position beyond the {count} values")
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if listed and (positions.min() < 0 or positions.max() >= count):
        raise CorruptPayloadError(f"the exceptions section names a position beyond the {count} values")
    return Exceptions(positions, unshuffle(raw[listed * width :], np.dtype(f"u{dtype.itemsize}"), listed))


def _encode_corrections(exceptions: Exceptions, x_hat: np.ndarray) -> bytes:
    signed = np.dtype(f"i{x_hat.dtype.itemsize}")
    dense = np.zeros(x_hat.size, signed)
    dense[exceptions.positions] = (exceptions.bits - bits_of(x_hat).reshape(-1)[exceptions.positions]).view(signed)
    most_negative = min(int(dense.min(initial=0)), -1 - int(dense.max(initial=0)))
    narrow = np.min_scalar_type(most_negative)
    narrow = np.promote_types(narrow, np.int16)  # pcodec takes no 8-bit integers
    return bytes([CORRECTIONS, narrow.itemsize]) + encode_lossless(dense.astype(narrow))


def _decode_corrections(content: bytes, x_hat: np.ndarray) -> Exceptions:
    width = content[0]
    if width not in (2, 4, 8) or width > x_hat.dtype.itemsize:
        raise CorruptPayloadError(f"corrections have {width} bytes; allowed are 2, 4 and 8, and no more than a value")
    unsigned = np.dtype(f"u{x_hat.dtype.itemsize}")
    signed = decode_lossless(content[1:], np.dtype(f"i{width}"), x_hat.size)
    positions = np.flatnonzero(signed)
    wide = signed[positions].astype(f"i{unsigned.itemsize}").view(unsigned)
    return Exceptions(positions, bits_of(x_hat).reshape(-1)[positions] + wide)
