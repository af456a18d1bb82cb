"""`isopress train`: make weights from your own fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from isopress.codec.errors import IsopressError

if TYPE_CHECKING:
    from isopress.codec.training.pyramid_pool import Field
    from isopress.codec.training.vaeformer_channels import ChannelTraining, Windows
    from isopress.codec.vaeformer.config import ModelSpec

F = TypeVar("F", bound=Callable[..., None])

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--data", type=_FOLDER, required=True,
                 help="Folder of NetCDF files; the last two axes of a variable are a field."),
    click.option("--validation", type=_FOLDER,
                 help="Another such folder: chooses the weights, is never learned from. Without it, every tenth "
                 "variable of --data is held out."),
    click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True,
                 help="Weights (safetensors); a model card (.md) and the validation curve (.png) lie beside them."),
    click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--resume", is_flag=True, help="Go on from the checkpoint beside --out."),
)  # fmt: skip
_MINUTES = click.FloatRange(min=0, min_open=True)


def _training(command: F) -> F:
    """Add the options that all trainings have."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def train() -> None:
    """Train weights on a folder of NetCDF fields."""


@train.command()
@_training
@click.option("--minutes", type=_MINUTES, default=90.0, show_default=True)
@click.option("--width", type=click.IntRange(8, 256), multiple=True, default=(96, 64), show_default=True,
              help="Of each hidden layer; repeat for more layers.")  # fmt: skip
@click.option(
    "--pool",
    type=click.IntRange(min=1000),
    default=6_000_000,
    show_default=True,
    help="Examples made anew in every round; validations have a third as many, with --init a sixth.",
)
@click.option("--init", metavar="WEIGHTS",
              help="Weights, a name, a sha256 or a file, that stay as they are but for the two finest levels: these "
              "get small networks, pruned from theirs (of fixed widths).")  # fmt: skip
def pyramid(
    data: Path,
    validation: Path | None,
    out: Path,
    threads: int,
    seed: int,
    resume: bool,
    minutes: float,
    width: tuple[int, ...],
    pool: int,
    init: str | None,
) -> None:
    """Train the refinement pyramid."""
    import torch

    from isopress.cli.train_report import TrainingReport, fields_and_held
    from isopress.codec.training import pyramid, pyramid_finest

    _check_out(out, resume)
    start = None if init is None else _weights(init, "pyramid", "--init ")
    torch.set_num_threads(1)  # every phase has a thread of its own; more would only wait for each other
    fields, held = fields_and_held(data, validation)
    config: pyramid.TrainConfig | pyramid_finest.FinestConfig
    with TrainingReport(60 * minutes, "mean log2(bits per value)") as report:
        if start is None:
            config = pyramid.TrainConfig(
                minutes, widths=width, pool_points=pool, validation_points=pool // 3, threads=threads, seed=seed
            )
            progress = pyramid.train(fields, held, out, config, resume=resume, report=report)
        else:
            config = pyramid_finest.FinestConfig(
                minutes, pool_points=pool, validation_points=pool // 6, threads=threads, seed=seed
            )
            progress = pyramid_finest.train(fields, held, start, out, config, resume=resume, report=report)
    report.leave(out, fields, held, config, progress)


@train.command()
@click.argument("weights", nargs=-1, required=True)
@click.option("--data", type=_FOLDER, required=True, help="Folder of NetCDF files that were not learned from.")
@click.option("--points", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Values to code.")
def score(weights: tuple[str, ...], data: Path, points: int) -> None:
    """Print what WEIGHTS of the pyramid cost by level and phase, the first ones in bits a value, others as parts of
    them."""
    from isopress.codec.bounded.weights import parse_pyramid
    from isopress.codec.training.pyramid_score import score as run
    from isopress.format.source.training_data import load_fields

    paths = [_weights(name, "pyramid") for name in weights]
    costs = run([parse_pyramid(path.stem, path.read_bytes()) for path in paths], load_fields(data), points)
    click.echo("\t".join(("level", "phase", "values", *weights)))
    for key, first in sorted(costs[0].items()):
        parts = [f"{cost[key].bits / first.bits:.4f}" for cost in costs[1:]]
        click.echo("\t".join((str(key[0]), key[1], str(first.points), f"{first.bits / first.points:.4f}", *parts)))
    sums = [sum(cost.bits for cost in of.values()) for of in costs]
    values = sum(cost.points for cost in costs[0].values())
    parts = [f"{other / sums[0]:.4f}" for other in sums[1:]]
    click.echo("\t".join(("all", "", str(values), f"{sums[0] / values:.4f}", *parts)))


@train.command()
@_training
@click.option("--config", "name", default="small", show_default=True, metavar="NAME", help="Size of the model.")
@click.option("--minutes", type=_MINUTES, help="Of wall time; what the config says if left out.")
@click.option("--init", metavar="WEIGHTS",
              help="Weights to start from and to fine-tune on your own data: a name, a sha256 or a file.")  # fmt: skip
def latent(
    data: Path,
    validation: Path | None,
    out: Path,
    threads: int,
    seed: int,
    resume: bool,
    name: str,
    minutes: float | None,
    init: str | None,
) -> None:
    """Train the latent codec: contexts and synthesis transformer of the targets ratio and rmse."""
    import torch

    from isopress.cli.train_report import TrainingReport, fields_and_held
    from isopress.codec.training.latent import CONFIGS, SCORE
    from isopress.codec.training.latent import train as run

    _check_out(out, resume)
    if name not in CONFIGS:
        raise click.UsageError(f"--config {name!r} is unknown; there are: {', '.join(CONFIGS)}")
    start = None if init is None else _weights(init, "latent", "--init ")
    torch.set_num_threads(threads)
    fields, held = fields_and_held(data, validation)
    config = replace(CONFIGS[name], threads=threads, seed=seed)
    config = config if minutes is None else replace(config, minutes=minutes)
    with TrainingReport(60 * config.minutes, SCORE) as report:
        progress = run(fields, held, out, config, resume=resume, init=start, report=report)
    report.leave(out, fields, held, config, progress)


@train.command()
@_training
@click.option("--config", metavar="NAME|FILE.toml",
              help="small-4, or channels, networks and training of a model; see codec/training. Without it `small` is "
              "trained, for single fields of any variable.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), help="Of descent; what the config says if left out.")
@click.option("--device", default="cpu", show_default=True, help="What torch calls it, such as cuda.")
@click.option("--dry-run", is_flag=True, help="Take some steps; print memory, speed and days.")
def vaeformer(
    data: Path,
    validation: Path | None,
    out: Path,
    threads: int,
    seed: int,
    resume: bool,
    config: str | None,
    steps: int | None,
    device: str,
    dry_run: bool,
) -> None:
    """Train the patch VAEformer, after the CRA5 paper: of single fields, or of the channels in a --config.

    Started by torchrun, its processes train together: the config decides the batch of each.
    """
    import torch

    from isopress.cli.train_report import TrainingReport
    from isopress.codec.training.loop import together
    from isopress.codec.training.vaeformer_channels import SCORE, trial
    from isopress.codec.training.vaeformer_channels import train as run

    _check_out(out, resume)
    torch.set_num_threads(threads)
    job = _single_fields(data, validation, seed) if config is None else _channels(config, data, validation, seed)
    training = job.training if steps is None else replace(job.training, steps=steps)
    if dry_run:
        for name, text in trial(job.spec, job.windows, training, device).items():
            click.echo(f"{name}: {text}")
        return
    with together(device) as (rank, place), TrainingReport(None, SCORE, silent=rank > 0) as report:
        progress = run(job.spec, job.windows, job.held, out, training, device=place, resume=resume, report=report)
        if rank == 0:
            report.leave(out, *job.sources, (job.spec, training), progress)


@dataclass(frozen=True)
class _Job:
    """A training of a VAEformer: what is trained, on what, and what the model card says of that."""

    spec: ModelSpec
    training: ChannelTraining
    windows: Windows
    held: Windows
    sources: tuple[list[Field] | str, list[Field] | str]


def _single_fields(data: Path, validation: Path | None, seed: int) -> _Job:
    from isopress.cli.train_report import fields_and_held
    from isopress.codec.training import vaeformer_channels
    from isopress.codec.training.field_windows import FieldWindows

    fields, held = fields_and_held(data, validation)
    training = replace(vaeformer_channels.SINGLE_FIELDS, seed=seed)
    return _Job(vaeformer_channels.SMALL, training, FieldWindows(fields), FieldWindows(held), (fields, held))


def _channels(config: str, data: Path, validation: Path | None, seed: int) -> _Job:
    from isopress.codec.training.vaeformer_channels import ChannelTraining
    from isopress.codec.vaeformer.config import spec_of
    from isopress.format.source.training_data import HELD, StoreWindows

    try:
        spec = spec_of(config)
        training = ChannelTraining(**{"seed": seed, **spec.training})
        if not training.measured:
            return _fields_by_name(spec, training, data, validation)
        windows = StoreWindows(data, spec.channels, (0, 1 if validation else 1 - HELD))
        held = StoreWindows(validation or data, spec.channels, (0 if validation else 1 - HELD, 1))
    except TypeError as error:
        raise click.UsageError(f"{config}: table training: {error}") from error
    except IsopressError as error:
        raise click.UsageError(str(error)) from error
    sources = data.name, validation.name if validation else f"the last tenth of {data.name}"
    return _Job(spec, training, windows, held, sources)


def _fields_by_name(spec: ModelSpec, training: ChannelTraining, data: Path, validation: Path | None) -> _Job:
    """Return a training on the channels of many sources, each field with mean 0 and deviation 1."""
    from isopress.codec.training.field_windows import NamedWindows
    from isopress.format.source.training_data import load_fields

    if validation is None:
        raise click.UsageError("weights of fields in any unit (measured = false) need --validation: other sources")
    fields, held = load_fields(data), load_fields(validation)
    try:
        windows, others = (NamedWindows(found, [name for name, _ in spec.channels]) for found in (fields, held))
    except ValueError as error:
        raise click.UsageError(f"{data} or {validation}: {error}") from error
    return _Job(spec, training, windows, others, (fields, held))


def _check_out(out: Path, resume: bool) -> None:
    if out.suffix != ".safetensors":
        raise click.UsageError(f"--out must end in .safetensors, got {out.name!r}")
    if out.exists() and not resume:
        raise click.UsageError(f"{out} exists; choose another --out, or --resume")


def _weights(name: str, kind: str, option: str = "") -> Path:
    from isopress.format.store.embedded_models import look_up

    try:
        weights = look_up(name)
    except IsopressError as error:
        raise click.UsageError(f"{option.strip() or 'WEIGHTS'}: {error}") from error
    if weights.kind != kind:
        raise click.UsageError(f"{option}{name}: weights of kind {weights.kind}, but {kind} is needed")
    return weights.path
