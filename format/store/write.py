"""A dataset -> a compressed Zarr store, verified, and the store's figures."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import zarr

from isopress.codec.errors import ArgumentError, BoundError
from isopress.codec.limits import Target
from isopress.format.attributes import UNFINISHED
from isopress.format.error_spec import ErrorSpec, format_bound
from isopress.format.presets import DEFAULT_PRESET, Preset
from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport
from isopress.format.source.dataset import Request, Source, located, open_source
from isopress.format.source.locate import local_path
from isopress.format.source.selection import as_request
from isopress.format.source.sentinels import find_sentinels
from isopress.format.source.stamps import check_unchanged, seen, stamps
from isopress.format.store.achieved import record_achieved, record_source
from isopress.format.store.chunking import regions, task_steps
from isopress.format.store.embedded_models import embed
from isopress.format.store.fence import fence_of
from isopress.format.store.journal import (
    Fingerprint,
    Journal,
    Kept,
    journal_of,
    left_unfinished,
    of_codec,
    remove_journal,
)
from isopress.format.store.plan import (
    DEFAULT,
    VariablePlan,
    Wishes,
    ZarrFormat,
    create_store,
    judge,
    plan_variables,
)
from isopress.format.store.pool import Worker, run
from isopress.format.store.progress import Observer, Phase, Progress
from isopress.format.store.remote import check_processes, claimed, lock_of
from isopress.format.store.staging import staged
from isopress.format.store.tasks import Outcome, Task, comparing, converting, scanning
from isopress.format.zarr.groups import consolidate, open_group
from isopress.format.zarr.single_file import SUFFIX, pack


def write(
    source: str | Sequence[str] | Request,
    destination: str | Path,
    *,
    errors: Sequence[ErrorSpec] = (),
    preset: Preset = DEFAULT_PRESET,
    chunks: Mapping[str, int] | None = None,
    shards: Mapping[str, int] | None = None,
    context: str = "auto",
    zarr_format: ZarrFormat = 3,
    effort: int = 0,
    model: str = DEFAULT,
    embed_models: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    strict: bool = False,
    observer: Observer = lambda progress: None,
) -> StoreReport:
    """Compress `source` to a Zarr store at `destination`; every bound, or RMSE as a target, is kept when this returns.

    Each region is read back and compared with the source. The store appears under its name only when
    it is complete. What an interruption, a lost process or a full disk leaves is kept for a run with `resume`; after
    any other failure nothing is left. What was there before stays.

    Parameters
    ----------
    source : str, sequence of str or Request
        Path, pattern or URL of a dataset, or `sample:era5`; several make one dataset; a Request asks for a part of it.
    destination : str or Path
        Where the store will be, a directory or a URL; or a single file that ends in `.isop.zip`.
    errors : sequence of ErrorSpec
        Bounds and targets by variable; the last match wins.
    preset : {"archive", "science", "preview"}
        Bounds of the variables that no error names.
    chunks : mapping of str to int, optional
        Chunk sizes of single dimensions; the others are chosen (`chunking.default_blocks`).
    shards : mapping of str to int, optional
        Sizes of shards along single dimensions; the others are chosen (`chunking.default_shards`).
    context : {"auto", "field", "block"}
        Whether fields of a chunk refer to each other: where that is smaller, never, always. Bounded variables only,
        except that "field" makes all chunks small.
    zarr_format : {3, 2}
        Version of the store.
    effort : int
        How long to look for symbols that cost less, in variables with a target: 0 (quickest) to 4.
    model : str
        A VAEformer's weights, for the variables that have their channels by name.
    embed_models : bool
        Put copies of the weights that the chunks need into the store.
    jobs : int
        Number of processes, >= 1.
    scheduler : str, optional
        Let a dask.distributed cluster do the work: the address of its scheduler, or "existing".
    overwrite : bool
        Replace an existing store, and what an unfinished run has left.
    resume : bool
        Go on with what an unfinished run has left, if there is such.
    strict : bool
        Treat what is unusual about the source, and what the report would warn of, as an error.
    observer : callable
        Called before and after each piece of work.

    Raises
    ------
    ArgumentError
        The source cannot be read, or changes while it is read, a warning is strict, an error or chunk names nothing,
        there is an effort but no target, the destination may not be written, or an unfinished run there was of another
        source or other settings.
    BoundError
        A value read back broke its bound, or a chunk missed the RMSE that was its target.
    ModelNotFoundError
        Variables have a target, and there are no weights for that.
    WorkerLostError
        A process ended; `resume` goes on.
    """
    start = time.perf_counter()
    target = local_path(str(destination))
    asked = as_request(source)
    wishes = Wishes(errors, preset, chunks or {}, context, effort, shards or {}, zarr_format, model)
    observer(Progress("open", ", ".join(asked.paths)))
    before = seen(asked)
    with ExitStack() as stack:
        request = stack.enter_context(located(asked))
        for path in request.paths:
            _check_destination(path, target)
        opened = stack.enter_context(open_source(request))
        single = target.endswith(SUFFIX)
        if "://" in target:
            _check_remote(target, jobs, scheduler, single or embed_models)
            store = stack.enter_context(claimed(target, overwrite=overwrite, resume=resume))
        else:
            options = {"overwrite": overwrite, "resume": resume}
            store = str(stack.enter_context(staged(Path(target), store=not single, **options)))
        job = _Job(opened, request, store, jobs, scheduler, observer)
        plans, kept = _prepared(job, plan_variables(opened, wishes), stamps(asked), wishes, strict)
        group = open_group(store, stack, "r+")
        totals = job.convert(plans, Journal(journal_of(group), kept))
        if not check_unchanged(before, asked):
            job.compare_again(plans)
        missed = tuple(_missed(plans, totals))
        _check_strict(strict, missed)
        record_achieved(group, opened, plans, totals)
        record_source(group, asked, opened.kind, preset)
        finish(group)
        if embed_models:
            embed(store)
        if single:
            pack(Path(store))
    report = replace(read_report(target), warnings=(*kept.warnings, *missed), read=dict(opened.counts))
    return _with_seconds(report, totals, jobs, time.perf_counter() - start)


def _prepared(
    job: "_Job", plans: list[VariablePlan], known: Mapping[str, str], wishes: Wishes, strict: bool
) -> tuple[list[VariablePlan], Kept]:
    """Return settled plans, of the store as an earlier run has left it or of a new, empty one, and its journal."""
    fingerprint = _fingerprint(job.source, plans, known, wishes)
    with ExitStack() as stack:
        if kept := job.left_behind(stack):
            kept.check_same(fingerprint)
            return [replace(plan, bound=kept.promises[plan.name]) for plan in plans], kept
        plans, found = job.survey(plans)
        kept = Kept(fingerprint, {plan.name: plan.bound for plan in plans}, (*job.source.warnings, *found))
        _check_strict(strict, kept.warnings)
        create_store(job.store, job.source, plans, wishes)
        Journal(journal_of(open_group(job.store, stack, "r+"))).begin(kept)
        return plans, kept


def _fingerprint(
    source: Source, plans: Sequence[VariablePlan], known: Mapping[str, str], wishes: Wishes
) -> Fingerprint:
    """Return all that decides about the bytes of a store, for people to compare."""
    variables = {
        f"variable {plan.name}": f"{variable.dtype} {'x'.join(map(str, variable.shape))}, {plan}"
        for plan, variable in ((plan, source.stored(plan.name)) for plan in plans)
    }
    settings = {"context": wishes.context, "effort": str(wishes.effort), "Zarr format": str(wishes.zarr_format)}
    return {**known, **variables, **settings, **of_codec()}


@dataclass(frozen=True)
class _Job:
    """One conversion: the open source and its path, the store, and how to run tasks on them."""

    source: Source
    request: Request
    store: str
    jobs: int
    scheduler: str | None
    observer: Observer

    @property
    def _shared(self) -> Request | Source:
        """What tasks open: in this process the open source itself, which took time (GRIB is indexed), else paths."""
        return self.source if self.jobs == 1 and self.scheduler is None else self.request

    def left_behind(self, stack: ExitStack) -> Kept | None:
        """Return what an earlier run has left of the store, if anything."""
        try:
            return left_unfinished(open_group(self.store, stack))
        except ArgumentError:  # no store
            return None

    def survey(self, plans: list[VariablePlan]) -> tuple[list[VariablePlan], list[str]]:
        """Return the plans with mode range turned into abs, and warnings, after one pass over all that may change.

        Raises
        ------
        ArgumentError
            A bound that a preset made of the range is larger than most of the values.
        """
        wanted = [plan for plan in plans if plan.asked and plan.asked.mode != "lossless"]
        totals = self.run("scan", partial(scanning, self._shared), self.tasks(wanted), wanted)
        surveyed: list[VariablePlan] = []
        warnings: list[str] = []
        for plan in plans:
            if plan in wanted:
                variable = self.source.variable(plan.name, lossy=True)
                findings = find_sentinels(totals.get(plan.name, Outcome(plan.name, 0)).sketch, variable.dtype)
                plan = plan.resolved(findings)
                warnings += judge(plan, findings, variable.attrs)
            surveyed.append(plan)
        return surveyed, warnings

    def convert(self, plans: list[VariablePlan], journal: Journal) -> dict[str, Outcome]:
        """Convert what is streamed, check what was written at once; return the outcomes per variable."""
        fence = fence_of(lock_of(self.store)) if self.scheduler else None
        worker = partial(converting, self._shared, self.store, fence=fence)
        streamed = [plan for plan in plans if plan.streamed]
        tasks = (replace(task, done=journal.done(str(task))) for task in self.tasks(streamed))
        try:
            totals = self.run("compress", worker, tasks, streamed, journal)
        finally:
            journal.flush()
        at_once = [plan for plan in plans if not plan.streamed]
        checker = partial(comparing, self._shared, self.store)
        for outcome in (
            replace(self, jobs=1, scheduler=None).run("check", checker, self.tasks(at_once), at_once).values()
        ):
            if outcome.damage or outcome.distortion.violations:
                raise BoundError(f"{outcome.name} reads back wrong: {outcome.damage or 'values differ'}")
        return totals

    def compare_again(self, plans: Sequence[VariablePlan]) -> None:
        """Raise ArgumentError unless what was written is what the source has now, which was touched meanwhile."""
        worker, streamed = partial(comparing, self.request, self.store), [plan for plan in plans if plan.streamed]
        for outcome in self.run("check", worker, self.tasks(streamed), streamed).values():
            if outcome.damage or outcome.distortion.violations:
                raise ArgumentError(
                    f"{outcome.name} has changed in the source while it was read; run again when nothing writes to it"
                )

    def run(
        self,
        phase: Phase,
        worker: Worker,
        tasks: Iterator[Task],
        plans: Sequence[VariablePlan],
        journal: Journal | None = None,
    ) -> dict[str, Outcome]:
        """Return the sum of outcomes per variable."""
        if not plans:
            return {}
        totals: dict[str, Outcome] = {}
        done = stored = kept = 0
        total = sum(self.source.nbytes(plan.name) for plan in plans)
        self.observer(Progress(phase, plans[0].name, 0, total))
        with closing(run(worker, tasks, jobs=self.jobs, scheduler=self.scheduler)) as outcomes:
            for outcome in outcomes:
                name = outcome.name
                totals[name] = totals[name] + outcome if name in totals else outcome
                done, stored = done + outcome.nbytes, stored + outcome.stored_nbytes
                if journal:
                    kept += outcome.nbytes if journal.add(outcome) else 0
                self.observer(Progress(phase, name, done, total, stored, kept))
        return totals

    def tasks(self, plans: Sequence[VariablePlan]) -> Iterator[Task]:
        """Yield the tasks of variables, whole shards each."""
        for plan in plans:
            unpacked = plan.bound is not None
            variable = self.source.variable(plan.name, lossy=unpacked)
            source_chunks = self.source.chunks(plan.name)
            steps = task_steps(plan.shards or plan.chunks, variable.shape, source_chunks, variable.dtype.itemsize)
            for region in regions(variable.shape, steps):
                yield Task(plan.name, region, plan.bound, unpacked)


def finish(group: zarr.Group) -> None:
    """Make an unfinished store a complete one: metadata in one place, no journal."""
    group.attrs.pop(UNFINISHED)
    consolidate(group)
    remove_journal(journal_of(group))


def _check_remote(url: str, jobs: int, scheduler: str | None, local_only: bool) -> None:
    if local_only:
        raise ArgumentError(
            f"{url}: single files and embedded weights are made in a local directory; copy it from there"
        )
    check_processes(url, jobs, scheduler)


def _check_destination(source: str, destination: str) -> None:
    if destination.endswith(".zip") and not destination.endswith(SUFFIX):
        raise ArgumentError(f"{destination}: a store in a single file has a name that ends in {SUFFIX}")
    if os.path.realpath(source) == os.path.realpath(destination):
        raise ArgumentError(f"{destination}: source and destination are the same")


def _missed(plans: Sequence[VariablePlan], totals: Mapping[str, Outcome]) -> Iterator[str]:
    """Yield which variables have chunks that are more than 3 % off their target."""
    for plan in plans:
        if isinstance(plan.bound, Target) and plan.name in totals and (chunks := totals[plan.name].missed_chunks):
            yield f"{plan.name}: {chunks} chunks miss {format_bound(plan.bound)} by more than 3 %"


def _check_strict(strict: bool, warnings: Sequence[str]) -> None:
    if strict and warnings:
        raise ArgumentError(f"{len(warnings)} warnings, which --strict makes errors: {'; '.join(warnings)}")


def _with_seconds(report: StoreReport, totals: dict[str, Outcome], jobs: int, seconds: float) -> StoreReport:
    timed = (
        replace(variable, seconds=totals[variable.name].seconds / jobs, violations=0)
        if variable.name in totals
        else variable
        for variable in report.variables
    )
    return replace(report, variables=tuple(timed), seconds=seconds)
