"""`isopress train`: make weights from your own fields."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def train() -> None:
    """Train weights on a folder of NetCDF fields."""


@train.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="Folder of NetCDF files; the last two axes of a variable are a field.")  # fmt: skip
@click.option("--validation", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Another such folder: chooses the weights, is never learned from. Without it, every tenth "
              "variable of --data is held out.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Weights (safetensors).")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=90.0, show_default=True)
@click.option("--width", type=click.IntRange(8, 256), multiple=True, default=(96, 64), show_default=True,
              help="Of each hidden layer; repeat for more layers.")  # fmt: skip
@click.option("--pool", type=click.IntRange(min=1000), default=6_000_000, show_default=True,
              help="Examples made anew in every round.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside --out.")
def pyramid(
    data: Path,
    validation: Path | None,
    out: Path,
    minutes: float,
    width: tuple[int, ...],
    pool: int,
    threads: int,
    seed: int,
    resume: bool,
) -> None:
    """Train the refinement pyramid."""
    import torch

    from isopress.cli.train_report import TrainingReport, fields_and_held
    from isopress.codec.train_pyramid import TrainConfig
    from isopress.codec.train_pyramid import train as run

    if out.suffix != ".safetensors":
        raise click.UsageError(f"--out must end in .safetensors, got {out.name!r}")
    if out.exists() and not resume:
        raise click.UsageError(f"{out} exists; choose another --out, or --resume")
    torch.set_num_threads(1)  # every phase has a thread of its own; more would only wait for each other
    fields, held = fields_and_held(data, validation)
    config = TrainConfig(minutes=minutes, widths=width, pool_points=pool, threads=threads, seed=seed)
    with TrainingReport(60 * minutes) as report:
        progress = run(fields, held, out, config, resume=resume, report=report)
    report.card(out, fields, held, config, progress)
