"""What a store under construction holds besides data, so that another run can go on with it.

    isopress_unfinished       attribute of the root: the store is not complete
    isopress_journal/
        plan.json             the fingerprint (what is made, how, of which source) and what a scan of the source found
        000000.jsonl, ...     finished tasks: what came of them, with a CRC of each object they wrote

All of it goes when the store is complete. Objects are listed after they were written, a second or so of them at once;
what is not listed, or is not as listed, is made again. A complete store that is changed (`append`, `compact`) has such
a folder meanwhile, at a URL in it, of a local store beside it; its plan knows size and errors of what is replaced.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore, StorePath

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Target
from isopress.codec.models.registry import PACKAGE_FOLDER, installed
from isopress.format.attributes import JOURNAL, UNFINISHED
from isopress.format.payload import VERSION
from isopress.format.settings import Promise
from isopress.format.store.distortion import Distortion
from isopress.format.store.tasks import Outcome

FLUSH_SECONDS = 1.0  # between two objects of the journal: a killed run loses no more work than that
PLAN = "plan.json"

Fingerprint = Mapping[str, str]


def of_codec() -> dict[str, str]:
    """Return what else decides about the bytes: the version of payloads, and the weights."""
    weights = {f"weights {w.name}": w.sha256 for w in installed() if w.path.parent == PACKAGE_FOLDER}
    return {"payload": ".".join(map(str, VERSION))} | weights


@dataclass(frozen=True)
class Kept:
    """What a run that ended early has left: its plan, and the outcomes of its tasks by their names.

    `replaced` is what the run takes the place of in a complete store: errors and bytes, by variable or task.
    """

    fingerprint: Fingerprint
    promises: Mapping[str, Promise | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    replaced: Mapping[str, Outcome] = field(default_factory=dict)

    def check_same(self, fingerprint: Fingerprint, remedy: str = "Begin anew with --overwrite") -> None:
        """Raise ArgumentError, with the differences, unless a run with this fingerprint would make the same store."""
        changed = [
            f"{key} was {self.fingerprint.get(key, 'absent')}, now it is {fingerprint.get(key, 'absent')}"
            for key in dict.fromkeys((*self.fingerprint, *fingerprint))
            if self.fingerprint.get(key) != fingerprint.get(key)
        ]
        if changed:
            more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ArgumentError(f"what was begun cannot be resumed: {'; '.join(changed[:3])}{more}. {remedy}")


class Journal:
    """The journal of a store that is being written, in a folder."""

    def __init__(self, folder: StorePath, kept: Kept | None = None) -> None:
        self._folder = folder
        self._kept = kept
        self._lines: list[str] = []
        self._next = len(_names(folder))
        self._flushed = time.monotonic()

    def begin(self, kept: Kept) -> None:
        """Write the plan, after what another run has left was removed: from now on the store can be resumed."""
        for name in _names(self._folder):
            sync((self._folder / name).delete())
        self._kept, self._next = kept, 0
        promises = {name: _promise_to_json(promise) for name, promise in kept.promises.items()}
        replaced = {key: _outcome_to_json(outcome) for key, outcome in kept.replaced.items()}
        plan = {
            "fingerprint": kept.fingerprint,
            "promises": promises,
            "warnings": kept.warnings,
            "replaced": replaced,
        }
        _write(self._folder / PLAN, json.dumps(plan))

    def done(self, task: str) -> Outcome | None:
        """Return what came of a task in an earlier run."""
        return self._kept.outcomes.get(task) if self._kept else None

    def add(self, outcome: Outcome) -> bool:
        """Note that a task is done; now or within `FLUSH_SECONDS` of others. Return whether it had been done before."""
        before = self.done(outcome.task)
        known = before is not None and before.objects == outcome.objects
        if not known:
            self._lines.append(json.dumps(_outcome_to_json(outcome)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()
        return known

    def flush(self) -> None:
        """Write what was noted."""
        if self._lines:
            _write(self._folder / f"{self._next:06d}.jsonl", "\n".join(self._lines))
            self._next += 1
            self._lines.clear()
        self._flushed = time.monotonic()


def journal_of(group: zarr.Group) -> StorePath:
    """Return the folder of the journal in a store; of a transaction one in memory, which ends with it."""
    return StorePath(MemoryStore()) if not group.store.supports_consolidated_metadata else group.store_path / JOURNAL


def left_unfinished(group: zarr.Group) -> Kept | None:
    """Return what a run that ended early has left of a new store; None where no other run can go on with it."""
    return read_journal(journal_of(group)) if UNFINISHED in group.attrs else None


def read_journal(folder: StorePath) -> Kept | None:
    """Return what a run that ended early has noted; None where it had not got as far as its plan."""
    if (text := _read(folder / PLAN)) is None:
        return None
    plan = json.loads(text)
    outcomes: dict[str, Outcome] = {}
    for name in _names(folder):
        for line in (_read(folder / name) or "").splitlines():
            try:
                outcome = _outcome_from_json(json.loads(line))
            except ValueError:  # cut short when the power failed
                continue
            outcomes[outcome.task] = outcome
    promises = {name: _promise_from_json(promise) for name, promise in plan["promises"].items()}
    replaced = {key: _outcome_from_json(record) for key, record in plan.get("replaced", {}).items()}
    return Kept(plan["fingerprint"], promises, tuple(plan["warnings"]), outcomes, replaced)


def remove_journal(folder: StorePath) -> None:
    """Remove the journal of a store that is complete."""
    sync(folder.store.delete_dir(folder.path))


# --- as JSON ----------------------------------------------------------------------------------------------------------


def _promise_to_json(promise: Promise | None) -> dict[str, Any] | None:
    return None if promise is None else {"mode": promise.mode, **asdict(promise)}


def _promise_from_json(record: dict[str, Any] | None) -> Promise | None:
    if record is None:
        return None
    values: dict[str, Any] = record | {"exact": tuple(record["exact"])}
    if values["mode"] == "latent":
        return Target(values["ratio"], values["rmse"], values["exact"])
    return Bound(**values)


def _outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    record = asdict(replace(outcome, models=frozenset())) | {"models": sorted(outcome.models)}
    del record["sketch"]  # of scans alone
    return record


def _outcome_from_json(record: dict[str, Any]) -> Outcome:
    return Outcome(
        **record
        | {
            "distortion": Distortion(**record["distortion"]),
            "models": frozenset(record["models"]),
            "objects": tuple((key, crc) for key, crc in record["objects"]),
        }
    )


# --- in the store -----------------------------------------------------------------------------------------------------


def _names(folder: StorePath) -> Sequence[str]:
    async def listed() -> list[str]:
        return [name async for name in folder.store.list_dir(folder.path)]

    return sorted(name for name in sync(listed()) if name.endswith(".jsonl"))


def _read(place: StorePath) -> str | None:
    found = sync(place.get())
    return None if found is None else found.to_bytes().decode()


def _write(place: StorePath, text: str) -> None:
    sync(place.set(default_buffer_prototype().buffer.from_bytes(text.encode())))
