"""The payload: header, section table and checksums of one compressed array. SPEC.md is normative.

This module knows bytes, not codecs: it says where the sections lie and that they arrived intact,
and leaves their meaning to `isopress.codec.encode`.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from isopress.codec.bytes import crc32c, read_varint, varint
from isopress.codec.errors import (
    ArgumentError,
    CorruptPayloadError,
    ForeignPayloadError,
    TruncatedPayloadError,
    UnsupportedVersionError,
)

MAGIC = b"\x89ISP"
VERSION = (0, 8)
MAX_NDIM = 32
MAX_DECODED_BYTES = 2**32
MAX_HEADER_BYTES = 2**16 - 1
MODEL_ID_BYTES = 16  # the first half of the weights' sha256
MODES = ("lossless", "abs", "range", "pointwise", "joint", "latent")
DTYPES = tuple(map(np.dtype, ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")))

_PREFIX = struct.Struct("<4sBBH")  # magic, major, minor, header length
_CHECKSUMS = struct.Struct("<II")  # CRC32C of the header (but these four bytes), CRC32C of the sections
_CORE = struct.Struct("<HBBBB")  # flags, dtype, mode, method, number of axes
_NUMBER = struct.Struct("<d")
_FORTRAN, _BIG_ENDIAN = 0x0001, 0x0002
_NUMBERS = {  # in the order of the header
    "bound": 0x0004,
    "floor": 0x0008,
    "resolved_bound": 0x0010,
    "max_error": 0x0020,
    "rmse": 0x0040,
    "ratio": 0x0080,
    "target_rmse": 0x0100,
}
_TARGETS = ("ratio", "target_rmse")
_KNOWN_FLAGS = _FORTRAN | _BIG_ENDIAN | sum(_NUMBERS.values())

BytesLike = bytes | bytearray | memoryview | np.ndarray[Any, Any]
Dtype = np.dtype[Any]
Section = tuple[int, bytes]


@dataclass(frozen=True)
class PayloadInfo:
    """What the header of a payload says.

    `bound` and `floor` are what the user asked for; `resolved_bound` and the achieved `max_error` and
    `rmse` (over finite values) are in the unit of the data. In mode joint, where each entry of the first
    axis has a bound of its own, all of them are fractions of that bound, and `bound` is 1. In mode latent there is
    no bound: either `ratio` or `target_rmse` is what the user asked for. `models` are the first 32 hex digits of
    the sha256 of each file of weights, `sections` are (id, bytes), `nbytes` counts the whole payload.
    """

    dtype: Dtype
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    mode: str
    method: int
    bound: float | None = None
    floor: float | None = None
    resolved_bound: float = 0.0
    max_error: float = 0.0
    rmse: float = 0.0
    ratio: float | None = None
    target_rmse: float | None = None
    models: tuple[str, ...] = ()
    sections: tuple[tuple[int, int], ...] = ()
    version: tuple[int, int] = VERSION
    nbytes: int = 0

    @property
    def original_nbytes(self) -> int:
        """Size of the decoded array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def check_decodable(dtype: Dtype, shape: Sequence[int]) -> None:
    """Raise ArgumentError unless an array of this dtype and shape fits in one payload."""
    if dtype.newbyteorder("=") not in DTYPES:
        allowed = ", ".join(str(known) for known in DTYPES)
        raise ArgumentError(f"dtype {dtype} cannot be stored; use one of {allowed}")
    if len(shape) > MAX_NDIM:
        raise ArgumentError(f"an array of {len(shape)} axes cannot be stored; at most {MAX_NDIM} are allowed")
    if _size(shape, dtype) > MAX_DECODED_BYTES:
        raise ArgumentError(
            f"an array of shape {tuple(shape)} and dtype {dtype} takes more than {MAX_DECODED_BYTES} bytes, "
            "the most one payload may hold; split it into chunks"
        )


def pack(info: PayloadInfo, sections: Sequence[Section]) -> bytes:
    """Return the payload of `sections` under `info`; its version, section table and size are set here."""
    check_decodable(info.dtype, info.shape)
    body = b"".join(data for _, data in sections)
    fields = _write_fields(info, sections)
    prefix = _PREFIX.pack(MAGIC, *VERSION, _PREFIX.size + _CHECKSUMS.size + len(fields))
    body_crc = crc32c(body)
    header_crc = crc32c(prefix + body_crc.to_bytes(4, "little") + fields)
    return b"".join((prefix, _CHECKSUMS.pack(header_crc, body_crc), fields, body))


def unpack(buf: BytesLike) -> tuple[PayloadInfo, tuple[Section, ...]]:
    """Return header and sections of the payload in `buf`, every byte of it checked.

    Raises
    ------
    ForeignPayloadError
        `buf` is not an isopress payload.
    TruncatedPayloadError
        `buf` ends before the payload does.
    UnsupportedVersionError
        The payload needs a newer reader: another major version, an unknown flag, dtype or mode.
    CorruptPayloadError
        A checksum fails, a field contradicts another or bytes follow the payload.
    """
    data = view_bytes(buf)
    info, start, body_crc = _read(data)
    if len(data) < info.nbytes:
        raise TruncatedPayloadError(f"payload ends after {len(data)} of {info.nbytes} bytes")
    if len(data) > info.nbytes:
        raise CorruptPayloadError(f"{len(data) - info.nbytes} bytes too many follow the payload")
    if crc32c(data[start:]) != body_crc:
        raise CorruptPayloadError("the checksum of the sections fails: the payload was damaged")
    sections = []
    for section, length in info.sections:
        sections.append((section, bytes(data[start : start + length])))
        start += length
    return info, tuple(sections)


def inspect(buf: BytesLike) -> PayloadInfo:
    """Return what the header says of the payload that starts `buf`; its sections need not be there.

    Raises as `unpack` does, for the bytes of the header.
    """
    return _read(view_bytes(buf))[0]


def view_bytes(buf: BytesLike) -> memoryview:
    """Return `buf` as a flat view of its bytes, without a copy."""
    try:
        view = memoryview(buf)  # type: ignore[arg-type]  # before Python 3.12 an ndarray is no Buffer to mypy
        return view.cast("B") if view.nbytes else memoryview(b"")
    except (TypeError, ValueError, BufferError) as error:
        raise ArgumentError(
            f"a payload is bytes or a contiguous buffer of them, not {type(buf).__name__} ({error})"
        ) from error


def _write_fields(info: PayloadInfo, sections: Sequence[Section]) -> bytes:
    numbers = _stored_numbers(info)
    flags = sum(_NUMBERS[name] for name in numbers)
    flags |= _FORTRAN * (info.order == "F") | _BIG_ENDIAN * (info.dtype.str[0] == ">")
    dtype = DTYPES.index(info.dtype.newbyteorder("="))
    return b"".join(
        (
            _CORE.pack(flags, dtype, MODES.index(info.mode), info.method, len(info.shape)),
            *map(varint, info.shape),
            *map(_NUMBER.pack, numbers.values()),
            bytes([len(info.models)]),
            *(bytes.fromhex(model)[:MODEL_ID_BYTES] for model in info.models),
            bytes([len(sections)]),
            *(bytes([section]) + varint(len(data)) for section, data in sections),
        )
    )


def _stored_numbers(info: PayloadInfo) -> dict[str, float]:
    """Return the numbers a header spells out: those that differ from what their absence means."""
    absent = {"resolved_bound": info.bound or 0.0, "max_error": 0.0, "rmse": 0.0}
    values = {name: getattr(info, name) for name in _NUMBERS}
    return {name: value for name, value in values.items() if value != absent.get(name)}


def _read(data: memoryview) -> tuple[PayloadInfo, int, int]:
    """Return the header, where the sections start and their checksum."""
    major, minor, length = _read_prefix(data)
    if (major, minor) != VERSION:
        older = (major, minor) < VERSION
        raise UnsupportedVersionError(
            f"payload has version {major}.{minor}; this isopress reads and writes {VERSION[0]}.{VERSION[1]} only: "
            f"install isopress {major}.{minor}{'' if older else ' or newer'}, which wrote it"
        )
    if length < _PREFIX.size + _CHECKSUMS.size:
        raise CorruptPayloadError(f"header length {length} is impossible")
    if len(data) < length:
        raise TruncatedPayloadError(f"payload ends after {len(data)} bytes, inside its header of {length}")
    header_crc, body_crc = _CHECKSUMS.unpack_from(data, _PREFIX.size)
    if crc32c(b"".join((data[: _PREFIX.size], data[_PREFIX.size + 4 : length]))) != header_crc:
        raise CorruptPayloadError("the checksum of the header fails: the payload was damaged")
    cursor = _Cursor(bytes(data[_PREFIX.size + _CHECKSUMS.size : length]))
    return _read_fields(cursor, (major, minor), length), length, body_crc


def _read_prefix(data: memoryview) -> tuple[int, int, int]:
    if bytes(data[:4]) != MAGIC[: len(data)]:
        raise ForeignPayloadError(f"not an isopress payload: it starts with {bytes(data[:4])!r}")
    if len(data) < _PREFIX.size + _CHECKSUMS.size:
        raise TruncatedPayloadError(f"payload ends after {len(data)} bytes, before its header does")
    major, minor, length = _PREFIX.unpack_from(data)[1:]
    return major, minor, length


def _read_fields(cursor: "_Cursor", version: tuple[int, int], length: int) -> PayloadInfo:
    flags, dtype, mode, method, ndim = cursor.unpack(_CORE)
    if flags & ~_KNOWN_FLAGS or dtype >= len(DTYPES) or mode >= len(MODES):
        raise UnsupportedVersionError(
            f"payload of version {version[0]}.{version[1]} has flags {flags:#06x}, dtype {dtype} and mode "
            f"{mode}, not all of them known here: install a newer isopress"
        )
    if ndim > MAX_NDIM:
        raise CorruptPayloadError(f"payload declares {ndim} axes; at most {MAX_NDIM} are allowed")
    shape = tuple(cursor.varint() for _ in range(ndim))
    numbers = {name: cursor.unpack(_NUMBER)[0] for name, flag in _NUMBERS.items() if flags & flag}
    models = tuple(cursor.take(MODEL_ID_BYTES).hex() for _ in range(cursor.byte()))
    sections = tuple((cursor.byte(), cursor.varint()) for _ in range(cursor.byte()))
    cursor.finish()
    info = PayloadInfo(
        dtype=DTYPES[dtype].newbyteorder(">" if flags & _BIG_ENDIAN else "<"),
        shape=shape,
        order="F" if flags & _FORTRAN else "C",
        mode=MODES[mode],
        method=method,
        models=models,
        sections=sections,
        version=version,
        nbytes=length + sum(size for _, size in sections),
        **({"resolved_bound": numbers.get("bound", 0.0)} | numbers),
    )
    _check_consistent(info, flags)
    return info


def _check_consistent(info: PayloadInfo, flags: int) -> None:
    """Refuse what no writer writes, and sizes nobody should allocate for."""
    if _size(info.shape, info.dtype) > MAX_DECODED_BYTES:
        raise CorruptPayloadError(
            f"payload declares shape {info.shape} of {info.dtype}; one payload holds at most {MAX_DECODED_BYTES} bytes"
        )
    numbers = [getattr(info, name) for name, flag in _NUMBERS.items() if flags & flag]
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise CorruptPayloadError(f"bounds and errors are finite and not negative, not {numbers}")
    if (info.bound is None) != (info.mode in ("lossless", "latent")) or info.bound == 0:
        raise CorruptPayloadError(f"bound {info.bound} does not fit mode {info.mode}")
    targets = [getattr(info, name) for name in _TARGETS if getattr(info, name) is not None]
    if len(targets) != (info.mode == "latent") or 0 in targets:
        raise CorruptPayloadError(f"targets {targets} do not fit mode {info.mode}")
    if info.mode == "joint" and info.bound != 1:
        raise CorruptPayloadError(f"the bound of mode joint is 1, not {info.bound}")
    if info.floor is not None and info.mode != "pointwise":
        raise CorruptPayloadError(f"mode {info.mode} has no floor, but {info.floor} is stored")
    if flags & _BIG_ENDIAN and info.dtype.itemsize == 1:
        raise CorruptPayloadError(f"dtype {info.dtype} has no byte order, but big-endian is set")
    if len({section for section, _ in info.sections}) != len(info.sections):
        raise CorruptPayloadError("a section appears twice")


def _size(shape: Sequence[int], dtype: Dtype) -> int:
    """Return the bytes of the array, an empty axis counted as one (numpy limits those too)."""
    return math.prod(max(int(length), 1) for length in shape) * dtype.itemsize


class _Cursor:
    """Reads header fields in order and never past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> bytes:
        start, self._position = self._position, self._position + count
        if self._position > len(self._data):
            raise CorruptPayloadError("the header is shorter than its fields")
        return self._data[start : self._position]

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        try:
            value, self._position = read_varint(self._data, self._position, most=9)
        except TruncatedPayloadError as error:  # a header whose checksum is right was written so
            raise CorruptPayloadError("the header is shorter than its fields") from error
        return value

    def finish(self) -> None:
        if self._position != len(self._data):
            raise CorruptPayloadError("the header is longer than its fields")
