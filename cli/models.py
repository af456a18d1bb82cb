"""`isopress models`: weights that are installed, that a store needs, that a store carries."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table

from isopress.cli.tables import plain_console
from isopress.format.report.words import size

if TYPE_CHECKING:
    from isopress.codec.models.registry import Weights
    from isopress.format.store.embedded_models import Copy

_PLAIN_WIDTH = 160  # in files and pipes, where there is no terminal to ask
_DIGITS = 16  # of a sha256: as many as name weights without their name

_json_option = click.option("--json", "as_json", is_flag=True, help="Print only JSON.")


@click.group()
def models() -> None:
    """Weights: list and show those installed, put them into stores, take them out."""


@models.command("list")
@_json_option
def list_models(as_json: bool) -> None:
    """List all weights that can be found, in the order in which they are looked at."""
    from isopress.codec.models.registry import folders, installed

    found = installed()
    if as_json:
        _print_json({"folders": [str(folder) for folder in folders()], "models": [_record(w) for w in found]})
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("name", "kind", "sha256", "size", "where"):
        table.add_column(column, justify="right" if column == "size" else "left", no_wrap=column != "where")
    for weights in found:
        where = str(weights.path.parent)
        table.add_row(weights.name, weights.kind, weights.sha256[:_DIGITS], size(weights.nbytes), where)
    plain_console(_PLAIN_WIDTH).print(table)


@models.command()
@click.argument("name")
@_json_option
def show(name: str, as_json: bool) -> None:
    """Show what is known of the weights NAME (a name, 16 or more digits of a sha256, or a file)."""
    from isopress.format.store.embedded_models import card, look_up

    weights = look_up(name)
    text = card(weights)
    if as_json:
        _print_json(_record(weights) | {"metadata": dict(weights.metadata), "card": text})
        return
    for key, value in {**_record(weights), **weights.metadata}.items():
        click.echo(f"{key}: {value}")
    if text:
        click.echo(f"\n{text.rstrip()}")


@models.command()
@click.argument("store")
@_json_option
def embed(store: str, as_json: bool) -> None:
    """Copy the weights that STORE needs into it (_models/), so that they travel with it."""
    from isopress.format.store.embedded_models import embed as run

    copies = run(store)
    if not copies and not as_json:
        click.echo(f"{store}: needs no weights")
    _show_copies(copies, "copied to", "there already:", as_json=as_json)


@models.command()
@click.argument("source", metavar="STORE_OR_FILE")
@_json_option
def install(source: str, as_json: bool) -> None:
    """Copy the weights that a store carries, or those in a .safetensors file, to where you can read with them."""
    from isopress.format.store.embedded_models import install as run

    _show_copies(run(source), "installed as", "known already:", as_json=as_json)


@models.command("import")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--config", default="cra5-268", show_default=True, metavar="NAME",
              help="Geometry and channels: cra5-268, or a TOML file.")  # fmt: skip
@click.option("--statistics", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="JSON file of CRA5 with mean and deviation of its channels; repeatable.")  # fmt: skip
def import_checkpoint(checkpoint: Path, config: str, statistics: tuple[Path, ...]) -> None:
    """Install CRA5's own CHECKPOINT (such as cra5_268v_300k.pth), so that its .bin files can be read."""
    from isopress.codec.models.registry import SUFFIX, describe, user_folder
    from isopress.codec.vaeformer.checkpoint import import_checkpoint as run
    from isopress.codec.vaeformer.config import spec_of

    target = user_folder() / (checkpoint.stem + SUFFIX)
    if target.exists():
        raise click.UsageError(f"{target} exists; remove it, or give the checkpoint another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    try:
        run(checkpoint, spec_of(config), statistics, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    weights = describe(target)
    click.echo(f"{weights.sha256[:_DIGITS]} {weights.kind}: imported as {weights.path}")
    click.echo(f"made of a file with sha256 {weights.metadata['imported_from_sha256']}")


def _show_copies(copies: "list[Copy]", done: str, known: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"models": [_record(copy.weights) | {"new": copy.new} for copy in copies]})
        return
    for copy in copies:
        weights = copy.weights
        click.echo(f"{weights.sha256[:_DIGITS]} {weights.kind}: {done if copy.new else known} {weights.path}")


def _record(weights: "Weights") -> dict[str, Any]:
    return {
        "name": weights.name,
        "kind": weights.kind,
        "sha256": weights.sha256,
        "nbytes": weights.nbytes,
        "path": str(weights.path),
    }


def _print_json(record: dict[str, Any]) -> None:
    click.echo(json.dumps(record, indent=2, allow_nan=False))
