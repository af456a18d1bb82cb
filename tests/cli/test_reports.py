"""`isopress info` and `verify`, and how figures are printed."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zarr
from click.testing import CliRunner, Result

from isopress.cli import tables as report
from isopress.cli.main import main
from isopress.cli.progress import progress
from isopress.codec.limits import Bound, Target
from isopress.format.report import words
from isopress.format.report.records import StoreReport, VariableReport
from isopress.format.store.progress import Progress
from tests.datasets import save_netcdf, weather


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_netcdf(weather().drop_vars("station"), tmp_path_factory.mktemp("source") / "weather.nc")


@pytest.fixture(scope="module")
def store(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "weather.zarr"
    result = run("compress", source, path, "--error", "tp=pointwise:1%,floor=1e-6")
    assert result.exit_code == 0, result.stderr
    return path


def test_info_shows_dimensions_bounds_errors_and_layout(store: Path) -> None:
    result = run("info", store)
    lines = result.stdout.splitlines()
    assert ": Zarr 3, complete, isopress " in lines[0]
    assert "from weather.nc, preset science" in lines[0]
    assert "  time   3  1940-01-01T00:00:00 to 1940-01-01T02:00:00" in lines
    assert "  lat   10  90 to -90 degrees_north" in lines
    at = lines.index("  t2m (time, lat, lon) float32  2 metre temperature")
    assert lines[at + 1].startswith("      0.1 K: largest error 0.0")
    assert lines[at + 2].startswith("      3 x 10 x 12 in chunks 3 x 10 x 12; 1.4 kB -> ")
    assert any(line.startswith("      1 % of |x| or 1e-06 m: largest error") for line in lines)
    assert any(line.startswith("  lat (lat) float64  exact, 10 in chunks 10; 80 B") for line in lines)
    assert not result.stderr


def test_info_as_json_has_every_figure(store: Path) -> None:
    result = run("info", store, "--json")
    variables = {variable["name"]: variable for variable in json.loads(result.stdout)["variables"]}
    assert set(variables) >= {"t2m", "tp", "lat", "crs"}
    figures = {"shape", "chunks", "bound", "max_error", "rmse", "original_nbytes", "stored_nbytes", "ratio", "models"}
    assert figures <= set(variables["t2m"])
    assert variables["tp"]["error"] == "pointwise:0.01,floor=1e-06"
    assert variables["lat"]["bound"] is None


def test_info_does_not_load_torch_or_weights(store: Path) -> None:
    script = (
        "import sys\nfrom isopress.cli.main import main\n"
        f"try: main(['info', {str(store)!r}])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'constriction', 'safetensors'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_verify_exits_with_0_when_all_is_kept(source: Path, store: Path) -> None:
    result = run("verify", store, "--against", source)
    assert result.exit_code == 0
    assert {line.split()[0] for line in result.stderr.splitlines()} - {"open"} == {"check"}  # progress
    assert json.loads(run("verify", store, "--against", source, "--json", "--jobs", "2").stdout)["kept"]


@pytest.mark.filterwarnings("ignore::isopress.format.rewrites.PartialWriteWarning")
@pytest.mark.parametrize("harm", ["value", "flip", "cut", "foreign"])
def test_verify_exits_with_1_when_one_chunk_is_not_kept(source: Path, store: Path, tmp_path: Path, harm: str) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store, copy)
    chunk = next(path for path in (copy / "t2m" / "c").rglob("*") if path.is_file())
    data = chunk.read_bytes()
    if harm == "value":
        zarr.open_group(copy, mode="r+")["t2m"][0, 0, 0] = 999  # type: ignore[index]
    else:
        changed = bytes([data[len(data) // 2] ^ 4])
        flipped = data[: len(data) // 2] + changed + data[len(data) // 2 + 1 :]
        chunk.write_bytes({"flip": flipped, "cut": data[:-5], "foreign": b"hello"}[harm])
    result = run("verify", copy, "--against", source, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["kept"]
    assert [variable["name"] for variable in report["variables"] if not variable["kept"]] == ["t2m"]
    assert result.stderr.startswith("isopress: t2m: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("bound", "error", "text"),
    [
        (None, None, "exact"),
        (Bound("lossless"), "lossless", "exact"),
        (Bound("abs", 0.1), "abs:0.1", "0.1 K"),
        (Bound("abs", 0.25), "range:0.001", "0.25 K (range:0.001)"),
        (Bound("range", 0.001), "range:0.001", "0.1 % of the chunk's range"),
        (Bound("pointwise", 0.01), "pointwise:0.01", "1 % of |x|"),
        (Bound("pointwise", 0.01, 1e-6), "pointwise:0.01,floor=1e-06", "1 % of |x| or 1e-06 K"),
    ],
)
def test_a_bound_is_told_in_words_and_units(bound: Bound | None, error: str | None, text: str) -> None:
    variable = VariableReport("t", ("x",), (1,), (1,), "float32", "K", 4, 4, error=error, bound=bound)
    assert words.bound_text(variable) == text


@pytest.mark.parametrize(("bound", "text"), [(Target(ratio=300.0), "ratio 300"), (Target(rmse=0.25), "RMSE 0.25 K")])
def test_a_target_is_told_in_words_and_units(bound: Target, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    short = 2 if bound.ratio else None
    variable = VariableReport(
        "t", ("x",), (1,), (1,), "float32", "K", 400, 4, bound=bound, max_error=1.5, rmse=0.25, missed_chunks=short
    )
    assert words.bound_text(variable) == text
    store = StoreReport("out.zarr", 3, (variable,), 4)
    report.show(store, as_json=False)
    shown = capsys.readouterr().out
    assert "bound or target" in shown
    (line,) = [line for line in shown.splitlines() if line.split()[:1] == ["t"]]
    for figure in (text, "1.5", "0.25", "100.0x"):
        assert figure in line
    assert ("t: 2 chunks off ratio 300 by over 3 %" in shown) == bool(short)
    record = store.to_dict()["variables"][0]
    assert record["bound"] == {"mode": "latent", "ratio": bound.ratio, "rmse": bound.rmse, "exact": []}
    assert record["missed_chunks"] == short


def test_brackets_in_names_and_units_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    variable = VariableReport(
        "q[red]:wind:", ("x",), (1,), (1,), "float32", "mol [/m2/s]", 4, 4, error="abs:2.0", bound=Bound("abs", 2.0)
    )
    report.show(StoreReport("[b]out.zarr", 3, (variable,), 4), as_json=False)
    shown = capsys.readouterr().out
    assert "q[red]:wind:" in shown
    assert "2 mol [/m2/s]" in shown
    assert "[b]out.zarr: " in shown


@pytest.mark.parametrize(("nbytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB")])
def test_sizes_are_for_people(nbytes: float, text: str) -> None:
    assert words.size(nbytes) == text


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_speed_ratio_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress(quiet=False) as observer:
        observer(Progress("scan", "t2m", 10, 10))
        observer(Progress("compress", "t2m", 0, 10_000_000))
        observer(Progress("compress", "t2m", 5_000_000, 10_000_000, 500_000))
    drawn = terminal.getvalue()
    assert "compress t2m" in drawn
    assert "50%" in drawn
    assert "MB/s, 10.0x" in drawn


def test_quiet_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=True) as observer:
        observer(Progress("compress", "t2m", 5, 5, 1))
    assert capsys.readouterr() == ("", "")


def test_a_dry_run_says_what_would_become_of_each_variable_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    result = run("compress", source, tmp_path / "out.zarr", "--dry-run", "--error", "sst=0.5")
    assert result.exit_code == 0, result.stderr
    assert not list(tmp_path.iterdir())
    lines = result.stdout.splitlines()
    at = lines.index("  t2m (time, lat, lon) float32  2 metre temperature")
    assert lines[at + 1 : at + 3] == [
        "      0.1 K: preset science, temperature by its unit 'K'",
        "      3 x 10 x 12 in chunks 3 x 10 x 12; 1.4 kB",
    ]
    for line in (
        "0.5 K: asked for",
        "0.1 % of max - min: preset science knows no quantity with this name and unit 'furlong'",
        "1 % of |x| or 1e-05 m: preset science, precipitation, amount by its name and unit 'm'",
        "exact: others refer to it as a coordinate",
        "exact: its type is int16",
    ):
        assert f"      {line}" in lines
    record = json.loads(run("compress", source, tmp_path / "out.zarr", "--dry-run", "--json").stdout)
    assert {variable["name"]: variable["limit"] for variable in record["variables"]}["t2m"] == "abs:0.1"
