"""Variables that are coded together: which ones, whether they can be, and where their values are."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from isopress.codec.errors import ArgumentError
from isopress.format.settings import Promise
from isopress.format.source.dataset import Source

FOLDER = "_joint"  # the group that holds the joint arrays; xarray shows the root group only


@dataclass(frozen=True)
class JointPlace:
    """Where the values of a variable are: the path of its joint array, and its channel of so many."""

    array: str
    channel: int
    channels: int


def joint_places(source: Source, groups: Sequence[str]) -> dict[str, JointPlace]:
    """Return the place of every variable that is coded jointly.

    Parameters
    ----------
    source : Source
    groups : sequence of str
        Each states variables that share their chunks: names or shell patterns, separated by commas.

    Raises
    ------
    ArgumentError
        A name that matches nothing, a group of one, a variable in two groups, or variables of a group that differ in
        dimensions, shape or dtype.
    """
    places: dict[str, JointPlace] = {}
    for number, text in enumerate(groups):
        names = _members(text, source)
        if twice := [name for name in names if name in places]:
            raise ArgumentError(f"joint {text!r}: {', '.join(twice)} is in another group already")
        _check_alike(text, names, source)
        for channel, name in enumerate(names):
            places[name] = JointPlace(f"{FOLDER}/{number}", channel, len(names))
    if places and FOLDER in source.names:
        raise ArgumentError(f"the source has a variable {FOLDER!r}, the name joint variables need; leave out --joint")
    return places


def check_joint_bound(name: str, bound: Promise) -> None:
    """Raise ArgumentError unless a variable of a joint array has a bound in its unit or one that will become that."""
    if bound.mode not in ("abs", "range"):
        raise ArgumentError(
            f"{name} is coded jointly, which takes a bound abs or range, not {bound.mode}: set another with --error "
            f"{name}=..., or leave it out of --joint"
        )


def share(nbytes: int, channel: int, channels: int) -> int:
    """Return a channel's equal part of the bytes of a joint array; the parts add up to `nbytes`."""
    return nbytes // channels + (channel < nbytes % channels)


def _members(text: str, source: Source) -> list[str]:
    """Return the variables that a group names, each once, in the order they are named."""
    patterns = [part.strip() for part in text.split(",") if part.strip()]
    names = list(dict.fromkeys(name for pattern in patterns for name in _matches(text, pattern, source)))
    if len(names) < 2:
        raise ArgumentError(f"joint {text!r} names {len(names)} variable; it takes two or more, such as u10,v10")
    return names


def _matches(text: str, pattern: str, source: Source) -> list[str]:
    if found := [name for name in source.lossy if fnmatchcase(name, pattern)]:
        return found
    exact = [name for name in source.exact if fnmatchcase(name, pattern)]
    problem = f"{', '.join(exact)}: stored exactly, not coded" if exact else f"no variable {pattern!r}"
    raise ArgumentError(f"joint {text!r}: {problem}; there are: {', '.join(source.lossy)}")


def _check_alike(text: str, names: Sequence[str], source: Source) -> None:
    def traits(name: str) -> dict[str, object]:
        variable = source.variable(name)
        return {"dimensions": variable.dims, "shape": variable.shape, "dtype": variable.dtype.newbyteorder("=")}

    first = traits(names[0])
    if source.variable(names[0]).ndim < 2:
        raise ArgumentError(f"joint {text!r}: {names[0]} has no (lat, lon) field")
    for name in names[1:]:
        for what, value in traits(name).items():
            if value != first[what]:
                raise ArgumentError(
                    f"joint {text!r}: {names[0]} has {what} {first[what]}, but {name} has {value}; they must agree"
                )
