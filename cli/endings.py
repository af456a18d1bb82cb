"""How a command ends: the exit code is the verdict, and Ctrl-C is not lost.

Python swallows an exception that happens to be raised in a finaliser.
"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

KEPT = 0  # done; every bound and checksum holds
BROKEN = 1  # a bound or checksum does not hold
USAGE = 2  # the command could not be carried out; stderr says why
INTERRUPTED = 130  # Ctrl-C
TERMINATED = 143  # SIGTERM

Step = TypeVar("Step")
_received = False


def watch() -> None:
    """Remember from now on that Ctrl-C was pressed, and raise KeyboardInterrupt as ever."""
    global _received
    _received = False
    signal.signal(signal.SIGINT, _interrupt)


def checked(observer: Callable[[Step], None]) -> Callable[[Step], None]:
    """Return an observer of progress that raises KeyboardInterrupt once Ctrl-C was pressed."""

    def observe(step: Step) -> None:
        if _received:
            raise KeyboardInterrupt
        observer(step)

    return observe


def _interrupt(signum: int, frame: FrameType | None) -> None:
    global _received
    _received = True
    signal.default_int_handler(signum, frame)
