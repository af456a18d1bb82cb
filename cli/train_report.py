"""What a training shows and leaves behind: progress bar, log lines, the model card and the validation curve."""

from __future__ import annotations

import hashlib
import math
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Protocol

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from isopress.codec.errors import IsopressError
from isopress.codec.training.pyramid_pool import Field
from isopress.format.source.training_data import hold_out, load_fields


class State(Protocol):
    """What every training reports: seconds so far, and (seconds, score) of each validation; less is better."""

    seconds: float
    validation: list[tuple[float, float]]


def fields_and_held(data: Path, validation: Path | None) -> tuple[list[Field], list[Field]]:
    """Return training and validation fields, or end with a usage error of one line."""
    try:
        fields = load_fields(data)
        return hold_out(fields) if validation is None else (fields, load_fields(validation))
    except IsopressError as error:
        raise click.UsageError(str(error)) from error


class TrainingReport:
    """Progress bar on a terminal, a line per validation otherwise; `leave` writes what stays.

    Parameters
    ----------
    seconds : float
        How long the training is to take; None if it counts steps instead.
    score : str
        What its validation measures.
    silent : bool
        Whether nothing is shown: of several processes that train together one speaks.
    """

    def __init__(self, seconds: float | None, score: str, *, silent: bool = False) -> None:
        self._score, self._silent = score, silent
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._task = self._bar.add_task("training", total=seconds)
        self._told = 0

    def __enter__(self) -> TrainingReport:
        if not self._silent:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, state: State) -> None:
        if self._silent:
            return
        text = f"{_counts(state)}  best validation {_best(state):.4f}"
        self._bar.update(self._task, completed=state.seconds, description=text)
        if len(state.validation) > self._told:
            self._told = len(state.validation)
            seconds, score = state.validation[-1]
            self._bar.print(f"{seconds:8.0f} s  validation {self._score} {score:.5f}")

    def leave(
        self, out: Path, fields: list[Field] | str, held: list[Field] | str, config: object, state: State
    ) -> None:
        """Write the model card and, with matplotlib, the validation curve beside the weights."""
        self._card(out, fields, held, config, state)
        if find_spec("matplotlib") is None:
            click.echo("no validation curve is drawn without matplotlib; pip install 'isopress[report]'", err=True)
        else:
            self._curve(out.with_suffix(".png"), state)

    def _card(
        self, out: Path, fields: list[Field] | str, held: list[Field] | str, config: object, state: State
    ) -> None:
        digest = hashlib.sha256(out.read_bytes()).hexdigest()
        lines = [
            f"# {out.stem}",
            "",
            f"* sha256 `{digest}`",
            f"* trained {state.seconds / 60:.0f} minutes, {_counts(state)}, {config}",
            f"* validation: {self._score} {_best(state):.5f}",
            f"* training fields: {_sources(fields)}",
            f"* validation fields: {_sources(held)}",
            "",
        ]
        out.with_suffix(".md").write_text("\n".join(lines))

    def _curve(self, path: Path, state: State) -> None:
        from matplotlib.figure import Figure  # the window-less part: pyplot would look for a screen

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([seconds / 60 for seconds, _ in state.validation], [score for _, score in state.validation], ".-")
        axes.set(xlabel="minutes", ylabel=f"validation: {self._score}", title=path.stem)
        axes.grid(alpha=0.3)
        figure.savefig(path, dpi=150)


def _best(state: State) -> float:
    return min((score for _, score in state.validation), default=math.inf)


def _counts(state: State) -> str:
    """Return what else a state counts, in words: `rounds 12, train rate 1.02`."""
    numbers = {name: value for name, value in vars(state).items() if isinstance(value, (int, float))}
    return ", ".join(f"{name.replace('_', ' ')} {value:.5g}" for name, value in numbers.items() if name != "seconds")


def _sources(fields: list[Field] | str) -> str:
    if isinstance(fields, str):
        return fields
    names = sorted({f.name for f in fields})
    return f"{len(fields)} of {len(names)} variables ({', '.join(names)})"
