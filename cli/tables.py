"""What the verbs print: tables, JSON, and progress on a terminal or line by line."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from isopress.codec.limits import Bound, Target
from isopress.format.report.records import StoreReport, VariableReport

if TYPE_CHECKING:
    from isopress.format.store.write import Observer
    from isopress.format.store.write import Progress as Step

_PLAIN_WIDTH = 140  # of tables in files and pipes, where there is no terminal to ask
_LINE_SECONDS = 5.0  # between lines of progress, where there is no terminal to draw on


def show(report: StoreReport, *, as_json: bool, layout: bool = False) -> None:
    """Print a report as JSON or as a table; `layout` adds shapes, chunks and models."""
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2, allow_nan=False))
        return
    console = plain_console(_PLAIN_WIDTH)
    console.print(_table(report, layout))
    for variable in report.variables:
        if variable.short_chunks:
            console.print(f"{variable.name}: {variable.short_chunks} chunks are too small for {bound_text(variable)}")
    console.print(_summary(report))
    for left_out in report.not_compared:
        console.print(f"not compared: {left_out}")
    for warning in report.warnings:
        click.echo(f"isopress: warning: {warning}", err=True)
    if report.read:
        console.print(f"read {_counts(report.read)}; {_count(len(report.warnings), 'warning')}")


def plain_console(width: int) -> Console:
    """Return stdout for tables, `width` wide in files and pipes; names and units are printed as they are, no markup."""
    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=False, emoji=False)


@contextmanager
def progress(*, quiet: bool) -> "Iterator[Observer]":
    """Give an observer that shows MB/s, ratio and time left on stderr; nothing when `quiet`."""
    if quiet:
        yield lambda step: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield _Bar(bar)
    else:
        yield _Lines()


def size(nbytes: float) -> str:
    """Return bytes for people: `12.3 MB`, with 1 MB = 10^6 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def bound_text(variable: VariableReport) -> str:
    """Return the promise of a variable in words: `0.1 K`, `1 %, at least 1e-06 m`, `exact`, `RMSE 0.5 K`."""
    bound = variable.bound
    if isinstance(bound, Target):
        return f"ratio {bound.ratio:.4g}" if bound.rmse is None else f"RMSE {_with_units(bound.rmse, variable)}"
    if bound is None or bound.mode == "lossless" or bound.value is None:
        return "exact"
    if bound.mode == "abs":
        asked = f" ({variable.error})" if variable.error and not variable.error.startswith("abs:") else ""
        if variable.fallback:
            asked = f" ({variable.error}: no preset for unit {variable.units!r})"
        return _with_units(bound.value, variable) + asked
    return _fraction(bound, variable)


def _fraction(bound: Bound, variable: VariableReport) -> str:
    of = "of the chunk's range" if bound.mode == "range" else "of |x|"
    floor = "" if bound.floor is None else f" or {_with_units(bound.floor, variable)}"
    return f"{100 * (bound.value or 0):.4g} % {of}{floor}"


def _with_units(number: float, variable: VariableReport) -> str:
    return f"{number:.4g} {variable.units}".strip()


def _table(report: StoreReport, layout: bool) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("variable", no_wrap=True)
    for name in ("shape", "chunks", "type") if layout else ():
        table.add_column(name)
    table.add_column("bound or target" if any(isinstance(v.bound, Target) for v in report.variables) else "bound")
    for name in ("max error", "RMSE", "size", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("model" if layout else "MB/s", justify="right", no_wrap=True)
    for variable in report.variables:
        if variable.bound is not None or variable.damage or layout:
            table.add_row(*_row(variable, layout))
    rest = [variable for variable in report.variables if variable.bound is None and not variable.damage]
    if rest and not layout:
        original, stored = (sum(getattr(v, name) for v in rest) for name in ("original_nbytes", "stored_nbytes"))
        table.add_row(f"{len(rest)} others", "exact", "0", "0", size(stored), _ratio(original / max(stored, 1)), "")
    return table


def _row(variable: VariableReport, layout: bool) -> list[str]:
    shape = [" x ".join(map(str, sizes)) for sizes in (variable.shape, variable.chunks)]
    speed = "" if variable.mb_per_s is None else f"{variable.mb_per_s:.1f}"
    models = ", ".join(model[:8] for model in variable.models)
    return [
        variable.name,
        *((*shape, variable.dtype) if layout else ()),
        bound_text(variable),
        _error(variable, variable.max_error),
        _error(variable, variable.rmse),
        size(variable.stored_nbytes),
        _ratio(variable.ratio),
        models if layout else speed,
    ]


def _error(variable: VariableReport, error: float | None) -> str:
    if variable.bound is None:
        return "0" if variable.kept else "-"
    return "-" if error is None else f"{error:.4g}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.1f}x"


def _summary(report: StoreReport) -> str:
    sizes = f"{size(report.original_nbytes)} -> {size(report.stored_nbytes)}"
    text = f"{report.path}: {sizes}, {_ratio(report.ratio)}"
    if report.models_nbytes:
        text += f" ({size(report.models_nbytes)} of it weights)"
    if report.seconds:
        speed = report.original_nbytes / 1e6 / report.seconds
        text += f", {report.seconds:.1f} s, {speed:.1f} MB/s; MB/s: read, encode, write, read back, compare"
    return text


def _counts(read: Mapping[str, int]) -> str:
    """Return what was read in words: `1 file, 3 groups, 5 variables`."""
    return ", ".join(_count(number, what.removesuffix("s")) for what, number in read.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


class _Bar:
    """An observer that draws one bar per phase."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._start = bar, time.monotonic()
        self._phase, self._task = "", bar.add_task("open", total=None, figures="")

    def __call__(self, step: "Step") -> None:
        if step.phase != self._phase:
            self._phase, self._start = step.phase, time.monotonic()
            self._bar.reset(self._task, total=step.total_nbytes)
        self._bar.update(
            self._task,
            completed=step.done_nbytes,
            description=f"{step.phase} {step.variable}",
            figures=_figures(step, time.monotonic() - self._start),
        )


class _Lines:
    """An observer that prints a line every few seconds and at the end of a phase."""

    def __init__(self) -> None:
        self._phase, self._start, self._last = "", time.monotonic(), time.monotonic()

    def __call__(self, step: "Step") -> None:
        now = time.monotonic()
        if step.phase != self._phase:
            self._phase, self._start = step.phase, self._last
        if step.done_nbytes < step.total_nbytes and now - self._last < _LINE_SECONDS:
            return
        self._last = now
        share = step.done_nbytes / max(step.total_nbytes, 1)
        figures = _figures(step, now - self._start)
        click.echo(f"{step.phase} {step.variable}: {share:.0%}, {figures}", err=True)


def _figures(step: "Step", seconds: float) -> str:
    speed = f"{step.done_nbytes / 1e6 / max(seconds, 1e-9):.1f} MB/s"
    return f"{speed}, {_ratio(step.done_nbytes / step.stored_nbytes)}" if step.stored_nbytes else speed
