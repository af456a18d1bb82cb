"""The settings both Zarr codecs share. Import-light: stores are opened with this and no more."""

from dataclasses import dataclass
from typing import Any, cast

from isopress.codec.bound import Bound, Mode
from isopress.codec.errors import ArgumentError
from isopress.format.payload import Dtype, check_decodable


@dataclass(frozen=True)
class Settings:
    """Everything that changes the bytes a codec writes: the keywords of `isopress.compress`.

    Raises
    ------
    ArgumentError
        The bound is not one that `mode` takes, or `model` is no name.
    """

    mode: str = "abs"
    bound: float | None = None
    floor: float | None = None
    model: str = "default"

    def __post_init__(self) -> None:
        _ = self.limit  # checks mode, bound and floor
        if not isinstance(self.model, str) or not self.model:
            raise ArgumentError(f"model is a name or a sha256, got {self.model!r}")
        for name in ("bound", "floor"):
            value = getattr(self, name)
            if value is not None:  # numpy scalars are not JSON
                object.__setattr__(self, name, float(value))

    @property
    def limit(self) -> Bound:
        """The bound these settings ask for."""
        return Bound(cast(Mode, self.mode), self.bound, self.floor)

    def to_config(self) -> dict[str, Any]:
        """Return the settings as JSON values, those that have their default left out (but `mode`)."""
        config = {"mode": self.mode, "bound": self.bound, "floor": self.floor}
        config = {name: value for name, value in config.items() if value is not None}
        return config if self.model == "default" else config | {"model": self.model}

    def check(self, dtype: Dtype, shape: tuple[int, ...]) -> None:
        """Raise ArgumentError unless arrays of this dtype and chunk shape can be coded so."""
        check_decodable(dtype, shape)
        if self.mode != "lossless" and dtype.newbyteorder("=") not in ("float32", "float64"):
            raise ArgumentError(
                f"mode {self.mode!r} codes float32 and float64, not {dtype}: use mode 'lossless', and put no "
                "filter that returns bytes or integers before isopress"
            )
