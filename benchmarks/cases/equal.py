"""One case of the benchmark at equal RMSE, a block at one ratio, and what follows from many: pure, JSON in and out."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from benchmarks.cases.bounded import Verdict
from benchmarks.cases.metrics import geometric_mean
from benchmarks.peers.sized import Point

MatchedHow = Literal["measured", "interpolated", "extrapolated", "finer"]

SINGLE_FIELDS = "single fields"
MEAN_ADVANTAGE, MEAN_BLOCK_ADVANTAGE = 1.2, 1.5  # promised at every ratio, for single fields and for blocks


@dataclass(frozen=True)
class Match:
    """Bytes of isopress at a given RMSE.

    `how` is "measured" when a payload has that RMSE within 0.2 %, "interpolated" or "extrapolated" when the bytes
    follow from two payloads on a straight line of logarithms, and "finer" for a payload with a smaller RMSE.
    `payloads` are all that were made, as (bytes, RMSE).
    """

    n_bytes: float
    how: MatchedHow
    payloads: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class EqualCase:
    """The peers at one ratio, and isopress at the RMSE of the best of them.

    Attributes
    ----------
    group, dataset, variable, data_sha256 : str
        What was coded, and with which others it is averaged.
    shape : tuple of int
        Its shape; n_bytes its size, dtype its type, deviation its standard deviation.
    ratio : float
        Original bytes over the bytes the peers were asked for.
    peers : dict of str to Point
        What each peer did in its best setting and layout, the one with the smallest RMSE.
    failures : dict of str to str
        Why a peer's setting has no point, by "peer, setting, layout".
    isopress : Match
        The bytes of isopress at the best peer's RMSE.
    """

    group: str
    dataset: str
    variable: str
    data_sha256: str
    shape: tuple[int, ...]
    dtype: str
    n_bytes: int
    deviation: float
    ratio: float
    peers: dict[str, Point]
    failures: dict[str, str]
    isopress: Match

    @property
    def best_peer(self) -> str:
        """Name of the peer with the smallest RMSE."""
        return min(self.peers, key=lambda name: self.peers[name].rmse)

    @property
    def rmse(self) -> float:
        """The RMSE at which isopress and the best peer are compared, in data units."""
        return self.peers[self.best_peer].rmse

    @property
    def advantage(self) -> float:
        """Bytes of the best peer over bytes of isopress at the same RMSE: > 1 where isopress is smaller."""
        return self.peers[self.best_peer].n_bytes / self.isopress.n_bytes

    def to_json(self) -> dict[str, Any]:
        """Return all fields, and for readers of the file the figures that follow from them."""
        derived = {
            "best_peer": self.best_peer,
            "rmse": self.rmse,
            "rmse_over_deviation": self.rmse / self.deviation,
            "advantage": self.advantage,
            "isopress_ratio": self.n_bytes / self.isopress.n_bytes,
        }
        return {**asdict(self), "derived": derived}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """Return the case `to_json` was called on."""
        stored = {key: value for key, value in entry.items() if key != "derived"}
        stored["shape"] = tuple(stored["shape"])
        stored["peers"] = {name: Point(**point) for name, point in stored["peers"].items()}
        payloads = tuple((int(size), float(rmse)) for size, rmse in stored["isopress"]["payloads"])
        stored["isopress"] = Match(**{**stored["isopress"], "payloads": payloads})
        return cls(**stored)


def verdicts(cases: Sequence[EqualCase]) -> list[Verdict]:
    """Return the promised mean advantage at every ratio: single fields, each group of blocks, all blocks together."""
    found = []
    for group, members in grouped(cases).items():
        limit = MEAN_ADVANTAGE if group == SINGLE_FIELDS else MEAN_BLOCK_ADVANTAGE
        for ratio, chosen in by_ratio(members).items():
            mean = geometric_mean(case.advantage for case in chosen)
            found.append(Verdict(group, f"size advantage at {ratio:g}x, geometric mean", mean, limit, at_least=True))
    return found


def grouped(cases: Iterable[EqualCase]) -> dict[str, list[EqualCase]]:
    """Return the cases of each group in the order of their first appearance, and last those of all blocks."""
    groups: dict[str, list[EqualCase]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    blocks = [case for group, members in groups.items() if group != SINGLE_FIELDS for case in members]
    return groups | ({"all blocks": blocks} if blocks else {})


def by_ratio(cases: Iterable[EqualCase]) -> dict[float, list[EqualCase]]:
    """Return the cases at each ratio, smallest ratio first."""
    ratios: dict[float, list[EqualCase]] = {}
    for case in sorted(cases, key=lambda case: case.ratio):
        ratios.setdefault(case.ratio, []).append(case)
    return ratios
