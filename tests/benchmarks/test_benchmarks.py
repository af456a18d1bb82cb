"""The benchmarks on tiny generated input: no network, no peer but pcodec, which isopress needs itself."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import isopress
from benchmarks import blocks, compare_versions, drift, fidelity, rate_distortion
from benchmarks.cases.bounded import BlockCase, Case, block_verdicts, verdicts
from benchmarks.cases.equal import EqualCase, Match
from benchmarks.datasets.public import Block, cache_folder
from benchmarks.hops import Counter, field
from benchmarks.peers.bounded import BOUNDED_PEERS, Outcome
from benchmarks.peers.cache import PeerCache
from benchmarks.peers.sized import SIZED_PEERS, Point
from benchmarks.report import bounded, tables
from benchmarks.report.__main__ import DOCUMENTS
from benchmarks.report.__main__ import main as report_main
from benchmarks.report.equal import vaeformer as vaeformer_table
from benchmarks.report.fidelity import dssim, passes
from benchmarks.report.fidelity import fidelity as fidelity_table
from benchmarks.report.tables import hops
from benchmarks.vaeformer import LATENTS, bytes_at, coded, order_of, rows_of
from isopress.codec.encoded import Method
from isopress.codec.vaeformer.weights import load_vaeformer
from isopress.format import api
from tests.fields import blocky, drifting_fields, sphere_field, waves
from tests.make_golden import ALONE, SMALL

PCODEC = next(peer for peer in BOUNDED_PEERS if peer.package == "pcodec")


def a_case(advantage: float = 1.5, error: float = 0.9, rmse: float = 0.3, dataset: str = "native") -> Case:
    """A case whose best peer needs `advantage` times the bytes of isopress."""
    peers = {
        "other": Outcome(9000, 1.0, 0.4, "x", 1.0),
        "best": Outcome(round(1000 * advantage), 1.0, 0.3, "y", 1.0),
    }
    ours = Outcome(1000, error, rmse, "default", 1.0)
    return Case(dataset, "u850", "00", (100, 100), "float32", 10000, 40000, 1e-3, 1.0, ours, peers, {})


def a_block_case(advantage: float = 2.0, gain: float = 1.2, bound: float = 1e-2, dataset: str = "arome") -> BlockCase:
    """A case of 1000 bytes with context and `gain` times that field by field."""
    case = replace(a_case(advantage, dataset=dataset), relative_bound=bound)
    return BlockCase(**vars(case), field_by_field=replace(case.isopress, n_bytes=round(1000 * gain)))


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
    monkeypatch.setattr(rate_distortion, "BOUNDED_PEERS", (PCODEC, absent))
    places = ["--data", str(folder), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    assert rate_distortion.main(["--sets", *places, "--bounds", "1e-3", "1e-2"]) == 0
    result = json.loads((tmp_path / "out" / "rate_distortion.json").read_text())
    assert [(case["variable"], case["relative_bound"]) for case in result["cases"]] == [
        ("tiny/wave", 1e-3),
        ("tiny/wave", 1e-2),
    ]
    assert all(case["derived"]["error_over_bound"] <= 1 for case in result["cases"])
    assert {"commit", "machine", "versions", "threads", "seed", "datasets"} <= set(result)
    assert result["missing_peers"] == {"absent": "no-such-distribution"}
    assert result["left_out"] == ["fields/tiny/calm: constant, no bound relative to its range"]
    printed = capsys.readouterr().out
    assert "**Missing: absent**" in printed
    assert "| fields/tiny/wave | 0.001 |" in printed
    assert (tmp_path / "out" / "rate_distortion.png").read_bytes().startswith(b"\x89PNG")


def test_the_blocks_command_writes_json_and_prints_tables(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_PEERS", (PCODEC,))
    dims = ("time", "level", "lat", "lon")
    data = {"deep": (dims, waves(2, 3, 16, 20)), "calm": (dims[1:], np.ones((3, 16, 20), np.float32))}
    xr.Dataset(data).to_netcdf(folder / "levels.nc", engine="netcdf4")
    places = ["--data", str(folder), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    code = blocks.main(["--sets", *places, "--bounds", "1e-2", "5e-2"])
    result = json.loads((tmp_path / "out" / "blocks.json").read_text())
    cases = [BlockCase.from_json(entry) for entry in result["cases"]]
    assert [(case.variable, case.shape, case.relative_bound) for case in cases] == [
        ("levels/deep", (2, 3, 16, 20), 1e-2),
        ("levels/deep", (2, 3, 16, 20), 5e-2),
        ("tiny/wave", (2, 20, 30), 1e-2),
        ("tiny/wave", (2, 20, 30), 5e-2),
    ]
    assert cases[0].bound == pytest.approx(1e-2 * waves(2, 3, 16, 20).std(dtype=float), rel=1e-5)
    assert all(case.error_over_bound <= 1 and case.gain >= 1 for case in cases)
    assert result["left_out"] == ["fields/levels/calm: constant, no bound relative to its deviation"]
    assert code == (0 if all(verdict.kept for verdict in block_verdicts(cases, ())) else 1)
    printed = capsys.readouterr().out
    assert "| fields | size advantage at 0.01, geometric mean |" in printed
    assert "| fields/levels/deep | 2 x 3 x 16 x 20 | 0.01 |" in printed


def test_a_folder_without_blocks_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xr.Dataset({"flat": (("lat", "lon"), waves(8, 8))}).to_netcdf(tmp_path / "flat.nc", engine="netcdf4")
    assert blocks.main(["--sets", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "several (lat, lon) fields" in capsys.readouterr().err


def test_a_bound_does_not_depend_on_the_last_bits_of_a_deviation() -> None:
    assert blocks.six_digits(0.0123456789) == blocks.six_digits(0.0123456789 * (1 + 1e-12)) == 0.0123457


def test_a_folder_without_fields_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rate_distortion.main(["--sets", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no NetCDF file" in capsys.readouterr().err


def test_the_checksum_of_a_block_ignores_memory_order_and_byte_order() -> None:
    x = waves(8, 12)
    same = [x, np.asfortranarray(x), x.astype(">f4")]
    assert len({Block("tiny", "wave", values).sha256 for values in same}) == 1
    assert Block("tiny", "wave", x.T).sha256 != Block("tiny", "wave", x).sha256


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ISOPRESS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_the_best_peer_is_the_one_with_the_fewest_bytes() -> None:
    case = a_case(advantage=1.5, rmse=0.33)
    assert (case.best_peer, case.advantage) == ("best", 1.5)
    assert case.rmse_ratio == pytest.approx(1.1)
    assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


def test_a_loss_is_printed_as_plainly_as_a_win() -> None:
    assert "1.500x" in bounded.progress(a_case(advantage=1.5))
    assert "**0.900x (larger)**" in bounded.progress(a_case(advantage=0.9))


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


@pytest.mark.parametrize(
    ("cases", "missed"),
    [
        ([a_block_case(1.4, bound=1e-3), a_block_case(1.7), a_block_case(1.9, bound=5e-2)], []),
        ([a_block_case(1.3, bound=1e-3), a_block_case(1.7)], 2 * ["size advantage at 0.001, geometric mean"]),
        ([a_block_case(1.5), a_block_case(1.8, dataset="sample")], ["size advantage at 0.01, geometric mean"]),
        ([a_block_case(1.7), a_block_case(1.2, dataset="sample")], ["size advantage at 0.01, geometric mean"]),
        ([a_block_case(1.5), a_block_case(1.8, dataset="mine")], 2 * ["size advantage at 0.01, geometric mean"]),
        ([a_block_case(gain=0.99), a_block_case(gain=3)], 2 * ["bytes field by field over bytes, worst case"]),
        ([a_block_case(0.5, bound=0.2)], []),
    ],
)
def test_every_target_of_blocks_has_a_verdict(cases: list[BlockCase], missed: list[str]) -> None:
    found = block_verdicts(cases, {"arome", "sample"})
    assert [verdict.target for verdict in found if not verdict.kept] == missed


def test_a_block_case_survives_json() -> None:
    case = a_block_case(gain=1.25)
    entry = json.loads(json.dumps(case.to_json()))
    assert entry["derived"]["gain"] == case.gain == 1.25
    assert BlockCase.from_json(entry) == case


def test_the_table_of_blocks_has_every_set_and_public_ones_together() -> None:
    cases = [a_block_case(2.0), a_block_case(4.5, gain=0.9, dataset="sample"), a_block_case(3.0, dataset="mine")]
    table = bounded.block_advantage(
        {"cases": [case.to_json() for case in cases], "datasets": {"arome": {}, "sample": {}}}
    )
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert [(row[0], row[3]) for row in rows] == [
        ("| arome", "2.000x"),
        ("| sample", "4.500x"),
        ("| mine", "3.000x"),
        ("| public sequences and levels", "2.000x"),
        ("| all public", "3.000x"),
    ]
    assert rows[-1][-1] == "**0.900x (larger)** |"


def test_tables_are_put_between_their_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"cases": [a_case().to_json()], "peers": {"best": {}, "other": {}, "third": {}}}
    (tmp_path / "rate_distortion.json").write_text(json.dumps(result))
    document = tmp_path / "a.md"
    document.write_text("before\n<!-- table peers -->\nold\n<!-- end of table -->\nafter\n")
    arguments = [str(document), "--results", str(tmp_path)]
    assert report_main([*arguments, "--check"]) == 1
    assert report_main(arguments) == 0
    assert report_main([*arguments, "--check"]) == 0
    assert "| native/u850 | 0.001 | **1000** | 1500 | 9000 | not installed |" in document.read_text()
    assert "old" not in document.read_text()


def test_an_unknown_table_and_a_missing_result_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "a.md"
    for name, message in (("nothing", "no table 'nothing'"), ("speed", "run python -m benchmarks.speed")):
        document.write_text(f"<!-- table {name} -->\n<!-- end of table -->\n")
        assert report_main([str(document), "--results", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def test_every_table_stands_in_one_document_and_the_overview_in_the_readme() -> None:
    names = [[match[2] for match in tables.TABLE.finditer(document.read_text())] for document in DOCUMENTS]
    assert names[-1] == ["overview"]
    assert sorted(name for document in names for name in document) == sorted(tables.TABLES)


# --- hops -------------------------------------------------------------------------------------------------------------


def test_functions_are_counted_once_and_by_file() -> None:
    counter = Counter()
    sys.setprofile(counter)
    try:
        found = counter.count(lambda: [api.compress(field(12, 16), bound=0.05) for _ in range(2)])
        none = counter.count(lambda: sorted([2, 1]))
    finally:
        sys.setprofile(None)
    assert found["functions"] >= found["files"] > 1
    assert found["depth"] > 1
    assert none == {"functions": 0, "files": 0, "depth": 0}


def test_the_table_has_a_column_per_version() -> None:
    figures = {"functions": 9, "files": 3, "depth": 2}
    table = hops({"0.7.0": {"compress a field": figures}, "0.8.0": {"compress a field": figures | {"functions": 4}}})
    assert table.splitlines()[0] == "| functions / files / depth | 0.7.0 | 0.8.0 |"
    assert table.splitlines()[-1] == "| compress a field | 9 / 3 / 2 | 4 / 3 / 2 |"


# --- drift ------------------------------------------------------------------------------------------------------------


def test_every_payload_is_decoded_elsewhere_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = (280 + 10 * drifting_fields(2, 24, 30)).astype("f4")

    def decoded_here(folder: Path, settings: dict[str, str]) -> dict[str, np.ndarray]:
        drift.decode(folder)
        with np.load(folder / "decoded.npz") as found:
            return {name: y + np.float32(bool(settings) and "ratio" in name) for name, y in found.items()}

    monkeypatch.setattr(drift, "decoded_elsewhere", decoded_here)
    monkeypatch.setattr(drift, "VARIANTS", {"other": {"A": "1"}})
    found = drift.measure(x)
    assert {row["method"] for row in found} >= {"pyramid", Method.BLOCK.name.lower()}
    assert all(row["kept"] for row in found)
    lines = drift.table(found).splitlines()
    assert lines[2].split("|")[3].strip() == "same"
    assert "e-0" in lines[-1].split("|")[3]


def test_a_run_has_figures_of_isopress_and_of_peers_at_its_size(tmp_path: Path) -> None:
    block = Block("tiny", "t2m", (280 + 10 * sphere_field(48, 96)).astype(np.float32))
    installed = [peer for peer in SIZED_PEERS if peer.name == "SZ3" and peer.version()]
    cache = PeerCache(tmp_path / "peers.json")
    ours, *peers = list(fidelity.runs_of(block, "science", installed, cache))
    assert list(fidelity.runs_of(block, "science", installed, PeerCache(tmp_path / "peers.json"))) == [ours, *peers]
    assert ours["kept"]
    assert 0 < ours["max_error"] <= 0.1
    assert all(run["ratio"] > 0.9 * ours["ratio"] for run in peers)
    text = fidelity_table({"runs": [ours, *peers]})
    assert text.count("\n") == 2 + len(peers)
    assert "tiny/t2m | science | isopress" in text
    assert "of 1" in passes({"runs": [ours]})


def test_the_bound_at_which_dssim_passes_is_searched_by_halving() -> None:
    found = fidelity.halved(Block("tiny", "t2m", (280 + 10 * sphere_field(48, 96)).astype(np.float32)))
    assert found["bound"] == 0.01
    assert found["ldcpy"]["halvings"] <= found["strict"]["halvings"]
    assert found["ldcpy"]["ratio"] >= found["strict"]["ratio"]
    assert "tiny/t2m | 0.01 | " in dssim({"dssim": [found]})
    assert "none tried" in dssim({"dssim": [{"variable": "v", "bound": 1.0}]})


def test_structure_in_errors_is_a_number() -> None:
    x = sphere_field(48, 96)
    noise = np.random.default_rng(0).uniform(-1, 1, x.shape)
    stripes = np.broadcast_to(np.sign(np.sin(np.arange(96) / 3)), x.shape)
    assert abs(fidelity.figures(x, x + 0.1 * noise, 100)["neighbours"]) < 0.1
    assert fidelity.figures(x, x + 0.1 * stripes, 100)["neighbours"] > 0.7
    assert "**" in fidelity_table(
        {"runs": [{"variable": "a", "preset": "b", "codec": "c"} | fidelity.figures(x, x + noise, 9)]}
    )


def case_of(block: Block, rmse: float, n_bytes: int) -> EqualCase:
    """Return a case in which JPEG2000 and the latents have these figures, SPERR twice the error."""
    errors = {"JPEG2000": rmse, "SPERR": 2 * rmse}
    peers = {name: Point(n_bytes, error, "rate", "fields", 1.0, "measured") for name, error in errors.items()}
    deviation = float(block.values.std(dtype=np.float64))
    return EqualCase(
        "single fields", block.dataset, block.name, block.sha256, block.values.shape, "float32", block.values.nbytes,
        deviation, 100.0, peers, {}, Match(n_bytes / 2, "measured", ()),
    )  # fmt: skip


def test_bytes_lie_between_real_payloads_and_are_compared_at_the_error_of_each() -> None:
    model, block = load_vaeformer(ALONE), Block("mine", "t850", blocky()[0])
    (row,) = rows_of(model, block, [case_of(block, 1.0, 500)])
    sizes = [size for size, _ in row["payloads"]]
    errors = [error for _, error in row["payloads"]]
    assert sizes == sorted(sizes, reverse=True)
    assert errors[0] <= 1 < 2 <= errors[-1]
    assert row["others"]["SPERR"]["model_bytes"] < row["others"]["JPEG2000"]["model_bytes"]
    assert row["others"][LATENTS]["model_bytes"] == row["others"]["JPEG2000"]["model_bytes"]
    text = vaeformer_table({"rows": [row]})
    assert "geometric mean, fields" in text
    assert "(larger)" in text


def test_channels_are_put_into_the_order_of_the_weights() -> None:
    x = blocky()
    block = Block("mine", "u10, t850, t500", x[[2, 0, 1]])
    model = load_vaeformer(SMALL)
    assert order_of(model, block) == [1, 2, 0]
    assert order_of(model, Block("mine", "u10, t850", x[:2])) == []
    size, rmse = coded(model, x, -40)
    assert size < x.nbytes / 2
    assert rmse < 1


def test_interpolation_is_exact_on_a_power_law() -> None:
    points = [(1000, 1.0), (250, 4.0)]
    assert bytes_at(points, 2.0) == pytest.approx(500)
    assert np.isclose(bytes_at(points, 1.0), 1000)


def write_sizes(folder: Path, n_bytes: float, version: str = isopress.__version__) -> None:
    """Results of one case of each kind; that of blocks has `n_bytes`."""
    outcome = {"n_bytes": 1000, "rmse": 0.5, "max_error": 1.0}
    case = {"dataset": "tiny", "variable": "wave", "relative_bound": 0.01, "isopress": outcome}
    block = case | {"isopress": outcome | {"n_bytes": n_bytes}, "field_by_field": outcome}
    equal = {"dataset": "tiny", "variable": "wave", "ratio": 100.0, "isopress": {"n_bytes": 17.5}}
    for name, entry in (("rate_distortion", case), ("blocks", block), ("equal_rmse", equal)):
        (folder / f"{name}.json").write_text(json.dumps({"cases": [entry], "versions": {"isopress": version}}))


def compare_sizes(folder: Path, *arguments: str) -> int:
    return compare_versions.main([*arguments, "--results", str(folder), "--out", str(folder)])


def test_sizes_that_stay_pass_and_growth_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sizes(tmp_path, 800, version="0.1.2")
    assert compare_sizes(tmp_path, "--record", "0.1") == 0
    write_sizes(tmp_path, 800)
    assert compare_sizes(tmp_path, "--against", "0.1") == 0
    write_sizes(tmp_path, 808)
    assert compare_sizes(tmp_path, "--against", "0.1") == 1
    assert "| blocks at a bound | tiny | 2 | 1.00499 | 1.01000 (tiny/wave at 0.01) |" in capsys.readouterr().out
    assert compare_sizes(tmp_path, "--against", "0.1", "--mean", "1.01", "--worst", "1.02") == 0


def test_results_of_another_version_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sizes(tmp_path, 800, version="0.1.2")
    assert compare_sizes(tmp_path, "--record", "0.1") == 0
    assert compare_sizes(tmp_path, "--against", "0.1") == 0
    assert "blocks.json was not measured with" in capsys.readouterr().err
    assert json.loads((tmp_path / "compare_versions.json").read_text())["rows"] == []


def test_a_version_that_was_not_kept_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sizes(tmp_path, 800)
    assert compare_sizes(tmp_path, "--against", "0.1") == 2
    assert "sizes-0.1.json was never recorded" in capsys.readouterr().err
