"""What the benchmarks of size share: options, data, isopress and its peers on one block, the JSON around the cases."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import isopress
from benchmarks.cases.bounded import Case
from benchmarks.cases.metrics import distortion
from benchmarks.datasets.public import Block, Dataset, cache_folder
from benchmarks.environment import RESULTS, environment
from benchmarks.peers.bounded import BoundedPeer, Outcome
from benchmarks.peers.cache import PeerCache

Result = dict[str, Any]


def parser(
    command: str,
    description: str | None,
    sets: Mapping[str, Dataset],
    bounds: Sequence[float],
    peers: Sequence[BoundedPeer],
) -> argparse.ArgumentParser:
    """Return the options every benchmark of size has, with `sets`, `bounds` and `peers` as defaults."""
    names = [peer.name for peer in peers]
    options = argparse.ArgumentParser(prog=f"python -m benchmarks.{command}", description=description)
    options.add_argument("--sets", nargs="*", choices=list(sets), default=list(sets), help="public sets to run")
    options.add_argument("--data", nargs="*", type=Path, default=[], metavar="DIR", help="folders of NetCDF files")
    options.add_argument("--bounds", nargs="+", type=float, default=bounds, help="relative bounds, see above")
    options.add_argument("--peers", nargs="*", choices=names, default=names, help="peers to compare with")
    add_cache_option(options)
    add_output_options(options)
    return options


def add_cache_option(options: argparse.ArgumentParser) -> None:
    """Add where outcomes that do not depend on isopress are kept."""
    options.add_argument("--cache", type=Path, default=cache_folder(), help="where peers' outcomes are kept")


def add_output_options(options: argparse.ArgumentParser) -> None:
    """Add where results go."""
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options.add_argument("--json", action="store_true", help="print only JSON")


def load_blocks(
    options: argparse.Namespace, sets: Mapping[str, Dataset], read_folder: Callable[[Path], list[Block]]
) -> list[Block]:
    """Return the blocks of the chosen sets and folders; raise DatasetError if one cannot be had."""
    blocks = [block for name in options.sets for block in sets[name].load()]
    return blocks + [block for folder in options.data for block in read_folder(folder)]


def compare(block: Block, relative_bound: float, bound: float, peers: Sequence[BoundedPeer], cache: PeerCache) -> Case:
    """Return what isopress with default settings and each installed peer do within `bound`, in data units."""
    outcomes = {peer.name: cache.outcome(peer, block, bound) for peer in peers if peer.version() is not None}
    return Case(
        dataset=block.dataset,
        variable=block.name,
        data_sha256=block.sha256,
        shape=block.values.shape,
        dtype=str(block.values.dtype),
        n_values=block.values.size,
        n_bytes=block.values.nbytes,
        relative_bound=relative_bound,
        bound=bound,
        isopress=run_isopress(block, bound),
        peers={name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Outcome)},
        failures={name: outcome for name, outcome in outcomes.items() if isinstance(outcome, str)},
    )


def run_isopress(block: Block, bound: float, **settings: Any) -> Outcome:
    """Return the size and errors of one payload that holds the whole block."""
    payload = isopress.compress(block.values, mode="abs", bound=bound, **settings)
    errors = distortion(block.values, isopress.decompress(payload))
    named = " ".join(f"{key}={value}" for key, value in settings.items())
    return Outcome(len(payload), errors.max_error, errors.rmse, setting=named or "default", factor=1.0)


def as_json(
    cases: Sequence[Case], peers: Sequence[BoundedPeer], left_out: Sequence[str], sets: Mapping[str, Dataset]
) -> Result:
    """Return everything a reader needs to judge and repeat the run."""
    packages = ("isopress", "numpy", "constriction", *sorted({peer.package for peer in peers}))
    used = [name for name in dict.fromkeys(case.dataset for case in cases) if name in sets]
    return {
        **environment(packages),
        "datasets": {
            name: {"title": sets[name].title, "source": sets[name].source, "licence": sets[name].licence}
            for name in used
        },
        "peers": {peer.name: {"package": peer.package, "source": peer.source} for peer in peers},
        "missing_peers": {peer.name: peer.package for peer in peers if peer.version() is None},
        "left_out": list(left_out),
        "cases": [case.to_json() for case in cases],
    }


def publish(result: Result, path: Path, tables: str, only_json: bool) -> None:
    """Write `result` to `path`, and print it or its tables."""
    text = json.dumps(result, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(text if only_json else tables)
