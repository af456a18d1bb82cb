"""The work on one region of a variable, or of several that are coded together: scan, convert, compare with the source.

Each task runs in a worker that holds the source and the store open. A worker is a context manager that
yields the function of its task; it takes only paths, so that any process can start one.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from isopress.codec.bound import Bound
from isopress.codec.errors import BoundError, IsopressError
from isopress.format.distortion import NO_VALUES, Array, Distortion, measure
from isopress.format.joint import share
from isopress.format.layout import Region, chunk_indexes
from isopress.format.payload import inspect
from isopress.format.source import Source, open_source
from isopress.format.zarr_store import arrays, open_group


@dataclass(frozen=True)
class Task:
    """A region of one variable or several, and the bound the values of each must keep (None: exactly equal).

    `array` is where the values are written to, if not to the array of the one variable: the joint array, in which
    variables are channels in this order.
    """

    bounds: Mapping[str, Bound | None]
    region: Region
    array: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a variable in a task: source bytes, bytes stored, distortion, models, seconds, damage."""

    name: str
    nbytes: int
    stored_nbytes: int = 0
    distortion: Distortion = NO_VALUES
    models: frozenset[str] = frozenset()
    seconds: float = 0.0
    damage: str | None = None

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.name,
            self.nbytes + other.nbytes,
            self.stored_nbytes + other.stored_nbytes,
            self.distortion + other.distortion,
            self.models | other.models,
            self.seconds + other.seconds,
            self.damage or other.damage,
        )


Work = Callable[[Task], list[Outcome]]


@contextmanager
def scanning(source_path: str) -> Iterator[Work]:
    """Yield a function that finds the range of finite values, as `low` and `high` of the distortion."""
    with open_source(source_path) as source:

        def scan(task: Task) -> list[Outcome]:
            return [_scan(source, name, task.region) for name in task.bounds]

        yield scan


@contextmanager
def converting(source_path: str, store_path: str) -> Iterator[Work]:
    """Yield a function that writes a region to a local store, reads it back and compares.

    It raises BoundError when a value read back is not within the bound.
    """
    with open_source(source_path) as source, ExitStack() as stack:
        group = open_group(store_path, stack, "r+")
        targets = arrays(group)

        def convert(task: Task) -> list[Outcome]:
            start = time.perf_counter()
            values = {name: source.read(name, task.region) for name in task.bounds}
            stored, models = _write(group, Path(store_path), task, values)
            outcomes = [
                Outcome(
                    name,
                    _source_nbytes(source, name, x),
                    share(stored, index, len(values)),
                    _read_back(targets[name], name, x, task),
                    models,
                )
                for index, (name, x) in enumerate(values.items())
            ]
            seconds = (time.perf_counter() - start) / len(outcomes)
            return [replace(outcome, seconds=seconds) for outcome in outcomes]

        yield convert


@contextmanager
def comparing(source_path: str, store_path: str) -> Iterator[Work]:
    """Yield a function that compares a region of a store with the source; damage is reported, not raised."""
    with open_source(source_path) as source, open_source(store_path) as store:

        def compare(task: Task) -> list[Outcome]:
            return [_compare_stored(source, store, name, task) for name in task.bounds]

        yield compare


def _scan(source: Source, name: str, region: Region) -> Outcome:
    x = source.read(name, region)
    finite = x[np.isfinite(x)]
    low, high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
    extremes = Distortion(low=float(low), high=float(high))
    return Outcome(name, _source_nbytes(source, name, x), distortion=extremes)


def _write(group: zarr.Group, store: Path, task: Task, values: dict[str, Array]) -> tuple[int, frozenset[str]]:
    """Write one variable, or several as the channels of their array; return what `_look_at_chunks` finds."""
    x = np.stack(list(values.values())) if task.array else next(iter(values.values()))
    region = (slice(0, len(values)), *task.region) if task.array else task.region
    path = task.array or next(iter(values))
    target: Any = group[path]
    target[region] = x
    return _look_at_chunks(store / path, target, region, coded=all(task.bounds.values()))


def _read_back(target: zarr.Array[Any], name: str, x: Array, task: Task) -> Distortion:
    distortion = _compare(x, np.asarray(target[task.region]), task.bounds[name])
    if distortion.violations:
        raise BoundError(
            f"{name}{_describe(task.region)}: {distortion.violations} values read back break "
            f"the bound (largest error {distortion.max_error:g}); please report this"
        )
    return distortion


def _compare_stored(source: Source, store: Source, name: str, task: Task) -> Outcome:
    x = source.read(name, task.region)
    nbytes = _source_nbytes(source, name, x)
    try:
        x_hat = store.read(name, task.region)
    except (IsopressError, ValueError, RuntimeError, OSError) as error:  # what damaged bytes raise
        return Outcome(name, nbytes, damage=f"{type(error).__name__}: {error}")
    return Outcome(name, nbytes, distortion=_compare(x, x_hat, task.bounds[name]))


def _compare(x: Array, x_hat: Array, bound: Bound | None) -> Distortion:
    if bound is not None:
        return measure(x, x_hat.astype(x.dtype, copy=False), bound)
    if x.dtype.kind in "fc":
        same = (x == x_hat) | (np.isnan(x) & np.isnan(x_hat))
    else:
        same = np.asarray(x.astype(object) == x_hat.astype(object)) if x.dtype != x_hat.dtype else x == x_hat
    return Distortion(values=x.size, violations=x.size - int(np.count_nonzero(same)))


def _look_at_chunks(folder: Path, array: zarr.Array[Any], region: Region, *, coded: bool) -> tuple[int, frozenset[str]]:
    """Return the bytes of the region's chunks, and the sha256 of each model that decodes them."""
    stored, models = 0, set[str]()
    for index in chunk_indexes(region, array.chunks):
        chunk = folder / array.metadata.encode_chunk_key(index)
        if not chunk.exists():  # Zarr leaves out chunks that hold nothing but the fill value
            continue
        stored += chunk.stat().st_size
        if coded:
            models.update(inspect(chunk.read_bytes()).models)
    return stored, frozenset(models)


def _source_nbytes(source: Source, name: str, x: Array) -> int:
    return x.size * int(source.stored.variables[name].dtype.itemsize)


def _describe(region: Region) -> str:
    return f"[{', '.join(f'{part.start}:{part.stop}' for part in region)}]"
