"""A second reader of payloads, written from format/SPEC.md and nothing else: it imports no isopress.

This file parses headers (SPEC chapters 3 and 8); `values` decodes what follows.
"""

import struct
from dataclasses import dataclass, field
from math import isfinite, prod

import numpy as np

from tests.spec.entropy import Bytes, crc32c

DTYPES = [
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
]
MODES = ("lossless", "abs", "range", "pointwise", "joint", "latent")
NUMBERS = ("bound", "floor", "resolved bound", "max error", "rmse", "ratio", "target rmse")


class SpecError(Exception):
    """An error of SPEC chapter 2; its text is the word of the first column of the table."""


@dataclass
class Parsed:
    """Header and sections of a payload, named as in the SPEC."""

    version: tuple[int, int]
    fortran: bool
    big_endian: bool
    dtype: str
    mode: str
    method: int
    shape: list[int]
    numbers: dict[str, float]
    models: list[bytes] = field(default_factory=list)
    sections: dict[int, bytes] = field(default_factory=dict)


def parse(payload: bytes) -> Parsed:
    """SPEC chapter 8."""
    if payload[:4] != b"\x89ISP"[: len(payload)]:
        raise SpecError("foreign")
    if len(payload) < 16:
        raise SpecError("truncated")
    major, minor, length, header_crc, body_crc = struct.unpack_from("<BBHII", payload, 4)
    if (major, minor) != (0, 12):
        raise SpecError("unsupported")
    if length < 16:
        raise SpecError("corrupt")
    if length > len(payload):
        raise SpecError("truncated")
    if crc32c(payload[:8] + payload[12:length]) != header_crc:
        raise SpecError("corrupt")
    try:
        parsed, table = _fields(payload[16:length], (major, minor))
    except (AssertionError, IndexError):  # fields beyond the end of the header
        raise SpecError("corrupt") from None
    end = length + sum(size for _, size in table)
    if len(payload) != end:
        raise SpecError("truncated" if len(payload) < end else "corrupt")
    if crc32c(payload[length:]) != body_crc:
        raise SpecError("corrupt")
    for section, size in table:
        parsed.sections[section] = payload[length : length + size]
        length += size
    return parsed


def _fields(data: bytes, version: tuple[int, int]) -> tuple[Parsed, list[tuple[int, int]]]:
    """The rows of the table of SPEC chapter 8 from offset 16 on."""
    reader = Bytes(data)
    flags, dtype, mode, method, ndim = struct.unpack("<HBBBB", reader.take(6))
    if flags >= 1 << 9 or dtype > 11 or mode > 5:
        raise SpecError("unsupported")
    shape = [reader.varint() for _ in range(ndim)]
    names = [name for bit, name in enumerate(NUMBERS, start=2) if flags >> bit & 1]
    numbers = {name: struct.unpack("<d", reader.take(8))[0] for name in names}
    models = [reader.take(16) for _ in range(reader.take(1)[0])]
    table = [(reader.take(1)[0], reader.varint()) for _ in range(reader.take(1)[0])]
    big_endian, width = bool(flags & 2), np.dtype(DTYPES[dtype]).itemsize
    if (
        reader.left
        or not _numbers_fit(numbers, MODES[mode])
        or ndim > 32
        or prod(max(axis, 1) for axis in shape) * width > 2**32
        or (big_endian and width == 1)
        or len({section for section, _ in table}) < len(table)
    ):
        raise SpecError("corrupt")
    parsed = Parsed(version, bool(flags & 1), big_endian, DTYPES[dtype], MODES[mode], method, shape, numbers, models)
    return parsed, table


def _numbers_fit(numbers: dict[str, float], mode: str) -> bool:
    """SPEC chapter 3."""
    targets = [numbers[name] for name in ("ratio", "target rmse") if name in numbers]
    return (
        all(isfinite(number) and number >= 0 for number in numbers.values())
        and ("bound" in numbers) == (mode not in ("lossless", "latent"))
        and numbers.get("bound") != 0
        and len(targets) == (mode == "latent")
        and 0 not in targets
        and (mode != "joint" or numbers["bound"] == 1)
        and ("floor" not in numbers or mode == "pointwise")
    )
