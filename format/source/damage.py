"""Damaged files that their own libraries read without a word: sizes against headers.

netcdf-c pads a NetCDF-3 file that was cut short with zeros; a GRIB file may end inside a message. Both say in their
headers how long they are.
"""

import os
import struct
from typing import BinaryIO

from isopress.codec.errors import ArgumentError

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_REMEDY = "the file was cut short; copy or download it again"


def check_netcdf3(path: str) -> None:
    """Raise ArgumentError, naming a variable, when a NetCDF-3 file (CDF-1, -2 or -5) ends before its values do."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        try:
            ends = _Header(file, size).ends()
        except (struct.error, KeyError, ValueError, MemoryError) as error:
            raise ArgumentError(f"{path}: its NetCDF-3 header is damaged ({error or 'it ends early'})") from error
    for name, end in ends:
        if end > size:
            raise ArgumentError(f"{path}: has {size} bytes, but {name} ends at byte {end}: {_REMEDY}")


class _Header:
    """Reads the header of a NetCDF-3 file: where each variable begins and ends."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._version = file.read(4)[3]
        self._count = ">Q" if self._version == 5 else ">I"
        self._offset = ">I" if self._version == 1 else ">Q"

    def ends(self) -> list[tuple[str, int]]:
        """Return each variable and the position behind its last value."""
        records = self._number(self._count)
        streaming = records == (2**64 - 1 if self._version == 5 else 2**32 - 1)  # the writer did not say
        lengths = [(self._name(), self._number(self._count))[1] for _ in range(self._items())]
        self._attributes()
        variables = [self._variable(lengths) for _ in range(self._items())]
        record_bytes = sum(
            nbytes if len(variables) == 1 else -(-nbytes // 4) * 4 for *_, nbytes, record in variables if record
        )
        one = sum(record for *_, record in variables) == 1
        ends = []
        for name, begin, nbytes, record in variables:
            if not record:
                ends.append((name, begin + nbytes))
            elif records and not streaming:
                step = nbytes if one else record_bytes
                ends.append((name, begin + (records - 1) * step + nbytes))
        return ends

    def _variable(self, lengths: list[int]) -> tuple[str, int, int, bool]:
        name = self._name()
        dims = [self._number(self._count) for _ in range(self._number(self._count))]
        self._attributes()
        kind = self._number(">I")
        self._number(self._count)  # vsize, which is wrong for large variables
        begin = self._number(self._offset)
        record = bool(dims) and lengths[dims[0]] == 0
        nbytes = _TYPE_BYTES[kind]
        for dim in dims[record:]:
            nbytes *= lengths[dim]
        return name, begin, nbytes, record

    def _items(self) -> int:
        self._number(">I")  # a tag, or zero for an empty list
        return self._bounded(self._number(self._count))

    def _attributes(self) -> None:
        for _ in range(self._items()):
            self._name()
            nbytes = _TYPE_BYTES[self._number(">I")] * self._number(self._count)
            self._take(-(-nbytes // 4) * 4)

    def _name(self) -> str:
        length = self._number(self._count)
        return self._take(-(-length // 4) * 4)[:length].decode("utf-8", "replace")

    def _number(self, layout: str) -> int:
        return int(struct.unpack(layout, self._take(struct.calcsize(layout)))[0])

    def _bounded(self, count: int) -> int:
        if count > self._size:
            raise ValueError(f"it lists {count} entries in {self._size} bytes")
        return count

    def _take(self, nbytes: int) -> bytes:
        return self._file.read(self._bounded(nbytes))


def check_grib(path: str) -> int:
    """Return the number of GRIB messages in a file, each of them complete.

    Raises
    ------
    ArgumentError
        The file ends inside a message, or a message does not end as one.
    """
    size, position, count = os.path.getsize(path), 0, 0
    with open(path, "rb") as file:
        while (position := _next_message(file, position)) >= 0:
            file.seek(position)
            start = file.read(16)
            if len(start) < 16:
                raise ArgumentError(
                    f"{path}: ends inside message {count + 1}, which starts at byte {position}: {_REMEDY}"
                )
            length = _grib_length(file, position, start)
            if length is None or position + length > size:
                ends = "" if length is None else f", and says it has {length} bytes of {size - position}"
                raise ArgumentError(f"{path}: message {count + 1} at byte {position} is not complete{ends}: {_REMEDY}")
            file.seek(position + length - 4)
            if file.read(4) != b"7777":
                raise ArgumentError(
                    f"{path}: message {count + 1} at byte {position} does not end with 7777: it is damaged"
                )
            position, count = position + length, count + 1
    return count


def _next_message(file: BinaryIO, position: int) -> int:
    """Return where the next message starts, from `position` on; -1 when there is none."""
    overlap = b""
    file.seek(position)
    while block := file.read(2**20):
        found = (overlap + block).find(b"GRIB")
        if found >= 0:
            return position - len(overlap) + found
        position += len(block)
        overlap = (overlap + block)[-3:]
    return -1


def _grib_length(file: BinaryIO, position: int, start: bytes) -> int | None:
    if start[7] == 2:
        return int.from_bytes(start[8:16], "big")
    if start[7] != 1:
        return None
    length = int.from_bytes(start[4:7], "big")
    if not length & 0x800000:
        return length
    # ECMWF's extension for messages of 16 MiB or more: the length counts 120 bytes, and section 4, which is never so
    # short, says how many are too many.
    at, flags = position + 8, start[15]
    for present in (True, flags & 0x80, flags & 0x40):  # product, grid, bitmap
        if present:
            at += _number_at(file, at)
    too_many = _number_at(file, at)
    return (length & 0x7FFFFF) * 120 - too_many + 4 if too_many < 120 else length


def _number_at(file: BinaryIO, position: int) -> int:
    file.seek(position)
    return int.from_bytes(file.read(3), "big")
