"""What stays exact: positions, times, cells, hybrid coefficients, masks, flags and spectral coefficients.

A small error in a temperature is a small error; in a coordinate it moves or disorders the grid, and everything that is
computed with it. CF says what is a coordinate by references and attributes, and models by names where they say nothing.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import xarray as xr

REFERENCES = ("coordinates", "bounds", "climatology", "grid_mapping", "cell_measures", "formula_terms")
_FLAGS = ("flag_values", "flag_masks", "flag_meanings")
_PACKING = ("scale_factor", "add_offset")
# What makes a coordinate in CF, and for netCDF-Java and GFDL; not `positive`, which fluxes have too.
_CRITERIA = {
    (attribute, value)
    for attributes, values in (
        (("axis", "cartesian_axis"), "T X Y Z"),
        (("_CoordinateAxisType",), "GeoX GeoY GeoZ Height Lat Lon Pressure Time"),
        (("units",), "degrees_north degree_north degrees_N degree_N degreesN degreeN"),
        (("units",), "degrees_east degree_east degrees_E degree_E degreesE degreeE"),
        (("standard_name",), "time latitude longitude grid_latitude grid_longitude model_level_number"),
        (("standard_name",), "projection_x_coordinate projection_y_coordinate"),
        (("standard_name",), "projection_x_angular_coordinate projection_y_angular_coordinate"),
        (("standard_name",), "ocean_s_coordinate_g1 ocean_s_coordinate_g2"),
    )
    for attribute in attributes
    for value in values.split()
}
_STANDARD_NAMES = re.compile(
    r"(atmosphere|ocean)_\w*coordinate|land_binary_mask|sea_binary_mask|cell_(area|thickness|height)|region|forecast_(period|"
    r"reference_time)|model_level_number|(latitude|longitude)(_of_\w+)?"
)
_LONG_NAMES = re.compile(
    r"((geodetic|geographic|geographical|cell|grid|true|rotated) )?(latitude|longitude)s?( *(,|of|at|on|\(|-).*)?"
    r"|hybrid [ab] coefficient.*|(vertical )?hybrid (sigma )?coefficient.*|(grid )?cell areas?( .*)?"
    r"|(land|sea|land-sea|ocean|ice|grid)[ -]mask( .*)?",
    re.IGNORECASE,
)
_SPECTRAL = {"GRIB_gridType": ("sh",), "CDI_grid_type": ("spectral",), "grid_type": ("spectral",)}
_STAGGER = r"(?:rho|psi|[uvtcfmpwq]|stag)"
_NAMES = tuple(
    re.compile(pattern)
    for pattern in (
        # Positions of cells, corners and staggered points: CF, WRF, NEMO, ROMS, POP, CICE, MOM, ICON, MPAS, FV3.
        r"nav_(lat|lon)(_\w+)?|mesh\w*_(node|edge|face)_([xyz]|lat|lon)",
        rf"(nav_|geo|grid_|gphi|x|r|t|u|[clmv])?(lat|lon|lati|longi)(itude|tude|g)?s?(_?{_STAGGER}|_?[0-9])?",
        r"(lat|lon|x|y|z)(cell|edge|vertex)|(gphi|glam)[tuvf]|[cve](lat|lon)|mlat|mlon|grid_(lat|lon)t?",
        r"(geo)?(lat|lon)_?(c|u|v|t|b|bnd|corners?|vertices|center|centre)|[xy](lat|long)(_[uvm]|_c)?",
        # Cells.
        r".*_(bnds|bounds|bnd|vertices|corners|edges)|(bnds|bounds|vertices)_.*|.*vertices",
        r"area|(cell|grid|tile)_?areas?|areacell[aog]|area(cell|triangle)|[tuv]area|ar(ea)?_[tuvc]|gridarea|dcedge|dvedge|kiteareasonvertex",
        r"e[123][tuvwf](_0|_1d)?|[dh][xy][tuvn]|angle(_?[tuvc]|_rho|edge)?|(sin|cos)alpha(_[uv])?|mapfac_\w+",
        # The vertical: coefficients of hybrid levels, and levels in one dimension.
        r"hy[ab][im]|[ab]_?(bnds|half|full|i|m|k)|(ap|bp|pv|vct|vct_a|vct_b)(_?(bnds|half|full))?|ak|bk|[pab]_?hybrid",
        r"znu|znw|zs|dzs|c[1234][hf]|dnw?|rdnw?|s_(rho|w)|cs_[rw]|sig(lay|lev|ma)|eta_(rho|u|v|full|half)|gdep[tuvw](_0|_1d)?|p0",
        # Masks.
        r"(land|sea|ocean|ice|water|lake)_?(sea|binary)?_?mask|[tuvf]?mask(_?[tuvf]|_rho|_psi)?|wet_[tuvc]|mask_(rho|psi|[uvtc])",
        r"lsm|lsmask|xland|landmask|lakemask|lu_index|ivgtyp|isltyp",
    )
)


def exact_reasons(stored: xr.Dataset, referenced: frozenset[str]) -> dict[str, tuple[str, bool]]:
    """Return why variables of a group are never changed, and whether that is certain rather than a convention.

    Parameters
    ----------
    stored : Dataset
        Of one group, nothing decoded.
    referenced : frozenset of str
        Names that variables of this group, or of groups inside it, refer to (`references`).
    """
    reasons: dict[str, tuple[str, bool]] = {}
    for key, variable in stored.variables.items():
        name = str(key)
        if reason := _certain(name, variable, referenced):
            reasons[name] = (reason, True)
        elif reason := _by_convention(name, variable.attrs):
            reasons[name] = (reason, False)
    return reasons


def references(stored: xr.Dataset) -> Iterator[str]:
    """Yield the variables that others name as coordinates, bounds, grid mappings and the like (CF 1.12)."""
    for attrs in (stored.attrs, *(variable.attrs for variable in stored.variables.values())):
        for key in REFERENCES:
            for word in str(attrs.get(key, "")).split():
                # Surface pressure in formula_terms is data; hybrid coefficients and orography are coordinates.
                if key != "formula_terms" or _is_static(stored, word):
                    yield word


def _is_static(stored: xr.Dataset, name: str) -> bool:
    """Whether a variable is there and does not change with time."""
    if name not in stored.variables:
        return False
    variable = stored.variables[name]
    return variable.ndim < 2 or not any(_is_time_axis(stored, str(dim)) for dim in variable.dims)


def _is_time_axis(stored: xr.Dataset, dim: str) -> bool:
    units = str(stored.variables[dim].attrs.get("units", "")) if dim in stored.variables else ""
    return " since " in units or "time" in dim.lower()


def _certain(name: str, variable: xr.Variable, referenced: frozenset[str]) -> str | None:
    if not variable.ndim:
        return "a single value"
    packed = variable.dtype.kind in "iuf" and any(key in variable.attrs for key in _PACKING)
    if not packed and (variable.dtype.kind != "f" or variable.dtype.itemsize not in (4, 8)):
        return f"its type is {variable.dtype}"
    if variable.dims == (name,):
        return "a coordinate"
    if name in referenced:
        return "others refer to it as a coordinate"
    if " since " in str(variable.attrs.get("units", "")):
        return "a time"
    if any(key in variable.attrs for key in _FLAGS):
        return "flags"
    if any(str(variable.attrs.get(key)) in values for key, values in _SPECTRAL.items()):
        return "spectral coefficients"
    return None


def _by_convention(name: str, attrs: Mapping[Any, Any]) -> str | None:
    for key in ("standard_name", "units", "axis", "cartesian_axis", "_CoordinateAxisType"):
        if (key, str(attrs.get(key))) in _CRITERIA:
            return f"{key} is {attrs[key]}"
    if _STANDARD_NAMES.fullmatch(str(attrs.get("standard_name", attrs.get("GRIB_cfName", "")))):
        return "its standard name is one of a coordinate or mask"
    if _LONG_NAMES.fullmatch(str(attrs.get("long_name", ""))):
        return "its long name is one of a coordinate or mask"
    if any(pattern.fullmatch(name.lower()) for pattern in _NAMES):
        return "its name is one of a coordinate or mask"
    return None
