"""How far a reader has to go: distinct functions, files and call depth of isopress on the way of one array.

    python -m benchmarks.hops [--record]

Everything is called once before it is counted, so that loading weights and filling caches is left out.
"""

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

import isopress.cli
import isopress.codec
import isopress.format
from benchmarks.environment import RESULTS
from benchmarks.report.tables import hops
from isopress.format.decode_cache import CACHE

# Wherever they are installed: in the repository, or as a copy.
ROOMS = tuple(str(Path(room.__file__).parent) for room in (isopress.codec, isopress.format, isopress.cli))


class Counter:
    """Functions of isopress that are called while it is `counting`, and how deep their calls are nested."""

    def __init__(self) -> None:
        self.counting = False
        self.seen: set[CodeType] = set()
        self.depth = 0
        self._depths: dict[int, int] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.counting or event not in ("call", "return") or not frame.f_code.co_filename.startswith(ROOMS):
            return
        thread = threading.get_ident()
        now = self._depths.get(thread, 0) + (1 if event == "call" else -1)
        self._depths[thread] = max(now, 0)
        if event == "call":
            self.seen.add(frame.f_code)
            self.depth = max(self.depth, now)

    def count(self, work: Callable[[], object]) -> dict[str, int]:
        """Return the figures of one call of `work`, after one that is not counted.

        Generators, comprehensions and lambdas count as functions: they have to be read too.
        """
        work()
        CACHE.clear()  # what was decoded is decoded anew
        self.seen, self.depth, self._depths = set(), 0, {}
        self.counting = True
        work()
        self.counting = False
        return {"functions": len(self.seen), "files": len({c.co_filename for c in self.seen}), "depth": self.depth}


def field(*shape: int) -> np.ndarray:
    """Return smooth fields with some noise, as weather is."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    phase = np.arange(int(np.prod(shape[:-2]))).reshape(*shape[:-2], 1, 1) / 8
    smooth = 280 + 20 * np.sin(y / 17 + phase) + 8 * np.cos(x / 23 - phase)
    return np.asarray(smooth + rng.normal(0, 0.1, shape), np.float32)


def cases(folder: Path) -> dict[str, Callable[[], object]]:
    """Return what is counted, by name."""
    import xarray as xr

    single, several = field(181, 360), field(6, 181, 360)
    payloads = {
        "field": isopress.compress(single, bound=0.05),
        "block": isopress.compress(several, bound=0.05, context="block"),
        "latent": isopress.compress(single, mode="latent", ratio=100),
    }
    codec = isopress.IsopressCodec(mode="abs", bound=0.05)
    data = xr.Dataset({"t": (("lat", "lon"), single)})
    encoding = {"t": {"serializer": codec, "compressors": (), "chunks": single.shape}}
    store = folder / "hops.zarr"
    data.to_zarr(store, encoding=encoding, zarr_format=3, consolidated=False, mode="w")
    return {
        "compress a field": lambda: isopress.compress(single, bound=0.05),
        "decompress a field": lambda: isopress.decompress(payloads["field"]),
        "compress a block": lambda: isopress.compress(several, bound=0.05, context="block"),
        "decompress a block": lambda: isopress.decompress(payloads["block"]),
        "compress latents": lambda: isopress.compress(single, mode="latent", ratio=100),
        "decompress latents": lambda: isopress.decompress(payloads["latent"]),
        "write a field with Zarr": lambda: data.to_zarr(
            store, encoding=encoding, zarr_format=3, consolidated=False, mode="w"
        ),
        "read a field with Zarr": lambda: xr.open_zarr(store, consolidated=False).t.values,
    }


def main() -> None:
    """Count and print; with --record, keep the figures under the version's name in results/hops.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="put the figures into results/hops.json")
    arguments = parser.parse_args()
    counter = Counter()
    threading.setprofile(counter)  # of threads that start from now on
    sys.setprofile(counter)
    with tempfile.TemporaryDirectory() as folder:
        found = {name: counter.count(work) for name, work in cases(Path(folder)).items()}
    sys.setprofile(None)
    path = RESULTS / "hops.json"
    known = json.loads(path.read_text()) | {isopress.__version__: found}
    if arguments.record:
        path.write_text(json.dumps(known, indent=1) + "\n")
    print(hops(known))


if __name__ == "__main__":
    main()
