"""Reports as HTML fragments, for notebooks."""

from collections.abc import Iterable
from html import escape

from isopress.format.report.records import StoreReport
from isopress.format.report.text import ends_text, heading, layout_text, promise_text, sizes_text


def store_html(report: StoreReport) -> str:
    """Return a store as two tables: its dimensions, and its variables with bounds, errors and sizes."""
    by_name = {variable.name: variable for variable in report.variables}
    dimensions = ((dim, str(length), ends_text(by_name.get(dim))) for dim, length in report.sizes.items())
    variables = (
        (
            f"{variable.name} ({', '.join(variable.dims)})",
            variable.dtype,
            variable.long_name,
            "exact" if variable.bound is None else promise_text(variable),
            layout_text(variable),
        )
        for variable in report.variables
    )
    return "".join(
        (
            f"<div><p><b>{escape(heading(report))}</b><br>{escape(sizes_text(report))}</p>",
            table(("dimension", "length", "values"), dimensions),
            table(("variable", "type", "name", "bound and errors", "layout and size"), variables),
            "</div>",
        )
    )


def table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of text; nothing in it is taken for markup."""
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    return f'<td style="text-align:left">{escape(text)}</td>'
