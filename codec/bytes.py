"""Numbers of variable length and checksums, as every part of a payload has them. A leaf of the package."""

import google_crc32c
import numpy as np

from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError


def varint(value: int) -> bytes:
    """Return LEB128 of an integer >= 0: seven bits a byte, lowest first, the top bit set on all but the last."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes | memoryview, position: int, *, most: int = 5) -> tuple[int, int]:
    """Return (value, position after it) of an LEB128 integer of at most `most` bytes.

    Raises
    ------
    TruncatedPayloadError
        `data` ends before the integer does.
    CorruptPayloadError
        It is longer than `most` bytes, or than it needs to be.
    """
    value = 0
    for i in range(most):
        if position + i >= len(data):
            raise TruncatedPayloadError(f"a varint ends at byte {position + i} of {len(data)}")
        byte = data[position + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if not byte and i:
                raise CorruptPayloadError(f"a varint at byte {position} is longer than it needs to be")
            return value, position + i + 1
    raise CorruptPayloadError(f"a varint at byte {position} is longer than {most} bytes")


def crc32c(data: bytes | memoryview, crc: int = 0) -> int:
    """Return the CRC-32C (Castagnoli) of `data`, or of more bytes before it whose checksum is `crc`."""
    return int(google_crc32c.extend(crc, np.frombuffer(data, np.uint8)))
