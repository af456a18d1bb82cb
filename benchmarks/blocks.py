"""Bytes of isopress on neighbouring times and levels: `python -m benchmarks.blocks`.

A case is one variable with all its times and levels at one bound, a fraction of the standard deviation of the whole
block. It is coded by isopress with its neighbouring fields as context (the default) and field by field, and by the
peers. Writes blocks.json, prints the tables, and exits with 1 if a target is missed.
"""

import sys
from collections.abc import Iterator, Sequence

from benchmarks.cases.bounded import BlockCase, block_verdicts
from benchmarks.cases.metrics import standard_deviation
from benchmarks.comparison import as_json, compare, load_blocks, parser, publish, run_isopress
from benchmarks.datasets.public import BLOCKS, Block, load_folder_of_blocks
from benchmarks.datasets.releases import DatasetError
from benchmarks.peers.bounded import BOUNDED_PEERS, BoundedPeer
from benchmarks.peers.cache import PeerCache
from benchmarks.report.bounded import block_progress
from benchmarks.report.tables import overview

BOUNDS = (1e-3, 1e-2, 5e-2)
BLOCK_PEERS = tuple(peer for peer in BOUNDED_PEERS if peer.name != "EBCC")  # EBCC takes minutes for one field
# What makes isopress code each field on its own.
FIELD_BY_FIELD = {"context": "field"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 if every target that applies is met, 1 if not, 2 for bad input."""
    options = parser("blocks", __doc__, BLOCKS, BOUNDS, BLOCK_PEERS).parse_args(arguments)
    try:
        blocks = load_blocks(options, BLOCKS, load_folder_of_blocks)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    peers = [peer for peer in BLOCK_PEERS if peer.name in options.peers]
    cache = PeerCache(options.cache / "bounded_peers.json")
    cases = []
    for block in blocks:
        for case in run_block(block, options.bounds, peers, cache):
            cases.append(case)
            print(block_progress(case), file=sys.stderr, flush=True)
    constant = [f"{block.dataset}/{block.name}" for block in blocks if standard_deviation(block.values) == 0]
    left_out = [f"{name}: constant, no bound relative to its deviation" for name in constant]
    result = as_json(cases, peers, left_out, BLOCKS)
    publish(result, options.out / "blocks.json", overview(result, "blocks.json"), options.json)
    return 0 if all(verdict.kept for verdict in block_verdicts(cases, set(BLOCKS))) else 1


def run_block(
    block: Block, bounds: Sequence[float], peers: Sequence[BoundedPeer], cache: PeerCache
) -> Iterator[BlockCase]:
    """Yield one case per bound, given as fractions of the block's deviation; none for a constant block."""
    scale = standard_deviation(block.values)
    for relative_bound in bounds if scale > 0 else ():
        bound = six_digits(relative_bound * scale)
        case = compare(block, relative_bound, bound, peers, cache)
        yield BlockCase(**vars(case), field_by_field=run_isopress(block, bound, **FIELD_BY_FIELD))


def six_digits(bound: float) -> float:
    """Round to six digits: the last bits of a sum over a block differ from machine to machine, a bound must not."""
    return float(f"{bound:.6g}")


if __name__ == "__main__":
    sys.exit(main())
