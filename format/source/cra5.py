"""Files of CRA5, `YYYY-MM-DDTHH:MM:SS.bin`: one hour of all channels each, as a dataset of lazy fields.

The header, the name of the file and the metadata of the weights make the dataset. The first field that is read decodes
the latents of the file, once; what the decode cache keeps of them is a twentieth of the fields, and every field is made
of it on demand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint

from isopress.codec.errors import ArgumentError, IsopressError
from isopress.codec.threads import IMPORTS
from isopress.format.decode_cache import CACHE

if TYPE_CHECKING:
    from isopress.codec.vaeformer.cra5 import Decoded

_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.bin")
_UNITS = {
    **dict.fromkeys(("u", "v", "u10", "v10", "u100", "v100"), "m s**-1"),
    **{"z": "m**2 s**-2", "q": "kg kg**-1", "t": "K", "r": "%", "w": "Pa s**-1"},
    **{"t2m": "K", "tcc": "1", "sp": "Pa", "msl": "Pa", "tp": "mm"},  # its code reads metres of rain as millimetres
}
_TOKENS = 20  # fields take so many times the bytes of what they are made of


def is_cra5(path: str) -> bool:
    """Return whether a file is called as CRA5 calls its own."""
    return _NAME.fullmatch(Path(path).name) is not None


def open_cra5(path: str, model: str | None = None) -> xr.Dataset:
    """Return the dataset of one file, times not decoded, fields not read.

    Parameters
    ----------
    model : str, optional
        Name or sha256 of the imported checkpoint; that which fits the file, if left out.

    Raises
    ------
    ArgumentError
        The name of the file tells no time, or no weights fit.
    PayloadError
        The file is damaged.
    ModelNotFoundError
        There is no `model`.
    """
    named = _NAME.fullmatch(Path(path).name)
    if named is None:
        raise ArgumentError(f"{path}: a file of CRA5 is called YYYY-MM-DDTHH:MM:SS.bin; nothing else tells its time")
    try:
        time = datetime.fromisoformat(named[1]).replace(tzinfo=UTC)
    except ValueError as error:
        raise ArgumentError(f"{path}: {named[1]} is no time ({error})") from error
    with IMPORTS:
        from isopress.codec.models.registry import find
        from isopress.codec.vaeformer.cra5 import Strings
        from isopress.codec.vaeformer.weights import cra5_weights

    grid = Strings.from_bytes(Path(path).read_bytes()).grid
    weights = cra5_weights(grid) if model is None else find(model, "vaeformer")
    if "imported_from_sha256" not in weights.metadata:
        raise ArgumentError(f"{weights.name}: these weights are not those of CRA5; isopress models import FILE.pth")
    names = [(str(name), level) for name, level in json.loads(weights.metadata["channels"])]
    height, width = json.loads(weights.metadata["shape"])
    file = _File(path, weights.sha256, (height, width), len(names))
    return _dataset(file, names, int(time.timestamp()))


class Cra5Engine(BackendEntrypoint):
    """`xr.open_dataset(path, engine="cra5")`: one of CRA5's own files, one decode for all of its fields."""

    description = "Files of CRA5 (.bin), with its imported checkpoint"
    url = "https://github.com/taohan10200/CRA5"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "decode_times", "model")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        decode_times: bool = True,
        model: str | None = None,
    ) -> xr.Dataset:
        """Return the dataset of a file."""
        dataset = open_cra5(str(filename_or_obj), model)
        left_out = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        dataset = dataset.drop_vars(left_out, errors="ignore")
        return xr.decode_cf(dataset, decode_times=decode_times)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether the name is one of CRA5's."""
        return isinstance(filename_or_obj, str | Path) and is_cra5(str(filename_or_obj))


@dataclass(frozen=True)
class _File:
    """One file: where it is, the weights it needs, and the shape of its fields."""

    path: str
    sha256: str
    shape: tuple[int, int]
    channels: int

    def fields(self, channels: Iterable[int]) -> np.ndarray[Any, Any]:
        """Return some fields (n, H, W); the latents are decoded unless the cache has them."""
        content = Path(self.path).read_bytes()
        key = memoryview(self.sha256.encode() + content)
        nbytes = 4 * self.shape[0] * self.shape[1] * self.channels // _TOKENS
        start: Any = partial(_decode, self.sha256, self.path, content)
        with CACHE.decoder(key, nbytes, start) as decoder:
            decoded = cast("Decoded", decoder)
            return np.stack([decoded.channel(i) for i in channels])


def _decode(sha256: str, path: str, content: bytes) -> Decoded:
    with IMPORTS:
        from isopress.codec.vaeformer.weights import load_cra5

    try:
        return load_cra5(sha256).decode(content)
    except IsopressError as error:
        raise type(error)(f"{path}: {error}") from error


class _Fields(BackendArray):
    """A variable of a file: (time, lat, lon), or (time, level, lat, lon) of the `channels`."""

    def __init__(self, file: _File, channels: tuple[int, ...], *, levels: bool) -> None:
        self._file, self._channels = file, channels
        self.shape = (1, len(channels), *file.shape) if levels else (1, *file.shape)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: Any) -> Any:
        return xr.core.indexing.explicit_indexing_adapter(
            key, self.shape, xr.core.indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        levels = len(self.shape) == 4
        place = key[1] if levels else slice(None)
        wanted = np.atleast_1d(np.arange(len(self._channels))[place])
        fields = (
            self._file.fields(self._channels[i] for i in wanted.tolist())
            if wanted.size
            else np.empty((0, *self._file.shape), np.float32)
        )
        x = fields[:, key[-2]][..., key[-1]]  # one axis after the other: arrays select along each of them
        if not levels or isinstance(place, int | np.integer):
            x = x[0]
        time = np.arange(1)[key[0]]
        return x if np.ndim(time) == 0 else np.broadcast_to(x, (np.size(time), *x.shape)).copy()


def _dataset(file: _File, names: list[tuple[str, float | None]], seconds: int) -> xr.Dataset:
    height, width = file.shape
    coordinates = {
        "time": xr.Variable(
            "time", np.array([seconds]), {"units": "seconds since 1970-01-01", "standard_name": "time"}
        ),
        "latitude": xr.Variable("latitude", np.linspace(90, -90, height), {"units": "degrees_north"}),
        "longitude": xr.Variable("longitude", np.arange(width) * (360 / width), {"units": "degrees_east"}),
    }
    levels = list(dict.fromkeys(level for _, level in names if level is not None))
    if levels:
        coordinates["level"] = xr.Variable("level", np.array(levels, np.float64), {"units": "hPa", "positive": "down"})
    variables = {name: _variable(file, names, name, levels) for name in dict.fromkeys(name for name, _ in names)}
    return xr.Dataset(variables, coordinates, {"Conventions": "CF-1.12", "source": "CRA5"})


def _variable(file: _File, names: list[tuple[str, float | None]], name: str, levels: list[float]) -> xr.Variable:
    places: Mapping[float | None, int] = {level: i for i, (other, level) in enumerate(names) if other == name}
    has_levels = None not in places
    if has_levels and set(places) != set(levels):
        raise ArgumentError(f"{name}: its levels are not those of the other variables; the weights are odd")
    channels = tuple(places[level] for level in (levels if has_levels else [None]))
    lazy = xr.core.indexing.LazilyIndexedArray(_Fields(file, channels, levels=has_levels))
    dims = ("time", *(("level",) if has_levels else ()), "latitude", "longitude")
    encoding = {"chunks": (*(1 for _ in dims[:-2]), *file.shape), "source": file.path}
    attrs = {"units": _UNITS[name]} if name in _UNITS else {}
    return xr.Variable(dims, lazy, attrs, encoding)
