"""What the published results record of peers need not be measured again."""

import json
from pathlib import Path

import pytest

from benchmarks.datasets.public import Block
from benchmarks.environment import RESULTS
from benchmarks.equal_rmse import RATIOS, SECONDS, bars_of
from benchmarks.peers import recorded
from benchmarks.peers.bounded import BOUNDED_PEERS, Outcome
from benchmarks.peers.cache import PeerCache
from benchmarks.peers.sized import SIZED_PEERS
from tests.fields import waves


def test_recorded_outcomes_are_found_under_their_keys(tmp_path: Path) -> None:
    sperr = next(peer for peer in BOUNDED_PEERS if peer.name == "SPERR")
    if sperr.version() is None:
        pytest.skip("SPERR is not installed")
    x = Block("tiny", "wave", waves(8, 12))
    outcome = {"n_bytes": 77, "max_error": 0.01, "rmse": 0.004, "setting": "pwe", "factor": 1.0, "layout": "block"}
    case = {"data_sha256": x.sha256, "bound": 0.01, "peers": {"SPERR": outcome}, "failures": {}}
    versions = {sperr.package: sperr.version()}
    for name in ("rate_distortion.json", "blocks.json"):
        (tmp_path / name).write_text(json.dumps({"versions": versions, "cases": [case]}))
    cache = PeerCache(tmp_path / "cache.json")
    cache.add(dict(recorded.under_bounds(tmp_path)))
    assert cache.outcome(sperr, x, 0.01) == Outcome(**outcome)


def test_recorded_points_at_equal_rmse_are_found_under_their_keys(tmp_path: Path) -> None:
    result = json.loads((RESULTS / "equal_rmse.json").read_text())
    jpeg = next(peer for peer in SIZED_PEERS if peer.name == "JPEG2000")
    if jpeg.version() is None:
        pytest.skip("JPEG2000 is not installed")
    block = Block("tiny", "wave", waves(8, 12))
    cases = [case | {"data_sha256": block.sha256} for case in result["cases"][: len(RATIOS)]]
    versions = dict(zip(jpeg.packages, jpeg.version().split(), strict=True))
    (tmp_path / "equal_rmse.json").write_text(json.dumps({**result, "versions": versions, "cases": cases}))
    cache = PeerCache(tmp_path / "cache.json")
    cache.add(dict(recorded.at_sizes(tmp_path)))
    found = bars_of(block, RATIOS, [jpeg], cache, SECONDS)
    assert [best["JPEG2000"].n_bytes for best, _ in found] == [case["peers"]["JPEG2000"]["n_bytes"] for case in cases]


def test_records_of_another_version_are_not_used(tmp_path: Path) -> None:
    for name in ("rate_distortion.json", "blocks.json"):
        (tmp_path / name).write_text(json.dumps({"versions": {"pcodec": "0"}, "cases": [{}]}))
    assert dict(recorded.under_bounds(tmp_path)) == {}
