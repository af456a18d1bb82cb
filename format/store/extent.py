"""Arrays that grow along one dimension: what is written lies behind the old end until the metadata says so."""

from dataclasses import dataclass, replace
from typing import Any

import zarr

from isopress.format.zarr.chunk_objects import Region
from isopress.format.zarr.groups import dimensions


@dataclass(frozen=True)
class Extent:
    """How a store grows along `dim`: from length `old` to `new`; its place i is place i - `shift` of the source.

    With `pieces` a chunk that is not full keeps its values and gets the new ones as a layer.
    """

    dim: str
    old: int
    new: int
    shift: int
    pieces: bool = False

    def axis(self, array: zarr.Array[Any]) -> int:
        """Return the axis along which an array grows; 0 if it does not."""
        dims = dimensions(array)
        return dims.index(self.dim) if self.dim in dims else 0

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

    def before(self, array: zarr.Array[Any], begin: int) -> Region | None:
        """Return what was there of the shards or chunks that are written from `begin` on; None if nothing was."""
        axis = self.axis(array)
        size = (array.shards or array.chunks)[axis]
        first = begin // size * size
        whole = [slice(0, length) for length in array.shape]
        return (*whole[:axis], slice(first, self.old), *whole[axis + 1 :]) if first < self.old else None

    def behind(self, array: zarr.Array[Any], begin: int) -> Region:
        """Return what was there of the array from `begin` on."""
        axis = self.axis(array)
        whole = [slice(0, length) for length in array.shape]
        return (*whole[:axis], slice(begin, self.old), *whole[axis + 1 :])
