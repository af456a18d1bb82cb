"""om-files, the format Open-Meteo serves ERA5 with: whole steps of twice the bound, differences, bit packing.

The error is at most 1 / (2 * scale_factor) but for rounding to float32. NaN is kept; infinities come back as numbers.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

Shape = tuple[int, ...]

# What a chunk holds, by name. The library codes differences along the last axis, and between rows of a chunk.
_ROWS = {"32 rows": 32, "8 rows": 8, "1 row": 1}
SETTINGS = (*_ROWS, "one array", "128 x 128", "1 row of all fields")
_MEMORY = Path("/dev/shm")  # files are written to memory where there is such a folder: a disk is not what is measured


def chunks_of(shape: Shape, setting: str) -> Shape:
    """Return the shape of a chunk of an array of (lat, lon) or (field, lat, lon)."""
    height, width = shape[-2:]
    rows = {"one array": height, "128 x 128": 128, "1 row of all fields": 1, **_ROWS}[setting]
    together = setting in ("one array", "1 row of all fields")
    fields = shape[:-2] if together else (1,) * (len(shape) - 2)
    return (*fields, min(rows, height), min(128, width) if setting == "128 x 128" else width)


def encode(x: np.ndarray, tolerance: float, setting: str) -> bytes:
    """Return the bytes of a file that holds `x` alone."""
    from omfiles import OmFileWriter

    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        path = Path(folder) / "x.om"
        writer = OmFileWriter(str(path))
        array = writer.write_array(
            np.ascontiguousarray(x),
            chunks=chunks_of(x.shape, setting),
            scale_factor=1 / (2 * tolerance),
            compression="pfor_delta_2d",
        )
        writer.close(array)
        return path.read_bytes()


def decode(encoded: bytes, dtype: np.dtype, shape: Shape) -> np.ndarray:
    """Return the values of a file."""
    from omfiles import OmFileReader

    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        path = Path(folder) / "x.om"
        path.write_bytes(encoded)
        with OmFileReader(str(path)) as reader:
            values = reader.read_array(...)
    return np.asarray(values, dtype).reshape(shape)
