"""What is to be read: paths, and which part of the dataset they hold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Request:
    """Sources that make one dataset, and the part of it that is wanted.

    `paths` are files, folders, patterns or URLs as the user gives them; `variables` names or patterns (none: all);
    `sel` and `isel` pairs of a dimension and a text such as `2020-01/2020-03`, `500,850` or `0:24` (`selection`).
    """

    paths: tuple[str, ...]
    variables: tuple[str, ...] = ()
    sel: tuple[tuple[str, str], ...] = ()
    isel: tuple[tuple[str, str], ...] = ()

    @property
    def partial(self) -> bool:
        """Whether a part of the dataset is wanted, not all of it."""
        return bool(self.variables or self.sel or self.isel)

    def at(self, paths: Sequence[str]) -> "Request":
        """Return the same part of the dataset at other paths."""
        return replace(self, paths=tuple(paths))


def as_request(source: "str | Sequence[str] | Request") -> Request:
    """Return the request for all of a source that is given as one path or several."""
    if isinstance(source, Request):
        return source
    return Request((source,) if isinstance(source, str) else tuple(source))
