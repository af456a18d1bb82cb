"""Parameters of the command line: `--error t2m=0.1`, `--ratio t2m=300` and `--chunk time=24`, and their order."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import click

from isopress.codec.errors import ArgumentError
from isopress.format.error_spec import ErrorSpec, TargetName, parse_error, parse_target

_ORDER = "isopress.order"  # in the context of a command
T = TypeVar("T")


class ErrorParam(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """`[VAR=][MODE:]NUMBER[%][,floor=NUMBER]` or `[VAR=]lossless`, as an ErrorSpec."""

    name = "SPEC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ErrorSpec:
        """Return the spec; fail with the reason when it is not one."""
        try:
            return value if isinstance(value, ErrorSpec) else parse_error(value)
        except ArgumentError as error:
            self.fail(str(error), param, ctx)


class TargetParam(click.ParamType):  # type: ignore[type-arg]
    """`[VAR=]NUMBER`, as an ErrorSpec with a target: a ratio or an RMSE."""

    name = "[VAR=]NUMBER"

    def __init__(self, target: TargetName) -> None:
        self.target = target

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ErrorSpec:
        """Return the spec; fail with the reason when it is not one."""
        try:
            return value if isinstance(value, ErrorSpec) else parse_target(value, self.target)
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


class OrderedCommand(click.Command):
    """A command that knows in which order options were given, also those of different names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, after taking down the order of the options."""
        given = self.make_parser(ctx).parse_args(args=list(args))[2]
        ctx.meta[_ORDER] = [param.name for param in given]
        return super().parse_args(ctx, args)


def in_order(ctx: click.Context, values: Mapping[str, Sequence[T]]) -> list[T]:
    """Return the values of several repeatable options of an `OrderedCommand` as they stand on the command line.

    Parameters
    ----------
    ctx : Context
    values : mapping of str to sequence
        For each option its values.
    """
    left = {name: iter(of_option) for name, of_option in values.items()}
    return [next(left[name]) for name in ctx.meta[_ORDER] if name in left]


ERROR = ErrorParam()
RATIO, RMSE = TargetParam("ratio"), TargetParam("rmse")
CHUNK = ChunkParam()
