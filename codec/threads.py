"""Threads of our own for what torch does, so that its threads do not stand in each other's way.

Every thread that calls torch gets a team of threads from it. If the teams together, or other programs, need more
threads than there are processors, each small product waits until all threads of its team had a processor again: two
processes of two threads each decoded at a twelfth of the speed of one thread each (benchmarks/RESULTS.md). So the many
small products of contexts are computed by one thread, *in turn*: of those threads there are as many as teams find
processors. The few large products of synthesis are the work of a *team*.

Whoever encodes or decodes takes one of the *slots*, of which there are as many as processors, or as `set_threads` or
the environment variable `ISOPRESS_THREADS` say: dask, Zarr and the command line may call from any number of threads.

A forked process has only the thread that forked: what others held stays locked in it for ever. So nothing here, or in
what the codec caches, holds a lock while it computes, pools are made anew, and a fork waits while torch is imported.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial, wraps
from typing import NamedTuple, ParamSpec, TypeVar

from isopress.codec.errors import ArgumentError

P = ParamSpec("P")
T = TypeVar("T")

LARGEST_TEAM = 4  # contexts take twice as long as synthesis on two threads: more than four gain next to nothing

VARIABLE = "ISOPRESS_THREADS"
TURN, TEAM = "turn", "team"
IMPORTS = threading.RLock()  # held while modules that load torch are imported: Python's own locks outlive a fork
_OF_THREAD = threading.local()


def in_turn(work: Callable[P, T]) -> Callable[P, T]:
    """Let a function run where torch has one thread, and what it calls too. Callers wait for their turn."""

    @wraps(work)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> T:
        if _kind():
            return work(*args, **kwargs)
        return _pools().turns.submit(partial(work, *args, **kwargs)).result()

    return waiting


def in_team(work: Callable[P, T]) -> Callable[P, T]:
    """Let a function run where torch has a team of threads."""

    @wraps(work)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> T:
        if _kind() == TEAM:
            return work(*args, **kwargs)
        return _pools().teams.submit(partial(work, *args, **kwargs)).result()

    return waiting


class _Pools(NamedTuple):
    turns: ThreadPoolExecutor
    teams: ThreadPoolExecutor


@cache
def _pools() -> _Pools:
    import torch

    team = min(torch.get_num_threads(), LARGEST_TEAM)
    count = max(1, processors() // team)
    return _Pools(*(ThreadPoolExecutor(count, f"isopress {kind}", _begin, (kind, threads))
                    for kind, threads in ((TURN, 1), (TEAM, team))))  # fmt: skip


def _begin(kind: str, threads: int) -> None:
    """Give the calling thread so many threads of torch."""
    import torch

    _OF_THREAD.kind = kind
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    # That is also what threads of the program would begin with from now on, unless another thread says otherwise.
    other = threading.Thread(target=torch.set_num_threads, args=(before,))
    other.start()
    other.join()


def _kind() -> str:
    """Return what the calling thread is here for: TURN, TEAM or nothing."""
    return getattr(_OF_THREAD, "kind", "")


class _Slots:
    """Slots for threads that work; whoever has one must not wait for anybody who has none."""

    def __init__(self) -> None:
        self.set = 0  # by the program; 0: by the environment, or as many as processors
        self.clear()

    def clear(self) -> None:
        """Take back every slot, of threads that a forked process does not have."""
        self._free = threading.Condition()
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a slot and hold it."""
        with self._free:
            self._free.wait_for(lambda: self._taken < threads())
            self._taken += 1
        try:
            yield
        finally:
            with self._free:
                self._taken -= 1
                self._free.notify()


def threads() -> int:
    """Return how many threads of this process encode or decode at the same time, at most.

    Raises
    ------
    ArgumentError
        The environment variable `ISOPRESS_THREADS` is no number >= 1.
    """
    if _SLOTS.set:
        return _SLOTS.set
    asked = os.environ.get(VARIABLE)
    return processors() if asked is None else _checked(asked, f"the environment variable {VARIABLE}")


def set_threads(number: int) -> None:
    """Let at most `number` threads of this process encode or decode at the same time; the others wait.

    Raises
    ------
    ArgumentError
        It is no number >= 1.
    """
    _SLOTS.set = _checked(number, "the number of threads")


def slot() -> AbstractContextManager[None]:
    """Hold one of the slots of this process while something is encoded or decoded; not to be nested."""
    return _SLOTS.one()


def _checked(number: int | str, what: str) -> int:
    try:
        found = int(number)
    except (TypeError, ValueError):
        found = 0
    if found < 1:
        raise ArgumentError(f"{what} is a number >= 1, got {number!r}")
    return found


_SLOTS = _Slots()


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _after_fork() -> None:
    _SLOTS.clear()
    _pools.cache_clear()
    IMPORTS.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=IMPORTS.acquire, after_in_parent=IMPORTS.release, after_in_child=_after_fork)
