"""`isopress compare`: a source and its store, side by side; what a scientist looks at before trusting a store."""

from pathlib import Path

import click

from isopress.cli import tables as report
from isopress.cli.endings import BROKEN, KEPT
from isopress.cli.params import part_of_source


@click.command()
@click.argument("src", nargs=-1, required=True)
@click.argument("store")
@click.option("--report", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write one HTML page with all.")
@click.option("--png", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write the pictures as files.")
@click.option(
    "--fields", type=click.IntRange(min=1), default=12, show_default=True, help="Of each variable, to compare."
)
@part_of_source
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
@click.pass_context
def compare(
    ctx: click.Context,
    src: tuple[str, ...],
    store: str,
    page: Path | None,
    folder: Path | None,
    fields: int,
    variables: tuple[str, ...],
    sel: tuple[tuple[str, str], ...],
    isel: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """Compare fields of STORE with SRC, which it was made of: errors, figures of merit, spectra, maps, derived fields.

    Exits with 1 when a value that was looked at breaks its bound; `isopress verify` looks at all.
    """
    from isopress.format.report.compare.compare import compare as look  # not for --help
    from isopress.format.source.selection import Request

    found = look(Request(src, variables, sel, isel), store, fields=fields)
    if page is not None:
        page.write_text(found.to_html(), encoding="utf-8")
    if folder is not None:
        found.save_pictures(folder)
    report.show_text(found, as_json=as_json)
    ctx.exit(KEPT if found.kept else BROKEN)
