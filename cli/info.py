"""`isopress info`: what a store holds and how well it keeps it."""

import click

from isopress.cli import tables as report


@click.command()
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def info(store: str, as_json: bool) -> None:
    """Show dimensions, coordinates and variables of STORE: bounds, achieved errors, chunks, sizes and models."""
    from isopress.format.report.info import read_report  # not for --help
    from isopress.format.report.text import describe

    found = read_report(store)
    if as_json:
        report.print_json(found.to_dict())
    else:
        click.echo(describe(found))
