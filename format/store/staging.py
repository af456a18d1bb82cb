"""Outputs that appear complete or not at all: written beside their place, then renamed into it."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isopress.codec.errors import ArgumentError
from isopress.format.zarr.groups import is_zarr


@contextmanager
def staged(destination: Path, *, store: bool, overwrite: bool) -> Iterator[Path]:
    """Give a path beside `destination` to write to; rename it there at the end, remove it on any failure.

    Parameters
    ----------
    destination : Path
        Where the output belongs.
    store : bool
        Whether it is a Zarr store; else it is one file. Only the like is ever replaced.
    overwrite : bool
        Replace an existing Zarr store or file; the old one stays until the new one is complete.

    Raises
    ------
    ArgumentError
        `destination` exists and may not be replaced, or its folder does not exist.
    """
    _check(destination, store, overwrite)
    token = secrets.token_hex(4)
    partial = destination.with_name(f".{destination.name}.partial-{token}")
    try:
        yield partial
        _publish(partial, destination, destination.with_name(f".{destination.name}.old-{token}"))
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Remove a file or a directory with all it holds; nothing when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check(destination: Path, store: bool, overwrite: bool) -> None:
    if not destination.parent.is_dir():
        raise ArgumentError(f"{destination.parent}: no such directory; create it first")
    if not destination.exists():
        return
    if not overwrite:
        raise ArgumentError(f"{destination} exists; replace it with --overwrite")
    empty = destination.is_dir() and not any(destination.iterdir())
    if not (is_zarr(destination) or empty if store else destination.is_file()):
        kind = "Zarr store" if store else "file"
        raise ArgumentError(f"{destination} exists and is not a {kind}; it is not replaced, choose another name")


def _publish(partial: Path, destination: Path, old: Path) -> None:
    if not destination.is_dir():
        os.replace(partial, destination)
        return
    os.rename(destination, old)
    try:
        os.rename(partial, destination)
    except OSError:
        os.rename(old, destination)
        raise
    shutil.rmtree(old)
