"""isopress as a Zarr v3 codec: the serializer (array -> bytes) of an array or of the chunks of a shard."""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import parse_named_configuration

from isopress.codec.errors import CorruptPayloadError
from isopress.codec.threads import IMPORTS
from isopress.format.payload import PayloadInfo, parse
from isopress.format.settings import Settings


@dataclass(frozen=True)
class IsopressCodec(Settings, ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Codec `isopress` of Zarr v3; its settings are the keywords of `isopress.compress`.

    A bound holds for every chunk by itself: `mode="range"` refers to the values of one chunk, with the fill
    value that pads chunks at an edge unless that is NaN. For xarray write
    `encoding={name: {"serializer": codec, "compressors": ()}}`.

    Examples
    --------
    >>> IsopressCodec(mode="range", bound=1e-3).to_dict()
    {'name': 'isopress', 'configuration': {'mode': 'range', 'bound': 0.001}}
    """

    codec_name: ClassVar[str] = "isopress"
    is_fixed_size: ClassVar[bool] = False  # type: ignore[misc]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the codec that the metadata of an array describes."""
        settings: Any = parse_named_configuration(data, cls.codec_name, require_configuration=False)[1]
        return cls(**(settings or {}))

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as the metadata of an array describes it."""
        return {"name": self.codec_name, "configuration": self.to_config()}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Raise ArgumentError unless chunks of such an array can be coded with these settings."""
        irregular = (*shape[:1], *(1 for _ in shape[1:]))  # its chunks are checked one by one when they are written
        self.check(dtype.to_native_dtype(), getattr(chunk_grid, "chunk_shape", irregular))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise NotImplementedError: the size depends on the values."""
        raise NotImplementedError("the size of an isopress payload depends on the values")

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._compress, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decompress, chunk_data, chunk_spec, (), to_write=True)

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        data = await byte_getter.get(prototype=chunk_spec.prototype)
        if data is None:
            return None
        return await asyncio.to_thread(self._decompress, data, chunk_spec, selection, to_write=False)

    # Not named `_encode_sync`: Zarr 3.4 would take the codec for one without partial reads.
    def _compress(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        with IMPORTS:  # not before there is something to encode
            from isopress.format import rewrites

        encoded = rewrites.encode(chunk_data.as_numpy_array(), self)
        return chunk_spec.prototype.buffer.from_bytes(encoded)

    def _decompress(self, chunk_data: Buffer, chunk_spec: ArraySpec, selection: Any, *, to_write: bool) -> NDBuffer:
        """Return the selected values of a chunk; `to_write` says that Zarr is about to change some of them.

        Raises
        ------
        CorruptPayloadError
            The payload does not hold what the array's metadata promises. Otherwise as `isopress.decompress`.
        """
        with IMPORTS:
            from isopress.format import api, rewrites

        parsed = parse(chunk_data.as_numpy_array())
        dtype = chunk_spec.dtype.to_native_dtype()
        _check_chunk(parsed.info, chunk_spec.shape, dtype)
        array = api.decode(parsed, selection)
        if _is_all(selection, chunk_spec.shape):
            rewrites.remember(parsed, array, self, to_write=to_write)
        # Metadata of v3 holds no byte order; payloads do.
        return chunk_spec.prototype.nd_buffer.from_numpy_array(np.asarray(array, dtype))


def _is_all(selection: Any, shape: tuple[int, ...]) -> bool:
    """Whether a selection is every value of a chunk, in order."""
    if not isinstance(selection, tuple):
        return False
    parts = zip(selection, shape, strict=False)
    return all(isinstance(part, slice) and part.indices(size) == (0, size, 1) for part, size in parts)


def _check_chunk(info: PayloadInfo, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse, before anything is allocated, a payload that does not hold the chunk the metadata promises."""
    if info.shape != shape or info.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise CorruptPayloadError(
            f"the payload holds {info.dtype} of shape {info.shape}, but the array's metadata says {dtype} "
            f"of shape {shape}"
        )
