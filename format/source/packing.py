"""Stored numbers <-> physical numbers: scale factors, offsets, fill values, and the attributes that go with them.

    unpack   numbers as stored -> floats, missing ones as NaN; which fill value it was stays in the NaN's bits
    repack   floats -> numbers as stored

xarray's rules say what a packed number means and which float type it becomes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError

SCALING = ("scale_factor", "add_offset")
FILLS = ("_FillValue", "missing_value")
RANGES = ("valid_range", "valid_min", "valid_max", "actual_range")
_PACKED = (*SCALING, *FILLS, "_Unsigned")
_CODE = 0x1500  # in the low bits of a NaN: which of the fill values it stands for
_OWN = 0xFF  # the code of a NaN that the source itself has, where it has fill values too

Array = np.ndarray[Any, Any]
Attrs = Mapping[str, Any]


@dataclass(frozen=True)
class Packing:
    """How a variable is stored in the source, and what that makes of it here.

    `attrs` are the source's attributes that describe stored numbers, `fills` the values that mean "missing" in the
    `stored` dtype, `dtype` the type of the physical numbers, `problems` what is odd about the attributes.
    """

    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    attrs: Attrs = field(default_factory=dict)
    fills: tuple[Any, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def scaled(self) -> bool:
        """Whether stored numbers are integers (or floats) times a factor."""
        return any(key in self.attrs for key in SCALING)

    @property
    def is_unsigned(self) -> bool:
        """Whether stored integers are signed by their type alone."""
        return str(self.attrs.get("_Unsigned", "")).lower() == "true" and self.stored.kind == "i"

    def unpack(self, raw: Array) -> Array:
        """Return physical numbers, `dtype`; fill values become NaN, the first one a plain NaN."""
        kept = {key: self.attrs[key] for key in (*SCALING, "_Unsigned") if key in self.attrs}
        if self.fills:
            kept["_FillValue"] = self.fills[0]
        if kept:
            variable = xr.Variable([f"axis{axis}" for axis in range(raw.ndim)], raw, kept)
            x = np.asarray(_decode(variable).values)
        else:
            x = raw
        x = np.array(x, self.dtype, order="C", copy=None)
        if not self.fills:
            return x
        x = x if x is not raw and x.flags.writeable else x.copy()
        if raw.dtype.kind == "f" and not np.isnan(self.fills[0]):
            x[np.isnan(raw)] = _nan(self.dtype, _OWN)
        for index, fill in enumerate(self.fills):
            if fill == fill:  # NaN is its own fill value
                x[raw == fill] = _nan(self.dtype, index)
        return x

    def record(self) -> dict[str, Any]:
        """Return what `repack` needs, as JSON."""
        return {
            "stored": self.stored.str,
            "attrs": {key: typed(value) for key, value in self.attrs.items()},
            "fills": [typed(fill) for fill in self.fills],
        }

    @staticmethod
    def from_record(record: Mapping[str, Any], dtype: np.dtype[Any]) -> "Packing":
        """Return the packing that `record` describes, of physical numbers of `dtype`."""
        attrs = {key: untyped(value) for key, value in record.get("attrs", {}).items()}
        fills = tuple(np.asarray(untyped(fill))[()] for fill in record.get("fills", []))
        return Packing(np.dtype(record["stored"]), dtype, attrs, fills)

    def repack(self, x: Array, *, scale: bool) -> Array:
        """Return numbers as the source stored them, or only the fill values back in their places (`scale` false)."""
        missing = np.isnan(x)
        raw = x.copy()
        if scale:
            raw = self._to_stored(x, missing) if self.scaled else x.astype(self.stored)
        if not self.fills or not missing.any():
            return raw
        codes = np.where(missing, x.view(f"u{x.dtype.itemsize}") & 0xFFFF, 0)
        if raw.dtype.kind == "f":
            raw[missing] = np.nan
        for index, fill in enumerate(self.fills):
            coded = codes == _CODE + index if index else missing & ~((codes > _CODE) & (codes <= _CODE + _OWN))
            raw[coded] = fill
        return raw

    def _to_stored(self, x: Array, missing: Array) -> Array:
        wide = x.astype(np.float64)
        wide[missing] = 0
        offset, scale = (
            np.asarray(self.attrs.get(key, usual)) for key, usual in (("add_offset", 0), ("scale_factor", 1))
        )
        numbers = (wide - offset.item()) / scale.item()
        if self.stored.kind == "f":
            return np.asarray(numbers, self.stored)
        target = np.dtype(f"{self.stored.byteorder}u{self.stored.itemsize}") if self.is_unsigned else self.stored
        integers: Array = np.rint(numbers).astype(target)
        return integers.view(self.stored)


def find_packing(name: str, variable: xr.Variable) -> Packing:
    """Return how a float or packed variable is stored.

    Raises
    ------
    ArgumentError
        A scale factor or offset is text, or not one finite number.
    """
    stored = variable.dtype
    attrs = {key: variable.attrs[key] for key in _PACKED if key in variable.attrs}
    for key in SCALING:
        if key in attrs:
            attrs[key] = _scale(name, key, attrs[key])
    fills, problems = _fills(name, stored, attrs)
    if attrs.get("scale_factor", 1) == 0:
        problems.append(f"{name}: its scale_factor is 0, so all its values are {attrs.get('add_offset', 0)}")
    kept = {key: attrs[key] for key in (*SCALING, "_Unsigned") if key in attrs}
    sample = xr.Variable(("x",), np.zeros(1, stored), kept | ({"_FillValue": fills[0]} if fills else {}))
    dtype = _decode(sample).dtype.newbyteorder("=")
    return Packing(stored, dtype, attrs, fills, tuple(problems))


def unpacked_attrs(variable: xr.Variable, packing: Packing) -> dict[str, Any]:
    """Return the attributes that fit physical numbers: no packing, ranges of stored numbers unpacked."""
    attrs = {str(key): value for key, value in variable.attrs.items() if key not in _PACKED}
    if packing.scaled:
        for key in RANGES:
            if key in attrs and _in_stored_units(attrs[key], packing):
                attrs[key] = _scaled(key, np.asarray(attrs[key]), packing)
    return attrs


def typed(value: Any) -> list[Any]:
    """Return numbers or text as JSON with their dtype, `[value, dtype]`."""
    array = np.asarray(value)
    if array.dtype.kind in "US":
        return [value if isinstance(value, (str, list)) else array.tolist(), "str"]
    return [array.tolist(), array.dtype.str]


def untyped(pair: list[Any]) -> Any:
    """Return the value that `typed` wrote."""
    value, dtype = pair
    return value if dtype == "str" else np.asarray(value, dtype)[()]


def _decode(variable: xr.Variable) -> xr.Variable:
    decoded: xr.Variable = xr.conventions.decode_cf_variable(
        "x", variable, concat_characters=False, decode_times=False, decode_timedelta=False
    )
    return decoded


def _nan(dtype: np.dtype[Any], index: int) -> Any:
    """Return a quiet NaN that says which fill value it stands for."""
    quiet = np.asarray(np.nan, dtype).view(f"u{dtype.itemsize}")
    return (quiet | (_CODE + index if index else 0)).astype(quiet.dtype).view(dtype)[()]


def _scale(name: str, key: str, value: Any) -> Any:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ArgumentError(
            f"{name}: its {key} is {value!r}, not a finite number, so nobody knows what its values mean: correct the "
            "attribute in the source, or leave the variable out with --var"
        )
    return array.reshape(())[()]


def _fills(name: str, stored: np.dtype[Any], attrs: Attrs) -> tuple[tuple[Any, ...], list[str]]:
    """Return the distinct fill values in the stored dtype, `_FillValue` first, and what is odd about them."""
    fills: list[Any] = []
    problems: list[str] = []
    for key in FILLS:
        for value in np.atleast_1d(np.asarray(attrs.get(key, []))).ravel():
            fill = as_stored(value, stored, attrs)
            if fill is None:
                problems.append(f"{name}: its {key} {value!s} is no {stored}, so no value can equal it")
            elif not any(fill == known or (fill != fill and known != known) for known in fills):
                fills.append(fill)
    if len(fills) > 1:
        problems.append(f"{name}: {len(fills)} values mean missing ({', '.join(map(str, fills))})")
    return tuple(fills), problems


def as_stored(value: Any, stored: np.dtype[Any], attrs: Attrs) -> Any | None:
    """Return a fill value in the dtype of the data, or None if that cannot hold it."""
    if np.asarray(value).dtype.kind in "iu" and stored.kind in "iu":
        number: float = int(value)  # float64 does not hold all of them
    else:
        try:
            number = float(value)
        except ValueError:
            return None
    if stored.kind == "f":
        with np.errstate(over="ignore"):
            return stored.newbyteorder("=").type(number)
    if not isinstance(number, int):
        if not number.is_integer():  # NaN, infinities and fractions
            return None
        number = int(number)
    limits = np.iinfo(stored)
    if stored.kind == "i" and str(attrs.get("_Unsigned", "")).lower() == "true" and number > limits.max:
        number -= 2 ** (8 * stored.itemsize)
    return stored.newbyteorder("=").type(number) if limits.min <= number <= limits.max else None


def _in_stored_units(value: Any, packing: Packing) -> bool:
    """Whether a range is in stored numbers: it is when it has their type (NetCDF User Guide, valid_range)."""
    array = np.asarray(value)
    if packing.stored.kind == "f":
        return array.dtype.newbyteorder("=") == packing.stored.newbyteorder("=") and packing.dtype != packing.stored
    return array.dtype.kind in "iu"


def _scaled(key: str, stored: Array, packing: Packing) -> Any:
    """Return a range in physical numbers, rounded outwards so that a value at its limit stays inside."""
    if packing.is_unsigned and stored.dtype.kind == "i":
        stored = stored.astype(packing.stored.newbyteorder("=")).view(f"u{packing.stored.itemsize}")
    scale, offset = (
        np.asarray(packing.attrs.get(key, usual)).item() for key, usual in (("scale_factor", 1), ("add_offset", 0))
    )
    physical = np.sort(np.atleast_1d(stored.astype(np.float64) * scale + offset))
    reach = np.abs(physical).max(initial=0) * np.finfo(packing.dtype).eps
    outwards = {"valid_min": -reach, "valid_max": reach}.get(key, np.linspace(-reach, reach, physical.size))
    result = (physical + outwards).astype(packing.dtype)
    return result if np.ndim(stored) else result[0]
