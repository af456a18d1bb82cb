"""What a source has and what is to be said of it."""

from dataclasses import dataclass, field

from isopress.format.source.dataset import Request
from tests.format.sources import Array

BOUND = 0.1  # of whatever is not exact


@dataclass(frozen=True)
class Case:
    """A source, the values that its variables have, what is to be said about it, and the names that are lossy."""

    source: str | Request
    values: dict[str, Array]
    warnings: tuple[str, ...] = ()
    lossy: tuple[str, ...] = ()
    errors: tuple[str, ...] = (f"{BOUND}",)
    read: dict[str, int] = field(default_factory=dict)
