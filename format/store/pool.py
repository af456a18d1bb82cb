"""Run tasks in this process, two at a time, in several, or on a dask cluster.

Two tasks in threads keep two processors busy: what is not compiled is a small part of either, and while one task reads,
writes or compares, the other codes. More processors are used by the chunks of a task, or by more processes.
"""

import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager

import dask

from isopress.codec.errors import WorkerLostError
from isopress.codec.threads import VARIABLE, threads
from isopress.format.store.tasks import Outcome, Task, Work

Worker = Callable[[], AbstractContextManager[Work]]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", VARIABLE)  # torch's, numpy's and ours
_AT_ONCE = 2  # tasks of one process: their memory adds up
_AHEAD = 3  # tasks in the queue per process: enough to keep it busy, few enough to stop soon
_worker: AbstractContextManager[Work]  # of a worker process, set once when it starts;
_work: Work | None = None  # opened by the first task. Both are kept, or the worker would close


def run(worker: Worker, tasks: Iterable[Task], *, jobs: int, scheduler: str | None = None) -> Generator[Outcome]:
    """Yield the outcomes of every task as it is done; the order is that of the tasks only when `jobs` is 1.

    Parameters
    ----------
    worker : callable
        Opens what the tasks need and gives their function; picklable when `jobs` > 1.
    tasks : iterable of Task
        Taken a few at a time, so there may be millions.
    jobs : int
        Number of processes, >= 1; with 1 everything runs here. They end with this one, however that ends.
    scheduler : str, optional
        Address of a dask.distributed scheduler, or "existing" for the one that is known here; its workers do the work.

    Raises
    ------
    WorkerLostError
        A process died. Whatever a task raises comes through.
    """
    if scheduler is not None:
        from isopress.format.store.cluster import run_on_cluster  # needs dask.distributed

        yield from run_on_cluster(worker, tasks, scheduler)
        return
    if jobs == 1:
        with worker() as work:
            yield from _run_here(work, iter(tasks))
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy zarr's and torch's threads half-dead
    with _threads_shared_out(jobs):
        pool = ProcessPoolExecutor(jobs, context, _start, (worker,))
        try:
            yield from _run_in(pool, iter(tasks), jobs * _AHEAD)
        except BrokenProcessPool as error:
            raise WorkerLostError("a worker process died, perhaps out of memory; try fewer --jobs") from error
        except BaseException:  # Ctrl-C and whoever wants no more outcomes included; tasks can take minutes
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def threads_of_dask() -> Iterator[None]:
    """Let dask compute in threads that have all ended afterwards, also when one has failed: none writes any more."""
    with ThreadPoolExecutor(threads()) as pool, dask.config.set(pool=pool):
        yield


def _run_here(work: Work, tasks: Iterator[Task]) -> Iterator[Outcome]:
    """Yield outcomes in the order of the tasks; as few tasks are begun as keep the threads busy."""
    at_once = min(_AT_ONCE, threads())
    if at_once == 1:
        yield from map(work, tasks)
        return
    waiting: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(at_once, "isopress task") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _threads_shared_out(jobs: int) -> Iterator[None]:
    """Let processes that start now have together as many threads as this one may have, if nobody says otherwise."""
    unset = [name for name in _THREADS if name not in os.environ]
    os.environ |= dict.fromkeys(unset, str(max(1, threads() // jobs)))
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes that start now leave Ctrl-C to this one, from their first moment on; here it comes a bit later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_in(pool: ProcessPoolExecutor, tasks: Iterator[Task], limit: int) -> Iterator[Outcome]:
    waiting: set[Future[Outcome]] = set()
    while True:
        for task in itertools.islice(tasks, limit - len(waiting)):
            with _without_interrupts():  # the pool starts its processes as tasks come in
                waiting.add(pool.submit(_call, task))
        if not waiting:
            return
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _start(worker: Worker) -> None:
    """Prepare this process: it ends with its parent, to which it leaves Ctrl-C."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = worker()


def _end_with_parent() -> None:
    """Wait for the end of a pipe that the parent holds open, and that the system closes for it if it is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _call(task: Task) -> Outcome:
    global _work
    if _work is None:
        _work = _worker.__enter__()  # here, so that what it raises is an outcome and not a traceback
    return _work(task)
