"""Target: what a latent coding aims at, a ratio or an error. A leaf of the package."""

import math
from dataclasses import dataclass
from numbers import Real

from isopress.codec.errors import ArgumentError

TOLERANCE = 0.03  # how far, relatively, a chunk may be from its target
MAX_EFFORT = 4  # of a writer in search of symbols that cost less


@dataclass(frozen=True)
class Target:
    """The ratio or the root mean square error that every chunk is to have, within 3 %.

    Parameters
    ----------
    ratio : float, optional
        Bytes of the values over bytes of the payload; finite and > 1.
    rmse : float, optional
        Root of the mean of (x - x_hat)^2 over the finite values of a chunk, in data units; finite and > 0.

    Raises
    ------
    ArgumentError
        Not exactly one of them is given, or it is outside its range.
    """

    ratio: float | None = None
    rmse: float | None = None

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.rmse is None):
            given = "neither" if self.ratio is None else f"ratio={self.ratio!r} and rmse={self.rmse!r}"
            raise ArgumentError(f"mode 'latent' takes a ratio or an rmse, one of the two; got {given}")
        if self.ratio is not None and not (_is_number(self.ratio) and 1 < self.ratio < math.inf):
            raise ArgumentError(f"ratio must be a finite number > 1 (300 is 300 times smaller), got {self.ratio!r}")
        if self.rmse is not None and not (_is_number(self.rmse) and 0 < self.rmse < math.inf):
            raise ArgumentError(
                f"rmse must be a finite number > 0, in the unit of the data, got {self.rmse!r}; "
                "use mode 'lossless' for exact values"
            )

    @property
    def mode(self) -> str:
        """The mode of payloads that have a target."""
        return "latent"

    def allows(self, rmse: float) -> bool:
        """Return whether a chunk with this error is near enough to the target; a ratio allows any error."""
        return self.rmse is None or rmse <= (1 + TOLERANCE) * self.rmse

    def reached_by(self, ratio: float) -> bool:
        """Return whether a chunk so many times smaller is near enough to the target; an error allows any ratio."""
        return self.ratio is None or ratio * (1 + TOLERANCE) >= self.ratio


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
