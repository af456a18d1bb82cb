"""Files of weights: where they are looked for, and whether they are what a name or a sha256 says. A leaf: no numpy.

A file is looked for in the package, then in the folders of the environment variable ISOPRESS_MODELS, then in the
user's own folder. Names are for writers; readers go by the sha256 in the payload, and then the content decides.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from isopress.codec.errors import ArgumentError, ModelNotFoundError

Kind = Literal["pyramid", "latent", "vaeformer"]

SUFFIX = ".safetensors"
VARIABLE = "ISOPRESS_MODELS"
PACKAGE_FOLDER = Path(__file__).parent
REMEDY = (
    "Get them with `isopress models install STORE_OR_FILE` (a store can carry its weights), "
    "or install the isopress version that wrote the data, or a newer one"
)

_ID = re.compile("[0-9a-f]{16,64}")  # of a sha256; fewer digits could be a name, or chance
_KIND = "kind"  # in the metadata of a file
_PYRAMID_TENSOR = "tables.frequencies"  # pyramids without metadata have it


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
        data = self.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ModelNotFoundError(f"{self.path} has changed since it was found; its sha256 was {self.sha256}")
        return data


def folders() -> tuple[Path, ...]:
    """Return where weights are looked for, first to last; not all of the folders need exist."""
    named = (Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part)
    return tuple(dict.fromkeys((PACKAGE_FOLDER, *named, user_folder())))


def user_folder() -> Path:
    """Return the folder of this user's own weights, where the system keeps the data of programs."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Application Support")
    else:  # XDG Base Directory Specification: a relative path is to be ignored
        base = os.environ.get("XDG_DATA_HOME", "")
        base = base if os.path.isabs(base) else os.path.join(home, ".local", "share")
    return Path(base, "isopress", "models")


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


def kind_of(content: bytes) -> str | None:
    """Return the kind of the weights that a file with this content holds, "unknown", or None if it holds none."""
    found = _read_header(io.BytesIO(content), len(content))
    return found[0] if found else None


def installed(kind: Kind | None = None) -> list[Weights]:
    """Return all weights that can be found, or those of one kind, in the order in which they are looked at."""
    return [describe(path) for path in _files() if (found := _described(path)) and kind in (None, found[0])]


def _find_name(name: str, kind: Kind | None) -> Weights:
    for path in _files():
        if path.name == name + SUFFIX:
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
    with open(path, "rb") as file:
        return _read_header(file, path.stat().st_size)


def _read_header(file: BinaryIO, size: int) -> tuple[str, dict[str, str]] | None:
    """Return kind and metadata from the header of a safetensors file; None if it is none, or not whole.

    The header is a length (u64), then JSON of that length: where each tensor lies, and texts under `__metadata__`.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= size - 8:
        return None
    try:
        header: dict[str, Any] = json.loads(file.read(length))
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    if 8 + length + end != size:
        return None
    kind = metadata.get(_KIND, "pyramid" if _PYRAMID_TENSOR in header else "")
    return (kind if kind in get_args(Kind) else "unknown", metadata)


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@cache
def _sha256_of(path: Path, size: int, modified: int) -> str:
    """Hash a file once per process; size and time of its last change are there to tell contents apart."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
