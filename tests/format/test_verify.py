"""Stores against their sources: verify keeps what was written and sees whatever is not as it should be."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from isopress.format.source.dataset import Request
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from isopress.format.zarr.groups import quiet_zarr
from tests.datasets import raw, save_netcdf, save_zarr, smooth
from tests.format.sources import fields, save, temperature

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
