"""The benchmark of archives at the size of a toy: a source on no disk, processes that are watched, figures, tables."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from benchmarks.archive import Archive, Cost, _compress, _record, _verified
from benchmarks.cases.archive import archive_verdicts, estimate, overhead
from benchmarks.datasets.synthetic import UNITS, field, url_of
from benchmarks.report import archive as report
from benchmarks.watch import watching

SHAPE = (19, 36)
RUN = {
    "gb": 2.0,
    "stored_gb": 0.1,
    "tasks": 16,
    "wall_s": 100.0,
    "core_s": {"run": 1.0, "run's workers": 199.0},
    "peak_mb": {"run": 100.0, "run's workers": 900.0},
    "kills": ["a worker"],
    "verified": True,
}
LOAD = {
    "workers": 1000,
    "tasks": 100,
    "tasks_per_s": 50.0,
    "wall_s": 2.0,
    "messages": 50,
    "scheduler_core_s": 0.3,
    "client_core_s_per_task": 0.001,
    "scheduler_share_when_idle": 0.1,
    "scheduler_peak_mb": 300.0,
}


def test_the_source_is_the_same_whenever_it_is_read() -> None:
    group = zarr.open_group(url_of(len(UNITS), 2, 3, *SHAPE), mode="r")
    for name in UNITS:
        array: Any = group[name]
        assert array.shape == (3, 2, *SHAPE)
        assert np.array_equal(array[2, 1], field(name, 2, 1, SHAPE))
        assert np.isfinite(array[...]).all()
        assert not np.array_equal(array[0, 0], array[1, 0])
    with pytest.raises(FileNotFoundError):
        zarr.open_group(f"{url_of(1, 1, 1)}.zip", mode="r")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")
def test_a_small_archive_is_compressed_watched_and_verified(tmp_path: Path) -> None:
    archive = Archive(1, 2, shape=SHAPE)
    cost = _compress(archive, tmp_path / "out.zarr", ())
    run = _record(archive, tmp_path / "out.zarr", cost) | _verified(archive, tmp_path / "out.zarr")
    assert run["verified"]
    assert run["tasks"] == len(UNITS)
    assert run["core_s"]["run"] > 0
    assert run["peak_mb"]["run"] > 10


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")
def test_what_a_process_starts_is_watched_though_it_is_killed() -> None:
    busy = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    process = subprocess.Popen([sys.executable, "-c", busy])
    with watching({process.pid: "run"}) as watch:
        deadline = time.monotonic() + 60
        while not watch.seconds().get("run's workers") and time.monotonic() < deadline:
            time.sleep(0.05)
        for worker in watch.workers():
            os.kill(worker, 9)
        process.wait()
    assert watch.seconds()["run's workers"] > 0
    assert watch.peaks()["run's workers"] > 10**6


def test_all_of_era5_is_estimated_from_the_largest_run() -> None:
    part = RUN | {"gb": 3.0, "done_gb": 2.0, "how": "cluster"}
    result: dict[str, Any] = {
        "large": RUN | {"parts": [part]},
        "scheduler": LOAD,
        "growth": [RUN],
        "cluster": [RUN | {"how": "cluster"}],
    }
    ratios = {"runs": [{"preset": "science", "codec": "isopress", "ratio": ratio} for ratio in (10.0, 30.0)]}
    found = estimate(result, ratios)
    assert found["mb_per_core_s"] == pytest.approx(10)
    assert found["core_hours"] == pytest.approx(226e12 / 10e6 / 3600)
    assert found["ratio"] == pytest.approx(15)
    assert found["tasks_per_s_needed"] == pytest.approx(1000 / 12.5)
    assert found["scheduler_load"] == pytest.approx(80 / 8 * 0.002 + 0.1)
    assert overhead(RUN) == pytest.approx(1 / 199)
    verdicts = {(verdict.dataset, verdict.target): verdict.kept for verdict in archive_verdicts(result)}
    assert verdicts["cluster", "overhead"]
    assert not verdicts["large", "GB compressed"]
    tables = report.tables(result | {"estimate": found})
    assert "| large: in all | 2.0 | 20.0 | 16 | 200 | 10.00 |" in tables
    assert "| large: cluster | 2.0 of 3.0 | 20.0 | 16 | 200 | 10.00 |" in tables
    assert "6,278" in tables


def test_costs_add_up() -> None:
    both = Cost(1.0, {"run": 2.0}, {"run": 10.0}, ["a worker"]) + Cost(2.0, {"run": 1.0, "cluster": 4.0}, {"run": 20.0})
    assert both == Cost(3.0, {"run": 3.0, "cluster": 4.0}, {"run": 20.0, "cluster": 0.0}, ["a worker"])
