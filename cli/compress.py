"""`isopress compress`: a dataset -> a Zarr store whose errors are bounded, or on target, and checked."""

from typing import TYPE_CHECKING

import click

from isopress.cli import endings
from isopress.cli import tables as report
from isopress.cli.params import CHUNK, ERROR, part_of_source, processes
from isopress.cli.progress import progress
from isopress.codec.limits import MAX_EFFORT
from isopress.format.error_spec import ErrorSpec
from isopress.format.presets import DEFAULT_PRESET, PRESETS, Preset
from isopress.format.settings import CONTEXTS

if TYPE_CHECKING:
    from isopress.format.store.plan import ZarrFormat


@click.command()
@click.argument("src", nargs=-1, required=True)
@click.argument("dst")
@click.option(
    "--error",
    "errors",
    type=ERROR,
    multiple=True,
    help="Limit of a variable, or of all: t2m=0.1 (its unit), range:1e-3 or range:0.1% (of max - min), "
    "'tp=pointwise:1%,floor=1e-6', z=lossless, ratio:300 or rmse:0.5 (targets: no bound on single values). VAR may be "
    "a pattern such as 'u*'. Repeatable; the last that names a variable wins.",
)
@click.option(
    "--effort",
    type=click.IntRange(0, MAX_EFFORT),
    default=0,
    show_default=True,
    help="With a target (ratio:, rmse:): how long to look for symbols that cost less; 0 is quickest.",
)
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    default=DEFAULT_PRESET,
    show_default=True,
    help="Physical bounds for all variables that no --error names.",
)
@click.option("--chunk", "chunks", type=CHUNK, multiple=True, help="Chunk size of a dimension; repeatable.")
@click.option(
    "--shard",
    "shards",
    type=CHUNK,
    multiple=True,
    help="Shard size of a dimension, whole chunks; repeatable.",
)
@click.option(
    "--context",
    type=click.Choice(CONTEXTS),
    default="auto",
    show_default=True,
    help="Whether fields of a chunk refer to each other: where that is smaller, never, always.",
)
@part_of_source
@click.option(
    "--model",
    default="default",
    metavar="WEIGHTS",
    help="Of a VAEformer, for the variables that have its channels by name: a name or a sha256.",
)
@click.option("--strict", is_flag=True, help="Make warnings errors.")
@click.option("--zarr-format", type=click.Choice(["2", "3"]), default="3", show_default=True)
@click.option("--embed-models", is_flag=True, help="Put copies of the weights that are needed to read DST into it.")
@processes
@click.option("--resume", is_flag=True, help="Go on with what a run that did not finish has left.")
@click.option("--overwrite", is_flag=True, help="Replace DST, once the new store is complete.")
@click.option("--dry-run", is_flag=True, help="Write nothing: print what would become of each variable, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def compress(
    src: tuple[str, ...],
    dst: str,
    errors: tuple[ErrorSpec, ...],
    effort: int,
    preset: Preset,
    chunks: tuple[tuple[str, int], ...],
    shards: tuple[tuple[str, int], ...],
    context: str,
    variables: tuple[str, ...],
    sel: tuple[tuple[str, str], ...],
    isel: tuple[tuple[str, str], ...],
    model: str,
    strict: bool,
    zarr_format: str,
    embed_models: bool,
    jobs: int,
    scheduler: str | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compress SRC (NetCDF, GRIB, Zarr, zip, references, sample:era5) to the Zarr store DST.

    Several SRC, a pattern or a folder are combined along time or side by side. Float variables keep their bound or meet
    their target, everything else is exact. Every chunk is read back and compared with SRC before DST appears.
    """
    from isopress.format.source.selection import Request  # not for --help
    from isopress.format.store.write import write

    request = Request(src, variables, sel, isel)
    version: ZarrFormat = 3 if zarr_format == "3" else 2
    if dry_run:
        from isopress.format.report.planned import plan_report
        from isopress.format.store.plan import Wishes

        wishes = Wishes(errors, preset, dict(chunks), context, effort, dict(shards), version, model)
        report.show_text(plan_report(request, wishes), as_json=as_json)
        return
    with progress(quiet=as_json) as observer:
        result = write(
            request,
            dst,
            errors=errors,
            preset=preset,
            chunks=dict(chunks),
            shards=dict(shards),
            context=context,
            zarr_format=version,
            effort=effort,
            model=model,
            embed_models=embed_models,
            jobs=jobs,
            scheduler=scheduler,
            resume=resume,
            overwrite=overwrite,
            strict=strict,
            observer=endings.checked(observer),
        )
    report.show(result, as_json=as_json)
