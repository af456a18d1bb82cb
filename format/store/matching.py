"""A store and the source that changes it, opened together: same variables, attributes, coordinates, values?"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.storage import StorePath

from isopress.codec.errors import ArgumentError
from isopress.format.attributes import UNFINISHED
from isopress.format.source.alike import in_unit
from isopress.format.source.dataset import Request, Source, located, open_source
from isopress.format.source.stamps import Seen, check_unchanged, seen
from isopress.format.store.achieved import VALUES
from isopress.format.store.change import alone
from isopress.format.store.chunking import is_time, regions
from isopress.format.store.differences import differences, is_unpacked
from isopress.format.store.distortion import measure
from isopress.format.zarr.groups import arrays, dimensions, open_group, stored_limit

Arrays = dict[str, zarr.Array[Any]]


@dataclass(frozen=True)
class Pair:
    """What one run changes and from what: `asked` is the request as it was made, `request` with its places found.

    `axis` is the dimension along which the source may be a part, `labels` those of the source in the store's unit.
    """

    asked: Request
    request: Request
    source: Source
    folder: StorePath
    group: zarr.Group
    targets: Arrays
    axis: str
    labels: xr.Variable
    before: Mapping[str, Seen]

    def check_unchanged(self) -> None:
        """Raise ArgumentError if the source was touched since it was opened."""
        if not check_unchanged(self.before, self.asked):
            raise ArgumentError(f"{self.asked.paths[0]} was touched while it was read; run again with --resume")


@contextmanager
def paired(asked: Request, store: str | Path, dim: str | None, jobs: int, scheduler: str | None) -> Iterator[Pair]:
    """Open a source and the store that it changes; no other run of isopress may change that meanwhile.

    Raises
    ------
    ArgumentError
        They do not go together, or another run is writing the store.
    """
    before = seen(asked)
    with ExitStack() as stack:
        request = stack.enter_context(located(asked))
        source = stack.enter_context(open_source(request))
        folder = stack.enter_context(alone(store, jobs, scheduler))
        group = open_group(store, stack, "r+")
        targets = arrays(group)
        axis = dim or _only_time(targets)
        _check_alike(group, source, targets, axis)
        labels = in_unit(request.paths[0], source.stored(axis), axis, _variable_of(targets[axis]))
        yield Pair(asked, request, source, folder, group, targets, axis, labels, before)


def _only_time(targets: Arrays) -> str:
    """Return the one dimension that is a time."""
    times = [name for name, array in targets.items() if dimensions(array) == (name,) and is_time(name)]
    if len(times) != 1:
        raise ArgumentError(f"--dim: name the dimension to append along; there are: {', '.join(times) or 'no times'}")
    return times[0]


def _check_alike(group: zarr.Group, source: Source, targets: Arrays, dim: str) -> None:
    """Raise ArgumentError unless the source is more of what the store holds."""
    if unfinished := group.attrs.get(UNFINISHED):
        raise ArgumentError(f"{group.store_path} is {unfinished}")
    if dim not in targets or dimensions(targets[dim]) != (dim,) or dim not in source.names:
        raise ArgumentError(f"{dim}: store and source must both have this coordinate, to append along it")
    if lost := sorted({*targets} ^ {*source.names}):
        raise ArgumentError(f"{', '.join(lost)}: only one of source and store has these; take others out with --var")
    for name, array in targets.items():
        dims, shape = dimensions(array), source.stored(name).shape
        pairs = zip(dims, array.shape, shape, strict=len(array.shape) == len(shape))
        if len(shape) != array.ndim or any(a != b for axis, a, b in pairs if axis != dim):
            raise ArgumentError(f"{name} has shape {array.shape} in the store, {shape} in the source")
        found = [text for text in differences(source, name, array, True) if not (name == dim and _of_unit(text))]
        if found:
            raise ArgumentError(f"{name} in the store {found[0]}")
        if dim not in dims and not _same_values(source, name, array):
            raise ArgumentError(f"{name} has other values than in the store, though it does not change along {dim}")
        if dim in dims and is_lossy(array) and VALUES not in array.attrs:
            raise ArgumentError(f"{name}: its limit was not kept by `isopress compress`; write it anew with that")


def is_lossy(array: zarr.Array[Any]) -> bool:
    """Whether the values of an array may differ from those of its source."""
    limit = stored_limit(array)
    return limit is not None and limit.mode != "lossless"


def _of_unit(text: str) -> bool:
    """Whether a difference is about what `in_unit` puts right."""
    return text.startswith(("attribute units", "has type", "fill values"))


def _same_values(source: Source, name: str, array: zarr.Array[Any]) -> bool:
    lossy = stored_limit(array)
    for region in regions(array.shape, [max(size, 1) for size in array.shards or array.chunks]):
        x = source.read(name, region, lossy=lossy is not None or is_unpacked(source, name, array))
        x_hat = np.asarray(array[region])
        if lossy is not None and measure(x, x_hat.astype(x.dtype), lossy).violations:
            return False
        if lossy is None and not np.array_equal(x.astype(x_hat.dtype), x_hat, equal_nan=x_hat.dtype.kind == "f"):
            return False
    return True


def _variable_of(array: zarr.Array[Any]) -> xr.Variable:
    """Return a coordinate in memory."""
    return xr.Variable(dimensions(array), np.asarray(array[...]), dict(array.attrs))
