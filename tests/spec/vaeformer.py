"""SPEC 6.11: the integers of section 13 and the values that they become, from the text alone; floats in binary64."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np

from tests.spec.entropy import CodedStream, Integers, Tensors, crc32c
from tests.spec.layers import Array, Weights, block, gelu, windows
from tests.spec.wavelet import lifted

Config = Mapping[str, Any]


def fields(section: bytes, shape: tuple[int, ...], config: Config, tensors: Tensors) -> Array:
    """Return the values (hours, C, H, W) of a section."""
    flags, q = struct.unpack_from("<Bh", section)
    weights, found, periodic = Weights(tensors, ""), [], flags % 2 == 1
    deviation, means, _ = _normalisation(section, shape, config, tensors)
    for (z, y), mean_of in zip(symbols(section, shape, config, tensors), means, strict=True):
        c = _scales(tensors, z, q, config["hyper_patch"], periodic)[:, : y.shape[1], : y.shape[2]]
        mean = _means(z, c, q, periodic, config, weights.part("hyper_decoder"))
        latent = ((mean + y) / np.exp(_step(weights.part("gain"), q))[:, None, None]).transpose(1, 2, 0)
        x = _decoded(latent, q, periodic, config, weights.part("decoder"))[:, : shape[-2], : shape[-1]]
        found.append((x * deviation[:, None, None] + mean_of[:, None, None])[_order(section, config["channels"])])
    return np.stack(found)


def _order(section: bytes, C: int) -> list[int]:
    """Return which channel of the weights each one of the array is."""
    if section[0] < 4:
        return list(range(C))
    order = np.frombuffer(section, "<u2", C, 3).tolist()
    assert sorted(order) == list(range(C)) != order
    return order


def _normalisation(
    section: bytes, shape: tuple[int, ...], config: Config, tensors: Tensors
) -> tuple[Array, Array, int]:
    """Return the deviations (C,) and means (T, C) of channels, and where the coded stream begins."""
    C = config["channels"]
    hours = int(np.prod(shape[:-2])) // C
    start = 3 + 2 * C * (section[0] >= 4)
    if not section[0] & 2:
        deviation, mean = (tensors[f"channels.{name}"].astype("f8") for name in ("deviation", "mean"))
        return deviation, np.broadcast_to(mean, (hours, C)), start
    numbers = np.frombuffer(section, "<f4", C * (1 + hours), start).astype("f8")
    assert np.isfinite(numbers).all()
    assert (numbers[:C] > 0).all()
    return numbers[:C], numbers[C:].reshape(hours, C), start + 4 * len(numbers)


def symbols(
    section: bytes, shape: tuple[int, ...], config: Config, tensors: Tensors
) -> list[tuple[Integers, Integers]]:
    """Return hyper-latents (Z, h', w') and symbols (L, h, w) of every hour; their checksum is that of the section."""
    flags, q = struct.unpack_from("<Bh", section)
    assert flags < 8
    periodic, (*_, start) = flags % 2 == 1, _normalisation(section, shape, config, tensors)
    assert abs(q) <= 640
    hours = int(np.prod(shape[:-2])) // config["channels"]
    assert hours * config["channels"] == np.prod(shape[:-2])
    h, w = (
        1 + max(0, -(-(n - k) // s)) for n, k, s in zip(shape[-2:], config["kernel"], config["stride"], strict=True)
    )
    p = config["hyper_patch"]
    grid = -(-h // p), -(-w // p)
    stream, found = CodedStream(section[start:-4]), []
    for _ in range(hours):
        z = np.stack([_hyper(stream, tensors, c, grid) for c in range(config["hyper_latents"])])
        assert (abs(z) <= 127).all()
        c = _scales(tensors, z, q, p, periodic)[:, :h, :w]
        y = np.empty(c.shape, np.int64)
        for i, tail in enumerate(tensors["latents.tail"].tolist()):
            delta = stream.delta()
            y[i] = stream.symbols(c[i].ravel() + delta, np.full(h * w, tail)).reshape(h, w)
        assert (abs(y) <= 2**24).all()
        found.append((z, y))
    stream.finish()
    integers = b"".join(part.astype("<i4").tobytes() for hour in found for part in hour)
    assert crc32c(integers) == struct.unpack("<I", section[-4:])[0]
    return found


def _hyper(stream: CodedStream, tensors: Tensors, c: int, grid: tuple[int, int]) -> Integers:
    """Return one channel of hyper-latents."""
    usual = int(tensors["hyper.centre"][c]) + stream.delta()
    delta, n = stream.delta(), grid[0] * grid[1]
    scale, tail = int(tensors["hyper.scale"][c]), int(tensors["hyper.tail"][c])
    return stream.symbols(np.full(n, scale + delta), np.full(n, tail)).reshape(grid) + usual


def _scales(tensors: Tensors, z: Integers, q: int, p: int, periodic: bool) -> Integers:
    """Return the scale indexes of all latents of an hour, (L, p h', p w')."""
    (_, rows, columns), out = z.shape, []
    for i in range(rows):
        for j in range(columns):
            around = []
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    column = (j + dj) % columns if periodic else min(max(j + dj, 0), columns - 1)
                    around.append(z[:, min(max(i + di, 0), rows - 1), column])
            out.append(np.concatenate([*around, [min(max(q // 8, -127), 127)]]))
    x = np.stack(out)
    for name in ("first", "last"):
        weight, bias, shift = (tensors[f"scales.{name}.{part}"] for part in ("weight", "bias", "shift"))
        sums = x @ weight.T.astype(np.int64) + bias
        x = np.rint(np.ldexp(sums.astype(np.float64), -shift.astype(np.int32))).astype(np.int64)
        x = x.clip(0, 127) if name == "first" else x.clip(-240, 240)
    indexes = x.reshape(rows, columns, p, p, -1).transpose(4, 0, 2, 1, 3)
    result: Integers = indexes.reshape(-1, rows * p, columns * p) - q * 8 // 32
    return result


# --- floats -----------------------------------------------------------------------------------------------------------


def _step(part: Weights, q: int) -> Array:
    """Return what a part makes of the step."""
    return part.linear("layers.2", gelu(part.linear("layers.0", np.array([q / 32 * log(2) / 4]))))


def _means(z: Integers, c: Integers, q: int, periodic: bool, config: Config, part: Weights) -> Array:
    """Return the means (L, h, w) of latents of scale indexes c."""
    t = part.linear("tokens.2", gelu(part.linear("tokens.0", z.transpose(1, 2, 0).astype("f8"))))
    t = t + _step(part.part("embedding.step"), q)
    for n in range(config["hyper_depth"]):
        odd = config["shift"] and (config["hyper_depth"] + n) % 2 == 1
        high, wide = config.get("hyper_window") or t.shape[:2]
        rows, columns = windows(t.shape[0], high, odd, False), windows(t.shape[1], wide, odd, periodic)
        t = block(t, rows, columns, config["hyper_heads"], periodic, part.part(f"blocks.{n}"))
    mean = _patches(part.norm("norm", t), part, "latents")[:, : c.shape[1], : c.shape[2]]
    return mean * np.clip(0.06 * 2.0 ** ((c + 11) / 8), 0.11, 256)


def _decoded(y: Array, q: int, periodic: bool, config: Config, part: Weights) -> Array:
    """Return fields (C, rows, columns) of latents (h, w, L), in standard deviations."""
    t = part.linear("tokens", np.arcsinh(y)) + _step(part.part("embedding.step"), q)
    every = config["global_every"]
    for n in range(config["depth"]):
        at = config["depth"] + n
        turn = (at % every if every else at) % len(config["windows"])
        high, wide = t.shape[:2] if every and (at + 1) % every == 0 else config["windows"][turn]
        odd = config["shift"] and at % 2 == 1
        rows, columns = windows(t.shape[0], high, odd, False), windows(t.shape[1], wide, odd, periodic)
        t = block(t, rows, columns, config["heads"], periodic, part.part(f"blocks.{n}"))
    x = _patches(part.norm("norm", t), part, "fields")
    linear = _wavelet(y, config, periodic) if config.get("linear") == "wavelet" else _patches(y, part, "skip")
    return (x + linear) * 2.0 ** (q / 32)


def _wavelet(y: Array, config: Config, periodic: bool) -> Array:
    """Return the fields (C, rows, columns) of which latents (h, w, L) are wavelet coefficients."""
    (h, w), (k, _) = y.shape[:2], config["kernel"]
    x = y.reshape(h, w, -1, k, k).transpose(2, 0, 3, 1, 4).reshape(-1, h * k, w * k)
    for stride in [2**m for m in reversed(range(k.bit_length() + 1))]:
        part = x[:, ::stride, ::stride]  # what it holds so far lies at even rows and columns
        bands = [part[:, i::2, j::2].transpose(1, 2, 0) for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
        circle = periodic and bands[0].shape[1] == bands[1].shape[1]
        low, high = (_join(a, b, 1, circle) for a, b in (bands[:2], bands[2:]))
        x[:, ::stride, ::stride] = _join(low, high, 0, False).transpose(2, 0, 1)
    return x


def _join(low: Array, high: Array, axis: int, circle: bool) -> Array:
    """Join bands along an axis: the lifting of 6.6 without rounding."""
    low, high = np.moveaxis(low, axis, 0), np.moveaxis(high, axis, 0)
    if len(high):
        rows = lifted(list(low), list(high), circle, lambda value, like: value, lambda value: value)
        low = np.array(rows)
    return np.moveaxis(low, 0, axis)


def _patches(t: Array, part: Weights, name: str) -> Array:
    """Return the patches (channel, row, column) that tokens (h, w, D) become."""
    weight = part.tensor(f"{name}.conv.weight")
    x = np.einsum("ijd,dnab->niajb", t, weight)
    return x.reshape(len(x), x.shape[1] * x.shape[2], -1)
