"""The benchmarks at equal RMSE on tiny input: a uniform quantiser with zlib stands for peers and for isopress."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from benchmarks import cra5, equal_rmse, spectra
from benchmarks.cases.equal import EqualCase, Match, grouped, verdicts
from benchmarks.datasets.public import Block, standardised
from benchmarks.equal_rmse import RmseMissedError, match
from benchmarks.peers.sized import Point, SizedPeer
from benchmarks.report import equal
from tests.benchmarks.test_peers import dequantise, noise, peer, quantise


def coder(bias: float = 1.0, waste: int = 0) -> equal_rmse.Coder:
    """A codec with an RMSE target, missed by a factor: uniform errors within a step have an RMSE of step / sqrt(12)."""

    def code(x: np.ndarray, rmse: float) -> tuple[int, np.ndarray]:
        encoded = quantise(x, math.sqrt(12) * rmse * bias)
        return len(encoded) + waste, dequantise(encoded, x.dtype, x.shape)

    return code


def a_case(advantage: float = 1.3, ratio: float = 200.0, group: str = "single fields", name: str = "u850") -> EqualCase:
    """A case whose best peer needs `advantage` times the bytes of isopress."""
    points = {
        "worse": Point(1001, 0.4, "a", "fields", 1.0, "measured"),
        "better": Point(1000, 0.3, "b", "block", 1.0, "interpolated"),
    }
    ours = Match(1000 / advantage, "measured", ((round(1000 / advantage), 0.3),))
    shape, size = (10, 100), 200_000
    return EqualCase(group, "native", name, "00", shape, "float32", size, 10.0, ratio, points, {}, ours)


def test_bytes_at_an_rmse_that_is_hit_are_measured() -> None:
    x = noise(64, 64)
    found = match(coder(), x, 0.05)
    assert found.how == "measured"
    assert found.payloads[-1][0] == found.n_bytes
    assert found.payloads[-1][1] == pytest.approx(0.05, rel=0.002)


@pytest.mark.parametrize("bias", [0.975, 1.025])
def test_a_miss_is_corrected_between_two_payloads(bias: float) -> None:
    def capped(x: np.ndarray, rmse: float) -> tuple[int, np.ndarray]:
        # Only steps of 5 %, so that the RMSE itself cannot be hit.
        return coder()(x, 0.05 * bias * 1.05 ** round(math.log(rmse / 0.05, 1.05) + (0.1 if bias < 1 else -0.1)))

    x = noise(64, 64)
    found = match(capped, x, 0.05)
    sizes, rmses = zip(*found.payloads, strict=True)
    assert found.how == "interpolated"
    assert min(rmses) < 0.05 < max(rmses)
    assert min(sizes) < found.n_bytes < max(sizes)
    assert found.n_bytes == pytest.approx(coder()(x, 0.05)[0], rel=0.01)


def test_a_payload_with_a_smaller_rmse_counts_with_all_its_bytes() -> None:
    x = noise(64, 64)

    def lossless(x: np.ndarray, rmse: float) -> tuple[int, np.ndarray]:
        return x.nbytes, x

    assert match(lossless, x, 0.05) == Match(x.nbytes, "finer", ((x.nbytes, 0.0),) * equal_rmse.REQUESTS)


def test_an_rmse_that_is_never_met_is_an_error() -> None:
    x = noise(64, 64)
    with pytest.raises(RmseMissedError, match=r"asked for an RMSE of 0\.05, the nearest is"):
        match(lambda x, rmse: coder()(x, 0.2), x, 0.05)


def test_the_command_compares_at_the_rmse_of_the_best_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fields").mkdir()
    data = {"deep": (("time", "lat", "lon"), noise(2, 40, 40)), "calm": (("lat", "lon"), np.ones((40, 40), np.float32))}
    xr.Dataset(data).to_netcdf(tmp_path / "fields" / "tiny.nc", engine="netcdf4")
    absent = SizedPeer("absent", ("no-such-distribution",), "nowhere", ())
    monkeypatch.setattr(equal_rmse, "SIZED_PEERS", (peer(), absent))
    monkeypatch.setattr(equal_rmse, "isopress_latent", coder(waste=100))
    places = ["--data", str(tmp_path / "fields"), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    arguments = ["--groups", *places, "--ratios", "5", "6"]
    assert equal_rmse.main([*arguments, "--peers-only"]) == 0
    assert not (tmp_path / "out").exists()
    assert equal_rmse.main(arguments) == 1  # the same codec with more bytes is no smaller
    result = json.loads((tmp_path / "out" / "equal_rmse.json").read_text())
    cases = [EqualCase.from_json(entry) for entry in result["cases"]]
    assert [(case.variable, case.shape, case.ratio) for case in cases] == [
        ("tiny/deep", (2, 40, 40), 5),
        ("tiny/deep", (2, 40, 40), 6),
    ]
    assert all(0.8 < case.advantage < 1 for case in cases)
    assert result["left_out"] == ["fields/tiny/calm: constant"]
    assert {"commit", "machine", "versions", "threads", "seconds"} <= set(result)
    printed = capsys.readouterr().out
    assert "| fields | size advantage at 5x, geometric mean |" in printed
    assert "(larger)** |" in printed
    assert (tmp_path / "out" / "equal_rmse.png").read_bytes().startswith(b"\x89PNG")


def test_a_case_at_equal_rmse_survives_json() -> None:
    case = a_case()
    assert (case.best_peer, case.rmse) == ("better", 0.3)
    assert case.advantage == pytest.approx(1.3)
    assert EqualCase.from_json(json.loads(json.dumps(case.to_json()))) == case


@pytest.mark.parametrize(
    ("cases", "missed"),
    [
        ([a_case(1.3), a_case(1.15)], []),
        ([a_case(1.3, 100), a_case(1.1, 800)], ["size advantage at 800x, geometric mean"]),
        ([a_case(1.6, group="sample"), a_case(1.6, group="levels")], []),
        ([a_case(2.0, group="sample"), a_case(1.3, group="levels")], ["size advantage at 200x, geometric mean"]),
        ([a_case(1.4, group="sample")], ["size advantage at 200x, geometric mean"] * 2),
    ],
)
def test_every_target_at_equal_rmse_has_a_verdict(cases: list[EqualCase], missed: list[str]) -> None:
    assert [verdict.target for verdict in verdicts(cases) if not verdict.kept] == missed


def test_all_blocks_are_averaged_without_single_fields() -> None:
    groups = grouped([a_case(), a_case(2, group="sample"), a_case(3, group="levels")])
    assert {name: len(members) for name, members in groups.items()} == {
        "single fields": 1,
        "sample": 1,
        "levels": 1,
        "all blocks": 2,
    }


def test_tables_at_equal_rmse_name_peer_and_worst_case() -> None:
    cases = [a_case(1.5), a_case(0.9, name="v850")]
    result = {"cases": [case.to_json() for case in cases], "peers": {"worse": {}, "better": {}, "absent": {}}}
    rows = equal.equal_advantage(result).splitlines()
    assert rows[2] == "| single fields | 200 | 232 | 1.162x | **0.900x (larger)** (v850) | better 2 |"
    assert "| native/v850 | 200 | 4.000 | **3.000** | not installed |" in equal.equal_peers(result)
    assert "better, b, block: 1000" in equal.equal_cases(result)
    assert "**missed**" in equal.equal_targets(result)


def test_several_variables_are_in_units_of_their_deviations() -> None:
    block = standardised("tiny", {"a": noise(20, 30), "b": 1e5 + 1e3 * noise(20, 30)})
    assert (block.name, block.values.shape, block.values.dtype) == ("a, b", (2, 20, 30), np.float32)
    np.testing.assert_allclose(block.values.mean((1, 2), dtype=float), 0, atol=1e-2)
    np.testing.assert_allclose(block.values.std((1, 2), dtype=float), 1, rtol=1e-5)


def test_the_power_of_every_wave_above_ten_cells_counts() -> None:
    longitudes = np.arange(240)
    waves = {length: np.sin(2 * np.pi * longitudes / length) for length in (60, 20, 8)}
    x = 5 + sum(waves.values()) + np.zeros((91, 1)) + 1e-3 * noise(91, 240)
    x_hat = x - 0.1 * waves[20] - 0.5 * waves[8]
    run = spectra.run_of("tiny/waves", "isopress", x, x.nbytes // 200, x_hat)
    assert run["worst_error"] == pytest.approx(1 - 0.9**2, abs=1e-3)
    assert (run["worst_wavelength"], run["kept"]) == (20, False)
    assert run["resolved_to"] == pytest.approx(240 / 11)  # the wave before the damped one
    assert spectra.run_of("tiny/waves", "isopress", x, 1, x - 0.5 * waves[8])["kept"]
    assert "**missed**" in equal.spectra({"runs": [run]})


def test_polar_rows_have_no_part_in_the_power() -> None:
    x = noise(91, 240)
    poles = x.copy()
    poles[np.abs(np.linspace(90, -90, 91)) > 60] = 0
    np.testing.assert_array_equal(spectra.zonal_power(x), spectra.zonal_power(poles))


def test_the_ratio_at_a_reported_rmse_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(64, 64)
    monkeypatch.setitem(cra5.RMSE, "noise", (0.05, "m"))
    reported = cra5.Reported("field", "noise", "one time", "never seen", ("native", "noise"))
    row = cra5.row_of(reported, Block("native", "noise", x), coder())
    assert row["ratio"] == pytest.approx(x.nbytes / coder()(x, 0.05)[0], rel=0.01)
    assert row["bits_per_value"] * row["ratio"] == pytest.approx(32)
    assert row["reported_ratio"] == pytest.approx(516, abs=0.5)
    table = equal.cra5({"rows": [row, {**row, "kind": "hours", "ratio": 4 * row["ratio"]}]})
    assert "| field | noise | one time | never seen | 0.05 m |" in table
    assert f"| **all** |  | geometric mean of 2 |  |  | **{2 * row['ratio']:.0f}** |" in table


def test_blocks_of_files_beside_the_public_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    x = np.stack([noise(12, 20)] * 5)
    xr.Dataset({"t": (("time", "lat", "lon"), x)}).to_netcdf(tmp_path / "val/some.nc")
    reported = cra5.Reported("hours", "t", "three times", "never seen", ("val/some", "t"), 3)
    np.testing.assert_array_equal(cra5.from_file(tmp_path, reported).values, x[:3])
