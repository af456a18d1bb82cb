"""Threads and processes that code every mode at once: `python -m tests.together`.

Eight threads encode and decode while processes do the same. Processes begin by fork and forkserver before this one
has coded anything, while its threads code (one by spawn too), and afterwards. All of them must end, with the same
payloads and values; what does not is printed, and the exit code is 1.
"""

import hashlib
import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from isopress import compress, decompress

THREADS = 8
SECONDS = 120  # that a process may take: a lock that nobody releases
METHODS = {  # by moment; a spawned process shares nothing with this one, so the moment is nothing to it
    "before use": ("fork", "forkserver"),
    "during use": ("fork", "spawn", "forkserver"),
    "after use": ("fork", "forkserver"),
}
Begun = tuple[str, BaseProcess, Connection]


def _jobs() -> list[tuple[dict[str, Any], np.ndarray[Any, Any]]]:
    """Return settings and arrays that lead to each method, a base under a bound included."""
    x = 280 + 5 * np.cumsum(np.random.default_rng(0).normal(size=(3, 24, 30)), 1).astype("f4")
    t, r, c = np.indices((6, 24, 30))
    waves = 5 * (np.sin(0.4 * c - 0.2 * t) + np.cos(0.3 * r + 0.1 * t)).astype("f4")
    return [
        ({"mode": "lossless"}, x),
        ({"mode": "abs", "bound": 0.1, "context": "field"}, x),
        ({"mode": "abs", "bound": 0.1, "context": "block"}, x),
        ({"mode": "range", "bound": 1e-3}, x),
        ({"mode": "pointwise", "bound": 1e-3}, x),
        ({"mode": "latent", "ratio": 20}, x[0]),
        ({"mode": "abs", "bound": 0.6}, waves),
    ]


JOBS = _jobs()  # before there are threads: numpy imports its generators when they are used, under a lock


def code(first: int = 0) -> dict[int, str]:
    """Return the sha256 of payload and values of every job, beginning with one of them."""
    found = dict[int, str]()
    for i in range(len(JOBS)):
        number = (first + i) % len(JOBS)
        settings, x = JOBS[number]
        payload = compress(x, **settings)
        found[number] = hashlib.sha256(payload + np.asarray(decompress(payload)).tobytes()).hexdigest()
    return found


def child(first: int, answers: Connection) -> None:
    """Code everything in a process of its own and tell what came out."""
    answers.send(code(first))


def begin(moment: str, first: int) -> list[Begun]:
    """Begin a process by each method of a moment."""
    begun = list[Begun]()
    for number, method in enumerate(METHODS[moment]):
        context = multiprocessing.get_context(method)
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(first + number, there), daemon=True)  # type: ignore[attr-defined]
        process.start()
        there.close()
        begun.append((f"{method} {moment}", process, here))
    return begun


def outcome(begun: Begun) -> dict[int, str] | str:
    """Return what a process found, or in words that it did not."""
    _, process, answers = begun
    try:
        found = answers.recv() if answers.poll(SECONDS) else "waits for ever"
    except EOFError:
        found = "died"
    if found == "waits for ever":
        process.kill()
    process.join(SECONDS)
    return found  # type: ignore[no-any-return]


def main() -> int:
    """Code in threads and processes; compare all they found with what one thread finds afterwards, alone."""
    multiprocessing.set_forkserver_preload(["tests.together", "isopress.codec.chunk.encode", "torch"])
    begun = begin("before use", first=0)
    coding = threading.Barrier(THREADS + 1)

    def work(number: int) -> dict[int, str]:
        coding.wait()
        return code(number)

    with ThreadPoolExecutor(THREADS) as pool:
        busy = [pool.submit(work, number) for number in range(THREADS)]
        coding.wait()
        begun += begin("during use", first=3)
        found: dict[str, dict[int, str] | str] = {f"thread {i}": one.result() for i, one in enumerate(busy)}
    found |= {one[0]: outcome(one) for one in begun}
    found |= {one[0]: outcome(one) for one in begin("after use", first=5)}
    wanted = code()
    wrong = [name for name, one in found.items() if one != wanted]
    for name in wrong:
        print(f"{name}: {found[name]}, not {wanted}", file=sys.stderr)
    print(f"{len(found)} threads and processes, {len(wrong)} unlike the others")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
