"""Runs in processes that are killed, or that the disk is taken from; quick to start, from a server with all imports."""

import ctypes
import multiprocessing
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import xarray as xr

from isopress.codec.errors import IsopressError
from isopress.format.store import chunking, journal
from isopress.format.store.append import append
from isopress.format.store.restore import restore
from isopress.format.store.write import write
from tests.datasets import errors

xr.backends.list_engines()  # here, once: the first file that is opened imports all of them
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["tests.killed_runs", "isopress.format.zarr.v3_codec", "isopress.codec.chunk.encode", "netCDF4"]
)


def many_small_tasks(**options: Any) -> None:
    """Call `write` with tasks of one chunk each, whose end is noted at once."""
    chunking.TASK_NBYTES, chunking.REGION_NBYTES, journal.FLUSH_SECONDS = 2**12, 2**12, 0.0
    write(errors=errors("lossless"), chunks={"time": 1}, **options)


def append_in_small_tasks(**options: Any) -> None:
    """Call `append` with tasks of one shard each, whose end is noted at once."""
    chunking.TASK_NBYTES, journal.FLUSH_SECONDS = 1, 0.0
    append(resume=True, **options)


def start_append(source: str, store: Path) -> BaseProcess:
    """Start such an append in another process."""
    process = _CONTEXT.Process(target=append_in_small_tasks, kwargs={"source": source, "store": store})
    process.start()
    return process


def start(source: Path, destination: Path, **options: Any) -> BaseProcess:
    """Start such a run in another process."""
    paths = {"source": str(source), "destination": destination}
    process = _CONTEXT.Process(target=many_small_tasks, kwargs=paths | options)
    process.start()
    return process


Disk = tuple[str, int, bool]  # a folder, how many bytes are left there, and whether it is read-only


def small_tasks() -> None:
    """Let a task be one chunk, and its end be noted at once."""
    chunking.TASK_NBYTES, chunking.REGION_NBYTES, journal.FLUSH_SECONDS = 2**12, 2**12, 0.0


def begin(kind: str, source: Path, destination: Path, *, disk: Disk | None = None, **options: Any) -> BaseProcess:
    """Start "write" or "restore" in another process."""
    process = _CONTEXT.Process(target=_work, args=(kind, source, destination, disk, options))
    process.start()
    return process


def _work(kind: str, source: Path, destination: Path, disk: Disk | None, options: dict[str, Any]) -> None:
    """Do it as the command does: what is refused, or fails by the system, is one line and code 2."""
    small_tasks()
    if disk:
        ctypes.CDLL(None).full_disk(disk[0].encode(), ctypes.c_long(disk[1]), disk[2])
    try:
        if kind == "write":
            write(str(source), destination, errors=errors("lossless"), **({"chunks": {"time": 1}} | options))
        else:
            restore(source, destination, **options)
    except (IsopressError, OSError) as error:
        print(f"isopress: {error}", file=sys.stderr)
        sys.exit(2)
