"""Does a store keep its promise? Every value is decoded and compared with the source again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import zarr

from isopress.codec.errors import ArgumentError
from isopress.format.attributes import KIND, SELECTION
from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport, VariableReport
from isopress.format.source.dataset import Request, Source, located, open_source
from isopress.format.source.selection import as_request
from isopress.format.store.chunking import regions, task_steps
from isopress.format.store.differences import differences, group_differences, is_unpacked
from isopress.format.store.pool import run
from isopress.format.store.progress import Observer, Progress
from isopress.format.store.tasks import Outcome, Task, comparing
from isopress.format.zarr.groups import arrays, open_group, stored_limit


def verify(
    store: str | Path,
    source: str | Sequence[str] | Request,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    only: Sequence[str] = (),
    observer: Observer = lambda progress: None,
) -> StoreReport:
    """Return the store's figures with errors measured anew; `kept` says whether every promise holds.

    Float variables must keep the bound their codec states, or in every chunk the RMSE that is the target (a ratio
    says nothing about values); all others must be equal. NaN and inf must be where the source has them. Both sides must
    have the same variables, with the same dimensions, types, attributes and fill values; what cannot be decoded is
    damaged.

    Parameters
    ----------
    store : str
        The compressed store.
    source : str, sequence of str or Request
        What it was made from. A part of it that the store says it was made of is taken without asking.
    jobs : int
        Number of processes, >= 1.
    scheduler : str, optional
        Let a dask.distributed cluster do the work: the address of its scheduler, or "existing".
    only : sequence of str
        Names or patterns of the variables that are compared; none: all.
    observer : callable
        Called before and after each piece of work.

    Raises
    ------
    ArgumentError
        The store or the source cannot be opened, or `only` names nothing.
    ModelNotFoundError
        The store needs weights that are not installed.
    """
    observer(Progress("open", str(store)))
    report = read_report(store)
    with ExitStack() as stack:
        group = open_group(store, stack)
        asked, left_out = same_part(as_request(source), group)
        request = stack.enter_context(located(asked))
        opened = stack.enter_context(open_source(request))
        targets = arrays(group)
        names = _chosen([*opened.names, *(name for name in targets if name not in opened.names)], only)
        bad = {name: reason for name in names if (reason := _mismatch(opened, name, targets.get(name)))}
        checked = [name for name in names if name not in bad]
        tasks = _tasks(opened, {name: targets[name] for name in checked})
        totals = {name: Outcome(name, 0) for name in checked}
        total, done = sum(map(opened.nbytes, checked)), 0
        worker = partial(comparing, request, str(store))
        observer(Progress("check", checked[0] if checked else "", 0, total))
        with closing(run(worker, tasks, jobs=jobs, scheduler=scheduler)) as outcomes:
            for outcome in outcomes:
                totals[outcome.name] += outcome
                done += outcome.nbytes
                observer(Progress("check", outcome.name, done, total))
        missing = [_missing(opened, name) for name in bad if name not in targets]
        differing = {name: differences(opened, name, targets[name], _is_ours(group)) for name in checked}
        found = [
            replace(
                _verdict(variable, totals.get(variable.name), bad), differences=tuple(differing.get(variable.name, ()))
            )
            for variable in report.variables
            if variable.name in names
        ]
        whole = () if only else tuple(group_differences(opened, group))
        left_out += [f"{name}: not asked for" for name in (*opened.names, *targets) if name not in names]
    return replace(
        report,
        variables=tuple(found + missing),
        warnings=opened.warnings,
        read=dict(opened.counts),
        differences=whole,
        not_compared=tuple(dict.fromkeys(left_out)),
    )


def same_part(asked: Request, group: zarr.Group) -> tuple[Request, list[str]]:
    """Return the part of the source that the store says it was made of, unless the user names one."""
    made_of: Any = dict(group.attrs).get(SELECTION)
    if asked.partial or not made_of:
        return asked, []
    sel, isel = (tuple((str(dim), str(text)) for dim, text in made_of[key]) for key in ("sel", "isel"))
    part = replace(asked, variables=tuple(made_of["variables"]), sel=sel, isel=isel)
    words = [*part.variables, *(f"{dim}={text}" for dim, text in (*sel, *isel))]
    return part, [f"what the store was not made of: it has {' '.join(words)} of the source"]


def _is_ours(group: zarr.Group) -> bool:
    """Whether `write` made the store, so that its attributes are those of the source."""
    return KIND in dict(group.attrs)


def _chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    if not only:
        return list(names)
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ArgumentError(f"only {pattern!r}: no such variable; there are: {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in only)]


def _tasks(source: Source, targets: Mapping[str, zarr.Array[Any]]) -> Iterator[Task]:
    for name, array in targets.items():
        units = [max(size, 1) for size in array.shards or array.chunks]
        steps = task_steps(units, array.shape, source.chunks(name), array.dtype.itemsize)
        limit = stored_limit(array)
        for region in regions(array.shape, steps):
            yield Task(name, region, limit, limit is not None or is_unpacked(source, name, array))


def _mismatch(source: Source, name: str, array: zarr.Array[Any] | None) -> str | None:
    """Return why a variable of the source or the store cannot be compared, or None."""
    if array is None:
        return "missing from the store"
    if name not in source.names:
        return "not in the source"
    shape = source.stored(name).shape
    return None if array.shape == shape else f"has shape {array.shape}, the source {shape}"


def _verdict(variable: VariableReport, outcome: Outcome | None, bad: dict[str, str]) -> VariableReport:
    if outcome is None:
        return replace(variable, damage=bad.get(variable.name))
    checked = replace(variable, violations=outcome.distortion.violations, damage=outcome.damage)
    if variable.bound is None:
        return checked
    return replace(checked, max_error=outcome.distortion.max_error, rmse=outcome.distortion.rmse)


def _missing(source: Source, name: str) -> VariableReport:
    variable = source.stored(name)
    dims = tuple(map(str, variable.dims))
    nbytes, dtype = source.nbytes(name), str(variable.dtype)
    return VariableReport(name, dims, variable.shape, (), dtype, "", nbytes, 0, damage="missing from the store")
