"""The work on one region of a variable: scan, convert, compare with the source.

Each task runs in a worker that holds the source and the store open. A worker is a context manager that
yields the function of its task; it takes only paths, so that any process can start one.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import zarr

from isopress.codec.bytes import crc32c
from isopress.codec.errors import ArgumentError, BoundError, IsopressError, ModelNotFoundError
from isopress.codec.limits import Target
from isopress.codec.threads import threads
from isopress.format.payload import inspect
from isopress.format.rewrites import expected, whole_chunks
from isopress.format.settings import Promise
from isopress.format.source.dataset import Request, Source, open_source
from isopress.format.source.sentinels import Sketch, sketch
from isopress.format.store.chunking import regions
from isopress.format.store.distortion import NO_VALUES, Array, Distortion, measure
from isopress.format.store.extent import Extent
from isopress.format.store.fence import Fence, fenced
from isopress.format.zarr.chunk_objects import Region, object_keys, payload_sizes, read_object, write_object
from isopress.format.zarr.groups import arrays, open_group


@dataclass(frozen=True)
class Task:
    """A region of a variable, and the promise its values must keep (None: exactly equal).

    `unpacked` says that the store has numbers in physical units where the source has packed ones; `done` what came of
    the task in a run that ended early.
    """

    name: str
    region: Region
    promise: Promise | None
    unpacked: bool
    done: "Outcome | None" = None

    def __str__(self) -> str:
        """Return the name of the task: the variable and the region."""
        return f"{self.name}[{', '.join(f'{part.start}:{part.stop}' for part in self.region)}]"


def region_of(task: str) -> tuple[str, Region]:
    """Return variable and region of a task by its name."""
    name, _, text = task.removesuffix("]").rpartition("[")
    parts = (part.split(":") for part in text.split(", "))
    return name, tuple(slice(int(start), int(stop)) for start, stop in parts)


@dataclass(frozen=True)
class Outcome:
    """What became of a variable in a task: source bytes, bytes stored, distortion, models, seconds, damage.

    `missed_chunks` counts chunks that are more than 3 % off their target; `sketch` is what a scan found.
    Of a single task `task` is its name and `objects` what it wrote: keys and their CRCs.
    """

    name: str
    nbytes: int
    stored_nbytes: int = 0
    distortion: Distortion = NO_VALUES
    models: frozenset[str] = frozenset()
    seconds: float = 0.0
    damage: str | None = None
    missed_chunks: int = 0
    sketch: Sketch = field(default_factory=Sketch)
    task: str = ""
    objects: tuple[tuple[str, int], ...] = ()

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.name,
            self.nbytes + other.nbytes,
            self.stored_nbytes + other.stored_nbytes,
            self.distortion + other.distortion,
            self.models | other.models,
            self.seconds + other.seconds,
            self.damage or other.damage,
            self.missed_chunks + other.missed_chunks,
            self.sketch + other.sketch,
        )


@dataclass(frozen=True)
class _Stored:
    """What was found in the objects of a region: CRCs, their size, models of payloads, chunks off their target."""

    objects: tuple[tuple[str, int], ...]
    nbytes: int
    models: frozenset[str]
    missed_chunks: int


Work = Callable[[Task], Outcome]


@contextmanager
def scanning(request: Request | Source) -> Iterator[Work]:
    """Yield a function that looks at the values of a region: what they are like, and which may stand for missing."""
    with open_source(request) as source:
        yield partial(_scan, source)


@contextmanager
def converting(
    request: Request | Source, store_path: str, extent: Extent | None = None, fence: Fence | None = None
) -> Iterator[Work]:
    """Yield a function that writes a region to a store, reads it back and compares.

    It raises BoundError when what is read back is not within the bound, or the RMSE that was the target. What an
    earlier run has done is kept, if it is still as it was. As many chunks are encoded at once, each in about thirteen
    times its size, as this process has threads. With an `extent` the source is what is appended, or a part of what is
    there. With a `fence` nothing is written once the run that wants it is no more.
    """
    at_once = max(2, threads())
    with open_source(request) as source, zarr.config.set({"async.concurrency": at_once}), ExitStack() as stack:
        group = open_group(store_path, stack, "r+")
        targets = arrays(fenced(group, fence) if fence else group)
        if extent is not None:
            targets = {name: extent.grown(array) for name, array in targets.items()}
        yield partial(_convert, source, targets, extent)


@contextmanager
def comparing(request: Request | Source, store_path: str) -> Iterator[Work]:
    """Yield a function that compares a region of a store with the source; damage is reported, not raised."""
    with open_source(request) as source, open_source(store_path) as store:
        yield partial(_compare_stored, source, store)


def _scan(source: Source, task: Task) -> Outcome:
    x = source.read(task.name, task.region, lossy=True)
    return Outcome(task.name, x.size * source.itemsize(task.name), sketch=sketch(x))


def _convert(source: Source, targets: dict[str, zarr.Array[Any]], extent: Extent | None, task: Task) -> Outcome:
    start = time.perf_counter()
    target = targets[task.name]
    if task.done is not None and _intact(target, task.done):
        return task.done
    there = extent.in_source(target, task.region) if extent else task.region
    x = source.read(task.name, there, lossy=task.unpacked)
    rest, values = _add_piece(target, extent, task, x) if extent and extent.pieces else (task.region, x)
    with whole_chunks():  # for each task, as threads of a cluster's workers may share the context
        if values.size or not x.size:
            target[rest] = values
        distortion = _read_back(target, x, task)
    stored = _look_at_objects(target, task.region, task.promise)
    return Outcome(
        task.name,
        x.size * source.itemsize(task.name),
        stored.nbytes,
        distortion,
        stored.models,
        time.perf_counter() - start,
        missed_chunks=stored.missed_chunks,
        task=str(task),
        objects=stored.objects,
    )


def _add_piece(target: zarr.Array[Any], extent: Extent, task: Task, x: Array) -> tuple[Region, Array]:
    """Write what lies in chunks that are there and not full, as layers over them; return what is left to write.

    Raises
    ------
    ArgumentError
        Values that were there would not come back as they were; the chunks are as they were.
    """
    axis = extent.axis(target)
    part, chunk = task.region[axis], target.chunks[axis]
    inside = part.start % chunk
    if not inside or task.promise is None:
        return task.region, x
    end = min(part.stop, part.start - inside + chunk)

    def along(start: int, stop: int) -> Region:
        return (*task.region[:axis], slice(start, stop), *task.region[axis + 1 :])

    there = along(part.start - inside, part.start)
    before = np.asarray(target[there])
    objects = {key: read_object(target, key) for key in object_keys(target, there)}
    first, others = np.split(x, [end - part.start], axis)
    with expected():
        target[along(part.start, end)] = first
    with whole_chunks():
        after = np.asarray(target[there])
    if before.tobytes() != after.tobytes():
        for key, content in objects.items():
            write_object(target, key, content)
        raise ArgumentError(
            f"{task}: pieces cannot be added to these chunks without changing what is there; give a source that begins "
            "where the last chunk does"
        )
    return along(end, part.stop), others


def _intact(target: zarr.Array[Any], done: Outcome) -> bool:
    """Whether the objects that a task wrote are there as they were."""
    found = ((read_object(target, key), crc) for key, crc in done.objects)
    return all(content is not None and crc32c(content) == crc for content, crc in found)


def _read_back(target: zarr.Array[Any], x: Array, task: Task) -> Distortion:
    promise = task.promise
    distortion = _compare(x, np.asarray(target[task.region]), promise, target.chunks)
    if distortion.violations:
        what = "values or chunks" if isinstance(promise, Target) else "values"
        wanted = "target" if isinstance(promise, Target) else "bound"
        raise BoundError(
            f"{task}: {distortion.violations} {what} read back break the {wanted} "
            f"(largest error {distortion.max_error:g}, RMSE {distortion.rmse:g}); please report this"
        )
    return distortion


def _compare_stored(source: Source, store: Source, task: Task) -> Outcome:
    x = source.read(task.name, task.region, lossy=task.unpacked)
    nbytes = x.size * source.itemsize(task.name)
    try:
        with whole_chunks():  # for each task, as in _convert: threads have contexts of their own
            x_hat = store.read(task.name, task.region, lossy=False)
    except ModelNotFoundError:
        raise  # says nothing about the store
    except (IsopressError, ValueError, RuntimeError, OSError) as error:  # what damaged bytes raise
        return Outcome(task.name, nbytes, damage=f"{type(error).__name__}: {error}")
    return Outcome(task.name, nbytes, distortion=_compare(x, x_hat, task.promise, store.chunks(task.name)))


def _compare(x: Array, x_hat: Array, promise: Promise | None, chunks: Sequence[int]) -> Distortion:
    """Measure a region that starts at the corner of a chunk."""
    if promise is None:
        return _compare_exactly(x, x_hat)
    x_hat = x_hat.astype(x.dtype, copy=False)
    parts = regions(x.shape, [max(size, 1) for size in chunks])  # of some promises; memory is short
    return sum((measure(x[part], x_hat[part], promise) for part in parts), NO_VALUES)


def _compare_exactly(x: Array, x_hat: Array) -> Distortion:
    if x.dtype.kind in "fc":
        same = (x == x_hat) | (np.isnan(x) & np.isnan(x_hat))
    else:
        same = np.asarray(x.astype(object) == x_hat.astype(object)) if x.dtype != x_hat.dtype else x == x_hat
    return Distortion(values=x.size, violations=x.size - int(np.count_nonzero(same)))


def _look_at_objects(array: zarr.Array[Any], region: Region, promise: Promise | None) -> _Stored:
    """Look at the shards or chunks of a region; at the headers of payloads, which there are if there is a promise."""
    objects, nbytes, models, missed = [], 0, set[str](), 0
    for key in object_keys(array, region):
        content = read_object(array, key)
        if content is None:  # Zarr leaves out chunks that hold nothing but the fill value
            continue
        objects.append((key, crc32c(content)))
        nbytes += len(content)
        for offset, length in payload_sizes(content, array) if promise is not None else ():
            info = inspect(content[offset : offset + length])
            models.update(info.models)
            missed += bool(info.missed)
    return _Stored(tuple(objects), nbytes, frozenset(models), missed)
