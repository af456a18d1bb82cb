"""A uniform quantiser with zlib, which stands for peers in tests of the benchmarks."""

import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cases import metrics
from benchmarks.cases.metrics import distortion
from benchmarks.datasets.public import Block
from benchmarks.environment import RESULTS
from benchmarks.equal_rmse import RATIOS, SECONDS, bars_of
from benchmarks.peers import bounded, om_files, recorded, rounding, sized
from benchmarks.peers.bounded import BOUNDED_PEERS, BoundedPeer, Codec, Outcome, best_outcome
from benchmarks.peers.cache import PeerCache
from benchmarks.peers.sized import SIZED_PEERS, Layout, Search, Setting, SizedPeer, SizeNotReachedError, split
from tests.fields import waves


def noise(*shape: int) -> np.ndarray:
    """A float32 block whose bytes fall steadily as the step grows."""
    return np.random.default_rng(7).normal(10, 2, shape).astype(np.float32)


def quantise(x: np.ndarray, step: float) -> bytes:
    """Whole steps, packed by zlib: a small codec with real bytes."""
    symbols = np.rint(x / step).astype(np.int32)
    return struct.pack("<d", step) + zlib.compress(symbols.tobytes(), 1)


def dequantise(encoded: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `quantise` up to half a step."""
    symbols = np.frombuffer(zlib.decompress(encoded[8:]), np.int32)
    return (symbols * struct.unpack_from("<d", encoded)[0]).astype(dtype).reshape(shape)


def setting(encode: Callable[[np.ndarray, float], bytes] = quantise, *layouts: Layout, name: str = "step") -> Setting:
    return Setting(name, encode, dequantise, layouts or ("block", "fields"))


def peer(*settings: Setting) -> SizedPeer:
    return SizedPeer("zlib", ("numpy",), "here", settings or (setting(),))


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


@pytest.mark.parametrize("fraction", [0.3, 0.15, 0.05])
def test_a_setting_is_driven_to_the_size_that_is_asked_for(fraction: float) -> None:
    x = noise(64, 64)
    point = Search(setting(), "fields", x, 60).point(fraction * x.nbytes)
    assert point.n_bytes == pytest.approx(fraction * x.nbytes, rel=0.005)
    encoded = quantise(x, point.coarseness)
    assert point.how == "measured"
    assert len(encoded) == point.n_bytes
    assert distortion(x, dequantise(encoded, x.dtype, x.shape)).rmse == point.rmse


def test_a_search_by_ratio_starts_at_the_ratio() -> None:
    asked = []

    def encode(x: np.ndarray, ratio: float) -> bytes:
        asked.append(ratio)
        return quantise(x, ratio / 10)

    x = noise(64, 64)
    Search(replace(setting(encode), by_ratio=True), "fields", x, 60).point(x.nbytes / 20)
    assert asked[0] == 20


def test_one_size_helps_to_find_the_next() -> None:
    steps = []

    def encode(x: np.ndarray, step: float) -> bytes:
        steps.append(step)
        return quantise(x, step)

    x = noise(64, 64)
    search = Search(setting(encode), "fields", x, 60)
    first = search.point(0.2 * x.nbytes)
    made = len(steps)
    assert search.point(0.2 * x.nbytes) == first
    assert len(steps) == made


def powers_of(base: float) -> Callable[[np.ndarray, float], bytes]:
    """`quantise` with steps that are whole powers of a base: most sizes are skipped."""
    return lambda x, step: quantise(x, base ** math.floor(math.log(step, base)))


def test_a_size_between_two_close_encodings_is_interpolated() -> None:
    x = noise(64, 64)
    sizes = [len(quantise(x, 1.04**k)) for k in (0, 1)]
    between = math.sqrt(sizes[0] * sizes[1])
    assert 1.005 < sizes[0] / between < 1.05  # neither counts as the size itself
    point = Search(setting(powers_of(1.04)), "fields", x, 60).point(between)
    assert (point.how, point.n_bytes) == ("interpolated", between)
    rmses = [distortion(x, dequantise(quantise(x, 1.04**k), x.dtype, x.shape)).rmse for k in (0, 1)]
    assert rmses[0] < point.rmse < rmses[1]


def test_the_next_smaller_encoding_counts_where_the_codec_skips_the_size() -> None:
    x = noise(64, 64)
    sizes = [len(quantise(x, 4.0**k)) for k in (-1, 0)]
    point = Search(setting(powers_of(4.0)), "fields", x, 60).point(math.sqrt(sizes[0] * sizes[1]))
    assert (point.how, point.n_bytes) == ("smaller", sizes[1])


def test_a_size_below_every_encoding_is_not_reached() -> None:
    with pytest.raises(SizeNotReachedError, match="bytes at least"):
        Search(setting(), "fields", noise(16, 16), 60).point(5)


def test_a_search_ends_when_its_time_is_over() -> None:
    with pytest.raises(SizeNotReachedError, match=r"more than -1 s for 0 encodings"):
        Search(setting(), "fields", noise(16, 16), -1).point(100)


@pytest.mark.parametrize(
    ("layout", "shapes"),
    [
        ("block", [(6, 8, 9)]),
        ("volumes", [(3, 8, 9)] * 2),
        ("fields", [(8, 9)] * 6),
        ("stacked", [(48, 9)]),
    ],
)
def test_a_block_is_split_and_put_together_again(layout: Layout, shapes: list[tuple[int, ...]]) -> None:
    x = noise(2, 3, 8, 9)
    assert [part.shape for part in split(x, layout)] == shapes
    n_bytes, x_hat = sized.code(setting(), layout, x, 0.01)
    assert x_hat.shape == x.shape
    assert np.abs(x - x_hat).max() < 0.006
    assert n_bytes == sum(len(quantise(part, 0.01)) for part in split(x, layout))


def test_a_single_field_has_one_layout_and_slow_settings_take_nothing_else() -> None:
    every: tuple[Layout, ...] = ("block", "volumes", "fields", "stacked")
    for shape, expected in (((8, 9), ("fields",)), ((2, 8, 9), ("block", "fields", "stacked")), ((2, 3, 8, 9), every)):
        assert sized.layouts_of(setting(quantise, *every), noise(*shape)) == expected
    slow = replace(setting(), single_fields_only=True)
    assert sized.layouts_of(slow, noise(1, 8, 9)) == ("fields",)
    assert sized.layouts_of(slow, noise(2, 8, 9)) == ()


def test_the_best_setting_counts_and_a_failing_one_is_reported(tmp_path: Path) -> None:
    def refuse(x: np.ndarray, coarseness: float) -> bytes:
        raise ValueError("only 32x32 and larger")

    wasteful = setting(lambda x, step: quantise(x, step), "fields", name="field by field")
    block, cache = Block("tiny", "noise", noise(3, 40, 40)), PeerCache(tmp_path / "p.json")
    tried = peer(setting(quantise, "block"), wasteful, setting(refuse, "block", name="picky"))
    ((best, failures),) = bars_of(block, [8.0], [tried], cache, 60)
    assert best["zlib"].layout == "block"  # one zlib stream is smaller than three
    assert failures == {"zlib, picky, block": "ValueError: only 32x32 and larger"}


def test_peers_run_once_and_again_for_other_sizes(tmp_path: Path) -> None:
    calls = []

    def encode(x: np.ndarray, step: float) -> bytes:
        calls.append(step)
        return quantise(x, step)

    block = Block("tiny", "noise", noise(40, 40))
    tried = peer(setting(encode))
    first = bars_of(block, [8.0], [tried], PeerCache(tmp_path / "p.json"), 60)
    made = len(calls)
    assert bars_of(block, [8.0], [tried], PeerCache(tmp_path / "p.json"), 60) == first
    assert len(calls) == made
    bars_of(block, [9.0], [tried], PeerCache(tmp_path / "p.json"), 60)
    assert len(calls) > made


def test_what_a_point_names_can_be_decoded_again() -> None:
    x = noise(2, 40, 40)
    ((points, _),) = sized.points_at(peer(), x, [x.nbytes / 8], 60)
    for point in points:
        n_bytes, x_hat = sized.decoded_at(peer(), x, point)
        assert (n_bytes, distortion(x, x_hat).rmse) == (point.n_bytes, point.rmse)


@pytest.mark.parametrize("setting", sized.SIZED_PEERS[0].settings[:3], ids=lambda setting: setting.name)
def test_jpeg2000_codes_floats_with_their_scaling(setting: Setting) -> None:
    pytest.importorskip("PIL.Image")
    waves = np.add.outer(np.sin(np.linspace(0, 3, 160)), np.cos(np.linspace(0, 5, 200))).astype(np.float32) * 1e4
    encoded = setting.encode(waves, 20.0)
    assert struct.unpack_from("<ff", encoded) == (waves.min(), waves.max())
    assert encoded[8:10] == b"\xff\x4f"  # start of a bare codestream: no container is counted
    assert encoded[encoded.index(b"\xff\x52") + 13] == 0  # the irreversible 9/7 transform
    x_hat = setting.decode(encoded, waves.dtype, waves.shape)
    assert 0 < distortion(waves, x_hat).rmse < 30.0
    with pytest.raises(ValueError, match="not finite"):
        setting.encode(np.full((64, 64), np.nan, np.float32), 20.0)


@pytest.mark.parametrize("tried", sized.SIZED_PEERS, ids=lambda tried: tried.name)
def test_every_setting_of_an_installed_peer_codes_a_field(tried: SizedPeer) -> None:
    if tried.version() is None:
        pytest.skip(f"{tried.name} is not installed")
    waves = np.add.outer(np.sin(np.linspace(0, 3, 160)), np.cos(np.linspace(0, 5, 200))).astype(np.float32)
    for each in tried.settings:
        coarseness = 20.0 if each.by_ratio else 0.01
        n_bytes, x_hat = sized.code(each, "fields", waves, coarseness)
        assert n_bytes < waves.nbytes / 15
        assert distortion(waves, x_hat).rmse < 0.02


# --- what results record ----------------------------------------------------------------------------------------------


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
