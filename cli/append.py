"""`isopress append`: more of a dataset behind the end of its store."""

import click

from isopress.cli import interrupts
from isopress.cli import tables as report
from isopress.cli.params import part_of_source, processes
from isopress.cli.progress import progress


@click.command()
@click.argument("src", nargs=-1, required=True)
@click.argument("store")
@click.option("--dim", help="Dimension to append along; without it, the one that is a time.")
@part_of_source
@processes
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def append(
    src: tuple[str, ...],
    store: str,
    dim: str | None,
    variables: tuple[str, ...],
    sel: tuple[tuple[str, str], ...],
    isel: tuple[tuple[str, str], ...],
    jobs: int,
    scheduler: str | None,
    as_json: bool,
) -> None:
    """Write what SRC has behind the end of STORE, with the limits and chunks of STORE.

    Only new chunks are written, and checked. The last chunk, if it is not full, is made again from SRC, never from
    decoded values. Readers see the old length until all is written.
    """
    from isopress.format.source.request import Request  # not for --help
    from isopress.format.store.append import append as extend

    with progress(quiet=as_json) as observer:
        request = Request(src, variables, sel, isel)
        observer = interrupts.checked(observer)
        result = extend(request, store, dim=dim, jobs=jobs, scheduler=scheduler, observer=observer)
    report.show(result, as_json=as_json)
