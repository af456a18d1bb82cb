"""Contexts and coding of latents: every coefficient once, both sides alike, only errors from damaged bytes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import FEATURE_MAX, FEATURE_ONE
from isopress.codec.bounded.predictor import SCALE_REACH
from isopress.codec.entropy.coder import SymbolReader, SymbolWriter, offset_bits
from isopress.codec.entropy.distributions import OFFSET_MAX, offset_model
from isopress.codec.errors import CorruptPayloadError, PayloadError
from isopress.codec.latent import coefficients as latents
from isopress.codec.latent import context_maps as maps
from isopress.codec.latent import context_model
from isopress.codec.latent.coefficients import Latents, decode, encode
from isopress.codec.latent.context_features import ALONE, FLAGS, INDEXES, RELATED, UNITS, plan, tables
from isopress.codec.latent.context_model import ContextModel, Prediction, evaluate
from isopress.codec.latent.reduced_grid import levels
from isopress.codec.native import contexts, dispatch
from tests.fields import drifting_fields
from tests.latent_models import Visit, small_model, visits
from tests.strategies import Array, examples

QUICK = examples(15)
CONTEXTS = small_model().contexts
QUIET = CONTEXTS.quiet.shape[-1]
EVERY = np.arange(-8, 60, dtype=np.int16)  # scale offsets
LARGEST = 2.0**24  # steps: what the coding is made for


def waves(*shape: int, seed: int = 0) -> Array:
    """Return channels (n, h, w) of deviation one, alike but not equal, with a little noise."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return noise if max(shape[-2:]) == 1 else 0.1 * noise + drifting_fields(*shape, seed=seed)


def encoded(
    channels: Array, periodic: bool = False, *, model: ContextModel = CONTEXTS, trade: float = 0.15
) -> tuple[bytes, Array]:
    """Code channels (n, h, w) in steps; return the bytes and the decoded channels in units."""
    split = levels(channels.shape[1], channels.shape[2], periodic)
    writer = SymbolWriter(peaked=True)
    decoded = encode(writer, [Latents.of(y, split) for y in channels], split, model, trade)
    return writer.finish(), np.array(decoded)


def visited(channels: Array, periodic: bool = False) -> Iterator[Visit]:
    """Yield what the encoder comes to when it codes channels (n, h, w) in steps."""
    split = levels(channels.shape[1], channels.shape[2], periodic)
    return visits([Latents.of(y, split) for y in channels], split, CONTEXTS)


def decoded(data: bytes, shape: tuple[int, ...], periodic: bool = False, *, model: ContextModel = CONTEXTS) -> Array:
    split = levels(shape[1], shape[2], periodic)
    reader = SymbolReader(memoryview(data), peaked=True)
    top = split[-1].low.shape if split else (shape[1], shape[2])
    fields = decode(reader, shape[0], split, top, model)
    reader.finish()
    return np.array(fields)


# --- both sides alike -------------------------------------------------------------------------------------------------


@st.composite
def channels(draw: st.DrawFn) -> tuple[Array, bool]:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 26), st.integers(1, 26)))
    y = waves(*shape, seed=draw(st.integers(0, 99)))
    y[draw(st.integers(0, 3)) :] *= draw(st.sampled_from([0.0, 0.01, 1.0]))  # some channels hold less, or nothing
    return y * 10.0 ** draw(st.floats(-3, 6)), draw(st.booleans())


@QUICK
@given(channels())
def test_a_reader_gets_exactly_the_latents_the_writer_had(case: tuple[Array, bool]) -> None:
    y, periodic = case
    data, values = encoded(y, periodic)
    np.testing.assert_array_equal(decoded(data, y.shape, periodic), values)
    assert np.abs(values / UNITS - y).max() < 5


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 1, 2), (1, 2, 1), (1, 3, 3), (2, 1, 40), (2, 40, 1), (1, 4, 3), (1, 5, 4)]
)
@pytest.mark.parametrize("size", [0.0, 3.0, 1e4])
def test_fields_of_few_points_are_read_alike(shape: tuple[int, ...], size: float) -> None:
    y = waves(*shape) * size
    for periodic in (False, True):
        data, values = encoded(y, periodic)
        np.testing.assert_array_equal(decoded(data, shape, periodic), values)


@pytest.mark.parametrize("trade", [0.0, 0.15])
def test_the_error_is_that_of_rounding(trade: float) -> None:
    y = waves(2, 30, 40) * 50
    data, values = encoded(y, trade=trade)
    rms = np.sqrt(np.square(values / UNITS - y).mean())
    assert (0.27 < rms < 0.31) if trade == 0 else (0.28 < rms < 0.45)
    assert len(encoded(y, trade=0.0)[0]) >= len(data)


@pytest.mark.parametrize("offset", [0.0, LARGEST, -LARGEST])
@pytest.mark.parametrize("size", [1.0, 3e5])
def test_huge_values_are_read_alike_and_stay_near(offset: float, size: float) -> None:
    y = waves(2, 12, 17) * size + offset / 8
    data, values = encoded(y)
    np.testing.assert_array_equal(decoded(data, y.shape), values)
    assert np.abs(values / UNITS - y).max() < 4 + 1e-6 * np.abs(y).max()


def test_channels_after_one_like_them_are_smaller() -> None:
    y = waves(1, 40, 48) * 20
    twice = np.concatenate([y, y + 0.1 * waves(1, 40, 48, seed=9)])
    seen = Counter(visit.phase.band.related is not None for visit in visited(twice))
    assert seen[False] == seen[True] > 0
    assert {visit.phase.band.related is not None for visit in visited(y)} == {False}


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 19, 26), (1, 1, 21), (1, 8, 2)])
def test_every_coefficient_is_coded_once_and_no_phase_is_empty(shape: tuple[int, ...]) -> None:
    counts, places = Counter[tuple[int, int, int]](), []
    y = waves(*shape) * 100
    for visit in visited(y):
        assert 0 < visit.symbols.size == visit.target.size == visit.predicted.mean.size
        counts[visit.place] += visit.symbols.size
        places.append(visit.place)
    for number, level in enumerate(levels(shape[1], shape[2], False)):
        for index, band in enumerate(level.bands):
            total = sum(n for place, n in counts.items() if place[:2] == (number, index))
            assert total == shape[0] * band.shape[0] * band.shape[1]
    one = places[: len(places) // shape[0]]
    assert places == one * shape[0]
    assert one == sorted(one, key=lambda place: (-place[0], *place[1:]))


def test_levels_that_hold_nothing_cost_nothing() -> None:
    split = levels(64, 64, False)
    fine = waves(1, 64, 64)[0] * 40
    bands = list(Latents.of(fine, split).bands)
    bands[:3] = [(0 * a, 0 * b, 0 * c) for a, b, c in bands[:3]]
    latents = replace(Latents.of(fine, split), bands=tuple(bands), finest=3)
    writer = SymbolWriter(peaked=True)
    (values,) = encode(writer, [latents], split, CONTEXTS, 0.15)
    assert {visit.place[0] for visit in visits([latents], split, CONTEXTS)} == set(range(3, len(split)))
    np.testing.assert_array_equal(decoded(writer.finish(), (1, 64, 64))[0], values)
    nothing = Latents.of(np.zeros((64, 64)), split)
    assert nothing.is_empty
    assert nothing.finest == len(split)
    assert not Latents.of(np.full((64, 64), 3.0), split).is_empty


# --- what contexts say ------------------------------------------------------------------------------------------------


@QUICK
@given(st.integers(1, 20), st.integers(1, 20), st.floats(-2, 7), st.booleans())
def test_features_are_small_integers_whatever_the_values(h: int, w: int, size: float, periodic: bool) -> None:
    for visit in visited(waves(2, h, w) * 10**size, periodic):
        phase = visit.phase
        features = phase.all_features(np.arange(phase.rough.size))
        related = RELATED if phase.band.related else 0
        assert features.shape == (ALONE + related + 1, phase.rough.size)
        assert np.array_equal(features, np.rint(features))
        assert np.abs(features).max(initial=0) <= FEATURE_MAX
        assert (features[-1] == 1).all()
        flags = features[ALONE - FLAGS : ALONE]
        assert (flags == np.where(np.arange(FLAGS) == phase.index, FEATURE_ONE, 0)[:, None]).all()
        assert (phase.rough >= 0).all()
        assert (phase.rough < INDEXES).all()


def test_features_that_are_not_planned_are_known_beforehand() -> None:
    """Counted by hand for phases alone: own neighbours 8 and their means 3, 14 for each earlier band, 34 others."""
    counts = {0: 0, 1: 4 + 1, 2: 4 + 2, 3: 8 + 3}
    seen = Counter[tuple[int, int]]()
    for visit in visited(waves(1, 40, 48) * 30):
        phase, band = visit.phase, visit.phase.band.number
        assert len(phase.plan.rows) == 34 + counts[phase.index] + 14 * band
        points = np.arange(phase.rough.size)
        features = phase.all_features(points)
        varying = np.flatnonzero((features[:-1] != features[:-1, :1]).any(1))
        assert set(varying) <= set(phase.plan.rows)
        seen.update((band, phase.index) for _ in varying)
        network = CONTEXTS.networks[band][0]
        folded = network.folded(phase.plan.rows, phase.plan.known)
        some = evaluate(folded, phase.features(points, Scratch()), visit.depth, Scratch())
        np.testing.assert_array_equal(some, network(features, visit.depth, Scratch()))
    assert len(seen) == 3 * 4
    assert len(plan(2, 3, True).rows) == 34 + 11 + 28 + RELATED - 1


@pytest.mark.parametrize("q", [1, QUIET, 60])
def test_quiet_points_are_answered_by_the_table_and_others_by_the_network(q: int) -> None:
    model = small_model(quiet=q).contexts
    y = np.zeros((64, 64))
    y[:16, :16] = 4 * waves(1, 16, 16)[0]
    split, calls = levels(64, 64, False), []
    for visit in visits([Latents.of(y, split)], split, model):
        phase = visit.phase
        found = model.predict(phase, visit.depth)
        quiet = phase.rough < q
        scale, tail = model.quiet[phase.band.number, visit.depth]
        assert not found.mean[quiet].any()
        np.testing.assert_array_equal(found.scale[quiet], scale[phase.rough[quiet]])
        np.testing.assert_array_equal(found.tail[quiet], tail[phase.rough[quiet]])
        np.testing.assert_array_equal(found.active, np.flatnonzero(~quiet))
        np.testing.assert_array_equal(found.mean, visit.predicted.mean)
        assert np.array_equal(found.mean, np.rint(found.mean))
        network = model.networks[phase.band.number][0]
        out = network(phase.all_features(found.active), visit.depth, Scratch())
        expected = phase.rough[found.active] + np.clip(out[1], -SCALE_REACH, SCALE_REACH)
        np.testing.assert_array_equal(found.scale[found.active], expected)
        calls.append((np.count_nonzero(quiet), found.active.size))
    assert all(map(any, zip(*calls, strict=True)))


def test_the_first_feature_is_the_neighbour_to_the_left_in_units_of_the_activity() -> None:
    feature_of, mean_of = tables()
    assert feature_of[0] == pytest.approx(FEATURE_ONE / 8.5)
    assert mean_of[8] / mean_of[0] == 2
    compared = 0
    for visit in visited(waves(1, 24, 32) * 30):
        if visit.place == (0, 0, 2):  # both neighbours beside are known: phases 0 and 1
            phase, own = visit.phase, visit.phase.band.finish()[0]
            features = phase.all_features(np.arange(phase.rough.size))
            left = own[::2, 0 : own.shape[1] - 1 : 2].ravel()
            scaled = np.clip(np.rint(left.astype("f4") * feature_of[phase.rough]), -FEATURE_MAX, FEATURE_MAX)
            np.testing.assert_array_equal(features[0], scaled)
            compared += np.unique(features[0]).size
    assert compared > 10


def test_maps_are_padded_with_zeros_or_wrapped_in_longitude() -> None:
    values = np.arange(12.0).reshape(3, 4) + 1
    for periodic in (False, True):
        padded = maps.padded(values, (3, 4), periodic)
        assert padded.shape == (3 + 2 * maps.PAD, 4 + 2 * maps.PAD)
        row = padded[maps.PAD]
        expected = np.tile(values[0], 3) if periodic else np.pad(values[0], 4)
        np.testing.assert_array_equal(row, expected)
        assert not padded[: maps.PAD].any()
    delta = np.zeros((16, 16), "f4")
    delta[8, 8] = 16
    smooth = maps.box(delta, levels(16, 16, False)[0])
    np.testing.assert_array_equal(smooth[7:10, 7:10], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert smooth.sum() == 16
    assert np.flatnonzero(maps.wide(delta).any(0)).tolist() == [5, 8, 11]
    up = maps.upsampled(maps.padded(values, (3, 4), False), (5, 7), False)
    inner = up[maps.PAD : maps.PAD + 5, maps.PAD : maps.PAD + 7]
    np.testing.assert_array_equal(inner, values.repeat(2, 0).repeat(2, 1)[:5, :7])


# --- scale offsets ----------------------------------------------------------------------------------------------------


def test_offsets_come_to_where_networks_are_off_and_stay() -> None:
    n = 4 * latents.OFFSET_FROM
    last, found = 0, []
    writer = SymbolWriter(peaked=True)
    phases = np.random.default_rng(0).laplace(scale=0.7, size=(6, n)).astype("f4")
    best = offset_bits(np.rint(phases[0]).astype("i4"), np.zeros(n, "i2"), np.ones(n, "i1"), EVERY)
    wanted = int(EVERY[best.argmin()])
    for y in phases:
        # The networks would have the scale 13 eighths of an octave larger than it is.
        predicted = Prediction(np.zeros(n, "f4"), np.full(n, wanted + 13, "i2"), np.ones(n, "i1"), np.arange(n))
        symbols, last = latents.write_phase(writer, y, predicted, last, 0.0)
        np.testing.assert_array_equal(symbols, np.rint(y))
        assert (predicted.scale == wanted + 13 + last).all()
        found.append(last)
    assert found[0] == -latents.REACH
    assert all(-16 <= last <= -10 for last in found[1:])


@pytest.mark.parametrize("last", [OFFSET_MAX, -OFFSET_MAX])
def test_an_offset_beyond_all_bounds_is_corrupt(last: int) -> None:
    writer = SymbolWriter(peaked=True)
    writer.symbol(OFFSET_MAX + (1 if last > 0 else -1), offset_model(True))
    reader = SymbolReader(memoryview(writer.finish()), peaked=True)
    n = latents.OFFSET_FROM
    predicted = Prediction(np.zeros(n, "f4"), np.zeros(n, "i2"), np.zeros(n, "i1"), np.arange(n))
    with pytest.raises(CorruptPayloadError, match="offset"):
        latents.read_phase(reader, predicted, last)


# --- damaged streams --------------------------------------------------------------------------------------------------


def tried(data: bytes, shape: tuple[int, ...]) -> bool:
    """Decode; return whether anything came out, of whatever values."""
    try:
        return decoded(data, shape).shape == shape
    except PayloadError:
        return False


def test_damaged_streams_are_an_error_or_wrong_latents() -> None:
    shape = (2, 9, 12)
    data, _ = encoded(waves(*shape) * 30)
    rng = np.random.default_rng(0)
    flipped = []
    for bit in rng.permutation(8 * len(data))[:60].tolist():
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        flipped.append(tried(bytes(damaged), shape))
    assert sum(flipped) < 20
    for length in range(0, len(data), 9):
        assert not tried(data[:length], shape)
    assert not any(tried(b"\0" + rng.bytes(4 * n), shape) for n in range(30, 60))
    assert not tried(data + bytes(4) * 3, shape)
    assert tried(data, shape)


@pytest.mark.parametrize("words", [b"", b"\xff" * 8, b"\xff" * 400, b"\x00" * 400])
def test_streams_of_ones_or_zeros_end(words: bytes) -> None:
    tried(b"\0" + words, (3, 40, 50))


def room(n: int) -> tuple[Array, Array, Array, Array]:
    """Return arrays for what kernels say of n points."""
    return np.empty(n, np.float32), np.empty(n, np.int16), np.empty(n, np.int8), np.empty(n, np.int32)


# --- compiled kernels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "ahead"), [((3, 21, 30), ()), ((2, 128, 384), (2, 1, *[0] * 28, 1, 3)), ((1, 4, 3), ())]
)
def test_every_instruction_set_predicts_as_numpy_does(shape: tuple[int, ...], ahead: tuple[int, ...]) -> None:
    for periodic, size in ((False, 1.0), (True, 30.0), (True, 1e6)):
        split = levels(shape[1], shape[2], periodic, ahead)
        y = waves(*shape) * size
        for visit in visits([Latents.of(channel, split) for channel in y], split, CONTEXTS):
            found = []
            for name in dispatch.levels():
                with dispatch.using(name):
                    found.append(CONTEXTS.predict(visit.phase, visit.depth))
            for other in found[:-1]:
                for part in fields(Prediction):
                    wanted = getattr(found[-1], part.name)
                    np.testing.assert_array_equal(getattr(other, part.name), wanted, part.name)


@pytest.mark.parametrize("piece", [1, 50])
def test_a_phase_cut_into_pieces_is_predicted_as_a_whole(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for visit in visited(waves(2, 41, 60)):
        whole = CONTEXTS.predict(visit.phase, visit.depth)
        with monkeypatch.context() as small:
            small.setattr(context_model, "PIECE", piece)
            cut = CONTEXTS.predict(visit.phase, visit.depth)
        assert sum(size for _, size in visit.phase.parts(piece)) == visit.phase.size
        for part in fields(Prediction):
            np.testing.assert_array_equal(getattr(cut, part.name), getattr(whole, part.name), part.name)


@pytest.mark.skipif(len(dispatch.levels()) == 1, reason="the kernels were not built")
def test_kernels_refuse_contexts_that_do_not_fit_together() -> None:
    phase = next(visit.phase for visit in visited(waves(2, 21, 30)) if visit.phase.index == 3 and visit.phase.size > 9)
    network = CONTEXTS.networks[phase.band.number][phase.band.related is not None]
    with dispatch.using(dispatch.levels()[0]):
        kept = network.folded(phase.plan.rows, phase.plan.known).kept(dispatch.level(), 0)
        good = phase.contexts(kept, CONTEXTS.quiet[0, 0], phase.parts(1 << 20)[0][0])
        out = room(phase.size)
        good.predict(out)
        for change, message in (
            ({"rest": good.rest[1:]}, "buffer"),
            ({"network": network.kept(dispatch.level(), 0)}, "inputs"),
            ({"maps": (None, *good.maps[1:])}, "missing"),
            ({"maps": good.maps[1:]}, "maps"),
            ({"strips": good.strips + np.int32(1)}, "strip"),
            ({"strips": np.array([[0, 5, 1, 3]], np.int32)}, "strip"),
            ({"parent_shape": (9, 9)}, "buffer"),
            ({"quiet": np.full((2, 3), 9, np.int16)}, "tail"),
            ({"parity": (2, 0)}, "phase"),
        ):
            with pytest.raises(ValueError, match=message):
                replace(good, **change).predict(out)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="points"):
            good.predict(room(phase.size + 1))
        none = np.zeros((0, 4), np.int32), np.zeros((0, 6), np.int32), np.zeros((0, 2), np.int32)
        with pytest.raises(ValueError, match="nothing makes"):
            contexts.context_plan(1, *none, np.zeros((2, 2), np.int32))
