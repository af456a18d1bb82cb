"""SPEC chapter 4: from the sections of a payload to the array, from the text alone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray
from pcodec import standalone

from tests.spec import block, latent, pyramid, vaeformer
from tests.spec.entropy import Bytes, Tensors
from tests.spec.reader import Parsed, parse

Array = NDArray[Any]
Weights = Callable[[bytes], tuple[dict[str, Any], Tensors]]  # of a model id: metadata `synthesis`, and tensors
SECTIONS = {  # of a method: those that must be there, and those that may
    0: ({1}, {2, 7, 9}),
    1: ({6}, {9}),
    2: ({1, 4}, {2, 3, 7, 9}),
    3: ({1, 5}, {2, 3, 7, 9}),
    4: ({1, 8}, {2, 3, 7, 9}),
    5: ({10}, {2}),
    6: ({1, 4, 10, 11}, {2, 9}),
    7: ({12}, set()),
    8: ({13}, {2}),
    9: ({1, 4, 11, 13}, {2, 9}),
}
MODELS = (0, 0, 1, 0, 1, 1, 2, 0, 1, 2)
C = (
    1.0, 0.6931471805599453, 0.24022650695910072, 0.05550410866482158, 0.009618129107628477, 0.0013333558146428443,
    0.0001540353039338161, 1.5252733804059841e-05, 1.321548679014431e-06, 1.01780860092397e-07, 7.054911620801123e-09,
    4.4455382718708116e-10,
)  # fmt: skip


def decode(parsed: Parsed, weights: Weights) -> Array:
    """Return the array of a payload."""
    little, shape = np.dtype(parsed.dtype).newbyteorder("<"), tuple(parsed.shape)
    coded = shape
    while parsed.mode != "joint" and coded[-1:] == (1,):
        coded = coded[:-1]
    must, may = SECTIONS[parsed.method]
    assert must <= set(parsed.sections) <= must | may
    assert parsed.method == 7 or len(parsed.models) == MODELS[parsed.method]
    if parsed.method == 7:
        x = layers(parsed.sections[12], shape, little, weights)
    elif parsed.method == 1:
        x = lossless(parsed.sections[6], little, prod(shape))
    else:
        assert parsed.dtype in ("float32", "float64")
        x = overlaid(floats(parsed, coded, little, [weights(model) for model in parsed.models]), parsed.sections)
    order: Any = "F" if parsed.fortran else "C"
    return np.asarray(x.reshape(shape), little.newbyteorder(">" if parsed.big_endian else "<"), order=order)


def floats(parsed: Parsed, shape: tuple[int, ...], dtype: np.dtype[Any], weights: list[Any]) -> Array:
    """Return values (B, H, W) before signs, special values and exceptions."""
    sections, method = parsed.sections, parsed.method
    height, width = (1, 1, *shape)[-2:]
    leading = shape[:-2]
    fields = prod(leading), height, width
    if method == 0:
        assert len(sections[1]) == dtype.itemsize
        return np.full(fields, np.frombuffer(sections[1], dtype)[0])
    if method in (5, 8):
        x, limits = under(sections, method, (*leading, height, width), weights[0]), np.finfo(dtype)
        return x.reshape(fields).clip(limits.min, limits.max).astype(dtype)
    if method == 2:
        v: Array = pyramid.decode(sections[4], fields, weights[0][1])
    elif method == 3:
        (itemsize,) = sections[5][:1]
        assert itemsize in (4, 8)
        v = 64 * lossless(sections[5][1:], np.dtype(f"<i{itemsize}"), prod(fields)).astype(np.int64)
    elif method == 4:
        v = block.decode(sections[8], shape, weights[0][1])
    else:
        (margin,) = struct.unpack("<d", sections[11])
        assert 0 <= margin <= 0.125
        y = under(sections, method, (*leading, height, width), weights[0]).reshape(fields)
        if method == 9:
            y = steps(sections[1], y)
        v = y * 64 + pyramid.decode(sections[4], fields, weights[1][1]) / (1 + margin)
    return data(sections[1], v.reshape(fields)).astype(dtype)


def under(sections: dict[int, bytes], method: int, shape: tuple[int, ...], weights: Any) -> Array:
    """Return what section 10 or 13 alone decodes to."""
    if method in (5, 6):
        return latent.values(sections[10], shape, *weights)
    return vaeformer.fields(sections[13], shape, *weights)


# --- SPEC 4.5 ---------------------------------------------------------------------------------------------------------


def layers(section: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], weights: Weights) -> Array:
    """Return the values of a chunk that was written in part."""
    reader = Bytes(section)
    x = np.zeros(shape, dtype)
    for number in range(reader.take(1)[0]):
        corner = [reader.varint() for _ in shape]
        hole = reader.take(dtype.itemsize) if reader.take(1)[0] else b""
        inner = parse(reader.take(reader.varint()))
        assert inner.method != 7
        values = decode(inner, weights).astype(dtype)
        assert number or (values.shape == shape and not any(corner) and not hole)
        box = tuple(slice(at, at + size) for at, size in zip(corner, values.shape, strict=True))
        assert x[box].shape == values.shape
        shows = [bits.tobytes() != hole for bits in np.ravel(values)]
        x[box] = np.where(np.reshape(shows, values.shape), values, x[box])
    assert not reader.left
    return x


# --- SPEC 4.1 ---------------------------------------------------------------------------------------------------------


def data(section: bytes, v: Array) -> NDArray[np.float64]:
    """Return v as data, in binary64."""
    transform, offset, step, knee = parameters(section, len(v))
    t = v.astype(np.float64) / 64 * step + offset
    if transform == 0:
        return t
    if transform == 1:
        return exp2(t)
    slope, shift = knee
    m = abs(t)
    return np.copysign(np.where(m < 1.4426950408889634, m * slope, exp2(m + shift)), t)


def steps(section: bytes, x: Array) -> Array:
    """Return values (B, H, W) in steps, as 6.11 wants them for method 9."""
    _, offset, step, _ = parameters(section, len(x))
    return (x - offset) / step


def parameters(section: bytes, fields: int) -> tuple[int, Array, Array, list[float]]:
    """Return transform, offsets and steps (fields or 1, 1, 1), and the numbers of transform 2."""
    flags, transform = section[0], section[0] & 3
    assert flags < 16
    assert transform < 3
    counts = [fields if flags & 4 else 1, fields if flags & 8 else 1, 2 * (transform == 2)]
    numbers = np.frombuffer(section, "<f8", offset=1)
    assert len(numbers) == sum(counts)
    assert np.isfinite(numbers).all()
    offset, step, knee = np.split(numbers, np.cumsum(counts)[:2])
    assert (step > 0).all()
    return transform, offset[:, None, None], step[:, None, None], knee.tolist()


def exp2(t: NDArray[np.float64]) -> NDArray[np.float64]:
    k = np.floor(t + 0.5).clip(-2044, 2046)
    f = (t - k).clip(-0.5, 0.5)
    p = np.full_like(t, C[11])
    for c in C[10::-1]:
        p = p * f + c
    h = np.floor(k / 2)
    with np.errstate(over="ignore"):
        result: NDArray[np.float64] = p * np.ldexp(1.0, h.astype(int)) * np.ldexp(1.0, (k - h).astype(int))
    return result


# --- SPEC 4.2 ---------------------------------------------------------------------------------------------------------


def frame(content: bytes, size: int) -> bytes:
    found = bytes(zstd.decompress(content))
    assert len(found) == size
    return found


def packed(content: bytes, size: int) -> bytes:
    kind, rest = content[0], content[1:]
    assert kind in (0, 1)
    found = frame(rest, size) if kind else rest
    assert len(found) == size
    return found


def unshuffled(content: bytes, dtype: np.dtype[Any]) -> Array:
    return np.frombuffer(content, np.uint8).reshape(dtype.itemsize, -1).T.copy().view(dtype)[:, 0]


def lossless(content: bytes, dtype: np.dtype[Any], count: int) -> Array:
    stream, rest, size = content[0], content[1:], count * dtype.itemsize
    if stream == 3:
        found = standalone.simple_decompress(rest)
        assert found is not None
        assert (found.dtype, len(found)) == (dtype.newbyteorder("="), count)
        return np.asarray(found)
    if stream == 2:
        return unshuffled(frame(rest, size), dtype)
    assert stream in (0, 1)
    found = np.frombuffer(frame(rest, size) if stream else rest, dtype)
    assert len(found) == count
    return found


# --- SPEC 4.3 and 4.4 -------------------------------------------------------------------------------------------------


def classes(content: bytes, shape: tuple[int, ...], count: int) -> NDArray[np.uint8]:
    flags, rest, n = content[0], content[1:], prod(shape)
    assert flags < 4
    if flags & 1:
        (runs,) = struct.unpack_from("<I", rest)
        assert runs <= n
        raw = packed(rest[4:], 5 * runs)
        lengths = unshuffled(raw[runs:], np.dtype("<u4"))
        assert lengths.sum(dtype=np.uint64) == n
        found = np.frombuffer(raw[:runs], np.uint8).repeat(lengths)
    else:
        bits = (count - 1).bit_length()
        planes = np.frombuffer(packed(rest, bits * (-(-n // 8))), np.uint8).reshape(bits, -1)
        found = sum(np.unpackbits(planes[i], bitorder="little")[:n] << i for i in range(bits))  # type: ignore[assignment]
    found = np.asarray(found, np.uint8).reshape(shape)
    if flags & 2:
        found = np.bitwise_xor.accumulate(found, axis=0)
    assert (found < count).all()
    return found


def overlaid(x: Array, sections: dict[int, bytes]) -> Array:
    """Apply sections 3, 2 and 7, in this order."""
    width = x.dtype.itemsize
    bits = np.ascontiguousarray(x).view(f"<u{width}")
    if 3 in sections:
        bits = bits ^ (classes(sections[3], x.shape, 2).astype(bits.dtype) << np.array(8 * width - 1, bits.dtype))
    if 2 in sections:
        n, end = sections[2][0], 1 + sections[2][0] * width
        assert n
        patterns = np.frombuffer(sections[2][1:end], bits.dtype)
        of = classes(sections[2][end:], x.shape, n + 1)
        bits = np.where(of > 0, patterns[of.astype(int) - 1], bits)
    if 7 in sections:
        bits = excepted(bits, sections[7])
    return bits.view(x.dtype)


def excepted(bits: Array, section: bytes) -> Array:
    form, width = section[:2]
    flat, itemsize = bits.ravel().copy(), bits.dtype.itemsize
    assert form in (0, 1)
    if form:
        assert width in (2, 4, 8)
        assert width <= itemsize
        change = lossless(section[2:], np.dtype(f"<i{width}"), flat.size)
        return (flat + change.astype(f"<i{itemsize}").view(bits.dtype)).reshape(bits.shape)
    assert 1 <= width <= 8
    (n,) = struct.unpack_from("<Q", section, 2)
    assert n <= flat.size
    raw = packed(section[10:], n * (width + itemsize))
    gaps = np.zeros((n, 8), np.uint8)
    gaps[:, :width] = np.frombuffer(raw[: n * width], np.uint8).reshape(width, n).T
    positions = (gaps.view("<u8")[:, 0] + 1).cumsum() - 1
    flat[positions] = unshuffled(raw[n * width :], bits.dtype)
    return flat.reshape(bits.shape)
