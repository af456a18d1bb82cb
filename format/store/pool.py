"""Run tasks in this process or in several; processes, because the entropy coder holds the GIL."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager

from isopress.codec.errors import IsopressError
from isopress.codec.threads import processors
from isopress.format.store.tasks import Outcome, Task, Work

Worker = Callable[[], AbstractContextManager[Work]]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # torch's and numpy's
_AHEAD = 3  # tasks in the queue per process: enough to keep it busy, few enough to stop soon
_worker: AbstractContextManager[Work]  # of a worker process, set once when it starts;
_work: Work  # both are kept, or the worker would close


def run(worker: Worker, tasks: Iterable[Task], *, jobs: int) -> Generator[Outcome]:
    """Yield the outcomes of every task as it is done; the order is that of the tasks only when `jobs` is 1.

    Parameters
    ----------
    worker : callable
        Opens what the tasks need and gives their function; picklable when `jobs` > 1.
    tasks : iterable of Task
        Taken a few at a time, so there may be millions.
    jobs : int
        Number of processes, >= 1; with 1 everything runs here.

    Raises
    ------
    IsopressError
        A process died. Whatever a task raises comes through.
    """
    if jobs == 1:
        with worker() as work:
            yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy zarr's and torch's threads half-dead
    with _threads_shared_out(jobs):
        pool = ProcessPoolExecutor(jobs, context, _start, (worker,))
        try:
            yield from _run_in(pool, iter(tasks), jobs * _AHEAD)
        except BrokenProcessPool as error:
            raise IsopressError("a worker process died, perhaps out of memory; try fewer --jobs") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _threads_shared_out(jobs: int) -> Iterator[None]:
    """Let processes that start now have together as many threads as there are processors, if nobody says otherwise."""
    unset = [name for name in _THREADS if name not in os.environ]
    os.environ |= dict.fromkeys(unset, str(max(1, processors() // jobs)))
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)


def _run_in(pool: ProcessPoolExecutor, tasks: Iterator[Task], limit: int) -> Iterator[Outcome]:
    waiting: set[Future[Outcome]] = set()
    while True:
        waiting |= {pool.submit(_call, task) for task in itertools.islice(tasks, limit - len(waiting))}
        if not waiting:
            return
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _start(worker: Worker) -> None:
    """Open the worker for the life of this process, which leaves Ctrl-C to its parent."""
    global _worker, _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = worker()
    _work = _worker.__enter__()


def _call(task: Task) -> Outcome:
    return _work(task)
