"""Met Office PP files, as far as the benchmarks need them: unpacked fields on one grid.

A file is a row of records, each between two copies of its length in bytes (big-endian int32). Two records make a
field: a header of 45 int32 and 19 float32 words, and the values, big-endian float32, maybe followed by extra words.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

Time = tuple[int, ...]


class Field(NamedTuple):
    """One field: what it is (STASH item), year to minute of its validity, its level, values as (y, x) float32."""

    item: int
    time: Time
    level: float
    values: np.ndarray


def read_block(path: Path, item: int) -> np.ndarray:
    """Return every field of one STASH item as (time, level, y, x) float32.

    Raises
    ------
    ValueError
        The fields are packed, or do not fill a block of times and levels.
    """
    fields = [field for field in read_fields(path) if field.item == item]
    times, levels = sorted({field.time for field in fields}), sorted({field.level for field in fields})
    known = {(field.time, field.level): field.values for field in fields}
    if not fields or len(known) != len(times) * len(levels):
        raise ValueError(f"{path.name}: item {item} is no block of times and levels")
    return np.stack([[known[time, level] for level in levels] for time in times])


def read_fields(path: Path) -> Iterator[Field]:
    """Yield the fields of a file in their order."""
    records = _records(path.read_bytes())
    for header, values in zip(records, records, strict=True):
        words, reals = np.frombuffer(header, ">i4", 45), np.frombuffer(header, ">f4", 19, 180)
        height, width, packing = (int(words[at]) for at in (17, 18, 20))  # LBROW, LBNPT, LBPACK
        if packing:
            raise ValueError(f"{path.name}: packed fields are not supported")
        plane = np.frombuffer(values, ">f4", height * width).reshape(height, width)
        time = tuple(int(word) for word in words[:5])
        yield Field(int(words[41]), time, float(reals[6]), plane.astype(np.float32))  # LBUSER4, BLEV


def _records(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        (size,) = struct.unpack_from(">i", raw, at)
        yield raw[at + 4 : at + 4 + size]
        at += size + 8
