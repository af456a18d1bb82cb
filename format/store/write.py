"""A dataset -> a compressed Zarr store, verified, and the store's figures."""

import math
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
from isopress.format.attributes import KIND, PREFIX, SELECTION, SOURCE_ENCODING
from isopress.format.error_spec import ErrorSpec
from isopress.format.presets import DEFAULT_PRESET, Preset
from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport
from isopress.format.settings import Promise
from isopress.format.source.dataset import SAMPLE, Request, Source, located, open_source
from isopress.format.source.request import as_request
from isopress.format.source.sentinels import find_sentinels
from isopress.format.store.chunking import regions, task_steps
from isopress.format.store.embedded_models import embed
from isopress.format.store.plan import (
    VariablePlan,
    Wishes,
    ZarrFormat,
    create_store,
    judge,
    plan_variables,
    source_record,
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
    source: str | Sequence[str] | Request,
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
    strict: bool = False,
    observer: Observer = lambda progress: None,
) -> StoreReport:
    """Compress `source` to a Zarr store at `destination`; every bound, or RMSE as a target, is kept when this returns.

    Each region is read back and compared with the source. The store appears under its name only when
    it is complete; on any failure nothing is left and what was there before stays.

    Parameters
    ----------
    source : str, sequence of str or Request
        Path, pattern or URL of a dataset, or `sample:era5`; several make one dataset; a Request asks for a part of it.
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
    strict : bool
        Treat what is unusual about the source, and what the report would warn of, as an error.
    observer : callable
        Called after each piece of work.

    Raises
    ------
    ArgumentError
        The source cannot be read, a warning is strict, an error or chunk names nothing, there is an effort but no
        target, or the destination may not be written.
    BoundError
        A value read back broke its bound, or a chunk missed the RMSE that was its target.
    ModelNotFoundError
        Variables have a target, and there are no weights for that.
    """
    start = time.perf_counter()
    target = Path(destination)
    asked = as_request(source)
    wishes = Wishes(errors, preset, chunks or {}, context, effort)
    with ExitStack() as stack:
        request = stack.enter_context(located(asked))
        for path in request.paths:
            _check_destination(path, str(destination))
        opened = stack.enter_context(open_source(request))
        store = stack.enter_context(staged(target, store=True, overwrite=overwrite))
        job = _Job(opened, request, store, jobs, observer)
        plans, found = job.survey(plan_variables(opened, wishes))
        warnings = (*opened.warnings, *found)
        _check_strict(strict, warnings)
        create_store(store, opened, plans, zarr_format, wishes)
        totals = job.convert(plans)
        _write_attributes(job, plans, totals)
        _write_root_attributes(store, asked, opened.kind, preset)
        with quiet_zarr():
            zarr.consolidate_metadata(str(store), zarr_format=zarr_format)
        if embed_models:
            embed(store)
    report = replace(read_report(target), warnings=warnings, read=dict(opened.counts))
    return _with_seconds(report, totals, jobs, time.perf_counter() - start)


@dataclass(frozen=True)
class _Job:
    """One conversion: the open source and its path, the store, and how to run tasks on them."""

    source: Source
    request: Request
    store: Path
    jobs: int
    observer: Observer

    def survey(self, plans: list[VariablePlan]) -> tuple[list[VariablePlan], list[str]]:
        """Return the plans with mode range turned into abs, and warnings, after one pass over all that may change.

        Raises
        ------
        ArgumentError
            A bound that a preset made of the range is larger than most of the values.
        """
        wanted = [plan for plan in plans if plan.asked and plan.asked.mode != "lossless"]
        totals = self.run("scan", partial(scanning, self.request), wanted, self.jobs)
        surveyed: list[VariablePlan] = []
        warnings: list[str] = []
        for plan in plans:
            if plan in wanted:
                variable = self.source.variable(plan.name, lossy=True)
                findings = find_sentinels(_outcome(totals, plan).sketch, variable.dtype)
                plan = plan.resolved(findings)
                warnings += judge(plan, findings, variable.attrs)
            surveyed.append(plan)
        return surveyed, warnings

    def convert(self, plans: list[VariablePlan]) -> dict[str, Outcome]:
        """Convert what is streamed, check what was written at once; return the outcomes per variable."""
        worker = partial(converting, self.request, str(self.store))
        totals = self.run("compress", worker, [plan for plan in plans if plan.streamed], self.jobs)
        checker = partial(comparing, self.request, str(self.store))
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
            unpacked = plan.bound is not None
            variable = self.source.variable(plan.name, lossy=unpacked)
            steps = task_steps(plan.chunks, self.source.chunks(plan.name, self.jobs), variable.dtype.itemsize)
            for region in regions(variable.shape, steps):
                yield Task(plan.name, region, plan.bound, unpacked)


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
                "fallback": True if plan.by_preset and plan.asked and plan.asked.mode == "range" else None,
            }
            known = {key: value for key, value in record.items() if value is not None}
            attributes: dict[str, Any] = {PREFIX + key: value for key, value in known.items()}
            low, high = outcome.distortion.low, outcome.distortion.high
            if source := source_record(job.source, plan, low, high):
                attributes[SOURCE_ENCODING] = source
            attributes |= _widened(targets[plan.name].attrs, low, high, plan.bound)
            targets[plan.name].attrs.update(attributes)


def _widened(attrs: Mapping[str, Any], low: float, high: float, promise: Promise) -> dict[str, Any]:
    """Return the limits of valid values that decoded values pass, moved outwards: readers mask what is beyond them."""
    wider: dict[str, Any] = {}
    limits = attrs.get("valid_range", [attrs.get("valid_min", -math.inf), attrs.get("valid_max", math.inf)])
    if not (isinstance(limits, list) and len(limits) == 2 and all(isinstance(x, (int, float)) for x in limits)):
        return wider
    reach = [0.0, 0.0]
    if isinstance(promise, Bound) and promise.value is not None:
        relative = promise.mode == "pointwise"
        reach = [max(promise.value * abs(x), promise.floor or 0.0) if relative else promise.value for x in limits]
    moved = limits[0] - reach[0], limits[1] + reach[1]
    if low < limits[0]:
        wider["valid_min"] = moved[0]
    if high > limits[1]:
        wider["valid_max"] = moved[1]
    if wider and "valid_range" in attrs:
        return {"valid_range": [wider.get("valid_min", limits[0]), wider.get("valid_max", limits[1])]}
    return wider


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


def _check_strict(strict: bool, warnings: Sequence[str]) -> None:
    if strict and warnings:
        raise ArgumentError(f"{len(warnings)} warnings, which --strict makes errors: {'; '.join(warnings)}")


def _write_root_attributes(store: Path, asked: Request, kind: str, preset: Preset) -> None:
    name = ", ".join(path if path == SAMPLE else Path(path).name for path in asked.paths)
    with ExitStack() as stack:
        root = {"read_with": INSTALL_HINT, "version": isopress.__version__, "source": name, "preset": preset}
        attributes: dict[str, Any] = {PREFIX + key: value for key, value in root.items()} | {KIND: kind}
        if asked.partial:
            attributes[SELECTION] = {"variables": asked.variables, "sel": asked.sel, "isel": asked.isel}
        open_group(store, stack, "r+").attrs.update(attributes)


def _with_seconds(report: StoreReport, totals: dict[str, Outcome], jobs: int, seconds: float) -> StoreReport:
    timed = (
        replace(variable, seconds=totals[variable.name].seconds / jobs, violations=0)
        if variable.name in totals
        else variable
        for variable in report.variables
    )
    return replace(report, variables=tuple(timed), seconds=seconds)
