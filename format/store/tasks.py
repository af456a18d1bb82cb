"""The work on one region of a variable: scan, convert, compare with the source.

Each task runs in a worker that holds the source and the store open. A worker is a context manager that
yields the function of its task; it takes only paths, so that any process can start one.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from isopress.codec.errors import BoundError, IsopressError, ModelNotFoundError
from isopress.codec.limits import Target
from isopress.format.payload import inspect
from isopress.format.rewrites import whole_chunks
from isopress.format.settings import Promise
from isopress.format.source.dataset import Request, Source, open_source
from isopress.format.source.sentinels import Sketch, sketch
from isopress.format.store.chunking import Region, chunk_indexes, regions
from isopress.format.store.distortion import NO_VALUES, Array, Distortion, measure
from isopress.format.zarr.groups import arrays, open_group


@dataclass(frozen=True)
class Task:
    """A region of a variable, and the promise its values must keep (None: exactly equal).

    `unpacked` says that the store has numbers in physical units where the source has packed ones.
    """

    name: str
    region: Region
    promise: Promise | None
    unpacked: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a variable in a task: source bytes, bytes stored, distortion, models, seconds, damage.

    `short_chunks` counts chunks that are not as many times smaller as their target says; `sketch` is what a scan found.
    """

    name: str
    nbytes: int
    stored_nbytes: int = 0
    distortion: Distortion = NO_VALUES
    models: frozenset[str] = frozenset()
    seconds: float = 0.0
    damage: str | None = None
    short_chunks: int = 0
    sketch: Sketch = field(default_factory=Sketch)

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.name,
            self.nbytes + other.nbytes,
            self.stored_nbytes + other.stored_nbytes,
            self.distortion + other.distortion,
            self.models | other.models,
            self.seconds + other.seconds,
            self.damage or other.damage,
            self.short_chunks + other.short_chunks,
            self.sketch + other.sketch,
        )


@dataclass(frozen=True)
class _Stored:
    """What was found in files of chunks: their size, the sha256 of each model, chunks short of their ratio."""

    nbytes: int
    models: frozenset[str]
    short_chunks: int


Work = Callable[[Task], Outcome]


@contextmanager
def scanning(request: Request) -> Iterator[Work]:
    """Yield a function that looks at the values of a region: what they are like, and which may stand for missing."""
    with open_source(request) as source:
        yield partial(_scan, source)


@contextmanager
def converting(request: Request, store_path: str) -> Iterator[Work]:
    """Yield a function that writes a region to a local store, reads it back and compares.

    It raises BoundError when what is read back is not within the bound, or the RMSE that was the target.
    """
    with open_source(request) as source, whole_chunks(), ExitStack() as stack:
        targets = arrays(open_group(store_path, stack, "r+"))
        yield partial(_convert, source, targets, Path(store_path))


@contextmanager
def comparing(request: Request, store_path: str) -> Iterator[Work]:
    """Yield a function that compares a region of a store with the source; damage is reported, not raised."""
    with open_source(request) as source, open_source(store_path) as store, whole_chunks():
        yield partial(_compare_stored, source, store)


def _scan(source: Source, task: Task) -> Outcome:
    x = source.read(task.name, task.region, lossy=True)
    return Outcome(task.name, x.size * source.itemsize(task.name), sketch=sketch(x))


def _convert(source: Source, targets: dict[str, zarr.Array[Any]], store: Path, task: Task) -> Outcome:
    start = time.perf_counter()
    x = source.read(task.name, task.region, lossy=task.unpacked)
    target = targets[task.name]
    target[task.region] = x
    stored = _look_at_chunks(store / task.name, target, task.region, task.promise)
    return Outcome(
        task.name,
        x.size * source.itemsize(task.name),
        stored.nbytes,
        _read_back(target, x, task),
        stored.models,
        time.perf_counter() - start,
        short_chunks=stored.short_chunks,
    )


def _read_back(target: zarr.Array[Any], x: Array, task: Task) -> Distortion:
    promise = task.promise
    distortion = _compare(x, np.asarray(target[task.region]), promise, target.chunks)
    if distortion.violations:
        what = "values or chunks" if isinstance(promise, Target) else "values"
        wanted = "target" if isinstance(promise, Target) else "bound"
        raise BoundError(
            f"{task.name}{_describe(task.region)}: {distortion.violations} {what} read back break the {wanted} "
            f"(largest error {distortion.max_error:g}, RMSE {distortion.rmse:g}); please report this"
        )
    return distortion


def _compare_stored(source: Source, store: Source, task: Task) -> Outcome:
    x = source.read(task.name, task.region, lossy=task.unpacked)
    nbytes = x.size * source.itemsize(task.name)
    try:
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
    if promise.mode not in ("range", "latent"):
        return measure(x, x_hat, promise)
    parts = regions(x.shape, [max(size, 1) for size in chunks])  # these are promises about each chunk
    return sum((measure(x[part], x_hat[part], promise) for part in parts), NO_VALUES)


def _compare_exactly(x: Array, x_hat: Array) -> Distortion:
    if x.dtype.kind in "fc":
        same = (x == x_hat) | (np.isnan(x) & np.isnan(x_hat))
    else:
        same = np.asarray(x.astype(object) == x_hat.astype(object)) if x.dtype != x_hat.dtype else x == x_hat
    return Distortion(values=x.size, violations=x.size - int(np.count_nonzero(same)))


def _look_at_chunks(folder: Path, array: zarr.Array[Any], region: Region, promise: Promise | None) -> _Stored:
    """Look at the chunks of a region; at their headers if they have any, which is to say a promise."""
    nbytes, models, short = 0, set[str](), 0
    for index in chunk_indexes(region, array.chunks):
        chunk = folder / array.metadata.encode_chunk_key(index)
        if not chunk.exists():  # Zarr leaves out chunks that hold nothing but the fill value
            continue
        stored = chunk.stat().st_size
        nbytes += stored
        if promise is not None:
            info = inspect(chunk.read_bytes())
            models.update(info.models)
            short += isinstance(promise, Target) and not promise.reached_by(info.original_nbytes / stored)
    return _Stored(nbytes, frozenset(models), short)


def _describe(region: Region) -> str:
    return f"[{', '.join(f'{part.start}:{part.stop}' for part in region)}]"
