"""`isopress estimate`: what compressing a source will give and take, before it is done."""

from pathlib import Path

import click

from isopress.cli import tables as report
from isopress.cli.params import CHUNK, ERROR, part_of_source
from isopress.codec.limits import MAX_EFFORT
from isopress.format.error_spec import ErrorSpec
from isopress.format.presets import DEFAULT_PRESET, PRESETS, Preset
from isopress.format.settings import CONTEXTS


@click.command()
@click.argument("src", nargs=-1, required=True)
@click.option(
    "--error", "errors", type=ERROR, multiple=True, help="Limit, as `isopress compress` takes it; repeatable."
)
@click.option("--effort", type=click.IntRange(0, MAX_EFFORT), default=0, show_default=True, help="Of targets.")
@click.option("--preset", type=click.Choice(PRESETS), default=DEFAULT_PRESET, show_default=True, help="Of all others.")
@click.option("--chunk", "chunks", type=CHUNK, multiple=True, help="Chunk size of a dimension; repeatable.")
@click.option("--context", type=click.Choice(CONTEXTS), default="auto", show_default=True, help="As of compress.")
@part_of_source
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes it will have.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=10, show_default=True, help="To sample."
)
@click.option("--sweep", is_flag=True, help="Instead: what a dozen bounds of each variable would give.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="With --sweep: draw it, .png or .html.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def estimate(
    src: tuple[str, ...],
    errors: tuple[ErrorSpec, ...],
    effort: int,
    preset: Preset,
    chunks: tuple[tuple[str, int], ...],
    context: str,
    variables: tuple[str, ...],
    sel: tuple[tuple[str, str], ...],
    isel: tuple[tuple[str, str], ...],
    jobs: int,
    seconds: float,
    sweep: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Predict bytes, ratio, RMSE and time of compressing SRC, from samples that are coded for real.

    Every figure has an interval that holds it nine times of ten. Times are of cores like those of this machine.
    """
    from isopress.format.report.estimate import estimate as predict  # not for --help
    from isopress.format.source.selection import Request
    from isopress.format.store.plan import Wishes

    wishes = Wishes(errors, preset, dict(chunks), context, effort)
    if plot is not None and not sweep:
        raise click.UsageError("--plot draws what --sweep finds: give both")
    if sweep:
        from isopress.format.report.sweep import sweep as vary

        varied = vary(Request(src, variables, sel, isel), wishes, seconds=seconds)
        if plot is not None:
            varied.save_plot(plot)
        report.show_text(varied, as_json=as_json)
        return
    found = predict(Request(src, variables, sel, isel), wishes, jobs=jobs, seconds=seconds)
    report.show_text(found, as_json=as_json)
