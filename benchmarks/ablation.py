"""What each part of the latent codec brings: `python -m benchmarks.ablation`.

Bytes at the RMSE of the best peer at 200x and 400x, with parts of the codec switched off; the weights are the same in
all variants. What is not in the shipped weights has its own, in benchmarks/weights: a transformer in analysis, and a
plain patch VAEformer, which counts by its ideal code length. Writes ablation.json and prints the table.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import report
from benchmarks.cache import RivalCache
from benchmarks.comparison import add_cache_option, add_output_options, publish
from benchmarks.datasets import Block
from benchmarks.environment import environment
from benchmarks.equal_cases import SINGLE_FIELDS
from benchmarks.equal_rmse import GROUPS, RATIOS, SECONDS, Coder, bars_of, match
from benchmarks.metrics import distortion
from benchmarks.peers import PEERS, Peer
from benchmarks.releases import DatasetError

if TYPE_CHECKING:
    from isopress.codec.latent.weights import LatentModel

USED = (200.0, 400.0)
# Of these groups one block is taken.
BLOCK = {"sequences and levels": "xwind10 2015-11-16", "several variables": "t2m, u10, v10, msl"}
PEERS_USED = ("JPEG2000", "SPERR", "SZ3")
HEADER = 110  # bytes of a payload beside its section
TRIES = 7
NEAR = 0.01  # an RMSE that close to the one asked for ends the search; two of them are interpolated
WEIGHTS = Path(__file__).parent / "weights"

# encode(x, step) -> (bytes, decoded x) at a step in the unit of x
AtStep = Callable[[np.ndarray, float], tuple[int, np.ndarray]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ablation; return 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        blocks = chosen_blocks(options.groups)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    cache = RivalCache(options.cache / "peers.json")
    peers = [peer for peer in PEERS if peer.name in PEERS_USED and peer.version() is not None]
    runs: list[dict[str, Any]] = []
    for group, block in blocks:
        for run in run_block(group, block, coders(group, options.patch, options.analysis), cache, peers):
            runs.append(run)
            print(f"{run['variable']} at {run['ratio']:g}x, {run['variant']}: {run['advantage']:.3f}x", file=sys.stderr)
    result = {**environment(("isopress", "numpy", "torch")), "runs": runs}
    publish(result, options.out / "ablation.json", report.overview(result, "ablation.json"), options.json)
    return 0


def chosen_blocks(groups: Sequence[str]) -> list[tuple[str, Block]]:
    """Return the single fields, or one block of another group, with the group's name."""
    loaded = [(group, block) for group in groups for block in GROUPS[group]()]
    return [(group, block) for group, block in loaded if BLOCK.get(group, block.name) == block.name]


def run_block(
    group: str,
    block: Block,
    variants: dict[str, Coder],
    cache: RivalCache,
    peers: Sequence[Peer],
    used: Sequence[float] = USED,
) -> Iterator[dict[str, Any]]:
    """Yield one record per ratio and variant: bytes at the best peer's RMSE, and the peer's over them."""
    ratios = RATIOS if set(used) <= set(RATIOS) else used  # those of the benchmark at equal RMSE are in the cache
    for ratio, (best, _) in zip(ratios, bars_of(block, ratios, peers, cache, SECONDS), strict=True):
        bar = min(best.values(), key=lambda point: point.rmse, default=None)
        if ratio in used and bar is not None:
            for name, code in variants.items():
                n_bytes = match(code, block.values, bar.rmse).n_bytes
                run = {"group": group, "variable": f"{block.dataset}/{block.name}", "ratio": ratio, "variant": name}
                yield {**run, "rmse": bar.rmse, "n_bytes": n_bytes, "advantage": bar.n_bytes / n_bytes}


def coders(group: str, patch: Path, analysis: Path) -> dict[str, Coder]:
    """Return the variants that make sense for a group, each as a codec with an RMSE target."""
    variants: dict[str, AtStep] = {
        "wavelet and contexts": latents(corrected=False, ahead=False),
        "plus rows halved ahead": latents(corrected=False),
        "plus transformer in synthesis": latents(),
        "plus transformer in analysis": latents(weights=analysis),
    }
    if group != SINGLE_FIELDS:
        variants["synthesis and transform across fields"] = latents(mixed=True)
    else:
        variants["plain patch VAEformer (ideal code length)"] = patch_model(patch)
    return {name: searched(encode) for name, encode in variants.items()}


def latents(*, corrected: bool = True, mixed: bool = False, ahead: bool = True, weights: Path | None = None) -> AtStep:
    """Return the latent codec with or without its transformers, transforms across fields, and rows halved ahead.

    weights : a file to use instead of the shipped ones
    """
    from isopress.codec.latent.decorrelation import identity
    from isopress.codec.latent.section import Latent, encode_fields
    from isopress.codec.latent.weights import load_vaeformer

    model = load_vaeformer() if weights is None else model_of(weights)

    def encode(x: np.ndarray, step: float) -> tuple[int, np.ndarray]:
        fields = x.astype(np.float64)
        latent = Latent(step, float(fields.min() / 2 + fields.max() / 2), is_global(x), corrected)
        mixings = None if mixed else tuple(identity(n) for n in x.shape[:-2])
        halvings = None if ahead else ()
        section, decoded = encode_fields(fields, latent, model, mixings=mixings, ahead=halvings)
        return len(section) + HEADER, decoded.astype(x.dtype)

    return encode


def model_of(path: Path) -> "LatentModel":
    """Return the latent codec's model of a weights file."""
    from safetensors import safe_open

    from isopress.codec.latent.weights import parse_vaeformer

    with safe_open(path, "np") as file:
        corrector = json.loads(file.metadata()["corrector"])
    return parse_vaeformer(path.stem, path.read_bytes(), corrector)


def is_global(x: np.ndarray) -> bool:
    """Whether longitude closes on itself, as the codec itself finds out."""
    from isopress.codec.bounded.pyramid import looks_periodic

    return bool(looks_periodic(x.astype(np.float64).reshape(-1, *x.shape[-2:]), None))


def patch_model(path: Path) -> AtStep:
    """Return the plain patch VAEformer of a checkpoint; its bytes are ideal code lengths."""
    import torch

    from isopress.codec.training.vaeformer import ideal_rate, load_patch

    model = load_patch(path)

    def encode(x: np.ndarray, step: float) -> tuple[int, np.ndarray]:
        with torch.inference_mode():
            bits, rmse = ideal_rate(model, x, step / float(x.std(dtype=np.float64)), periodic=True)
        # Only its error counts: a field that misses the original by the RMSE everywhere.
        return math.ceil(bits / 8), (x.astype(np.float64) + rmse).astype(x.dtype)

    return encode


def searched(encode: AtStep) -> Coder:
    """Return a codec with an RMSE target: the step is searched along a straight line of logarithms."""

    def code(x: np.ndarray, rmse: float) -> tuple[int, np.ndarray]:
        seen: list[tuple[float, float]] = []  # logarithms of step and RMSE
        step = 2.5 * rmse
        for _ in range(TRIES):
            n_bytes, x_hat = encode(x, step)
            achieved = distortion(x, x_hat).rmse
            if abs(achieved / rmse - 1) <= NEAR:
                break
            seen.append((math.log(step), math.log(achieved)))
            step = math.exp(_next(seen, math.log(rmse)))
        return n_bytes, x_hat

    return code


def _next(seen: list[tuple[float, float]], goal: float) -> float:
    """Return the logarithm of the step to try, from the two nearest so far."""
    nearest = sorted(seen, key=lambda one: abs(one[1] - goal))[:2]
    (step, value), slope = nearest[0], 0.75
    if len(nearest) == 2 and nearest[1][0] != step:
        slope = min(max((nearest[1][1] - value) / (nearest[1][0] - step), 0.3), 1.5)
    return step + (goal - value) / slope


def _parser() -> argparse.ArgumentParser:
    groups = (SINGLE_FIELDS, *BLOCK)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--groups", nargs="+", choices=groups, default=groups, help="groups of blocks, see BLOCK")
    for name, file, what in (
        ("--analysis", "with-analysis.safetensors", "weights that have a transformer in analysis too"),
        ("--patch", "patch-small.safetensors", "weights or checkpoint of a plain patch VAEformer"),
    ):
        parser.add_argument(name, type=Path, default=WEIGHTS / file, metavar="FILE", help=what)
    add_cache_option(parser)
    add_output_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
