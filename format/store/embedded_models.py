"""The weights that a store needs: which they are, copies of them in the store, and copies for this user.

A copy in a store is `_models/<sha256>.safetensors`; `_models` is a Zarr group with nothing else in it.
"""

import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import zarr

from isopress.codec.errors import (
    ArgumentError,
    CorruptPayloadError,
    ForeignPayloadError,
    ModelNotFoundError,
    PayloadError,
)
from isopress.codec.models.registry import (
    MAX_NBYTES,
    SUFFIX,
    Weights,
    describe,
    find,
    installed,
    read_regular,
    user_folder,
)
from isopress.codec.threads import IMPORTS
from isopress.format.attributes import MODELS_FOLDER as FOLDER
from isopress.format.payload import MAX_HEADER_BYTES, inspect
from isopress.format.zarr.chunk_objects import payload_offsets
from isopress.format.zarr.groups import is_zarr, isopress_codec, open_group, quiet_zarr, zip_root

_CARD = ".md"  # suffix of the model card beside a file of weights


@dataclass(frozen=True)
class Copy:
    """Weights in the place they were to be copied to; `new` unless they had been there, or in reach, before."""

    weights: Weights
    new: bool


def needed(store: str | Path) -> frozenset[str]:
    """Return the model ids, 32 hexadecimal digits each, in the headers of all payloads of a store.

    Raises
    ------
    ArgumentError
        There is no such store, it is not a directory, or an array puts other codecs behind isopress.
    PayloadError
        The header of a payload is damaged.
    """
    path = _directory(store, "looked through")
    with quiet_zarr():
        members = zarr.open_group(path, mode="r", use_consolidated=False).members(max_depth=None)
    arrays = [(name, node) for name, node in members if isinstance(node, zarr.Array) and isopress_codec(node)]
    return frozenset(model for name, array in arrays for model in _models_of(path / name, array))


def embed(store: str | Path) -> list[Copy]:
    """Copy the weights that the payloads of a store name into the store, where they are not there yet.

    Nothing else in the store changes; it need not be consolidated again.

    Raises
    ------
    ModelNotFoundError
        Weights are neither in the store nor installed. Otherwise as `needed`.
    """
    path = _directory(store, "given weights")
    folder = _folder_in(path)
    copies = []
    for model in sorted(needed(path)):
        there = _embedded(folder, model)
        weights = there or find(model)
        if not there:
            _make_group(path, folder)
            target = folder / f"{weights.sha256}{SUFFIX}"
            _write(target, weights.read())
            weights = describe(target)
        copies.append(Copy(weights, new=not there))
    return copies


def install(source: str | Path) -> list[Copy]:
    """Copy the weights in a store (directory or zip) or in one file to the folder of this user.

    Files keep their name and take their model card (`.md`) with them.

    Raises
    ------
    ArgumentError
        There is no such store or file, it holds no weights, they are damaged or of an unknown kind, or their name is
        taken by others.
    """
    path = _local(source)
    if not path.exists():
        raise ArgumentError(f"{path}: no such file or directory")
    if path.name.endswith(SUFFIX):
        return [_install(path.name, read_regular(path), path.with_suffix(_CARD))]
    found = list(_in_zip(path) if zipfile.is_zipfile(path) else _in_directory(path))
    if not found:
        raise ArgumentError(
            f"{path} carries no weights ({FOLDER}/<sha256>{SUFFIX}): `isopress models embed STORE` puts them there, "
            "where they are installed"
        )
    for name, data in found:
        if sha256(data).hexdigest() != name.removesuffix(SUFFIX):
            raise ArgumentError(f"{path}: {FOLDER}/{name} is damaged, its content has another sha256; copy it again")
    return [_install(name, data) for name, data in found]


def look_up(name: str) -> Weights:
    """Return installed weights by name or the beginning of their sha256, or those in a file.

    Raises
    ------
    ModelNotFoundError
        There are none.
    ArgumentError
        The file holds no weights.
    """
    return describe(Path(name)) if name.endswith(SUFFIX) and Path(name).is_file() else find(name)


def card(weights: Weights) -> str | None:
    """Return the text of the model card that lies beside a file of weights, if there is one."""
    path = weights.path.with_suffix(_CARD)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _local(path: str | Path) -> Path:
    if "://" in str(path):
        raise ArgumentError(f"{path}: weights are read from and written to local files; download it first")
    return Path(path)


def _directory(store: str | Path, what: str) -> Path:
    path = _local(store)
    if zipfile.is_zipfile(path):
        raise ArgumentError(f"{path}: a zip file cannot be {what}; unzip it, use the directory, and zip that again")
    with ExitStack() as stack:
        open_group(path, stack)
    return path


def _folder_in(store: Path) -> Path:
    """Return where the weights of a store are; a link there could lead anywhere."""
    folder = store / FOLDER
    if folder.is_symlink():
        raise ArgumentError(f"{folder} is a symbolic link; weights that come with a store are in the store itself")
    return folder


# --- what the payloads name ---------------------------------------------------------------------------------------


def _models_of(folder: Path, array: zarr.Array[Any]) -> Iterator[str]:
    for file in _chunk_files(folder):
        try:
            with open(file, "rb") as chunk:
                for offset in payload_offsets(chunk, array):
                    chunk.seek(offset)
                    yield from inspect(chunk.read(MAX_HEADER_BYTES)).models
        except ForeignPayloadError as error:
            raise ArgumentError(f"{file} is no isopress payload; codecs behind isopress are not supported") from error
        except PayloadError as error:
            raise CorruptPayloadError(f"{file}: {error}") from error


def _chunk_files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith((".z", "zarr.json")):
            yield file


# --- files of weights ---------------------------------------------------------------------------------------------


def _embedded(folder: Path, model: str) -> Weights | None:
    """Return the weights with this id in a store, if they are there and whole."""
    for path in folder.glob(f"{model}*{SUFFIX}"):
        if path.is_file() and sha256(read_regular(path, links=False)).hexdigest().startswith(model):
            return describe(path)
    return None


def _make_group(store: Path, folder: Path) -> None:
    """Make the folder a Zarr group, so that readers of Zarr are not surprised by it."""
    with ExitStack() as stack:
        zarr_format = open_group(store, stack).metadata.zarr_format
    with quiet_zarr():
        zarr.open_group(folder, mode="a", zarr_format=zarr_format)


def _in_directory(store: Path) -> Iterator[tuple[str, bytes]]:
    if not is_zarr(store):
        raise ArgumentError(f"{store} is neither a Zarr store nor a {SUFFIX} file")
    for path in sorted(_folder_in(store).glob(f"*{SUFFIX}")):
        yield path.name, read_regular(path, links=False)


def _in_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    folder = PurePosixPath(zip_root(str(path)), FOLDER)
    with zipfile.ZipFile(path) as archive:
        for item in sorted(archive.infolist(), key=lambda item: item.filename):
            name = PurePosixPath(item.filename)
            if name.parent == folder and name.name.endswith(SUFFIX):
                if item.file_size > MAX_NBYTES:
                    raise ArgumentError(f"{path}: {name} has {item.file_size} bytes, more than weights may have")
                yield name.name, archive.read(item)


def _install(name: str, data: bytes, model_card: Path | None = None) -> Copy:
    digest = sha256(data).hexdigest()
    for weights in installed():
        if weights.sha256 == digest:
            return Copy(weights, new=False)
        if weights.path.name == name:
            raise ArgumentError(f"the name {weights.name} is taken by other weights, {weights.path}; rename the file")
    target = user_folder() / name
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, data, check=True)
    if model_card and model_card.is_file():
        _write(target.with_suffix(_CARD), read_regular(model_card))
    return Copy(describe(target), new=True)


def _write(target: Path, data: bytes, *, check: bool = False) -> None:
    """Write a file that appears complete or not at all; if `check`, only weights that can be used."""
    partial = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    try:
        partial.write_bytes(data)
        if check:
            _check_usable(target.name, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _check_usable(name: str, path: Path) -> None:
    """Raise ArgumentError unless a file holds weights of a kind and shape that this isopress uses."""
    try:
        weights = describe(path)
    except ArgumentError as error:
        raise ArgumentError(f"{name} is no whole safetensors file; copy it again") from error
    if weights.kind not in _LOADERS:
        raise ArgumentError(f"{name} holds weights of a kind that is not known here; install a newer isopress")
    try:
        weights.parsed(_LOADERS[weights.kind])
    except ModelNotFoundError as error:
        raise ArgumentError(f"{name} does not hold {weights.kind} weights: {error.__cause__!r}") from error


def _load_pyramid(weights: Weights, data: bytes) -> object:
    from isopress.codec.bounded.weights import parse

    return parse(weights, data)


def _load_latent(weights: Weights, data: bytes) -> object:
    with IMPORTS:
        from isopress.codec.latent.weights import parse

    return parse(weights, data)


def _load_vaeformer(weights: Weights, data: bytes) -> object:
    with IMPORTS:
        from isopress.codec.vaeformer.weights import parse

    return parse(weights, data)


_LOADERS = {"pyramid": _load_pyramid, "latent": _load_latent, "vaeformer": _load_vaeformer}
