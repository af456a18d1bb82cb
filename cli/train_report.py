"""What a training shows and leaves behind: progress bar, log lines and the model card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from isopress.codec.errors import IsopressError
from isopress.codec.train_pool import Field
from isopress.codec.train_pyramid import Progress as State
from isopress.codec.train_pyramid import TrainConfig
from isopress.format.training_data import hold_out, load_fields


def fields_and_held(data: Path, validation: Path | None) -> tuple[list[Field], list[Field]]:
    """Return training and validation fields, or end with a usage error of one line."""
    try:
        fields = load_fields(data)
        return hold_out(fields) if validation is None else (fields, load_fields(validation))
    except IsopressError as error:
        raise click.UsageError(str(error)) from error


class TrainingReport:
    """Progress bar on a terminal, a line per validation otherwise; `card` writes the model card."""

    def __init__(self, seconds: float) -> None:
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._task = self._bar.add_task("training", total=seconds)
        self._told = 0

    def __enter__(self) -> TrainingReport:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, state: State) -> None:
        text = f"round {state.rounds}  train {state.train_rate:.4f}  best validation {state.best:.4f}"
        self._bar.update(self._task, completed=state.seconds, description=text)
        if len(state.validation) > self._told:
            self._told = len(state.validation)
            seconds, rate = state.validation[-1]
            self._bar.print(f"{seconds:8.0f} s  validation log2(bits per value) {rate:.5f}")

    @staticmethod
    def card(out: Path, fields: list[Field], held: list[Field], config: TrainConfig, state: State) -> None:
        """Write the model card beside the weights."""
        digest = hashlib.sha256(out.read_bytes()).hexdigest()
        lines = [
            f"# {out.stem}",
            "",
            f"* sha256 `{digest}`",
            f"* trained {state.seconds / 60:.0f} minutes, {state.rounds} rounds, {config}",
            f"* validation: mean log2(bits per value) {state.best:.5f}",
            f"* training fields: {_sources(fields)}",
            f"* validation fields: {_sources(held)}",
            "",
        ]
        out.with_suffix(".md").write_text("\n".join(lines))


def _sources(fields: list[Field]) -> str:
    names = sorted({f.name for f in fields})
    return f"{len(fields)} of {len(names)} variables ({', '.join(names)})"
