"""What the headers of payloads say: achieved errors and models. Of each chunk a few hundred bytes are read."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from isopress.codec.errors import PayloadError, TruncatedPayloadError
from isopress.format.payload import MAX_HEADER_BYTES, PayloadInfo, inspect

MOST = 4096  # headers of one array; of larger ones these are evenly spread
_FIRST_BYTES = 512  # of a payload, in which most headers fit
_AT_ONCE = 64  # reads under way
_INDEX_ENTRY, _INDEX_CHECKSUM = 16, 4  # bytes: offset and length of each chunk in a shard, then a CRC
_ABSENT = np.iinfo("u8").max

Place = tuple[str, int, int]  # key of an object, offset of a payload in it, bytes to read


@dataclass(frozen=True)
class Headers:
    """What headers say together: chunks that were read, those that are damaged, errors in the unit of the data.

    `rmse` weighs all chunks by the values they have in the array, as headers do not count missing ones. The errors are
    None if no header was read, or if chunks hold several variables, whose errors are parts of their bounds.
    """

    read: int
    damaged: int
    max_error: float | None
    rmse: float | None
    models: tuple[str, ...]


@dataclass(frozen=True)
class Objects:
    """The objects an array consists of: how many there should be, and the keys of those there are.

    Not `listed`: the store cannot say which there are, as behind a web server; then `present` are some there may be.
    """

    expected: int
    present: tuple[str, ...]
    listed: bool = True


def list_objects(array: zarr.Array[Any]) -> Objects:
    """Return the chunks or shards of an array that exist; nothing is read."""
    prefix = f"{array.path}/" if array.path else ""
    sizes = array.shards or array.chunks
    grid = [-(-size // step) for size, step in zip(array.shape, sizes, strict=True)]
    if not array.store.supports_listing:
        some = (np.unravel_index(number, grid) for number in _spread(range(math.prod(grid)), MOST))
        keys = [array.metadata.encode_chunk_key(tuple(map(int, index))) for index in some]
        return Objects(math.prod(grid), tuple(prefix + key for key in keys), listed=False)
    names = {name for name in sync(_listed(array.store, prefix)) if not name.endswith("/")}  # folders in a zip
    found = (name for name in names if not name.rpartition("/")[2].startswith((".z", "zarr.json")))
    return Objects(math.prod(grid), tuple(sorted(found)))


def read_headers(array: zarr.Array[Any], objects: Objects) -> Headers:
    """Return what the headers of the payloads say, of `MOST` of them if there are more."""
    keys = _spread(objects.present, MOST)
    places = _spread(sync(_places(array, keys)), MOST)
    heads = sync(_gathered(_head(array.store, place) for place in places))
    read = [(place, head) for place, head in zip(places, heads, strict=True) if head or objects.listed]
    found = [(place, _info(head)) for place, head in read]
    infos = [info for _, info in found if info is not None]
    weights = [max(_values_inside(array, place[0]), 1) for place, info in found if info is not None]
    known = bool(infos) and all(info.mode != "joint" for info in infos)
    squares = sum(weight * info.rmse**2 for weight, info in zip(weights, infos, strict=True))
    return Headers(
        len(infos),
        len(found) - len(infos),
        max(info.max_error for info in infos) if known else None,
        math.sqrt(squares / sum(weights)) if known else None,
        tuple(sorted({model for info in infos for model in info.models})),
    )


async def _listed(store: Store, prefix: str) -> list[str]:
    return [key async for key in store.list_prefix(prefix)]


async def _places(array: zarr.Array[Any], keys: Sequence[str]) -> list[Place]:
    """Return where payloads start: at the start of an object, or where the index of a shard says."""
    metadata: Any = array.metadata
    codec = metadata.codecs[0] if metadata.zarr_format == 3 else None
    if not isinstance(codec, ShardingCodec):
        return [(key, 0, _FIRST_BYTES) for key in keys]
    if [type(index) for index in codec.index_codecs] != [BytesCodec, Crc32cCodec]:
        return []  # an index that no usual writer makes
    entries = math.prod(array.shards or ()) // math.prod(array.chunks)
    nbytes = entries * _INDEX_ENTRY + _INDEX_CHECKSUM
    at_end = codec.index_location.value == "end"
    part = SuffixByteRequest(nbytes) if at_end else RangeByteRequest(0, nbytes)
    indexes = await _gathered(_read(array.store, key, part) for key in keys)
    return [
        (key, int(offset), min(int(length), _FIRST_BYTES))
        for key, index in zip(keys, indexes, strict=True)
        if len(index) == nbytes
        for offset, length in np.frombuffer(index[:-_INDEX_CHECKSUM], "<u8").reshape(-1, 2)
        if offset != _ABSENT
    ]


async def _head(store: Store, place: Place) -> bytes:
    """Return the start of a payload, as much as its header takes."""
    key, offset, nbytes = place
    head = await _read(store, key, RangeByteRequest(offset, offset + nbytes))
    try:
        inspect(head)
    except TruncatedPayloadError:
        return await _read(store, key, RangeByteRequest(offset, offset + MAX_HEADER_BYTES))
    except PayloadError:
        return head  # whoever counts the damaged ones finds out again
    return head


async def _read(store: Store, key: str, part: ByteRequest) -> bytes:
    try:
        found = await store.get(key, default_buffer_prototype(), byte_range=part)
    except (OSError, ValueError, OverflowError):  # an offset beyond the object
        return b""
    return b"" if found is None else found.to_bytes()


async def _gathered(reads: Iterable[Any]) -> list[Any]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(read: Any) -> Any:
        async with gate:
            return await read

    return await asyncio.gather(*map(one, reads))


def _info(head: bytes) -> PayloadInfo | None:
    try:
        return inspect(head)
    except PayloadError:
        return None


def _values_inside(array: zarr.Array[Any], key: str) -> int:
    """Return how many values of an object lie inside the array: those at its end are filled up."""
    sizes = array.shards or array.chunks
    tail = key.removeprefix(array.path).replace("/", ".").split(".")
    places = [int(part) for part in tail[-len(sizes) :] if part.isdecimal()]
    if len(places) != len(sizes):
        return math.prod(sizes)
    return math.prod(
        min(step, size - place * step) for place, step, size in zip(places, sizes, array.shape, strict=True)
    )


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return up to `most` items, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]
