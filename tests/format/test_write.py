"""Writing a store, and where it lies until it is whole."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr

from isopress.codec.errors import ArgumentError, BoundError
from isopress.format.report.info import read_report
from isopress.format.source.dataset import open_source
from isopress.format.store import chunking, rename, staging, tasks
from isopress.format.store.progress import Progress
from isopress.format.store.restore import restore
from isopress.format.store.staging import staged
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from tests.datasets import EXACT, LOSSY, decoded, errors, raw, save_zarr, smooth, weather

# --- datasets -> stores -> datasets: what must survive, what must be kept, what must never be left behind -------------

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # |S1 and <U in v3


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_everything_but_the_lossy_values_survives(zarr_format: int, tmp_path: Path) -> None:
    source = save_zarr(weather(), tmp_path / "in.zarr", zarr_format)
    write(str(source), tmp_path / "out.zarr", errors=errors("0.1"), zarr_format=5 - zarr_format)
    before, after = raw(source), raw(tmp_path / "out.zarr")
    for name in EXACT:
        a, b = before[name].variable, after[name].variable
        assert a.dims == b.dims
        assert np.array_equal(a.values.astype(object), b.values.astype(object)), name
        assert a.dtype == b.dtype or a.dtype.kind in "UTO"
        assert {key: value for key, value in a.attrs.items() if key != "_FillValue"} == {
            key: value for key, value in b.attrs.items() if key != "_FillValue"
        }
    for name in LOSSY:
        kept = {key for key in after[name].attrs if not key.startswith("isopress_") and key != "_FillValue"}
        assert kept == set(before[name].attrs) - {"_FillValue"}
        assert np.array_equal(np.isnan(before[name]), np.isnan(after[name]))
        np.testing.assert_array_less(np.abs(before[name] - after[name]).fillna(0), 0.1 + 1e-12)
    assert {"title", "history", "number"} <= set(after.attrs)


def test_plain_xarray_and_dask_open_a_store_without_a_warning(netcdf: Path, store: Path) -> None:
    with xr.open_zarr(store) as lazy, xr.open_dataset(netcdf, decode_timedelta=False) as source:
        assert lazy["t2m"].chunks is not None
        np.testing.assert_allclose(lazy["t2m"].mean().compute(), source["t2m"].mean(), atol=0.1)
        assert lazy["time"].equals(source["time"])
        assert lazy["t2m"].attrs["isopress_error"] == "abs:0.1"
        assert "pip install isopress" in lazy.attrs["isopress_read_with"]


def test_the_store_records_what_was_asked_and_what_was_achieved(netcdf: Path, store: Path) -> None:
    report = {variable.name: variable for variable in read_report(store).variables}
    source, after = decoded(netcdf), decoded(store)
    index = report["index"]
    assert index.error == "range:0.01"
    spread = float(source["index"].max() - source["index"].min())
    assert index.bound is not None
    assert index.bound.mode == "abs"
    assert index.bound.value == pytest.approx(0.01 * spread)
    for name in LOSSY:
        error = np.abs(source[name].astype("f8") - after[name].astype("f8"))
        assert report[name].max_error == float(error.max())
        assert report[name].rmse == pytest.approx(float(np.sqrt((error**2).mean())))
        attrs = after[name].attrs
        assert attrs["isopress_original_nbytes"] == source[name].nbytes
        chunks = store / name / "c"
        assert attrs["isopress_stored_nbytes"] == sum(p.stat().st_size for p in chunks.rglob("*") if p.is_file())
    assert any(report[name].models for name in LOSSY)
    assert report["lat"].bound is None


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_decompress_gives_the_attributes_of_the_source_back(
    netcdf: Path, store: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    restore(store, out)
    before, compressed, after = raw(netcdf), raw(store), raw(out)
    assert after.attrs == before.attrs
    for name, variable in before.variables.items():
        np.testing.assert_equal({**after[name].attrs}, {**variable.attrs}, err_msg=name)
        assert np.array_equal(compressed[name].values, after[name].values, equal_nan=variable.dtype.kind == "f")
    if suffix == ".zarr":
        assert "isopress" not in (out / "t2m" / "zarr.json").read_text()


def packed_netcdf(path: Path) -> Path:
    """Write what old archives hold: 16-bit packing, fill values, unlimited time, characters."""
    values = 280 + 10 * smooth((4, 9, 11))
    with netCDF4.Dataset(path, "w") as file:
        for name, size in {"time": None, "lat": 9, "lon": 11, "letters": 3}.items():
            file.createDimension(name, size)
        packed = file.createVariable("t", "i2", ("time", "lat", "lon"), fill_value=-32767)
        packed.scale_factor, packed.add_offset, packed.units = np.float64(0.002), np.float64(280), "K"
        packed[:] = np.ma.masked_greater(values, 289)
        filled = file.createVariable("f", "f4", ("time", "lat", "lon"), fill_value=np.float32(-9999))
        filled[:] = np.ma.masked_less(values - 280, -5)
        near = file.createVariable("near", "f4", ("time", "lat", "lon"), fill_value=np.float32(0.25))
        near[:] = np.ma.masked_less(values - 280, -5)
        count = file.createVariable("count", "i2", ("time", "lat", "lon"), fill_value=-1)
        count[:] = np.ma.masked_less(np.arange(396).reshape(4, 9, 11), 5)
        time = file.createVariable("time", "i4", ("time",))
        time.units, time[:] = "days since 1970-01-01", np.arange(4)
        code = file.createVariable("code", "S1", ("time", "letters"))
        code[:] = np.array([list("abc")] * 4, "S1")
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_packed_and_filled_variables_keep_bounds_in_physical_units(zarr_format: int, tmp_path: Path) -> None:
    source, out = packed_netcdf(tmp_path / "packed.nc"), tmp_path / "out.zarr"
    write(str(source), out, errors=errors("0.1"), zarr_format=zarr_format)
    before, after = decoded(source), decoded(out)
    for name in ("t", "f", "near"):
        assert np.array_equal(np.isnan(before[name]), np.isnan(after[name]))
        assert float(np.abs(before[name] - after[name]).max()) <= 0.1
        assert before[name].dtype == after[name].dtype
    for name in ("count", "time", "code"):
        assert before[name].equals(after[name])
    assert verify(out, str(source)).kept
    assert read_report(out).variables[-1].original_nbytes == 4 * 4  # time, int32


def test_a_lossless_packed_variable_is_packed_again_by_decompress(tmp_path: Path) -> None:
    source, out, back = packed_netcdf(tmp_path / "packed.nc"), tmp_path / "out.zarr", tmp_path / "back.nc"
    write(str(source), out, errors=errors("lossless"))
    restore(out, back)
    before, after = raw(source), raw(back)
    assert before.identical(after)
    with xr.open_dataset(back) as ds:
        assert ds.encoding["unlimited_dims"] == {"time"}


def test_a_fill_value_within_reach_of_changed_values_is_not_written_again(tmp_path: Path) -> None:
    source, out, back = packed_netcdf(tmp_path / "packed.nc"), tmp_path / "out.zarr", tmp_path / "back.nc"
    write(str(source), out, errors=errors("0.1"))
    restore(out, back)
    after = raw(back)
    assert after["f"].attrs["_FillValue"] == np.float32(-9999)
    assert "_FillValue" not in after["near"].attrs  # 0.25 could be a rounded value
    assert after["t"].dtype == np.float64  # packing again would break the bound
    assert decoded(back)["near"].equals(decoded(out)["near"].drop_attrs())


def test_special_values_come_back_in_their_places(tmp_path: Path) -> None:
    values = smooth((2, 9, 11)).astype(np.float64)
    values[0, 0, :4] = np.nan, np.inf, -np.inf, -0.0
    source = save_zarr(xr.Dataset({"x": (("k", "i", "j"), values)}), tmp_path / "in.zarr")
    write(str(source), tmp_path / "out.zarr", errors=errors("pointwise:1%"))
    after = raw(tmp_path / "out.zarr")["x"].values[0, 0, :4]
    assert np.array_equal(after, values[0, 0, :4], equal_nan=True)
    assert np.signbit(after[3])


def test_odd_shapes_survive(tmp_path: Path) -> None:
    ds = xr.Dataset(
        {
            "scalar": ((), np.float32(1.5)),
            "line": (("x",), np.linspace(0, 1, 50)),
            "constant": (("y", "x"), np.full((3, 50), 7.0, np.float32)),
            "masked": (("y", "x"), np.full((3, 50), np.nan, np.float32)),
            "empty": (("none", "y", "x"), np.zeros((0, 3, 50), np.float32)),
            "five": (("a", "b", "c", "y", "x"), smooth((2, 1, 2, 3, 50))),
            "whole": (("x",), np.arange(50)),
            "yes": (("x",), np.arange(50) % 2 == 0),
        }
    )
    source = save_zarr(ds, tmp_path / "in.zarr")
    for zarr_format in (2, 3):
        out = tmp_path / f"{zarr_format}.zarr"
        write(str(source), out, errors=errors("range:1e-3"), zarr_format=zarr_format)
        after = decoded(out)
        for name in ("scalar", "constant", "masked", "empty", "whole", "yes"):
            assert ds[name].variable.equals(after[name].variable), name
        assert float(np.abs(ds["line"] - after["line"]).max()) <= 1e-3
        assert verify(out, str(source)).kept


def test_a_big_endian_source_survives(tmp_path: Path) -> None:
    path = tmp_path / "old.nc"
    ds = xr.Dataset({"t": (("y", "x"), smooth((8, 9))), "n": (("x",), np.arange(9, dtype=np.int32))})
    ds.to_netcdf(path, format="NETCDF3_CLASSIC")
    write(str(path), tmp_path / "out.zarr", errors=errors("0.01"))
    after = decoded(tmp_path / "out.zarr")
    assert after["n"].equals(ds["n"])
    assert float(np.abs(after["t"] - ds["t"]).max()) <= 0.01


@pytest.mark.parametrize("folder", ["", "inner.zarr/"])
def test_a_zipped_store_is_a_source(tmp_path: Path, folder: str) -> None:
    source = save_zarr(weather(), tmp_path / "in.zarr")
    with zipfile.ZipFile(tmp_path / "in.zarr.zip", "w") as archive:
        for file in source.rglob("*"):
            archive.write(file, folder + file.relative_to(source).as_posix())
    write(str(tmp_path / "in.zarr.zip"), tmp_path / "out.zarr", errors=errors("0.1"))
    assert verify(tmp_path / "out.zarr", str(tmp_path / "in.zarr.zip")).kept


def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    source = save_zarr(weather(), tmp_path / "in.zarr")
    for jobs in (1, 2):
        write(str(source), tmp_path / f"{jobs}.zarr", errors=errors("range:1e-3"), chunks={"time": 1}, jobs=jobs)
    files = [sorted(p.relative_to(tmp_path / "1.zarr") for p in (tmp_path / "1.zarr").rglob("*") if p.is_file())]
    files.append(sorted(p.relative_to(tmp_path / "2.zarr") for p in (tmp_path / "2.zarr").rglob("*") if p.is_file()))
    assert files[0] == files[1]
    assert all((tmp_path / "1.zarr" / p).read_bytes() == (tmp_path / "2.zarr" / p).read_bytes() for p in files[0])


def test_a_source_larger_than_memory_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "REGION_NBYTES", 2**20)  # of a source of 19 MB; in earnest both are larger
    monkeypatch.setattr(chunking, "TASK_NBYTES", 2**17)
    shape = (300, 128, 128)
    group = zarr.create_group(tmp_path / "in.zarr")
    group.create_array("t", shape=shape, dtype="f4", chunks=(1, 128, 128), fill_value=280, dimension_names="tyx")
    write(str(tmp_path / "in.zarr"), tmp_path / "first.zarr", errors=errors("0.1"), chunks={"t": 5})  # imports, weights
    tracemalloc.start()
    try:
        write(str(tmp_path / "in.zarr"), tmp_path / "out.zarr", errors=errors("0.1"), chunks={"t": 5})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * np.prod(shape) / 2
    assert float(raw(tmp_path / "out.zarr")["t"].mean()) == pytest.approx(280, abs=0.1)


class Stopped(BaseException):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_write_leaves_everything_as_it_was(netcdf: Path, tmp_path: Path, existing: bool) -> None:
    out = tmp_path / "out.zarr"
    if existing:
        save_zarr(xr.Dataset({"old": ("x", [1])}), out)

    def stop(step: Progress) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        write(str(netcdf), out, overwrite=True, observer=stop)
    assert [path.name for path in tmp_path.iterdir()] == (["out.zarr"] if existing else [])
    assert not existing or list(raw(out).variables) == ["old"]


def test_a_chunk_that_reads_back_wrong_is_never_published(
    netcdf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = tasks.measure
    monkeypatch.setattr(tasks, "measure", lambda x, x_hat, bound: honest(x, x_hat + np.float32(1), bound))
    with pytest.raises(BoundError, match=r"values read back break the bound"):
        write(str(netcdf), tmp_path / "out.zarr", errors=errors("0.1"))
    assert not list(tmp_path.iterdir())


def test_an_existing_output_is_replaced_only_when_asked(netcdf: Path, tmp_path: Path) -> None:
    out = save_zarr(xr.Dataset({"old": ("x", [1])}), tmp_path / "out.zarr")
    with pytest.raises(ArgumentError, match="--overwrite"):
        write(str(netcdf), out)
    write(str(netcdf), out, overwrite=True, errors=errors("lossless"))
    assert "old" not in raw(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_what_is_not_a_store_is_never_replaced(netcdf: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    (tmp_path / "file.txt").write_text("work")
    for name in ("notes", "file.txt"):
        with pytest.raises(ArgumentError, match="not a Zarr store"):
            write(str(netcdf), tmp_path / name, overwrite=True)
    assert (tmp_path / "notes" / "thesis.txt").exists()
    with pytest.raises(ArgumentError, match="are the same"):
        write(str(netcdf), netcdf, overwrite=True)


def test_a_compressed_store_can_be_a_source(store: Path, tmp_path: Path) -> None:
    write(str(store), tmp_path / "again.zarr", errors=errors("t2m=1"))
    assert raw(tmp_path / "again.zarr")["t2m"].attrs["isopress_error"] == "abs:1.0"
    assert verify(tmp_path / "again.zarr", str(store)).kept


def test_coordinates_by_attribute_are_not_lossy(netcdf: Path) -> None:
    with open_source(str(netcdf)) as source:
        assert set(source.lossy) == set(LOSSY)


# --- publishing: complete or not at all, one run at a time, and never at the cost of what others have put there -------

PARTIAL = ".out.zarr.partial"


def store(path: Path, text: str = "new") -> None:
    """Make the least that counts as a Zarr store, with something in it."""
    path.mkdir()
    (path / "zarr.json").write_text(text)


def content(path: Path) -> str:
    return (path / "zarr.json").read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def publish(out: Path, work: Callable[[Path], object], **options: bool) -> None:
    """Let `work` write what is to be published at `out`."""
    with staged(out, **({"store": True, "overwrite": False} | options)) as path:
        work(path)


@pytest.fixture(params=["renameat2", "steps"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the renaming of Linux, and as on systems and file systems that lack it."""

    def refuse(*arguments: object) -> None:
        raise NotImplementedError

    if request.param == "steps":
        monkeypatch.setattr(rename, "_renameat2", refuse)


@pytest.mark.usefixtures("either_way")
def test_an_output_appears_at_the_end_and_nothing_else_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    with staged(out, store=True, overwrite=False) as path:
        store(path)
        assert not out.exists()
    assert (names(tmp_path), content(out)) == (["out.zarr"], "new")
    with staged(tmp_path / "out.nc", store=False, overwrite=False) as path:
        path.write_text("a file")
    assert (tmp_path / "out.nc").read_text() == "a file"
    assert names(tmp_path) == ["out.nc", "out.zarr"]


@pytest.mark.usefixtures("either_way")
def test_an_old_output_is_there_until_the_new_one_is(tmp_path: Path) -> None:
    store(tmp_path / "out.zarr", "old")
    (tmp_path / "out.nc").write_text("old")
    with staged(tmp_path / "out.zarr", store=True, overwrite=True) as path:
        store(path)
        assert content(tmp_path / "out.zarr") == "old"
    with staged(tmp_path / "out.nc", store=False, overwrite=True) as path:
        path.write_text("new")
        assert (tmp_path / "out.nc").read_text() == "old"
    assert (content(tmp_path / "out.zarr"), (tmp_path / "out.nc").read_text()) == ("new", "new")
    assert names(tmp_path) == ["out.nc", "out.zarr"]


APPEARING: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("thesis"),
    "folder": lambda path: (path.mkdir(), (path / "thesis.txt").write_text("thesis")),
    "store": lambda path: store(path, "thesis"),
    "broken link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("is_store", [False, True])
@pytest.mark.parametrize("appearing", APPEARING)
def test_what_appears_at_the_destination_meanwhile_is_left_alone(
    appearing: str, is_store: bool, overwrite: bool, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"

    def work(path: Path) -> None:
        store(path) if is_store else path.write_text("new")
        APPEARING[appearing](out)
        before.append(out.lstat())

    before = list[os.stat_result]()
    with pytest.raises(ArgumentError, match="appeared"):
        publish(out, work, store=is_store, overwrite=overwrite)
    assert [out.lstat()] == before
    assert names(tmp_path) == ["out.zarr"]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("appearing", APPEARING)
def test_what_takes_the_place_of_the_old_output_meanwhile_is_left_alone(appearing: str, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    store(out, "old")

    def work(path: Path) -> None:
        store(path)
        out.rename(tmp_path / "moved")
        APPEARING[appearing](out)
        before.append(out.lstat())

    before = list[os.stat_result]()
    with pytest.raises(ArgumentError, match="appeared"):
        publish(out, work, overwrite=True)
    assert [out.lstat()] == before
    assert content(tmp_path / "moved") == "old"
    assert names(tmp_path) == ["moved", "out.zarr"]


def test_what_takes_the_place_in_the_last_moment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, honest = tmp_path / "out.zarr", staging.exchange
    store(out, "old")

    def late(one: Path, other: Path) -> None:
        if not (tmp_path / "moved").exists():
            out.rename(tmp_path / "moved")
            store(out, "thesis")
        honest(one, other)

    monkeypatch.setattr(staging, "exchange", late)
    with pytest.raises(ArgumentError, match="appeared"), staged(out, store=True, overwrite=True) as path:
        store(path)
    assert (content(out), content(tmp_path / "moved")) == ("thesis", "old")
    assert names(tmp_path) == ["moved", "out.zarr"]


@pytest.mark.usefixtures("either_way")
def test_an_old_output_that_goes_away_meanwhile_is_no_matter(tmp_path: Path) -> None:
    store(tmp_path / "out.zarr", "old")
    with staged(tmp_path / "out.zarr", store=True, overwrite=True) as path:
        store(path)
        (tmp_path / "out.zarr").rename(tmp_path / "moved")
    assert (content(tmp_path / "out.zarr"), content(tmp_path / "moved")) == ("new", "old")


def test_a_second_run_at_one_destination_is_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    other = "from pathlib import Path; from isopress.format.store.staging import staged\n"
    other += "import sys\nwith staged(Path(sys.argv[1]), store=True, overwrite=True): pass"
    with staged(out, store=True, overwrite=False) as path:
        store(path)
        with pytest.raises(ArgumentError, match="another run"), staged(out, store=True, overwrite=True):
            pass
        done = subprocess.run([sys.executable, "-c", other, str(out)], capture_output=True, text=True, check=False)
        assert done.returncode
        assert "is being written by another run" in done.stderr
        with staged(tmp_path / "other.zarr", store=True, overwrite=False) as unrelated:
            store(unrelated)
    assert content(out) == "new"
    assert names(tmp_path) == ["other.zarr", "out.zarr"]


@pytest.mark.usefixtures("either_way")
def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    store(tmp_path / "disk" / "real.zarr", "old")
    link, fresh = tmp_path / "out.zarr", tmp_path / "fresh.zarr"
    link.symlink_to("disk/real.zarr")
    fresh.symlink_to("disk/fresh.zarr")
    with pytest.raises(ArgumentError, match="--overwrite"), staged(link, store=True, overwrite=False):
        pass
    for path in (link, fresh):
        with staged(path, store=True, overwrite=True) as output:
            store(output)
        assert path.is_symlink()
        assert content(path) == "new"
    assert names(tmp_path / "disk") == ["fresh.zarr", "real.zarr"]


def test_links_to_what_is_no_store_and_to_themselves_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("thesis")
    (tmp_path / "a.zarr").symlink_to("notes")
    (tmp_path / "b.zarr").symlink_to("b.zarr")
    for name in ("a.zarr", "b.zarr"):
        with (
            pytest.raises(ArgumentError, match="not a Zarr store"),
            staged(tmp_path / name, store=True, overwrite=True),
        ):
            pytest.fail("work began")
    assert names(tmp_path) == ["a.zarr", "b.zarr", "notes"]


@pytest.mark.parametrize("planted", ["file", "broken link", "link"])
def test_what_lies_where_the_work_would_be_is_never_followed_or_removed(planted: str, tmp_path: Path) -> None:
    store(tmp_path / "output", "precious")
    (tmp_path / PARTIAL).symlink_to(".") if planted == "link" else APPEARING[planted](tmp_path / PARTIAL)
    with pytest.raises(ArgumentError, match="in the way"), staged(tmp_path / "out.zarr", store=True, overwrite=True):
        pytest.fail("work began")
    assert content(tmp_path / "output") == "precious"


def killed(out: Path, *steps: str, setup: str = "") -> None:
    """Run a process that writes a store to `out` and is killed on the way."""
    code = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from isopress.format.store import rename, staging

        def die(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)

        out = Path(sys.argv[1])
        {setup}
        with staging.staged(out, store=True, overwrite=True) as path:
            path.mkdir()
            (path / "zarr.json").write_text("new")
            {steps}
    """).format(setup=setup, steps="; ".join(steps) or "pass")
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


KILLS = {
    "while it writes": (("die()",), "", "old"),
    "before the exchange": ((), "staging.exchange = die", "old"),
    "after the exchange": ((), "real = staging.exchange; staging.exchange = lambda *a: (real(*a), die())", "new"),
    "between two renames": ((), "exec('def lack(*a): raise NotImplementedError()'); rename._renameat2 = lack; "
                                "staging.rename_new = die", None),
}  # fmt: skip


@pytest.mark.parametrize("moment", KILLS)
def test_after_a_kill_the_old_or_the_new_store_is_there_and_the_next_run_cleans_up(
    moment: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out.zarr"
    store(out, "old")
    steps, setup, left = KILLS[moment]
    killed(out, *steps, setup=setup)
    assert names(tmp_path / PARTIAL)
    assert (content(out) if out.exists() else None) == left
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ArgumentError, match="--overwrite"),
        staged(out, store=True, overwrite=False),
    ):
        pass
    assert content(out) == (left or "old")
    assert names(tmp_path) == ["out.zarr"]
    assert PARTIAL in caplog.text


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    killed(tmp_path / "out.zarr", "die()")
    with staged(tmp_path / "out.zarr", store=True, overwrite=False) as path:
        save_zarr(xr.Dataset({"x": ("i", [1])}), path)
    assert names(tmp_path) == ["out.zarr"]


def test_many_runs_at_once_publish_whole_outputs_and_one_at_a_time(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from isopress.codec.errors import ArgumentError
        from isopress.format.store.staging import staged
        end, done = time.monotonic() + 0.7, 0
        while time.monotonic() < end:
            try:
                with staged(Path(sys.argv[1]), store=True, overwrite=True) as path:
                    path.mkdir()
                    (path / "zarr.json").write_text("a" * 9)
                    (path / "b").write_text("b")
                done += 1
            except ArgumentError as error:
                assert "another run" in str(error), error
        print(done)
    """)
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out.zarr")], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    texts = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    counts = list(map(int, texts))
    assert sum(counts) > 3
    assert names(tmp_path) == ["out.zarr"]
    assert names(tmp_path / "out.zarr") == ["b", "zarr.json"]
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_written_to_is_an_error_before_the_work(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError), staged(tmp_path / "out.zarr", store=True, overwrite=False):
        pytest.fail("work began")
    tmp_path.chmod(0o700)
