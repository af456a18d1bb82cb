"""`isopress decompress`: a store -> NetCDF or plain Zarr."""

import click

from isopress.cli import endings
from isopress.cli.progress import progress


@click.command()
@click.argument("store")
@click.argument("out")
@click.option("--overwrite", is_flag=True, help="Replace OUT, once the new one is complete.")
def decompress(store: str, out: str, overwrite: bool) -> None:
    """Write the values of STORE to OUT, a .nc file or a .zarr store that needs no isopress."""
    from isopress.format.store.restore import restore  # not for --help

    with progress(quiet=False) as observer:
        restore(store, out, overwrite=overwrite, observer=endings.checked(observer))
    click.echo(f"{out}: written", err=True)
