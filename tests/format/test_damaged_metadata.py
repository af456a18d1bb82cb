"""Metadata that is damaged or forged: an error of isopress, or what it says is not needed; never a foreign error."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from isopress.codec.errors import ArgumentError, IsopressError
from isopress.format.report.info import read_report
from isopress.format.store.restore import restore
from isopress.format.store.write import write
from tests.datasets import errors, smooth

DEEP = '{"a":' * 100_000
TEXTS = {"nothing": "", "half": '{"zarr_format": 3, "node', "deep": DEEP, "list": "[]", "null": "null", "text": '"x"'}
VALUES: dict[str, Any] = {
    "isopress_order": 7,
    "isopress_dimensions": "x",
    "isopress_original_nbytes": "x",
    "isopress_mode": 3,
    "shape": [2**40, 20, 24],
    "chunk_shape": [0, 0, 0],
    "bound": "nan",
    "data_type": "float99",
    "attributes": 7,
    "dimension_names": [1, 2, 3],
    "zarr_format": 9,
    "consolidated_metadata": 7,
}


@pytest.fixture(scope="module", params=[2, 3])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    x = xr.DataArray(smooth((2, 20, 24)), dims=("time", "lat", "lon"), attrs={"units": "K"})
    xr.Dataset({"t": x}, {"time": np.arange(2), "lat": np.arange(20.0)}).to_netcdf(folder / "in.nc")
    write(str(folder / "in.nc"), folder / "out.zarr", errors=errors("0.1"), zarr_format=request.param)
    return folder / "out.zarr"


def files(store: Path) -> list[Path]:
    """Return the metadata of the root and of one array, as far as the version has such files."""
    names = ("zarr.json", "t/zarr.json", ".zmetadata", "t/.zarray", "t/.zattrs", ".zattrs")
    return [store / name for name in names if (store / name).exists()]


def looked_at(store: Path, target: Path) -> None:
    """Read a store in every way; whatever ends otherwise than by an error of isopress, comes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of xarray and Zarr, about what they read
        for read in (lambda: read_report(store), lambda: restore(store, target, overwrite=True)):
            try:
                read()
            except IsopressError:
                continue


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_files_that_are_no_metadata_are_errors(text: str, whole: Path, tmp_path: Path) -> None:
    for number in range(len(files(whole))):
        store = tmp_path / f"{number}.zarr"
        shutil.copytree(whole, store)
        files(store)[number].write_text(text)
        looked_at(store, tmp_path / "back.nc")


@pytest.mark.parametrize("key", VALUES)
def test_values_that_cannot_be_are_errors(key: str, whole: Path, tmp_path: Path) -> None:
    for number in range(len(files(whole))):
        store = tmp_path / f"{number}.zarr"
        shutil.copytree(whole, store)
        path = files(store)[number]
        path.write_text(json.dumps(_changed(json.loads(path.read_text()), key)))
        looked_at(store, tmp_path / "back.nc")


def _changed(found: Any, key: str) -> Any:
    """Return JSON with the value of a key changed wherever it is."""
    if isinstance(found, list):
        return [_changed(part, key) for part in found]
    if not isinstance(found, dict):
        return found
    return {name: VALUES[key] if name == key else _changed(part, key) for name, part in found.items()}


def test_a_group_that_is_no_group_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "zarr.json").write_text(DEEP)
    with pytest.raises(ArgumentError, match=r"x\.zarr: not a Zarr group"):
        read_report(tmp_path / "x.zarr")
