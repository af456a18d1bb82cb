"""Bytes of VAEformers at equal RMSE, in real payloads: `python -m benchmarks.vaeformer`.

Weights of single fields code the native public fields and the block of four variables, weights of these four channels
the block. Each is coded at steps half an octave apart; bytes at an RMSE lie on a straight line of logarithms between
two payloads. What the others take, multi-scale latents and peers, is that of results/equal_rmse.json. Writes
vaeformer.json and prints the table.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import isopress
from benchmarks.cases.equal import SINGLE_FIELDS, EqualCase
from benchmarks.cases.metrics import distortion
from benchmarks.comparison import add_output_options, publish
from benchmarks.datasets.public import Block
from benchmarks.datasets.releases import DatasetError
from benchmarks.environment import RESULTS, environment
from benchmarks.equal_rmse import GROUPS
from benchmarks.report.tables import overview
from isopress.codec.bounded.fields_alone import looks_periodic
from isopress.codec.encoded import Method, Section
from isopress.codec.models.registry import VARIABLE
from isopress.codec.vaeformer.section import INDEX_MAX, encode_fields
from isopress.codec.vaeformer.weights import VaeformerModel, load_vaeformer
from isopress.format import payload

MODELS = Path(__file__).parent / "models"  # weights that are not shipped
LATENTS = "multi-scale latents"
PEERS = ("JPEG2000", "SPERR")
OCTAVE = 32  # step indexes
SEVERAL = "several variables"
FOUR = "t2m, u10, v10, msl"

Point = tuple[int, float]  # bytes of a payload, RMSE of what it decodes to


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vaeformer", description=__doc__)
    names = "weights, installed ones or of benchmarks/models"
    parser.add_argument("--models", nargs="+", default=["small", "small-4"], metavar="NAME", help=names)
    add_output_options(parser)
    options = parser.parse_args(arguments)
    os.environ[VARIABLE] = os.pathsep.join(filter(None, (os.environ.get(VARIABLE), str(MODELS))))
    found = json.loads((RESULTS / "equal_rmse.json").read_text())
    cases = [EqualCase.from_json(case) for case in found["cases"]]
    rows = []
    try:
        for model in map(load_vaeformer, options.models):
            for block in blocks_for(model):
                of_block = [case for case in cases if case.data_sha256 == block.sha256]
                rows += rows_of(model, block, of_block)
                print(f"{model.name} {block.name}", file=sys.stderr, flush=True)
    except (DatasetError, isopress.ModelNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    others = {"commit": found["commit"], "versions": found["versions"]}
    result = {**environment(("isopress", "numpy", "torch")), "others": others, "rows": rows}
    publish(result, options.out / "vaeformer.json", overview(result, "vaeformer.json"), options.json)
    return 0


def blocks_for(model: VaeformerModel) -> Iterator[Block]:
    """Yield the public blocks that weights code: fields if they know any, blocks of their channels."""
    if len(model.channels.names) == 1:
        yield from GROUPS[SINGLE_FIELDS]()
    for block in GROUPS[SEVERAL]():
        if block.name == FOUR and (len(model.channels.names) == 1 or order_of(model, block)):
            yield block


def order_of(model: VaeformerModel, block: Block) -> list[int]:
    """Return where a block of variables has the channels of the weights; none if it has others."""
    names = block.name.split(", ")
    if sorted(names) != sorted(model.channels.labels):
        return []
    return [names.index(label) for label in model.channels.labels]


def rows_of(model: VaeformerModel, block: Block, cases: Sequence[EqualCase]) -> list[dict[str, Any]]:
    """Return a row for each ratio of the peers: bytes of the weights, and of the others, at one RMSE each."""
    x = block.values
    if len(model.channels.names) > 1:
        x = x[order_of(model, block)]
    wanted = [at for case in cases for at, _ in others_of(case).values()]
    points = curve(model, x, min(wanted), max(wanted))
    rows = []
    for case in cases:
        compared = {
            name: {"rmse": rmse, "bytes": n_bytes, "model_bytes": bytes_at(points, rmse)}
            for name, (rmse, n_bytes) in others_of(case).items()
        }
        rows.append(
            {
                "model": model.name,
                "model_sha256": model.sha256.hex(),
                "variable": f"{block.dataset}/{block.name}",
                "data_sha256": block.sha256,
                "shape": x.shape,
                "n_bytes": x.nbytes,
                "ratio": case.ratio,
                "deviation": case.deviation,
                "payloads": points,
                "others": compared,
            }
        )
    return rows


def others_of(case: EqualCase) -> dict[str, tuple[float, float]]:
    """Return RMSE and bytes of multi-scale latents and of the peers."""
    peers = {name: (case.peers[name].rmse, float(case.peers[name].n_bytes)) for name in PEERS if name in case.peers}
    return {LATENTS: (case.rmse, case.isopress.n_bytes), **peers}


def curve(model: VaeformerModel, x: np.ndarray, least: float, most: float) -> list[Point]:
    """Return payloads at steps half an octave apart whose RMSE reaches from `least` to `most`."""
    first = round(OCTAVE * math.log2(math.sqrt(12) * math.sqrt(least * most) / float(x.std(dtype=np.float64))))
    points = {first: coded(model, x, first)}
    for sign, enough in ((-1, lambda rmse: rmse <= least), (1, lambda rmse: rmse >= most)):
        index = first
        while not enough(points[index][1]) and abs(index) < INDEX_MAX - OCTAVE:
            index += sign * OCTAVE // 2
            points[index] = coded(model, x, index)
    return sorted(points.values(), key=lambda point: point[1])


def coded(model: VaeformerModel, x: np.ndarray, index: int) -> Point:
    """Return bytes and RMSE of a payload of `x` by these weights alone, at one step."""
    fields = x.astype(np.float64).reshape(model.coded_shape(x.shape))
    periodic = looks_periodic(fields.reshape(-1, *x.shape[-2:]), None)
    section, _ = encode_fields(fields, index, model, periodic=periodic)
    info = payload.PayloadInfo(
        dtype=x.dtype,
        shape=x.shape,
        order="C",
        method=Method.VAEFORMER,
        models=(model.sha256.hex(),),
        mode="latent",
        target_rmse=1.0,
    )
    data = payload.pack(info, [(Section.VAEFORMER, section)])
    return len(data), distortion(x, isopress.decompress(data)).rmse


def bytes_at(points: Sequence[Point], rmse: float) -> float:
    """Return the bytes at an RMSE between two payloads, on a straight line of logarithms."""
    size, error = (np.log([point[i] for point in points]) for i in (0, 1))
    return float(np.exp(np.interp(math.log(rmse), error, size)))


if __name__ == "__main__":
    sys.exit(main())
