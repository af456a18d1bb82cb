"""Opening Zarr stores on disk, in zip files and behind URLs, without the warnings that are not ours."""

import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.errors import UnstableSpecificationWarning, ZarrUserWarning
from zarr.storage import ZipStore

from isopress.codec.errors import ArgumentError
from isopress.format.settings import Promise, Settings
from isopress.format.zarr.places import place

METADATA = ("zarr.json", ".zgroup")  # of a group, versions 3 and 2
# What Zarr, xarray and we meet in metadata that is damaged or forged.
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


@contextmanager
def quiet_zarr() -> Iterator[None]:
    """Silence what zarr says about files beside the arrays, string dtypes and consolidated metadata of v3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        warnings.simplefilter("ignore", UnstableSpecificationWarning)
        yield


def is_zarr(path: str | Path) -> bool:
    """Return whether a directory has the metadata of a Zarr group."""
    return any(Path(path, name).is_file() for name in METADATA)


def looks_like_zarr(path: str) -> bool:
    """Return whether `path` is a Zarr directory, a zip file or a URL or name that ends in `.zarr`."""
    if "://" in path:
        return path.rstrip("/").endswith(".zarr")
    return is_zarr(path) or zipfile.is_zipfile(path)


def open_group(path: str | Path, stack: ExitStack, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """Return the root group of a store; `stack` closes it.

    Raises
    ------
    ArgumentError
        There is no Zarr group.
    """
    text = str(path)
    local = "://" not in text
    if local and not Path(text).exists():
        raise ArgumentError(f"{text}: no such file or directory")
    try:
        with quiet_zarr():
            if local and zipfile.is_zipfile(text):
                return zarr.open_group(stack.enter_context(ZipStore(text, mode="r")), mode="r", path=zip_root(text))
            return zarr.open_group(place(text), mode=mode)
    except (OSError, *DAMAGE) as error:
        raise ArgumentError(f"{text}: not a Zarr group ({_one_line(error)})") from error


def consolidate(group: zarr.Group) -> None:
    """Put the metadata of a store into one place, for stores that have such."""
    if group.store.supports_consolidated_metadata:
        with quiet_zarr():
            zarr.consolidate_metadata(group.store, path=group.path, zarr_format=group.metadata.zarr_format)


def arrays(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """Return the arrays of the group, and of all groups in it, by path ("t2m", "forecast/t2m"), sorted."""
    with quiet_zarr():
        members = sorted(group.members(max_depth=None))
    return {name: member for name, member in members if isinstance(member, zarr.Array)}


def subgroups(group: zarr.Group) -> list[str]:
    """Return the paths of a group and of all groups in it, "" for itself."""
    with quiet_zarr():
        return ["", *sorted(name for name, member in group.members(max_depth=None) if isinstance(member, zarr.Group))]


def dimensions(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Return the names of the array's dimensions, as xarray stores them in either Zarr version."""
    names = array.metadata.dimension_names if array.metadata.zarr_format == 3 else array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, list | tuple | None):
        raise ArgumentError(f"{array.path}: names of dimensions that are none ({str(names)[:50]})")
    return tuple(str(name) for name in names or (f"dim_{axis}" for axis in range(array.ndim)))


def stored_limit(array: zarr.Array[Any]) -> Promise | None:
    """Return the bound or target of the isopress codec of an array, the largest of several; None of other codecs."""
    codec = isopress_codec(array)
    limit = codec.limit if codec else None
    return max(limit, key=lambda bound: bound.value or 0) if isinstance(limit, tuple) else limit


def isopress_codec(array: zarr.Array[Any]) -> Settings | None:
    """Return the codec whose payloads the chunks of an array, or those inside its shards, are; None of other codecs."""
    metadata: Any = array.metadata
    codecs = list(metadata.codecs) if metadata.zarr_format == 3 else [metadata.compressor]
    for codec in codecs:
        codecs.extend(getattr(codec, "codecs", ()))  # of the chunks inside a shard
        if isinstance(codec, Settings):
            return codec
    return None


def nbytes_on_disk(path: str | Path) -> int:
    """Return the size of every file of a store, metadata included; of the file when it is a zip."""
    if Path(path).is_file():
        return Path(path).stat().st_size
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def zip_root(path: str) -> str:
    """Return the folder inside a zip that holds the store; "" when the store is at the top."""
    with zipfile.ZipFile(path) as archive:
        names = map(Path, archive.namelist())
        roots = [name.parent for name in names if name.name in METADATA]
    if not roots:
        raise ArgumentError(f"{path}: a zip file without a Zarr store in it")
    root = min(roots, key=lambda root: len(root.parts))
    return root.as_posix() if root.parts else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
