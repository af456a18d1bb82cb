"""Stores that are verified, and metadata that is damaged."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from isopress.codec.errors import ArgumentError, IsopressError
from isopress.format.report.info import read_report
from isopress.format.source.dataset import Request
from isopress.format.store.restore import restore
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from isopress.format.zarr.groups import quiet_zarr
from tests.datasets import errors, raw, save_netcdf, save_zarr, smooth
from tests.format.sources import fields, save, temperature

# --- stores against their sources: verify keeps what was written and sees whatever is not as it should be -------------

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # |S1 and <U in v3


def test_verify_keeps_what_was_written(netcdf: Path, store: Path) -> None:
    report = verify(store, str(netcdf))
    assert report.kept
    assert all(variable.violations == 0 for variable in report.variables)


@pytest.fixture
def tampered(store: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "tampered.zarr"
    shutil.copytree(store, copy)
    return copy


def chunk_of(store: Path, name: str) -> Path:
    return next(path for path in (store / name / "c").rglob("*") if path.is_file())


def test_verify_sees_a_flipped_bit(netcdf: Path, tampered: Path) -> None:
    chunk = chunk_of(tampered, "t2m")
    data = bytearray(chunk.read_bytes())
    data[-9] ^= 1
    chunk.write_bytes(data)
    bad = [variable for variable in verify(tampered, str(netcdf)).variables if not variable.kept]
    assert [variable.name for variable in bad] == ["t2m"]
    assert "checksum" in str(bad[0].damage)


@pytest.mark.filterwarnings("ignore::isopress.format.rewrites.PartialWriteWarning")
def test_verify_sees_other_values_masks_and_missing_variables(netcdf: Path, tampered: Path) -> None:
    group = zarr.open_group(tampered, mode="r+")
    t2m, sst, soil = (group[name] for name in ("t2m", "sst", "soil"))
    t2m[0, 5, 5] += np.float32(0.5)
    sst[0, 0, 0] = 290
    soil[1, 1] = 99
    shutil.rmtree(tampered / "index" / "c")
    report = {variable.name: variable for variable in verify(tampered, str(netcdf)).variables}
    assert (report["t2m"].violations or 0) >= 1
    assert (report["sst"].violations or 0) >= 1
    assert report["soil"].violations == 1
    assert report["index"].max_error == np.inf
    assert report["tp"].kept


def test_verify_sees_what_is_not_there(netcdf: Path, store: Path, tmp_path: Path) -> None:
    more = raw(netcdf).assign(new=("time", [1.0, 2.0, 3.0])).isel(lat=slice(1, None))
    found = verify(store, str(save_netcdf(more, tmp_path / "more.nc")))
    report = {variable.name: variable for variable in found.variables}
    assert report["new"].damage == "missing from the store"
    assert report["t2m"].damage == "has shape (3, 10, 12), the source (3, 9, 12)"
    assert report["time"].kept


def test_a_store_written_through_xarray_is_verified_by_its_codec(tmp_path: Path) -> None:
    from isopress.format.zarr.v3_codec import IsopressCodec

    ds = xr.Dataset({"t": (("k", "y", "x"), smooth((4, 9, 11)))})
    source = save_zarr(ds, tmp_path / "in.zarr")
    codec = IsopressCodec(mode="range", bound=1e-2)
    encoding = {"t": {"serializer": codec, "compressors": (), "chunks": (3, 9, 11)}}
    ds.to_zarr(tmp_path / "out.zarr", encoding=encoding, consolidated=False)
    report = verify(tmp_path / "out.zarr", str(source))
    assert report.kept
    assert report.variables[0].error == "range:0.01"


# --- what differs on either side --------------------------------------------------------------------------------------


def changed_attribute(group: zarr.Group) -> None:
    group["t2m"].attrs["units"] = "degC"


def changed_group(group: zarr.Group) -> None:
    group.attrs["title"] = "other"


def changed_coordinate(group: zarr.Group) -> None:
    array: Any = group["lat"]
    array[0] = 81.0


def more_variables(group: zarr.Group) -> None:
    group.create_array("extra", data=np.zeros(3), dimension_names=["time"])


def another_type(group: zarr.Group) -> None:
    attrs = dict(group["lat"].attrs)
    values = np.asarray(group["lat"][:])  # type: ignore[index]
    group.create_array("lat", data=values.astype("f4"), dimension_names=["lat"], attributes=attrs, overwrite=True)


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        (changed_attribute, "t2m", "attribute units is 'degC', in the source 'K'"),
        (changed_coordinate, "lat", None),
        (more_variables, "extra", "not in the source"),
        (another_type, "lat", "has type float32, the source float64"),
        (changed_group, None, "attribute title is 'other', in the source missing"),
    ],
)
def test_verify_sees_what_differs_on_either_side(
    change: Callable[[zarr.Group], None], name: str | None, reason: str | None, tmp_path: Path
) -> None:
    path = save(fields(t2m=temperature()), tmp_path / "a.nc")
    write(str(path), tmp_path / "out.zarr")
    assert verify(tmp_path / "out.zarr", str(path)).kept
    change(zarr.open_group(tmp_path / "out.zarr", mode="r+", use_consolidated=False))
    with quiet_zarr():
        zarr.consolidate_metadata(tmp_path / "out.zarr")
    report = verify(tmp_path / "out.zarr", str(path))
    assert not report.kept
    bad = {variable.name: variable for variable in report.variables if not variable.kept}
    assert set(bad) == ({name} if name else set())
    said = [*report.differences, *(text for v in bad.values() for text in (v.damage, *v.differences) if text)]
    assert said == ([reason] if reason else [])


def test_only_limits_a_comparison_on_purpose_and_the_part_that_was_taken_is_known(tmp_path: Path) -> None:
    path = save(fields(t2m=temperature(1), d2m=temperature(2)), tmp_path / "a.nc")
    write(Request((str(path),), variables=("t2m",), isel=(("time", "0:2"),)), tmp_path / "out.zarr")
    report = verify(tmp_path / "out.zarr", str(path))
    assert report.kept
    assert "it has t2m time=0:2 of the source" in report.not_compared[0]
    write(str(path), tmp_path / "whole.zarr")
    changed_attribute(zarr.open_group(tmp_path / "whole.zarr", mode="r+", use_consolidated=False))
    report = verify(tmp_path / "whole.zarr", str(path), only=("d2m",))
    assert report.kept
    assert "t2m: not asked for" in report.not_compared


# --- metadata that is damaged or forged: an error of isopress, or what it says is not needed; never a foreign error ---

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
