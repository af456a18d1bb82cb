"""`isopress --version`: the versions of all that decides bytes, values and what can be opened."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from isopress.codec import native
from isopress.format.payload import VERSION

_LIBRARIES = ("numpy", "constriction", "torch", "zarr", "numcodecs", "xarray")


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
    click.echo(", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in _LIBRARIES)]))
    click.echo(f"kernels: {native.status()}; this machine and installation have {', '.join(native.levels())}")
    ctx.exit()
