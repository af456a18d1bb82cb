"""Sources behind URLs: an S3 server and an HTTP server on loopback, memory://, references as JSON and as Parquet."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from tests.datasets import errors
from tests.format.sources import fields, save, save_reference, temperature
from tests.format.test_sources import served

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of botocore and moto
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sessions that the loop closes
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file, a store of it, one without metadata in one place, a zip and references as JSON."""
    folder = tmp_path_factory.mktemp("remote")
    ds = fields(t2m=temperature())
    path = save(ds, folder / "a.nc")
    ds.to_zarr(folder / "a.zarr", zarr_format=2, consolidated=True)
    ds.to_zarr(folder / "plain.zarr", zarr_format=3, consolidated=False)
    shutil.make_archive(str(folder / "a"), "zip", folder / "plain.zarr")
    save_reference(path, folder / "refs.json")
    return folder


@pytest.fixture(scope="module")
def bucket(files: Path, s3_server: str) -> Iterator[str]:
    """The same in a bucket of an S3 server on loopback."""
    pytest.importorskip("s3fs")
    settings = {"AWS_ENDPOINT_URL": s3_server, "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**settings, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
            patch.setenv(key, value)
        s3 = fsspec.filesystem("s3", skip_instance_cache=True)
        s3.mkdir("weather")
        for path in files.rglob("*"):
            if path.is_file():
                s3.pipe(f"weather/{path.relative_to(files)}", path.read_bytes())
        yield "s3://weather"


def assert_arrives(source: str, out: Path) -> None:
    write(source, out, errors=errors("0.1"))
    with xr.open_zarr(out) as ds:
        assert float(np.abs(ds["t2m"] - temperature()).max()) <= 0.1
    assert verify(out, source).kept


@pytest.mark.parametrize("name", ["a.nc", "a.zarr", "plain.zarr", "a.zip"])
def test_a_bucket_is_a_source(name: str, bucket: str, tmp_path: Path) -> None:
    assert_arrives(f"{bucket}/{name}", tmp_path / "out.zarr")


def test_references_to_a_bucket_are_a_source(bucket: str, files: Path, tmp_path: Path) -> None:
    content = json.loads((files / "refs.json").read_text().replace(str(files), bucket))
    (tmp_path / "refs.json").write_text(json.dumps(content))
    assert_arrives(str(tmp_path / "refs.json"), tmp_path / "out.zarr")


@pytest.mark.parametrize("name", ["a.nc", "a.zarr", "a.zip"])
def test_a_server_of_http_is_a_source(name: str, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with served(files) as url:
        assert_arrives(f"{url}/{name}", tmp_path / "out.zarr")


def test_memory_is_a_source(files: Path, tmp_path: Path) -> None:
    memory: Any = fsspec.filesystem("memory")
    for path in (files / "a.zarr").rglob("*"):
        if path.is_file():
            memory.pipe(f"/weather/{path.relative_to(files)}", path.read_bytes())
    memory.pipe("/weather/a.nc", (files / "a.nc").read_bytes())
    try:
        for name in ("a.zarr", "a.nc"):
            assert_arrives(f"memory://weather/{name}", tmp_path / name.replace(".", "-"))
    finally:
        memory.rm("/weather", recursive=True)


def test_references_as_parquet_are_a_source_or_name_the_package(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "refs.parq").mkdir()
    (tmp_path / "refs.parq" / ".zmetadata").write_text(json.dumps({"metadata": {}, "record_size": 10}))
    monkeypatch.setattr("isopress.format.source.open.find_spec", lambda name: name == "fsspec" or None)
    with pytest.raises(ArgumentError, match="references as Parquet need fastparquet or pyarrow"):
        write(str(tmp_path / "refs.parq"), tmp_path / "out.zarr")
    monkeypatch.undo()
    pytest.importorskip("fastparquet")
    from kerchunk.df import refs_to_dataframe

    refs_to_dataframe(json.loads((files / "refs.json").read_text()), str(tmp_path / "real.parq"))
    assert_arrives(str(tmp_path / "real.parq"), tmp_path / "out.zarr")


def test_what_is_not_there_is_refused_in_one_line(bucket: str, tmp_path: Path) -> None:
    for name in ("none.nc", "none.zarr"):
        with pytest.raises(ArgumentError, match=name.replace(".", r"\.")) as error:
            write(f"{bucket}/{name}", tmp_path / "out.zarr")
        assert "\n" not in str(error.value)
    with pytest.raises(ArgumentError, match="needs gcsfs; pip install gcsfs"):
        write("gs://bucket/a.zarr", tmp_path / "out.zarr")
