"""GRIB files: every message arrives in a variable, or the file is refused.

cfgrib builds one hypercube of a file and skips what does not fit. Here the messages are first grouped by all that a
cube has only one of, cfgrib builds a cube of each group, and messages are counted on the way.

    messages -> groups (parameter, level type, step type, grid) -> cubes -> names that do not clash -> one dataset
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.source.damage import check_grib

_ENCODE_CF = ("parameter", "time", "geography", "vertical")
_LEVEL, _STEP = "typeOfLevel", "stepType"
_GROUP_KEYS = ("paramId", "shortName", _LEVEL, _STEP, "gridType", "md5GridSection")
# What else tells messages apart that agree in all of these and in their coordinates, the likeliest first.
_MORE_KEYS = (
    *(
        "startStep",
        "lengthOfTimeRange",
        "dataType",
        "stream",
        "type",
        "class",
        "expver",
        "centre",
        "subCentre",
        "bottomLevel",
    ),
    *("percentileValue", "quantile", "probabilityType", "lowerLimit", "upperLimit", "scaledValueOfLowerLimit"),
    *("scaledValueOfUpperLimit", "perturbationNumber", "typeOfEnsembleForecast", "derivedForecast", "waveDirection"),
    *("directionNumber", "frequencyNumber", "scaledValueOfCentralWaveNumber", "scaledValueOfFirstSize", "aerosolType"),
    *("constituentType", "generatingProcessIdentifier", "backgroundProcess", "scaledValueOfFirstFixedSurface"),
    *("scaledValueOfSecondFixedSurface", "hour", "minute", "second", "tablesVersion", "bitsPerValue"),
)
_SPARSE = 0.5  # of a cube of times and steps: below this share of fields, valid times make a smaller one

Ids = list[Any]


@dataclass(frozen=True)
class Cube:
    """One variable: its name, what is added to the name where that is taken, its coordinates, its messages."""

    name: str
    suffixes: tuple[str, ...]
    variable: xr.Variable
    coordinates: Mapping[str, xr.Variable]
    messages: int


def open_grib(path: str) -> tuple[xr.Dataset, list[str], int]:
    """Return the dataset of all messages of a file, nothing decoded, what is unusual, and the number of messages.

    Raises
    ------
    ArgumentError
        The file ends inside a message, cfgrib is missing, or messages cannot be told apart.
    """
    if not all(map(find_spec, ("cfgrib", "eccodes"))):
        raise ArgumentError(f"{path}: nothing installed reads GRIB; pip install 'isopress[grib]'")
    listed = check_grib(path)
    index = _read_index(path)
    groups = _groups(index)
    warnings: list[str] = []
    cubes = [cube for group in groups.values() for cube in _cubes(path, index, group, warnings)]
    dataset = _merged(cubes)
    read = sum(cube.messages for cube in cubes)
    if read != sum(len(ids) for _, ids in index.field_ids_index) or read < listed:
        raise ArgumentError(f"{path}: {listed} messages, but only {read} are in a variable; please report this")
    return dataset, warnings, read


def _read_index(path: str) -> Any:
    """Return cfgrib's index of a file, with all keys that groups are made of."""
    from cfgrib import cfmessage, dataset, messages

    keys = sorted({*dataset.INDEX_KEYS, *_GROUP_KEYS, "time", "step", "valid_time", "bitsPerValue"})
    try:
        stream = messages.FileStream(path, errors="raise")
        return messages.FileIndex.from_fieldset(stream, keys, cfmessage.COMPUTED_KEYS)
    except Exception as error:  # eccodes has many kinds
        raise ArgumentError(f"{path}: not a GRIB file that ecCodes reads ({type(error).__name__}: {error})") from error


def _groups(index: Any) -> dict[tuple[Any, ...], list[tuple[Any, Ids]]]:
    """Return the messages by what a variable has one of, in the order of the file."""
    from cfgrib.dataset import DATA_ATTRIBUTES_KEYS

    keys = [key for key in dict.fromkeys((*_GROUP_KEYS, *DATA_ATTRIBUTES_KEYS)) if key in index.index_keys]
    places = [index.index_keys.index(key) for key in keys]
    groups: dict[tuple[Any, ...], list[tuple[Any, Ids]]] = defaultdict(list)
    for header, ids in index.field_ids_index:
        groups[tuple(header[place] for place in places)].append((header, ids))
    return groups


def _cubes(path: str, index: Any, members: list[tuple[Any, Ids]], warnings: list[str]) -> Iterator[Cube]:
    """Yield one cube for a group, or several where more keys are needed to tell its messages apart."""
    for suffixes, part, extra in _told_apart(path, index, members, warnings):
        yield _cube(index, part, suffixes, extra, warnings)


def _told_apart(
    path: str, index: Any, members: list[tuple[Any, Ids]], warnings: list[str]
) -> Iterator[tuple[tuple[str, ...], list[tuple[Any, Ids]], int]]:
    """Yield parts of a group in which no two messages have the same coordinates, and how many copies were left out."""
    name = _value(index, members[0][0], "shortName")
    twice = _clashes(index, members)
    if not twice:
        yield (), members, 0
        return
    fields = [(header, i) for header, ids in members for i in ids]
    for key in _MORE_KEYS:
        parts: dict[Any, list[tuple[Any, Ids]]] = defaultdict(list)
        for header, i in fields:
            parts[_read_key(index, i, key)].append((header, [i]))
        if len(parts) > 1 and not any(_clashes(index, part) for part in parts.values()):
            for value, part in parts.items():
                yield (f"{key}{_clean(value)}",), part, 0
            return
    kept = []
    copies = 0
    for clash in twice:
        seen = {_digest(index, i) for _, i in clash}
        if len(seen) > 1:
            where = ", ".join(
                f"{key}={_value(index, clash[0][0], key)}"
                for key in ("dataDate", "dataTime", _LEVEL, "level:float")
                if key in index.index_keys
            )
            raise ArgumentError(
                f"{path}: {len(clash)} different messages of {name} have the same coordinates ({where}); "
                "nothing says which one is meant: split the file, for example with grib_copy -w"
            )
        copies += len(clash) - 1
    keys = set()
    for header, i in fields:
        place = _coordinates(index, header)
        if place not in keys:
            keys.add(place)
            kept.append((header, [i]))
    warnings.append(f"{name}: {copies} messages are in the file twice, byte for byte; one copy of each is kept")
    yield (), kept, copies


def _clashes(index: Any, members: Sequence[tuple[Any, Ids]]) -> list[list[tuple[Any, Any]]]:
    """Return the messages that have the same coordinates, place by place."""
    places: dict[tuple[Any, ...], list[tuple[Any, Any]]] = defaultdict(list)
    for header, ids in members:
        places[_coordinates(index, header)].extend((header, i) for i in ids)
    return [found for found in places.values() if len(found) > 1]


def _coordinates(index: Any, header: Sequence[Any]) -> tuple[Any, ...]:
    from cfgrib.dataset import ENSEMBLE_KEYS, SPECTRA_KEYS, VERTICAL_KEYS

    keys = (*ENSEMBLE_KEYS, "time", "step", *VERTICAL_KEYS, *SPECTRA_KEYS)
    return tuple(_value(index, header, key) for key in keys if key in index.index_keys)


def _cube(
    index: Any, members: list[tuple[Any, Ids]], suffixes: tuple[str, ...], extra: int, warnings: list[str]
) -> Cube:
    from cfgrib import dataset, messages

    part = messages.FileIndex(
        fieldset=index.fieldset, index_keys=index.index_keys, field_ids_index=members, computed_keys=index.computed_keys
    )
    bits = [_value(index, header, "bitsPerValue") for header, _ in members]
    wide = any(isinstance(number, int) and number > 24 for number in bits)  # more than a float32 holds
    options: dict[str, Any] = {
        "encode_cf": _ENCODE_CF,
        "errors": "raise",
        "values_dtype": np.dtype("f8" if wide else "f4"),
    }
    if _is_sparse(part):
        options |= {"time_dims": ("valid_time",), "extra_coords": {"time": "valid_time", "step": "valid_time"}}
    dims, data, coordinates = dataset.build_variable_components(part, **options)
    found = len(data.data.field_id_index)
    if found != len(members):
        raise ArgumentError(
            f"{data.attributes.get('GRIB_shortName')}: {len(members)} messages make {found} fields; please report this"
        )
    name = data.attributes.get("GRIB_cfVarName", "unknown")
    if name in ("undef", "unknown"):
        name = data.attributes.get("GRIB_shortName", "unknown")
    if name == "unknown":
        name = f"paramId_{data.attributes.get('GRIB_paramId', 0)}"
    name = _clean(name)
    fields = int(np.prod([dims[dim] for dim in data.dimensions[: -data.data.geo_ndim]], dtype=int))
    if found < fields:
        warnings.append(f"{name}: {fields - found} of its {fields} fields are not in the file; they are NaN")
    kinds = [_clean(data.attributes.get(f"GRIB_{key}", "")) for key in (_LEVEL, _STEP, "dataType", "gridType")]
    suffixes = (kinds[0], *suffixes, *kinds[1:])
    variables = {key: xr.Variable(c.dimensions, c.data, dict(c.attributes)) for key, c in coordinates.items()}
    return Cube(name, tuple(filter(None, suffixes)), _lazy(data), variables, len(members) + extra)


def _is_sparse(part: Any) -> bool:
    """Whether times and steps make a cube of mostly nothing, and valid times one that is full."""
    times, steps, valid = (part.index_keys.index(key) for key in ("time", "step", "valid_time"))
    pairs = {(header[times], header[steps]): header[valid] for header, _ in part.field_ids_index}
    whole = len({time for time, _ in pairs}) * len({step for _, step in pairs})
    return len(pairs) < _SPARSE * whole and len(set(pairs.values())) == len(pairs)


def _lazy(data: Any) -> xr.Variable:
    """Return the variable of a cube; its values are read when they are indexed."""
    from cfgrib.xarray_plugin import ECCODES_LOCK, CfGribArrayWrapper

    class _Lock:
        lock = ECCODES_LOCK

    lazy = xr.core.indexing.LazilyIndexedArray(CfGribArrayWrapper(_Lock(), data.data))
    encoding = {
        "preferred_chunks": {},
        "chunks": (*(1 for _ in data.data.shape[: -data.data.geo_ndim]), *data.data.shape[-data.data.geo_ndim :]),
    }
    return xr.Variable(data.dimensions, lazy, dict(data.attributes), encoding)


def _merged(cubes: Sequence[Cube]) -> xr.Dataset:
    """Return one dataset; names of variables and coordinates that would clash say what they are of."""
    names = _names(cubes)
    variables: dict[str, xr.Variable] = {}
    for name, cube in zip(names, cubes, strict=True):
        renamed: dict[str, str] = {}
        for key, coordinate in cube.coordinates.items():  # axes first: others may lie along them
            renamed[key] = _place_for(key, name, coordinate, variables, renamed)
        for key, coordinate in cube.coordinates.items():
            variables.setdefault(renamed[key], _along(coordinate, renamed))
        attrs = dict(cube.variable.attrs)
        attrs["coordinates"] = " ".join(
            renamed[word] for word in attrs.get("coordinates", "").split() if word in renamed
        )
        variables[name] = _along(
            xr.Variable(cube.variable.dims, cube.variable._data, attrs, cube.variable.encoding), renamed
        )
    ordered = {name: variables[name] for name in (*names, *(key for key in variables if key not in names))}
    return xr.Dataset({}, attrs={"Conventions": "CF-1.7"}).assign(ordered)


def _place_for(
    key: str, owner: str, coordinate: xr.Variable, variables: Mapping[str, xr.Variable], renamed: Mapping[str, str]
) -> str:
    """Return the name of a coordinate: its own if it is free or the same there, else with its owner's name."""
    moved = any(
        renamed.get(str(dim), dim) != dim for dim in coordinate.dims
    )  # it lies along an axis that has a new name
    others = [name for name in variables if name.startswith(f"{key}_")]
    for name in (*([] if moved else [key]), *others, f"{key}_{owner}"):
        along = _along(coordinate, {**renamed, key: name})
        if name not in variables or (variables[name].dims == along.dims and variables[name].equals(along)):
            return name
    raise ArgumentError(f"{owner}: its coordinate {key} clashes with that of another variable; please report this")


def _along(variable: xr.Variable, renamed: Mapping[str, str]) -> xr.Variable:
    dims = [renamed.get(str(dim), str(dim)) for dim in variable.dims]
    return xr.Variable(dims, variable._data, variable.attrs, variable.encoding)


def _names(cubes: Sequence[Cube]) -> list[str]:
    """Return a name for each cube: the largest of a name keeps it, others say their level, step type, and so on."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for place, cube in enumerate(cubes):
        by_name[cube.name].append(place)
    names = [""] * len(cubes)
    taken: set[str] = set(by_name)
    for name, places in by_name.items():
        first, *others = sorted(places, key=lambda place: (-cubes[place].messages, place))
        names[first] = name
        for place in others:
            shared = set(cubes[first].suffixes)
            own = [suffix for suffix in cubes[place].suffixes if suffix not in shared] or list(
                cubes[place].suffixes[:1]
            )
            options = ["_".join((name, *own[: n + 1])) for n in range(len(own))]
            numbered = (f"{options[-1] if options else name}_{number}" for number in range(2, len(cubes) + 2))
            names[place] = next(option for option in (*options, *numbered) if option not in taken)
            taken.add(names[place])
    return names


def _value(index: Any, header: Sequence[Any], key: str) -> Any:
    return header[index.index_keys.index(key)]


def _read_key(index: Any, message_id: Any, key: str) -> Any:
    try:
        return index.get_field(message_id)[key]
    except Exception:  # ecCodes: no such key in this kind of message
        return None


def _digest(index: Any, message_id: Any) -> bytes:
    import eccodes

    message = index.get_field(message_id).context  # it must live as long as its handle is used
    return hashlib.sha256(eccodes.codes_get_message(message.codes_id)).digest()


def _clean(value: Any) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "_", str(value)).strip("_")
