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
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, StorePath

from isopress.codec.errors import ArgumentError, IsopressError, WorkerLostError
from isopress.format.attributes import JOURNAL, UNFINISHED
from isopress.format.source.locate import check_filesystem, local_path
from isopress.format.store import staging
from isopress.format.store.journal import PLAN
from isopress.format.zarr.groups import open_group, quiet_zarr
from isopress.format.zarr.places import ICECHUNK, OBSTORE, is_transaction, place, transaction

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
    if is_transaction(url):
        with _alone_at(url), transaction(url, "isopress compress", create=True, overwrite=overwrite):
            yield url
        return
    root, lock = _root(url), lock_of(url)
    _check_free(url, lock)
    _make_room(url, root, overwrite, resume)
    try:
        with _locked(lock):
            yield url
    except BaseException as error:
        if isinstance(error, IsopressError) and not isinstance(error, WorkerLostError) and not resume:
            sync(root.store.delete_dir(root.path))
        else:
            _LOG.warning("what was done is kept at %s: --resume goes on with it, --overwrite begins anew", url)
        raise


@contextmanager
def held(url: str) -> Iterator[StorePath]:
    """Keep other runs of isopress from changing a store meanwhile; give the folder of the journal of this one.

    Raises
    ------
    ArgumentError
        The package for such URLs is missing, nothing can be written there, or another run is writing it.
    """
    check_filesystem(url)
    if is_transaction(url):
        with _alone_at(url), transaction(url, "isopress: more values, or whole chunks", create=False):
            yield StorePath(MemoryStore())  # what was not committed never was
        return
    lock = lock_of(url)
    _check_free(url, lock)
    with _locked(lock):
        yield _root(url) / JOURNAL


def _alone_at(url: str) -> AbstractContextManager[Any]:
    """Lock a local folder; elsewhere the repository itself refuses the second of two commits."""
    folder = local_path(url.removeprefix(ICECHUNK))
    return staging.held(Path(folder)) if "://" not in folder else nullcontext()


def check_processes(url: str, jobs: int, scheduler: str | None) -> None:
    """Raise ArgumentError if other processes would not see what is at a URL."""
    if url.removeprefix(OBSTORE).startswith("memory:") and (jobs > 1 or scheduler):
        raise ArgumentError(f"{url}: other processes do not see this memory; leave out --jobs and --scheduler")
    if is_transaction(url) and (jobs > 1 or scheduler):
        raise ArgumentError(f"{url}: a transaction is of one process; leave out --jobs and --scheduler")


def _root(url: str) -> StorePath:
    """Return the place a URL means, for writing."""
    try:
        with quiet_zarr():
            return sync(zarr.storage._common.make_store_path(place(url), mode="a"))
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


def lock_of(store: str, *, changed: bool = False) -> StorePath:
    """Return the lock of the run that makes, or changes, the store at a path or URL."""
    if "://" not in store:
        return StorePath(LocalStore(staging.folder_of(Path(store)) if changed else Path(store).parent), staging.LOCK)
    return _root(store) / JOURNAL / "lock.json"


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


@contextmanager
def _locked(lock: StorePath) -> Iterator[None]:
    """Hold a lock, with a sign of life every now and then."""
    me, stop = uuid.uuid4().hex, threading.Event()
    beat = threading.Thread(target=_beat, args=(lock, me, stop), daemon=True)
    _sign(lock, me)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        sync(lock.delete())


def _sign(lock: StorePath, me: str) -> None:
    owner = {"run": me, "host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
    sync(lock.set(default_buffer_prototype().buffer.from_bytes(json.dumps(owner).encode())))


def _beat(lock: StorePath, me: str, stop: threading.Event) -> None:
    while not stop.wait(_BEAT_SECONDS):
        _sign(lock, me)
