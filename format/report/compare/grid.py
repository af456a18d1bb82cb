"""Where the values of a field are: latitudes, longitudes, weights; and what lies along the axes before them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isopress.format.source.dataset import Source

Array = np.ndarray[Any, Any]

_LAT_UNITS = ("degrees_north", "degree_north", "degrees_n", "degree_n")
_LON_UNITS = ("degrees_east", "degree_east", "degrees_e", "degree_e")
_FULL_CIRCLE = 360.0


@dataclass(frozen=True)
class Grid:
    """The last two axes of a variable; latitudes and longitudes in degrees, None where the axes are no such thing."""

    lat: Array | None
    lon: Array | None

    @property
    def periodic(self) -> bool:
        """Whether columns go all around the globe, so that the last one is beside the first."""
        if self.lon is None or self.lon.size < 4:
            return False
        step = float(np.median(np.diff(self.lon)))
        return abs(abs(step) * self.lon.size - _FULL_CIRCLE) < abs(step) / 2

    def weights(self, rows: int) -> Array:
        """Return the weight of each row, (rows, 1): the cosine of its latitude, or 1 where that is not known."""
        if self.lat is None:
            return np.ones((rows, 1))
        return np.maximum(np.cos(np.deg2rad(self.lat)), 0.0)[:, None] + 1e-12

    @property
    def extent(self) -> tuple[float, float, float, float] | None:
        """West, east, last and first latitude at the edges of the outer cells; None without such axes."""
        if self.lat is None or self.lon is None or min(self.lat.size, self.lon.size) < 2:
            return None
        dx, dy = (float(axis[-1] - axis[0]) / (axis.size - 1) / 2 for axis in (self.lon, self.lat))
        return float(self.lon[0]) - dx, float(self.lon[-1]) + dx, float(self.lat[-1]) + dy, float(self.lat[0]) - dy


def grid_of(source: Source, name: str) -> Grid:
    """Return the grid of a variable, judging by the coordinates of its last two axes."""
    variable = source.stored(name)
    group = name.rpartition("/")[0]
    lat = lon = None
    if variable.ndim >= 2:
        rows, columns = (_axis(source, group, str(dim)) for dim in variable.dims[-2:])
        lat = rows[0] if rows and _is(rows[1], str(variable.dims[-2]), _LAT_UNITS, "lat") else None
        lon = columns[0] if columns and _is(columns[1], str(variable.dims[-1]), _LON_UNITS, "lon") else None
    return Grid(lat, np.rad2deg(np.unwrap(np.deg2rad(lon))) if lon is not None else None)


def labels(source: Source, name: str, index: Sequence[int]) -> str:
    """Return where along the leading axes a field is: `time 2020-01-01T06:00, level 500 hPa`."""
    variable = source.stored(name)
    group = name.rpartition("/")[0]
    return ", ".join(
        f"{dim} {_label(source, group, str(dim), place)}" for dim, place in zip(variable.dims, index, strict=False)
    )


def _axis(source: Source, group: str, dim: str) -> tuple[Array, dict[str, Any]] | None:
    """Return values and attributes of the coordinate of an axis, from its group or one around it."""
    while True:
        name = f"{group}/{dim}" if group else dim
        if name in source.names:
            variable = source.stored(name)
            if variable.ndim == 1 and variable.dtype.kind in "iuf":
                return np.asarray(source.read(name, (slice(None),)), float), dict(variable.attrs)
            return None
        if not group:
            return None
        group = group.rpartition("/")[0]


def _is(attrs: dict[str, Any], dim: str, units: Sequence[str], word: str) -> bool:
    return str(attrs.get("units", "")).lower() in units or (not attrs.get("units") and dim.lower().startswith(word))


def _label(source: Source, group: str, dim: str, place: int) -> str:
    found = _axis(source, group, dim)
    if found is None:
        return str(place)
    value, units = float(found[0][place]), str(found[1].get("units", ""))
    if " since " not in units:
        return f"{value:g} {units}".strip()
    import xarray as xr

    known = {key: found[1][key] for key in ("units", "calendar") if key in found[1]}
    try:
        time = xr.decode_cf(xr.Dataset({"t": ("n", np.array([value]), known)}))["t"].values[0]
    except (ValueError, OverflowError, ImportError, AttributeError):  # odd units, or cftime is not installed
        return f"{value:g} {units}"
    return str(np.datetime_as_string(time, unit="m")) if isinstance(time, np.datetime64) else str(time)
