"""`isopress verify`: the exit code says whether a store keeps its promise."""

import click

from isopress.cli import endings
from isopress.cli import tables as report
from isopress.cli.endings import BROKEN, KEPT
from isopress.cli.params import part_of_source, processes
from isopress.cli.progress import progress


@click.command()
@click.argument("store")
@click.option(
    "--against", "sources", required=True, multiple=True, metavar="SRC", help="What STORE was made from; repeatable."
)
@click.option("--only", multiple=True, metavar="VAR", help="Compare this variable or pattern alone; repeatable.")
@part_of_source
@processes
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
@click.pass_context
def verify(
    ctx: click.Context,
    store: str,
    sources: tuple[str, ...],
    only: tuple[str, ...],
    variables: tuple[str, ...],
    sel: tuple[tuple[str, str], ...],
    isel: tuple[tuple[str, str], ...],
    jobs: int,
    scheduler: str | None,
    as_json: bool,
) -> None:
    """Decode STORE and compare every value with SRC; exit with 1 when a bound, target or checksum is not kept.

    Variables that only one side has, other attributes, coordinates, types and fill values fail too.
    """
    from isopress.format.source.selection import Request  # not for --help
    from isopress.format.store.verify import verify as check

    with progress(quiet=as_json) as observer:
        request = Request(sources, variables, sel, isel)
        observer = endings.checked(observer)
        result = check(store, request, jobs=jobs, scheduler=scheduler, only=only, observer=observer)
    report.show(result, as_json=as_json)
    for variable in result.variables:
        if not variable.kept:
            what = "values break the bound"
            if variable.bound and variable.bound.mode == "latent":
                what = "chunks or values break the target"
            broken = f"{variable.violations} {what} or the missing-value mask" if variable.violations else None
            reasons = [reason for reason in (variable.damage, broken, *variable.differences) if reason]
            click.echo(f"isopress: {variable.name}: {'; '.join(reasons)}", err=True)
    for difference in result.differences:
        click.echo(f"isopress: {difference}", err=True)
    ctx.exit(KEPT if result.kept else BROKEN)
