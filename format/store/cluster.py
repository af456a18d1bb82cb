"""Tasks on the workers of a dask.distributed cluster: sources are opened and weights loaded once per worker."""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any

import dask

from isopress.codec.errors import ArgumentError, WorkerLostError
from isopress.format.store.tasks import Outcome, Task, Work

if TYPE_CHECKING:
    from isopress.format.store.pool import Worker

_LOG = logging.getLogger(__name__)
EXISTING = "existing"
_AHEAD = 3  # batches at the scheduler per thread of a worker: enough to keep it busy; there may be millions
_THREADS_PER_TASK, LARGEST_BATCH = 64, 8  # a scheduler does a hundred batches a second: a thousand threads want more
_PATIENCE_SECONDS = 120.0  # with tasks that are being done while their run ends
_MESSAGE_SECONDS = 0.2  # until workers know that a task is not wanted; questions to them may overtake that
_FORGET_SECONDS = 600.0  # after which a worker closes what a run has open that sends no tasks: it was killed


@dataclass
class _Opened:
    """What a worker has open for a run, how many tasks use it now, and when the last one ended."""

    context: AbstractContextManager[Work]
    work: Work
    busy: int = 0
    used: float = 0.0


_opened: dict[str, _Opened] = {}  # of a worker: by run
_lock = threading.Lock()


def run_on_cluster(worker: "Worker", tasks: Iterable[Task], scheduler: str) -> Iterator[Outcome]:
    """Yield the outcomes of tasks that the workers of a cluster do, in any order.

    What a lost worker had begun is done again by others. No task is being done when this returns or raises. The
    workers must see the paths of source and store.

    Raises
    ------
    ArgumentError
        dask.distributed is not installed, or there is no scheduler at this address.
    WorkerLostError
        Workers die of a task again and again, or all of them are gone.
    """
    if not find_spec("distributed"):
        raise ArgumentError("--scheduler needs dask.distributed; pip install 'isopress[cluster]'")
    from distributed import CancelledError, KilledWorker, as_completed
    from distributed.comm.core import CommClosedError

    run = uuid.uuid4().hex
    with ExitStack() as stack:
        client = _connect(scheduler, stack)
        stack.callback(_close_everywhere, client, run)
        threads = max(1, sum(client.nthreads().values()))
        waiting = batches(iter(tasks), threads)
        send = partial(_send, client, run, worker)
        running = as_completed(send(islice(waiting, _AHEAD * threads)), loop=client.loop)
        stack.callback(_cancel, client, running)  # at the end this comes first
        try:
            for ended in running.batches():  # one message each way for all that ended meanwhile
                failed = [future for future in ended if future.status != "finished"]
                if not failed:
                    running.update(send(islice(waiting, len(ended))))
                for outcomes in client.gather([future for future in ended if future not in failed]):
                    yield from outcomes
                for future in failed:
                    yield from future.result()  # which raises what it failed of
        except (KilledWorker, CancelledError, CommClosedError) as error:
            raise WorkerLostError(f"the cluster has lost its workers, perhaps out of memory ({error})") from error


def batches(tasks: Iterator[Task], threads: int) -> Iterator[tuple[Task, ...]]:
    """Yield tasks as they are sent: one by one to few threads, several at once to many, fewer again towards the end."""
    largest = max(1, min(LARGEST_BATCH, threads // _THREADS_PER_TASK))
    known: deque[Task] = deque()
    while True:
        known.extend(islice(tasks, largest * threads - len(known)))
        if not known:
            return
        yield tuple(known.popleft() for _ in range(max(1, len(known) // threads)))


def _connect(scheduler: str, stack: ExitStack) -> Any:
    """Return a client of the cluster: of this address, of this program, or of dask's configuration."""
    from distributed import Client, default_client

    address = dask.config.get("scheduler-address", None) if scheduler == EXISTING else scheduler
    if scheduler == EXISTING:
        try:
            return default_client()
        except ValueError as error:  # no client in this program
            if address is None:
                raise ArgumentError(
                    "--scheduler existing: there is no client here, and neither DASK_SCHEDULER_ADDRESS nor dask's "
                    "configuration names a scheduler"
                ) from error
    try:
        return stack.enter_context(Client(address, set_as_default=False))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"--scheduler {scheduler}: no scheduler answers there ({error})") from error


def _send(client: Any, run: str, worker: "Worker", sent: Iterable[tuple[Task, ...]]) -> list[Any]:
    """Send batches of tasks to the scheduler in one message; return a future of each."""
    every = list(sent)
    keys = [f"isopress-{run}-{batch[0]}" for batch in every]
    return list(client.map(partial(_call, run, worker), every, key=keys, pure=False)) if every else []


def _call(run: str, worker: "Worker", batch: tuple[Task, ...]) -> list[Outcome]:
    """Do tasks on a worker; the first of a run opens the source and the store for all."""
    with _lock:
        if run not in _opened:
            _forget()
            context = worker()
            _opened[run] = _Opened(context, context.__enter__())
        opened = _opened[run]
        opened.busy += 1
    try:
        return [opened.work(task) for task in batch]
    finally:
        with _lock:
            opened.busy -= 1
            opened.used = time.monotonic()


def _forget() -> None:
    """Close what runs have open that were killed; if one was not, its next task opens it again."""
    for run, opened in list(_opened.items()):
        if not opened.busy and time.monotonic() - opened.used > _FORGET_SECONDS:
            _opened.pop(run).context.__exit__(None, None, None)


def _cancel(client: Any, running: Any) -> None:
    """Let what waits at the scheduler not begin, where a run ends early."""
    if waiting := list(running.futures):
        client.cancel(waiting)
        time.sleep(_MESSAGE_SECONDS)


def _close_everywhere(client: Any, run: str) -> None:
    """Let all workers close what they have open for a run, as soon as they do no task of it."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while not all(client.run(_close, run, on_error="ignore").values()):
        if time.monotonic() > end:
            _LOG.warning("workers of the cluster still do what is not wanted any more; they cannot write")
            return
        time.sleep(0.1)


def _close(run: str) -> bool:
    """Close what a worker has open for a run; return False if it is in use."""
    with _lock:
        if run in _opened and _opened[run].busy:
            return False
        if run in _opened:
            _opened.pop(run).context.__exit__(None, None, None)
        return True
