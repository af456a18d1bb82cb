"""The payload: header, section table and checksums of one compressed array. SPEC.md is normative.

This module knows bytes, not codecs: it says where the sections lie and that they arrived intact,
and leaves their meaning to the codec.
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
from isopress.codec.limits import TARGET_TOLERANCE

MAGIC = b"\x89ISP"
VERSION = (0, 12)
MAX_NDIM = 32
MAX_DECODED_BYTES = 2**32
MAX_HEADER_BYTES = 2**16 - 1
MODEL_ID_BYTES = 16  # the first half of the weights' sha256
MODES = ("lossless", "abs", "range", "pointwise", "joint", "latent")
# Names of the codec's codes.
METHODS = (
    "constant",
    "lossless",
    "pyramid",
    "integers",
    "block",
    "latent",
    "based",
    "layers",
    "vaeformer",
    "on_vaeformer",
)
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
_KNOWN_FLAGS = _FORTRAN | _BIG_ENDIAN | sum(_NUMBERS.values())

BytesLike = bytes | bytearray | memoryview | np.ndarray[Any, Any]
Dtype = np.dtype[Any]
Section = tuple[int, bytes]


@dataclass(frozen=True, repr=False)
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

    @property
    def coded_shape(self) -> tuple[int, ...]:
        """Shape in which the values are coded: a series at one point, (time, 1, 1), is a row, not many fields."""
        return self.shape if self.mode == "joint" else without_trailing_ones(self.shape)

    @property
    def missed(self) -> str:
        """How a target is missed, in words; "" if it is met within 3 %, or smaller and exact, or there is none."""
        got = self.original_nbytes / max(self.nbytes, 1)
        if self.ratio is not None:
            fits = got * (1 + TARGET_TOLERANCE) >= self.ratio
            if not fits or (self.max_error and got > self.ratio * (1 + TARGET_TOLERANCE)):
                return f"{got:.3g} times smaller instead of {self.ratio:.4g}"
        share = self.rmse / (self.target_rmse or math.inf)
        latent = self.target_rmse is not None and self.method == METHODS.index("latent")
        if share > 1 + TARGET_TOLERANCE or (latent and share * (1 + TARGET_TOLERANCE) < 1):
            return f"RMSE {self.rmse:.4g} instead of {self.target_rmse:.4g}"
        return ""

    @property
    def facts(self) -> dict[str, str]:
        """What the header says in words, line by line; empty ones left out."""
        asked = {"bound": self.bound, "floor": self.floor, "ratio": self.ratio, "RMSE": self.target_rmse}
        given = ", ".join(f"{name} {value:.6g}" for name, value in asked.items() if value is not None)
        units = " (parts of the bounds)" if self.mode == "joint" else ""
        lines = {
            "array": f"{self.dtype} {self.shape}, order {self.order}",
            "size": f"{self.original_nbytes} -> {self.nbytes} bytes, {self.original_nbytes / max(self.nbytes, 1):.2f}x",
            "asked": f"{self.mode} {given}".strip(),
            "error": f"largest {self.max_error:.6g}, RMSE {self.rmse:.6g}{units}",
            "missed": self.missed,
            "method": METHODS[self.method] if self.method < len(METHODS) else str(self.method),
            "models": ", ".join(self.models),
            "sections": ", ".join(f"{section}: {nbytes} bytes" for section, nbytes in self.sections),
        }
        return {name: text for name, text in lines.items() if text}

    def __repr__(self) -> str:
        lines = (f"  {name:<9} {text}" for name, text in self.facts.items())
        return "\n".join((f"isopress payload {self.version[0]}.{self.version[1]}", *lines))

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in self.facts.items())
        return f"<table><caption>isopress payload {self.version[0]}.{self.version[1]}</caption>{rows}</table>"


def without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape without axes of length 1 behind all others."""
    axes = len(shape)
    while axes and shape[axes - 1] == 1:
        axes -= 1
    return shape[:axes]


@dataclass(frozen=True)
class Payload:
    """A payload whose header was read and checked; its sections are checked when they are asked for."""

    info: PayloadInfo
    data: memoryview
    start: int  # of the sections
    checksum: int  # of the sections

    def sections(self) -> tuple[Section, ...]:
        """Return the sections in their order, every byte of them checked.

        Raises
        ------
        TruncatedPayloadError
            The buffer ends before the payload does.
        CorruptPayloadError
            The checksum of the sections fails, or bytes follow the payload.
        """
        given, nbytes = len(self.data), self.info.nbytes
        if given < nbytes:
            raise TruncatedPayloadError(f"payload ends after {given} of {nbytes} bytes")
        if given > nbytes:
            raise CorruptPayloadError(f"{given - nbytes} bytes too many follow the payload")
        if crc32c(self.data[self.start :]) != self.checksum:
            raise CorruptPayloadError("the checksum of the sections fails: the payload was damaged")
        found, at = [], self.start
        for section, length in self.info.sections:
            found.append((section, bytes(self.data[at : at + length])))
            at += length
        return tuple(found)


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


def parse(buf: BytesLike) -> Payload:
    """Return the payload that starts `buf`, its header checked; its sections need not be there.

    Raises
    ------
    ForeignPayloadError
        `buf` is not an isopress payload.
    TruncatedPayloadError
        `buf` ends before the header does.
    UnsupportedVersionError
        The payload needs another reader: another version, an unknown flag, dtype or mode.
    CorruptPayloadError
        The checksum of the header fails, or a field contradicts another.
    ArgumentError
        `buf` is not contiguous bytes.
    """
    data = view_bytes(buf)
    version, length = _read_prefix(data)
    header_crc, sections_crc = _CHECKSUMS.unpack_from(data, _PREFIX.size)
    if crc32c(b"".join((data[: _PREFIX.size], data[_PREFIX.size + 4 : length]))) != header_crc:
        raise CorruptPayloadError("the checksum of the header fails: the payload was damaged")
    info = _read_fields(bytes(data[_PREFIX.size + _CHECKSUMS.size : length]), version, length)
    return Payload(info, data, length, sections_crc)


def inspect(buf: BytesLike) -> PayloadInfo:
    """Return what the header says of the payload that starts `buf`; its sections need not be there.

    Raises
    ------
    PayloadError
        The header is damaged, foreign, cut short or of another version; the subclasses of the error say which.
    ArgumentError
        `buf` is not contiguous bytes.
    """
    return parse(buf).info


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
    flags = _FORTRAN * (info.order == "F") | _BIG_ENDIAN * (info.dtype.str[0] == ">")
    absent = {"resolved_bound": info.bound or 0.0, "max_error": 0.0, "rmse": 0.0}  # what it means; else None
    numbers = []
    for name, flag in _NUMBERS.items():
        value = getattr(info, name)
        if value != absent.get(name):
            flags |= flag
            numbers.append(_NUMBER.pack(value))
    dtype = DTYPES.index(info.dtype.newbyteorder("="))
    out = [_CORE.pack(flags, dtype, MODES.index(info.mode), info.method, len(info.shape))]
    out += map(varint, info.shape)
    out += numbers
    out.append(bytes([len(info.models)]))
    for model in info.models:
        out.append(bytes.fromhex(model)[:MODEL_ID_BYTES])
    out.append(bytes([len(sections)]))
    for section, data in sections:
        out += (bytes([section]), varint(len(data)))
    return b"".join(out)


def _read_prefix(data: memoryview) -> tuple[tuple[int, int], int]:
    """Return version and length of the header, all of which is there."""
    if bytes(data[:4]) != MAGIC[: len(data)]:
        raise ForeignPayloadError(f"not an isopress payload: it starts with {bytes(data[:4])!r}")
    if len(data) < _PREFIX.size + _CHECKSUMS.size:
        raise TruncatedPayloadError(f"payload ends after {len(data)} bytes, before its header does")
    _, major, minor, length = _PREFIX.unpack_from(data)
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
    return (major, minor), length


def _read_fields(data: bytes, version: tuple[int, int], length: int) -> PayloadInfo:
    """Return what the fields behind the checksums say; `length` is that of the whole header."""
    shape, numbers, models, sections, nbytes = [], {}, [], [], length
    try:
        flags, dtype, mode, method, ndim = _CORE.unpack_from(data)
        _check_known(flags, dtype, mode, ndim)
        at = _CORE.size
        for _ in range(ndim):
            size, at = read_varint(data, at, most=9)
            shape.append(size)
        for name, flag in _NUMBERS.items():
            if flags & flag:
                (numbers[name],) = _NUMBER.unpack_from(data, at)
                at += _NUMBER.size
        count, at = data[at], at + 1
        for _ in range(count):
            models.append(data[at : at + MODEL_ID_BYTES].hex())
            at += MODEL_ID_BYTES
        count, at = data[at], at + 1
        for _ in range(count):
            section = data[at]
            size, at = read_varint(data, at + 1, most=9)
            sections.append((section, size))
            nbytes += size
    except (struct.error, IndexError, TruncatedPayloadError) as error:  # though its checksum is right
        raise CorruptPayloadError("the header is shorter than its fields") from error
    if at != len(data):
        raise CorruptPayloadError("the header is longer than its fields")
    info = PayloadInfo(
        dtype=DTYPES[dtype].newbyteorder(">" if flags & _BIG_ENDIAN else "<"),
        shape=tuple(shape),
        order="F" if flags & _FORTRAN else "C",
        mode=MODES[mode],
        method=method,
        models=tuple(models),
        sections=tuple(sections),
        version=version,
        nbytes=nbytes,
        **({"resolved_bound": numbers.get("bound", 0.0)} | numbers),
    )
    _check_consistent(info, flags)
    return info


def _check_known(flags: int, dtype: int, mode: int, ndim: int) -> None:
    if flags & ~_KNOWN_FLAGS or dtype >= len(DTYPES) or mode >= len(MODES):
        raise UnsupportedVersionError(
            f"payload has flags {flags:#06x}, dtype {dtype} and mode {mode}, not all of them known here: "
            "install a newer isopress"
        )
    if ndim > MAX_NDIM:
        raise CorruptPayloadError(f"payload declares {ndim} axes; at most {MAX_NDIM} are allowed")


def _check_consistent(info: PayloadInfo, flags: int) -> None:
    """Refuse what no writer writes, and sizes nobody should allocate for."""
    if _size(info.shape, info.dtype) > MAX_DECODED_BYTES:
        raise CorruptPayloadError(
            f"payload declares shape {info.shape} of {info.dtype}; one payload holds at most {MAX_DECODED_BYTES} bytes"
        )
    for name, flag in _NUMBERS.items():
        number = getattr(info, name)
        if flags & flag and not 0 <= number < math.inf:
            raise CorruptPayloadError(f"bounds and errors are finite and not negative, not {number} ({name})")
    if (info.bound is None) != (info.mode in ("lossless", "latent")) or info.bound == 0:
        raise CorruptPayloadError(f"bound {info.bound} does not fit mode {info.mode}")
    targets = (info.ratio, info.target_rmse)
    if targets.count(None) != 2 - (info.mode == "latent") or 0 in targets:
        raise CorruptPayloadError(f"targets {targets} do not fit mode {info.mode}")
    if info.mode == "joint" and info.bound != 1:
        raise CorruptPayloadError(f"the bound of mode joint is 1, not {info.bound}")
    if info.floor is not None and info.mode != "pointwise":
        raise CorruptPayloadError(f"mode {info.mode} has no floor, but {info.floor} is stored")
    if flags & _BIG_ENDIAN and info.dtype.itemsize == 1:
        raise CorruptPayloadError(f"dtype {info.dtype} has no byte order, but big-endian is set")
    if len(dict(info.sections)) != len(info.sections):
        raise CorruptPayloadError("a section appears twice")


def _size(shape: Sequence[int], dtype: Dtype) -> int:
    """Return the bytes of the array, an empty axis counted as one (numpy limits those too)."""
    size = dtype.itemsize
    for length in shape:
        size *= max(int(length), 1)
    return size
