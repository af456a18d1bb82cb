"""Final values of a chunk, and the small sections they take: a constant, integers, signs, special values.

The encoder assembles what it verifies by the same functions as a reader.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from isopress.codec.encoded import Section
from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.values.label_map import decode_classes
from isopress.codec.values.lossless import decode_lossless, encode_lossless
from isopress.codec.values.outliers import apply_exceptions, decode_exceptions
from isopress.codec.values.quantiser import UNITS, Quantiser
from isopress.codec.values.special_values import Specials, decode_specials, encode_specials, restore_specials

Shape3 = tuple[int, int, int]
Sections = dict[Section, bytes]
Value = np.floating[Any]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def field_shape(shape: tuple[int, ...]) -> Shape3:
    """Return the (B, H, W) that `shape` is coded as; fewer than two axes make one row."""
    height, width = (1, 1, *shape)[-2:]
    return math.prod(shape[:-2]), height, width


def encode_value(value: Value) -> bytes:
    """Return the little-endian bits of one value."""
    return value.astype(value.dtype.newbyteorder("<")).tobytes()


def decode_value(section: bytes, dtype: np.dtype) -> Value:
    """Return the one value of `dtype` that `section` holds."""
    if len(section) < dtype.itemsize:
        raise TruncatedPayloadError(f"the constant has {len(section)} bytes, {dtype.itemsize} are needed")
    if len(section) > dtype.itemsize:
        raise CorruptPayloadError(f"the constant has {len(section)} bytes, only {dtype.itemsize} belong there")
    value: Value = np.frombuffer(section, dtype.newbyteorder("<")).astype(dtype)[0]
    return value


def encode_integers(y: np.ndarray, valid: np.ndarray | None) -> tuple[bytes, np.ndarray]:
    """Code rint(y), invalid points repeating the value before them; return the section and the integers."""
    steps = np.rint(y)
    if valid is not None:
        last = np.maximum.accumulate(np.where(valid.reshape(-1), np.arange(valid.size), 0))
        steps = steps.reshape(-1)[last].reshape(y.shape)
    width = 4 if np.abs(steps).max() < 2**31 else 8
    integers = steps.astype(f"i{width}")
    return bytes([width]) + encode_lossless(integers, quick=True), integers


def decode_integers(section: bytes, shape: Shape3) -> np.ndarray:
    """Return v (B, H, W) of the integers section."""
    if not section:
        raise TruncatedPayloadError("the integers section is empty; at least 2 bytes are needed")
    if section[0] not in (4, 8):
        raise CorruptPayloadError(f"the integers section has integers of {section[0]} bytes; known are 4 and 8")
    integers = decode_lossless(section[1:], np.dtype(f"i{section[0]}"), math.prod(shape))
    return integers.reshape(shape) * float(UNITS)


def special_section(specials: Specials | None) -> Sections:
    """Return the section of special values, if there are any."""
    return {} if specials is None else {Section.SPECIAL: encode_specials(specials)}


@dataclass(frozen=True)
class Overlay:
    """Signs and special values of a chunk, read once and laid over any of its fields."""

    negative: np.ndarray | None
    specials: Specials | None

    @classmethod
    def read(cls, sections: Sections, dtype: np.dtype, shape: Shape3) -> Overlay:
        """Return what the sections hold of signs and special values."""
        negative, specials = None, None
        if Section.SIGNS in sections:
            negative = decode_classes(sections[Section.SIGNS], shape, 2).astype(bool)
        if Section.SPECIAL in sections:
            specials = decode_specials(sections[Section.SPECIAL], dtype, shape)
        return cls(negative, specials)

    def lay(self, x_hat: np.ndarray, fields: slice) -> None:
        """Change `x_hat`, the decoded values of `fields`, in place."""
        if self.negative is not None:
            np.negative(x_hat, out=x_hat, where=self.negative[fields])
        if self.specials is not None:
            restore_specials(x_hat, self.specials.of_fields(fields))


def assemble(sections: Sections, v: np.ndarray | None, dtype: np.dtype, shape: Shape3) -> np.ndarray:
    """Return the final values (B, H, W): decoded steps (or the constant), then signs, special values, exceptions.

    `v` is used up: values may take its place.
    """
    if v is None:
        x_hat = np.full(shape, decode_value(sections[Section.PARAMETERS], dtype))
    else:
        quantiser = Quantiser.from_bytes(sections[Section.PARAMETERS], shape[0])
        x_hat = quantiser.to_data(v, dtype, in_place=True)
    Overlay.read(sections, dtype, shape).lay(x_hat, slice(None))
    if Section.EXCEPTIONS in sections:
        apply_exceptions(x_hat, decode_exceptions(sections[Section.EXCEPTIONS], x_hat))
    return x_hat


def assemble_latent(sections: Sections, fields: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the final values (B, H, W) of decoded latents: within the dtype's range, special values laid over.

    `fields` are used up.
    """
    limits = np.finfo(dtype)
    x_hat: np.ndarray = np.clip(fields, limits.min, limits.max, out=fields).astype(dtype)
    Overlay.read(sections, dtype, field_shape(x_hat.shape)).lay(x_hat, slice(None))
    return x_hat
