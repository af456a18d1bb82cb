"""Zonal power spectra of decoded fields: `python -m benchmarks.spectra`.

Power is |Fourier transform along longitude|^2, averaged over the rows between 60 S and 60 N. At one ratio the decoded
power at every wavelength above ten grid cells is compared with the original's, for isopress and for the peers in
their best setting. Writes spectra.json and .png, prints the table, and exits with 1 if isopress misses the target.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import isopress
from benchmarks.comparison import add_cache_option, add_output_options, publish
from benchmarks.datasets.public import PUBLIC, Block
from benchmarks.datasets.releases import DatasetError
from benchmarks.environment import environment
from benchmarks.equal_rmse import RATIOS, SECONDS, bars_of
from benchmarks.peers.cache import PeerCache
from benchmarks.peers.sized import SIZED_PEERS, SizedPeer, decoded_at
from benchmarks.report.plot import plot_spectra
from benchmarks.report.tables import overview

RATIO = 200.0
SHORTEST = 10  # grid cells: longer waves count
MAX_ERROR = 0.1  # of the power at every such wavelength
COMPARED = ("JPEG2000", "SPERR")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 if isopress keeps the power, 1 if not, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        blocks = PUBLIC["native"].load()
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    peers = [peer for peer in SIZED_PEERS if peer.name in options.peers]
    cache = PeerCache(options.cache / "sized_peers.json")
    installed = [peer for peer in peers if peer.version() is not None]
    runs = [
        run_of(f"{block.dataset}/{block.name}", codec, block.values, n_bytes, x_hat)
        for block in blocks
        for codec, n_bytes, x_hat in decoded_fields(block, options.ratio, installed, cache)
    ]
    packages = sorted({package for peer in peers for package in peer.packages})
    missing = {peer.name: ", ".join(peer.packages) for peer in peers if peer not in installed}
    surroundings = environment(("isopress", "numpy", "torch", *packages))
    result = {**surroundings, "missing_peers": missing, "runs": runs}
    publish(result, options.out / "spectra.json", overview(result, "spectra.json"), options.json)
    plot_spectra(runs, options.out / "spectra.png")
    return 0 if all(run["kept"] for run in runs if run["codec"] == "isopress") else 1


def decoded_fields(
    block: Block, ratio: float, peers: Sequence[SizedPeer], cache: PeerCache
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield codec, bytes and decoded field at a ratio: isopress, and each peer in its best setting."""
    payload = isopress.compress(block.values, mode="latent", ratio=ratio)
    yield "isopress", len(payload), np.asarray(isopress.decompress(payload))
    ratios = RATIOS if ratio in RATIOS else (ratio,)  # those of the benchmark at equal RMSE are in the cache
    best, _ = bars_of(block, ratios, peers, cache, SECONDS)[ratios.index(ratio)]
    for peer in peers:
        if peer.name in best:
            yield peer.name, *decoded_at(peer, block.values, best[peer.name])


def run_of(variable: str, codec: str, x: np.ndarray, n_bytes: int, x_hat: np.ndarray) -> dict[str, Any]:
    """Return what decoding did to the power of a field, as a record for the JSON."""
    kept_power = relative_power(x, x_hat)
    wavelengths = x.shape[-1] / np.arange(1, len(kept_power) + 1)
    errors = np.abs(kept_power - 1)
    counted = wavelengths > SHORTEST
    worst = int(np.argmax(np.where(counted, errors, -1)))
    return {
        "variable": variable,
        "codec": codec,
        "ratio": x.nbytes / n_bytes,
        "worst_error": float(errors[worst]),
        "worst_wavelength": float(wavelengths[worst]),
        "resolved_to": resolved_to(errors, wavelengths),
        "kept": bool(errors[counted].max() <= MAX_ERROR),
        "relative_power": [float(f"{value:.5g}") for value in kept_power],
    }


def relative_power(x: np.ndarray, x_hat: np.ndarray) -> np.ndarray:
    """Return decoded over original power at the zonal wavenumbers 1, 2, ... below the shortest wave.

    Parameters
    ----------
    x, x_hat : ndarray, (lat, lon), float32 or float64
        Original and decoded field on a regular grid from pole to pole and around the globe.
    """
    original, decoded = zonal_power(x), zonal_power(x_hat)
    return np.asarray(decoded[1:] / np.maximum(original[1:], np.finfo(float).tiny))


def zonal_power(x: np.ndarray) -> np.ndarray:
    """Return |Fourier transform along longitude|^2, mean over the rows between 60 S and 60 N."""
    latitudes = np.linspace(90, -90, x.shape[0])
    rows = x[np.abs(latitudes) <= 60].astype(np.float64)
    return np.asarray(np.mean(np.abs(np.fft.rfft(rows, axis=-1)) ** 2, axis=0))


def resolved_to(errors: np.ndarray, wavelengths: np.ndarray) -> float:
    """Return the shortest wavelength down to which all longer waves have their power within 10 %."""
    wrong = np.flatnonzero(errors > MAX_ERROR)
    right = int(wrong[0]) - 1 if len(wrong) else len(errors) - 1
    return float(wavelengths[right]) if right >= 0 else float("inf")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spectra", description=__doc__)
    parser.add_argument("--ratio", type=float, default=RATIO)
    parser.add_argument("--peers", nargs="*", choices=[peer.name for peer in SIZED_PEERS], default=COMPARED)
    add_cache_option(parser)
    add_output_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
