"""What people compute from fields, whose errors a bound on the fields themselves does not tell: wind speed, vorticity,
divergence, geostrophic wind, relative humidity.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from isopress.format.report.compare.grid import Grid, grid_of
from isopress.format.source.dataset import Source

Array = np.ndarray[Any, Any]

EARTH_RADIUS = 6.371229e6  # metres, as ECMWF has it
ROTATION = 7.292115e-5  # per second
_TROPICS = 20.0  # degrees: closer to the equator there is no geostrophic wind
_POLES = 85.0  # degrees: closer to the poles differences along longitude are noise
_WINDS = (("u", "v"), ("u10", "v10"), ("10u", "10v"), ("u100", "v100"), ("100u", "100v"), ("ua", "va"), ("uas", "vas"))
_PRESSURE_UNITS = {"hPa": 100.0, "millibars": 100.0, "millibar": 100.0, "mbar": 100.0, "Pa": 1.0}


@dataclass(frozen=True)
class Shown:
    """One thing that is compared: a variable as it is, or what is computed from fields of some variables.

    `compute` takes the fields of `parts`, each (rows, columns), the index along the leading axes, and where values are.
    """

    name: str
    long_name: str
    units: str
    parts: tuple[str, ...]
    compute: Callable[[list[Array], tuple[int, ...], Grid], Array]


def plain(source: Source, name: str) -> Shown:
    """Return a variable as it is."""
    attrs = source.stored(name).attrs
    long_name = str(attrs.get("long_name", attrs.get("standard_name", "")))
    units = str(attrs.get("units", "")).replace("**", "")  # `m s**-1` reads better without
    return Shown(name, long_name, units, (name,), lambda fields, index, grid: fields[0])


def derived(source: Source, names: tuple[str, ...]) -> Iterator[Shown]:
    """Yield what can be computed from variables of these names, one group at a time."""
    for group in dict.fromkeys(name.rpartition("/")[0] for name in names):
        prefix = f"{group}/" if group else ""
        members = {name.removeprefix(prefix): name for name in names if name.rpartition("/")[0] == group}
        for u, v in _pairs(source, members):
            yield from _winds(source, prefix, u, v)
        yield from _geostrophic(source, prefix, members)
        yield from _humidity(source, prefix, members)


def _pairs(source: Source, members: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the variables that are both components of a wind."""
    by_standard = {str(source.stored(name).attrs.get("standard_name")): name for name in members.values()}
    found = [(members[u], members[v]) for u, v in _WINDS if u in members and v in members]
    if not found and {"eastward_wind", "northward_wind"} <= by_standard.keys():
        found = [(by_standard["eastward_wind"], by_standard["northward_wind"])]
    for u, v in found:
        if source.stored(u).dims == source.stored(v).dims and source.stored(u).ndim >= 2:
            yield u, v


def _winds(source: Source, prefix: str, u: str, v: str) -> Iterator[Shown]:
    units = plain(source, u).units
    label = f"{u.rpartition('/')[2]}, {v.rpartition('/')[2]}"
    yield Shown(f"{prefix}speed ({label})", "wind speed", units, (u, v), lambda fields, index, grid: np.hypot(*fields))
    grid = grid_of(source, u)
    if grid.lat is None or grid.lon is None or min(grid.lat.size, grid.lon.size) < 3:
        return
    yield Shown(
        f"{prefix}vorticity ({label})", "relative vorticity", "s-1", (u, v), lambda f, i, grid: vorticity(grid, *f)
    )
    yield Shown(f"{prefix}divergence ({label})", "divergence", "s-1", (u, v), lambda f, i, grid: divergence(grid, *f))


def _geostrophic(source: Source, prefix: str, members: dict[str, str]) -> Iterator[Shown]:
    name = members.get("z")
    if name is None or str(source.stored(name).attrs.get("units", "")).replace("**", "") not in ("m2 s-2", "m2/s2"):
        return
    grid = grid_of(source, name)
    if grid.lat is not None and grid.lon is not None and min(grid.lat.size, grid.lon.size) >= 3:
        yield Shown(
            f"{prefix}geostrophic wind (z)",
            "speed outside 20 S to 20 N",
            "m s-1",
            (name,),
            lambda f, i, grid: geostrophic(grid, f[0]),
        )


def _humidity(source: Source, prefix: str, members: dict[str, str]) -> Iterator[Shown]:
    if not {"t", "q"} <= members.keys():
        return
    t, q = members["t"], members["q"]
    variable = source.stored(t)
    levels = _pressures(source, prefix, [str(dim) for dim in variable.dims[:-2]])
    if variable.dims != source.stored(q).dims or levels is None:
        return
    axis, pressures = levels
    yield Shown(
        f"{prefix}relative humidity (t, q)",
        "relative humidity over water",
        "%",
        (t, q),
        lambda fields, index, grid: relative_humidity(fields[0], fields[1], float(pressures[index[axis]])),
    )


def _pressures(source: Source, prefix: str, dims: list[str]) -> tuple[int, Array] | None:
    """Return which of the leading axes is pressure, and its values in Pa."""
    for axis, dim in enumerate(dims):
        name = prefix + dim
        factor = _PRESSURE_UNITS.get(str(source.stored(name).attrs.get("units", ""))) if name in source.names else None
        if factor is not None and source.stored(name).ndim == 1:
            return axis, np.asarray(source.read(name, (slice(None),)), float) * factor
    return None


def vorticity(grid: Grid, u: Array, v: Array) -> Array:
    """Return (dv/dx - d(u cos lat)/dy / cos lat), in 1/s, by centred differences; NaN near the poles."""
    return _along_x(grid, v) - _along_y(grid, u)


def divergence(grid: Grid, u: Array, v: Array) -> Array:
    """Return (du/dx + d(v cos lat)/dy / cos lat), in 1/s, by centred differences; NaN near the poles."""
    return _along_x(grid, u) + _along_y(grid, v)


def geostrophic(grid: Grid, z: Array) -> Array:
    """Return the speed of the geostrophic wind of geopotential `z` (m2 s-2), in m/s; NaN in the tropics, at poles."""
    assert grid.lat is not None, "Shown only with latitudes"
    coriolis = np.where(np.abs(grid.lat) < _TROPICS, np.nan, 2 * ROTATION * np.sin(np.deg2rad(grid.lat)))[:, None]
    down = np.gradient(z.astype(np.float64), np.deg2rad(grid.lat), axis=0) / EARTH_RADIUS
    return np.asarray(np.hypot(_along_x(grid, z), down) / np.abs(coriolis))


def relative_humidity(t: Array, q: Array, pressure: float) -> Array:
    """Return relative humidity over water in %, of temperature (K), specific humidity (kg/kg) and pressure (Pa).

    Saturation as in the IFS (documentation of cycle 47r3, part IV, equation 7.5), after Buck (1981).
    """
    t, q = t.astype(np.float64), q.astype(np.float64)
    saturated = 611.21 * np.exp(17.502 * (t - 273.16) / (t - 32.19))
    vapour = pressure * q / (0.621981 + 0.378019 * q)
    return np.asarray(100 * vapour / saturated)


def _along_x(grid: Grid, x: Array) -> Array:
    assert grid.lat is not None, "Shown only with latitudes"
    assert grid.lon is not None, "and longitudes"
    x = x.astype(np.float64)
    step = np.deg2rad(float(grid.lon[-1] - grid.lon[0]) / (grid.lon.size - 1))
    wide = (
        np.concatenate([x[:, -1:], x, x[:, :1]], axis=1) if grid.periodic else np.pad(x, ((0, 0), (1, 1)), mode="edge")
    )
    spans = np.full(x.shape[1], 2 * step)
    if not grid.periodic:
        spans[[0, -1]] = step
    slope = (wide[:, 2:] - wide[:, :-2]) / spans / EARTH_RADIUS
    far = np.abs(grid.lat) <= _POLES
    cosine = np.where(far, np.cos(np.deg2rad(grid.lat)), np.nan)[:, None]
    return np.asarray(slope / cosine)


def _along_y(grid: Grid, x: Array) -> Array:
    assert grid.lat is not None, "Shown only with latitudes"
    cosine = np.cos(np.deg2rad(grid.lat))[:, None]
    slope = np.gradient(x.astype(np.float64) * cosine, np.deg2rad(grid.lat), axis=0) / EARTH_RADIUS
    return np.asarray(slope / np.where(np.abs(grid.lat)[:, None] <= _POLES, cosine, np.nan))
