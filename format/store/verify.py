"""Does a store keep its promise? Every value is decoded and compared with the source again."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import zarr

from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport, VariableReport
from isopress.format.source.dataset import Source, open_source, resolve
from isopress.format.store.chunking import regions, task_steps
from isopress.format.store.pool import run
from isopress.format.store.tasks import Outcome, Task, comparing
from isopress.format.zarr.groups import arrays, open_group, stored_limit


def verify(store: str | Path, source: str, *, jobs: int = 1) -> StoreReport:
    """Return the store's figures with errors measured anew; `kept` says whether every promise holds.

    Float variables must keep the bound their codec states, or in every chunk the RMSE that is the target (a ratio
    says nothing about values); all others must be equal. NaN and inf must be where the source has them. A variable
    that is missing, has another shape or cannot be decoded is damaged.

    Parameters
    ----------
    store, source : str
        The compressed store and what it was made from.
    jobs : int
        Number of processes, >= 1.

    Raises
    ------
    ArgumentError
        The store or the source cannot be opened.
    ModelNotFoundError
        The store needs weights that are not installed.
    """
    path = resolve(source)
    report = read_report(store)
    with open_source(path) as opened, ExitStack() as stack:
        targets = arrays(open_group(store, stack))
        bad = {name: reason for name in opened.names if (reason := _mismatch(opened, name, targets.get(name)))}
        checked = [name for name in opened.names if name not in bad]
        tasks = _tasks(opened, {name: targets[name] for name in checked}, jobs)
        totals = {name: Outcome(name, 0) for name in checked}
        with closing(run(partial(comparing, path, str(store)), tasks, jobs=jobs)) as outcomes:
            for outcome in outcomes:
                totals[outcome.name] += outcome
        missing = [_missing(opened, name) for name in bad if name not in targets]
        found = [_verdict(variable, totals.get(variable.name), bad) for variable in report.variables]
    return replace(report, variables=tuple(found + missing))


def _tasks(source: Source, targets: Mapping[str, zarr.Array[Any]], jobs: int) -> Iterator[Task]:
    for name, array in targets.items():
        chunks = [max(size, 1) for size in array.chunks]
        steps = task_steps(chunks, source.chunks(name, jobs), array.dtype.itemsize)
        for region in regions(array.shape, steps):
            yield Task(name, region, stored_limit(array))


def _mismatch(source: Source, name: str, array: zarr.Array[Any] | None) -> str | None:
    """Return why a variable of the source cannot be compared, or None."""
    if array is None:
        return "missing from the store"
    shape = source.variable(name).shape
    return None if array.shape == shape else f"has shape {array.shape}, the source {shape}"


def _verdict(variable: VariableReport, outcome: Outcome | None, bad: dict[str, str]) -> VariableReport:
    if outcome is None:
        return replace(variable, damage=bad.get(variable.name))
    checked = replace(variable, violations=outcome.distortion.violations, damage=outcome.damage)
    if variable.bound is None:
        return checked
    return replace(checked, max_error=outcome.distortion.max_error, rmse=outcome.distortion.rmse)


def _missing(source: Source, name: str) -> VariableReport:
    variable = source.variable(name)
    dims = tuple(map(str, variable.dims))
    nbytes, dtype = source.nbytes(name), str(variable.dtype)
    return VariableReport(name, dims, variable.shape, (), dtype, "", nbytes, 0, damage="missing from the store")
