"""One case of the benchmark, a variable at one bound, and what follows from many: pure, JSON in and out."""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

from benchmarks.cases.metrics import bits_per_value, geometric_mean
from benchmarks.peers.bounded import Outcome


@dataclass(frozen=True)
class Case:
    """isopress and every peer on one block at one absolute bound.

    Attributes
    ----------
    dataset, variable, data_sha256 : str
        What was coded.
    shape : tuple of int
        Its shape; n_bytes its size, dtype its type.
    relative_bound, bound : float
        The bound as the benchmark states it (a fraction of the block's range or deviation), and in data units.
    isopress : Outcome
        What isopress did.
    peers : dict of str to Outcome
        What each peer did within the bound.
    failures : dict of str to str
        Why a peer has no outcome.
    """

    dataset: str
    variable: str
    data_sha256: str
    shape: tuple[int, ...]
    dtype: str
    n_values: int
    n_bytes: int
    relative_bound: float
    bound: float
    isopress: Outcome
    peers: dict[str, Outcome]
    failures: dict[str, str]

    @property
    def best_peer(self) -> str | None:
        """Name of the peer with the fewest bytes."""
        return min(self.peers, key=lambda name: self.peers[name].n_bytes, default=None)

    @property
    def advantage(self) -> float | None:
        """Bytes of the best peer over bytes of isopress: > 1 where isopress is smaller."""
        return self.peers[self.best_peer].n_bytes / self.isopress.n_bytes if self.best_peer else None

    @property
    def rmse_ratio(self) -> float | None:
        """RMSE of isopress over the RMSE of the best peer."""
        if self.best_peer is None or self.peers[self.best_peer].rmse == 0:
            return None
        return self.isopress.rmse / self.peers[self.best_peer].rmse

    @property
    def error_over_bound(self) -> float:
        """Largest error of isopress over the bound: a promise, never above 1."""
        return self.isopress.max_error / self.bound

    def to_json(self) -> dict[str, Any]:
        """Return all fields, and for readers of the file the figures that follow from them."""
        derived = {
            "ratio": self.n_bytes / self.isopress.n_bytes,
            "bits_per_value": bits_per_value(self.isopress.n_bytes, self.n_values),
            "error_over_bound": self.error_over_bound,
            "best_peer": self.best_peer,
            "advantage": self.advantage,
            "rmse_ratio": self.rmse_ratio,
        }
        return {**asdict(self), "derived": derived}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """Return the case `to_json` was called on."""
        stored = {key: value for key, value in entry.items() if key != "derived"}
        stored["shape"] = tuple(stored["shape"])
        stored["isopress"] = Outcome(**stored["isopress"])
        stored["peers"] = {name: Outcome(**outcome) for name, outcome in stored["peers"].items()}
        return cls(**stored)


@dataclass(frozen=True)
class BlockCase(Case):
    """A case of many fields: `isopress` used neighbouring fields as context, `field_by_field` did not."""

    field_by_field: Outcome

    @property
    def gain(self) -> float:
        """Bytes field by field over bytes with context: a promise, never below 1."""
        return self.field_by_field.n_bytes / self.isopress.n_bytes

    def to_json(self) -> dict[str, Any]:
        """Return all fields and the figures that follow from them."""
        entry = super().to_json()
        return {**entry, "derived": {**entry["derived"], "gain": self.gain}}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """Return the case `to_json` was called on."""
        return super().from_json({**entry, "field_by_field": Outcome(**entry["field_by_field"])})


AnyCase = TypeVar("AnyCase", bound=Case)


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured: kept when `value` is on the right side of `limit`."""

    dataset: str
    target: str
    value: float
    limit: float
    at_least: bool

    @property
    def kept(self) -> bool:
        """Whether the target is met; a figure that is not a number meets nothing."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


MIN_ADVANTAGE = {"native": 1.08, "sample": 1.0}
MEAN_ADVANTAGE = {"native": 1.30}
MAX_RMSE_RATIO = 1.05
# Public blocks of times an hour or less apart, or of many levels; the times of the others are 7 hours apart.
SEQUENCES = ("arome", "colpex", "cesm")
MEAN_BLOCK_ADVANTAGE = {1e-3: 1.35, 1e-2: 1.6, 5e-2: 1.8}  # by bound over the block's standard deviation


def verdicts(cases: Iterable[Case]) -> list[Verdict]:
    """Return every target that applies: the promise for every set, size and RMSE for the public sets."""
    found = []
    for dataset, members in by_dataset(cases).items():
        error = max(case.error_over_bound for case in members)
        found.append(Verdict(dataset, "largest error over the bound", error, 1.0, at_least=False))
        advantages = advantages_of(members)
        if dataset in MEAN_ADVANTAGE:
            mean, limit = geometric_mean(advantages), MEAN_ADVANTAGE[dataset]
            found.append(Verdict(dataset, "size advantage, geometric mean", mean, limit, at_least=True))
        if dataset in MIN_ADVANTAGE and advantages:
            worst, limit = min(advantages), MIN_ADVANTAGE[dataset]
            found.append(Verdict(dataset, "size advantage, worst case", worst, limit, at_least=True))
        ratios = [case.rmse_ratio for case in members if case.rmse_ratio is not None]
        if dataset in MIN_ADVANTAGE and ratios:
            worst = max(ratios)
            found.append(Verdict(dataset, "RMSE over best peer's", worst, MAX_RMSE_RATIO, at_least=False))
    return found


def block_verdicts(cases: Iterable[BlockCase], public: Collection[str]) -> list[Verdict]:
    """Return every target of blocks, for all public sets together and for every other set."""
    found = []
    for dataset, members in with_all_public(cases, public).items():
        if dataset in public:
            continue
        error = max(case.error_over_bound for case in members)
        found.append(Verdict(dataset, "largest error over the bound", error, 1.0, at_least=False))
        for bound, limit in MEAN_BLOCK_ADVANTAGE.items():
            advantages = advantages_of(case for case in members if case.relative_bound == bound)
            if advantages:
                target = f"size advantage at {bound:g}, geometric mean"
                found.append(Verdict(dataset, target, geometric_mean(advantages), limit, at_least=True))
        gain = min(case.gain for case in members)
        found.append(Verdict(dataset, "bytes field by field over bytes, worst case", gain, 1.0, at_least=True))
    return found


def by_dataset(cases: Iterable[AnyCase]) -> dict[str, list[AnyCase]]:
    """Return the cases of each set, in the order of their first appearance."""
    groups: dict[str, list[AnyCase]] = {}
    for case in cases:
        groups.setdefault(case.dataset, []).append(case)
    return groups


def with_all_public(cases: Iterable[AnyCase], public: Collection[str]) -> dict[str, list[AnyCase]]:
    """Return the cases of each set, and those of public sets once more: all, and those of `SEQUENCES`."""
    groups = by_dataset(cases)
    pooled = {
        "public sequences and levels": [
            case for name in groups if name in SEQUENCES and name in public for case in groups[name]
        ],
        "all public": [case for name in groups if name in public for case in groups[name]],
    }
    return groups | {name: members for name, members in pooled.items() if members}


def advantages_of(cases: Iterable[Case]) -> list[float]:
    """Return the size advantages of the cases that have a peer."""
    return [case.advantage for case in cases if case.advantage is not None]
