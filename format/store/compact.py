"""Chunks that were written in pieces become whole ones, made again from the source and never from decoded values.

headers of payloads -> chunks of layers -> does the source have all of them? -> tasks -> metadata, all at once
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

from isopress.codec.encoded import Method
from isopress.codec.errors import ArgumentError
from isopress.format.attributes import PREFIX
from isopress.format.payload import inspect
from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport
from isopress.format.source.dataset import Request, Source
from isopress.format.source.selection import as_request
from isopress.format.source.stamps import stamps
from isopress.format.store.achieved import add_achieved
from isopress.format.store.change import Change, begun, distortion_of
from isopress.format.store.extent import Extent
from isopress.format.store.journal import of_codec, read_journal, remove_journal
from isopress.format.store.matching import Arrays, is_lossy, paired
from isopress.format.store.progress import Observer, Progress
from isopress.format.store.tasks import Outcome, Task, region_of
from isopress.format.zarr.chunk_objects import Region, object_keys, payloads_by_chunk, read_object
from isopress.format.zarr.groups import consolidate, stored_limit


def compact(
    store: str | Path,
    source: str | Sequence[str] | Request,
    *,
    dim: str | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    resume: bool = False,
    observer: Observer = lambda progress: None,
) -> StoreReport:
    """Make chunks that were written in pieces again from `source`, with the limits and chunks of `store`.

    Pieces are what `append --pieces`, and xarray when it writes a part of a chunk, lay over a chunk. Chunks of which
    the source has only a part stay as they are, and are named. Readers see either the pieces or the whole chunk.

    Parameters
    ----------
    store : str or Path
        A store that `write` made, local or at a URL.
    source : str, sequence of str or Request
        What it was made from, or a part of that along `dim`.
    dim : str, optional
        Along which the source may be a part; without it, the one dimension that is a time.
    jobs, scheduler, observer
        As of `write`.
    resume : bool
        Go on with what a run with the same source that did not finish had done, if there is such.

    Raises
    ------
    ArgumentError
        Source and store do not go together, the source has none of the chunks that are in pieces or changes meanwhile,
        another run is writing the store, or what is to be resumed is another change.
    BoundError
        A value read back broke its bound.
    """
    asked = as_request(source)
    observer(Progress("open", str(store)))
    start = time.perf_counter()
    with paired(asked, store, dim, jobs, scheduler) as pair:
        group, targets, opened = pair.group, pair.targets, pair.source
        extent = _overlap(pair.axis, targets[pair.axis], pair.labels)
        changes = f"{_count(group, 'appends')} appends, {_count(group, 'compactions')}"
        state = f"{extent.old} along {pair.axis} after {changes}"
        left = read_journal(pair.folder)
        begun_before = left.replaced if left and left.fingerprint.get("store") == state else {}
        todo, missing = _tasks(targets, extent, len(pair.labels), begun_before)
        if todo:
            written = {"store": state, "written": ", ".join(map(str, todo))}
            replacing = partial(_replaced, opened, targets, extent, todo)
            journal, kept = begun(pair.folder, stamps(asked) | written | of_codec(), replacing, resume)
            change = Change(pair.request, store, jobs, scheduler, observer, extent, journal)
            totals = change.carry_out(todo, sum(_nbytes(opened, task) for task in todo))
            pair.check_unchanged()
            _publish(group, targets, totals, kept.replaced)
            remove_journal(pair.folder)
        elif missing:
            raise ArgumentError(f"the source has none of the chunks in pieces: {missing[0]}")
    warnings = (*opened.warnings, *missing)
    return replace(read_report(store), warnings=warnings, seconds=time.perf_counter() - start)


def _overlap(dim: str, axis: zarr.Array[Any], labels: xr.Variable) -> Extent:
    """Return where the source lies in the store: its labels follow each other there, too.

    Raises
    ------
    ArgumentError
        They do not.
    """
    stored, values = np.asarray(axis[...]), labels.values
    found: Any = np.flatnonzero(stored == values[0]) if len(values) else []
    if len(found) != 1 or not np.array_equal(stored[found[0] : found[0] + len(values)], values):
        raise ArgumentError(f"{dim} of the source is not a part of that of the store")
    return Extent(dim, len(stored), len(stored), int(found[0]))


def _tasks(
    targets: Arrays, extent: Extent, length: int, begun_before: Mapping[str, Outcome]
) -> tuple[list[Task], list[str]]:
    """Return tasks for what is in pieces, or was when a run began that did not finish; and what the source lacks."""
    todo: dict[str, Task] = {}
    missing = []
    regions = [region_of(task) for task in begun_before]
    for name, array in targets.items():
        if is_lossy(array):
            regions += [(name, region) for region in _in_pieces(array)]
    for name, region in regions:
        part = extent.in_source(targets[name], region)[extent.axis(targets[name])]
        task = Task(name, region, stored_limit(targets[name]), True)
        if part.start >= 0 and part.stop <= length:
            todo[str(task)] = task
        elif str(task) in begun_before:
            raise ArgumentError(f"{task} was begun by a run that did not finish: give the source of that, and --resume")
        else:
            missing.append(f"{task} is in pieces, and the source has no more than a part of it")
    return list(todo.values()), missing


def _in_pieces(array: zarr.Array[Any]) -> Iterator[Region]:
    """Yield for each shard, or chunk, the box of chunks that are layers."""
    whole = tuple(slice(0, size) for size in array.shape)
    for key in object_keys(array, whole):
        content = read_object(array, key)
        if content is None:
            continue
        places = [
            place
            for place, offset, length in payloads_by_chunk(content, array, key)
            if inspect(content[offset : offset + length]).method == Method.LAYERS
        ]
        if places:
            first, last = np.min(places, axis=0), np.max(places, axis=0)
            sizes = zip(first, last, array.chunks, array.shape, strict=True)
            yield tuple(slice(int(a) * chunk, min((int(b) + 1) * chunk, size)) for a, b, chunk, size in sizes)


def _replaced(source: Source, targets: Arrays, extent: Extent, tasks: Sequence[Task]) -> dict[str, Outcome]:
    """Return by task the bytes of the objects that are written anew, and the distortion of the values there."""
    found = {}
    for task in tasks:
        array = targets[task.name]
        assert task.promise is not None
        errors = distortion_of(source, task.name, array, extent, task.region, task.promise)
        nbytes = sum(len(read_object(array, key) or b"") for key in object_keys(array, task.region))
        found[str(task)] = Outcome(task.name, 0, nbytes, errors)
    return found


def _nbytes(source: Source, task: Task) -> int:
    return source.itemsize(task.name) * math.prod(int(part.stop - part.start) for part in task.region)


def _count(group: zarr.Group, what: str) -> int:
    return int(str(group.attrs.get(PREFIX + what, 0)))


def _publish(
    group: zarr.Group, targets: Arrays, totals: Mapping[str, Outcome], replaced: Mapping[str, Outcome]
) -> None:
    """Let the attributes say what is achieved now, consolidated ones last."""
    for name, added in totals.items():
        was = sum((found for found in replaced.values() if found.name == name), Outcome(name, 0))
        limit, attrs = stored_limit(targets[name]), targets[name].attrs
        assert limit is not None
        add_achieved(targets[name], limit, added, was, int(str(attrs[PREFIX + "original_nbytes"])))
    group.attrs[PREFIX + "compactions"] = _count(group, "compactions") + 1
    consolidate(group)
