"""Bytes and errors of isopress and its peers at five bounds: `python -m benchmarks.rate_distortion`.

Bounds are fractions of the range (max - min) of the block. Writes rate_distortion.json and .png, prints the tables,
and exits with 1 if a target is missed.
"""

import sys
from collections.abc import Iterator, Sequence

from benchmarks.cases.bounded import Case, verdicts
from benchmarks.cases.metrics import value_range
from benchmarks.comparison import as_json, compare, load_blocks, parser, publish
from benchmarks.datasets.public import PUBLIC, Block, load_folder
from benchmarks.datasets.releases import DatasetError
from benchmarks.peers.bounded import BOUNDED_PEERS, BoundedPeer
from benchmarks.peers.cache import PeerCache
from benchmarks.report.bounded import progress
from benchmarks.report.plot import plot
from benchmarks.report.tables import overview

BOUNDS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 if every target that applies is met, 1 if not, 2 for bad input."""
    options = parser("rate_distortion", __doc__, PUBLIC, BOUNDS, BOUNDED_PEERS).parse_args(arguments)
    try:
        blocks = load_blocks(options, PUBLIC, load_folder)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    peers = [peer for peer in BOUNDED_PEERS if peer.name in options.peers]
    cache = PeerCache(options.cache / "bounded_peers.json")
    cases = []
    for block in blocks:
        for case in run_block(block, options.bounds, peers, cache):
            cases.append(case)
            print(progress(case), file=sys.stderr, flush=True)
    constant = [f"{block.dataset}/{block.name}" for block in blocks if value_range(block.values) == 0]
    left_out = [f"{name}: constant, no bound relative to its range" for name in constant]
    result = as_json(cases, peers, left_out, PUBLIC)
    tables = overview(result, "rate_distortion.json")
    publish(result, options.out / "rate_distortion.json", tables, options.json)
    if cases:
        plot(cases, options.out / "rate_distortion.png")
    return 0 if all(verdict.kept for verdict in verdicts(cases)) else 1


def run_block(block: Block, bounds: Sequence[float], peers: Sequence[BoundedPeer], cache: PeerCache) -> Iterator[Case]:
    """Yield one case per bound, given as fractions of the block's range; none for a constant block."""
    scale = value_range(block.values)
    for relative_bound in bounds if scale > 0 else ():
        yield compare(block, relative_bound, relative_bound * scale, peers, cache)


if __name__ == "__main__":
    sys.exit(main())
