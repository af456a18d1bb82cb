"""What decodes to the same values everywhere: payloads of each method, decoded again under other float kernels.

    python -m benchmarks.drift [--times 6] [--record]

Processes of their own decode with other instruction sets of torch and OpenBLAS, other numbers of threads, and without
oneDNN. Bounded and lossless payloads must decode bit by bit; of latents the largest difference is stated.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import isopress
from benchmarks.datasets.public import PUBLIC
from benchmarks.environment import RESULTS, environment
from isopress.format.payload import METHODS

VARIANTS: dict[str, dict[str, str]] = {
    "two threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "SSE2": {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Nehalem", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "without oneDNN": {"BENCHMARK_WITHOUT_ONEDNN": "1"},
}
Array = np.ndarray[Any, Any]


def payloads(x: Array) -> dict[str, bytes]:
    """Return payloads of fields (time, lat, lon), one for each method that they can have."""
    spread = float(np.ptp(x))
    asked: dict[str, dict[str, Any]] = {
        "field": {"bound": 1e-3 * spread, "context": "field"},
        "block": {"bound": 1e-3 * spread, "context": "block"},
        "loose": {"bound": 0.1 * spread},
        "lossless": {"mode": "lossless"},
        "ratio 30": {"mode": "latent", "ratio": 30},
        "ratio 200": {"mode": "latent", "ratio": 200},
    }
    return {name: isopress.compress(x, **settings) for name, settings in asked.items()}


def decoded_elsewhere(folder: Path, settings: Mapping[str, str]) -> dict[str, Array]:
    """Return what a process with these environment variables decodes the payloads in a folder to."""
    command = [sys.executable, "-m", "benchmarks.drift", "--decode", str(folder)]
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    subprocess.run(command, check=True, env=os.environ | single | settings, cwd=Path(__file__).parents[1])
    with np.load(folder / "decoded.npz") as found:
        return dict(found)


def measure(x: Array) -> list[dict[str, Any]]:
    """Return of each payload its method and, of each variant, the largest difference in standard deviations of `x`."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder, coded = Path(name), payloads(x)
        for key, payload in coded.items():
            (folder / f"{key}.isp").write_bytes(payload)
        here = decoded_elsewhere(folder, {})
        others = {variant: decoded_elsewhere(folder, settings) for variant, settings in VARIANTS.items()}
    for key, payload in coded.items():
        info = isopress.inspect(payload)
        errors = [np.abs(y[key].astype("f8") - x).max() for y in (here, *others.values())]
        found.append(
            {
                "payload": key,
                "method": METHODS[info.method],
                "kept": bool(info.bound is None or max(errors) <= info.bound),
                "sha256": hashlib.sha256(here[key].tobytes()).hexdigest(),
                "drift": {variant: _difference(here[key], y[key]) / float(x.std()) for variant, y in others.items()},
            }
        )
    return found


def _difference(a: Array, b: Array) -> float:
    return 0.0 if a.tobytes() == b.tobytes() else float(np.abs(a.astype("f8") - b).max())


def table(found: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown: "same" or the largest difference, in standard deviations."""
    variants = list(found[0]["drift"])
    lines = [f"| payload | method | {' | '.join(variants)} | bound kept |", "|-" * (len(variants) + 3) + "|"]
    for row in found:
        cells = ["same" if not drift else f"{drift:.1e}" for drift in row["drift"].values()]
        lines.append(f"| {row['payload']} | {row['method']} | {' | '.join(cells)} | {'yes' if row['kept'] else 'NO'} |")
    return "\n".join(lines)


def decode(folder: Path) -> None:
    """Decode all payloads in a folder, in this process."""
    if os.environ.get("BENCHMARK_WITHOUT_ONEDNN"):
        import torch

        torch.backends.mkldnn.set_flags(False)
    found = {path.stem: isopress.decompress(path.read_bytes()) for path in folder.glob("*.isp")}
    np.savez(folder / "decoded.npz", **found)  # type: ignore[arg-type]


def main() -> None:
    """Print the table; with --record write it into the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=6, help="of the sample's 2 m temperature")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.decode:
        decode(given.decode)
        return
    x = PUBLIC["sample"].load()[0].values[: given.times].astype("f4")
    found = measure(x)
    print(table(found))
    if given.record:
        record = {"environment": environment(("numpy", "torch", "isopress")), "shape": x.shape, "payloads": found}
        (RESULTS / "drift.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
