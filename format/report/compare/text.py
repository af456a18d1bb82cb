"""A comparison as a table of text."""

import math
from html import escape

from isopress.format.report.compare.records import CompareReport, Comparison
from isopress.format.report.html import table
from isopress.format.report.words import ratio_text, size, with_units

HEAD = ("variable", "bound", "max error", "RMSE", "bias", "PSNR", "Pearson", "DSSIM", "power", "KS p", "verdict")


def describe(report: CompareReport) -> str:
    """Return the figures of merit of every variable, one a line, and what was compared."""
    rows = [HEAD, *(figures_row(variable) for variable in report.variables)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join((*lines, "", *summary(report)))


def overview(report: CompareReport) -> str:
    """Return the figures of every variable as HTML, for a notebook."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in summary(report))
    return f"<div>{lines}{table(HEAD, map(figures_row, report.variables))}</div>"


def summary(report: CompareReport) -> list[str]:
    """Return the sizes, what was compared, and what was left out, in sentences."""
    sizes = f"{size(report.original_nbytes)} -> {size(report.stored_nbytes)}, {ratio_text(report.ratio)}"
    lines = [f"{report.store}: {sizes}, against {report.source}"]
    if report.sampled:
        lines.append("sampled: " + "; ".join(sampled_text(v) for v in report.variables if sampled_text(v)))
    else:
        lines.append("every field of every variable with a limit was compared")
    if report.exact:
        lines.append(f"{len(report.exact)} other variables are stored exactly; isopress verify compares every value")
    return [*lines, *report.notes]


def sampled_text(variable: Comparison) -> str:
    """Return how much of a variable was looked at, "" when it was all."""
    parts = [f"{variable.compared} of {variable.fields} fields"] if variable.compared < variable.fields else []
    if variable.window:
        parts.append(f"{variable.window[0]} x {variable.window[1]} values in the middle of each")
    return f"{variable.name} {', '.join(parts)}" if parts else ""


def figures_row(variable: Comparison) -> tuple[str, ...]:
    """Return the figures of a variable as text, in the order of `HEAD`."""
    merit = variable.merit
    pearson, similarity, power, probability = (check_text(check.name, check.value) for check in variable.checks)
    return (
        variable.name,
        variable.limit_text,
        with_units(merit.max_error, variable.units),
        with_units(merit.rmse, variable.units),
        f"{merit.bias:.2g}",
        f"{merit.psnr:.1f} dB" if math.isfinite(merit.psnr) else "exact",
        pearson,
        similarity,
        power,
        probability,
        variable.verdict,
    )


def check_text(name: str, value: float) -> str:
    """Return a figure of merit with as many digits as its threshold needs."""
    if name == "Pearson":
        return f"{value:.8f}"
    if name == "DSSIM":
        return f"{value:.6f}"
    return f"{100 * value:.2g} %" if name == "power" else f"{value:.3g}"
