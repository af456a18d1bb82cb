"""What processes cost that are killed on the way: looked at from outside, twice a second. Needs Linux (/proc)."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 0.5  # between two looks: what a process does after the last is not counted
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Seen:
    """Of one process: its role, processor seconds (user and system) and the largest resident memory, in bytes."""

    role: str
    seconds: float
    peak: int


class Watch:
    """Processes by role, and all that they start: these have the role with "'s workers" behind it."""

    def __init__(self) -> None:
        self._roots: dict[int, str] = {}
        self._seen: dict[int, Seen] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add(self, process: int, role: str) -> None:
        """Watch one more process."""
        self._roots[process] = role

    def seconds(self) -> dict[str, float]:
        """Return processor seconds by role."""
        found: dict[str, float] = {}
        for seen in self._seen.values():
            found[seen.role] = found.get(seen.role, 0.0) + seen.seconds
        return found

    def peaks(self) -> dict[str, int]:
        """Return by role the memory of the process that had most."""
        found: dict[str, int] = {}
        for seen in self._seen.values():
            found[seen.role] = max(found.get(seen.role, 0), seen.peak)
        return found

    def workers(self) -> list[int]:
        """Return the processes that live and were started by those that are watched, the hungriest first."""
        found = [process for root in self._roots for process in _below(root)]
        return sorted((p for p in found if p in self._seen), key=lambda p: -self._seen[p].seconds)

    def look(self) -> None:
        """Look at every process now."""
        for root, role in list(self._roots.items()):
            for process in (root, *_below(root)):
                seen = _look(process, role if process == root else f"{role}'s workers")
                if seen is not None:
                    self._seen[process] = seen

    def _run(self) -> None:
        while not self._stop.wait(_SECONDS):
            self.look()


@contextmanager
def watching(processes: Mapping[int, str]) -> Iterator[Watch]:
    """Give a watch that looks at these processes until the end."""
    watch = Watch()
    for process, role in processes.items():
        watch.add(process, role)
    watch._thread.start()
    try:
        yield watch
    finally:
        watch._stop.set()
        watch._thread.join()


def _below(process: int) -> list[int]:
    """Return all processes that a process has started, and those that they have."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = list(map(int, path.read_text().split()))
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        found += [process for child in children for process in (child, *_below(child))]
    return found


def _look(process: int, role: str) -> Seen | None:
    try:
        figures = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    peak = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)
    if peak is None:  # it has ended, and nobody has asked for its exit code
        return None
    return Seen(role, (int(figures[11]) + int(figures[12])) / _TICKS, peak)
