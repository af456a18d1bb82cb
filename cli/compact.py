"""`isopress compact`: chunks that were written in pieces become whole ones, from the source."""

import click

from isopress.cli import endings
from isopress.cli import tables as report
from isopress.cli.params import part_of_source, processes
from isopress.cli.progress import progress


@click.command()
@click.argument("store")
@click.argument("src", nargs=-1, required=True)
@click.option("--dim", help="Dimension of which SRC may have a part; without it, the one that is a time.")
@part_of_source
@processes
@click.option("--resume", is_flag=True, help="Go on with what a run that did not finish has left.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def compact(
    store: str,
    src: tuple[str, ...],
    dim: str | None,
    variables: tuple[str, ...],
    sel: tuple[tuple[str, str], ...],
    isel: tuple[tuple[str, str], ...],
    jobs: int,
    scheduler: str | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Make chunks of STORE that were written in pieces again from SRC, smaller and quicker to read.

    Pieces are what `append --pieces` and writes of xarray into a part of a chunk leave. No value is coded from what
    was decoded: chunks of which SRC has only a part stay as they are, and are named.
    """
    from isopress.format.source.selection import Request  # not for --help
    from isopress.format.store.compact import compact as merge

    with progress(quiet=as_json) as observer:
        request = Request(src, variables, sel, isel)
        observer = endings.checked(observer)
        result = merge(store, request, dim=dim, jobs=jobs, scheduler=scheduler, resume=resume, observer=observer)
    report.show(result, as_json=as_json)
