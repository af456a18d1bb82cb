"""Arrays of every kind for the soak, each coded and decoded by every level of the kernels."""

from collections.abc import Callable
from typing import Any

import numpy as np

import isopress
from isopress.codec.encoded import Method
from isopress.codec.native import dispatch
from isopress.format.decode_cache import CACHE
from tests.contract import LAYOUTS, Array, assert_kept, bits

FLOATS = ("<f4", "<f4", "<f8", ">f4", ">f8")
OTHERS = ("<f2", ">f2", "i1", "<i2", "<i4", ">i8", "u1", ">u4", "<u8", "?")
LATENT_EVERY = 1000  # arrays: targets are searched for, which takes a thousand times as long
LARGE_EVERY = 25  # arrays; numpy takes milliseconds for a few points, so it has the small ones and few others
SMALL = 150  # values
LOOSE_BOUNDS = 0.02  # share of bounds beyond a tenth of the spread, which have latents tried: a second each

Settings = dict[str, Any]


def shape_of(rng: np.random.Generator, *, large: bool) -> tuple[int, ...]:
    """Return 0 to 5 axes: single, prime, empty and long ones."""
    axes = int(rng.choice([0, 1, 2, 2, 2, 3, 3, 3, 4, 5]))
    longest = (1, 3000, 90, 30, 12, 6)[axes] if large else (1, 300, 20, 6, 4, 3)[axes]
    shape = [int(n) for n in np.floor(np.exp(rng.uniform(0, np.log(longest + 1), axes)))]
    if axes > 1 and rng.random() < 0.7:  # fields that are worth a network
        longest = longest if large else 3 * longest
        shape[-2:] = [int(n) for n in np.exp(rng.uniform(2.3 if large else 1.5, np.log(longest + 12), 2))]
    if axes and rng.random() < 0.1:
        shape[rng.integers(axes)] = int(rng.choice([0, 1, 1, 2]))
    if axes and rng.random() < 0.2:
        shape[-1] = int(rng.choice([7, 13, 31, 37, 61, 64, 65]))
    return tuple(shape)


def values_of(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return binary64 values of some kind that people have, or nobody has."""
    size = int(np.prod(shape))
    walk, noise = np.cumsum(rng.normal(size=size)), rng.normal(size=size)
    kinds: dict[str, Callable[[], Array]] = {
        "walk": lambda: walk,
        "noise": lambda: noise,
        "smooth": lambda: waves(rng, shape) + noise * 10.0 ** rng.integers(-6, -1),
        "smooth in steps": lambda: np.round(waves(rng, shape), 1),
        "constant": lambda: np.full(size, 273.15),
        "nearly constant": lambda: np.where(rng.random(size) < 0.01, noise, 5.0),
        "lattice": lambda: np.round(walk * 10.0 ** rng.integers(-1, 3)) / 10.0 ** rng.integers(0, 4),
        "classes": lambda: rng.integers(0, rng.integers(2, 9), size).astype(float),
        "mixed magnitudes": lambda: noise * 10.0 ** rng.uniform(-30, 30, size),
        "offset": lambda: 1e7 + walk * 10.0 ** rng.integers(-9, 0),
        "precipitation": lambda: np.where(rng.random(size) < 0.8, 0, np.exp(3 * noise - 9)),
        "denormal": lambda: noise * 1e-42,
        "huge": lambda: np.clip(noise * 1e38, -3.4e38, 3.4e38),
        "alternating": lambda: np.where(np.arange(size) % 2, 1.0, -1.0) * rng.uniform(0.5, 1, size),
        "bits": lambda: np.frombuffer(rng.bytes(8 * size), np.float64),
    }
    kind = "smooth" if rng.random() < 0.5 else str(rng.choice(list(kinds)))
    with np.errstate(all="ignore"):
        return kinds[kind]().reshape(shape)


def waves(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return a few waves around 280 along all axes, flat."""
    total = np.full(shape, 280.0)
    for _ in range(3):
        phase = np.zeros(shape)
        for axis, length in enumerate(shape):
            along = np.arange(length) * rng.normal() * 0.15
            phase = phase + along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        total += 10 * rng.normal() * np.sin(phase)
    return total.reshape(-1)


def array_of(rng: np.random.Generator, *, large: bool) -> Array:
    """Return an array of any dtype, with special values and in any layout."""
    dtype = np.dtype(str(rng.choice(FLOATS if rng.random() < 0.8 else OTHERS)))
    values = values_of(rng, shape_of(rng, large=large))
    if dtype.kind in "iub":
        x = np.frombuffer(
            rng.bytes(values.size * dtype.itemsize), dtype.newbyteorder("=") if dtype.kind != "b" else "u1"
        )
        x = (x % 2).astype(bool) if dtype.kind == "b" else x.astype(dtype)
        x = x.reshape(values.shape)
    else:
        with np.errstate(all="ignore"):
            x = values.astype(dtype)
        if x.size and rng.random() < 0.4:
            places = rng.integers(0, x.size, int(rng.integers(1, max(2, x.size // int(rng.integers(1, 30))))))
            special = rng.choice([np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0], places.size)
            x.reshape(-1)[places] = special[:1] if rng.random() < 0.5 else special
    if x.ndim == 3 and x.size and rng.random() < 0.3:
        with np.errstate(all="ignore"):
            x = LAYOUTS[str(rng.choice(sorted(LAYOUTS)))](x)
    return x


def settings_of(rng: np.random.Generator, x: Array, *, latent: bool) -> Settings:
    """Return keywords of `compress` that go with the dtype and shape of `x`."""
    if x.dtype.kind != "f" or x.dtype.itemsize == 2 or rng.random() < 0.1:
        return {"mode": "lossless"}
    if latent:
        if rng.random() < 0.5:
            return {"mode": "latent", "ratio": float(np.exp(rng.uniform(0.1, 7)))}
        return {"mode": "latent", "rmse": float(10.0 ** rng.uniform(-4, 2))}
    loose = rng.random() < LOOSE_BOUNDS
    size = float(10.0 ** rng.uniform(-300, 300))
    if rng.random() < 0.9:
        size = float(10.0 ** rng.uniform(-1, 1) if loose else 10.0 ** rng.uniform(-5, -0.7))
    context = str(rng.choice(["auto", "auto", "field", "block"]))
    choice = rng.random()
    if choice < 0.4:
        return {"mode": "abs", "bound": size, "context": context}
    if choice < 0.5 and x.ndim >= 3 and len(x) and x.dtype.isnative:
        bounds = [float(b) for b in 10.0 ** rng.uniform(-5, 1 if loose else -0.5, len(x))]
        return {"mode": "abs", "bound": bounds, "context": context}
    fraction = float(10.0 ** rng.uniform(-7, -0.3 if loose else -1.5))
    if choice < 0.7:
        return {"mode": "range", "bound": fraction, "context": context}
    floor = size if rng.random() < 0.5 else None
    return {"mode": "pointwise", "bound": fraction, "floor": floor, "context": context}


def check_array(seed: int) -> str:
    """Code one array by every level; return mode and method; raise what is wrong."""
    rng = np.random.default_rng(seed)
    latent = seed % LATENT_EVERY == 0
    x = array_of(rng, large=seed % LARGE_EVERY == 0)
    settings = settings_of(rng, x, latent=latent)
    levels = dispatch.levels()
    if x.size > SMALL and not latent and rng.random() < 0.8:
        levels = levels[:-1] or levels
    with np.errstate(all="ignore"):
        payloads = {level: _at(level, lambda: isopress.compress(x, **settings)) for level in levels}
        first = payloads[levels[0]]
        for level, payload in payloads.items():
            assert payload == first, f"{level} writes another payload than {levels[0]}"
        decoded = {level: _at(level, lambda: isopress.decompress(first)) for level in levels}
    y = decoded[levels[0]]
    for level, values in decoded.items():
        assert bits(values) == bits(y), f"{level} decodes other values"
    if settings["mode"] == "latent":  # how near it comes is a matter of benchmarks
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
    else:
        assert_kept(x, y, **{name: value for name, value in settings.items() if value is not None})
    return f"{settings['mode']}, {Method(isopress.inspect(first).method).name.lower()}"


def _at(level: str, work: Callable[[], Any]) -> Any:
    """Return what the work comes to at a level, nothing remembered of what another level decoded."""
    CACHE.clear()
    with dispatch.using(level):
        return work()
