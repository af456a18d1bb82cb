"""Contexts and coding of latents: every coefficient once, both sides alike, only errors from damaged bytes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isopress.codec.arrays import Scratch
from isopress.codec.bounded.geometry import FEATURE_MAX, FEATURE_ONE
from isopress.codec.entropy.coder import OFFSET_MAX, SymbolReader, SymbolWriter, offset_bits, offset_model
from isopress.codec.errors import CorruptPayloadError, PayloadError
from isopress.codec.latent import coefficients as latents
from isopress.codec.latent import context_maps as maps
from isopress.codec.latent.band_walk import Place
from isopress.codec.latent.coefficients import ContextModel, Latents, decode, encode
from isopress.codec.latent.context_features import (
    ALONE,
    FLAGS,
    INDEXES,
    RELATED,
    UNITS,
    PhaseContext,
    Prediction,
    live,
    predict,
    tables,
)
from isopress.codec.latent.wavelet import Level, levels
from tests.fields import drifting_fields
from tests.latent_models import small_model
from tests.strategies import Array

QUICK = settings(derandomize=True, deadline=None, max_examples=30, database=None)
CONTEXTS = small_model().contexts
QUIET = CONTEXTS.quiet.shape[-1]
EVERY = np.arange(-8, 60, dtype=np.int16)  # scale offsets
LARGEST = 2.0**24  # steps: what the coding is made for


def waves(*shape: int, seed: int = 0) -> Array:
    """Return channels (n, h, w) of deviation one, alike but not equal, with a little noise."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return noise if max(shape[-2:]) == 1 else 0.1 * noise + drifting_fields(*shape, seed=seed)


def encoded(channels: Array, periodic: bool = False, *, model: ContextModel = CONTEXTS, trade: float = 0.15, **watch):  # type: ignore[no-untyped-def]
    """Code channels (n, h, w) in steps; return the bytes and the decoded channels in units."""
    split = levels(channels.shape[1], channels.shape[2], periodic)
    writer = SymbolWriter(model.tables, peaked=True)
    decoded = encode(writer, [Latents.of(y, split) for y in channels], split, model, trade, **watch)
    return writer.finish(), np.array(decoded)


def decoded(data: bytes, shape: tuple[int, ...], periodic: bool = False, *, model: ContextModel = CONTEXTS) -> Array:
    split = levels(shape[1], shape[2], periodic)
    reader = SymbolReader(model.tables, memoryview(data), peaked=True)
    top = split[-1].low if split else (shape[1], shape[2])
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
    seen = Counter[bool]()

    def watch(place: Place, phase: PhaseContext, predicted: Prediction, target: Array, k: Array) -> None:
        seen[phase.band.related is not None] += 1

    encoded(twice, watch=watch)
    assert seen[False] == seen[True] > 0
    seen.clear()
    encoded(y, watch=watch)
    assert set(seen) == {False}


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 19, 26), (1, 1, 21), (1, 8, 2)])
def test_every_coefficient_is_coded_once_and_no_phase_is_empty(shape: tuple[int, ...]) -> None:
    counts, places = Counter[Place](), []

    def watch(place: Place, phase: PhaseContext, predicted: Prediction, target: Array, k: Array) -> None:
        assert 0 < k.size == target.size == predicted.mean.size
        counts[place] += k.size
        places.append(place)

    y = waves(*shape) * 100
    encoded(y, watch=watch)
    split = levels(shape[1], shape[2], False)
    for number, level in enumerate(split):
        for band in range(3):
            h, w = level.band(band)
            total = sum(n for place, n in counts.items() if (place.level, place.band) == (number, band))
            assert total == shape[0] * h * w
    one = places[: len(places) // shape[0]]
    assert places == one * shape[0]
    assert one == sorted(one, key=lambda p: (-p.level, p.band, p.phase))


def test_levels_that_hold_nothing_cost_nothing() -> None:
    split = levels(64, 64, False)
    fine = waves(1, 64, 64)[0] * 40
    bands = list(Latents.of(fine, split).bands)
    bands[:3] = [(0 * a, 0 * b, 0 * c) for a, b, c in bands[:3]]
    latents = replace(Latents.of(fine, split), bands=tuple(bands))
    assert latents.finest == 3
    writer = SymbolWriter(CONTEXTS.tables, peaked=True)
    counts = Counter[int]()
    (values,) = encode(writer, [latents], split, CONTEXTS, 0.15, lambda place, *_: counts.update([place.level]))
    assert set(counts) == set(range(3, len(split)))
    np.testing.assert_array_equal(decoded(writer.finish(), (1, 64, 64))[0], values)
    nothing = Latents.of(np.zeros((64, 64)), split)
    assert nothing.is_empty
    assert nothing.finest == len(split)
    assert not Latents.of(np.full((64, 64), 3.0), split).is_empty


# --- what contexts say ------------------------------------------------------------------------------------------------


@QUICK
@given(st.integers(1, 20), st.integers(1, 20), st.floats(-2, 7), st.booleans())
def test_features_are_small_integers_whatever_the_values(h: int, w: int, size: float, periodic: bool) -> None:
    def watch(place: Place, phase: PhaseContext, predicted: Prediction, target: Array, k: Array) -> None:
        features = phase.all_features(np.arange(phase.size))
        related = RELATED if phase.band.related else 0
        assert features.shape == (ALONE + related + 1, phase.size)
        assert np.array_equal(features, np.rint(features))
        assert np.abs(features).max(initial=0) <= FEATURE_MAX
        assert (features[-1] == 1).all()
        flags = features[ALONE - FLAGS : ALONE]
        assert (flags == np.where(np.arange(FLAGS) == place.phase, FEATURE_ONE, 0)[:, None]).all()
        assert (phase.rough >= 0).all()
        assert (phase.rough < INDEXES).all()

    encoded(waves(2, h, w) * 10**size, periodic, watch=watch)


def test_features_that_are_not_live_are_known_beforehand() -> None:
    """Counted by hand for phases alone: own neighbours 8 and their means 3, 14 for each earlier band, 34 others."""
    counts = {0: 0, 1: 4 + 1, 2: 4 + 2, 3: 8 + 3}
    seen = Counter[tuple[int, int]]()

    def watch(place: Place, phase: PhaseContext, predicted: Prediction, target: Array, k: Array) -> None:
        assert len(phase.live.rows) == 34 + counts[place.phase] + 14 * place.band
        points = np.arange(phase.size)
        features = phase.all_features(points)
        varying = np.flatnonzero((features[:-1] != features[:-1, :1]).any(1))
        assert set(varying) <= set(phase.live.rows)
        seen.update((place.band, place.phase) for _ in varying)
        network = CONTEXTS.networks[place.band][0]
        folded = network.folded(phase.live.rows, phase.live.known)
        some = folded(phase.features(points, Scratch()), place.depth, Scratch())
        np.testing.assert_array_equal(some, network(features, place.depth, Scratch()))

    encoded(waves(1, 40, 48) * 30, watch=watch)
    assert len(seen) == 3 * 4
    assert len(live(2, 3, True).rows) == 34 + 11 + 28 + RELATED - 1


def test_quiet_points_are_answered_by_the_table_and_others_by_the_network() -> None:
    calls = []

    def watch(place: Place, phase: PhaseContext, predicted: Prediction, target: Array, k: Array) -> None:
        quiet = np.flatnonzero(phase.rough < QUIET)
        table = CONTEXTS.quiet[place.band, place.depth]
        np.testing.assert_array_equal(predicted.mean[quiet], 0)
        np.testing.assert_array_equal(predicted.scale[quiet], table[0][phase.rough[quiet]])
        np.testing.assert_array_equal(predicted.tail[quiet], table[1][phase.rough[quiet]])
        again = predict(phase, CONTEXTS.networks[place.band][0], table, place.depth, Scratch())
        np.testing.assert_array_equal(again.mean, predicted.mean)
        assert np.array_equal(predicted.mean, np.rint(predicted.mean))
        calls.append((quiet.size, phase.rough.size - quiet.size))

    y = np.zeros((1, 64, 64))
    y[0, :16, :16] = 4 * waves(1, 16, 16)[0]
    encoded(y, watch=watch)
    assert all(map(any, zip(*calls, strict=True)))


@pytest.mark.parametrize("q", [1, QUIET, 60])
def test_a_table_answers_the_points_it_has_entries_for(q: int) -> None:
    rng = np.random.default_rng(0)
    table = np.stack([rng.integers(-8, 8, q), rng.integers(0, 4, q)]).astype(np.int16)
    calls = []

    def watch(place: Place, phase: PhaseContext, predicted: Prediction, target: Array, k: Array) -> None:
        asked = []

        class Ones:
            def __call__(self, x: Array, level: int, scratch: Scratch, kind: int = 0, gap: int = 0) -> Array:
                asked.append(x.shape[1])
                return np.ones((3, x.shape[1]), "f4")

            def folded(self, rows: tuple[int, ...], known: tuple[tuple[int, int], ...]) -> "Ones":
                return self

        answer = predict(phase, Ones(), table, place.depth, Scratch())
        quiet = phase.rough < q
        assert sum(asked) == np.count_nonzero(~quiet)
        np.testing.assert_array_equal(answer.scale[quiet], table[0][phase.rough[quiet]])
        np.testing.assert_array_equal(answer.scale[~quiet], phase.rough[~quiet] + 1)
        np.testing.assert_array_equal(answer.tail, np.where(quiet, table[1][np.minimum(phase.rough, q - 1)], 1))
        assert not answer.mean[quiet].any()
        calls.append((np.count_nonzero(quiet), sum(asked)))

    y = np.zeros((1, 64, 64))
    y[0, :16, :16] = 4 * waves(1, 16, 16)[0]
    encoded(y, watch=watch)
    assert all(map(any, zip(*calls, strict=True)))


def test_the_first_feature_is_the_neighbour_to_the_left_in_units_of_the_activity() -> None:
    feature_of, mean_of = tables()
    assert feature_of[0] == pytest.approx(FEATURE_ONE / 8.5)
    assert mean_of[8] / mean_of[0] == 2

    def watch(place: Place, phase: PhaseContext, predicted: Prediction, target: Array, k: Array) -> None:
        if (place.level, place.band, place.phase) == (0, 0, 2):  # both neighbours beside are known: phases 0 and 1
            own = phase.band.inner()
            features = phase.all_features(np.arange(phase.size))
            left = own[::2, 0 : own.shape[1] - 1 : 2].ravel()
            scaled = np.clip(np.rint(left.astype("f4") * feature_of[phase.rough]), -FEATURE_MAX, FEATURE_MAX)
            np.testing.assert_array_equal(features[0], scaled)
            assert np.unique(features[0]).size > 10

    encoded(waves(1, 24, 32) * 30, watch=watch)


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
    smooth = maps.box(delta, Level(16, 16, False))
    np.testing.assert_array_equal(smooth[7:10, 7:10], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert smooth.sum() == 16
    assert np.flatnonzero(maps.wide(delta).any(0)).tolist() == [5, 8, 11]
    up = maps.upsampled(maps.padded(values, (3, 4), False), (5, 7))
    inner = up[maps.PAD : maps.PAD + 5, maps.PAD : maps.PAD + 7]
    np.testing.assert_array_equal(inner, values.repeat(2, 0).repeat(2, 1)[:5, :7])


# --- scale offsets ----------------------------------------------------------------------------------------------------


def test_offsets_come_to_where_networks_are_off_and_stay() -> None:
    n, tables_ = 4 * latents.OFFSET_FROM, CONTEXTS.tables
    quantiser = latents.Quantiser(tables_, 0.0)
    offsets, found = latents.Offsets(), []
    writer = SymbolWriter(tables_, peaked=True)
    phases = np.random.default_rng(0).laplace(scale=0.7, size=(6, n)).astype("f4")
    best = offset_bits(tables_, np.rint(phases[0]).astype("i4"), np.zeros(n, "i2"), np.ones(n, "i1"), EVERY)
    wanted = int(EVERY[best.argmin()])
    for y in phases:
        # The networks would have the scale 13 eighths of an octave larger than it is.
        predicted = Prediction(np.zeros(n, "f4"), np.full(n, wanted + 13, "i2"), np.ones(n, "i1"), np.arange(n))
        symbols = offsets.choose(writer, y, predicted, quantiser)
        np.testing.assert_array_equal(symbols, np.rint(y))
        assert (predicted.scale == wanted + 13 + offsets.last).all()
        found.append(offsets.last)
    assert found[0] == -latents.REACH
    assert all(-16 <= last <= -10 for last in found[1:])


def test_streams_of_before_offsets_are_read_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    y = 30 * waves(1, 70, 90)
    monkeypatch.setattr(latents, "OFFSET_FROM", y.size)
    data, values = encoded(y)
    monkeypatch.undo()
    split = levels(70, 90, False)
    reader = SymbolReader(CONTEXTS.tables, memoryview(data), peaked=True)
    fields = decode(reader, 1, split, split[-1].low, CONTEXTS, adapted=False)
    reader.finish()
    np.testing.assert_array_equal(fields, values)


@pytest.mark.parametrize("last", [OFFSET_MAX, -OFFSET_MAX])
def test_an_offset_beyond_all_bounds_is_corrupt(last: int) -> None:
    writer = SymbolWriter(CONTEXTS.tables, peaked=True)
    writer.symbol(OFFSET_MAX + (1 if last > 0 else -1), offset_model(True))
    reader = SymbolReader(CONTEXTS.tables, memoryview(writer.finish()), peaked=True)
    n = latents.OFFSET_FROM
    predicted = Prediction(np.zeros(n, "f4"), np.zeros(n, "i2"), np.zeros(n, "i1"), np.arange(n))
    offsets = latents.Offsets()
    offsets.last = last
    with pytest.raises(CorruptPayloadError, match="offset"):
        offsets.read(reader, predicted)


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
