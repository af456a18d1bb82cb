"""Chunks that were decoded lately, so that whoever reads one field by field decodes each field once.

Entries are found by a hash of the whole payload, so they can never be stale. The cache holds decoders, not arrays:
a decoder knows the fields it has, and decodes the others when they are asked for.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isopress.codec.errors import ArgumentError

if TYPE_CHECKING:
    from isopress.codec.chunk.decode import ChunkDecoder
    from isopress.format.layers import LayeredDecoder

    Decoder = ChunkDecoder | LayeredDecoder

DEFAULT_MEGABYTES = 256.0  # of 2^20 bytes
VARIABLE = "ISOPRESS_CACHE_MB"
_KEEPING: ContextVar[bool] = ContextVar("isopress_decode_cache", default=True)


@dataclass
class _Entry:
    """A decoder, made when the first reader holds the lock, and what it may come to occupy."""

    nbytes: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    decoder: "Decoder | None" = None


class DecodeCache:
    """A cache of at most `limit` bytes that forgets what was not used for the longest time.

    Threads that want the same chunk wait for each other; different chunks are decoded at the same time.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self.clear()

    @property
    def limit(self) -> int:
        """Largest sum of bytes; as long as nobody has set it, what the environment says."""
        if self._limit is not None:
            return self._limit
        return _as_limit(os.environ.get(VARIABLE, DEFAULT_MEGABYTES), f"the environment variable {VARIABLE}")

    @limit.setter
    def limit(self, nbytes: int) -> None:
        with self._lock:
            self._limit = nbytes
            self._shrink(nbytes)

    @property
    def nbytes(self) -> int:
        """What the chunks in the cache occupy when all of their fields are decoded."""
        return self._nbytes

    @contextmanager
    def decoder(self, data: memoryview, nbytes: int, start: Callable[[], "Decoder"]) -> "Iterator[Decoder]":
        """Give the decoder of a payload to one thread at a time; arrays it returns are to be copied in here.

        Parameters
        ----------
        data : memoryview
            The payload.
        nbytes : int
            What the decoder will occupy; beyond the limit it is not kept.
        start : callable
            Makes the decoder when there is none yet.

        Raises
        ------
        ArgumentError
            The environment variable `ISOPRESS_CACHE_MB` is no size. Whatever `start` raises comes through.
        """
        key = hashlib.blake2b(data, digest_size=16).digest()
        entry = self._entry(key, nbytes)
        with entry.lock:
            try:
                if entry.decoder is None:
                    entry.decoder = start()
                yield entry.decoder
            except BaseException:
                self._forget(key)  # of a damaged payload nothing is kept
                raise

    def clear(self) -> None:
        """Forget every chunk and every lock, also those that threads of a forked process's parent held."""
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._nbytes = 0

    def _entry(self, key: bytes, nbytes: int) -> _Entry:
        limit = self.limit
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
            entry = _Entry(nbytes)
            if nbytes <= limit:
                self._entries[key] = entry
                self._nbytes += nbytes
                self._shrink(limit)
            return entry

    def _shrink(self, limit: int) -> None:
        while self._nbytes > limit:
            self._nbytes -= self._entries.popitem(last=False)[1].nbytes

    def _forget(self, key: bytes) -> None:
        with self._lock:
            if entry := self._entries.pop(key, None):
                self._nbytes -= entry.nbytes


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Leave the cache alone in here: for those who read each chunk once, and all of it."""
    token = _KEEPING.set(False)
    try:
        yield
    finally:
        _KEEPING.reset(token)


def keeping() -> bool:
    """Return whether what is decoded now is to be kept."""
    return _KEEPING.get()


def set_cache_size(megabytes: float) -> None:
    """Let the decode cache of this process hold at most `megabytes` (of 2^20 bytes); 0 switches it off.

    Raises
    ------
    ArgumentError
        The size is not a number >= 0.
    """
    CACHE.limit = _as_limit(megabytes, "the size of the decode cache")


def _as_limit(megabytes: float | str, what: str) -> int:
    try:
        limit = int(float(megabytes) * 2**20)
    except (TypeError, ValueError, OverflowError):
        limit = -1
    if limit < 0:
        raise ArgumentError(f"{what} is a number of megabytes >= 0, got {megabytes!r}")
    return limit


CACHE = DecodeCache()
if hasattr(os, "register_at_fork"):  # a child has no thread that could release a lock it inherits
    os.register_at_fork(after_in_child=CACHE.clear)
