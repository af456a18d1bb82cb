"""Sources that something writes to while they are read: refused at the end, and nothing is published."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from isopress.codec.errors import ArgumentError
from isopress.format.source.selection import Request
from isopress.format.source.stamps import check_unchanged, seen
from isopress.format.store.progress import Progress
from isopress.format.store.write import write
from tests.format.sources import SHAPE, fields, save, save_raw, temperature


def grown(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def rewritten(path: Path) -> None:
    """Other values, the same size and the same time."""
    status = os.stat(path)
    data = path.read_bytes()
    save_raw(path, temperature(7), units="K", kind="NETCDF3_CLASSIC")
    assert path.stat().st_size == len(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def gone(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (grown, r"has changed while it was read \(it had 1 file"),
        (rewritten, "has changed"),
        (gone, "no such file"),
        (replaced, "has changed while it was read"),
    ],
)
def test_a_source_that_changes_is_refused_and_nothing_appears(
    change: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    path = save_raw(tmp_path / "a.nc", temperature(), units="K", kind="NETCDF3_CLASSIC")
    phases = set()

    def observer(progress: Progress) -> None:
        if progress.phase == "compress" and "compress" not in phases and progress.done_nbytes:
            change(path)
        phases.add(progress.phase if progress.done_nbytes else "")

    with pytest.raises(ArgumentError, match=reason):
        write(str(path), tmp_path / "out.zarr", observer=observer)
    assert not [item for item in tmp_path.iterdir() if "out" in item.name]


def test_a_source_that_is_touched_but_the_same_is_compared_again_and_published(tmp_path: Path) -> None:
    path = save(fields(t2m=temperature()), tmp_path / "a.nc")
    checks = []

    def observer(progress: Progress) -> None:
        if progress.phase == "compress":
            path.chmod(0o640 if path.stat().st_mode & 0o40 == 0 else 0o600)
        checks.append((progress.phase, progress.variable))

    write(str(path), tmp_path / "out.zarr", observer=observer)
    assert ("check", "t2m") in checks
    assert (tmp_path / "out.zarr").is_dir()


def test_values_written_in_the_middle_of_a_large_file_that_looks_the_same_are_found(tmp_path: Path) -> None:
    x = np.broadcast_to(temperature(), (2000, *SHAPE)).reshape(-1, *SHAPE[1:])
    path = save_raw(tmp_path / "a.nc", x, units="K", kind="NETCDF3_CLASSIC")
    status = path.stat()
    with open(path, "r+b") as file:  # between the pieces that are looked at
        before = seen(Request((str(path),)))
        file.seek(int(status.st_size * 0.5))
        file.write(bytes(8))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not check_unchanged(before, Request((str(path),)))  # no piece differs, so its values are compared again


def test_stores_and_folders_are_watched_but_not_what_is_written_beside_their_files(tmp_path: Path) -> None:
    fields(t2m=temperature()).to_zarr(tmp_path / "a.zarr", consolidated=False)
    save(fields(t2m=temperature()), tmp_path / "days.nc")
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "days.nc", tmp_path / "folder" / "a.nc")
    store, folder = Request((str(tmp_path / "a.zarr"),)), Request((str(tmp_path / "folder"),))
    known = seen(store), seen(folder)
    write(folder, tmp_path / "folder" / "out")
    shutil.rmtree(tmp_path / "folder" / "out")
    assert check_unchanged(known[0], store)
    assert check_unchanged(known[1], folder)
    chunk = next((tmp_path / "a.zarr" / "t2m" / "c").rglob("0"))
    while chunk.is_dir():
        chunk = chunk / "0"
    grown(chunk)
    with pytest.raises(ArgumentError, match=r"a\.zarr has changed"):
        check_unchanged(known[0], store)
    shutil.copy(tmp_path / "days.nc", tmp_path / "folder" / "b.nc")
    with pytest.raises(ArgumentError, match=r"b\.nc has come or gone"):
        check_unchanged(known[1], folder)
