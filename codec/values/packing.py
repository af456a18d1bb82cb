"""Raw bytes <-> zstd, with every size known before anything is allocated. A leaf: imports only errors."""

import numpy as np
from numcodecs import zstd
from numcodecs.shuffle import Shuffle

from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError

STORED, ZSTD = 0, 1
LEVEL = 12
_MAGIC = b"\x28\xb5\x2f\xfd"


def pack(raw: bytes) -> bytes:
    """Return one byte (0 stored, 1 zstd) and `raw` in the smaller of the two forms."""
    packed = zstd.compress(raw, LEVEL) if len(raw) > 16 else raw
    return bytes([ZSTD]) + packed if len(packed) < len(raw) else bytes([STORED]) + raw


def unpack(section: bytes, size: int) -> bytes:
    """Return the `size` bytes that `pack` was given.

    Raises
    ------
    TruncatedPayloadError
        `section` is empty, or stores fewer than `size` bytes.
    CorruptPayloadError
        The first byte is neither 0 nor 1, or the content is not exactly `size` bytes.
    """
    if not section:
        raise TruncatedPayloadError("a packed block is empty; at least 1 byte is needed")
    kind, content = section[0], section[1:]
    if kind == ZSTD:
        return decompress_zstd(content, size)
    if kind != STORED:
        raise CorruptPayloadError(f"a packed block has kind {kind}; known are 0 (stored) and 1 (zstd)")
    if len(content) < size:
        raise TruncatedPayloadError(f"a stored block has {len(content)} bytes, {size} are needed")
    if len(content) > size:
        raise CorruptPayloadError(f"a stored block has {len(content)} bytes, only {size} belong there")
    return content


def decompress_zstd(frame: bytes, size: int) -> bytes:
    """Return the `size` bytes of a single zstd frame; the frame must declare that size itself.

    Raises
    ------
    CorruptPayloadError
        Not a zstd frame, damaged, or of any other content size; nothing is allocated before that is checked.
    """
    declared = _content_size(frame)
    if declared != size:
        raise CorruptPayloadError(f"a zstd frame declares {declared} bytes of content, {size} are needed")
    out = np.zeros(size, np.uint8)
    try:
        zstd.decompress(frame, out)
    except (RuntimeError, ValueError) as error:
        raise CorruptPayloadError(f"a zstd frame of {len(frame)} bytes is damaged: {error}") from error
    return out.tobytes()


def _content_size(frame: bytes) -> int | None:
    """Frame_Content_Size of RFC 8878 section 3.1.1.1.4; None if the frame does not declare it."""
    if len(frame) < 6 or frame[:4] != _MAGIC:
        return None
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    if width == 0 or len(frame) < start + width:
        return None
    value = int.from_bytes(frame[start : start + width], "little")
    return value + 256 if width == 2 else value


def shuffle(values: np.ndarray) -> bytes:
    """All first bytes of little-endian `values`, then all second bytes, and so on."""
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return bytes(Shuffle(values.itemsize).encode(little))


def unshuffle(raw: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    """Inverse of `shuffle`: `count` values of `dtype`, in native byte order, 1-d and writable."""
    little = np.frombuffer(Shuffle(dtype.itemsize).decode(raw), dtype.newbyteorder("<"), count)
    return little.astype(dtype.newbyteorder("="))
