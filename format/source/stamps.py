"""By what a source is known again: names, sizes and times of its files. Contents are not read."""

import glob
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from isopress.format.source.locate import SAMPLE, resolve
from isopress.format.source.request import Request


def stamps(asked: Request) -> dict[str, str]:
    """Return what is known of each path that a request names: sizes and times of files; nothing of a URL but its name.

    A folder or store counts as one: how many files, how many bytes, the newest of their times.
    """
    return {f"source {path}": _stamp(resolve(path)) for asked_path in asked.paths for path in _matches(asked_path)}


def _matches(path: str) -> list[str]:
    pattern = path != SAMPLE and "://" not in path and not Path(path).exists() and glob.has_magic(path)
    return sorted(glob.glob(path)) if pattern else [path]


def _stamp(path: str) -> str:
    if "://" in path:
        return "a URL"
    if not Path(path).is_dir():
        return _described(1, *_size_and_time(os.stat(path)))
    found = [_size_and_time(status) for status in _files_below(path)]
    return _described(len(found), sum(size for size, _ in found), max((time for _, time in found), default=0))


def _files_below(folder: str) -> Iterator[os.stat_result]:
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _files_below(entry.path)
        else:
            yield entry.stat()


def _size_and_time(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _described(files: int, nbytes: int, nanoseconds: int) -> str:
    time = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    return f"{files} file(s), {nbytes} bytes, of {time:%Y-%m-%d %H:%M:%S}.{nanoseconds % 10**9:09d} UTC"
