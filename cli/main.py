"""The `isopress` command group: verbs are imported when called, exit codes are verdicts."""

import atexit
import gc
import importlib
import logging
import os
import platform
import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any, NoReturn

# Before numpy or torch start their threads: idle ones must not spin while codec and Zarr threads work, and the
# matrices are too small to share; --jobs scales with processes instead.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import click

from isopress.cli import endings
from isopress.cli.endings import INTERRUPTED, KEPT, TERMINATED, USAGE
from isopress.codec.errors import IsopressError
from isopress.codec.native import dispatch
from isopress.format.payload import VERSION

COMMANDS = {
    "compress": "isopress.cli.compress:compress",
    "append": "isopress.cli.append:append",
    "compact": "isopress.cli.compact:compact",
    "decompress": "isopress.cli.decompress:decompress",
    "info": "isopress.cli.info:info",
    "estimate": "isopress.cli.estimate:estimate",
    "verify": "isopress.cli.verify:verify",
    "compare": "isopress.cli.compare:compare",
    "models": "isopress.cli.models:models",
    "train": "isopress.cli.train:train",
}
# Whose versions decide bytes, values and what can be opened.
LIBRARIES = ("numpy", "constriction", "torch", "zarr", "numcodecs", "xarray")


class LazyGroup(click.Group):
    """A group that imports its commands when needed and turns errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb; None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and exit with its code."""
        options = {"prog_name": "isopress"} | extra | {"standalone_mode": False}
        try:
            code = super().main(*args, **options)
        except click.Abort:
            code = _fail("interrupted", INTERRUPTED)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = USAGE
        except click.ClickException as error:
            code = _fail(error.format_message(), USAGE)
        except (IsopressError, OSError) as error:
            code = _fail(str(error), USAGE)
        except Exception as error:
            if sys.flags.dev_mode:
                raise
            reason = f"{type(error).__name__}: {error}"
            code = _fail(f"unexpected {reason} (python -X dev -m isopress.cli.main shows where)", USAGE)
        sys.exit(code if isinstance(code, int) else KEPT)


def _fail(message: str, code: int) -> int:
    # Zarr's event loop would report other reads and writes that failed, or were dropped, when the interpreter ends.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    click.echo(f"isopress: {' '.join(message.split())}", err=True)
    return code


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    """Leave through every `finally`, so that nothing half-written stays."""
    sys.exit(TERMINATED)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # constriction, where kernels do without
        return "not installed"


def show_version(ctx: click.Context, param: click.Parameter, wanted: Any) -> None:
    """Print the versions, and which kernels are in use, and end."""
    if not wanted or ctx.resilient_parsing:
        return
    click.echo(f"isopress {version('isopress')}, payload {VERSION[0]}.{VERSION[1]}")
    click.echo(", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in LIBRARIES)]))
    click.echo(f"kernels: {dispatch.status()}; this machine and installation have {', '.join(dispatch.levels())}")
    ctx.exit()


@click.group(cls=LazyGroup)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the versions of isopress, its payloads and what it is built on.",
)
def main() -> None:
    """Make weather data small, with an error bound you choose and can check."""
    signal.signal(signal.SIGTERM, _terminate)
    endings.watch()
    # Else Python looks through all objects of xarray, pandas and dask for garbage before it ends: half a second.
    atexit.register(gc.freeze)


if __name__ == "__main__":
    main()
