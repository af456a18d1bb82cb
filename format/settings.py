"""The settings both Zarr codecs share. Import-light: stores are opened with this and no more."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast, get_args

import numpy as np

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Mode, Target, check_effort, check_fits
from isopress.format.payload import Dtype, check_decodable

CONTEXTS = ("auto", "field", "block")
MODES = (*get_args(Mode), "latent")

Promise = Bound | Target  # of one variable
Limit = Promise | tuple[Bound, ...]


@dataclass(frozen=True)
class Settings:
    """Everything that changes the bytes a codec writes: the keywords of `isopress.compress`.

    Raises
    ------
    ArgumentError
        The bound or target is not one that `mode` takes, `model` is no name, `channels` are none or those of no
        `model`, or `context` or `effort` is unknown or not for this mode.
    """

    mode: str = "abs"
    bound: float | Sequence[float] | None = None
    floor: float | None = None
    model: str = "default"
    context: str = "auto"
    ratio: float | None = None
    rmse: float | None = None
    effort: int = 0
    exact: Sequence[float] = ()
    channels: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.mode, str) or self.mode not in MODES:
            raise ArgumentError(f"mode {self.mode!r} is unknown; allowed are {', '.join(MODES)}")
        if not isinstance(self.context, str) or self.context not in CONTEXTS:
            raise ArgumentError(f"context {self.context!r} is unknown; allowed are {', '.join(CONTEXTS)}")
        object.__setattr__(self, "exact", _numbers(self.exact))
        if self.mode == "latent":
            self._check_latent()
        else:
            self._check_bounded()
        _ = self.limit  # checks the numbers
        if not isinstance(self.model, str) or not self.model:
            raise ArgumentError(f"model is a name or a sha256, got {self.model!r}")
        object.__setattr__(self, "channels", self._names())
        for name in ("bound", "floor", "ratio", "rmse"):
            value = getattr(self, name)
            if value is not None:  # numpy scalars are not JSON
                plain = tuple(map(float, value)) if isinstance(value, tuple) else float(value)
                object.__setattr__(self, name, plain)
        object.__setattr__(self, "effort", int(self.effort))

    def _check_bounded(self) -> None:
        if isinstance(self.bound, list) or (isinstance(self.bound, np.ndarray) and self.bound.ndim):
            object.__setattr__(self, "bound", tuple(self.bound))
        if isinstance(self.bound, tuple) and (not self.bound or self.mode != "abs"):
            raise ArgumentError(
                f"{len(self.bound)} bounds of mode {self.mode!r}: give one number, or one bound of mode 'abs' for each "
                "entry of the first axis"
            )
        if isinstance(self.bound, tuple) and len(self.exact):
            raise ArgumentError(f"exact={self.exact!r} goes with one bound, not with {len(self.bound)}")
        for name in ("ratio", "rmse", "effort"):
            if not np.array_equal(getattr(self, name), _DEFAULTS[name]):
                raise ArgumentError(
                    f"{name}={getattr(self, name)!r} belongs to mode 'latent', not {self.mode!r}: leave it out, or "
                    "set mode='latent' and no bound"
                )

    def _check_latent(self) -> None:
        for name in ("bound", "floor", "context"):
            if not np.array_equal(getattr(self, name), _DEFAULTS[name]):
                raise ArgumentError(
                    f"{name}={getattr(self, name)!r} belongs to the bounded modes; mode 'latent' takes a ratio or an "
                    f"rmse: leave out {name}, or choose another mode"
                )
        check_effort(self.effort)

    def _names(self) -> tuple[str, ...]:
        several = isinstance(self.channels, Sequence) and not isinstance(self.channels, str)
        if not several or not all(isinstance(name, str) for name in self.channels):
            raise ArgumentError(f"channels is a sequence of names, such as ['t850', 'u10'], not {self.channels!r:.80}")
        if self.channels and self.model == "default":
            raise ArgumentError("channels are those of a VAEformer: name its weights as model, or leave them out")
        return tuple(self.channels)

    @property
    def limit(self) -> Limit:
        """What these settings ask for: a target, a bound, or one bound for each entry of a chunk's first axis."""
        if self.mode == "latent":
            return Target(self.ratio, self.rmse, tuple(self.exact))
        mode = cast(Mode, self.mode)
        if isinstance(self.bound, tuple):
            return tuple(Bound(mode, bound, self.floor) for bound in self.bound)
        return Bound(mode, cast(float | None, self.bound), self.floor, tuple(self.exact))

    def to_config(self) -> dict[str, Any]:
        """Return the settings as JSON values, those that have their default left out (but `mode`)."""
        config: dict[str, Any] = {"mode": self.mode}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if name != "mode" and value != default:
                config[name] = list(value) if isinstance(value, tuple) else value
        return config

    def check(self, dtype: Dtype, shape: tuple[int, ...]) -> None:
        """Raise ArgumentError unless arrays of this dtype and chunk shape can be coded so."""
        check_decodable(dtype, shape)
        check_fits(self.limit, dtype, shape)


def _numbers(exact: Sequence[float]) -> tuple[float, ...]:
    """Return the values that are to come back exactly.

    Raises
    ------
    ArgumentError
        They are not numbers of binary64.
    """
    try:
        if isinstance(exact, str | bytes):
            raise TypeError("text")
        return tuple(map(float, exact))
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"exact is a sequence of numbers, such as [-9999.0], not {exact!r:.80}") from error


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Settings)}
