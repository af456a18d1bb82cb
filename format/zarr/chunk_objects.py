"""The objects that a Zarr array consists of, files or keys: where they are, and where payloads lie in them."""

import itertools
import math
import os
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from isopress.codec.errors import ArgumentError

Region = tuple[slice, ...]


def object_keys(array: zarr.Array[Any], region: Region) -> Iterator[str]:
    """Yield the keys, below the array's path, of the shards or chunks that a region of whole ones consists of."""
    sizes = array.shards or array.chunks
    grid = (range(part.start // size, -(-part.stop // size)) for part, size in zip(region, sizes, strict=True))
    for index in itertools.product(*grid):
        yield array.metadata.encode_chunk_key(index)


def read_object(array: zarr.Array[Any], key: str) -> bytes | None:
    """Return the content of a shard or chunk; None where there is none, which means nothing but fill values."""
    place: StorePath = array.store_path / key
    found = sync(place.get())
    return None if found is None else found.to_bytes()


def write_object(array: zarr.Array[Any], key: str, content: bytes | None) -> None:
    """Write a shard or chunk as it was read; None removes it."""
    place: StorePath = array.store_path / key
    sync(place.delete() if content is None else place.set(default_buffer_prototype().buffer.from_bytes(content)))


def payload_sizes(content: bytes, array: zarr.Array[Any]) -> list[tuple[int, int]]:
    """Return offset and length of each payload in an object: the whole, or what the index of a shard names."""
    if _sharding(array) is None:
        return [(0, len(content))]
    return [(int(offset), int(length)) for offset, length in _index(BytesIO(content), array)]


def payloads_by_chunk(content: bytes, array: zarr.Array[Any], key: str) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Yield of each payload in an object the place of its chunk in the grid of chunks, offset and length."""
    place = [int(part) for part in key.replace("/", ".").split(".") if part.isdecimal()]
    if _sharding(array) is None:
        yield tuple(place), 0, len(content)
        return
    inside = [shard // chunk for shard, chunk in zip(array.shards or (), array.chunks, strict=True)]
    for number, (offset, length) in enumerate(_entries(BytesIO(content), array)):
        if offset != np.iinfo("u8").max:
            within = np.unravel_index(number, inside)
            chunk = tuple(a * b + int(c) for a, b, c in zip(place, inside, within, strict=True))
            yield chunk, int(offset), int(length)


def payload_offsets(chunk: BinaryIO, array: zarr.Array[Any]) -> list[int]:
    """Return where payloads start in an open file: at its start, or where the index of a shard says."""
    return [0] if _sharding(array) is None else [int(offset) for offset in _index(chunk, array)[:, 0]]


def _sharding(array: zarr.Array[Any]) -> ShardingCodec | None:
    metadata: Any = array.metadata
    codec = metadata.codecs[0] if metadata.zarr_format == 3 else None
    return codec if isinstance(codec, ShardingCodec) else None


def _index(chunk: BinaryIO, array: zarr.Array[Any]) -> np.ndarray[Any, Any]:
    """Return offsets and lengths, (n, 2), of the chunks that are in a shard."""
    index = _entries(chunk, array)
    return np.asarray(index[index[:, 0] != np.iinfo("u8").max])


def _entries(chunk: BinaryIO, array: zarr.Array[Any]) -> np.ndarray[Any, Any]:
    """Return offsets and lengths, (n, 2), of all chunks that a shard may have, in order."""
    codec: Any = _sharding(array)
    if [type(c) for c in codec.index_codecs] != [BytesCodec, Crc32cCodec]:
        raise ArgumentError(f"{array.name}: shards with an index of codecs {codec.index_codecs} are not supported")
    entries = math.prod(array.shards or ()) // math.prod(array.chunks)
    nbytes = 16 * entries + 4  # offset and length of each chunk, then a checksum
    if codec.index_location.value == "end":
        chunk.seek(-nbytes, os.SEEK_END)
    return np.frombuffer(chunk.read(nbytes - 4), "<u8").reshape(entries, 2)
