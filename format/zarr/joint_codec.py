"""The Zarr v3 codec of a variable whose values lie in an array that it shares with other variables.

Variables that are coded jointly are channels of one *joint array*, the first axis of its chunks. Each variable is an
array of its own in the metadata, so that any reader of Zarr sees it as usual, but has no chunks: its codec reads the
payload of the joint array's chunk and takes its channel. SPEC.md, "Zarr metadata".
"""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from posixpath import dirname, join
from typing import Any, ClassVar, NoReturn, Self

from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import parse_named_configuration
from zarr.storage import StorePath

from isopress.codec.errors import ArgumentError, CorruptPayloadError
from isopress.format.zarr.v3_codec import decode_part

_CHUNK_KEY = re.compile(r"(?P<array>.+)/c(?P<index>([/.][0-9]+)+)")


@dataclass(frozen=True)
class JointCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Codec `isopress.joint` of Zarr v3: reads one channel of a joint array; it never writes.

    Parameters
    ----------
    array : str
        Path of the joint array, relative to the group that holds the variable.
    channel : int
        Position of the variable on the first axis of the joint array, >= 0.

    Raises
    ------
    ArgumentError
        The path leaves the group, or the channel is no position.
    """

    codec_name: ClassVar[str] = "isopress.joint"
    is_fixed_size: ClassVar[bool] = False  # type: ignore[misc]

    array: str
    channel: int

    def __post_init__(self) -> None:
        if not isinstance(self.array, str) or any(part in ("", ".", "..") for part in self.array.split("/")):
            raise ArgumentError(f"the joint array is a path inside the group of the variable, not {self.array!r}")
        if not isinstance(self.channel, int) or isinstance(self.channel, bool) or self.channel < 0:
            raise ArgumentError(f"channel is an integer >= 0, got {self.channel!r}")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the codec that the metadata of an array describes."""
        settings: Any = parse_named_configuration(data, cls.codec_name)[1]
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as the metadata of an array describes it."""
        return {"name": self.codec_name, "configuration": {"array": self.array, "channel": self.channel}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise NotImplementedError: nothing is encoded."""
        raise NotImplementedError("a variable of a joint array has no chunks of its own")

    async def encode(self, chunks_and_specs: Iterable[tuple[NDBuffer | None, ArraySpec]]) -> NoReturn:
        """Raise ArgumentError: a chunk is written with all its variables or not at all."""
        self._refuse()

    async def decode(self, chunks_and_specs: Iterable[tuple[Buffer | None, ArraySpec]]) -> NoReturn:
        """Raise ArgumentError: bytes from shards or other codecs do not say where the joint array is."""
        self._refuse()

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        if not isinstance(byte_getter, StorePath):
            self._refuse()
        joint, chunk = self._joint_chunk(byte_getter)
        data = await chunk.get(prototype=chunk_spec.prototype)
        if data is None:
            await _check_exists(joint)
            return None  # a chunk of nothing but fill values
        return await asyncio.to_thread(decode_part, data, chunk_spec, selection, channel=self.channel)

    def _joint_chunk(self, chunk: StorePath) -> tuple[StorePath, StorePath]:
        """Return where the joint array is, and its chunk that holds a chunk of this variable."""
        key = _CHUNK_KEY.fullmatch(chunk.path)
        if key is None:
            raise CorruptPayloadError(f"{chunk.path} is no chunk of an array in a group, as joint variables are")
        path = join(dirname(key["array"]), self.array)
        index = re.findall("[0-9]+", key["index"])
        return StorePath(chunk.store, path), StorePath(chunk.store, "/".join((path, "c", "0", *index)))

    def _refuse(self) -> NoReturn:
        raise ArgumentError(
            f"this variable is coded jointly with others, in {self.array}: it is only read, and that without shards "
            "and other codecs. To write one, use `isopress compress --joint`, or leave this codec out (in xarray: "
            "drop_encoding() first)"
        )


async def _check_exists(joint: StorePath) -> None:
    if not await (joint / "zarr.json").exists():
        raise CorruptPayloadError(
            f"the joint array {joint.path}, which holds the values, is missing: copy the whole store, not one variable"
        )
