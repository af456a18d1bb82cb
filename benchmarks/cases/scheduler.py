"""How many tasks a scheduler of dask stands: simulated workers, tasks that do nothing, sent as conversions are.

    python -m benchmarks.cases.scheduler ADDRESS N    # what it starts: N workers in one process

Workers are those of dask, with their connections and signs of life, many in one process; tasks come from the code that
sends shards, three for each worker at once, and return records as large as theirs.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask

from benchmarks.watch import watching
from isopress.format.store.cluster import batches, run_on_cluster
from isopress.format.store.tasks import Outcome, Task, Work

ROOT = Path(__file__).resolve().parents[2]
_IN_ONE_PROCESS = 250
_IDLE_SECONDS = 20.0
_QUIET = {  # simulated workers share their cores: nothing but messages and signs of life
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "10s",
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "600s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "60s",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "60s",
}
_PATIENCE = {  # on a machine with fewer cores than workers connections answer late
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "600s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "600s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3600s",
}


@contextmanager
def doing_nothing() -> Iterator[Work]:
    """Yield work that takes no time."""
    yield _nothing


def _nothing(task: Task) -> Outcome:
    return Outcome(task.name, 2**27, 2**22, task=str(task), objects=(("c/0/0/0/0", 2**31),))


def scheduler_load(workers: int, tasks: int) -> dict[str, Any]:
    """Return the processor seconds of a scheduler: by task, and while workers only live; and its memory."""
    dask.config.update(dask.config.config, dask.config.collect_env(_PATIENCE))
    with running(workers) as (address, process), watching({process: "scheduler"}) as watch:
        watch.look()
        before, started = watch.seconds()["scheduler"], time.monotonic()
        time.sleep(_IDLE_SECONDS)
        watch.look()
        idle = (watch.seconds()["scheduler"] - before) / (time.monotonic() - started)
        before, started, used = watch.seconds()["scheduler"], time.monotonic(), time.process_time()
        region = tuple(slice(0, 721) for _ in range(4))
        todo = [Task(f"t{number}", region, None, False) for number in range(tasks)]
        done = sum(1 for _ in run_on_cluster(doing_nothing, todo, address))
        seconds, client = time.monotonic() - started, time.process_time() - used
        watch.look()
        busy = watch.seconds()["scheduler"] - before
        return {
            "workers": workers,
            "tasks": done,
            "wall_s": seconds,
            "tasks_per_s": done / seconds,
            "messages": len(list(batches(iter(todo), workers))),
            "scheduler_core_s": busy,
            "scheduler_share_when_idle": idle,
            "client_core_s_per_task": client / done,
            "scheduler_peak_mb": watch.peaks()["scheduler"] / 1e6,
        }


@contextmanager
def running(workers: int) -> Iterator[tuple[str, int]]:
    """Give the address of a scheduler with so many workers, and its process."""
    with ExitStack() as stack:
        where = Path(stack.enter_context(TemporaryDirectory()))
        file = where / "scheduler.json"
        log = stack.enter_context(open(where / "log", "w"))
        options = ["--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        processes = [[sys.executable, "-m", "distributed.cli.dask_scheduler", *options]]
        scheduler = _start(processes[0], log, stack)
        while not file.is_file():
            time.sleep(0.1)
        address = str(json.loads(file.read_text())["address"])
        for first in range(0, workers, _IN_ONE_PROCESS):
            count = str(min(_IN_ONE_PROCESS, workers - first))
            workers_of = [sys.executable, "-m", "benchmarks.cases.scheduler", address, count, str(where)]
            _start(workers_of, log, stack, _QUIET)
            _wait_for(address, min(first + _IN_ONE_PROCESS, workers))  # in stages: all at once time each other out
        yield address, scheduler


def _start(command: list[str], log: Any, stack: ExitStack, settings: Mapping[str, str] = {}) -> int:
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **_PATIENCE, **settings})
    stack.callback(process.wait)
    stack.callback(process.kill)  # hundreds of workers take long to say goodbye
    return process.pid


def _wait_for(address: str, workers: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=600)


async def _simulate(address: str, count: int, folder: str) -> None:
    from distributed import Worker

    class Simulated(Worker):
        """Measures itself once: what a thousand workers would measure on as many machines, here shares two cores."""

        _metrics: Any = None

        async def get_metrics(self) -> Any:
            self._metrics = self._metrics or await super().get_metrics()
            return self._metrics

    found = [
        Simulated(address, nthreads=1, memory_limit=0, dashboard=False, local_directory=folder, silence_logs=50)
        for _ in range(count)
    ]
    await asyncio.gather(*found)
    await asyncio.gather(*(worker.finished() for worker in found))


if __name__ == "__main__":
    asyncio.run(_simulate(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
