"""Limits: a bound that every value keeps, or a target (ratio, rmse) to aim at. A leaf of the package."""

import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from typing import Literal, get_args

import numpy as np

from isopress.codec.errors import ArgumentError

Mode = Literal["abs", "range", "pointwise", "lossless"]
TARGET_TOLERANCE = 0.03  # how far, relatively, a chunk may be from its target
MAX_EFFORT = 4  # of a writer in search of symbols that cost less
_REMEDY = "use mode 'lossless' for exact values"


@dataclass(frozen=True)
class Bound:
    """The largest allowed difference between a value and its decoded value.

    Parameters
    ----------
    mode : {"abs", "range", "pointwise", "lossless"}
        abs: |x - x_hat| <= value, in data units. range: <= value * (max - min of the finite values).
        pointwise: <= max(value * |x|, floor). lossless: every bit is restored.
    value : float or None
        Finite and > 0, for pointwise also < 1; None in mode lossless.
    floor : float or None
        Only in mode pointwise: smallest allowed error, in data units, finite and > 0. Without it zeros
        are exact.
    exact : tuple of float
        Values that stand for something else, such as -9999 for missing: kept with all their bits, in no range.

    Raises
    ------
    ArgumentError
        Unknown mode, or a value or floor that is missing, superfluous or outside its range.
    """

    mode: Mode
    value: float | None = None
    floor: float | None = None
    exact: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ArgumentError(f"mode {self.mode!r} is unknown; allowed are {', '.join(get_args(Mode))}")
        if self.mode == "lossless":
            if self.value is not None:
                raise ArgumentError(f"mode 'lossless' takes no bound, got {self.value!r}; leave it out")
        else:
            _check_positive(f"bound of mode {self.mode!r}", self.value)
            if self.mode == "pointwise" and self.value is not None and self.value >= 1:
                raise ArgumentError(f"bound of mode 'pointwise' is a fraction < 1 (0.01 is 1 %), got {self.value!r}")
        if self.floor is not None:
            if self.mode != "pointwise":
                raise ArgumentError(f"floor belongs to mode 'pointwise' only, not {self.mode!r}; leave it out")
            _check_positive("floor", self.floor)

    def resolve(self, x: np.ndarray) -> float:
        """Return the bound on `x` as one number: in data units, a fraction (pointwise), or 0 (lossless).

        In mode range this is value * (max - min) over the finite values of `x`, rounded down; 0, which means exact,
        when they are all equal or there are none.
        """
        if self.value is None:
            return 0.0
        if self.mode != "range":
            return float(self.value)
        counts = np.isfinite(x)
        if self.exact:
            counts &= ~is_one_of(x, self.exact)
        finite = x if counts.all() else x[counts]
        if not finite.size:
            return 0.0
        exact = Fraction(float(self.value)) * (Fraction(float(finite.max())) - Fraction(float(finite.min())))
        resolved = float(min(exact, Fraction(sys.float_info.max)))
        return resolved if Fraction(resolved) <= exact else math.nextafter(resolved, 0.0)

    def tolerance(self, x: np.ndarray) -> float | np.ndarray:
        """Return the largest allowed |x - x_hat|, in the unit of `x`: one float, or for pointwise an array.

        Pointwise tolerances are rounded down, so that keeping them keeps the bound in exact arithmetic too;
        they are 0 where `x` is 0 and there is no floor, and NaN where `x` is NaN.
        """
        if self.mode != "pointwise":
            return self.resolve(x)
        with np.errstate(invalid="ignore"):  # signalling NaN
            relative: np.ndarray = np.nextafter(self.resolve(x) * np.abs(x, dtype=np.float64), 0.0)
        return relative if self.floor is None else np.maximum(relative, self.floor)


@dataclass(frozen=True)
class Target:
    """The ratio or the root mean square error that every chunk is to have, within 3 %.

    Parameters
    ----------
    ratio : float, optional
        Bytes of the values over bytes of the payload; finite and > 1.
    rmse : float, optional
        Root of the mean of (x - x_hat)^2 over the finite values of a chunk, in data units; finite and > 0.
    exact : tuple of float
        As of a `Bound`.

    Raises
    ------
    ArgumentError
        Not exactly one of them is given, or it is outside its range.
    """

    ratio: float | None = None
    rmse: float | None = None
    exact: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.rmse is None):
            given = "neither" if self.ratio is None else f"ratio={self.ratio!r} and rmse={self.rmse!r}"
            raise ArgumentError(f"mode 'latent' takes a ratio or an rmse, one of the two; got {given}")
        if self.ratio is not None and not 1 < _number(self.ratio) < math.inf:
            raise ArgumentError(
                f"ratio must be a finite number > 1 (300 is 300 times smaller), got {_shown(self.ratio)}"
            )
        if self.rmse is not None and not 0 < _number(self.rmse) < math.inf:
            raise ArgumentError(
                f"rmse must be a finite number > 0, in the unit of the data, got {_shown(self.rmse)}; "
                "use mode 'lossless' for exact values"
            )

    @property
    def mode(self) -> str:
        """The mode of payloads that have a target."""
        return "latent"

    def allows(self, rmse: float) -> bool:
        """Return whether a chunk with this error is near enough to the target; a ratio allows any error."""
        return self.rmse is None or rmse <= (1 + TARGET_TOLERANCE) * self.rmse


def check_fits(limit: "Bound | Target | tuple[Bound, ...]", dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Raise ArgumentError unless arrays of this dtype and shape can have this limit, or several bounds."""
    mode = "abs" if isinstance(limit, tuple) else limit.mode
    if mode != "lossless" and dtype.newbyteorder("=") not in ("float32", "float64"):
        raise ArgumentError(
            f"mode {mode!r} codes float32 and float64, not {dtype}: use mode 'lossless', and put no "
            "filter that returns bytes or integers before isopress"
        )
    if isinstance(limit, tuple):
        modes = {bound.mode for bound in limit}
        if modes != {"abs"}:
            raise ArgumentError(f"several bounds are of mode 'abs', not {', '.join(sorted(modes)) or 'none'}")
        if len(shape) < 3 or shape[0] != len(limit):
            raise ArgumentError(
                f"{len(limit)} bounds need chunks of shape ({len(limit)}, ..., lat, lon), one entry of the "
                f"first axis for each bound; got {shape}"
            )


def check_effort(effort: object) -> None:
    """Raise ArgumentError unless this is an effort of the search for symbols that cost less."""
    if not isinstance(effort, Integral) or isinstance(effort, bool) or not 0 <= int(effort) <= MAX_EFFORT:
        raise ArgumentError(f"effort is an integer from 0 to {MAX_EFFORT}, got {effort!r}")


def is_one_of(x: np.ndarray, exact: tuple[float, ...]) -> np.ndarray:
    """Return, as a bool array, where `x` is one of the values that are kept with all their bits."""
    if not exact:
        return np.zeros(x.shape, bool)
    with np.errstate(over="ignore"):
        return np.isin(x, np.asarray(exact, np.float64).astype(x.dtype))


def exceeds(x: np.ndarray, x_hat: np.ndarray, tolerance: float | np.ndarray) -> np.ndarray:
    """Return, as a bool array, where |x - x_hat| > `tolerance` holds in exact arithmetic.

    Parameters
    ----------
    x, x_hat : ndarray, equal shapes, float32 or float64
        Original (finite) and decoded values, both in the dtype the reader will get. NaN in `x_hat` exceeds.
    tolerance : float or ndarray of the shape of `x`
        Allowed difference, float64, >= 0.

    Raises
    ------
    ArgumentError
        Shapes or dtypes differ.

    Notes
    -----
    Rounding to nearest is monotone, so a float64 difference above or below the tolerance settles the
    question; only a tie needs the rounding error of the subtraction, which is Knuth's TwoSum.
    """
    if x.shape != x_hat.shape or x.dtype != x_hat.dtype:
        raise ArgumentError(f"x is {x.dtype}{x.shape} but x_hat is {x_hat.dtype}{x_hat.shape}; they must agree")
    with np.errstate(over="ignore", invalid="ignore"):  # huge and non-finite x_hat are what we look for
        size = np.abs(np.subtract(x, x_hat, dtype=np.float64))
        wrong: np.ndarray = np.asarray(~(size <= tolerance))
        tie = np.flatnonzero((size == tolerance) & (size != 0))
    if tie.size:
        wrong.reshape(-1)[tie] |= _rounded_down(x.reshape(-1)[tie], x_hat.reshape(-1)[tie])
    return wrong


def largest_ulp(x: np.ndarray) -> float:
    """Return the distance from the largest |x| to the next smaller number of the dtype; `x` is finite."""
    top = np.abs(x).max(initial=0)
    return float(top) - float(np.nextafter(top, x.dtype.type(0)))


def _rounded_down(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether |a - b| is larger than its float64 rounding."""
    a, b = a.astype(np.float64), -b.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = a + b
        b_part = total - a
        error = (a - (total - b_part)) + (b - b_part)
    larger: np.ndarray = (np.sign(error) == np.sign(total)) & (error != 0)
    return larger


def _check_positive(name: str, value: object) -> None:
    if not 0 < _number(value) < math.inf:
        raise ArgumentError(f"{name} must be a finite number > 0, got {_shown(value)}; {_REMEDY}")


def _shown(value: object) -> str:
    """Return a value as messages show it: integers of a thousand digits are none to read."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"


def _number(value: object) -> float:
    """Return a real number as a float, infinite if it is too large for one; NaN of what is no number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an integer or fraction
        return math.inf
