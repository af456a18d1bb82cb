"""The sample array of the Zarr extension: `python -m tests.make_zarr_sample` writes it and its metadata anew."""

import shutil
from pathlib import Path

import numpy as np
import zarr

from isopress.format.zarr.v3_codec import IsopressCodec

FOLDER = Path(__file__).parent.parent / "format" / "zarr-extension"
SAMPLE = FOLDER / "sample_data" / "temperature"
BOUND = 0.1


def values() -> np.ndarray:
    """Return two fields of temperature on 16 latitudes and 24 longitudes, in kelvin."""
    lat, lon = np.deg2rad(np.linspace(90, -90, 16))[:, None], np.deg2rad(np.arange(24) * 15)[None]
    field = 288 - 40 * np.sin(lat) ** 2 + 5 * np.cos(3 * lon) * np.cos(lat)
    return np.stack([field, field + np.sin(lat)]).astype(np.float32)


def main() -> None:
    """Write array and example."""
    shutil.rmtree(SAMPLE, ignore_errors=True)
    codec = IsopressCodec(mode="abs", bound=BOUND)
    names = ("time", "latitude", "longitude")
    array = zarr.create_array(
        SAMPLE,
        shape=(2, 16, 24),
        chunks=(1, 16, 24),
        dtype="f4",
        serializer=codec,
        compressors=(),
        dimension_names=names,
    )
    array[...] = values()
    shutil.copy(SAMPLE / "zarr.json", FOLDER / "examples" / "zarr.json")


if __name__ == "__main__":
    main()
