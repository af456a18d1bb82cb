"""More of a dataset behind the end of its store: new chunks only, nothing that is stored is coded again.

source -> same variables, attributes, coordinates? -> where it begins in the store -> tasks -> metadata, all at once

What is there is replaced in one place alone: chunks at the end that are not full. Their size and errors are noted
first, so that attributes are true however often an append was killed.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.storage import StorePath

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Target
from isopress.format.attributes import PREFIX
from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport
from isopress.format.source.dataset import Request, Source
from isopress.format.source.selection import as_request
from isopress.format.source.stamps import stamps
from isopress.format.store.achieved import add_achieved
from isopress.format.store.change import Change, begun, distortion_of
from isopress.format.store.chunking import regions, task_steps
from isopress.format.store.differences import is_unpacked
from isopress.format.store.distortion import NO_VALUES
from isopress.format.store.extent import Extent
from isopress.format.store.journal import of_codec, read_journal, remove_journal
from isopress.format.store.matching import Arrays, is_lossy, paired
from isopress.format.store.progress import Observer, Progress
from isopress.format.store.tasks import Outcome, Task
from isopress.format.zarr.chunk_objects import object_keys, read_object
from isopress.format.zarr.groups import arrays, consolidate, dimensions, stored_limit
from isopress.format.zarr.places import is_transaction


def append(
    source: str | Sequence[str] | Request,
    store: str | Path,
    *,
    dim: str | None = None,
    pieces: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
    resume: bool = False,
    observer: Observer = lambda progress: None,
) -> StoreReport:
    """Write what `source` has behind the end of `store` along `dim`; limits, chunks and codecs are those of the store.

    What both have must be alike: variables, their types, units and other attributes, coordinates along other
    dimensions. What the source has of the times that are stored already is passed over. No value is coded a second
    time: a chunk at the end that is not full is made again from the source, which must have all of it. Readers see the
    old length until all is written, then the new one; an append that fails or is killed leaves that as it was, and what
    it had done to be resumed.

    Parameters
    ----------
    source : str, sequence of str or Request
        As `write` takes it.
    store : str or Path
        A store that `write` made, local or at a URL.
    dim : str, optional
        Without it, the one dimension that is a time.
    pieces : bool
        Where the source lacks the beginning of a chunk that is not full, lay what is new over it: what is there keeps
        every bit, but the chunk is larger and slower than one that is made at once, until `compact` does that.
    jobs, scheduler, observer
        As of `write`.
    resume : bool
        Go on with what an append of the same source that did not finish had done, if there is such.

    Raises
    ------
    ArgumentError
        There is nothing to append, source and store do not go together, the source lacks what is needed to make the
        last chunk again or changes meanwhile, another run is writing the store, or what is to be resumed is another
        append.
    BoundError
        A value read back broke its bound.
    """
    asked = as_request(source)
    observer(Progress("open", ", ".join(asked.paths)))
    start = time.perf_counter()
    with paired(asked, store, dim, jobs, scheduler) as pair:
        group, targets, opened, axis = pair.group, pair.targets, pair.source, pair.axis
        growing = {name: array for name, array in targets.items() if axis in dimensions(array) and name != axis}
        extent, begin = _extent(axis, targets[axis], pair.labels, growing, pieces)
        before = _appends(group, extent, pair.folder)
        known = stamps(asked) | _of_store(before, extent, begin)
        replacing = partial(_replaced, opened, growing, extent, begin)
        journal, kept = begun(pair.folder, known, replacing, resume)
        if is_transaction(str(store)):  # it has no room for chunks behind an end, and shows nothing before its commit
            _resize(arrays(group), extent)
        change = Change(pair.request, store, jobs, scheduler, observer, extent, journal)
        total = sum(_added_nbytes(opened, name, array, extent, begin[name]) for name, array in growing.items())
        totals = change.carry_out(_tasks(opened, growing, extent, begin), total)
        pair.check_unchanged()
        extent.grown(targets[axis])[extent.old :] = pair.labels.values[extent.old - extent.shift :]
        _publish(group, targets, extent, totals, kept.replaced, opened, asked, before + 1)
        remove_journal(pair.folder)
    return replace(read_report(store), warnings=opened.warnings, seconds=time.perf_counter() - start)


def _appends(group: zarr.Group, extent: Extent, folder: StorePath) -> int:
    """Return how many appends there were. One that was killed after it had counted itself, and before the metadata had
    its length, is none: its journal is there, and says so."""
    counted, left = int(str(group.attrs.get(PREFIX + "appends", 0))), read_journal(folder)
    return counted - (left is not None and left.fingerprint.get("store") == _state(extent, counted - 1))


def _state(extent: Extent, appends: int) -> str:
    return f"{extent.old} along {extent.dim} after {appends} appends"


def _of_store(appends: int, extent: Extent, begin: dict[str, int]) -> dict[str, str]:
    """Return what decides where an append writes, and that the store is what it was."""
    written = ", ".join(sorted({f"{name} from {place}" for name, place in begin.items()}))
    state = {"store": _state(extent, appends), "end": str(extent.new), "pieces": str(extent.pieces)}
    return state | {"written": written} | of_codec()


def _extent(
    dim: str, axis: zarr.Array[Any], labels: xr.Variable, growing: Arrays, pieces: bool
) -> tuple[Extent, dict[str, int]]:
    """Return where the source lies, and from where on each variable is written: the start of a chunk.

    Raises
    ------
    ArgumentError
        Nothing is new, labels are out of order, or the start of a chunk that is not full is not in the source.
    """
    stored, values = np.asarray(axis[...]), labels.values
    old = len(stored)
    new = int(np.searchsorted(values > stored[-1], True)) if old else 0
    if new == len(values):
        raise ArgumentError(f"nothing to append: {dim} of the source ends at {values[-1]}, the store at {stored[-1]}")
    if (np.diff(values) <= 0).any() or (np.diff(stored) <= 0).any():
        raise ArgumentError(f"{dim} does not increase; sort the source, and take out what it has twice")
    if not np.array_equal(values[:new], stored[old - new :] if new <= old else stored[:0]):
        raise ArgumentError(f"{dim} of the source is not that of the store before {stored[-1]}, where it should go on")
    extent = Extent(dim, old, old - new + len(values), old - new, pieces)
    begin = {}
    for name, array in growing.items():
        chunk = array.chunks[dimensions(array).index(dim)]
        begin[name] = old - old % chunk if is_lossy(array) else old
        if begin[name] < extent.shift and pieces and not isinstance(stored_limit(array), Target):
            begin[name] = old
        if begin[name] < extent.shift:
            have = f"{old % chunk} of {chunk}"
            raise ArgumentError(
                f"{name}: the last chunk has {have} along {dim}, and coding them a second time would add an error: "
                f"give a source that begins at {stored[begin[name]]} or before, or write stores with --chunk {dim}=N "
                "that divides the length of what you append; a bounded variable also takes --pieces, which "
                "`isopress compact` makes whole chunks of"
            )
    return extent, begin


def _tasks(source: Source, growing: Arrays, extent: Extent, begin: dict[str, int]) -> Iterator[Task]:
    """Yield the tasks: whole shards, but the first, in which the chunks before its start stay as they are."""
    for name, array in growing.items():
        limit, grown = stored_limit(array), extent.grown(array)
        unpacked = limit is not None or is_unpacked(source, name, array)
        along = dimensions(array).index(extent.dim)
        units = array.shards or array.chunks
        steps = task_steps(units, grown.shape, source.chunks(name), array.dtype.itemsize)
        for region in regions(grown.shape, steps):
            part = region[along]
            if part.stop > begin[name]:
                region = (*region[:along], slice(max(part.start, begin[name]), part.stop), *region[along + 1 :])
                yield Task(name, region, limit, unpacked)


def _added_nbytes(source: Source, name: str, array: zarr.Array[Any], extent: Extent, begin: int) -> int:
    along = dimensions(array).index(extent.dim)
    length = max(source.stored(name).shape[along], 1)
    return source.nbytes(name) // length * (extent.new - begin)


def _replaced(source: Source, growing: Arrays, extent: Extent, begin: dict[str, int]) -> dict[str, Outcome]:
    """Return by variable the bytes of the objects that are written anew, and the distortion of values made again."""
    found = {}
    for name, array in growing.items():
        if (limit := stored_limit(array)) is None or (there := extent.before(array, begin[name])) is None:
            continue
        errors = NO_VALUES
        if is_lossy(array) and begin[name] < extent.old:
            errors = distortion_of(source, name, array, extent, extent.behind(array, begin[name]), limit)
        nbytes = sum(len(read_object(array, key) or b"") for key in object_keys(array, there))
        found[name] = Outcome(name, 0, nbytes, errors)
    return found


def _resize(targets: Arrays, extent: Extent) -> None:
    for array in targets.values():
        if extent.dim in dimensions(array):
            array.resize(extent.grown(array).shape)


def _publish(
    group: zarr.Group,
    targets: Arrays,
    extent: Extent,
    totals: dict[str, Outcome],
    replaced: Mapping[str, Outcome],
    source: Source,
    asked: Request,
    appends: int,
) -> None:
    """Let the metadata say what there is now. Consolidated metadata, which readers go by, change last and at once."""
    last = ", ".join(Path(path).name for path in asked.paths)
    # First: this writes the consolidated metadata as the group knows them, and attributes of arrays change there, too.
    group.attrs.update({PREFIX + "appends": appends, PREFIX + "last_source": last})
    _resize(targets, extent)
    for name, array in targets.items():
        if extent.dim in dimensions(array) and (limit := stored_limit(array)) is not None:
            itemsize = source.itemsize(name)
            was = replaced.get(name, Outcome(name, 0))
            add_achieved(array, limit, totals[name], was, itemsize * math.prod(array.shape))
    consolidate(group)
