"""Threads of our own: for what torch does, so that its threads do not stand in each other's way, and for fields.

Every thread that calls torch gets a team of threads from it. If the teams together, or other programs, need more
threads than there are processors, each small product waits until all threads of its team had a processor again: two
processes of two threads each decoded at a twelfth of the speed of one thread each (benchmarks/RESULTS.md). So there are
as many *teams* as find processors, and whoever wants torch waits for one.

Whoever encodes or decodes takes one of the *slots*, of which there are as many as processors, or as `set_threads` or
the environment variable `ISOPRESS_THREADS` say: dask, Zarr and the command line may call from any number of threads.
Slots that nobody else wants are *shared out* among the independent parts of one caller's work, fields of a block.

A forked process has only the thread that forked: what others held stays locked in it for ever. So nothing here, or in
what the codec caches, holds a lock while it computes, pools are made anew, and a fork waits while torch is imported.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache, partial, wraps
from typing import ParamSpec, TypeVar

from isopress.codec.errors import ArgumentError
from isopress.codec.float_environment import subnormal_numbers

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

LARGEST_TEAM = 4  # more gain next to nothing

VARIABLE = "ISOPRESS_THREADS"
IMPORTS = threading.RLock()  # held while modules that load torch are imported: Python's own locks outlive a fork
_OF_THREAD = threading.local()


def in_team(work: Callable[P, T]) -> Callable[P, T]:
    """Let a function run where torch has a team of threads."""

    @wraps(work)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> T:
        if getattr(_OF_THREAD, "is_in_team", False):
            return work(*args, **kwargs)
        return _teams().submit(partial(work, *args, **kwargs)).result()

    return waiting


@cache
def _teams() -> ThreadPoolExecutor:
    import torch

    size = min(torch.get_num_threads(), LARGEST_TEAM)
    return ThreadPoolExecutor(max(1, processors() // size), "isopress team", _begin, (size,))


def _begin(size: int) -> None:
    """Give the calling thread so many threads of torch."""
    import torch

    _OF_THREAD.is_in_team = True
    before = torch.get_num_threads()
    torch.set_num_threads(size)
    # That is also what threads of the program would begin with from now on, unless another thread says otherwise.
    other = threading.Thread(target=torch.set_num_threads, args=(before,))
    other.start()
    other.join()


class _Slots:
    """Slots for threads that work; whoever has one must not wait for anybody who has none."""

    def __init__(self) -> None:
        self.set = 0  # by the program; 0: by the environment, or as many as processors
        self.clear()

    def clear(self) -> None:
        """Take back every slot, of threads that a forked process does not have."""
        self._free = threading.Condition()
        self._taken = 0

    def wait_for_one(self) -> None:
        """Take a slot as soon as there is one."""
        with self._free:
            while self._taken >= threads():
                self._free.wait()
            self._taken += 1

    def take(self, most: int) -> int:
        """Take up to `most` slots that are free now, beside the caller's own; return how many."""
        own = 0 if getattr(_OF_THREAD, "has_slot", False) else 1
        with self._free:
            taken = max(0, min(most, threads() - self._taken - own))
            self._taken += taken
        return taken

    def give_back(self, number: int) -> None:
        """Let others have slots."""
        with self._free:
            self._taken -= number
            self._free.notify(number)


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


@contextmanager
def slot() -> Iterator[None]:
    """Hold one of the slots of this process while something is encoded or decoded; not to be nested."""
    _SLOTS.wait_for_one()
    _OF_THREAD.has_slot = True
    try:
        yield
    finally:
        _OF_THREAD.has_slot = False
        _SLOTS.give_back(1)


def share(work: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Return what `work` makes of every item: done by the calling thread, and by others as far as there are slots.

    Of several errors the one of the first item is raised, after every thread has ended; so is KeyboardInterrupt.
    """
    if len(items) == 1:  # the usual case: most chunks have one group of fields
        return [work(items[0])]
    left, results, errors = iter(range(len(items))), dict[int, T](), dict[int, Exception]()

    def take_items() -> None:
        for i in left:
            try:
                results[i] = work(items[i])
            except Exception as error:
                errors[i] = error
                deque(left, 0)  # nobody takes another

    def help_caller() -> None:
        _OF_THREAD.has_slot = True
        with subnormal_numbers():
            take_items()

    slots, helpers = 0, list[threading.Thread]()
    try:
        slots = _SLOTS.take(len(items) - 1)
        for number in range(slots):
            thread = threading.Thread(target=copy_context().run, args=(help_caller,), name=f"isopress {number}")
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads, or Python is about to end
                break
            helpers.append(thread)
        take_items()
    finally:
        deque(left, 0)
        for thread in helpers:
            thread.join()
        _SLOTS.give_back(slots)
    for i in sorted(errors):
        raise errors[i]
    return [results[i] for i in range(len(items))]


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
    _teams.cache_clear()
    IMPORTS.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=IMPORTS.acquire, after_in_parent=IMPORTS.release, after_in_child=_after_fork)
