"""What the verbs print: tables and JSON."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from isopress.codec.limits import Target
from isopress.format.report.records import StoreReport, VariableReport
from isopress.format.report.words import bound_text, count, ratio_text, size

if TYPE_CHECKING:
    from isopress.format.report.compare.records import CompareReport
    from isopress.format.report.estimate_records import Estimate
    from isopress.format.report.planned import PlanReport
    from isopress.format.report.sweep import SweepReport

_PLAIN_WIDTH = 140  # of tables in files and pipes, where there is no terminal to ask


def show(report: StoreReport, *, as_json: bool) -> None:
    """Print a report as JSON or as a table."""
    if as_json:
        print_json(report.to_dict())
        return
    console = plain_console(_PLAIN_WIDTH)
    console.print(_table(report))
    for variable in report.variables:
        if variable.missed_chunks:
            missed = count(variable.missed_chunks, "chunk")
            console.print(f"{variable.name}: {missed} off {bound_text(variable)} by over 3 %")
    console.print(_summary(report))
    for left_out in report.not_compared:
        console.print(f"not compared: {left_out}")
    for warning in report.warnings:
        click.echo(f"isopress: warning: {warning}", err=True)
    if report.read:
        console.print(f"read {_counts(report.read)}; {count(len(report.warnings), 'warning')}")


def show_text(report: "PlanReport | Estimate | SweepReport | CompareReport", *, as_json: bool) -> None:
    """Print what would become of a source, as JSON or as lines; warnings to stderr."""
    if as_json:
        print_json(report.to_dict())
        return
    click.echo(repr(report))
    for warning in getattr(report, "warnings", ()):
        click.echo(f"isopress: warning: {warning}", err=True)


def print_json(record: Mapping[str, Any]) -> None:
    """Print a record as JSON."""
    click.echo(json.dumps(record, indent=2, allow_nan=False))


def plain_console(width: int) -> Console:
    """Return stdout for tables, `width` wide in files and pipes; names and units are printed as they are, no markup."""
    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=False, emoji=False)


def _table(report: StoreReport) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("variable", no_wrap=True)
    table.add_column("bound or target" if any(isinstance(v.bound, Target) for v in report.variables) else "bound")
    for name in ("max error", "RMSE", "size", "ratio", "MB/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for variable in report.variables:
        if variable.bound is not None or variable.damage:
            table.add_row(*_row(variable))
    rest = [variable for variable in report.variables if variable.bound is None and not variable.damage]
    if rest:
        original, stored = (sum(getattr(v, name) for v in rest) for name in ("original_nbytes", "stored_nbytes"))
        table.add_row(f"{len(rest)} others", "exact", "0", "0", size(stored), ratio_text(original / max(stored, 1)), "")
    return table


def _row(variable: VariableReport) -> list[str]:
    return [
        variable.name,
        bound_text(variable),
        _error(variable, variable.max_error),
        _error(variable, variable.rmse),
        size(variable.stored_nbytes),
        ratio_text(variable.ratio),
        "" if variable.mb_per_s is None else f"{variable.mb_per_s:.1f}",
    ]


def _error(variable: VariableReport, error: float | None) -> str:
    if variable.bound is None:
        return "0" if variable.kept else "-"
    return "-" if error is None else f"{error:.4g}"


def _summary(report: StoreReport) -> str:
    sizes = f"{size(report.original_nbytes)} -> {size(report.stored_nbytes)}"
    text = f"{report.path}: {sizes}, {ratio_text(report.ratio)}"
    if report.models_nbytes:
        text += f" ({size(report.models_nbytes)} of it weights)"
    if report.seconds:
        speed = report.original_nbytes / 1e6 / report.seconds
        text += f", {report.seconds:.1f} s, {speed:.1f} MB/s; MB/s: read, encode, write, read back, compare"
    return text


def _counts(read: Mapping[str, int]) -> str:
    """Return what was read in words: `1 file, 3 groups, 5 variables`."""
    return ", ".join(count(number, what.removesuffix("s")) for what, number in read.items())
