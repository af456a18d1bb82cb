"""A second reader of payloads, written from format/SPEC.md and nothing else: it imports no isopress.

It parses header and section table, and decodes what needs no other library: a constant without
special values, and stored values.
"""

import struct
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

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
    """An error of SPEC section 4; its text is the word of the first column of the table."""


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


def crc32c(data: bytes) -> int:
    """SPEC section 2, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)  # 0x1EDC6F41 reflected
    return crc ^ 0xFFFFFFFF


def parse(payload: bytes) -> Parsed:
    """SPEC sections 5 and 6."""
    if payload[:4] != b"\x89ISP"[: len(payload)]:
        raise SpecError("foreign")
    if len(payload) < 16:
        raise SpecError("truncated")
    major, minor, length, header_crc, body_crc = struct.unpack_from("<BBHII", payload, 4)
    if (major, minor) != (0, 8):
        raise SpecError("unsupported")
    if length < 16:
        raise SpecError("corrupt")
    if length > len(payload):
        raise SpecError("truncated")
    if crc32c(payload[:8] + payload[12:length]) != header_crc:
        raise SpecError("corrupt")
    try:
        parsed, table = _fields(payload[16:length], (major, minor))
    except (struct.error, IndexError):  # fields beyond the end of the header
        raise SpecError("corrupt") from None
    end = length + sum(size for _, size in table)
    if len(payload) != end:
        raise SpecError("truncated" if len(payload) < end else "corrupt")
    if crc32c(payload[length:]) != body_crc:
        raise SpecError("corrupt")
    for section, size in table:
        if section in parsed.sections:
            raise SpecError("corrupt")
        parsed.sections[section] = payload[length : length + size]
        length += size
    return parsed


def _fields(data: bytes, version: tuple[int, int]) -> tuple[Parsed, list[tuple[int, int]]]:
    """The rows of the table of SPEC section 6 from offset 16 on."""
    flags, dtype, mode, method, ndim = struct.unpack_from("<HBBBB", data)
    if flags >= 1 << 9 or dtype > 11 or mode > 5:
        raise SpecError("unsupported")
    position = 6
    shape = []
    for _ in range(ndim):
        axis, position = _varint(data, position)
        shape.append(axis)
    numbers = {}
    for bit, name in enumerate(NUMBERS, start=2):
        if flags >> bit & 1:
            (numbers[name],) = struct.unpack_from("<d", data, position)
            position += 8
    if not _numbers_fit(numbers, MODES[mode]):
        raise SpecError("corrupt")
    parsed = Parsed(version, bool(flags & 1), bool(flags & 2), DTYPES[dtype], MODES[mode], method, shape, numbers)
    models, position = data[position], position + 1
    for _ in range(models):
        parsed.models.append(data[position : position + 16])
        position += 16
    sections, position = data[position], position + 1
    table = []
    for _ in range(sections):
        section = data[position]
        size, position = _varint(data, position + 1)
        table.append((section, size))
    if position != len(data):
        raise SpecError("corrupt")
    return parsed, table


def _numbers_fit(numbers: dict[str, float], mode: str) -> bool:
    """SPEC section 6.3."""
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


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, position = data[position], position + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


def decode(parsed: Parsed) -> np.ndarray[Any, Any]:
    """SPEC sections 7, 8.1 (method 0) and 8.6 (stream 0)."""
    little = np.dtype(parsed.dtype).newbyteorder("<")
    if parsed.method == 0 and set(parsed.sections) == {1}:
        values = np.full(parsed.shape, np.frombuffer(parsed.sections[1], little)[0])
    elif parsed.method == 1 and parsed.sections[6][0] == 0:
        values = np.frombuffer(parsed.sections[6], little, offset=1).reshape(parsed.shape)
    else:
        raise NotImplementedError("this reader decodes constant and stored payloads only")
    order = "F" if parsed.fortran else "C"
    return np.asarray(values, little.newbyteorder(">" if parsed.big_endian else "<"), order=order)  # type: ignore[call-overload]
