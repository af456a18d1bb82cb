"""What changing a complete store takes, whatever the change is: one run at a time, a journal, tasks in many processes.

alone -> begun -> carry_out -> metadata, all at once
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, StorePath

from isopress.codec.errors import ArgumentError
from isopress.format.settings import Promise
from isopress.format.source.dataset import Request, Source
from isopress.format.store import remote, staging
from isopress.format.store.chunking import regions
from isopress.format.store.distortion import NO_VALUES, Distortion, measure
from isopress.format.store.extent import Extent
from isopress.format.store.fence import fence_of
from isopress.format.store.journal import Fingerprint, Journal, Kept, read_journal
from isopress.format.store.pool import run
from isopress.format.store.progress import Observer, Progress
from isopress.format.store.tasks import Outcome, Task, converting
from isopress.format.zarr.chunk_objects import Region

_LOG = logging.getLogger(__name__)


@contextmanager
def alone(store: str | Path, jobs: int, scheduler: str | None) -> Iterator[StorePath]:
    """Keep other runs of isopress from changing a store meanwhile; give the folder of this change's journal.

    Raises
    ------
    ArgumentError
        Another run is writing it, or its processes would not see it.
    """
    if "://" in str(store):
        remote.check_processes(str(store), jobs, scheduler)
        with remote.held(str(store)) as folder:
            yield folder
        return
    with staging.held(Path(store)) as place:
        yield StorePath(LocalStore(place.parent), place.name)


def begun(
    folder: StorePath, fingerprint: Fingerprint, replacing: Callable[[], Mapping[str, Outcome]], resume: bool
) -> tuple[Journal, Kept]:
    """Return the journal of a change, and what one that did not finish has left; new ones note what they replace.

    Raises
    ------
    ArgumentError
        What is to be resumed is another change, or one that cannot be resumed has replaced other values.
    """
    left = read_journal(folder)
    if left and resume:
        left.check_same(fingerprint, "Without --resume it begins anew")
        return Journal(folder, left), left
    replaced = _replaced_before(left, fingerprint) if left else None
    if replaced is None:
        replaced = replacing()
    kept = Kept(fingerprint, replaced=replaced)
    journal = Journal(folder, kept)
    journal.begin(kept)
    return journal, kept


def _replaced_before(left: Kept, fingerprint: Fingerprint) -> Mapping[str, Outcome] | None:
    """Return what a change that did not finish has replaced of the store as it is known; some of it is no more.

    None if the store has changed since.
    """
    if left.fingerprint.get("store") != fingerprint.get("store"):
        return None
    if left.fingerprint.get("written") != fingerprint.get("written"):
        raise ArgumentError(
            "another change of this store did not finish: go on with it, by --resume with its source and options, first"
        )
    _LOG.warning("what a run that did not finish had done is made anew; --resume would go on with it")
    return left.replaced


def distortion_of(
    source: Source, name: str, array: zarr.Array[Any], extent: Extent, region: Region, limit: Promise
) -> Distortion:
    """Return the distortion of what is stored in a region of whole chunks."""
    found = NO_VALUES
    for part in regions([side.stop - side.start for side in region], [max(size, 1) for size in array.chunks]):
        there = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(region, part, strict=True))
        x = source.read(name, extent.in_source(array, there), lossy=True)
        found += measure(x, np.asarray(array[there]).astype(x.dtype), limit)
    return found


@dataclass(frozen=True)
class Change:
    """A change that has begun: the source, the store, who does the work, and where the source lies in the store."""

    request: Request
    store: str | Path
    jobs: int
    scheduler: str | None
    observer: Observer
    extent: Extent
    journal: Journal

    def carry_out(self, tasks: Iterable[Task], total: int) -> dict[str, Outcome]:
        """Do the tasks that are not done yet; return the sum of outcomes per variable."""
        fence = fence_of(remote.lock_of(str(self.store), changed=True)) if self.scheduler else None
        worker = partial(converting, self.request, str(self.store), self.extent, fence)
        todo = (replace(task, done=self.journal.done(str(task))) for task in tasks)
        totals: dict[str, Outcome] = {}
        done = stored = kept = 0
        self.observer(Progress("compress", "", 0, total))
        try:
            with closing(run(worker, todo, jobs=self.jobs, scheduler=self.scheduler)) as outcomes:
                for outcome in outcomes:
                    totals[outcome.name] = totals.get(outcome.name, Outcome(outcome.name, 0)) + outcome
                    done, stored = done + outcome.nbytes, stored + outcome.stored_nbytes
                    kept += outcome.nbytes if self.journal.add(outcome) else 0
                    self.observer(Progress("compress", outcome.name, done, total, stored, kept))
        finally:
            self.journal.flush()
        return totals
