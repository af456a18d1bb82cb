"""Progress of long runs: a bar on a terminal, else a line every few seconds; both from the first second on."""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from isopress.format.report.words import ratio_text
from isopress.format.store.progress import Observer, Progress

_LINE_SECONDS = 5.0  # between lines, where there is no terminal to draw on
_PATIENCE_SECONDS = 0.7  # before the first line
_WINDOW_SECONDS = 60.0  # that the speed is of


@contextmanager
def progress(*, quiet: bool) -> Iterator[Observer]:
    """Give an observer that shows share, MB/s, ratio and time left on stderr; nothing when `quiet`."""
    if quiet:
        yield lambda step: None
    elif sys.stderr.isatty():
        columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn()
        figures = TextColumn("{task.fields[figures]}", markup=False)
        with Bar(*columns, figures, console=Console(stderr=True), transient=True) as bar:
            yield _Drawn(bar)
    else:
        lines = _Lines()
        try:
            yield lines
        finally:
            lines.end()


class Speed:
    """How quick a phase is, over the last minute; what earlier runs have done does not count."""

    def __init__(self) -> None:
        self._phase = ""
        self._seen: deque[tuple[float, int]] = deque()

    def figures(self, step: Progress, now: float) -> str:
        """Return speed, ratio and time left in words, after one more step."""
        if step.phase != self._phase:
            self._phase, self._seen = step.phase, deque([(now, 0)])
        done = step.done_nbytes - step.kept_nbytes
        while len(self._seen) > 1 and now - self._seen[1][0] > _WINDOW_SECONDS:
            self._seen.popleft()
        begin, before = self._seen[0]
        self._seen.append((now, done))
        known = done > before and now > begin
        speed = (done - before) / (now - begin) if known else 0.0
        texts = [f"{speed / 1e6:.1f} MB/s"] if known else []
        if step.stored_nbytes:
            texts.append(ratio_text(step.done_nbytes / step.stored_nbytes))
        if known and step.done_nbytes < step.total_nbytes:
            texts.append(f"{_duration((step.total_nbytes - step.done_nbytes) / speed)} left")
        return ", ".join(texts)


class _Drawn:
    """An observer that draws one bar per phase."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._phase, self._speed = bar, "", Speed()
        self._task = bar.add_task("open", total=None, figures="")

    def __call__(self, step: Progress) -> None:
        if step.phase != self._phase:
            self._phase = step.phase
            self._bar.reset(self._task, total=step.total_nbytes or None)
        self._bar.update(
            self._task,
            completed=step.done_nbytes,
            description=f"{step.phase} {step.variable}",
            figures=self._speed.figures(step, time.monotonic()),
        )


class _Lines:
    """An observer that prints a line every few seconds, and at the beginning and end of a phase.

    At first it waits for a moment: what is refused at once needs no more lines than the reason.
    """

    def __init__(self) -> None:
        self._phase, self._last, self._speed = "", 0.0, Speed()
        self._began = time.monotonic()
        self._waiting: threading.Timer | None = None

    def end(self) -> None:
        """Print no more."""
        if self._waiting:
            self._waiting.cancel()

    def __call__(self, step: Progress) -> None:
        self.end()
        now = time.monotonic()
        figures = self._speed.figures(step, now)
        done = 0 < step.total_nbytes <= step.done_nbytes
        if step.phase == self._phase and not done and now - self._last < _LINE_SECONDS:
            return
        share = f"{step.done_nbytes / step.total_nbytes:.0%}" if step.total_nbytes else ""
        texts = ", ".join(filter(None, (share, figures)))
        line = f"{step.phase} {step.variable}" + (f": {texts}" if texts else "")
        if not done and now - self._began < _PATIENCE_SECONDS:
            self._waiting = threading.Timer(_PATIENCE_SECONDS, click.echo, (line,), {"err": True})
            self._waiting.daemon = True
            self._waiting.start()
            return
        self._phase, self._last = step.phase, now
        click.echo(line, err=True)


def _duration(seconds: float) -> str:
    """Return a time for people: `40 s`, `12 min`, `3.5 h`, `2.1 d`."""
    for unit, size in (("s", 60.0), ("min", 60.0), ("h", 48.0)):
        if seconds < size:
            return f"{seconds:.1f} {unit}" if unit == "h" else f"{seconds:.0f} {unit}"
        seconds /= 60
    return f"{seconds * 60 / 60 / 24:.1f} d"
