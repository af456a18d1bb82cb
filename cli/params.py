"""Types of options: `--error t2m=0.1` and `--chunk time=24`."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from isopress.codec.errors import ArgumentError
from isopress.format.error_spec import ErrorSpec, parse_error

F = TypeVar("F", bound=Callable[..., Any])


class ErrorParam(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """`[VAR=]LIMIT`, as an ErrorSpec; `error_spec.py` has the grammar."""

    name = "[VAR=]LIMIT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ErrorSpec:
        """Return the spec; fail with the reason when it is not one."""
        try:
            return value if isinstance(value, ErrorSpec) else parse_error(value)
        except ArgumentError as error:
            self.fail(str(error), param, ctx)


class ChunkParam(click.ParamType):  # type: ignore[type-arg]
    """`DIM=N`, as (name, size)."""

    name = "DIM=N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return name and size; fail when the size is not a number."""
        dim, separator, size = str(value).rpartition("=")
        if not (separator and dim and size.isdecimal()):
            self.fail(f"{value!r} is not DIM=N, such as time=24", param, ctx)
        return dim, int(size)


class PlaceParam(click.ParamType):  # type: ignore[type-arg]
    """`DIM=PLACES`, as (name, text); `selection.py` has the grammar."""

    name = "DIM=PLACES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and text; fail when one of them is missing."""
        dim, separator, places = str(value).partition("=")
        if not (separator and dim and places):
            self.fail(f"{value!r} is not DIM=PLACES, such as time=2020-01/2020-03", param, ctx)
        return dim, places


def part_of_source(command: F) -> F:
    """Add the options that ask for a part of the source."""
    for option in reversed(_PART):
        command = option(command)
    return command


def processes(command: F) -> F:
    """Add the options that say who does the work."""
    for option in reversed(_PROCESSES):
        command = option(command)
    return command


ERROR = ErrorParam()
CHUNK = ChunkParam()
PLACE = PlaceParam()
_PART = (
    click.option("--var", "variables", multiple=True, help="Take this variable or pattern alone; repeatable."),
    click.option(
        "--sel", type=PLACE, multiple=True, help="Take these labels: time=2020-01/2020-03, level=500,850. Repeatable."
    ),
    click.option("--isel", type=PLACE, multiple=True, help="Take these places: time=0:24, lat=::2. Repeatable."),
)
_PROCESSES = (
    click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Number of processes."),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Let the workers of a dask cluster do the work: tcp://HOST:PORT of its scheduler, or `existing`, the one "
        "that dask's configuration names.",
    ),
)
