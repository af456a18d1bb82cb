"""Generated fields that look like weather: smooth, rough, masked, periodic, noisy, stepped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isopress.codec.chunk.decode import ChunkDecoder
from isopress.codec.encoded import EncodedChunk

BLOCKY_MEAN, BLOCKY_DEVIATION = np.float32([281, 253, 1]), np.float32([15, 12, 6])  # of the channels of `blocky`


def spectral_field(height: int, width: int, *, slope: float = 2.5, seed: int = 0) -> NDArray[np.float64]:
    """Return a random field, periodic in both axes, whose amplitude falls as wavenumber**-slope; unit deviation."""
    rng = np.random.default_rng(seed)
    ky, kx = np.meshgrid(np.fft.fftfreq(height) * height, np.fft.fftfreq(width) * width, indexing="ij")
    amplitude = (1.0 + np.hypot(ky, kx)) ** -slope
    amplitude[0, 0] = 0
    field = np.fft.ifft2(amplitude * np.exp(2j * np.pi * rng.random((height, width)))).real
    return field / (field.std() or 1.0)


def varied_fields() -> dict[str, NDArray[np.float64]]:
    """Return two dozen named fields of many shapes and characters."""
    rng = np.random.default_rng(7)
    fields = {
        f"slope {slope} {h}x{w}": spectral_field(h, w, slope=slope, seed=i)
        for i, (slope, h, w) in enumerate(
            (s, *shape) for s in (1.0, 2.0, 3.0, 4.0) for shape in ((64, 128), (61, 75), (90, 33), (17, 200))
        )
    }
    smooth = spectral_field(80, 96, slope=3.5, seed=99)
    return fields | {
        "noise": rng.normal(size=(50, 70)),
        "one row": spectral_field(1, 400, slope=1.5),
        "one column": spectral_field(300, 1, slope=1.5),
        "front": np.tanh(20 * smooth),
        "plateaus": np.rint(4 * smooth),
        "rain": np.maximum(smooth - 1, 0) ** 2,
        "spike": np.where(np.arange(80 * 96).reshape(80, 96) == 3000, 50.0, smooth),
        "tiny": smooth * 1e-3,
    }


def drifting_fields(*shape: int, slope: float = 2.0, seed: int = 0) -> NDArray[np.float64]:
    """Return fields (..., height, width) that change slowly and smoothly along all axes before the last two."""
    parts = [spectral_field(*shape[-2:], slope=slope, seed=seed + i) for i in range(3)]
    fields = np.empty(shape)
    for at in np.ndindex(*shape[:-2]):
        t = sum((k + 1) * x for k, x in enumerate(at)) / 6
        fields[at] = np.cos(t) * parts[0] + np.sin(t) * parts[1] + 0.1 * np.cos(2.3 * t + 1) * parts[2]
    return fields


def sphere_field(height: int, width: int, *, seed: int = 0, count: int = 400) -> NDArray[np.float64]:
    """Return a field on latitudes from pole to pole and all longitudes, alike in all directions on the sphere; unit
    deviation."""
    rng = np.random.default_rng(seed)
    lat, lon = np.deg2rad(np.linspace(90, -90, height))[:, None], np.linspace(0, 2 * np.pi, width, endpoint=False)
    points = np.stack(np.broadcast_arrays(np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), -1)
    direction = rng.normal(size=(count, 3))
    number = np.exp(rng.uniform(np.log(2), np.log(height / 2), count))
    waves = number[:, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    field = np.cos(points @ waves.T + rng.uniform(0, 2 * np.pi, count)) @ number**-1.0
    field -= field.mean()
    return field / field.std()


def waves(*shape: int) -> np.ndarray:
    """A smooth float32 block, every field a little different."""
    *_, h, w = shape
    field = np.add.outer(np.sin(np.linspace(0, 3, h)), np.cos(np.linspace(0, 5, w)))
    steps = np.arange(np.prod(shape[:-2], dtype=int)).reshape(*shape[:-2], 1, 1)
    return (field * (1 + 0.1 * steps)).astype(np.float32).reshape(shape)


def blocky(*leading: int, shape: tuple[int, int] = (26, 39), seed: int = 0) -> NDArray[np.float32]:
    """Return chunks (..., 3, H, W) of patches that are each nearly constant: what the cosine transform codes best."""
    rng = np.random.default_rng(seed)
    h, w = (-(-n // 4) for n in shape)
    coarse = rng.standard_normal((*leading, 3, h, w)).repeat(4, -2).repeat(4, -1)[..., : shape[0], : shape[1]]
    x = coarse + 0.005 * rng.standard_normal(coarse.shape)
    return (x * BLOCKY_DEVIATION[:, None, None] + BLOCKY_MEAN[:, None, None]).astype(np.float32)


def half_smooth(height: int, width: int) -> NDArray[np.float64]:
    """Return a field in steps, so smooth in most places that nothing is to be coded there, rough elsewhere."""
    rows, columns = np.mgrid[:height, :width]
    smooth = 40 * np.sin(rows / 19) * np.cos(columns / 23) + rows / 7
    rough = np.random.default_rng(7).normal(0, 1, (height, width)) * (np.sin(columns / 15) > 0.5)
    return smooth + rough


def decode_chunk(encoded: EncodedChunk, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return all values of a chunk."""
    return ChunkDecoder(encoded, dtype, shape).decode()
