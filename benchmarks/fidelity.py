"""Figures of merit at each preset, against peers of equal size: `python -m benchmarks.fidelity`.

Native ERA5 fields and some hours of the sample are compressed under the bound of every preset; SZ3, SPERR and EBCC are
driven to the same bytes, in the setting with the smallest RMSE. The figures and their thresholds are those of
`isopress compare`; DSSIM is also held against the threshold of ldcpy. Then the bound of `archive` is halved until DSSIM
passes. What peers did is kept in the cache. Writes fidelity.json and prints the table; exits with 1 if isopress breaks
a bound.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import isopress
from benchmarks.comparison import add_cache_option, add_output_options, publish
from benchmarks.datasets.public import PUBLIC, Block
from benchmarks.datasets.releases import DatasetError
from benchmarks.environment import environment
from benchmarks.peers.cache import PeerCache
from benchmarks.peers.sized import SIZED_PEERS, SizedPeer, decoded_at, points_at
from benchmarks.report.fidelity import DSSIM_LDCPY
from benchmarks.report.tables import overview
from isopress.codec.limits import Bound
from isopress.format.presets import PRESETS, Preset, preset_bound
from isopress.format.report.compare.grid import Grid
from isopress.format.report.compare.metrics import Merit, stride_for
from isopress.format.report.compare.records import DSSIM, KS, PEARSON
from isopress.format.report.compare.spectra import ALLOWED, binned, cosine, zonal, zonal_wavelengths

UNITS = {"msl": "Pa", "t2m": "K", "tp": "m", "vo850": "s-1"}  # all others are winds
COMPARED = ("SPERR", "SZ3", "EBCC")
TIMES = 4  # of the sample
SECONDS = 20.0  # of processor time for one setting of a peer at one size
HALVINGS = 4  # of the bound of `archive`, until DSSIM passes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 if every bound is kept, 1 if not, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        blocks = [block for name in options.sets for block in PUBLIC[name].load()]
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    peers = [_quick(peer) for peer in SIZED_PEERS if peer.name in options.peers]
    installed = [peer for peer in peers if peer.version() is not None]
    cache = PeerCache(options.cache / "fidelity_peers.json")
    runs = [run for block in blocks for preset in options.presets for run in runs_of(block, preset, installed, cache)]
    packages = sorted({package for peer in peers for package in peer.packages})
    missing = {peer.name: ", ".join(peer.packages) for peer in peers if peer not in installed}
    halvings = [halved(block) for block in blocks] if "archive" in options.presets else []
    found = {"missing_peers": missing, "runs": runs, "dssim": halvings}
    result = {**environment(("isopress", "numpy", *packages)), **found}
    publish(result, options.out / "fidelity.json", overview(result, "fidelity.json"), options.json)
    return 0 if all(run["kept"] for run in runs if run["codec"] == "isopress") else 1


def _quick(peer: SizedPeer) -> SizedPeer:
    """Leave out the setting of EBCC that takes a quarter of a minute for one field."""
    return replace(peer, settings=tuple(setting for setting in peer.settings if not setting.single_fields_only))


def runs_of(block: Block, preset: Preset, peers: Sequence[SizedPeer], cache: PeerCache) -> Iterator[dict[str, Any]]:
    """Yield what isopress and each peer do to a block under the bound of a preset."""
    x, bound = _values(block), _bound(block, preset)
    known = {"variable": f"{block.dataset}/{block.name}", "preset": preset}
    n_bytes, x_hat = _coded(x, bound)
    allowed = bound.tolerance(x) if bound.mode == "pointwise" else bound.value
    kept = bool((np.abs(x_hat.astype(np.float64) - x) <= allowed).all())
    yield known | {"codec": "isopress", "kept": kept} | figures(x, x_hat, n_bytes)
    for peer in peers:
        key = f"{block.sha256} {TIMES} {peer.name} {peer.version()} {n_bytes} {SECONDS:g}"
        entry = cache.entry(key, partial(_peer_at, peer, x, n_bytes))
        if "failure" not in entry:
            yield known | {"codec": peer.name} | entry


def _peer_at(peer: SizedPeer, x: np.ndarray, n_bytes: int) -> dict[str, Any]:
    """Return the figures of a peer at a size, in the setting with the smallest RMSE."""
    ((points, failures),) = points_at(peer, x, [n_bytes], SECONDS)
    if not points:
        return {"failure": "; ".join(f"{setting}: {why}" for setting, why in failures.items())}
    size, decoded = decoded_at(peer, x, min(points, key=lambda point: point.rmse))
    return figures(x, decoded, size)


def halved(block: Block) -> dict[str, Any]:
    """Return how often the bound of `archive` is halved until DSSIM passes either threshold, and the ratio then."""
    x, bound = _values(block), _bound(block, "archive")
    found: dict[str, Any] = {"variable": f"{block.dataset}/{block.name}", "bound": bound.value}
    thresholds = {"ldcpy": DSSIM_LDCPY, "strict": DSSIM}
    for halvings in range(HALVINGS + 1):
        floor = None if bound.floor is None else bound.floor / 2**halvings
        n_bytes, x_hat = _coded(x, Bound(bound.mode, bound.value / 2**halvings, floor))
        dssim = figures(x, x_hat, n_bytes)["dssim"]
        for name in [name for name, threshold in thresholds.items() if dssim > threshold]:
            found[name] = {"halvings": halvings, "ratio": x.nbytes / n_bytes}
            del thresholds[name]
        if not thresholds:
            break
    return found


def _values(block: Block) -> np.ndarray:
    return block.values[:TIMES] if block.values.ndim > 2 else block.values


def _bound(block: Block, preset: Preset) -> Bound:
    return preset_bound(preset, block.name, {"units": UNITS.get(block.name, "m s-1")})


def _coded(x: np.ndarray, bound: Bound) -> tuple[int, np.ndarray]:
    """Return the bytes of the payload and its values."""
    payload = isopress.compress(x, mode=bound.mode, bound=bound.value, floor=bound.floor)
    return len(payload), np.asarray(isopress.decompress(payload))


def figures(x: np.ndarray, x_hat: np.ndarray, n_bytes: int) -> dict[str, Any]:
    """Return size, errors, figures of merit and which of their thresholds hold, for fields on a global grid.

    `neighbours` is the correlation of errors of neighbours along rows or columns, whichever is larger: what is visible
    as structure in a map of errors.
    """
    fields, decoded = (values.reshape(-1, *values.shape[-2:]).astype(np.float64) for values in (x, x_hat))
    rows, columns = fields.shape[1:]
    grid = Grid(np.linspace(90, -90, rows), np.arange(columns) * 360 / columns)
    merit = Merit(float(np.abs(decoded - fields).max()) or 1.0)
    for number, (field, field_hat) in enumerate(zip(fields, decoded, strict=True)):
        merit.add(number, field, field_hat, grid.weights(rows), stride_for(fields.size))
    power = max(spectrum.worst for spectrum in _spectra(fields, decoded, grid))
    probability = merit.kolmogorov_smirnov()[1]
    passed = {
        "pearson": merit.pearson > PEARSON,
        "dssim": merit.dssim > DSSIM,
        "power": power <= ALLOWED,
        "ks": probability > KS,
    }
    return {
        "ratio": x.nbytes / n_bytes,
        "max_error": merit.max_error,
        "rmse": merit.rmse,
        "pearson": merit.pearson,
        "dssim": merit.dssim,
        "power": power,
        "ks": probability,
        "neighbours": _neighbours(decoded - fields),
        "passed": passed,
    }


def _spectra(fields: np.ndarray, decoded: np.ndarray, grid: Grid) -> Iterator[Any]:
    along = [sum(zonal(field, True, grid.lat) for field in side) for side in (fields, decoded)]
    yield binned(zonal_wavelengths(fields.shape[-1]), along[0], along[1])
    around = [sum(cosine(field)[1] for field in side) for side in (fields, decoded)]
    yield binned(cosine(fields[0])[0], around[0], around[1])


def _neighbours(error: np.ndarray) -> float:
    """Return the larger correlation of errors with those one row or one column further."""
    variance = float((error**2).mean())
    if not variance:
        return 0.0
    across = float((error[..., 1:] * error[..., :-1]).mean())
    down = float((error[:, 1:] * error[:, :-1]).mean())
    return max(across, down) / variance


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__)
    parser.add_argument("--sets", nargs="*", choices=["native", "sample"], default=["native", "sample"])
    parser.add_argument("--presets", nargs="*", choices=PRESETS, default=PRESETS)
    parser.add_argument("--peers", nargs="*", choices=[peer.name for peer in SIZED_PEERS], default=COMPARED)
    add_cache_option(parser)
    add_output_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
