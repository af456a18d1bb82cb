"""Signs of life of long runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["open", "scan", "compress", "check", "decompress"]


@dataclass(frozen=True)
class Progress:
    """What is going on with which variable, source bytes done and to do, bytes stored.

    `kept_nbytes` of what is done were done by an earlier run.
    """

    phase: Phase
    variable: str
    done_nbytes: int = 0
    total_nbytes: int = 0
    stored_nbytes: int = 0
    kept_nbytes: int = 0


Observer = Callable[[Progress], None]
