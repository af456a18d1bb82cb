"""Peers at a chosen size: records of the codecs, and the search for the setting that writes so many bytes.

Where `codecs` asks for the fewest bytes within an error bound, this module asks for the smallest RMSE at a size.
A setting has one number, its coarseness: the larger, the fewer bytes.
"""

import io
import math
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Literal

import numpy as np

from benchmarks.cases.metrics import distortion, value_range
from benchmarks.peers.bounded import Shape, decode_sz3, encode_sz3, wasm

Layout = Literal["block", "volumes", "fields", "stacked"]
How = Literal["measured", "interpolated", "smaller"]

EXACT = 0.005  # bytes that close to the target are at the target
CLOSE = 0.05  # two points no further apart may be interpolated
TRIES = 14
FIRST_STEP = 0.1  # first coarseness of a step or tolerance, as a fraction of the block's range


@dataclass(frozen=True)
class Setting:
    """One way to use a codec.

    Attributes
    ----------
    name : str
        Name in tables.
    encode : callable
        encode(x, coarseness) -> bytes, for x as a layout leaves it.
    decode : callable
        decode(bytes, dtype, shape) -> decoded x.
    layouts : tuple of str
        The layouts it is tried in (`split`); a single field is coded as such by every setting.
    by_ratio : bool
        Whether its coarseness is a compression ratio; else a step, a tolerance or an RMSE in data units.
    single_fields_only : bool
        Left out for blocks of several fields, because it takes too long there.
    """

    name: str
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes, np.dtype, Shape], np.ndarray]
    layouts: tuple[Layout, ...]
    by_ratio: bool = False
    single_fields_only: bool = False


@dataclass(frozen=True)
class SizedPeer:
    """One codec with everything that can be chosen about it; `packages` are its distributions on PyPI."""

    name: str
    packages: tuple[str, ...]
    source: str
    settings: tuple[Setting, ...]

    def version(self) -> str | None:
        """Return the installed versions, None if a package is missing."""
        try:
            return " ".join(version(package) for package in self.packages)
        except PackageNotFoundError:
            return None


@dataclass(frozen=True)
class Point:
    """A peer at a size: bytes, RMSE in data units, and the choices that led there.

    `how` is "measured" for real bytes within 0.5 % of the size asked for, "interpolated" between two encodings at
    most 5 % apart (then the bytes are those asked for), and "smaller" for the encoding next below where the codec
    skips the size. `coarseness` is that of the encoding, or of the finer of the two.
    """

    n_bytes: float
    rmse: float
    setting: str
    layout: Layout
    coarseness: float
    how: How


class SizeNotReachedError(Exception):
    """A setting has no encoding of the size asked for, or did not find it in its time."""


def layouts_of(setting: Setting, x: np.ndarray) -> tuple[Layout, ...]:
    """Return the layouts in which a setting is tried on `x`; a single field has only one."""
    if x.size == math.prod(x.shape[-2:]):
        return ("fields",)
    if setting.single_fields_only:
        return ()
    return tuple(layout for layout in setting.layouts if layout != "volumes" or x.ndim > 3)


def split(x: np.ndarray, layout: Layout) -> list[np.ndarray]:
    """Return the arrays that are coded one by one: (field, lat, lon) for blocks, (level, lat, lon) volumes, (lat, lon).

    "stacked" puts all fields below one another in one (field * lat, lon) image: one header, and a codec that shares
    its bytes out does so over all fields.
    """
    if layout == "block":
        return [x.reshape(-1, *x.shape[-2:])]
    if layout == "stacked":
        return [x.reshape(-1, x.shape[-1])]
    return list(x.reshape(-1, *x.shape[-(3 if layout == "volumes" else 2) :]))


def code(setting: Setting, layout: Layout, x: np.ndarray, coarseness: float) -> tuple[int, np.ndarray]:
    """Return the bytes of all parts together, and the decoded values."""
    parts = split(x, layout)
    encoded = [setting.encode(np.ascontiguousarray(part), coarseness) for part in parts]
    decoded = [setting.decode(data, x.dtype, part.shape) for data, part in zip(encoded, parts, strict=True)]
    return sum(map(len, encoded)), np.stack(decoded).reshape(x.shape)


class Search:
    """One setting in one layout on one block: every encoding is kept, so that one size helps to find the next.

    Parameters
    ----------
    setting, layout : Setting, str
        What is tried.
    x : ndarray, (lat, lon) with any axes before, float32 or float64
        The block, all values finite.
    seconds : float
        Processor time for one size after which no other encoding is started.
    """

    def __init__(self, setting: Setting, layout: Layout, x: np.ndarray, seconds: float) -> None:
        self._setting, self._layout, self._x, self._seconds = setting, layout, x, seconds
        self._tried: dict[float, tuple[int, float]] = {}

    def point(self, n_bytes: float) -> Point:
        """Return the setting's point at `n_bytes`.

        Raises
        ------
        SizeNotReachedError
            Every encoding is larger, or time ran out.
        """
        deadline = time.process_time() + self._seconds
        for turn in range(TRIES):
            close = [each for each, (size, _) in self._tried.items() if abs(size / n_bytes - 1) <= EXACT]
            if close:
                return self._point(close[0], "measured")
            coarseness = self._next(n_bytes)
            if coarseness in self._tried:  # the search has closed in on a jump
                break
            if time.process_time() > deadline:
                raise SizeNotReachedError(f"more than {self._seconds:g} s for {turn} encodings")
            size, x_hat = code(self._setting, self._layout, self._x, coarseness)
            self._tried[coarseness] = size, distortion(self._x, x_hat).rmse
        return self._nearest(n_bytes)

    def _next(self, n_bytes: float) -> float:
        if self._tried:
            return next_coarseness({each: size / n_bytes for each, (size, _) in self._tried.items()})
        return self._x.nbytes / n_bytes if self._setting.by_ratio else FIRST_STEP * value_range(self._x)

    def _nearest(self, n_bytes: float) -> Point:
        """Interpolate between the closest encodings on either side, or take the one below."""
        sizes = {each: size for each, (size, _) in self._tried.items()}
        below = max((each for each in sizes if sizes[each] <= n_bytes), key=sizes.__getitem__, default=None)
        above = min((each for each in sizes if sizes[each] > n_bytes), key=sizes.__getitem__, default=None)
        if below is None:
            raise SizeNotReachedError(f"{min(sizes.values())} bytes at least")
        if above is None or sizes[above] > sizes[below] * (1 + CLOSE):
            return self._point(below, "smaller")
        rmse = interpolate(n_bytes, self._tried[below], self._tried[above])
        return replace(self._point(above, "interpolated"), n_bytes=n_bytes, rmse=rmse)

    def _point(self, coarseness: float, how: How) -> Point:
        size, rmse = self._tried[coarseness]
        return Point(size, rmse, self._setting.name, self._layout, coarseness, how)


def next_coarseness(sizes: dict[float, float]) -> float:
    """Return where to look next, given {coarseness: bytes over the target}: outwards, or between two."""
    ordered = sorted(sizes)
    for fine, coarse in pairwise(ordered):
        if sizes[fine] > 1 >= sizes[coarse]:
            rise = math.log(sizes[fine]) - math.log(sizes[coarse])
            # Where bytes jump, interpolation creeps: the middle serves every third time.
            part = 0.5 if len(sizes) % 3 == 0 else min(max(math.log(sizes[fine]) / rise, 0.05), 0.95)
            return math.exp(math.log(fine) + part * math.log(coarse / fine))
    outermost = ordered[-1] if sizes[ordered[-1]] > 1 else ordered[0]
    factor = min(max(sizes[outermost], 1 / 8), 8)
    return outermost * (max(factor, 1.1) if sizes[outermost] > 1 else min(factor, 1 / 1.1))


def interpolate(at: float, low: tuple[float, float], high: tuple[float, float]) -> float:
    """Return y at x = `at` on the straight line of log y over log x through two points (x, y)."""
    if not min(low[1], high[1]) > 0 or low[0] == high[0]:
        return low[1]
    slope = math.log(high[1] / low[1]) / math.log(high[0] / low[0])
    return low[1] * math.exp(slope * math.log(at / low[0]))


def points_at(
    peer: SizedPeer, x: np.ndarray, sizes: Sequence[float], seconds: float
) -> list[tuple[list[Point], dict[str, str]]]:
    """Return for each size the peer's points, one per setting and layout, and why others have none."""
    found: list[tuple[list[Point], dict[str, str]]] = [([], {}) for _ in sizes]
    for setting in peer.settings:
        for layout in layouts_of(setting, x):
            search = Search(setting, layout, x, seconds)
            for (points, failures), n_bytes in zip(found, sizes, strict=True):
                try:
                    points.append(search.point(n_bytes))
                except Exception as error:  # what a foreign codec raises is a result to report, not an end of the run
                    failures[f"{setting.name}, {layout}"] = f"{type(error).__name__}: {error}"[:200]
    return found


def decoded_at(peer: SizedPeer, x: np.ndarray, point: Point) -> tuple[int, np.ndarray]:
    """Return bytes and decoded values of the encoding that `point` names."""
    setting = next(setting for setting in peer.settings if setting.name == point.setting)
    return code(setting, point.layout, x, point.coarseness)


# JPEG 2000 codes integers: values are scaled to min..max, and the two float32 that undo this are counted.
_SCALING = struct.Struct("<ff")


def _to_integers(x: np.ndarray, top: int) -> tuple[bytes, np.ndarray]:
    if not np.isfinite(x).all():
        raise ValueError("values that are not finite have no integer")
    scaling = _SCALING.pack(float(x.min()), float(x.max()))
    low, high = _SCALING.unpack(scaling)
    return scaling, np.rint((x.astype(np.float64) - low) * (top / (high - low or 1.0))).clip(0, top)


def _from_integers(encoded: bytes, values: np.ndarray, top: int, dtype: np.dtype) -> np.ndarray:
    low, high = _SCALING.unpack_from(encoded)
    values = values.astype(np.float64)
    values *= (high - low) / top
    values += low
    return values.astype(dtype)


def _openjpeg(name: str, layouts: tuple[Layout, ...], resolutions: int, by_ratio: bool = True) -> Setting:
    """Return OpenJPEG's irreversible 9/7 transform on 16 bits, its rate given as a ratio or by the RMSE aimed at."""
    top = 2**16 - 1

    def encode(x: np.ndarray, coarseness: float) -> bytes:
        from PIL import Image

        scaling, integers = _to_integers(x, top)
        decibel = 20 * math.log10(max(value_range(x), 1e-300) / coarseness)
        layer = coarseness * 2 / x.itemsize if by_ratio else max(decibel, 1.0)  # of 16 bits a value
        file = io.BytesIO()
        Image.fromarray(integers.astype(np.uint16)).save(
            file,
            "JPEG2000",
            no_jp2=True,
            irreversible=True,
            num_resolutions=resolutions,
            quality_mode="rates" if by_ratio else "dB",
            quality_layers=[layer],
        )
        return scaling + file.getvalue()

    def decode(encoded: bytes, dtype: np.dtype, shape: Shape) -> np.ndarray:
        from PIL import Image

        with Image.open(io.BytesIO(encoded[_SCALING.size :])) as image:
            return _from_integers(encoded, np.asarray(image), top, dtype).reshape(shape)

    return Setting(name, encode, decode, layouts, by_ratio)


def _numcodecs_jpeg2000() -> Setting:
    """Return the reversible 5/3 transform on 24 bits, the most numcodecs-wasm-jpeg2000 takes.

    Slower than OpenJPEG and its RMSE 6 to 15 % larger, which single fields show well enough.
    """
    top = 2**24 - 1
    codec = wasm("Jpeg2000", lambda ratio, _: {"mode": "rate", "rate": ratio})

    def encode(x: np.ndarray, ratio: float) -> bytes:
        scaling, integers = _to_integers(x, top)
        return scaling + codec.encode(integers.astype(np.int32), ratio, "")

    def decode(encoded: bytes, dtype: np.dtype, shape: Shape) -> np.ndarray:
        return _from_integers(encoded, codec.decode(encoded[_SCALING.size :], np.dtype(np.int32), shape), top, dtype)

    return Setting("5/3, 24 bit", encode, decode, ("fields",), by_ratio=True, single_fields_only=True)


def _sperr_psnr() -> Setting:
    def encode(x: np.ndarray, rmse: float) -> bytes:
        decibel = 20 * math.log10(max(value_range(x), 1e-300) / rmse)
        return wasm("Sperr", lambda psnr, _: {"mode": "psnr", "psnr": psnr}).encode(x, max(decibel, 0.1), "")

    decode = wasm("Sperr", lambda _, __: {"mode": "psnr", "psnr": 1.0}).decode
    return Setting("psnr", encode, decode, ("block", "volumes", "fields"))


def _sperr_rate() -> Setting:
    codec = wasm("Sperr", lambda bits, _: {"mode": "bpp", "bpp": bits})
    return Setting(
        "rate",
        lambda x, ratio: codec.encode(x, 8 * x.itemsize / ratio, ""),
        codec.decode,
        ("block", "volumes", "fields"),
        by_ratio=True,
    )


def _sz3(algorithm: str) -> Setting:
    return Setting(
        algorithm,
        lambda x, tolerance: encode_sz3(x, tolerance, algorithm),
        decode_sz3,
        ("block", "volumes", "fields"),
    )


def _ebcc_base() -> Setting:
    codec = wasm("Ebcc", lambda ratio, _: {"residual": "jpeg2000-only", "base_cr": ratio})
    return Setting(
        "base only",
        lambda x, ratio: codec.encode(_with_depth(x), ratio, ""),
        codec.decode,
        ("block", "fields"),
        by_ratio=True,
    )


def _ebcc_bounded() -> Setting:
    codec = wasm("Ebcc", lambda bound, _: {"residual": "absolute", "error": bound, "base_cr": 100.0})
    return Setting(
        "absolute error",
        lambda x, bound: codec.encode(_with_depth(x), bound, ""),
        codec.decode,
        ("fields",),
        single_fields_only=True,
    )


def _with_depth(x: np.ndarray) -> np.ndarray:
    """EBCC takes (depth, lat, lon)."""
    return x if x.ndim > 2 else x[None]


SIZED_PEERS: tuple[SizedPeer, ...] = (
    SizedPeer(
        name="JPEG2000",
        packages=("pillow", "numcodecs-wasm-jpeg2000"),
        source="https://github.com/uclouvain/openjpeg",
        settings=(
            _openjpeg("9/7, 6 resolutions", ("fields", "stacked"), 6),
            _openjpeg("9/7, 8 resolutions", ("fields", "stacked"), 8),
            _openjpeg("9/7, common RMSE", ("fields",), 6, by_ratio=False),
            _numcodecs_jpeg2000(),
        ),
    ),
    SizedPeer(
        name="SPERR",
        packages=("numcodecs-wasm-sperr",),
        source="https://github.com/NCAR/SPERR",
        settings=(_sperr_psnr(), _sperr_rate()),
    ),
    SizedPeer(
        name="SZ3",
        packages=("pysz",),
        source="https://github.com/szcompressor/SZ3",
        settings=(_sz3("INTERP_LORENZO"), _sz3("INTERP")),  # Lorenzo prediction: 1.5 to 4 times the RMSE
    ),
    SizedPeer(
        name="EBCC",
        packages=("numcodecs-wasm-ebcc",),
        source="https://github.com/spcl/EBCC",
        settings=(_ebcc_base(), _ebcc_bounded()),
    ),
)
