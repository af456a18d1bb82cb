"""Write the golden payloads of the present format version: `python -m tests.make_golden`. Overwrites none."""

import hashlib
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import isopress
from isopress.codec.encoded import Method, Section
from isopress.codec.models.registry import VARIABLE
from isopress.format.payload import VERSION, parse
from isopress.format.rewrites import PartialWriteWarning
from isopress.format.zarr.v2_codec import Isopress
from tests.contract import MODES, OTHERS, Array, many_nans, smooth
from tests.fields import blocky, half_smooth, spectral_field, sphere_field
from tests.golden_payloads import GOLDEN, Golden, write

# Weights in golden/models, made once by tests.vaeformer_models: of three channels; of any field, normalised by itself.
SMALL, ALONE = "vaeformer-small", "vaeformer-alone"
BY_TORCH = (Method.VAEFORMER, Method.ON_VAEFORMER)
FLOATING = (Method.LATENT, Method.BASED, *BY_TORCH)  # another machine may choose other symbols when it codes,
_GAINS = 4 | 16  # flags of a latent section that has them


def digest(x: Array) -> str:
    """Return the sha256 of the values of `x` in C order, little-endian."""
    return hashlib.sha256(x.astype(x.dtype.newbyteorder("<")).tobytes()).hexdigest()


def may_drift(payload: bytes) -> bool:
    """Whether decoded values may differ in their last digits between machines: what floats are added to in sums.

    Those of a VAEformer, of gains, and of transforms along leading axes, where latents have several fields.
    """
    parsed = parse(payload)
    latent = dict(parsed.sections()).get(Section.LATENT)
    if latent is None:
        return parsed.info.method in BY_TORCH
    return bool(latent[0] & _GAINS) or math.prod(parsed.info.shape[:-2]) > 1


def features() -> dict[str, tuple[Array, dict[str, Any]]]:
    """Return name -> (array, keywords) of everything a payload of this version can hold."""
    rng = np.random.default_rng(20260101)
    x = smooth(2, 24, 30).astype("<f4")
    masked = x.copy()
    masked[0, 3:9, 5:14] = np.nan
    masked[1, 2, :3] = np.inf, -np.inf, -0.0
    signs = (smooth(20, 24) - 280).astype("<f4")
    signs[:2] = 0
    abs_, exact = MODES["abs"], MODES["lossless"]
    arrays = {name: (x, settings) for name, settings in MODES.items()}
    arrays |= {f"{name}-signs": (signs, MODES[name]) for name in ("pointwise", "pointwise-floor")}
    for code in OTHERS:
        name = np.dtype(code).name + ("-big-endian" if code[0] == ">" else "")
        arrays[f"lossless-{name}"] = (smooth(3, 8).astype(code), exact)
    return arrays | {
        "constant": (np.full((30, 40), 273.15, "<f4"), abs_),
        "empty": (np.zeros((0, 4, 5), "<f4"), abs_),
        "no-axis": (smooth().astype("<f4"), abs_),
        "one-axis": (smooth(50).astype("<f4"), abs_),
        "five-axes": (smooth(1, 2, 1, 16, 17).astype("<f4"), abs_),
        "float64": (smooth(2, 24, 30), abs_),
        "big-endian": (x.astype(">f4"), abs_),
        "fortran-order": (np.asfortranarray(x), abs_),
        "special-values": (masked, abs_),
        "exceptions": (many_nans(), {"mode": "abs", "bound": 0.05}),
        "special-values-lossless": (masked, exact),
        "lattice": (np.round(smooth(24, 30) * 4).astype("<f4") / 4, exact),
        "categories": (rng.integers(0, 3, (12, 40)).astype("<f4"), abs_),
        "noise": (rng.standard_normal((12, 13)), exact),
        "block": (drifting(9), {**abs_, "context": "block"}),
        "block-two-axes": (drifting(5, 3), {**abs_, "context": "block"}),
        "block-three-axes": (drifting(2, 3, 2), {**abs_, "context": "block"}),
        "block-masks": (_masked(drifting(7)), {**abs_, "context": "block"}),
        "block-signs": (drifting(5) - np.float32(283), {**MODES["pointwise"], "context": "block"}),
        "block-lattice": (np.round(drifting(6) * 16) / np.float32(16), {**exact, "context": "block"}),
        "block-exceptions": (_many_nans_in_time(), {"mode": "abs", "bound": 0.05, "context": "block"}),
        "latent-block": (drifting(6), {"mode": "latent", "rmse": 0.2}),
        "latent-two-axes": (drifting(2, 3).astype("<f8"), {"mode": "latent", "ratio": 60, "effort": 1}),
        "latent-special-values": (_masked(drifting(6)), {"mode": "latent", "rmse": 0.3}),
        "latent-one-axis": (smooth(400).astype("<f4"), {"mode": "latent", "rmse": 0.5}),
        "latent-gains": ((20 * spectral_field(80, 120, slope=1.2)).astype("<f4"), {"mode": "latent", "rmse": 4.6}),
        "latent-halved-ahead": ((20 * sphere_field(80, 120)).astype("<f4"), {"mode": "latent", "rmse": 0.3}),
        "based": (drifting(12), {"mode": "abs", "bound": 3.0}),
        "joint": (np.stack([drifting(5), drifting(5) * 20]), {"mode": "abs", "bound": [0.01, 3.0], "context": "block"}),
        "vaeformer": (blocky(), {"mode": "latent", "rmse": 0.3, "model": SMALL}),
        "vaeformer-time": (blocky(2).astype("<f8"), {"mode": "latent", "ratio": 20, "model": SMALL}),
        "vaeformer-ordered": (
            np.ascontiguousarray(blocky(2)[:, [2, 0, 1]]),
            {"mode": "latent", "rmse": 0.4, "model": SMALL, "channels": ["u10", "t850", "t500"]},
        ),
        "on-vaeformer-ordered": (
            np.ascontiguousarray(blocky()[[1, 0, 2]]),
            {"mode": "abs", "bound": 0.5, "model": SMALL, "channels": ["t500", "t850", "u10"]},
        ),
        "vaeformer-special-values": (
            with_nans(blocky(shape=(17, 23))),
            {"mode": "latent", "rmse": 0.5, "model": SMALL},
        ),
        "vaeformer-alone": (1e4 * _closed(), {"mode": "latent", "rmse": 1e4, "model": ALONE}),
        "on-vaeformer": (blocky(2), {"mode": "abs", "bound": 0.5, "model": SMALL}),
        "on-vaeformer-joint": (blocky(), {"mode": "abs", "bound": [0.5, 0.5, 0.3], "model": SMALL}),
        "layers": (drifting(5), {**abs_, "context": "block"}),
        "quiet": (half_smooth(129, 128).astype("<f4"), {"mode": "abs", "bound": 0.5}),
        "periodic": (np.tile(smooth(24, 1), (1, 36)).astype("<f4") + _waves(24, 36), abs_),
    }


def drifting(*leading: int) -> Array:
    """Return float32 fields of 24 x 30 that change little from one to the next."""
    y, x = np.meshgrid(np.arange(24), np.arange(30), indexing="ij")
    fields = [
        280 + 5 * np.sin(0.4 * x - 0.2 * sum(index)) + 3 * np.cos(0.3 * y + 0.1 * index[0]) + np.sin(0.11 * x * y)
        for index in np.ndindex(leading)
    ]
    return np.asarray(fields, "<f4").reshape(*leading, 24, 30)


def _masked(x: Array) -> Array:
    for i, field in enumerate(x):
        field[i : i + 6, 2 * i : 2 * i + 9] = np.nan
    x[4] = np.nan
    x[1, 20] = np.inf
    return x


def with_nans(x: Array) -> Array:
    """Return a chunk with some values missing in each field."""
    x[..., 3:9, 5:10] = np.nan
    return x


def _closed() -> Array:
    """Return patches that go on from the last column to the first."""
    half = blocky()[:2, :, :20]
    return np.roll(np.concatenate([half, half[..., ::-1]], -1), 2, -1)


def _many_nans_in_time() -> Array:
    x = drifting(4)
    x.reshape(-1).view("<u4")[700:970] = 0x7FC00000 + np.arange(270)
    return x


def _waves(height: int, width: int) -> Array:
    angle = 2 * np.pi * np.arange(width) / width
    return (np.linspace(0, 3, height)[:, None] * np.sin(2 * angle)).astype("<f4")


def in_layers(x: Array, settings: dict[str, Any]) -> bytes:
    """Return a payload of `x` as if two regions had been written later, one of them with a value left out."""
    codec = Isopress(**settings)
    before = x.copy()
    before[1:3, 4:10, 5:] += 1
    before[3:] = np.nan
    payload: bytes = codec.encode(before)
    for region in (np.s_[1:3, 4:10, 5:], np.s_[3:]):
        y = codec.decode(payload)
        kept = y[1, 5, 8]
        y[region] = x[region]
        y[1, 5, 8] = kept if region == np.s_[1:3, 4:10, 5:] else x[1, 5, 8]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PartialWriteWarning)
            payload = codec.encode(y)
    return payload


def made(version: str, name: str, x: Array, settings: dict[str, Any]) -> Golden:
    """Return one feature as this version writes it."""
    payload = in_layers(x, settings) if name == "layers" else isopress.compress(x, **settings)
    y = isopress.decompress(payload)
    info = isopress.inspect(payload)
    decoded = {"sha256": digest(y), "dtype": y.dtype.str, "shape": list(y.shape), "order": info.order}
    values = y if may_drift(payload) else None
    return Golden(version, name, x, settings, int(info.method), payload, decoded, values)


def main(golden: Path = GOLDEN) -> int:
    """Write all features, or nothing if this version has been written before."""
    os.environ.setdefault(VARIABLE, str(GOLDEN / "models"))
    folder = golden / f"v{VERSION[0]}.{VERSION[1]}"
    if folder.exists():
        print(f"{folder} exists and is kept for ever: new bytes need a new version", file=sys.stderr)
        return 1
    write(folder, [made(folder.name, name, x, settings) for name, (x, settings) in features().items()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
