"""Compiled kernels of the bounded codec, and the one Python face they have; numpy does the same work without them.

Which instruction set is used is decided when this module is loaded: the best that the machine has, or what the
environment variable ISOPRESS_KERNELS names (numpy, generic, avx2). Every one gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isopress.codec.errors import ArgumentError

try:
    from isopress.codec.native import _kernels
except ImportError:  # built without a compiler
    _kernels = None  # type: ignore[assignment]

VARIABLE = "ISOPRESS_KERNELS"
NUMPY = "numpy"

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
# Values, coding errors and proxies of one of the four planes of a level, (B, h, w) each, padded; None for none.
Plane = tuple[F64 | None, I32 | None, tuple[F64, ...]]
# (inputs, outputs, weight (out, in) int8, bias (out,) int32, scale (out,) float32): round(sums * scale) comes out.
Layer = tuple[int, int, NDArray[np.int8], I32, F32]


def levels() -> tuple[str, ...]:
    """Return the names of what can be used here, best first; the last is numpy."""
    return (*(_kernels.levels() if _kernels else ()), NUMPY)


def _default() -> str:
    name = os.environ.get(VARIABLE) or levels()[0]
    if name not in levels():
        raise ArgumentError(f"{VARIABLE}={name}: this installation and machine have {', '.join(levels())}")
    return name


_DEFAULT = _default()
_LEVEL: ContextVar[str | None] = ContextVar("level", default=None)


def level() -> str:
    """Return the name of what is in use."""
    return _LEVEL.get() or _DEFAULT


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use another level within a `with` block of this thread, as tests do."""
    token = _LEVEL.set(name)
    try:
        yield
    finally:
        _LEVEL.reset(token)


def status() -> str:
    """Return one line that says which kernels are in use."""
    if _kernels is None:
        return "numpy (the compiled kernels were not built: slower, the same bytes)"
    return level() if level() != NUMPY else f"numpy ({VARIABLE} says so: slower, the same bytes)"


@dataclass(frozen=True, eq=False)
class Geometry:
    """Geometry of one phase; kernels.h says what each part means.

    counts : numbers of neighbours whose values, and whose errors near and further off, are looked at.
    places : (sum of counts + 1, 3) int32; sums : (6, n) float64; constants : (6,) float64.
    residual, error : (320,) float32, and mean : (320,) float64, multipliers by roughness index.
    """

    counts: tuple[int, int, int]
    places: I32
    sums: F64
    constants: F64
    first_index: int
    residual: F32
    error: F32
    mean: F64


def layer_of(affine: F32, scale: F32) -> Layer:
    """Return integer weights and biases of a matrix (out, in + 1) of integers times `scale` (out,)."""
    whole = affine / scale[:, None]
    weight = np.ascontiguousarray(whole[:, :-1].astype(np.int8))
    bias = np.ascontiguousarray(whole[:, -1].astype(np.int32))
    return weight.shape[1], weight.shape[0], weight, bias, np.ascontiguousarray(scale, np.float32)


def predict(
    planes: tuple[Plane, ...],
    geometry: Geometry,
    layers: tuple[Layer, ...],
    value: F64,
    scale: NDArray[np.int16],
    tail: NDArray[np.int8],
) -> None:
    """Predict all points of a phase into `value`, `scale` and `tail`, (B, h, w) each.

    Raises
    ------
    ValueError
        A buffer has another type or size than the phase needs: a bug of the caller.
    """
    described = []
    for values, errors, proxies in planes:
        some = next((x for x in (values, errors, *proxies) if x is not None), None)
        rows, columns = (0, 0) if some is None else some.shape[1:]
        described.append((rows, columns, values, errors, proxies))
    g = geometry
    _kernels.predict(
        level(),
        value.shape,
        len(planes[0][2]),
        tuple(described),
        (*g.counts, g.first_index, g.places, g.sums, g.constants, g.residual, g.error, g.mean),
        layers,
        value,
        scale,
        tail,
    )
