"""Repositories of icechunk and object stores by obstore: destinations, sources, stores that grow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.codec.errors import ArgumentError
from isopress.format.source.dataset import open_source
from isopress.format.store.append import append
from isopress.format.store.compact import compact
from isopress.format.store.progress import Progress
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from isopress.format.zarr import places
from tests.datasets import errors, raw, smooth

VALUES = 280 + 10 * smooth((12, 16, 20))
OPTIONS: dict[str, Any] = {"errors": errors("0.05"), "chunks": {"time": 4}}


@pytest.fixture
def hours(tmp_path: Path) -> Callable[[int, int], str]:
    def saved(first: int, last: int) -> str:
        if (path := tmp_path / f"{first}-{last}.nc").exists():
            return str(path)
        axes = {"time": ("time", np.arange(first, last), {"units": "hours since 2020-01-01"})}
        ds = xr.Dataset({"t": (("time", "lat", "lon"), VALUES[first:last], {"units": "K"})}, axes)
        ds.to_netcdf(path)
        return str(path)

    return saved


@pytest.mark.parametrize("kind", ["obstore+file", "obstore+memory", "icechunk+file"])
def test_a_place_is_a_destination_grows_and_is_a_source(
    kind: str, hours: Callable[[int, int], str], tmp_path: Path
) -> None:
    pytest.importorskip(kind.partition("+")[0])
    url = "obstore+memory:///out.zarr" if kind == "obstore+memory" else f"{kind}://{tmp_path}/place"
    write(hours(0, 6), url, **OPTIONS)
    with pytest.raises(ArgumentError, match="exists; replace it with --overwrite"):
        write(hours(0, 6), url, **OPTIONS)
    append(hours(4, 9), url)
    append(hours(9, 10), url, pieces=True)
    compact(url, hours(0, 10))
    assert verify(url, hours(0, 10)).kept
    write(hours(0, 10), tmp_path / "local.zarr", **OPTIONS)
    with open_source(url) as source:
        region = (slice(0, 10), slice(0, 16), slice(0, 20))
        assert source.read("t", region).tobytes() == raw(tmp_path / "local.zarr")["t"].values.tobytes()
    back = CliRunner().invoke(main, ["decompress", url, str(tmp_path / "back.nc")])
    assert back.exit_code == 0, back.stderr
    assert np.abs(raw(tmp_path / "back.nc")["t"] - VALUES[:10]).max() <= 0.05
    write(hours(0, 6), url, overwrite=True, **OPTIONS)
    assert verify(url, hours(0, 6)).kept


def test_a_repository_is_written_in_one_transaction(hours: Callable[[int, int], str], tmp_path: Path) -> None:
    icechunk = pytest.importorskip("icechunk")
    url = f"icechunk+file://{tmp_path}/repo"
    write(hours(0, 4), url, **OPTIONS)
    first = places.snapshot(url)

    def stop(step: Progress) -> None:
        if step.phase == "compress" and step.done_nbytes:
            with pytest.raises(ArgumentError, match="being written by another run"):
                append(hours(4, 8), url)
            raise KeyboardInterrupt

    for change in (
        lambda: append(hours(4, 8), url, observer=stop),
        lambda: write(hours(0, 8), url, overwrite=True, observer=stop, **OPTIONS),
    ):
        with pytest.raises(KeyboardInterrupt):
            change()
        assert places.snapshot(url) == first
    assert verify(url, hours(0, 4)).kept
    append(hours(4, 8), url)
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    now, before = (
        xr.open_zarr(session.store, consolidated=False)
        for session in (repository.readonly_session("main"), repository.readonly_session(snapshot_id=first))
    )
    assert now.sizes["time"] == 8
    xr.testing.assert_identical(now["t"][:4].drop_attrs(), before["t"].drop_attrs())
    with pytest.raises(ArgumentError, match="a transaction is of one process"):
        append(hours(8, 12), url, jobs=2)


def test_a_dataset_is_written_to_a_session_by_xarray(hours: Callable[[int, int], str], tmp_path: Path) -> None:
    icechunk = pytest.importorskip("icechunk")
    import isopress.xarray  # noqa: F401  # the accessor

    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    with xr.open_dataset(hours(0, 4)) as ds:
        ds.isopress.to_zarr(session.store, {"t": 0.05})
        session.commit("four hours")
        read = xr.open_zarr(repository.readonly_session("main").store, consolidated=False)
        assert float(np.abs(read.t - ds.t).max()) <= 0.05


def test_a_bucket_holds_a_repository_and_a_store_by_obstore(
    hours: Callable[[int, int], str], bucket: str, tmp_path: Path
) -> None:
    for package in ("icechunk", "obstore"):
        pytest.importorskip(package)
    for url in (f"icechunk+s3://{bucket}/repo", f"obstore+s3://{bucket}/out.zarr"):
        write(hours(0, 4), url, **OPTIONS)
        append(hours(4, 8), url)
        assert verify(url, hours(0, 8)).kept


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("icechunk+file:///nowhere/repo", "no repository of icechunk"),
        ("icechunk+ftp://host/repo", r"are at icechunk\+file://"),
        ("obstore+what://host/x.zarr", "cannot be opened"),
    ],
)
def test_what_is_not_there_is_an_error_of_one_line(url: str, reason: str) -> None:
    pytest.importorskip(url.partition("+")[0])
    result = CliRunner().invoke(main, ["info", url])
    assert result.exit_code == 2
    assert reason.replace("\\", "") in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("package", ["icechunk", "obstore"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=f"pip install {package}"):
        places.place(f"{package}+s3://missing/{package}")
