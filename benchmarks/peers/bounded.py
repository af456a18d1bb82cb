"""The peers: one small record each, and the search for a peer's best setting under an error bound.

Every peer is judged by the bytes it really writes, headers included, and by the values it really gives back.
An outcome counts only if its largest error, measured on the decoded values in their own dtype, is within the
bound.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.cases.metrics import distortion
from benchmarks.peers import om_files, rounding

Shape = tuple[int, ...]
Layout = Literal["block", "volumes", "fields"]

# Tolerances to try, as fractions of the bound; the first that keeps the bound counts. SPERR is known to miss
# its own bound by up to 0.1 %, and rounding to float32 can cost any codec a few millionths.
TIGHTEN = (1.0, 1 - 1e-6, 1 - 1e-5, 1 - 1e-4, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.95, 0.9, 0.7, 0.5)
# ZFP rounds its tolerance down to a power of two and stays well below it: start high, halve until it holds.
HALVE = tuple(2.0**k for k in range(7, -4, -1))


class Codec(NamedTuple):
    """encode(x, tolerance, setting) -> bytes; decode(bytes, dtype, shape) -> decoded x."""

    encode: Callable[[np.ndarray, float, str], bytes]
    decode: Callable[[bytes, np.dtype, Shape], np.ndarray]


@dataclass(frozen=True)
class BoundedPeer:
    """One competing codec.

    Attributes
    ----------
    name : str
        Name in tables.
    package : str
        Distribution on PyPI whose version goes into the results.
    source : str
        Where the codec comes from.
    settings : tuple of str
        Variants that are all tried; the smallest valid one counts.
    factors : tuple of float
        Tolerances to try, as fractions of the bound, in this order.
    codec : Codec
        Its two functions.
    """

    name: str
    package: str
    source: str
    settings: tuple[str, ...]
    factors: tuple[float, ...]
    codec: Codec

    def version(self) -> str | None:
        """Return the installed version, None if the package is missing."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


@dataclass(frozen=True)
class Outcome:
    """What a codec did to one array: bytes, errors in data units, and the choices that led there.

    `factor` is the tolerance given to the codec over the bound; `layout` is "block" when the array was coded
    as one (lat, lon) or (field, lat, lon) array, "volumes" when each (level, lat, lon) part was coded on its own,
    "fields" when each (lat, lon) field was.
    """

    n_bytes: int
    max_error: float
    rmse: float
    setting: str
    factor: float
    layout: Layout = "block"


def best_outcome(peer: BoundedPeer, x: np.ndarray, bound: float) -> Outcome | None:
    """Return the peer's smallest outcome within `bound`, as one block or in parts; None if none is.

    Parameters
    ----------
    peer : BoundedPeer
        An installed peer.
    x : ndarray, (lat, lon), (time or level, lat, lon) or (time, level, lat, lon), float32 or float64
        The block to code.
    bound : float
        Largest allowed absolute error, in the unit of `x`; finite and > 0.
    """
    fields = x.reshape(-1, *x.shape[-2:])
    candidates = [best_setting(peer, x if x.ndim == 2 else fields, bound)]
    if len(fields) > 1:
        candidates.append(best_in_parts(peer, fields, bound, "fields"))
    if x.ndim > 3:
        candidates.append(best_in_parts(peer, x.reshape(-1, *x.shape[-3:]), bound, "volumes"))
    return smallest(candidates)


def best_setting(peer: BoundedPeer, x: np.ndarray, bound: float) -> Outcome | None:
    """Return the smallest valid outcome over the peer's settings, `x` coded as one block."""
    return smallest(first_valid(peer, x, bound, setting) for setting in peer.settings)


def best_in_parts(peer: BoundedPeer, parts: np.ndarray, bound: float, layout: Layout) -> Outcome | None:
    """Return the sum of the best outcomes of `parts`, each with its own setting; None if one fails.

    The first axis of `parts` counts the parts.
    """
    outcomes = [best_setting(peer, part, bound) for part in parts]
    kept = [outcome for outcome in outcomes if outcome is not None]
    if len(kept) < len(outcomes):
        return None
    return Outcome(
        n_bytes=sum(outcome.n_bytes for outcome in kept),
        max_error=max(outcome.max_error for outcome in kept),
        rmse=math.sqrt(math.fsum(outcome.rmse**2 for outcome in kept) / len(kept)),
        setting=" / ".join(sorted({outcome.setting for outcome in kept})),
        factor=min(outcome.factor for outcome in kept),
        layout=layout,
    )


def first_valid(peer: BoundedPeer, x: np.ndarray, bound: float, setting: str) -> Outcome | None:
    """Return the outcome of the first tolerance that keeps `bound` on `x`; None if none does."""
    for factor in peer.factors:
        encoded = peer.codec.encode(x, bound * factor, setting)
        errors = distortion(x, peer.codec.decode(encoded, x.dtype, x.shape))
        if errors.max_error <= bound:
            return Outcome(len(encoded), errors.max_error, errors.rmse, setting, factor)
    return None


def smallest(outcomes: Iterable[Outcome | None]) -> Outcome | None:
    """Return the outcome with the fewest bytes, ignoring None."""
    valid = [outcome for outcome in outcomes if outcome is not None]
    return min(valid, key=lambda outcome: outcome.n_bytes, default=None)


def encode_sz3(x: np.ndarray, tolerance: float, setting: str) -> bytes:
    from pysz.sz import sz, szAlgorithm, szConfig, szErrorBoundMode

    config = szConfig(x.shape)
    config.errorBoundMode, config.absErrorBound = szErrorBoundMode.ABS, tolerance
    config.cmprAlgo = getattr(szAlgorithm, setting)
    return bytes(sz.compress(np.ascontiguousarray(x), config)[0])


def decode_sz3(encoded: bytes, dtype: np.dtype, shape: Shape) -> np.ndarray:
    from pysz.sz import sz

    return np.asarray(sz.decompress(np.frombuffer(encoded, np.uint8), dtype, shape)[0])


def wasm(name: str, config: Callable[[float, str], dict[str, Any]], any_setting: str = "") -> Codec:
    """Return the codec of the package numcodecs-wasm-<name>; its options are `config(tolerance, setting)`."""

    def codec(tolerance: float, setting: str) -> Any:
        return getattr(import_module(f"numcodecs_wasm_{name.lower()}"), name)(**config(tolerance, setting))

    def encode(x: np.ndarray, tolerance: float, setting: str) -> bytes:
        return bytes(codec(tolerance, setting).encode(x))

    def decode(encoded: bytes, dtype: np.dtype, shape: Shape) -> np.ndarray:
        decoded = codec(1.0, any_setting).decode(np.frombuffer(encoded, np.uint8))
        return np.asarray(decoded).reshape(-1).view(dtype).reshape(shape)

    return Codec(encode, decode)


BOUNDED_PEERS: tuple[BoundedPeer, ...] = (
    BoundedPeer(
        name="SZ3 (native)",
        package="pysz",
        source="https://github.com/szcompressor/SZ3",
        settings=("INTERP_LORENZO", "INTERP", "LORENZO_REG"),
        factors=TIGHTEN,
        codec=Codec(encode_sz3, decode_sz3),
    ),
    BoundedPeer(
        name="SZ3 (wasm)",
        package="numcodecs-wasm-sz3",
        source="https://github.com/szcompressor/SZ3",
        settings=("interpolation-lorenzo", "interpolation", "lorenzo", "lorenzo-regression"),
        factors=TIGHTEN,
        codec=wasm("Sz3", lambda tol, name: {"eb_mode": "abs", "eb_abs": tol, "predictor": name}, "lorenzo"),
    ),
    BoundedPeer(
        name="SPERR",
        package="numcodecs-wasm-sperr",
        source="https://github.com/NCAR/SPERR",
        settings=("pwe",),
        factors=TIGHTEN,
        codec=wasm("Sperr", lambda tol, _: {"mode": "pwe", "pwe": tol}),
    ),
    BoundedPeer(
        name="ZFP",
        package="numcodecs-wasm-zfp",
        source="https://github.com/LLNL/zfp",
        settings=("fixed-accuracy",),
        factors=HALVE,
        codec=wasm("Zfp", lambda tol, _: {"mode": "fixed-accuracy", "tolerance": tol}),
    ),
    BoundedPeer(
        name="om-files",
        package="omfiles",
        source="https://github.com/open-meteo/om-file-format",
        settings=om_files.SETTINGS,
        factors=TIGHTEN,
        codec=Codec(om_files.encode, om_files.decode),
    ),
    BoundedPeer(
        name="rounding + pcodec",
        package="pcodec",
        source="https://github.com/pcodec/pcodec",
        settings=rounding.SETTINGS,
        factors=TIGHTEN,
        codec=Codec(rounding.encode, rounding.decode),
    ),
    BoundedPeer(
        name="EBCC",
        package="numcodecs-wasm-ebcc",
        source="https://github.com/spcl/EBCC",
        settings=("10", "1000"),
        factors=TIGHTEN,
        codec=wasm("Ebcc", lambda tol, r: {"residual": "absolute", "error": tol, "base_cr": float(r)}, "1"),
    ),
)
