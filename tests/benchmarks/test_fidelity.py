"""Figures of merit at presets: what a run records, and how the table says what misses."""

import numpy as np

from benchmarks import fidelity
from benchmarks.datasets.public import Block
from benchmarks.peers.sized import SIZED_PEERS
from benchmarks.report.fidelity import fidelity as table
from benchmarks.report.fidelity import passes
from tests.fields import sphere_field


def test_a_run_has_figures_of_isopress_and_of_peers_at_its_size() -> None:
    block = Block("tiny", "t2m", (280 + 10 * sphere_field(48, 96)).astype(np.float32))
    installed = [peer for peer in SIZED_PEERS if peer.name == "SZ3" and peer.version()]
    ours, *peers = list(fidelity.runs_of(block, "science", installed))
    assert ours["kept"]
    assert 0 < ours["max_error"] <= 0.1
    assert all(run["ratio"] > 0.9 * ours["ratio"] for run in peers)
    text = table({"runs": [ours, *peers]})
    assert text.count("\n") == 2 + len(peers)
    assert "tiny/t2m | science | isopress" in text
    assert "of 1" in passes({"runs": [ours]})


def test_structure_in_errors_is_a_number() -> None:
    x = sphere_field(48, 96)
    noise = np.random.default_rng(0).uniform(-1, 1, x.shape)
    stripes = np.broadcast_to(np.sign(np.sin(np.arange(96) / 3)), x.shape)
    assert abs(fidelity.figures(x, x + 0.1 * noise, 100)["neighbours"]) < 0.1
    assert fidelity.figures(x, x + 0.1 * stripes, 100)["neighbours"] > 0.7
    assert "**" in table({"runs": [{"variable": "a", "preset": "b", "codec": "c"} | fidelity.figures(x, x + noise, 9)]})
