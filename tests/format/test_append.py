"""Stores that grow: new chunks only, no value coded twice, attributes that stay true."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.codec.errors import ArgumentError, BoundError
from isopress.format.report.info import read_report
from isopress.format.store import append as appending
from isopress.format.store import tasks
from isopress.format.store.append import append
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from tests.datasets import contents, errors, raw, smooth

HOURS = 40
VALUES = 280 + 10 * smooth((HOURS, 24, 20))
VALUES[::3, 0, 0] = np.nan
CHUNKS: dict[str, Any] = {"chunks": {"time": 4}}


def hours(first: int, last: int, **attrs: str) -> xr.Dataset:
    """Return some hours of one dataset, with a mask that does not change and a number that does."""
    ds = xr.Dataset(
        {
            "t": (("time", "lat", "lon"), VALUES[first:last], {"units": "K"} | attrs),
            "mask": (("lat", "lon"), np.eye(24, 20)),
            "step": ("time", np.arange(first, last, dtype="i2")),
        },
        coords={
            "time": ("time", np.arange(first, last), {"units": "hours since 2020-01-01"}),
            "lat": np.arange(24.0),
            "lon": np.arange(20.0),
        },
    )
    return ds


def saved(ds: xr.Dataset, path: Path) -> str:
    ds.to_netcdf(path)
    return str(path)


def test_daily_appends_are_as_if_all_had_been_written_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    days = [saved(hours(first, first + 8), tmp_path / f"{first:02d}.nc") for first in range(0, HOURS, 8)]
    write(days[0], out, errors=errors("0.05"), **CHUNKS, shards={"time": 16})
    seen = [raw(out)["t"].values]
    for day in days[1:]:
        append(day, out)
        seen.append(raw(out)["t"].values)
    for before, after in pairwise(seen):
        assert np.array_equal(before, after[: len(before)], equal_nan=True)  # bit by bit: nothing is coded again
    write(days, tmp_path / "once.zarr", errors=errors("0.05"), **CHUNKS, shards={"time": 16})
    once, grown = xr.open_zarr(tmp_path / "once.zarr"), xr.open_zarr(out)
    xr.testing.assert_equal(once, grown)
    assert verify(out, days).kept
    keys = ("max_error", "rmse", "values", "original_nbytes", "stored_nbytes")
    for key in keys:
        assert grown["t"].attrs[f"isopress_{key}"] == pytest.approx(once["t"].attrs[f"isopress_{key}"]), key
    assert grown["t"].attrs["isopress_models"] == once["t"].attrs["isopress_models"]
    assert grown.attrs["isopress_appends"] == 4
    assert read_report(out).variables[-1].shape == (HOURS,)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_that_is_not_full_is_made_again_from_the_source(zarr_format: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    write(saved(hours(0, 10), tmp_path / "a.nc"), out, errors=errors("0.05"), zarr_format=zarr_format, **CHUNKS)
    with pytest.raises(ArgumentError, match=r"t: the last chunk has 2 of 4 along time, .* begins at 8 or before"):
        append(saved(hours(10, 20), tmp_path / "b.nc"), out)
    append(saved(hours(8, 21), tmp_path / "c.nc"), out, jobs=1)
    whole, once_there = saved(hours(0, 21), tmp_path / "all.nc"), tmp_path / "once.zarr"
    write(whole, once_there, errors=errors("0.05"), zarr_format=zarr_format, **CHUNKS)
    grown, once = raw(out), raw(once_there)
    assert np.array_equal(grown["t"], once["t"], equal_nan=True)
    assert verify(out, str(tmp_path / "all.nc")).kept
    for key in ("max_error", "rmse", "values", "original_nbytes"):
        assert grown["t"].attrs[f"isopress_{key}"] == pytest.approx(once["t"].attrs[f"isopress_{key}"], rel=1e-6), key
    files = [
        path for path in (out / "t").rglob("*") if path.is_file() and not path.name.startswith((".z", "zarr.json"))
    ]
    assert grown["t"].attrs["isopress_stored_nbytes"] == sum(path.stat().st_size for path in files)


def test_times_in_another_unit_are_put_into_that_of_the_store(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    write(saved(hours(0, 8), tmp_path / "a.nc"), out, errors=errors("0.05"), **CHUNKS)
    later = hours(8, 12)
    later["time"] = ("time", np.arange(0.0, 4.0) / 24, {"units": "days since 2020-01-01T08"})
    append(saved(later, tmp_path / "b.nc"), out)
    assert raw(out)["time"].values.tolist() == list(range(12))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: ds.drop_vars("step"), "step: only one of source and store"),
        (lambda ds: ds.assign(t=ds.t.assign_attrs(units="degC")), r"t in the store attribute units is 'K'"),
        (lambda ds: ds.assign(mask=ds.mask + 1), "mask has other values"),
        (lambda ds: ds.isel(lat=slice(9)), "has shape"),
        (lambda ds: ds.isel(time=slice(None, None, -1)), "time does not increase"),
        (lambda ds: hours(2, 6), "nothing to append"),
    ],
)
def test_what_does_not_go_together_is_refused(change: Any, reason: str, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    write(saved(hours(0, 8), tmp_path / "a.nc"), out, errors=errors("0.05"), **CHUNKS)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ArgumentError, match=reason):
        append(saved(change(hours(8, 12)), tmp_path / "b.nc"), out)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("moment", ["while it writes", "before the metadata"])
def test_an_append_that_fails_leaves_what_readers_see_as_it_was(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"
    write(saved(hours(0, 10), tmp_path / "a.nc"), out, errors=errors("0.05"), chunks={"time": 2}, shards={"time": 8})
    before = raw(out)
    later = saved(hours(10, 20), tmp_path / "b.nc")
    with monkeypatch.context() as patch:
        if moment == "while it writes":
            honest = tasks.measure
            patch.setattr(tasks, "measure", lambda x, x_hat, bound: honest(x, x_hat + np.float32(1), bound))
        else:
            patch.setattr(appending, "_publish", lambda *arguments: (_ for _ in ()).throw(BoundError("stopped")))
        with pytest.raises(BoundError):
            append(later, out)
    xr.testing.assert_identical(raw(out), before)
    append(later, out)
    assert verify(out, [str(tmp_path / "a.nc"), later]).kept


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("resume", [False, True])
def test_an_append_that_is_killed_while_it_publishes_has_not_happened(
    version: int, resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, once = tmp_path / "out.zarr", tmp_path / "once.zarr"
    write(saved(hours(0, 10), tmp_path / "a.nc"), out, errors=errors("0.05"), chunks={"time": 2}, zarr_format=version)
    shutil.copytree(out, once)
    later = saved(hours(10, 20), tmp_path / "b.nc")
    with monkeypatch.context() as patch:  # what is not consolidated is written by now: attributes of the root among it
        patch.setattr(appending, "consolidate", lambda group: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            append(later, out)
    assert xr.open_zarr(out).sizes["time"] == 10
    append(later, out, resume=resume)
    append(later, once)
    assert contents(out) == contents(once)


def test_the_command_appends(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    write(saved(hours(0, 8), tmp_path / "a.nc"), out, errors=errors("0.05"), **CHUNKS)
    result = CliRunner().invoke(main, ["append", saved(hours(8, 12), tmp_path / "b.nc"), str(out)])
    assert result.exit_code == 0, result.stderr
    assert raw(out).sizes["time"] == 12
    assert CliRunner().invoke(main, ["append", str(tmp_path / "b.nc"), str(out)]).exit_code == 2
