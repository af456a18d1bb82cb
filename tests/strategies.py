"""Hypothesis strategies: arrays and bounds that a codec meets in the wild, and those nobody meets."""

import os
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isopress.codec.limits import Bound

Array = np.ndarray[Any, Any]

WIDER = "ISOPRESS_EXAMPLES"  # environment variable: so many times as many examples of every property


def examples(count: int) -> settings:
    """Return settings of a property: fixed examples, so that a red test is red everywhere, and no deadline."""
    return settings(
        derandomize=True,
        deadline=None,
        max_examples=count * int(os.environ.get(WIDER, "1")),
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


QUICK = examples(40)

SPECIAL_VALUES = (np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0)
MAGNITUDES = (1e-320, 1e-300, 1e-45, 1e-30, 1e-3, 1.0, 273.15, 1e5, 3e38, 1e300)
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def shapes(max_dims: int = 5, max_side: int = 9) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of 0 to `max_dims` axes, empty ones included."""
    return hnp.array_shapes(min_dims=0, max_dims=max_dims, min_side=0, max_side=max_side)


@st.composite
def fields(draw: st.DrawFn, *, special: bool = True) -> Array:
    """Float arrays: waves, noise, steps, packed or arbitrary values at any magnitude, with special values."""
    dtype = draw(st.sampled_from(FLOATS))
    shape = draw(shapes())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = int(np.prod(shape))
    kind = draw(st.sampled_from(("wave", "noise", "steps", "decimal", "alternating", "constant", "bits")))
    values = {
        "wave": np.cumsum(rng.normal(size=size)),
        "noise": rng.normal(size=size),
        "steps": np.sort(rng.integers(0, 4, size)).astype(float),
        "decimal": np.round(np.cumsum(rng.normal(size=size)), 1),
        "alternating": np.where(np.arange(size) % 2, 1.0, -1.0) * rng.uniform(0.5, 1, size),
        "constant": np.ones(size),
        "bits": rng.integers(0, 256, size * 8, np.uint8).view(np.float64),
    }[kind]
    if kind == "bits":
        x = rng.integers(0, 256, size * dtype.itemsize, np.uint8).view(dtype)
    else:
        with np.errstate(over="ignore"):
            x = (values * draw(st.sampled_from(MAGNITUDES))).astype(dtype)
    if special and size and draw(st.booleans()):
        places = rng.integers(0, size, max(1, size // draw(st.integers(1, 8))))
        x[places] = rng.choice(SPECIAL_VALUES, places.size).astype(dtype)
    return x.reshape(shape)


def bounds() -> st.SearchStrategy[Bound]:
    """Every mode, with values from far below any ulp to far above any range."""
    size = st.sampled_from((1e-300, 1e-12, 1e-6, 1e-3, 0.1, 1.0, 1e4, 1e38, 1e300))
    fraction = st.sampled_from((1e-300, 1e-9, 1e-7, 1e-4, 0.01, 0.5, 0.99))
    return st.one_of(
        st.just(Bound("lossless")),
        st.builds(Bound, st.just("abs"), size),
        st.builds(Bound, st.just("range"), st.one_of(fraction, st.just(2.0))),
        st.builds(Bound, st.just("pointwise"), fraction, st.one_of(st.none(), size)),
    )


@st.composite
def anything(draw: st.DrawFn) -> Array:
    """Arrays of every dtype that lossless coding takes, with all bits possible."""
    dtype = np.dtype(draw(st.sampled_from(["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])))
    shape = draw(shapes(max_dims=3, max_side=20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = rng.integers(0, draw(st.sampled_from((1, 2, 256))), (*shape, dtype.itemsize), np.uint8)
    return (raw[..., 0] % 2).astype(bool) if dtype.kind == "b" else raw.view(dtype)[..., 0]


def class_maps() -> st.SearchStrategy[tuple[Array, int]]:
    """(B, H, W) uint8 maps and their number of classes."""
    shape = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12))
    return st.integers(2, 256).flatmap(
        lambda count: st.tuples(hnp.arrays(np.uint8, shape, elements=st.integers(0, count - 1)), st.just(count))
    )


def smooth_field(*shape: int, seed: int = 0) -> Array:
    """Fields that look like weather: random waves, long ones strongest; float64, mean 280, deviation 20."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.normal(size=shape))
    ky, kx = np.meshgrid(np.fft.fftfreq(shape[-2]), np.fft.rfftfreq(shape[-1]), indexing="ij")
    wavenumber = np.hypot(ky, kx)
    wavenumber[0, 0] = 1
    values = np.fft.irfft2(spectrum / wavenumber**2, s=shape[-2:])
    return 280 + 20 * (values - values.mean()) / values.std()
