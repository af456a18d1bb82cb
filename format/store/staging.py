"""Outputs that appear complete or not at all: made in a folder beside their place, then renamed into it.

    .out.zarr.partial/          held by one run at a time; what another left is removed by the next, or gone on with
        lock                    locked while that run lives (flock: it ends with the process, however that ends);
                                says which run it is, for workers elsewhere that may outlive it (fence.py)
        output                  what is being written; a store with a journal outlives an interruption
        old                     what stood at the destination, where two paths cannot be exchanged at once
        change                  the journal of a store that is there and is changed: appended to, compacted

Nothing that a run did not make is removed, except what `overwrite` is about: the destination as it was when the run
began.
"""

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isopress.codec.errors import ArgumentError, IsopressError, WorkerLostError
from isopress.format.attributes import JOURNAL
from isopress.format.store.journal import PLAN
from isopress.format.store.rename import exchange, rename_new
from isopress.format.zarr.groups import is_zarr

try:
    import fcntl
except ImportError:  # not a POSIX system: there the folder itself is the lock
    fcntl = None  # type: ignore[assignment]

_LOG = logging.getLogger(__name__)
CHANGE, LOCK = "change", "lock"
_ATTEMPTS = 100  # to lock a folder that other runs finish with at the same moment

Identity = tuple[int, int] | None  # device and inode of what is at a path; None of nothing


@contextmanager
def staged(destination: Path, *, store: bool, overwrite: bool, resume: bool = False) -> Iterator[Path]:
    """Give a path to write to; rename it to `destination` at the end.

    On failure it is removed, unless it has a journal and the failure is an interruption, a lost process or one of the
    system: then another run can `resume`. A symbolic link is followed: what it points to is replaced, the link stays.

    Parameters
    ----------
    destination : Path
        Where the output belongs.
    store : bool
        Whether it is a Zarr store; else it is one file. Only the like is ever replaced.
    overwrite : bool
        Replace an existing Zarr store or file; the old one stays until the new one is complete.
    resume : bool
        Give the path with what another run has left there.

    Raises
    ------
    ArgumentError
        `destination` exists and may not be replaced, its folder does not exist, another run is writing it, or has left
        what could be resumed, and neither `resume` nor `overwrite` is set. At the
        end: something else has appeared there meanwhile; it stays.
    """
    target = Path(os.path.realpath(destination))
    if not target.parent.is_dir():
        raise ArgumentError(f"{target.parent}: no such directory; create it first")
    folder = folder_of(target)
    lock, keep = _lock(folder, target), False
    try:
        keep = _is_resumable(folder)
        _begin(folder, target, overwrite, resume)
        keep = _is_resumable(folder)
        before = _check(destination, target, store, overwrite)
        yield folder / "output"
        _publish(folder, target, before)
        keep = False
    except BaseException as error:
        keep = _is_resumable(folder) and (
            keep or not isinstance(error, IsopressError) or isinstance(error, WorkerLostError)
        )
        if keep:
            _LOG.warning("what was done is kept in %s: --resume goes on with it, --overwrite begins anew", folder)
        raise
    finally:
        _clear(folder, target, keep)
        _unlock(folder, lock)


def folder_of(destination: Path) -> Path:
    """Return the folder in which runs make what belongs at a destination."""
    target = Path(os.path.realpath(destination))
    return target.with_name(f".{target.name}.partial")


def _is_resumable(folder: Path) -> bool:
    return (folder / "output" / JOURNAL / PLAN).is_file()  # without it a run was killed before it had begun


def _begin(folder: Path, target: Path, overwrite: bool, resume: bool) -> None:
    """Make room for a run: what another has left is removed, or stays to be resumed."""
    if _is_resumable(folder):
        if resume:
            for half_written in (folder / "output").rglob("*.partial"):  # by Zarr, when it was killed
                half_written.unlink(missing_ok=True)
            return
        if not overwrite:
            raise ArgumentError(
                f"{folder} has what a run to {target} that did not finish had done: --resume goes on with it, "
                "--overwrite begins anew"
            )
    if _clear(folder, target):
        _LOG.warning("removed %s, which a run that did not finish had left", folder)


def _check(destination: Path, target: Path, store: bool, overwrite: bool) -> Identity:
    """Return what is at the destination now and may be replaced."""
    before = _identity(target)
    if before is None:
        return None
    if not overwrite:
        raise ArgumentError(f"{destination} exists; replace it with --overwrite")
    empty = target.is_dir() and not any(target.iterdir())
    if not (is_zarr(target) or empty if store else target.is_file()):
        kind = "Zarr store" if store else "file"
        raise ArgumentError(f"{destination} exists and is not a {kind}; it is not replaced, choose another name")
    return before


def _identity(path: Path) -> Identity:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _publish(folder: Path, target: Path, before: Identity) -> None:
    """Rename the output into its place, if what is there is what was there when the run began, or nothing."""
    output = folder / "output"
    strange = f"{target} appeared while its new content was being made; it is left as it is, choose another name"
    if _identity(target) is None:
        try:
            rename_new(output, target)
        except FileExistsError as error:
            raise ArgumentError(strange) from error
        return
    if _identity(target) != before:
        raise ArgumentError(strange)
    try:
        exchange(output, target)
    except NotImplementedError:
        _replace_in_steps(folder, target)
    else:
        if _identity(output) != before:
            exchange(output, target)
            raise ArgumentError(strange)


def _replace_in_steps(folder: Path, target: Path) -> None:
    """Put the output in the place of the old one, which a kill in between leaves to the next run to put back."""
    output, old = folder / "output", folder / "old"
    if not target.is_dir():
        os.replace(output, target)
        return
    os.rename(target, old)
    rename_new(output, target)  # if it fails, `_clear` puts the old one back


def _clear(folder: Path, target: Path, keep: bool = False) -> bool:
    """Remove what a run has left, but what is to be resumed; an old store goes back if its place is empty.

    Return whether there was anything.
    """
    names = ("old",) if keep else ("output", "output.zip", "old", CHANGE)
    found = [folder / name for name in names if os.path.lexists(folder / name)]
    for path in found:
        if path.name == "old" and _identity(target) is None:
            rename_new(path, target)
        elif path.is_dir() and not path.is_symlink():
            _remove(path)
        else:
            path.unlink()
    return bool(found)


def _remove(path: Path) -> None:
    """Remove a folder, also while a worker of a run that is no more ends what it was writing there."""
    for _ in range(_ATTEMPTS):
        try:
            shutil.rmtree(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
            if not path.exists():
                return
    shutil.rmtree(path)


# --- one run at a time ------------------------------------------------------------------------------------------------


@contextmanager
def held(store: Path) -> Iterator[Path]:
    """Keep other runs of isopress from changing a store meanwhile; give a folder beside it for what they must know.

    Raises
    ------
    ArgumentError
        Another run is writing it.
    """
    target = Path(os.path.realpath(store))
    folder = folder_of(target)
    lock = _lock(folder, target)
    try:
        yield folder / CHANGE
    finally:
        _unlock(folder, lock)


def _lock(folder: Path, target: Path) -> int:
    """Make the folder, or take over that of a run that is no more; return the open file that holds the lock."""
    for _ in range(_ATTEMPTS):
        made = _make(folder)
        try:
            file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except FileNotFoundError:
            continue  # its run has just finished
        if not _flock(file, made, folder):
            os.close(file)
            raise ArgumentError(f"{target} is being written by another run; its work is in {folder}")
        status = os.fstat(file)
        if _identity(folder / LOCK) == (status.st_dev, status.st_ino):
            _sign(file, folder)
            return file
        os.close(file)  # another run has finished, and its lock with it
    raise ArgumentError(f"{folder} cannot be locked: other runs make and remove it all the time")


def _sign(file: int, folder: Path) -> None:
    """Write into the lock which run holds it."""
    try:
        os.ftruncate(file, 0)
        os.write(file, json.dumps({"run": uuid.uuid4().hex}).encode())
        os.fsync(file)  # other machines see it, too
    except OSError:
        _unlock(folder, file)
        raise


def _make(folder: Path) -> bool:
    """Return whether the folder was made; a link or a file in its place is refused."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        if _identity(folder) and (folder.is_symlink() or folder.is_file()):  # nothing: its run has just finished
            raise ArgumentError(f"{folder} is in the way, and no folder of isopress; remove it") from None
        return False
    return True


def _flock(file: int, made: bool, folder: Path) -> bool:
    """Return whether no other run holds the file; where nothing can be locked, the folder must be new."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError as error:
        _LOG.debug("%s cannot be locked: %s", folder, error)
    if not made:
        raise ArgumentError(f"{folder} exists: another run is at work, or was killed; in that case remove the folder")
    return True


def _unlock(folder: Path, lock: int) -> None:
    (folder / LOCK).unlink(missing_ok=True)
    os.close(lock)
    try:
        folder.rmdir()
    except OSError:
        _LOG.debug("%s is not empty: another run holds it already, or something else lies in it", folder)
