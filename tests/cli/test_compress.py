"""`isopress compress` and `decompress`: options, errors in one line, exit codes, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result

import isopress
from isopress.cli import endings
from isopress.cli.main import main
from isopress.codec.native import dispatch
from isopress.format.payload import VERSION
from isopress.format.source import grib, locate
from isopress.format.source import open as opening
from tests.datasets import decoded, raw, save_netcdf, save_zarr, smooth, weather


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, reason: str) -> None:
    """Check for exit code 2, one line on stderr that gives the reason, and nothing on stdout."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("open ")]  # on a busy machine
    assert len(lines) == 1
    assert lines[0].startswith("isopress: ")
    assert reason in lines[0]
    assert not result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_netcdf(weather().drop_vars("station"), tmp_path_factory.mktemp("source") / "weather.nc")


def test_compress_prints_a_table_with_every_figure(source: Path, tmp_path: Path) -> None:
    result = run("compress", source, tmp_path / "out.zarr", "--error", "t2m=0.1", "--error", "index=range:1e-2")
    assert result.exit_code == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.split()}
    assert "bound" in lines["variable"]
    assert "MB/s" in lines["variable"]
    assert "0.1 K" in lines["t2m"]
    assert "1 % of |x| or 1e-05 m" in lines["tp"]  # preset science
    assert "(range:0.01)" in lines["index"]
    assert lines["8"].split()[1:3] == ["others", "exact"]
    assert str(tmp_path / "out.zarr") in result.stdout.replace("\n", "")
    assert "compress" in result.stderr  # progress, in plain lines


def test_json_is_all_there_is(source: Path, tmp_path: Path) -> None:
    result = run("compress", source, tmp_path / "out.zarr", "--json", "--preset", "preview")
    assert not result.stderr
    report = json.loads(result.stdout)
    assert report["kept"]
    t2m = next(variable for variable in report["variables"] if variable["name"] == "t2m")
    assert t2m["bound"] == {"mode": "abs", "value": 0.5, "floor": None, "exact": []}
    assert 0 < t2m["rmse"] <= t2m["max_error"] <= 0.5
    assert t2m["original_nbytes"] == 3 * 10 * 12 * 4


def test_the_last_error_wins_and_the_preset_bounds_the_rest(source: Path, tmp_path: Path) -> None:
    errors = ["--error", "ratio:300", "--error", "*=0.5", "--error", "t*=0.25", "--error", "tp=lossless"]
    assert run("compress", source, tmp_path / "out.zarr", *errors).exit_code == 0
    stored = raw(tmp_path / "out.zarr")
    specs = {name: stored[name].attrs["isopress_error"] for name in ("t2m", "tp", "sst")}
    assert specs == {"t2m": "abs:0.25", "tp": "lossless", "sst": "abs:0.5"}
    assert stored["tp"].equals(raw(source)["tp"])


@pytest.mark.parametrize("zarr_format", ["2", "3"])
def test_chunks_and_format_are_as_asked(source: Path, tmp_path: Path, zarr_format: str) -> None:
    options = ["--chunk", "time=2", "--chunk", "lat=4", "--zarr-format", zarr_format]
    assert run("compress", source, tmp_path / "out.zarr", *options).exit_code == 0
    report = json.loads(run("info", tmp_path / "out.zarr", "--json").stdout)
    chunks = {variable["name"]: variable["chunks"] for variable in report["variables"]}
    assert (report["zarr_format"], chunks["t2m"], chunks["lat"]) == (int(zarr_format), [2, 4, 12], [10])
    assert run("verify", tmp_path / "out.zarr", "--against", source).exit_code == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--error", "ten"], "'ten' is not a number"),
        (
            ["--error", "t2m=-1"],
            "'t2m=-1' of variable 't2m': bound of mode 'abs' must be a finite number > 0",
        ),
        (["--error", "t2=0.1"], "no such variable; an error can be set for: t2m, tp, sst, index"),
        (["--error", "lat=0.1"], "lat: coordinates and non-float variables are always exact"),
        (["--error", "soil=rmse:9"], "soil: coordinates and non-float variables are always exact"),
        (
            ["--error", "tp=relative:1%"],
            "'relative' is no kind of error; allowed are [VAR=] and one of 0.1",
        ),
        (["--error", "t2m=ratio:1"], "ratio must be a finite number > 1"),
        (["--ratio", "300"], "--ratio"),
        (["--effort", "1"], "effort 1 is for targets: set an error ratio:... or rmse:... too"),
        (["--effort", "-1", "--error", "ratio:9"], "--effort"),
        (["--preset", "best"], "'best' is not one of"),
        (["--chunk", "level=1"], "no such dimension; there are: "),
        (["--chunk", "time"], "is not DIM=N"),
        (["--chunk", "time=0"], "at least 1"),
        (["--chunk", "time=-1"], "is not DIM=N"),
        (["--zarr-format", "4"], "'4' is not one of"),
        (["--jobs", "0"], "--jobs"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_options_are_refused(source: Path, tmp_path: Path, options: list[str], reason: str) -> None:
    refused(run("compress", source, tmp_path / "out.zarr", *options), reason)
    assert not list(tmp_path.iterdir())


def test_bad_paths_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.nc").write_bytes(b"CDF junk")
    (tmp_path / "junk.dat").write_bytes(b"junk")
    (tmp_path / "folder").mkdir()
    out = tmp_path / "out.zarr"
    refused(run("compress", tmp_path / "no.nc", out), "no.nc: no such file or directory")
    refused(run("compress", tmp_path / "junk.nc", out), "header is damaged")
    refused(run("compress", tmp_path / "junk.dat", out), "not a dataset xarray can open")
    refused(run("compress", tmp_path / "folder", out), "no NetCDF, GRIB or CRA5 file and no Zarr store in this folder")
    refused(run("compress", save_zarr(xr.Dataset(), tmp_path / "empty.zarr"), out), "no variables")
    refused(run("compress", source, tmp_path / "no" / "out.zarr"), "no such directory")
    refused(run("compress", source, "nowhere://bucket/out.zarr"), "nothing can be written there")
    refused(run("compress", source, tmp_path / "out.zip"), "ends in .isop.zip")
    refused(run("info", tmp_path / "folder"), "not a Zarr group")
    refused(run("info", tmp_path / "nowhere"), "no such file or directory")
    refused(run("verify", tmp_path / "nowhere", "--against", source), "no such file or directory")
    refused(run("decompress", tmp_path / "nowhere", tmp_path / "out.nc"), "no such file or directory")
    refused(run("decompress", tmp_path / "folder", tmp_path / "out.txt"), "ends in .nc or .zarr")
    assert not out.exists()


def test_an_existing_store_needs_overwrite(source: Path, tmp_path: Path) -> None:
    out = save_zarr(xr.Dataset({"old": ("x", [1])}), tmp_path / "out.zarr")
    refused(run("compress", source, out), "exists; replace it with --overwrite")
    assert run("compress", source, out, "--overwrite", "--error", "lossless").exit_code == 0
    assert "old" not in raw(out)


def test_a_missing_reader_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (grib, locate, opening):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    (tmp_path / "era5.grib").write_bytes(b"GRIB....")
    out = tmp_path / "out.zarr"
    refused(run("compress", tmp_path / "era5.grib", out), "pip install 'isopress[grib]'")
    refused(run("compress", source, out), "pip install 'isopress[netcdf]'")
    refused(run("compress", "sample:era5", out), "pip install 'isopress[sample]'")


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_decompress_gives_an_ordinary_dataset(source: Path, tmp_path: Path, suffix: str) -> None:
    store, out = tmp_path / "store.zarr", tmp_path / f"out{suffix}"
    run("compress", source, store, "--error", "0.1")
    assert run("decompress", store, out).exit_code == 0
    refused(run("decompress", store, out), "exists; replace it with --overwrite")
    assert run("decompress", store, out, "--overwrite").exit_code == 0
    before, after = decoded(source), decoded(out)
    assert after["time"].identical(before["time"])
    assert float(np.abs(before["t2m"] - after["t2m"]).max()) <= 0.1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_command_line_without_a_verb_shows_the_verbs() -> None:
    result = run()
    assert result.exit_code == 2
    assert "compress" in result.stderr
    assert "verify" in run("--help").stdout
    refused(run("shrink"), "No such command 'shrink'")


def test_the_version_names_what_decides_bytes_and_values() -> None:
    major, minor = VERSION
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"isopress {isopress.__version__}, payload {major}.{minor}\n")
    assert f"kernels: {dispatch.status()}; " in result.stdout
    for name in ("Python", "numpy", "zarr", "numcodecs", "constriction", "torch"):
        assert f"{name} " in result.stdout


def test_a_bug_is_one_line_too(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise TypeError("two\nlines")

    monkeypatch.setattr("isopress.format.store.write.write", fail)
    refused(run("compress", source, tmp_path / "out.zarr"), "unexpected TypeError: two lines")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_a_finaliser_swallowed_is_seen_at_the_next_chunk() -> None:
    class Swallowing:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    before = signal.getsignal(signal.SIGINT)
    try:
        endings.watch()
        seen = list[int]()
        observe = endings.checked(seen.append)
        observe(1)
        Swallowing()
        with pytest.raises(KeyboardInterrupt):
            observe(2)
        assert seen == [1]
        endings.watch()
        observe(3)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupted_process_leaves_nothing(tmp_path: Path) -> None:
    values = smooth((400, 64, 64))
    source = save_zarr(xr.Dataset({"t": (("k", "y", "x"), values)}).chunk({"k": 1}), tmp_path / "in.zarr")
    command = [sys.executable, "-m", "isopress.cli.main", "compress", str(source), str(tmp_path / "out.zarr")]
    process = subprocess.Popen([*command, "--chunk", "k=1"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(tmp_path.glob(".out.zarr.partial/output/t")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert stderr.strip().splitlines()[-1] == "isopress: interrupted"
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]
