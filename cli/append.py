"""`isopress append`: more of a dataset behind the end of its store."""

from typing import Any

import click

from isopress.cli import endings
from isopress.cli import tables as report
from isopress.cli.params import part_of_source, processes
from isopress.cli.progress import progress


@click.command()
@click.argument("src", nargs=-1, required=True)
@click.argument("store")
@click.option("--dim", help="Dimension to append along; without it, the one that is a time.")
@part_of_source
@click.option(
    "--pieces",
    is_flag=True,
    help="Lay what is new over a last chunk that is not full where SRC lacks its beginning; `isopress compact` makes a "
    "whole chunk of that.",
)
@processes
@click.option("--resume", is_flag=True, help="Go on with what an append of SRC that did not finish has left.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def append(
    src: tuple[str, ...],
    store: str,
    dim: str | None,
    variables: tuple[str, ...],
    sel: tuple[tuple[str, str], ...],
    isel: tuple[tuple[str, str], ...],
    pieces: bool,
    jobs: int,
    scheduler: str | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Write what SRC has behind the end of STORE, with the limits and chunks of STORE.

    Only new chunks are written, and checked. The last chunk, if it is not full, is made again from SRC, never from
    decoded values. Readers see the old length until all is written.
    """
    from isopress.format.source.selection import Request  # not for --help
    from isopress.format.store.append import append as extend

    with progress(quiet=as_json) as observer:
        request = Request(src, variables, sel, isel)
        observer = endings.checked(observer)
        how: dict[str, Any] = {"jobs": jobs, "scheduler": scheduler, "resume": resume, "observer": observer}
        result = extend(request, store, dim=dim, pieces=pieces, **how)
    report.show(result, as_json=as_json)
