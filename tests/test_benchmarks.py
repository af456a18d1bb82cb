"""The benchmarks on tiny generated input: no network, no rival but pcodec, which isopress needs itself."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # the benchmarks are not part of the installed package

from benchmarks import codecs, datasets, environment, metrics, rate_distortion, report, rounding, speed  # noqa: E402
from benchmarks.cache import RivalCache  # noqa: E402
from benchmarks.cases import Case, verdicts  # noqa: E402
from benchmarks.codecs import Codec, Outcome, Rival, best_outcome  # noqa: E402
from benchmarks.datasets import Block, Dataset, DatasetError  # noqa: E402

PCODEC = next(rival for rival in codecs.RIVALS if rival.package == "pcodec")


def waves(*shape: int) -> np.ndarray:
    """A smooth float32 block, every field a little different."""
    *_, h, w = shape
    field = np.add.outer(np.sin(np.linspace(0, 3, h)), np.cos(np.linspace(0, 5, w)))
    steps = np.arange(np.prod(shape[:-2], dtype=int)).reshape(*shape[:-2], 1, 1)
    return (field * (1 + 0.1 * steps)).astype(np.float32).reshape(shape)


def fake_rival(encode: Callable[[np.ndarray, float, str], bytes]) -> Rival:
    """A rival that writes what `encode` returns and decodes it as raw values."""

    def decode(encoded: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        return np.frombuffer(encoded, dtype, int(np.prod(shape))).reshape(shape)

    return Rival("fake", "numpy", "here", ("only",), codecs.TIGHTEN, Codec(encode, decode))


def a_case(advantage: float = 1.5, error: float = 0.9, rmse: float = 0.3, dataset: str = "native") -> Case:
    """A case whose best rival needs `advantage` times the bytes of isopress."""
    rivals = {
        "other": Outcome(9000, 1.0, 0.4, "x", 1.0),
        "best": Outcome(round(1000 * advantage), 1.0, 0.3, "y", 1.0),
    }
    ours = Outcome(1000, error, rmse, "default", 1.0)
    return Case(dataset, "u850", "00", (100, 100), "float32", 10000, 40000, 1e-3, 1.0, ours, rivals, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one NetCDF file: a block of two fields, a constant field and an integer field."""
    dims = ("time", "lat", "lon")
    data = {"wave": (dims, waves(2, 20, 30)), "calm": (dims[1:], np.ones((20, 30), np.float32))}
    data["count"] = (dims[1:], np.zeros((20, 30), np.int16))
    (tmp_path / "fields").mkdir()
    xr.Dataset(data).to_netcdf(tmp_path / "fields" / "tiny.nc", engine="netcdf4")
    return tmp_path / "fields"


def test_the_command_writes_json_and_plot_and_prints_tables(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(PCODEC, name="absent", package="no-such-distribution")
    monkeypatch.setattr(rate_distortion, "RIVALS", (PCODEC, absent))
    places = ["--data", str(folder), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    assert rate_distortion.main(["--sets", *places, "--bounds", "1e-3", "1e-2"]) == 0
    result = json.loads((tmp_path / "out" / "rate_distortion.json").read_text())
    assert [(case["variable"], case["relative_bound"]) for case in result["cases"]] == [
        ("tiny/wave", 1e-3),
        ("tiny/wave", 1e-2),
    ]
    assert all(case["derived"]["error_over_bound"] <= 1 for case in result["cases"])
    assert {"commit", "machine", "versions", "threads", "seed", "datasets"} <= set(result)
    assert result["missing_rivals"] == {"absent": "no-such-distribution"}
    assert result["left_out"] == ["fields/tiny/calm: constant, no bound relative to its range"]
    printed = capsys.readouterr().out
    assert "**Missing: absent**" in printed
    assert "| fields/tiny/wave | 0.001 |" in printed
    assert (tmp_path / "out" / "rate_distortion.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_fields_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rate_distortion.main(["--sets", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no NetCDF file" in capsys.readouterr().err


def test_public_data_with_another_checksum_is_refused() -> None:
    block = Block("tiny", "wave", waves(8, 8))
    assert Dataset("tiny", "", "", "", {"wave": block.sha256}, lambda: [block]).load() == [block]
    with pytest.raises(DatasetError, match="not the published test set"):
        Dataset("tiny", "", "", "", {"wave": "0" * 64}, lambda: [block]).load()


def test_the_checksum_of_a_block_ignores_memory_order_and_byte_order() -> None:
    x = waves(8, 12)
    same = [x, np.asfortranarray(x), x.astype(">f4")]
    assert len({Block("tiny", "wave", values).sha256 for values in same}) == 1
    assert Block("tiny", "wave", x.T).sha256 != Block("tiny", "wave", x).sha256


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ISOPRESS_CACHE", str(tmp_path))
    assert datasets.cache_folder() == tmp_path


def test_a_rival_that_exceeds_the_bound_is_tightened_until_it_holds() -> None:
    x = waves(16, 16).astype(np.float64)
    outcome = best_outcome(fake_rival(lambda y, tolerance, _: (y + 1.001 * tolerance).tobytes()), x, 0.01)
    assert outcome is not None
    assert outcome.factor < 1
    assert 0.0099 < outcome.max_error <= 0.01


def test_a_rival_that_never_holds_the_bound_has_no_outcome(tmp_path: Path) -> None:
    liar = fake_rival(lambda y, tolerance, _: (y + 3 * tolerance).tobytes())
    assert best_outcome(liar, waves(16, 16), 0.01) is None
    reason = RivalCache(tmp_path / "c.json").outcome(liar, Block("tiny", "wave", waves(16, 16)), 0.01)
    assert reason == "no tolerance keeps the bound"


def test_the_smaller_of_one_block_and_field_by_field_counts() -> None:
    padded = fake_rival(lambda y, _, __: y.tobytes() + bytes(1000 if y.ndim == 3 else 1))
    outcome = best_outcome(padded, waves(3, 8, 8), 0.01)
    assert outcome is not None
    assert (outcome.layout, outcome.n_bytes) == ("fields", 3 * (8 * 8 * 4 + 1))


def test_the_cache_runs_a_rival_once_and_again_for_another_bound(tmp_path: Path) -> None:
    calls = []

    def encode(y: np.ndarray, tolerance: float, _: str) -> bytes:
        calls.append(tolerance)
        return y.tobytes()

    block = Block("tiny", "wave", waves(8, 8))
    first = RivalCache(tmp_path / "c.json").outcome(fake_rival(encode), block, 0.01)
    assert RivalCache(tmp_path / "c.json").outcome(fake_rival(encode), block, 0.01) == first
    RivalCache(tmp_path / "c.json").outcome(fake_rival(encode), block, 0.02)
    assert calls == [0.01, 0.02]


def test_a_rival_that_raises_is_reported_with_its_message(tmp_path: Path) -> None:
    def refuse(y: np.ndarray, tolerance: float, _: str) -> bytes:
        raise ValueError("only 32x32 and larger")

    block = Block("tiny", "wave", waves(8, 8))
    reason = RivalCache(tmp_path / "c.json").outcome(fake_rival(refuse), block, 0.01)
    assert reason == "ValueError: only 32x32 and larger"


@pytest.mark.parametrize("setting", rounding.SETTINGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_holds_its_tolerance(setting: str, dtype: str) -> None:
    x = waves(2, 16, 24).astype(dtype)
    y = rounding.decode(rounding.encode(x, 0.01, setting), x.dtype, x.shape)
    assert metrics.distortion(x, y).max_error <= 0.01 * (1 + 1e-6)


def test_a_value_that_is_not_restored_counts_as_infinite_error() -> None:
    x = np.array([1.0, np.nan, np.inf])
    assert metrics.distortion(x, x.copy()) == metrics.Distortion(0.0, 0.0)
    assert metrics.distortion(x, np.array([1.0, 0.0, np.inf])).max_error == np.inf
    assert metrics.distortion(x, np.array([np.nan, np.nan, np.inf])).max_error == np.inf


def test_the_best_peer_is_the_one_with_the_fewest_bytes() -> None:
    case = a_case(advantage=1.5, rmse=0.33)
    assert (case.best_rival, case.advantage) == ("best", 1.5)
    assert case.rmse_ratio == pytest.approx(1.1)
    assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


def test_a_loss_is_printed_as_plainly_as_a_win() -> None:
    assert "1.500x" in report.progress(a_case(advantage=1.5))
    assert "**0.900x (larger)**" in report.progress(a_case(advantage=0.9))


@pytest.mark.parametrize(
    ("cases", "missed"),
    [
        ([a_case(1.4), a_case(1.3)], []),
        ([a_case(1.2), a_case(1.2)], ["size advantage, geometric mean"]),
        ([a_case(2.0), a_case(1.07)], ["size advantage, worst case"]),
        ([a_case(1.4, error=1.0001)], ["largest error over the bound"]),
        ([a_case(1.4, rmse=0.4)], ["RMSE over best peer's"]),
        ([a_case(0.99, dataset="sample")], ["size advantage, worst case"]),
        ([a_case(0.5, dataset="mine")], []),
    ],
)
def test_every_target_has_a_verdict(cases: list[Case], missed: list[str]) -> None:
    assert [verdict.target for verdict in verdicts(cases) if not verdict.kept] == missed


def test_tables_are_put_between_their_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"cases": [a_case().to_json()], "rivals": {"best": {}, "other": {}, "third": {}}}
    (tmp_path / "rate_distortion.json").write_text(json.dumps(result))
    document = tmp_path / "a.md"
    document.write_text("before\n<!-- table peers -->\nold\n<!-- end of table -->\nafter\n")
    arguments = [str(document), "--results", str(tmp_path)]
    assert report.main([*arguments, "--check"]) == 1
    assert report.main(arguments) == 0
    assert report.main([*arguments, "--check"]) == 0
    assert "| native/u850 | 0.001 | **1000** | 1500 | 9000 | not installed |" in document.read_text()
    assert "old" not in document.read_text()


def test_an_unknown_table_and_a_missing_result_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "a.md"
    for name, message in (("nothing", "no table 'nothing'"), ("speed", "run python -m benchmarks.speed")):
        document.write_text(f"<!-- table {name} -->\n<!-- end of table -->\n")
        assert report.main([str(document), "--results", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def test_results_md_names_only_tables_that_exist() -> None:
    names = [match[2] for match in report.TABLE.finditer((ROOT / "benchmarks" / "RESULTS.md").read_text())]
    assert names == list(report.TABLES)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_speed_is_measured_in_a_fresh_process() -> None:
    (run,) = speed.measure_all("tiny/wave", waves(64, 64), 1e-3, [PCODEC.name], repeat=1)
    assert run["encode"]["mb_per_s"] > 0
    assert run["decode"]["mb_per_s"] > 0
    assert run["ratio"] > 1
    result = {"runs": [run], **environment.environment(["numpy"])}
    assert PCODEC.name in report.speed(result)
    assert "Measured at commit" in report.origin(result)


def test_speed_names_the_variables_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--variables", "native/nothing", "--codecs", "isopress"]) == 2
    assert "no public variable 'native/nothing'; there are native/msl" in capsys.readouterr().err
