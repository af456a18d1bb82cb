"""A uniform quantiser with zlib, which stands for peers in tests of the benchmarks."""

import struct
import zlib
from collections.abc import Callable

import numpy as np

from benchmarks.peers.sized import Layout, Setting, SizedPeer


def noise(*shape: int) -> np.ndarray:
    """A float32 block whose bytes fall steadily as the step grows."""
    return np.random.default_rng(7).normal(10, 2, shape).astype(np.float32)


def quantise(x: np.ndarray, step: float) -> bytes:
    """Whole steps, packed by zlib: a small codec with real bytes."""
    symbols = np.rint(x / step).astype(np.int32)
    return struct.pack("<d", step) + zlib.compress(symbols.tobytes(), 1)


def dequantise(encoded: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `quantise` up to half a step."""
    symbols = np.frombuffer(zlib.decompress(encoded[8:]), np.int32)
    return (symbols * struct.unpack_from("<d", encoded)[0]).astype(dtype).reshape(shape)


def setting(encode: Callable[[np.ndarray, float], bytes] = quantise, *layouts: Layout, name: str = "step") -> Setting:
    return Setting(name, encode, dequantise, layouts or ("block", "fields"))


def peer(*settings: Setting) -> SizedPeer:
    return SizedPeer("zlib", ("numpy",), "here", settings or (setting(),))
