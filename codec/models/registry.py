"""Files of weights: where they are looked for, and whether they are what a name or a sha256 says.

A file is looked for in the package, then in the folders of the environment variable ISOPRESS_MODELS, then in the
user's own folder. Names are for writers; readers go by the sha256 in the payload, and then the content decides.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar, get_args

from isopress.codec.errors import ArgumentError, ModelNotFoundError
from isopress.codec.threads import IMPORTS

Kind = Literal["pyramid", "latent", "vaeformer"]
Model = TypeVar("Model")

SUFFIX = ".safetensors"
VARIABLE = "ISOPRESS_MODELS"
PACKAGE_FOLDER = Path(__file__).parent
REMEDY = (
    "Get them with `isopress models install STORE_OR_FILE` (a store can carry its weights), "
    "or install the isopress version that wrote the data, or a newer one"
)

MAX_NBYTES = 2**31  # of a file of weights; larger ones are passed over
MAX_HEADER_NBYTES = 2**24  # of the JSON in it
ID_DIGITS = 32  # of a sha256, as many as a payload holds

# What parsing raises of foreign tensors and texts; torch's errors of shapes and memory are RuntimeErrors.
_NOT_AS_READ = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError)

_ID = re.compile("[0-9a-f]{16,64}")  # of a sha256; fewer digits could be a name, or chance
_KIND = "kind"  # in the metadata of a file


@dataclass(frozen=True)
class NamedModel:
    """The weights that a writer asks for: their name or sha256, and the channels of what they code if these come in
    another order than in the weights."""

    name: str = "default"
    channels: tuple[str, ...] = ()


DEFAULT = NamedModel()  # the weights that come with each coding


@dataclass(frozen=True)
class Weights:
    """A file of weights: its kind ("unknown" if it does not tell), content hash, size and text metadata."""

    kind: str
    path: Path
    sha256: str
    nbytes: int
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """What writers call the weights: the name of the file."""
        return self.path.name.removesuffix(SUFFIX)

    def read(self) -> bytes:
        """Return the content of the file.

        Raises
        ------
        ModelNotFoundError
            It is no longer what was found.
        """
        data = read_regular(self.path)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ModelNotFoundError(f"{self.path} has changed since it was found; its sha256 was {self.sha256}")
        return data

    def parsed(self, parse: Callable[[Weights, bytes], Model]) -> Model:
        """Return what `parse` makes of the content.

        Raises
        ------
        ModelNotFoundError
            The file has not the tensors or texts that weights of its kind have, or has changed.
        """
        with IMPORTS:  # here, so that opening a store does not pay for it
            from safetensors import SafetensorError

        data = self.read()
        try:
            return parse(self, data)
        except (*_NOT_AS_READ, SafetensorError) as error:
            raise ModelNotFoundError(
                f"{self.path} does not hold {self.kind} weights as this isopress reads them "
                f"({type(error).__name__}: {error}). {REMEDY}"
            ) from error


def folders() -> tuple[Path, ...]:
    """Return where weights are looked for, first to last; not all of the folders need exist."""
    named = (Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part)
    return tuple(dict.fromkeys((PACKAGE_FOLDER, *named, user_folder())))


def user_folder() -> Path:
    """Return the folder of this user's own weights, where the system keeps the data of programs."""
    with IMPORTS:  # here, so that reading with the weights of the package is light
        from platformdirs import user_data_path

    return user_data_path("isopress", appauthor=False) / "models"


def is_id(name: str) -> bool:
    """Return whether `name` is a sha256, or at least 16 hexadecimal digits that one begins with."""
    return _ID.fullmatch(name.lower()) is not None


def find(name_or_id: str, kind: Kind | None = None) -> Weights:
    """Return the weights of this name, or whose content has a sha256 that begins with these digits.

    Parameters
    ----------
    name_or_id : str
        Name of a file without `.safetensors`, the first folder wins; or at least 16 hexadecimal digits.
    kind : {"pyramid", "latent", "vaeformer"}, optional
        What the weights are for; any if left out.

    Raises
    ------
    ModelNotFoundError
        There are no such weights, or they are of another kind.
    """
    if not is_id(name_or_id):
        return _find_name(name_or_id, kind)
    wanted = name_or_id.lower()
    # Copies in stores are named by their sha256: looking at those first saves hashing all others.
    for path in sorted(_files(), key=lambda path: not path.name.startswith(wanted)):
        found = _described(path)
        if found and kind in (None, found[0]) and _sha256(path).startswith(wanted):
            return describe(path)
    misnamed = ", ".join(str(path) for path in _files() if path.name.startswith(wanted))
    raise ModelNotFoundError(
        f"no {_of(kind)} with sha256 {wanted}{_looked_in(kind)}"
        + (f"; damaged, or of another kind: {misnamed}" if misnamed else "")
        + f". {REMEDY}"
    )


def is_of_kind(name_or_id: str, kind: Kind) -> bool:
    """Return whether there are weights of this name or id, and they are of this kind."""
    if name_or_id == DEFAULT.name:
        return False
    try:
        return find(name_or_id).kind == kind
    except ModelNotFoundError:
        return False


def model_id(name_or_id: str, kind: Kind) -> str:
    """Return the id, as payloads hold it, of the weights of this name or id; of a whole id without a look at files.

    Raises as `find` does.
    """
    complete = is_id(name_or_id) and len(name_or_id) >= ID_DIGITS
    return (name_or_id.lower() if complete else find(name_or_id, kind).sha256)[:ID_DIGITS]


def describe(path: Path) -> Weights:
    """Return what a file of weights is.

    Raises
    ------
    ArgumentError
        It is no safetensors file.
    """
    found = _described(path)
    if found is None:
        raise ArgumentError(f"{path} is not a whole safetensors file, so it holds no weights")
    kind, metadata = found
    return Weights(kind, path, _sha256(path), path.stat().st_size, metadata)


def read_regular(path: Path, *, links: bool = True) -> bytes:
    """Return the content of an ordinary file of at most `MAX_NBYTES`; of nothing else a byte is read.

    Parameters
    ----------
    path : Path
    links : bool
        Whether a symbolic link is followed. Of files that came with data none should be.

    Raises
    ------
    ArgumentError
        It is a directory, pipe, device, a link that is not followed, or too large.
    """
    # A pipe would block until somebody writes to it, were it not for O_NONBLOCK.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not links and path.is_symlink():
        raise ArgumentError(f"{path} is a symbolic link; weights that come with data are files of their own")
    file = os.open(path, flags if links else flags | getattr(os, "O_NOFOLLOW", 0))
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_NBYTES:
            raise ArgumentError(f"{path} is no file of at most {MAX_NBYTES} bytes, so it holds no weights")
        with open(file, "rb", closefd=False) as content:
            return content.read()
    finally:
        os.close(file)


def installed(kind: Kind | None = None) -> list[Weights]:
    """Return all weights that can be found, or those of one kind, in the order in which they are looked at."""
    return [describe(path) for path in _files() if (found := _described(path)) and kind in (None, found[0])]


def _find_name(name: str, kind: Kind | None) -> Weights:
    plain = os.path.basename(name) == name  # a path from the metadata of a store leads nowhere
    for path in (folder / (name + SUFFIX) for folder in folders()):
        if not plain or not os.path.exists(path):
            continue
        if not _described(path):
            raise ModelNotFoundError(f"{path} is not a whole safetensors file, so it holds no weights. {REMEDY}")
        weights = describe(path)
        if kind in (None, weights.kind):
            return weights
        raise ModelNotFoundError(f"{name!r} are {weights.kind} weights ({path}), but {_of(kind)} are needed")
    raise ModelNotFoundError(f"no {_of(kind)} {name!r}{_looked_in(kind)}. {REMEDY}")


def _of(kind: Kind | None) -> str:
    return f"{kind} weights" if kind else "weights"


def _looked_in(kind: Kind | None) -> str:
    names = dict.fromkeys(weights.name for weights in installed(kind))
    return f"; looked in {', '.join(map(str, folders()))}; there are: {', '.join(names) or 'none'}"


def _files() -> Iterator[Path]:
    for folder in folders():
        if os.path.isdir(folder):  # False also where looking is not allowed
            yield from sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))


def _described(path: Path) -> tuple[str, dict[str, str]] | None:
    """Return kind and metadata from the header of a safetensors file; None if it is none, or not whole."""
    with IMPORTS:
        from safetensors import SafetensorError, safe_open

    status = os.stat(path) if os.path.exists(path) else None
    if status is None or not stat.S_ISREG(status.st_mode) or not 8 < status.st_size <= MAX_NBYTES:
        return None
    with open(path, "rb") as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER_NBYTES:
            return None
    try:
        with safe_open(path, framework="numpy") as tensors:
            metadata = dict(tensors.metadata() or {})
    except (SafetensorError, OSError):
        return None
    kind = metadata.get(_KIND, "")
    return (kind if kind in get_args(Kind) else "unknown", metadata)


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@cache
def _sha256_of(path: Path, size: int, modified: int) -> str:
    """Hash a file once per process; size and time of its last change are there to tell contents apart."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
