"""Class maps: small unsigned integers on a grid, such as masks and signs, coded as bits or as runs."""

import numpy as np

from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.values.packing import pack, shuffle, unpack, unshuffle

RUNS, DIFFERENCED = 1, 2
_U32 = np.dtype("u4")


def encode_classes(classes: np.ndarray, count: int) -> bytes:
    """Return `classes` as bit planes or runs, each field as such or combined with the one before it.

    Parameters
    ----------
    classes : ndarray, (B, H, W), uint8
        Values below `count`.
    count : int
        Number of classes, 2 to 256.
    """
    sections = []
    for flag, plain in ((0, classes), (DIFFERENCED, _difference(classes))):
        if flag and classes.shape[0] == 1:
            continue
        sections.append(bytes([flag]) + pack(_to_planes(plain, count)))
        if plain.size < 2**32:
            sections.append(bytes([flag | RUNS]) + _encode_runs(plain.reshape(-1)))
    return min(sections, key=len)


def decode_classes(section: bytes, shape: tuple[int, int, int], count: int) -> np.ndarray:
    """Return the (B, H, W) uint8 map of classes below `count`.

    Raises
    ------
    TruncatedPayloadError
        `section` ends early.
    CorruptPayloadError
        Unknown flags, a class >= `count`, runs that do not fill `shape`, or damaged content.
    """
    if not section:
        raise TruncatedPayloadError("a class map is empty; at least 1 byte is needed")
    flags, content, size = section[0], section[1:], int(np.prod(shape))
    if flags & ~(RUNS | DIFFERENCED):
        raise CorruptPayloadError(f"a class map has flags {flags:#04x}; known are bits 0 and 1")
    flat = _decode_runs(content, size) if flags & RUNS else _from_planes(content, size, count)
    classes = flat.reshape(shape)
    if flags & DIFFERENCED:
        classes = np.bitwise_xor.accumulate(classes, axis=0)
    if classes.size and classes.max() >= count:
        raise CorruptPayloadError(f"a class map holds class {classes.max()}; allowed are 0 to {count - 1}")
    return classes


def _difference(classes: np.ndarray) -> np.ndarray:
    """Each field exclusive-or the one before it: zero wherever a mask does not change."""
    out = classes.copy()
    out[1:] ^= classes[:-1]
    return out


def _planes(count: int) -> int:
    return (count - 1).bit_length()


def _to_planes(classes: np.ndarray, count: int) -> bytes:
    flat = classes.reshape(-1)
    return b"".join(np.packbits(flat >> plane & 1, bitorder="little").tobytes() for plane in range(_planes(count)))


def _from_planes(content: bytes, size: int, count: int) -> np.ndarray:
    length = (size + 7) // 8
    raw = np.frombuffer(unpack(content, length * _planes(count)), np.uint8)
    classes = np.zeros(size, np.uint8)
    for plane, bits in enumerate(raw.reshape(_planes(count), length)):
        classes |= np.unpackbits(bits, count=size, bitorder="little") << np.uint8(plane)
    return classes


def _encode_runs(flat: np.ndarray) -> bytes:
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] ^ 1))
    lengths = np.diff(starts, append=flat.size)
    return starts.size.to_bytes(4, "little") + pack(flat[starts].tobytes() + shuffle(lengths.astype(_U32)))


def _decode_runs(content: bytes, size: int) -> np.ndarray:
    if len(content) < 5:
        raise TruncatedPayloadError(f"the runs of a class map have {len(content)} bytes, at least 5 are needed")
    runs = int.from_bytes(content[:4], "little")
    if runs > size:
        raise CorruptPayloadError(f"a class map of {size} values claims {runs} runs")
    raw = unpack(content[4:], runs * 5)
    lengths = unshuffle(raw[runs:], _U32, runs)
    if int(lengths.sum(dtype=np.uint64)) != size:  # checked before np.repeat allocates
        raise CorruptPayloadError(f"the runs of a class map do not add up to its {size} values")
    return np.repeat(np.frombuffer(raw[:runs], np.uint8), lengths)
