"""Sizes are kept per version, and growth of one case is seen."""

import json
from pathlib import Path

import pytest

import isopress
from benchmarks import compare_versions


def write(folder: Path, n_bytes: float, version: str = isopress.__version__) -> None:
    """Results of one case of each kind; that of blocks has `n_bytes`."""
    outcome = {"n_bytes": 1000, "rmse": 0.5, "max_error": 1.0}
    case = {"dataset": "tiny", "variable": "wave", "relative_bound": 0.01, "isopress": outcome}
    block = case | {"isopress": outcome | {"n_bytes": n_bytes}, "field_by_field": outcome}
    equal = {"dataset": "tiny", "variable": "wave", "ratio": 100.0, "isopress": {"n_bytes": 17.5}}
    for name, entry in (("rate_distortion", case), ("blocks", block), ("equal_rmse", equal)):
        (folder / f"{name}.json").write_text(json.dumps({"cases": [entry], "versions": {"isopress": version}}))


def run(folder: Path, *arguments: str) -> int:
    return compare_versions.main([*arguments, "--results", str(folder), "--out", str(folder)])


def test_sizes_that_stay_pass_and_growth_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 800, version="0.1.2")
    assert run(tmp_path, "--record", "0.1") == 0
    write(tmp_path, 800)
    assert run(tmp_path, "--against", "0.1") == 0
    write(tmp_path, 808)
    assert run(tmp_path, "--against", "0.1") == 1
    assert "| blocks at a bound | tiny | 2 | 1.00499 | 1.01000 (tiny/wave at 0.01) |" in capsys.readouterr().out
    assert run(tmp_path, "--against", "0.1", "--mean", "1.01", "--worst", "1.02") == 0


def test_results_of_another_version_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 800, version="0.1.2")
    assert run(tmp_path, "--record", "0.1") == 0
    assert run(tmp_path, "--against", "0.1") == 0
    assert "blocks.json was not measured with" in capsys.readouterr().err
    assert json.loads((tmp_path / "compare_versions.json").read_text())["rows"] == []


def test_a_version_that_was_not_kept_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 800)
    assert run(tmp_path, "--against", "0.1") == 2
    assert "sizes-0.1.json was never recorded" in capsys.readouterr().err
