"""Renaming without losing anything: only to a free name, or two paths in exchange. Linux does both at once."""

import ctypes
import errno
import os
from pathlib import Path

_NOREPLACE, _EXCHANGE = 1, 2  # flags of renameat2, linux/fs.h
_AT_FDCWD = -100
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}  # by the kernel or by the file system


def rename_new(source: Path, target: Path) -> None:
    """Rename `source` to `target`, which must not exist.

    Raises
    ------
    FileExistsError
        There is something at `target`; it is as it was, and so is `source`.

    Notes
    -----
    Without renameat2 a file gets its second name by a hard link, which never replaces either; a directory is renamed
    by rename(2), which replaces empty directories only.
    """
    try:
        _renameat2(source, target, _NOREPLACE)
    except NotImplementedError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        if source.is_dir():
            os.rename(source, target)
        else:
            os.link(source, target)
            source.unlink()


def exchange(one: Path, other: Path) -> None:
    """Exchange what is at two paths, at once.

    Raises
    ------
    NotImplementedError
        The system or the file system cannot; nothing has changed.
    """
    _renameat2(one, other, _EXCHANGE)


def _renameat2(source: Path, target: Path, flags: int) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        raise NotImplementedError("this system has no renameat2")
    if not call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)):
        return
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        raise NotImplementedError(f"renameat2 with flags {flags}: {os.strerror(code)}")
    raise OSError(code, os.strerror(code), str(source), None, str(target))
