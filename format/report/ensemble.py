"""How far members of an ensemble lie apart: errors well below that change nothing that is known.

Where the source has members their spread is measured. Else ERA5's own ten members are quoted: the standard deviation
that 95 of 100 places exceed, as ClimateBenchPress publishes it for its error bounds (datasets-error-bounds, 2025).
"""

from typing import Any

import numpy as np

from isopress.format.source.dataset import Source
from isopress.format.units import how_many, normalise_units

_MEMBERS = ("number", "member", "members", "realization", "realisation", "ensemble", "ens")
_PERCENTILE = 5  # of the spread: all but the calmest places lie above
_ERA5 = (  # names or CF standard names, unit, spread
    (("t", "ta", "air_temperature"), "K", 0.104),
    (("u10", "10u", "uas"), "m s-1", 0.103),
    (("v10", "10v", "vas"), "m s-1", 0.102),
    (("msl", "mslp", "air_pressure_at_mean_sea_level", "air_pressure_at_sea_level"), "Pa", 7.94),
)


def ensemble_spread(source: Source, name: str) -> tuple[float, str] | None:
    """Return the spread of a variable in its unit and where it is from; None where it is not known."""
    variable = source.stored(name)
    axis = next((axis for axis, dim in enumerate(variable.dims[:-2]) if str(dim).lower() in _MEMBERS), None)
    if axis is not None and variable.shape[axis] >= 3:
        return _measured(source, name, axis)
    attrs = source.variable(name, lossy=True).attrs
    units = normalise_units(str(attrs.get("units", "")))
    labels = {name.rpartition("/")[2].lower(), str(attrs.get("standard_name", attrs.get("GRIB_cfName", "")))}
    for names, unit, spread in _ERA5:
        factor = 1.0 if units == unit else how_many(units, unit) if units else None
        if labels & set(names) and factor is not None:
            return spread * factor, "ERA5 ensemble"
    return None


def _measured(source: Source, name: str, axis: int) -> tuple[float, str] | None:
    shape = source.stored(name).shape
    middle = [slice(size // 2, size // 2 + 1) for size in shape[:-2]]
    middle[axis] = slice(None)
    fields: np.ndarray[Any, Any] = source.read(name, (*middle, slice(None), slice(None)), lossy=True).astype(np.float64)
    spread = fields.std(axis=axis, ddof=1)
    spread = spread[np.isfinite(spread) & (spread > 0)]
    return (float(np.percentile(spread, _PERCENTILE)), f"its {shape[axis]} members") if spread.size else None
