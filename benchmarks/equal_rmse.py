"""Bytes at equal RMSE where data become 100 to 800 times smaller: `python -m benchmarks.equal_rmse`.

At each ratio every peer is driven to exactly that many bytes in all its settings and layouts. The smallest RMSE is
the bar; isopress is asked for that RMSE, and its bytes are compared with the peer's. Writes equal_rmse.json and .png,
prints the tables, and exits with 1 if a target is missed.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import isopress
from benchmarks.cases.equal import SINGLE_FIELDS, EqualCase, Match, verdicts
from benchmarks.cases.metrics import distortion, standard_deviation
from benchmarks.comparison import add_cache_option, add_output_options, publish
from benchmarks.datasets.public import BLOCKS, PUBLIC, Block, load_folder, standardised
from benchmarks.datasets.releases import DatasetError
from benchmarks.environment import environment
from benchmarks.peers.cache import PeerCache
from benchmarks.peers.sized import SIZED_PEERS, TRIES, Point, SizedPeer, interpolate, points_at
from benchmarks.report.equal import equal_progress
from benchmarks.report.plot import plot_advantage
from benchmarks.report.tables import overview

RATIOS = (100.0, 200.0, 400.0, 800.0)
EQUAL = 0.002  # an RMSE that close to the one asked for is that RMSE
TOLERATED = 0.03  # how far isopress may be from the RMSE it is asked for
REQUESTS = 5  # payloads of isopress per case, at most
SECONDS = 120.0  # processor time for one setting of a peer at one ratio

# code(x, rmse) -> (bytes, decoded x) for a wanted RMSE in the unit of x
Coder = Callable[[np.ndarray, float], tuple[int, np.ndarray]]


class RmseMissedError(ValueError):
    """A codec stays further from the RMSE it was asked for than it promises."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 if every target that applies is met, 1 if not, 2 for bad input."""
    options = _parser().parse_args(arguments)
    peers = [peer for peer in SIZED_PEERS if peer.name in options.peers and peer.version() is not None]
    try:
        blocks = [(group, block) for group in options.groups for block in GROUPS[group]()]
        blocks += [(folder.name, block) for folder in options.data for block in load_folder(folder)]
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    cache = PeerCache(options.cache / "sized_peers.json")
    if options.peers_only:
        for _, block in blocks:
            bars_of(block, options.ratios, peers, cache, options.seconds)
            print(f"{block.dataset}/{block.name}", file=sys.stderr, flush=True)
        return 0
    cases = []
    for group, block in blocks:
        for case in run_block(group, block, options.ratios, peers, cache, isopress_latent, options.seconds):
            cases.append(case)
            print(equal_progress(case), file=sys.stderr, flush=True)
    constant = [f"{b.dataset}/{b.name}: constant" for _, b in blocks if standard_deviation(b.values) == 0]
    result = as_json(cases, [peer for peer in SIZED_PEERS if peer.name in options.peers], constant, options)
    publish(result, options.out / "equal_rmse.json", overview(result, "equal_rmse.json"), options.json)
    if cases:
        plot_advantage(cases, options.out / "equal_rmse.png")
    return 0 if all(verdict.kept for verdict in verdicts(cases)) else 1


def isopress_latent(x: np.ndarray, rmse: float) -> tuple[int, np.ndarray]:
    """Return the bytes of one latent payload of `x` with that RMSE, and its decoded values."""
    payload = isopress.compress(x, mode="latent", rmse=rmse)
    return len(payload), np.asarray(isopress.decompress(payload))


def run_block(
    group: str,
    block: Block,
    ratios: Sequence[float],
    peers: Sequence[SizedPeer],
    cache: PeerCache,
    code: Coder,
    seconds: float = SECONDS,
) -> Iterator[EqualCase]:
    """Yield one case per ratio that a peer reaches."""
    for ratio, (best, failures) in zip(ratios, bars_of(block, ratios, peers, cache, seconds), strict=True):
        if best:
            bar = min(point.rmse for point in best.values())
            yield EqualCase(
                group=group,
                dataset=block.dataset,
                variable=block.name,
                data_sha256=block.sha256,
                shape=block.values.shape,
                dtype=str(block.values.dtype),
                n_bytes=block.values.nbytes,
                deviation=standard_deviation(block.values),
                ratio=ratio,
                peers=best,
                failures=failures,
                isopress=match(code, block.values, bar),
            )


def bars_of(
    block: Block, ratios: Sequence[float], peers: Sequence[SizedPeer], cache: PeerCache, seconds: float
) -> list[tuple[dict[str, Point], dict[str, str]]]:
    """Return for each ratio the best point of each peer, and why settings have none."""
    found: list[tuple[dict[str, Point], dict[str, str]]] = [({}, {}) for _ in ratios]
    for peer in peers:
        entries = cache.entry(
            sized_key(peer, block.sha256, ratios, seconds), partial(_compute, peer, block, ratios, seconds)
        )
        for (best, failures), entry in zip(found, entries["ratios"], strict=True):
            points = [Point(**point) for point in entry["points"]]
            if points:
                best[peer.name] = min(points, key=lambda point: point.rmse)
            failures.update({f"{peer.name}, {setting}": reason for setting, reason in entry["failures"].items()})
    return found


def sized_key(peer: SizedPeer, sha256: str, ratios: Sequence[float], seconds: float) -> str:
    """Name everything that outcomes on the block of that hash depend on; hashed settings keep the key short."""
    settings = [(setting.name, setting.layouts) for setting in peer.settings]
    search = hashlib.sha256(repr((settings, list(ratios), TRIES, seconds)).encode()).hexdigest()[:16]
    return f"{sha256} {peer.name} {peer.version()} {search} at sizes"


def _compute(peer: SizedPeer, block: Block, ratios: Sequence[float], seconds: float) -> dict[str, Any]:
    found = points_at(peer, block.values, [block.values.nbytes / ratio for ratio in ratios], seconds)
    return {"ratios": [{"points": [asdict(p) for p in points], "failures": why} for points, why in found]}


def match(code: Coder, x: np.ndarray, rmse: float) -> Match:
    """Return the bytes `code` needs for `x` at an RMSE.

    Parameters
    ----------
    code : callable
        code(x, rmse) -> (bytes, decoded x); meets the RMSE it is asked for within 3 %.
    x : ndarray, any shape, float32 or float64
        The block.
    rmse : float
        Where the bytes are wanted, in the unit of `x`; > 0.

    Raises
    ------
    RmseMissedError
        Every encoding is more than 3 % above `rmse`.
    """
    made: list[tuple[int, float]] = []
    for turn in range(REQUESTS):
        # A miss is answered by asking for as much on the other side, and for ever more if that does not help.
        aim = rmse if not made else rmse * min(max((rmse / max(made[-1][1], 1e-9 * rmse)) ** (2**turn - 1), 0.8), 1.25)
        size, x_hat = code(x, aim)
        made.append((size, distortion(x, x_hat).rmse))
        if abs(made[-1][1] / rmse - 1) <= EQUAL:
            return Match(size, "measured", tuple(made))
        if min(each for _, each in made) < rmse < max(each for _, each in made):
            break
    return _from_two(made, rmse)


def _from_two(made: list[tuple[int, float]], rmse: float) -> Match:
    """Use the payloads next to `rmse` on either side, or the nearest two."""
    nearest = sorted({each: size for size, each in made}.items(), key=lambda one: abs(one[0] / rmse - 1))
    finer = [one for one in nearest if one[0] <= rmse]
    coarser = [one for one in nearest if one[0] > rmse]
    payloads = tuple(made)
    if finer and coarser and coarser[0][0] <= finer[0][0] * (1 + 2 * TOLERATED):
        return Match(interpolate(rmse, finer[0], coarser[0]), "interpolated", payloads)
    if finer and finer[0][0] < rmse * (1 - TOLERATED):
        return Match(finer[0][1], "finer", payloads)
    if len(nearest) > 1 and abs(nearest[0][0] / rmse - 1) <= TOLERATED:
        return Match(interpolate(rmse, nearest[0], nearest[1]), "extrapolated", payloads)
    if finer:
        return Match(finer[0][1], "finer", payloads)
    raise RmseMissedError(f"asked for an RMSE of {rmse:g}, the nearest is {nearest[0][0]:g}")


def as_json(
    cases: Sequence[EqualCase], peers: Sequence[SizedPeer], constant: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Return everything a reader needs to judge and repeat the run."""
    packages = sorted({package for peer in peers for package in peer.packages})
    sets = PUBLIC | BLOCKS
    used = [name for name in dict.fromkeys(case.dataset for case in cases) if name in sets]
    return {
        **environment(("isopress", "numpy", "torch", "constriction", *packages)),
        "datasets": {
            name: {"title": sets[name].title, "source": sets[name].source, "licence": sets[name].licence}
            for name in used
        },
        "peers": {peer.name: {"package": ", ".join(peer.packages), "source": peer.source} for peer in peers},
        "missing_peers": {peer.name: ", ".join(peer.packages) for peer in peers if peer.version() is None},
        "left_out": [
            f"{case.dataset}/{case.variable} at {case.ratio:g}x, {name}: {reason}"
            for case in cases
            for name, reason in case.failures.items()
            if "more than" in reason
        ]
        + constant,
        "seconds": options.seconds,
        "cases": [case.to_json() for case in cases],
    }


def several_variables() -> list[Block]:
    """Return blocks of several variables at one time, each in units of its own deviation."""
    native = {block.name: block.values for block in PUBLIC["native"].load()}
    sample = {block.name: block.values[0] for block in PUBLIC["sample"].load()}
    return [
        standardised("native", {name: native[name] for name in ("u850", "v850", "vo850")}),
        standardised("sample", {name: sample[name] for name in ("t2m", "u10", "v10", "msl")}),
    ]


# What is averaged together.
GROUPS: dict[str, Callable[[], list[Block]]] = {
    SINGLE_FIELDS: lambda: PUBLIC["native"].load(),
    "sequences and levels": lambda: [b for name in ("arome", "colpex", "cesm") for b in BLOCKS[name].load()],
    "sample": lambda: PUBLIC["sample"].load(),
    "several variables": several_variables,
}


def _parser() -> argparse.ArgumentParser:
    names = [peer.name for peer in SIZED_PEERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equal_rmse", description=__doc__)
    parser.add_argument("--groups", nargs="*", choices=list(GROUPS), default=list(GROUPS), help="public data to run")
    parser.add_argument("--data", nargs="*", type=Path, default=[], metavar="DIR", help="folders of NetCDF files")
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS, help="ratios of the peers")
    parser.add_argument("--peers", nargs="*", choices=names, default=names, help="peers to compare with")
    parser.add_argument("--peers-only", action="store_true", help="only fill the cache of the peers' outcomes")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="processor time for one setting of a peer at one ratio"
    )
    add_cache_option(parser)
    add_output_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
