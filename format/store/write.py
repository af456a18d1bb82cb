"""A dataset -> a compressed Zarr store, verified, and the store's figures."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import zarr

import isopress
from isopress.codec.errors import ArgumentError, BoundError
from isopress.codec.limits import Bound
from isopress.format.error_spec import ErrorSpec
from isopress.format.presets import DEFAULT_PRESET, Preset
from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport
from isopress.format.settings import Promise
from isopress.format.source.dataset import PREFIX, SAMPLE, Source, open_source, resolve
from isopress.format.store.chunking import regions, task_steps
from isopress.format.store.embedded_models import embed
from isopress.format.store.plan import (
    SOURCE_ENCODING,
    UNLIMITED,
    VariablePlan,
    Wishes,
    ZarrFormat,
    create_store,
    plan_variables,
    source_encoding,
)
from isopress.format.store.pool import Worker, run
from isopress.format.store.staging import staged
from isopress.format.store.tasks import Outcome, Task, comparing, converting, scanning
from isopress.format.zarr.groups import arrays, open_group, quiet_zarr

INSTALL_HINT = "Compressed by isopress. To read it: pip install isopress, then xarray.open_zarr as usual."


Phase = Literal["scan", "compress", "check"]


@dataclass(frozen=True)
class Progress:
    """A sign of life: what is going on with which variable, source bytes done and to do, bytes stored."""

    phase: Phase
    variable: str
    done_nbytes: int
    total_nbytes: int
    stored_nbytes: int = 0


Observer = Callable[[Progress], None]


def write(
    source: str,
    destination: str | Path,
    *,
    errors: Sequence[ErrorSpec] = (),
    preset: Preset = DEFAULT_PRESET,
    chunks: Mapping[str, int] | None = None,
    context: str = "auto",
    zarr_format: ZarrFormat = 3,
    effort: int = 0,
    embed_models: bool = False,
    jobs: int = 1,
    overwrite: bool = False,
    observer: Observer = lambda progress: None,
) -> StoreReport:
    """Compress `source` to a Zarr store at `destination`; every bound, or RMSE as a target, is kept when this returns.

    Each region is read back and compared with the source. The store appears under its name only when
    it is complete; on any failure nothing is left and what was there before stays.

    Parameters
    ----------
    source : str
        Path or URL of a dataset xarray opens, or `sample:era5`.
    destination : str or Path
        Where the store will be, a directory.
    errors : sequence of ErrorSpec
        Bounds and targets by variable; the last match wins.
    preset : {"archive", "science", "preview"}
        Bounds of the variables that no error names.
    chunks : mapping of str to int, optional
        Chunk sizes of single dimensions; the others are chosen (`layout.default_blocks`).
    context : {"auto", "field", "block"}
        Whether fields of a chunk refer to each other: where that is smaller, never, always. Bounded variables only,
        except that "field" makes all chunks small.
    zarr_format : {3, 2}
        Version of the store.
    effort : int
        How long to look for symbols that cost less, in variables with a target: 0 (quickest) to 4.
    embed_models : bool
        Put copies of the weights that the chunks need into the store.
    jobs : int
        Number of processes, >= 1.
    overwrite : bool
        Replace an existing store.
    observer : callable
        Called after each piece of work.

    Raises
    ------
    ArgumentError
        The source cannot be read, an error or chunk names nothing, there is an effort but no target, or the
        destination may not be written.
    BoundError
        A value read back broke its bound, or a chunk missed the RMSE that was its target.
    ModelNotFoundError
        Variables have a target, and there are no weights for that.
    """
    start = time.perf_counter()
    target = Path(destination)
    path = resolve(source)
    _check_destination(path, str(destination))
    wishes = Wishes(errors, preset, chunks or {}, context, effort)
    with open_source(path) as opened, staged(target, store=True, overwrite=overwrite) as store:
        job = _Job(opened, path, store, jobs, observer)
        plans = job.resolve_ranges(plan_variables(opened, wishes))
        create_store(store, opened, plans, zarr_format, wishes)
        totals = job.convert(plans)
        _write_attributes(job, plans, totals)
        _write_root_attributes(store, opened, source if source == SAMPLE else Path(path).name, preset)
        with quiet_zarr():
            zarr.consolidate_metadata(str(store), zarr_format=zarr_format)
        if embed_models:
            embed(store)
    return _with_seconds(read_report(target), totals, jobs, time.perf_counter() - start)


@dataclass(frozen=True)
class _Job:
    """One conversion: the open source and its path, the store, and how to run tasks on them."""

    source: Source
    path: str
    store: Path
    jobs: int
    observer: Observer

    def resolve_ranges(self, plans: list[VariablePlan]) -> list[VariablePlan]:
        """Return the plans with mode range turned into abs, after one pass over what needs it."""
        wanted = [plan for plan in plans if plan.asked and plan.asked.mode == "range"]
        totals = self.run("scan", partial(scanning, self.path), wanted, self.jobs)
        ranges = {plan.name: _outcome(totals, plan).distortion for plan in wanted}
        return [plan.resolved(ranges[plan.name]) if plan.name in ranges else plan for plan in plans]

    def convert(self, plans: list[VariablePlan]) -> dict[str, Outcome]:
        """Convert what is streamed, check what was written at once; return the outcomes per variable."""
        worker = partial(converting, self.path, str(self.store))
        totals = self.run("compress", worker, [plan for plan in plans if plan.streamed], self.jobs)
        checker = partial(comparing, self.path, str(self.store))
        for outcome in self.run("check", checker, [plan for plan in plans if not plan.streamed], 1).values():
            if outcome.damage or outcome.distortion.violations:
                raise BoundError(f"{outcome.name} reads back wrong: {outcome.damage or 'values differ'}")
        return totals

    def run(self, phase: Phase, worker: Worker, plans: Sequence[VariablePlan], jobs: int) -> dict[str, Outcome]:
        """Return the sum of outcomes per variable."""
        if not plans:
            return {}
        totals: dict[str, Outcome] = {}
        done = stored = 0
        total = sum(self.source.nbytes(plan.name) for plan in plans)
        with closing(run(worker, self._tasks(plans), jobs=jobs)) as outcomes:
            for outcome in outcomes:
                name = outcome.name
                totals[name] = totals[name] + outcome if name in totals else outcome
                done, stored = done + outcome.nbytes, stored + outcome.stored_nbytes
                self.observer(Progress(phase, name, done, total, stored))
        return totals

    def _tasks(self, plans: Sequence[VariablePlan]) -> Iterator[Task]:
        for plan in plans:
            variable = self.source.variable(plan.name)
            steps = task_steps(plan.chunks, self.source.chunks(plan.name, self.jobs), variable.dtype.itemsize)
            for region in regions(variable.shape, steps):
                yield Task(plan.name, region, plan.bound)


def _check_destination(source: str, destination: str) -> None:
    if "://" in destination:
        raise ArgumentError(f"{destination}: a store is written to a local directory; copy it from there")
    if destination.endswith(".zip"):
        raise ArgumentError(f"{destination}: a store is written to a directory; zip it afterwards")
    if os.path.realpath(source) == os.path.realpath(destination):
        raise ArgumentError(f"{destination}: source and destination are the same")


def _outcome(totals: dict[str, Outcome], plan: VariablePlan) -> Outcome:
    """Return the outcome of a variable; an empty one had no tasks."""
    return totals.get(plan.name, Outcome(plan.name, 0))


def _write_attributes(job: _Job, plans: Sequence[VariablePlan], totals: dict[str, Outcome]) -> None:
    with ExitStack() as stack:
        targets = arrays(open_group(job.store, stack, "r+"))
        for plan in plans:
            if plan.bound is None:
                continue
            outcome = _outcome(totals, plan)
            record = _promised(plan.bound, outcome) | {
                "max_error": outcome.distortion.max_error,
                "rmse": outcome.distortion.rmse,
                "original_nbytes": job.source.nbytes(plan.name),
                "stored_nbytes": outcome.stored_nbytes,
                "models": sorted(outcome.models),
            }
            known = {key: value for key, value in record.items() if value is not None}
            attributes: dict[str, Any] = {PREFIX + key: value for key, value in known.items()}
            # Where nothing changes, no value can become the source's fill value.
            lossless = plan.bound.mode == "lossless"
            limits = (0.0, -1.0) if lossless else (outcome.distortion.low, outcome.distortion.high)
            if packing := source_encoding(job.source.variable(plan.name), *limits):
                attributes[SOURCE_ENCODING] = json.dumps(packing)
            targets[plan.name].attrs.update(attributes)


def _promised(promise: Promise, outcome: Outcome) -> dict[str, Any]:
    """Return what the codec was asked for, and how many chunks were too small for it."""
    if isinstance(promise, Bound):
        return {"mode": promise.mode, "bound": promise.value, "floor": promise.floor}
    short = None if promise.ratio is None else outcome.short_chunks
    return {
        "mode": promise.mode,
        "target_ratio": promise.ratio,
        "target_rmse": promise.rmse,
        "short_chunks": short,
    }


def _write_root_attributes(store: Path, source: Source, name: str, preset: Preset) -> None:
    with ExitStack() as stack:
        root = {"read_with": INSTALL_HINT, "version": isopress.__version__, "source": name, "preset": preset}
        attributes: dict[str, Any] = {PREFIX + key: value for key, value in root.items()}
        if unlimited := source.stored.encoding.get("unlimited_dims"):
            attributes[UNLIMITED] = sorted(map(str, unlimited))
        open_group(store, stack, "r+").attrs.update(attributes)


def _with_seconds(report: StoreReport, totals: dict[str, Outcome], jobs: int, seconds: float) -> StoreReport:
    timed = (
        replace(variable, seconds=totals[variable.name].seconds / jobs, violations=0)
        if variable.name in totals
        else variable
        for variable in report.variables
    )
    return replace(report, variables=tuple(timed), seconds=seconds)
