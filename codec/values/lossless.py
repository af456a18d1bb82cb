"""Arrays <-> bytes without loss: stored, zstd, byte-shuffled zstd or pcodec, whichever is smallest."""

from enum import IntEnum

import numpy as np
from numcodecs import zstd
from pcodec import ChunkConfig, standalone

from isopress.codec.errors import ArgumentError, CorruptPayloadError, TruncatedPayloadError
from isopress.codec.values.packing import LEVEL, decompress_zstd, shuffle, unshuffle
from isopress.codec.values.quantiser import Fields

_TRIAL_LEVEL = 3
_PIECES, _PIECE = 8, 4096  # of an estimate: pieces, and values of each
_MORE_PIECES, _NEARLY_SURE = 24, 1.3  # a closer look
_SURE = 2  # an estimate is never off by more in all that was measured: then nothing need be coded in full
_PCODEC_TYPES = frozenset(np.dtype(c) for c in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8"))


class Stream(IntEnum):
    """First byte of the section: how the values that follow are coded."""

    STORED = 0
    ZSTD = 1
    SHUFFLED_ZSTD = 2
    PCODEC = 3


def encode_lossless(x: np.ndarray, *, quick: bool = False) -> bytes:
    """Return the smallest of four lossless codings of `x`; `decode_lossless` restores every bit.

    Never longer than 1 byte + the smallest of the raw bytes, zstd (level 3) and pcodec (its default level).

    Parameters
    ----------
    x : ndarray, any shape, bool, integer or float
        Values in native byte order, coded in C order.
    quick : bool
        Leave out zstd's slow level, which takes ten times the memory of `x`.

    Raises
    ------
    ArgumentError
        `x` is of another kind (complex, datetime, text, object).
    """
    if x.dtype.kind not in "biuf" or x.dtype.itemsize > 8:
        raise ArgumentError(f"dtype {x.dtype} cannot be stored; allowed are bool, (u)int8-64 and float16-64")
    flat = np.ascontiguousarray(x).reshape(-1)
    if not flat.size:
        return bytes([Stream.STORED])
    best, stream = Stream.STORED, _raw(flat, Stream.STORED)
    for candidate in (Stream.ZSTD, Stream.SHUFFLED_ZSTD, Stream.PCODEC):  # one at a time: memory is for fields
        coded = _coded(flat, candidate, _TRIAL_LEVEL)
        if coded is not None and len(coded) < len(stream):
            best, stream = candidate, coded
    if best in (Stream.ZSTD, Stream.SHUFFLED_ZSTD) and not quick:  # paid for the winner only
        stream = min(stream, zstd.compress(_raw(flat, best), LEVEL), key=len)
    return bytes([best]) + stream


def lossless_may_reach(x: np.ndarray, size: int) -> bool:
    """Whether a lossless coding of `x` may take no more than `size` bytes, judged by pieces from all over `x`.

    Small arrays are not judged: True. Of a larger one, half of what its pieces foretell must exceed `size`.
    """
    flat = np.ascontiguousarray(x).reshape(-1)
    return flat.size <= 2 * _PIECES * _PIECE or _foretold(flat, _PIECES) <= _SURE * size


def integers_may_reach(y: Fields, size: float) -> bool:
    """Whether a lossless coding of the integers next to `y` may take no more than `size` bytes, judged likewise; where
    a few pieces leave it open, by more of them."""
    flat = y.reshape(-1)
    if flat.size <= 2 * _PIECES * _PIECE:
        return True
    if _foretold(flat, _PIECES, integers=True) > _SURE * size:
        return False
    return flat.size <= 2 * _MORE_PIECES * _PIECE or _foretold(flat, _MORE_PIECES, integers=True) <= _NEARLY_SURE * size


def _foretold(flat: Fields | np.ndarray, pieces: int, *, integers: bool = False) -> float:
    """Return how many bytes a lossless coding would take, by pieces from all over; of the `integers` next to values."""
    starts = np.linspace(0, flat.size - _PIECE, pieces).astype(np.int64)
    some = np.concatenate([flat[start : start + _PIECE] for start in starts.tolist()])
    if integers:
        some = np.rint(some)
        some = some.astype(np.int32 if np.abs(some).max() < 2**31 else np.int64)  # as they would be coded
    return len(encode_lossless(some, quick=True)) * (flat.size / some.size)


def _coded(flat: np.ndarray, stream: Stream, level: int) -> bytes | None:
    if stream != Stream.PCODEC:
        return bytes(zstd.compress(_raw(flat, stream), level))
    return bytes(standalone.simple_compress(flat, ChunkConfig())) if flat.dtype in _PCODEC_TYPES else None


def _raw(flat: np.ndarray, stream: Stream) -> bytes:
    """Return what a stream other than pcodec stores or compresses."""
    shuffled = stream == Stream.SHUFFLED_ZSTD or flat.itemsize == 1
    return shuffle(flat) if shuffled else flat.astype(flat.dtype.newbyteorder("<"), copy=False).tobytes()


def decode_lossless(section: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    """Return the `count` values of `dtype` given to `encode_lossless`, 1-d, native byte order.

    Raises
    ------
    TruncatedPayloadError
        `section` is empty or stores too few bytes.
    CorruptPayloadError
        Unknown stream, damaged stream, or another number of values; checked before allocating.
    """
    if not section:
        raise TruncatedPayloadError("the lossless section is empty; at least 1 byte is needed")
    dtype = dtype.newbyteorder("=")
    size = count * dtype.itemsize
    kind, stream = section[0], section[1:]
    if kind == Stream.PCODEC:
        return _decode_pcodec(stream, dtype, count)
    if kind == Stream.STORED:
        raw = _exactly(stream, size)
    elif kind in (Stream.ZSTD, Stream.SHUFFLED_ZSTD):
        raw = decompress_zstd(stream, size)
    else:
        raise CorruptPayloadError(f"the lossless section has stream {kind}; known are 0 to 3")
    if kind == Stream.SHUFFLED_ZSTD:
        return unshuffle(raw, dtype, count)
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)


def _exactly(stream: bytes, size: int) -> bytes:
    if len(stream) < size:
        raise TruncatedPayloadError(f"the lossless section stores {len(stream)} bytes, {size} are needed")
    if len(stream) > size:
        raise CorruptPayloadError(f"the lossless section stores {len(stream)} bytes, only {size} belong there")
    return stream


def _decode_pcodec(stream: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    if dtype not in _PCODEC_TYPES:
        raise CorruptPayloadError(f"the lossless section claims pcodec for dtype {dtype}, which it cannot hold")
    out = np.zeros(count, dtype)
    try:
        progress = standalone.simple_decompress_into(stream, out)
    except (RuntimeError, TypeError) as error:
        raise CorruptPayloadError(f"a pcodec stream of {len(stream)} bytes is damaged: {error}") from error
    if progress.n_processed != count or not progress.finished:
        raise CorruptPayloadError(f"a pcodec stream holds other than the {count} values needed")
    return out
