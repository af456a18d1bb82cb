"""A process that never imports isopress opens and reads what isopress wrote, and pays only when it reads."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from isopress.format import Isopress, IsopressCodec
from tests.contract import Array, assert_kept, smooth

READER = """
import sys
import xarray as xr

costly = ("torch", "safetensors", "constriction", "isopress.codec.bounded.weights", "isopress.codec.chunk.encode")
datasets = {path: xr.open_zarr(f"../{path}", consolidated=False) for path in sys.argv[1:]}
opened = [name for name in costly if name in sys.modules]
assert not opened, f"opening loaded {opened}"
for path, dataset in datasets.items():
    values = dataset["t"].isel(time=slice(1, 3)).values
    assert "torch" not in sys.modules, "reading loaded torch"
    assert "isopress.codec.chunk.encode" in sys.modules
    values.astype("<f4").tofile(path)
"""
V3 = {"serializer": IsopressCodec(bound=0.01), "compressors": ()}
ENCODINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "v2": (2, {"compressors": [Isopress(bound=0.01)], "chunks": (2, 20, 24)}),
    "v3": (3, V3 | {"chunks": (2, 20, 24)}),
    "v3 shards": (3, V3 | {"chunks": (1, 20, 24), "shards": (2, 20, 24)}),
}


def write(path: Path, x: Array, kind: str) -> None:
    zarr_format, encoding = ENCODINGS[kind]
    dataset = xr.Dataset({"t": (("time", "lat", "lon"), x)}, {"time": np.arange(len(x))})
    dataset.to_zarr(path, zarr_format=zarr_format, encoding={"t": encoding}, consolidated=False)  # type: ignore[call-overload]


def test_plain_xarray_reads_stores_of_every_kind_in_a_fresh_process(tmp_path: Path) -> None:
    arrays = {kind: smooth(4, 20, 24).astype("f4") + i for i, kind in enumerate(ENCODINGS)}
    for kind, x in arrays.items():
        write(tmp_path / kind, x, kind)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-W", "error", "-c", READER, *ENCODINGS]
    result = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for kind, x in arrays.items():
        values = np.fromfile(elsewhere / kind, "<f4").reshape(2, 20, 24)
        assert_kept(x[1:3], values, mode="abs", bound=0.01)


def test_numcodecs_finds_the_codec_by_its_id_in_a_fresh_process() -> None:
    code = (
        "import sys, numcodecs, numpy\n"
        "codec = numcodecs.get_codec({'id': 'isopress', 'mode': 'abs', 'bound': 0.1})\n"
        "assert 'isopress.codec.chunk.encode' not in sys.modules\n"
        "x = numpy.linspace(0, 9, 60, dtype='f4').reshape(6, 10)\n"
        "assert abs(codec.decode(codec.encode(x)) - x).max() <= 0.1\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
