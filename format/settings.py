"""The settings both Zarr codecs share. Import-light: stores are opened with this and no more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from isopress.codec.bound import Bound, Mode
from isopress.codec.errors import ArgumentError
from isopress.format.payload import Dtype, check_decodable

CONTEXTS = ("auto", "field", "block")


@dataclass(frozen=True)
class Settings:
    """Everything that changes the bytes a codec writes: the keywords of `isopress.compress`.

    Raises
    ------
    ArgumentError
        The bound is not one that `mode` takes, `model` is no name, or `context` is unknown.
    """

    mode: str = "abs"
    bound: float | Sequence[float] | None = None
    floor: float | None = None
    model: str = "default"
    context: str = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.bound, list) or (isinstance(self.bound, np.ndarray) and self.bound.ndim):
            object.__setattr__(self, "bound", tuple(self.bound))
        if isinstance(self.bound, tuple) and (not self.bound or self.mode != "abs"):
            raise ArgumentError(
                f"{len(self.bound)} bounds of mode {self.mode!r}: give one number, or one bound of mode 'abs' for each "
                "entry of the first axis"
            )
        _ = self.limit  # checks mode, bound and floor
        if not isinstance(self.model, str) or not self.model:
            raise ArgumentError(f"model is a name or a sha256, got {self.model!r}")
        if self.context not in CONTEXTS:
            raise ArgumentError(f"context {self.context!r} is unknown; allowed are {', '.join(CONTEXTS)}")
        for name in ("bound", "floor"):
            value = getattr(self, name)
            if value is not None:  # numpy scalars are not JSON
                plain = tuple(map(float, value)) if isinstance(value, tuple) else float(value)
                object.__setattr__(self, name, plain)

    @property
    def limit(self) -> Bound | tuple[Bound, ...]:
        """The bound these settings ask for; one for each entry of a chunk's first axis if there are several."""
        mode = cast(Mode, self.mode)
        if isinstance(self.bound, tuple):
            return tuple(Bound(mode, bound, self.floor) for bound in self.bound)
        return Bound(mode, cast(float | None, self.bound), self.floor)

    def to_config(self) -> dict[str, Any]:
        """Return the settings as JSON values, those that have their default left out (but `mode`)."""
        bound = list(self.bound) if isinstance(self.bound, tuple) else self.bound
        config = {"mode": self.mode, "bound": bound, "floor": self.floor}
        config = {name: value for name, value in config.items() if value is not None}
        defaults = {"model": "default", "context": "auto"}
        return config | {name: getattr(self, name) for name in defaults if getattr(self, name) != defaults[name]}

    def check(self, dtype: Dtype, shape: tuple[int, ...]) -> None:
        """Raise ArgumentError unless arrays of this dtype and chunk shape can be coded so."""
        check_decodable(dtype, shape)
        if self.mode != "lossless" and dtype.newbyteorder("=") not in ("float32", "float64"):
            raise ArgumentError(
                f"mode {self.mode!r} codes float32 and float64, not {dtype}: use mode 'lossless', and put no "
                "filter that returns bytes or integers before isopress"
            )
        if isinstance(self.bound, tuple) and (len(shape) < 3 or shape[0] != len(self.bound)):
            raise ArgumentError(
                f"{len(self.bound)} bounds need chunks of shape ({len(self.bound)}, ..., lat, lon), one entry of the "
                f"first axis for each bound; got {shape}"
            )
