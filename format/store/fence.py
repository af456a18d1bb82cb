"""A fence around a store: what writes for a run that is no more writes nothing.

Workers of a cluster outlive the run that sent them tasks: killed, it cannot tell them to stop, and what they have begun
goes on beside the next run at the same place, which may have other settings. Every run writes its name into the lock
that it holds; whoever writes for it elsewhere looks there before each object.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath, WrapperStore

from isopress.codec.errors import WorkerLostError
from isopress.format.zarr.groups import quiet_zarr


@dataclass(frozen=True)
class Fence:
    """Where the lock of a run is, and the name that the run has written into it."""

    lock: StorePath
    run: str

    async def check(self) -> None:
        """Raise WorkerLostError unless the run still holds its lock."""
        if _run(await self.lock.get(default_buffer_prototype())) != self.run:
            raise WorkerLostError(f"the run that wanted this is no more: {self.lock} is gone, or of another run")


def fence_of(lock: StorePath) -> Fence:
    """Return the fence of the run that holds a lock now: of the caller."""
    return Fence(lock, _run(sync(lock.get())))


def fenced(group: zarr.Group, fence: Fence) -> zarr.Group:
    """Return a group that can be written only as long as the run of the fence holds its lock."""
    with quiet_zarr():
        return zarr.open_group(_FencedStore(group.store, fence), path=group.path, mode="r+")


def _run(content: Buffer | None) -> str:
    """Return whose a lock is; "" of one that is gone, or is just being written."""
    try:
        return str(json.loads(content.to_bytes())["run"]) if content is not None else ""
    except ValueError:
        return ""


class _FencedStore(WrapperStore[Store]):
    """A store whose changes are all behind a fence."""

    def __init__(self, store: Store, fence: Fence) -> None:
        super().__init__(store)
        self._fence = fence

    def _with_store(self, store: Store) -> "_FencedStore":
        return _FencedStore(store, self._fence)

    def with_read_only(self, read_only: bool = False) -> "_FencedStore":
        return self._with_store(self._store.with_read_only(read_only))

    async def set(self, key: str, value: Buffer) -> None:
        await self._fence.check()
        await self._store.set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await self._fence.check()
        await self._store.set_if_not_exists(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        for key, value in values:
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        await self._fence.check()
        await self._store.delete(key)

    async def delete_dir(self, prefix: str) -> None:
        await self._fence.check()
        await self._store.delete_dir(prefix)

    async def clear(self) -> None:
        await self._fence.check()
        await self._store.clear()
