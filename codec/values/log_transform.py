"""Pointwise bounds as uniform ones: a monotone transform t = T(x), and an inverse that is equal everywhere.

With a floor, T is linear below the knee (floor / value) and logarithmic above, equal in value and slope
there. Without one it is log2|x|; zeros and signs are then coded apart. The encoder's T may use libm. The
decoder's inverse uses float64 + - * and powers of two built from their bits, so all machines agree.
"""

import math
from dataclasses import dataclass

import numpy as np

C = 1.4426950408889634  # 1 / ln 2: T at the knee, where u / ln 2 meets 1 / ln 2 + log2 u
EXP2 = (  # ln(2)^k / k!, k = 0 to 11: 2**f for |f| <= 1/2 with relative error below 1e-14
    1.0,
    0.6931471805599453,
    0.24022650695910072,
    0.05550410866482158,
    0.009618129107628477,
    0.0013333558146428443,
    0.0001540353039338161,
    1.5252733804059841e-05,
    1.321548679014431e-06,
    1.01780860092397e-07,
    7.054911620801123e-09,
    4.4455382718708116e-10,
)
_ERROR = 4e-13  # relative error of T followed by its inverse, for |t| <= 1100, with room to spare


@dataclass(frozen=True)
class Knee:
    """Where linear turns logarithmic: below, |x| = slope * |t|; from |t| = C on, |x| = 2**(|t| + shift)."""

    slope: float
    shift: float


def make_knee(value: float, floor: float) -> Knee:
    """Return the knee at |x| = floor / value, where the relative and the absolute bound are equal."""
    x0 = floor / value
    return Knee(slope=x0 * math.log(2), shift=math.log2(floor) - math.log2(value) - C)


def tolerance_in_t(value: float, dtype: np.dtype) -> float:
    """Return the uniform bound in t that keeps |x - x_hat| <= max(value * |x|, floor) in `dtype`.

    It is log2(1 + value), with `value` first reduced by what rounding to `dtype` and T itself may cost;
    0 if nothing remains.
    """
    reduced = value - float(np.finfo(dtype).eps) / 2 * (1 + value) - _ERROR
    return math.log2(1 + reduced) if reduced > value / 2 else 0.0


def forward(x: np.ndarray, knee: Knee | None) -> np.ndarray:
    """Return t = T(x) as float64; without a knee log2|x|, -inf for zeros."""
    size = np.abs(x, dtype=np.float64)
    with np.errstate(divide="ignore"):
        t: np.ndarray = np.log2(size)
    if knee is None:
        return t
    t -= knee.shift
    np.divide(size, knee.slope, out=t, where=t < C)
    np.copysign(t, x, out=t)
    return t


def inverse(t: np.ndarray, knee: Knee | None) -> np.ndarray:
    """Return x from t, float64, bit-identical on every IEEE 754 machine; without a knee |x|."""
    if knee is None:
        return exp2(t)
    size = np.abs(t)
    with np.errstate(over="ignore", invalid="ignore"):
        x: np.ndarray = np.where(size < C, size * knee.slope, exp2(size + knee.shift))
    np.copysign(x, t, out=x)
    return x


def exp2(t: np.ndarray) -> np.ndarray:
    """Return 2**t, float64, relative error below 1e-14, from + - * and exact powers of two alone."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        whole = np.clip(np.floor(t + 0.5), -2044.0, 2046.0)
        fraction = np.clip(t - whole, -0.5, 0.5)
        power = np.full_like(t, EXP2[-1])
        for coefficient in reversed(EXP2[:-1]):
            power *= fraction
            power += coefficient
        exponent = whole.astype(np.int64)
        half = exponent >> 1  # two factors, since 2**exponent itself may be out of range
        power *= _power_of_two(half)
        power *= _power_of_two(exponent - half)
    return power


def _power_of_two(exponent: np.ndarray) -> np.ndarray:
    """2.0**exponent for -1022 <= exponent <= 1023, from its bits."""
    return ((exponent + 1023) << 52).view(np.float64)
