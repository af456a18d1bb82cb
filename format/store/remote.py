"""Destinations that are URLs: written in place, as there is no renaming, and unfinished until the end.

One run at a time: `isopress_journal/lock.json` says who writes, and when that run was last alive. Object stores have no
locks that end with a process, so a run that was killed holds its lock for another minute.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from isopress.codec.errors import ArgumentError, IsopressError, WorkerLostError
from isopress.format.attributes import JOURNAL, UNFINISHED
from isopress.format.source.locate import check_filesystem
from isopress.format.store.journal import PLAN
from isopress.format.zarr.groups import open_group, quiet_zarr

_LOG = logging.getLogger(__name__)
_BEAT_SECONDS = 15.0  # between two signs of life
_STALE_SECONDS = 60.0  # without one: the run is no more


@contextmanager
def claimed(url: str, *, overwrite: bool, resume: bool) -> Iterator[str]:
    """Give the URL to write a store to, alone; what an interruption leaves stays to be resumed, what else fails goes.

    Parameters
    ----------
    url : str
        Of any file system that Zarr writes to by fsspec.
    overwrite : bool
        Remove a store that is there, now: other than with a local path it is gone if this run fails.
    resume : bool
        Go on with an unfinished store.

    Raises
    ------
    ArgumentError
        The package for such URLs is missing, nothing can be written there, there is something, or another run is
        writing it.
    """
    check_filesystem(url)
    root = _root(url)
    lock = root / JOURNAL / "lock.json"
    _check_free(url, lock)
    _make_room(url, root, overwrite, resume)
    me = uuid.uuid4().hex
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(lock, me, stop), daemon=True)
    _sign(lock, me)
    beat.start()
    try:
        yield url
    except BaseException as error:
        if isinstance(error, IsopressError) and not isinstance(error, WorkerLostError) and not resume:
            _end(beat, stop)
            sync(root.store.delete_dir(root.path))
        else:
            _LOG.warning("what was done is kept at %s: --resume goes on with it, --overwrite begins anew", url)
        raise
    finally:
        _end(beat, stop)
        sync(lock.delete())


def _root(url: str) -> StorePath:
    """Return the place a URL means, for writing."""
    try:
        with quiet_zarr():
            return sync(zarr.storage._common.make_store_path(url, mode="a"))
    except (OSError, ValueError, ImportError) as error:
        raise ArgumentError(f"{url}: nothing can be written there ({error})") from error


def _make_room(url: str, root: StorePath, overwrite: bool, resume: bool) -> None:
    """Remove or keep what is there, or refuse to."""
    with ExitStack() as stack:
        try:
            attrs: Any = dict(open_group(url, stack).attrs)
        except ArgumentError:  # no store
            if not sync(_is_empty(root)):
                raise ArgumentError(f"{url} is not empty, and no Zarr store; choose another name") from None
            return
    if UNFINISHED in attrs and resume:
        if not sync((root / JOURNAL / PLAN).exists()):  # it had not got that far
            sync(root.store.delete_dir(root.path))
        return
    if not overwrite:
        remedy = "go on with it by --resume, or replace it with" if UNFINISHED in attrs else "replace it with"
        raise ArgumentError(f"{url} exists; {remedy} --overwrite")
    sync(root.store.delete_dir(root.path))


async def _is_empty(root: StorePath) -> bool:
    prefix = f"{root.path}/" if root.path else ""
    async for _ in root.store.list_prefix(prefix):
        return False
    return True


# --- one run at a time ------------------------------------------------------------------------------------------------


def _check_free(url: str, lock: StorePath) -> None:
    found = sync(lock.get())
    if found is None:
        return
    owner = json.loads(found.to_bytes())
    age = time.time() - owner["time"]
    if age < _STALE_SECONDS:
        raise ArgumentError(
            f"{url} is being written by another run ({owner['host']}, process {owner['process']}), or one that was "
            f"killed {age:.0f} s ago; try again in a minute"
        )


def _sign(lock: StorePath, me: str) -> None:
    owner = {"run": me, "host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
    sync(lock.set(default_buffer_prototype().buffer.from_bytes(json.dumps(owner).encode())))


def _beat(lock: StorePath, me: str, stop: threading.Event) -> None:
    while not stop.wait(_BEAT_SECONDS):
        _sign(lock, me)


def _end(beat: threading.Thread, stop: threading.Event) -> None:
    stop.set()
    beat.join()
