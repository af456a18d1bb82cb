"""By what a source is known again: names, sizes and times of its files; and whether it stays what it is meanwhile."""

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from isopress.codec.bytes import crc32c
from isopress.codec.errors import ArgumentError
from isopress.format.source.locate import SAMPLE, files_in, is_reference, is_store_url, resolve
from isopress.format.source.selection import Request
from isopress.format.zarr.groups import METADATA, is_zarr
from isopress.format.zarr.places import is_transaction, snapshot

_PIECES, _PIECE = 16, 2**16  # of a file, and bytes of each


def stamps(asked: Request) -> dict[str, str]:
    """Return what is known of each path that a request names: sizes and times of files; nothing of a URL but its name.

    A folder or store counts as one: how many files, how many bytes, the newest of their times.
    """
    return {f"source {path}": _stamp(resolve(path)) for asked_path in asked.paths for path in _matches(asked_path)}


def _matches(path: str) -> list[str]:
    pattern = path != SAMPLE and "://" not in path and not Path(path).exists() and glob.has_magic(path)
    if "://" not in path and Path(path).is_dir() and not is_zarr(path) and not is_reference(path):
        return files_in(path)  # and not what else is in the folder, perhaps the destination
    return sorted(glob.glob(path)) if pattern else [path]


def _stamp(path: str) -> str:
    if "://" in path:
        return f"snapshot {snapshot(path)}" if is_transaction(path) else "a URL"
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


# --- while it is read -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What tells whether a path is still what it was: its stamp, a CRC of pieces of a file, when it was last touched.

    Of a store behind a URL only what the server says of its metadata is known. Single files behind URLs are copied
    before they are read.
    """

    stamp: str
    pieces: int
    touched: int

    @classmethod
    def of(cls, path: str) -> "Seen":
        """Return what is known of a local path or URL."""
        place = resolve(path)
        if "://" in place:
            return cls(_of_server(place) if is_store_url(place) else "a URL", 0, 0)
        if Path(place).is_dir():
            return cls(_stamp(place), 0, max((s.st_ctime_ns for s in _files_below(place)), default=0))
        return cls(_stamp(place), _crc_of_pieces(place), os.stat(place).st_ctime_ns)


def seen(asked: Request) -> dict[str, Seen]:
    """Return what is known of every path of a request now, to be compared with what is known when it has been read."""
    return {path: Seen.of(path) for asked_path in asked.paths for path in _matches(asked_path)}


def check_unchanged(before: Mapping[str, Seen], asked: Request) -> bool:
    """Return whether nothing has touched a source since; false says that its values have to be compared again.

    Raises
    ------
    ArgumentError
        A path has appeared, gone or changed.
    """
    after = seen(asked)
    if before.keys() != after.keys():
        raise ArgumentError(
            f"{min(before.keys() ^ after.keys())} has come or gone while the source was read; run again"
        )
    for path, was in before.items():
        now = after[path]
        if was.stamp != now.stamp or was.pieces != now.pieces:
            what = f"it had {was.stamp}, it has {now.stamp}" if was.stamp != now.stamp else "its bytes differ"
            raise ArgumentError(f"{path} has changed while it was read ({what}); run again when nothing writes to it")
    return all(before[path].touched == after[path].touched for path in before)


def _crc_of_pieces(path: str) -> int:
    """Return the CRC32C of the start, the end and pieces between them: a megabyte at most."""
    size, crc = os.path.getsize(path), 0
    with open(path, "rb") as file:
        for piece in range(_PIECES):
            file.seek(max(0, size - _PIECE) * piece // (_PIECES - 1))
            crc = crc32c(file.read(_PIECE), crc)
    return crc


def _of_server(url: str) -> str:
    """Return what a server says of the metadata of a store: its size, time or tag."""
    if is_transaction(url) or not find_spec("fsspec"):
        return _stamp(url)
    import fsspec

    for name in (".zmetadata", *METADATA):
        try:
            files, path = fsspec.url_to_fs(f"{url.rstrip('/')}/{name}")
            files.invalidate_cache()
            info = files.info(path)
        except Exception:  # each kind of server has its own errors for what is not there
            continue
        known = {key: str(value) for key, value in info.items() if key in ("size", "ETag", "LastModified", "mtime")}
        return f"{name} with {known}"
    return "a URL"
