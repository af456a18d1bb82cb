"""The peer every archive can have for free: round within the bound, then compress losslessly with pcodec."""

import math
import struct

import numpy as np

from benchmarks.cases.metrics import distortion


def encode(x: np.ndarray, tolerance: float, setting: str) -> bytes:
    """Return a header (the step as float64, 0 if the values are floats already) and the pcodec stream."""
    from pcodec import ChunkConfig, standalone

    step = 2 * tolerance if setting == "linear step" else 0.0
    rounded = _ROUNDINGS[setting](x, tolerance)
    stream: bytes = standalone.simple_compress(np.ravel(rounded), ChunkConfig(compression_level=12))
    return struct.pack("<d", step) + stream


def decode(encoded: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return the rounded values."""
    from pcodec import standalone

    (step,) = struct.unpack_from("<d", encoded)
    values = np.asarray(standalone.simple_decompress(encoded[8:]))
    return (values * step if step else values).astype(dtype).reshape(shape)


def bit_rounded(x: np.ndarray, tolerance: float) -> np.ndarray:
    """Keep the fewest mantissa bits, the same number for all values, that hold the tolerance."""
    from numcodecs.bitround import BitRound

    def rounded(keepbits: int) -> np.ndarray:
        return np.asarray(BitRound(keepbits).encode(x)).view(x.dtype).reshape(x.shape)

    candidates = (rounded(keepbits) for keepbits in range(1, np.finfo(x.dtype).nmant))
    return next((y for y in candidates if distortion(x, y).max_error <= tolerance), x)


def binary_rounded(x: np.ndarray, tolerance: float) -> np.ndarray:
    """Round each value on its own: to a multiple of the largest power of two that holds the tolerance."""
    step = 2.0 ** math.floor(math.log2(2 * tolerance))
    rounded: np.ndarray = (np.rint(x.astype(np.float64) / step) * step).astype(x.dtype)
    return rounded


def linear_symbols(x: np.ndarray, tolerance: float) -> np.ndarray:
    """Quantise to integers with a step of twice the tolerance."""
    symbols = np.rint(x.astype(np.float64) / (2 * tolerance)).astype(np.int64)
    narrow = np.abs(symbols).max(initial=0) < 2**31
    return symbols.astype(np.int32) if narrow else symbols


_ROUNDINGS = {"bit-rounding": bit_rounded, "binary step": binary_rounded, "linear step": linear_symbols}
SETTINGS = tuple(_ROUNDINGS)
