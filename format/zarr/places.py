"""URLs that Zarr does not open by itself: repositories of icechunk, and object stores by obstore.

    icechunk+file:///data/repo    icechunk+s3://bucket/prefix    icechunk+gs://bucket/prefix#branch
    obstore+s3://bucket/x.zarr    obstore+file:///data/x.zarr    (whatever obstore's from_url takes)

Credentials are found as those packages find them. A repository is written in one transaction: a commit at the end, or
nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

from zarr.abc.store import Store
from zarr.core.sync import sync

from isopress.codec.errors import ArgumentError

ICECHUNK, OBSTORE = "icechunk+", "obstore+"
MAIN = "main"
_sessions: dict[str, Any] = {}  # of icechunk, by URL: what this process is writing


def place(url: str) -> str | Store:
    """Return what Zarr opens: the URL itself, or a store.

    Raises
    ------
    ArgumentError
        The package for such URLs is missing, or there is nothing of the kind.
    """
    if url.startswith(OBSTORE):
        return _object_store(url)
    if not url.startswith(ICECHUNK):
        return url
    if url in _sessions:
        store: Store = _sessions[url].store
        return store
    opened: Store = _repository(url, create=False).readonly_session(_branch(url)).store
    return opened


def is_transaction(url: str) -> bool:
    """Whether what is written to a URL appears by a commit."""
    return url.startswith(ICECHUNK)


def snapshot(url: str) -> str:
    """Return the name of the newest snapshot behind the URL of a repository."""
    return str(_repository(url, create=False).lookup_branch(_branch(url)))


@contextmanager
def transaction(url: str, message: str, *, create: bool, overwrite: bool = False) -> Iterator[str]:
    """Give the URL of a repository to write to, alone in this process; commit at the end, leave all as it was if not.

    Raises
    ------
    ArgumentError
        There is a store and `overwrite` is not set, another run of this process writes it, or one has committed
        meanwhile.
    """
    import icechunk

    if url in _sessions:
        raise ArgumentError(f"{url} is being written by another run")
    session = _repository(url, create=create).writable_session(_branch(url))
    if create and not sync(session.store.is_empty("")):
        if not overwrite:
            raise ArgumentError(f"{url} exists; replace it with --overwrite")
        sync(session.store.clear())
    _sessions[url] = session
    try:
        yield url
        session.commit(message)
    except icechunk.ConflictError as error:
        raise ArgumentError(f"{url} was changed by another run meanwhile; run again") from error
    finally:
        del _sessions[url]


@lru_cache(maxsize=32)
def _object_store(url: str) -> Store:
    _check("obstore", url)
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    plain = url.removeprefix(OBSTORE)
    try:
        options: dict[str, Any] = {"mkdir": True} if plain.startswith("file:") else {}
        return ObjectStore(from_url(plain, **options))
    except Exception as error:  # it has many kinds
        raise ArgumentError(f"{url}: cannot be opened ({error})") from error


def _repository(url: str, *, create: bool) -> Any:
    _check("icechunk", url)
    import icechunk

    storage = _storage(url)
    if "ICECHUNK_LOG" not in os.environ:
        icechunk.set_logs_filter("error")  # it says of each local folder that commits at once are not safe there
    try:
        return icechunk.Repository.open_or_create(storage) if create else icechunk.Repository.open(storage)
    except icechunk.IcechunkError as error:
        raise ArgumentError(f"{url}: no repository of icechunk ({str(error).splitlines()[0]})") from error


def _storage(url: str) -> Any:
    import icechunk

    parts = urlsplit(url.removeprefix(ICECHUNK))
    prefix = parts.path.strip("/")
    if parts.scheme == "file":
        return icechunk.local_filesystem_storage(unquote(parts.path))
    if parts.scheme == "s3":
        server = os.environ.get("AWS_ENDPOINT_URL")
        http = bool(server and server.startswith("http:"))
        plain: dict[str, Any] = {"endpoint_url": server, "allow_http": http, "force_path_style": True}
        return icechunk.s3_storage(bucket=parts.netloc, prefix=prefix, from_env=True, **(plain if server else {}))
    if parts.scheme == "gs":
        return icechunk.gcs_storage(bucket=parts.netloc, prefix=prefix, from_env=True)
    raise ArgumentError(f"{url}: repositories of icechunk are at icechunk+file://, icechunk+s3:// or icechunk+gs://")


def _branch(url: str) -> str:
    return urlsplit(url).fragment or MAIN


def _check(package: str, url: str) -> None:
    if not find_spec(package):
        raise ArgumentError(f"{url}: needs {package}; pip install {package}")
