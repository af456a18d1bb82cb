"""`isopress verify`: the exit code says whether a store keeps its promise."""

import click

from isopress.cli import tables as report
from isopress.cli.exit_codes import BROKEN, KEPT


@click.command()
@click.argument("store")
@click.option("--against", "source", required=True, metavar="SRC", help="What STORE was made from.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Number of processes.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
@click.pass_context
def verify(ctx: click.Context, store: str, source: str, jobs: int, as_json: bool) -> None:
    """Decode STORE and compare every value with SRC; exit with 1 when a bound, target or checksum is not kept."""

    from isopress.format.store.verify import verify as check  # not for --help

    result = check(store, source, jobs=jobs)
    report.show(result, as_json=as_json)
    for variable in result.variables:
        if not variable.kept:
            what = "values break the bound"
            if variable.bound and variable.bound.mode == "latent":
                what = "chunks or values break the target"
            reason = variable.damage or f"{variable.violations} {what} or the missing-value mask"
            click.echo(f"isopress: {variable.name}: {reason}", err=True)
    ctx.exit(KEPT if result.kept else BROKEN)
