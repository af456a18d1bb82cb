"""Figures of merit at presets: what a run records, and how the table says what misses."""

from pathlib import Path

import numpy as np

from benchmarks import fidelity
from benchmarks.datasets.public import Block
from benchmarks.peers.cache import PeerCache
from benchmarks.peers.sized import SIZED_PEERS
from benchmarks.report.fidelity import dssim, passes
from benchmarks.report.fidelity import fidelity as table
from tests.fields import sphere_field


def test_a_run_has_figures_of_isopress_and_of_peers_at_its_size(tmp_path: Path) -> None:
    block = Block("tiny", "t2m", (280 + 10 * sphere_field(48, 96)).astype(np.float32))
    installed = [peer for peer in SIZED_PEERS if peer.name == "SZ3" and peer.version()]
    cache = PeerCache(tmp_path / "peers.json")
    ours, *peers = list(fidelity.runs_of(block, "science", installed, cache))
    assert list(fidelity.runs_of(block, "science", installed, PeerCache(tmp_path / "peers.json"))) == [ours, *peers]
    assert ours["kept"]
    assert 0 < ours["max_error"] <= 0.1
    assert all(run["ratio"] > 0.9 * ours["ratio"] for run in peers)
    text = table({"runs": [ours, *peers]})
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
    assert "**" in table({"runs": [{"variable": "a", "preset": "b", "codec": "c"} | fidelity.figures(x, x + noise, 9)]})
