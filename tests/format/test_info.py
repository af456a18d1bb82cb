"""What `read_report` finds out about stores, those that xarray wrote included, and how it is told."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import isopress
import isopress.xarray
from isopress.format import Isopress, IsopressCodec
from isopress.format.report import headers
from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport, VariableReport
from isopress.format.report.text import describe
from tests.datasets import smooth

CODEC = IsopressCodec(mode="abs", bound=0.1)
ENCODINGS = {
    "chunks": (3, {"serializer": CODEC, "compressors": (), "chunks": (2, 5, 7)}),
    "shards": (3, {"serializer": CODEC, "compressors": (), "chunks": (2, 5, 7), "shards": (4, 10, 7)}),
    "zarr 2": (2, {"compressors": [Isopress(mode="abs", bound=0.1)], "chunks": (2, 5, 7)}),
}


def dataset() -> xr.Dataset:
    t2m = 280 + 10 * smooth((5, 10, 12))
    axes = {"time": ("time", np.arange(5), {"units": "days since 2020-02-27", "calendar": "360_day"})}
    return xr.Dataset({"t2m": (("time", "lat", "lon"), t2m, {"units": "K"})}, axes)


def write_through_xarray(path: Path, kind: str) -> Path:
    zarr_format, encoding = ENCODINGS[kind]
    dataset().to_zarr(path, zarr_format=zarr_format, encoding={"t2m": encoding}, consolidated=False)  # type: ignore[call-overload]
    return path


def variable(path: Path, name: str) -> VariableReport:
    (found,) = [found for found in read_report(path).variables if found.name == name]
    return found


@pytest.mark.parametrize("kind", ENCODINGS)
def test_errors_of_a_store_that_xarray_wrote_are_those_of_its_headers(tmp_path: Path, kind: str) -> None:
    path = write_through_xarray(tmp_path / "x.zarr", kind)
    found = variable(path, "t2m")
    decoded = xr.open_zarr(path, consolidated=False, decode_times=False)["t2m"].values
    error = np.abs(decoded.astype(float) - dataset()["t2m"].values)
    assert found.max_error == pytest.approx(error.max(), rel=1e-6)
    assert found.rmse == pytest.approx(np.sqrt((error**2).mean()), rel=0.05)  # headers count no missing values
    assert found.headers_read == 3 * 2 * 2
    assert found.absent == found.headers_damaged == 0
    assert f"(headers of {found.headers_read} chunks)" in describe(read_report(path))


def test_only_the_start_of_each_payload_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_through_xarray(tmp_path / "x.zarr", "chunks")
    read = zarr.storage.LocalStore.get
    asked: list[object] = []

    async def watched(self: zarr.storage.LocalStore, key: str, prototype: object, byte_range: object = None) -> object:
        if "/c/" in key and "t2m" in key:
            asked.append(byte_range)
        return await read(self, key, prototype, byte_range)  # type: ignore[arg-type]

    monkeypatch.setattr(zarr.storage.LocalStore, "get", watched)
    read_report(path)
    assert len(asked) == 12
    assert all(part.end <= 512 for part in asked)  # type: ignore[attr-defined]


def test_of_many_chunks_some_are_read_and_it_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_through_xarray(tmp_path / "x.zarr", "chunks")
    monkeypatch.setattr(headers, "MOST", 5)
    assert variable(path, "t2m").headers_read == 5


def test_absent_and_damaged_chunks_are_counted(tmp_path: Path) -> None:
    path = write_through_xarray(tmp_path / "x.zarr", "chunks")
    first, second, *_ = sorted(chunk for chunk in (path / "t2m" / "c").rglob("*") if chunk.is_file())
    first.unlink()
    second.write_bytes(second.read_bytes()[:20])
    report = read_report(path)
    found = variable(path, "t2m")
    assert (found.absent, found.headers_damaged, found.headers_read) == (1, 1, 10)
    text = describe(report)
    assert "1 chunk absent" in text
    assert "1 of 12 ABSENT" in text
    assert "1 header DAMAGED" in text


def test_a_damaged_shard_index_is_no_crash(tmp_path: Path) -> None:
    path = write_through_xarray(tmp_path / "x.zarr", "shards")
    for shard in (path / "t2m" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:-20] + b"\xfe" * 20)
    assert variable(path, "t2m").headers_damaged


def test_times_of_any_calendar_are_dates(tmp_path: Path) -> None:
    path = write_through_xarray(tmp_path / "x.zarr", "chunks")
    ends = variable(path, "time").ends
    assert ends is not None
    assert ends[0].startswith(("2020-02-27", "0 days since"))  # without cftime they are numbers


def test_a_dataset_knows_its_store(tmp_path: Path) -> None:
    path = write_through_xarray(tmp_path / "x.zarr", "chunks")
    with xr.open_zarr(path, consolidated=False, decode_times=False) as ds:
        found = ds.isopress.info()
    assert repr(found) == describe(read_report(path))
    page = found._repr_html_()
    assert "t2m (time, lat, lon)" in page
    assert "largest error 0.0" in page
    with pytest.raises(isopress.ArgumentError, match="not opened from a path"):
        xr.Dataset().isopress.info()


def test_names_are_no_markup_in_a_notebook() -> None:
    odd = VariableReport("a<b>", ("x",), (1,), (1,), "float32", "<K>", 4, 4, long_name="1 & 2", ends=("<", ">"))
    page = StoreReport("<out>.zarr", 3, (odd,), 4)._repr_html_()
    assert "a&lt;b&gt;" in page
    assert "<out>" not in page
    assert "<K>" not in page


def test_a_zip_with_folders_in_it_is_complete(tmp_path: Path) -> None:
    path = write_through_xarray(tmp_path / "x.zarr", "chunks")
    packed = shutil.make_archive(str(tmp_path / "x.zarr"), "zip", path)  # folders have entries of their own
    report = read_report(packed)
    assert "complete" in describe(report).splitlines()[0]
    assert all(found.absent == found.headers_damaged == 0 for found in report.variables)


def test_a_store_that_cannot_list_its_chunks_is_read_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_through_xarray(tmp_path / "x.zarr", "chunks")
    sorted(chunk for chunk in (path / "t2m" / "c").rglob("*") if chunk.is_file())[0].unlink()
    array = zarr.open_group(path, mode="r")["t2m"]
    assert isinstance(array, zarr.Array)
    monkeypatch.setattr(type(array.store), "supports_listing", False)
    objects = headers.list_objects(array)
    found = headers.read_headers(array, objects)
    assert not objects.listed
    assert (objects.expected, found.read, found.damaged) == (12, 11, 0)
