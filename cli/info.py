"""`isopress info`: what a store holds and how well it keeps it."""

import click

from isopress.cli import tables as report


@click.command()
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def info(store: str, as_json: bool) -> None:
    """Show shape, chunks, bound, achieved errors, sizes and models of each variable of STORE."""
    from isopress.format.report.info import read_report  # not for --help

    report.show(read_report(store), as_json=as_json, layout=True)
