"""Types of options: `--error t2m=0.1` and `--chunk time=24`."""

from typing import Any

import click

from isopress.codec.errors import ArgumentError
from isopress.format.error_spec import ErrorSpec, parse_error


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


ERROR = ErrorParam()
CHUNK = ChunkParam()
