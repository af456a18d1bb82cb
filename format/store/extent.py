"""Arrays that grow along one dimension: what is written lies behind the old end until the metadata says so."""

from dataclasses import dataclass, replace
from typing import Any

import zarr

from isopress.format.zarr.chunk_objects import Region
from isopress.format.zarr.groups import dimensions


@dataclass(frozen=True)
class Extent:
    """How a store grows along `dim`: from length `old` to `new`; its place i is place i - `shift` of the source."""

    dim: str
    old: int
    new: int
    shift: int

    def grown(self, array: zarr.Array[Any]) -> zarr.Array[Any]:
        """Return the array as long as it will be; the metadata in its store stay as they are."""
        shape = tuple(
            self.new if dim == self.dim else size for dim, size in zip(dimensions(array), array.shape, strict=True)
        )
        inner = array.async_array
        metadata: Any = inner.metadata
        return zarr.Array(replace(inner, metadata=metadata.update_shape(shape)))

    def in_source(self, array: zarr.Array[Any], region: Region) -> Region:
        """Return where a region of the array is in the source."""
        return tuple(
            slice(part.start - self.shift, part.stop - self.shift) if dim == self.dim else part
            for dim, part in zip(dimensions(array), region, strict=True)
        )

    def before(self, array: zarr.Array[Any], region: Region) -> Region | None:
        """Return what was there before of the shards or chunks that a region lies in; None if nothing was."""
        sizes = array.shards or array.chunks
        parts = tuple(
            slice(part.start // size * size, min(part.stop, self.old)) if dim == self.dim else part
            for dim, part, size in zip(dimensions(array), region, sizes, strict=True)
        )
        return parts if all(part.start < part.stop for part in parts) else None
