"""What counts as a peer's outcome: the best layout that keeps the bound, once computed kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cases import metrics
from benchmarks.datasets.public import Block
from benchmarks.peers import bounded, om_files, rounding
from benchmarks.peers.bounded import BoundedPeer, Codec, best_outcome
from benchmarks.peers.cache import PeerCache
from tests.fields import waves


def fake_peer(encode: Callable[[np.ndarray, float, str], bytes]) -> BoundedPeer:
    """A peer that writes what `encode` returns and decodes it as raw values."""

    def decode(encoded: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        return np.frombuffer(encoded, dtype, int(np.prod(shape))).reshape(shape)

    return BoundedPeer("fake", "numpy", "here", ("only",), bounded.TIGHTEN, Codec(encode, decode))


def test_a_peer_that_exceeds_the_bound_is_tightened_until_it_holds() -> None:
    x = waves(16, 16).astype(np.float64)
    outcome = best_outcome(fake_peer(lambda y, tolerance, _: (y + 1.001 * tolerance).tobytes()), x, 0.01)
    assert outcome is not None
    assert outcome.factor < 1
    assert 0.0099 < outcome.max_error <= 0.01


def test_a_peer_that_never_holds_the_bound_has_no_outcome(tmp_path: Path) -> None:
    liar = fake_peer(lambda y, tolerance, _: (y + 3 * tolerance).tobytes())
    assert best_outcome(liar, waves(16, 16), 0.01) is None
    reason = PeerCache(tmp_path / "c.json").outcome(liar, Block("tiny", "wave", waves(16, 16)), 0.01)
    assert reason == "no tolerance keeps the bound"


def test_the_smaller_of_one_block_and_field_by_field_counts() -> None:
    padded = fake_peer(lambda y, _, __: y.tobytes() + bytes(1000 if y.ndim == 3 else 1))
    outcome = best_outcome(padded, waves(3, 8, 8), 0.01)
    assert outcome is not None
    assert (outcome.layout, outcome.n_bytes) == ("fields", 3 * (8 * 8 * 4 + 1))


@pytest.mark.parametrize(("smallest", "layout"), [((6, 8, 8), "block"), ((3, 8, 8), "volumes"), ((8, 8), "fields")])
def test_times_and_levels_are_coded_together_per_time_or_field_by_field(smallest: tuple[int, ...], layout: str) -> None:
    picky = fake_peer(lambda y, _, __: y.tobytes() + bytes(1 if y.shape == smallest else 1000))
    outcome = best_outcome(picky, waves(2, 3, 8, 8), 0.01)
    assert outcome is not None
    assert outcome.layout == layout


def test_the_cache_runs_a_peer_once_and_again_for_another_bound(tmp_path: Path) -> None:
    calls = []

    def encode(y: np.ndarray, tolerance: float, _: str) -> bytes:
        calls.append(tolerance)
        return y.tobytes()

    block = Block("tiny", "wave", waves(8, 8))
    first = PeerCache(tmp_path / "c.json").outcome(fake_peer(encode), block, 0.01)
    assert PeerCache(tmp_path / "c.json").outcome(fake_peer(encode), block, 0.01) == first
    PeerCache(tmp_path / "c.json").outcome(fake_peer(encode), block, 0.02)
    assert calls == [0.01, 0.02]


def test_a_peer_that_raises_is_reported_with_its_message(tmp_path: Path) -> None:
    def refuse(y: np.ndarray, tolerance: float, _: str) -> bytes:
        raise ValueError("only 32x32 and larger")

    block = Block("tiny", "wave", waves(8, 8))
    reason = PeerCache(tmp_path / "c.json").outcome(fake_peer(refuse), block, 0.01)
    assert reason == "ValueError: only 32x32 and larger"


@pytest.mark.parametrize("setting", rounding.SETTINGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_holds_its_tolerance(setting: str, dtype: str) -> None:
    x = waves(2, 16, 24).astype(dtype)
    y = rounding.decode(rounding.encode(x, 0.01, setting), x.dtype, x.shape)
    assert metrics.distortion(x, y).max_error <= 0.01 * (1 + 1e-6)


@pytest.mark.parametrize("setting", om_files.SETTINGS)
@pytest.mark.parametrize("shape", [(40, 48), (3, 40, 48)])
def test_om_files_keep_their_bound_and_nan(setting: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip("omfiles")
    x = waves(*shape)
    x[..., 3, :5] = np.nan
    encoded = om_files.encode(x, 0.01, setting)
    y = om_files.decode(encoded, x.dtype, x.shape)
    assert metrics.distortion(x, y).max_error <= 0.01 * (1 + 1e-3)
    assert len(encoded) < x.nbytes / 2


def test_om_files_with_an_infinity_have_no_outcome() -> None:
    pytest.importorskip("omfiles")
    peer = next(peer for peer in bounded.BOUNDED_PEERS if peer.name == "om-files")
    x = waves(24, 32)
    assert best_outcome(peer, x, 0.01) is not None
    x[3, 4] = np.inf
    assert best_outcome(peer, x, 0.01) is None


def test_a_value_that_is_not_restored_counts_as_infinite_error() -> None:
    x = np.array([1.0, np.nan, np.inf])
    assert metrics.distortion(x, x.copy()) == metrics.Distortion(0.0, 0.0)
    assert metrics.distortion(x, np.array([1.0, 0.0, np.inf])).max_error == np.inf
    assert metrics.distortion(x, np.array([np.nan, np.nan, np.inf])).max_error == np.inf
