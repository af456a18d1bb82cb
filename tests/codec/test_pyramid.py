"""The refinement pyramid: half a step everywhere, the same bytes however the work is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.bounded import fields_alone, pyramid
from isopress.codec.bounded.traversal import depth
from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.errors import ArgumentError, PayloadError
from tests.fields import spectral_field
from tests.strategies import examples

MODEL = load_pyramid(references=True)
RELATED = load_pyramid(references=True)  # made for fields with references
SHAPES = [
    (1, 1, 1),
    (1, 1, 2),
    (1, 2, 1),
    (2, 1, 37),
    (3, 41, 1),
    (1, 2, 2),
    (5, 3, 7),
    (2, 17, 33),
    (4, 100, 16),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("snap", [False, True])
@pytest.mark.parametrize("model", [MODEL, RELATED], ids=lambda model: model.name)
def test_every_valid_point_is_within_half_a_step(shape, snap, model):
    rng = np.random.default_rng(sum(shape))
    y = rng.normal(size=shape) * 50
    y = np.rint(y) if snap else y
    valid = rng.random(shape) < 0.8
    section, v = fields_alone.encode(y, valid, model=model, snap=snap)
    np.testing.assert_array_equal(fields_alone.decode(section, shape, model=model), v)
    assert np.abs(y - v / 64)[valid].max(initial=0) <= (0 if snap else 0.5)


@examples(20)
@given(
    st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 20)),
    st.floats(1e-3, 1e6),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2, 3, None]),
    st.sampled_from([False, True, None]),
)
def test_any_shape_size_taper_and_wrap_round_trips(shape, size, seed, taper, periodic):
    y = np.random.default_rng(seed).uniform(-size, size, shape)
    section, v = fields_alone.encode(y, None, model=MODEL, taper=taper, periodic=periodic)
    np.testing.assert_array_equal(fields_alone.decode(section, shape, model=MODEL), v)
    assert np.abs(y - v / 64).max(initial=0) <= 0.5


def test_the_size_of_blocks_does_not_change_a_byte(monkeypatch):
    from isopress.codec.bounded import predictor

    y = np.stack([spectral_field(90, 120, seed=s) for s in range(3)]) * 20
    whole, _ = fields_alone.encode(y, None, model=MODEL)
    monkeypatch.setattr(predictor.blocks, "__defaults__", (500,))
    assert fields_alone.encode(y, None, model=MODEL)[0] == whole


def test_smooth_fields_cost_much_less_than_noise():
    smooth, noise = (
        spectral_field(128, 128, slope=3) * 20,
        np.random.default_rng(0).normal(size=(128, 128)) * 20,
    )
    sizes = [len(fields_alone.encode(y[None], None, model=MODEL)[0]) for y in (smooth, noise)]
    assert sizes[0] < 0.3 * sizes[1]
    assert sizes[1] < noise.size * (np.log2(20) + 2.6) / 8  # half a bit over the entropy of rounded noise


def test_masked_points_cost_next_to_nothing():
    y = spectral_field(128, 128, slope=2) * 20
    valid = np.ones((1, 128, 128), bool)
    valid[:, :, 32:] = False
    full, masked = (len(fields_alone.encode(y[None], ok, model=MODEL)[0]) for ok in (None, valid))
    assert masked < 0.35 * full


def test_of_masked_points_only_the_anchors_are_looked_at():
    y = spectral_field(40, 50)[None] * 10
    valid = np.random.default_rng(1).random(y.shape) < 0.5
    step = 2 ** depth(40, 50)
    valid[:, ::step, ::step] = True
    expected = fields_alone.encode(y, valid, model=MODEL, periodic=False)[0]
    assert fields_alone.encode(np.where(valid, y, -9.0), valid, model=MODEL, periodic=False)[0] == expected


def test_a_periodic_field_is_found_and_coded_smaller():
    y = spectral_field(64, 256, slope=3)[None] * 100
    found = fields_alone.encode(y, None, model=MODEL)[0]
    assert found[0] & pyramid.WRAP
    assert len(found) < len(fields_alone.encode(y, None, model=MODEL, periodic=False)[0])
    cliff = np.linspace(0, 100, 256)[None, None] + y
    assert not fields_alone.encode(cliff, None, model=MODEL)[0][0] & pyramid.WRAP


def test_values_beyond_the_range_are_refused_with_the_remedy():
    with pytest.raises(ArgumentError, match="larger bound"):
        fields_alone.encode(np.full((1, 2, 2), 3e6), None, model=MODEL)


def test_huge_steps_at_the_edge_of_the_range_stay_exact():
    y = np.where(np.indices((1, 33, 47)).sum(0) % 2, 2.0**21, -(2.0**21))
    section, v = fields_alone.encode(y, None, model=MODEL)
    assert np.abs(y - v / 64).max() <= 0.5
    np.testing.assert_array_equal(fields_alone.decode(section, y.shape, model=MODEL), v)


def test_a_cut_section_raises_a_payload_error():
    y = spectral_field(20, 30)[None] * 5
    section, _ = fields_alone.encode(y, None, model=MODEL)
    for end in range(len(section)):
        with pytest.raises(PayloadError):
            fields_alone.decode(section[:end], y.shape, model=MODEL)


def test_a_flipped_bit_raises_a_payload_error_or_changes_no_value():
    y = spectral_field(20, 30)[None] * 5
    section, v = fields_alone.encode(y, None, model=MODEL)
    silent = 0
    for i in range(len(section)):
        damaged = bytearray(section)
        damaged[i] ^= 1 << (i % 8)
        try:
            np.testing.assert_array_equal(fields_alone.decode(bytes(damaged), y.shape, model=MODEL), v)
            silent += 1
        except PayloadError:
            continue
    assert silent <= 4  # the range coder's last word has bits that nobody reads


def test_depth_leaves_at_most_four_anchors():
    for h, w in ((1, 1), (2, 2), (3, 1), (4, 5), (721, 1440), (1, 4097)):
        level = depth(h, w)
        assert -(-h >> level) <= 2
        assert -(-w >> level) <= 2


@pytest.mark.parametrize("shape", [(2**24, 4, 4), (2**20, 1, 1), (1, 2**16, 2)])
def test_a_section_too_short_for_its_fields_is_refused_at_once(shape):
    section, _ = fields_alone.encode(np.zeros((1, 4, 4)), None, model=MODEL)
    with pytest.raises(PayloadError):
        fields_alone.decode(section, shape, model=MODEL)


@pytest.mark.parametrize("slope", [1.0, 2.5])
def test_small_fields_have_the_taper_of_their_rate_whichever_way_is_tried_first(slope, monkeypatch):
    tapers = []
    encode = fields_alone._encode
    monkeypatch.setattr(
        fields_alone, "_encode", lambda y, valid, c: tapers.append(c.quantisation.taper) or encode(y, valid, c)
    )
    once = 0
    for size in 10.0 ** np.arange(-2, 4, 0.5):
        y = spectral_field(40, 50, slope=slope)[None] * size
        rate = 8 * len(fields_alone.encode(y, None, model=MODEL, taper=1)[0]) / y.size
        tapers.clear()
        section, _ = fields_alone.encode(y, None, model=MODEL)
        assert section[0] >> pyramid.TAPER_BIT == fields_alone.taper_for_rate(rate)
        once += len(tapers) == 1
    assert once > 5
