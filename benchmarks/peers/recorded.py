"""Take peers' outcomes from the published results instead of running them: `python -m benchmarks.peers.recorded`.

What the results record for a peer of the installed version goes into the cache that the benchmarks of size look into.
A change of a peer's settings changes its key, not the record: after one, run the peer instead.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.comparison import add_cache_option
from benchmarks.environment import RESULTS
from benchmarks.equal_rmse import sized_key
from benchmarks.peers.bounded import BOUNDED_PEERS
from benchmarks.peers.cache import PeerCache, bounded_key
from benchmarks.peers.sized import SIZED_PEERS

Entry = dict[str, Any]


def main() -> None:
    """Fill both caches, and say how many outcomes there are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.recorded", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the JSON files")
    add_cache_option(parser)
    options = parser.parse_args()
    for cache, entries in (
        ("bounded_peers.json", dict(under_bounds(options.results))),
        ("sized_peers.json", dict(at_sizes(options.results))),
    ):
        PeerCache(options.cache / cache).add(entries)
        print(f"{cache}: {len(entries)} outcomes")


def under_bounds(results: Path) -> Iterator[tuple[str, Entry]]:
    """Yield key and outcome of every peer in every case at a bound."""
    for name in ("rate_distortion.json", "blocks.json"):
        result = json.loads((results / name).read_text())
        peers = [peer for peer in BOUNDED_PEERS if _same_version(result, (peer.package,), peer.version())]
        for case in result["cases"]:
            for peer in peers:
                key = bounded_key(peer, case["data_sha256"], case["bound"])
                if peer.name in case["peers"]:
                    yield key, case["peers"][peer.name]
                elif peer.name in case["failures"]:
                    yield key, {"failure": case["failures"][peer.name]}


def at_sizes(results: Path) -> Iterator[tuple[str, Entry]]:
    """Yield key and outcomes at all ratios of every peer on every block: the best point of each."""
    result = json.loads((results / "equal_rmse.json").read_text())
    cases: dict[str, list[Entry]] = {}
    for case in result["cases"]:
        cases.setdefault(case["data_sha256"], []).append(case)
    for peer in (peer for peer in SIZED_PEERS if _same_version(result, peer.packages, peer.version())):
        for sha256, members in cases.items():
            key = sized_key(peer, sha256, [case["ratio"] for case in members], result["seconds"])
            yield key, {"ratios": [_at_one_size(case, peer.name) for case in members]}


def _at_one_size(case: Entry, name: str) -> Entry:
    prefix = f"{name}, "
    return {
        "points": [case["peers"][name]] if name in case["peers"] else [],
        "failures": {key.removeprefix(prefix): why for key, why in case["failures"].items() if key.startswith(prefix)},
    }


def _same_version(result: Entry, packages: tuple[str, ...], installed: str | None) -> bool:
    recorded = [result["versions"].get(package) for package in packages]
    return None not in recorded and installed == " ".join(recorded)


if __name__ == "__main__":
    main()
