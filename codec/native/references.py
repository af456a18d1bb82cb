"""What decoded fields of a block say about another one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from isopress.codec.native.dispatch import kernels, level
from isopress.codec.native.entropy import raise_for

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]


def combine(decoded: I32, weights: Mapping[int, int], exponent: int, out: I32) -> None:
    """Let `out` (H, W) be the sum of quarters of some `decoded` fields (B, H, W), times 2**exponent, rounded, clipped.

    weights : of each field that counts, how many quarters.
    """
    terms = tuple(weights), tuple(weights.values())
    kernels.combine(level(), decoded, len(decoded), out.size, *terms, exponent, out)


def fit(y: F64, proxies: tuple[I32, ...], expected: I32, logarithms: I32) -> tuple[I8, I8]:
    """Return exponents (proxies,) and coefficients (3, proxies) that suit a field (H, W) in steps.

    proxies : (H, W) each, in units; expected : (proxies,) coefficients; logarithms : see reference_fit.py.
    """
    exponents, coefficients = np.empty(len(proxies), np.int8), np.empty((3, len(proxies)), np.int8)
    raise_for(kernels.fit(level(), y.shape, y, proxies, expected, logarithms, exponents, coefficients))
    return exponents, coefficients
