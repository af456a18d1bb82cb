"""Outcomes of the peers, kept between runs: they depend on data, version, settings and bound only."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.datasets.public import Block
from benchmarks.peers.bounded import BoundedPeer, Outcome, best_outcome


class PeerCache:
    """A JSON file of outcomes, rewritten after every new one, so that an interrupted run loses nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = self._read()

    def outcome(self, peer: BoundedPeer, block: Block, bound: float) -> Outcome | str:
        """Return the peer's best outcome on `block` within `bound`, or the reason why there is none."""
        entry = self.entry(bounded_key(peer, block.sha256, bound), lambda: _compute(peer, block, bound))
        return str(entry["failure"]) if "failure" in entry else Outcome(**entry)

    def entry(self, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what is kept under `key`; if there is nothing, keep what `compute` returns."""
        if key not in self._entries:
            self.add({key: compute()})
        return self._entries[key]

    def add(self, entries: dict[str, dict[str, Any]]) -> None:
        """Keep outcomes; those that the file has already stay."""
        self._entries = entries | self._read()  # another run may have added to the file meanwhile
        self._write()

    def _read(self) -> dict[str, dict[str, Any]]:
        return json.loads(self._path.read_text()) if self._path.is_file() else {}

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._entries, indent=1))
        partial.replace(self._path)


def bounded_key(peer: BoundedPeer, sha256: str, bound: float) -> str:
    """Name everything an outcome on the block of that hash depends on; hashed settings keep the key short."""
    search = hashlib.sha256(repr((peer.settings, peer.factors)).encode()).hexdigest()[:16]
    return f"{sha256} {peer.name} {peer.version()} {search} {bound!r}"


def _compute(peer: BoundedPeer, block: Block, bound: float) -> dict[str, Any]:
    try:
        outcome = best_outcome(peer, block.values, bound)
    except Exception as error:  # whatever a foreign codec raises is a result to report, not an end of the run
        return {"failure": f"{type(error).__name__}: {error}"[:200]}
    return {"failure": "no tolerance keeps the bound"} if outcome is None else asdict(outcome)
