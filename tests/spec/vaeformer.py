"""SPEC 6.11: the integers of section 13, from the text alone. What follows them is float, and not decoded here."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.spec.entropy import CodedStream, Integers, Tensors, crc32c


def symbols(
    section: bytes, shape: tuple[int, ...], config: Mapping[str, Any], tensors: Tensors
) -> list[tuple[Integers, Integers]]:
    """Return hyper-latents (Z, h', w') and symbols (L, h, w) of every hour; their checksum is that of the section."""
    flags, q = struct.unpack_from("<Bh", section)
    assert flags < 2
    assert abs(q) <= 640
    hours = int(np.prod(shape[:-2])) // config["channels"]
    assert hours * config["channels"] == np.prod(shape[:-2])
    h, w = (
        1 + max(0, -(-(n - k) // s)) for n, k, s in zip(shape[-2:], config["kernel"], config["stride"], strict=True)
    )
    p = config["hyper_patch"]
    grid = -(-h // p), -(-w // p)
    stream, found = CodedStream(section[3:-4], tensors), []
    for _ in range(hours):
        z = np.stack([_hyper(stream, tensors, c, grid) for c in range(config["hyper_latents"])])
        assert (abs(z) <= 127).all()
        c = _scales(tensors, z, q, p, flags == 1)[:, :h, :w]
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
    delta, n = stream.delta(), grid[0] * grid[1]
    scale, tail = int(tensors["hyper.scale"][c]), int(tensors["hyper.tail"][c])
    return stream.symbols(np.full(n, scale + delta), np.full(n, tail)).reshape(grid) + int(tensors["hyper.centre"][c])


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
