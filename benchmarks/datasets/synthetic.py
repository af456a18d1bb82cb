"""An archive of any size that is on no disk: a Zarr store whose chunks are computed when they are read.

    python -m benchmarks.datasets.synthetic compress synthetic://4-13-240-721-1440.zarr out.zarr    # `isopress`

The name of a store is its size: variables, levels, hours, latitudes, longitudes. Values look like weather, and are the
same in every process: patterns with the spectrum of the atmosphere in three bands of wavelengths, each carried along
by a wind of its own while two patterns of a band take turns, over profiles by latitude and level. A field takes a
hundredth of a second.
"""

import json
import re
import sys
import threading
from functools import lru_cache
from typing import Any

import fsspec
import numpy as np
from fsspec.spec import AbstractFileSystem

PROTOCOL = "synthetic"
DIMS = ("time", "level", "latitude", "longitude")
UNITS = {"t": "K", "u": "m s-1", "v": "m s-1", "q": "kg kg-1"}
LEVELS = 37  # of ERA5
_SIZES = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)-(\d+)\.zarr")
_BANDS = ((1, 8, 0.0, 120.0), (8, 40, 2.0, 60.0), (40, 720, 3.0, 24.0))  # wavenumbers; points an hour, hours a turn
_AMPLITUDES = (1.0, 0.35, 0.14)  # of the bands; with these slopes the bytes of winds are those of ERA5 at 850 hPa
_SLOPES = (-2.0, -2.0, -1.4)  # of amplitudes in two dimensions: E(k) ~ k^-3, then k^-1.8

Array = np.ndarray[Any, Any]
_ONE_AT_A_TIME = threading.Lock()  # the first reads come from many threads: patterns are made once


def url_of(variables: int, levels: int, hours: int, latitudes: int = 721, longitudes: int = 1440) -> str:
    """Return the URL of an archive of up to four variables."""
    return f"{PROTOCOL}://{variables}-{levels}-{hours}-{latitudes}-{longitudes}.zarr"


def field(name: str, hour: int, level: int, shape: tuple[int, int]) -> Array:
    """Return one variable at one hour and level, (lat, lon), float32."""
    seed = list(UNITS).index(name)
    total = np.zeros(shape, np.float32)
    part = np.empty(shape, np.float32)
    for band, (_, _, points, hours) in enumerate(_BANDS):
        angle = 2 * np.pi * (hour / hours + level / 40 + seed / 7)
        shift = round(points * hour) % shape[1]
        with _ONE_AT_A_TIME:
            patterns = _patterns(seed, band, shape)
        for pattern, share in zip(patterns, (np.cos(angle), np.sin(angle)), strict=True):
            weight = np.float32(_AMPLITUDES[band] * share)
            np.multiply(pattern[:, shape[1] - shift :], weight, out=part[:, :shift])
            np.multiply(pattern[:, : shape[1] - shift], weight, out=part[:, shift:])
            total += part
    return _in_units(name, level, total)


def _in_units(name: str, level: int, pattern: Array) -> Array:
    """Return a pattern of deviation 1 as a variable at a level: 0 is the highest."""
    latitude = np.linspace(np.pi / 2, -np.pi / 2, len(pattern), dtype=np.float32)[:, None]
    depth = level / LEVELS
    if name == "t":
        mean = np.float32(210 + 60 * depth) + np.float32(25 * depth) * np.cos(latitude) ** 2
        return np.add(pattern * np.float32(6), mean, out=pattern)
    if name == "q":
        mean = np.float32(1e-5) + np.float32(1.5e-2 * depth**3) * np.cos(latitude) ** 4
        return np.multiply(np.exp(pattern * np.float32(0.5), out=pattern), mean, out=pattern)
    jet = np.float32(20 if name == "u" else 0) * np.sin(2 * latitude) ** 2
    return np.add(pattern * np.float32(8), jet, out=pattern)


@lru_cache(maxsize=64)
def _patterns(seed: int, band: int, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return two independent patterns of a band, deviation 1, periodic in longitude, smooth along the rows at poles."""
    first, last, _, _ = _BANDS[band]
    rng = np.random.default_rng((seed, band))
    rows, columns = shape
    noise = rng.standard_normal((2, 2 * rows, columns), np.float32)
    ky, kx = np.fft.fftfreq(2 * rows, 1 / columns)[:, None], np.fft.rfftfreq(columns, 1 / columns)
    ky, kx = ky.astype(np.float32), kx.astype(np.float32)
    k = np.hypot(ky, kx)
    amplitude = np.where((k >= first) & (k < last), np.maximum(k, 1) ** _SLOPES[band], 0)
    waves = np.fft.irfft2(np.fft.rfft2(noise) * amplitude * np.exp(-((k / 360) ** 4)), (2 * rows, columns))[:, :rows]
    cosine = np.cos(np.linspace(-np.pi / 2, np.pi / 2, rows, dtype=np.float32))[:, None]
    widest = columns / 3 * cosine + 2  # wavenumbers of a row
    waves = np.fft.irfft(np.fft.rfft(waves) * np.exp(-((kx / widest) ** 4)), columns)
    one, other = (waves / (waves.std() or 1)).astype(np.float32)  # a small grid has none of the short waves
    return one, other


@lru_cache(maxsize=8)
def _metadata(name: str) -> dict[str, bytes]:
    """Return every key of a store that is no chunk of values. Written by hand: Zarr is waiting for it."""
    variables, levels, hours, rows, columns = _sizes(name)
    coordinates = {
        "time": (np.arange(hours), {"units": "hours since 2000-01-01"}),
        "level": (np.arange(levels), {"positive": "down"}),
        "latitude": (np.linspace(90, -90, rows), {"units": "degrees_north"}),
        "longitude": (np.arange(columns) * 360 / columns, {"units": "degrees_east"}),
    }
    kept = {"zarr.json": _json({"zarr_format": 3, "node_type": "group", "attributes": {}})}
    for axis, (values, attrs) in coordinates.items():
        kept[f"{axis}/zarr.json"] = _array(values.shape, values.shape, str(values.dtype), (axis,), attrs)
        kept[f"{axis}/c/0"] = values.tobytes()
    shape = hours, levels, rows, columns
    for variable, units in list(UNITS.items())[:variables]:
        kept[f"{variable}/zarr.json"] = _array(shape, (1, 1, rows, columns), "float32", DIMS, {"units": units})
    return kept


def _array(
    shape: tuple[int, ...], chunk: tuple[int, ...], dtype: str, dims: tuple[str, ...], attrs: dict[str, str]
) -> bytes:
    return _json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "dimension_names": dims,
            "attributes": attrs,
        }
    )


def _json(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


def _sizes(name: str) -> tuple[int, ...]:
    match = _SIZES.fullmatch(name)
    if match is None:
        raise FileNotFoundError(name)
    return tuple(map(int, match.groups()))


class SyntheticFileSystem(AbstractFileSystem):
    """The store as fsspec sees it: metadata and coordinates are kept, chunks made."""

    protocol = PROTOCOL
    cachable = True

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return an object, or a part of it."""
        name, _, key = self._strip_protocol(path).partition("/")
        variable, _, place = key.partition("/c/")
        if variable not in UNITS or not place:
            try:
                return _metadata(name)[key][start:end]
            except KeyError:
                raise FileNotFoundError(path) from None
        sizes = _sizes(name)
        hour, level, *_ = map(int, place.split("/"))
        if not (hour < sizes[2] and level < sizes[1]):
            raise FileNotFoundError(path)
        return field(variable, hour, level, (sizes[3], sizes[4])).tobytes()[start:end]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Return what is known of an object that is kept; of chunks nothing is asked."""
        name, _, key = self._strip_protocol(path).partition("/")
        if key not in _metadata(name):
            raise FileNotFoundError(path)
        return {"name": path, "size": len(_metadata(name)[key]), "type": "file"}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """Return what a folder holds, of metadata alone."""
        name, _, key = self._strip_protocol(path).partition("/")
        prefix = f"{key}/" if key else ""
        below = {known[len(prefix) :].partition("/")[0] for known in _metadata(name) if known.startswith(prefix)}
        paths = [f"{name}/{prefix}{child}" for child in sorted(below)]
        return [{"name": path, "size": 0, "type": "directory"} for path in paths] if detail else paths


fsspec.register_implementation(PROTOCOL, SyntheticFileSystem, clobber=True)

if __name__ == "__main__":
    from isopress.cli.main import main

    main(sys.argv[1:])
