"""Pyramids, and the choice of which fields refer to which."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.bounded import choice as context_choice
from isopress.codec.bounded import fields_alone, pyramid
from isopress.codec.bounded.choice import Choice, choose_context
from isopress.codec.bounded.reference_order import Axes
from isopress.codec.bounded.traversal import depth
from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.chunk.encode import encode_chunk
from isopress.codec.encoded import Method
from isopress.codec.errors import ArgumentError, PayloadError
from isopress.codec.limits import Bound
from isopress.codec.models.registry import NamedModel
from isopress.codec.values.plan import Plan
from isopress.codec.values.quantiser import Quantiser
from tests.fields import drifting_fields, spectral_field
from tests.strategies import examples

# --- the refinement pyramid: half a step everywhere, the same bytes however the work is cut ---------------------------

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


# --- which fields refer to which: never larger than field by field where both are tried, and only as asked for --------

ALONE = load_pyramid()
OLD = load_pyramid("field-0.9")  # takes no references
RNG = np.random.default_rng(0)


def holes(x):
    x = x.copy()
    x[RNG.random(x.shape) < 0.2] = np.nan
    x[0] = np.nan
    return x


SEQUENCE = drifting_fields(5, 20, 24).astype("f4")
SMALL = {
    "sequence": SEQUENCE,
    "independent fields": np.stack([spectral_field(16, 18, seed=s) for s in range(4)]).astype("f4"),
    "noise": RNG.normal(size=(4, 14, 16)).astype("f4"),
    "time and level": drifting_fields(3, 2, 16, 20).astype("f4"),
    "three axes": drifting_fields(2, 2, 2, 11, 12).astype("f4"),
    "masked": holes(SEQUENCE),
    "lattice": (np.rint(SEQUENCE * 50) / 50).astype("f4"),
    "one field": spectral_field(16, 18)[None].astype("f4"),
    "no leading axis": spectral_field(16, 18).astype("f4"),
    "axes of length 1": drifting_fields(1, 3, 1, 12, 14).astype("f4"),
    "rows": drifting_fields(4, 1, 140).astype("f4"),
    "repeated": np.repeat(spectral_field(16, 18)[None], 4, 0).astype("f4"),
}
BOUNDS = (Bound("abs", 0.02), Bound("pointwise", 0.01))


def plan_of(y, *, snap=False, valid=None):
    y = y.reshape(-1, *y.shape[-2:])
    return Plan(Quantiser(np.zeros(1), np.ones(1)), np.rint(y) if snap else y, snap, valid)


def choose(y, context="auto", *, related=RELATED, valid=None, snap=False):
    ok = None if valid is None else valid.reshape(-1, *y.shape[-2:])
    return choose_context(plan_of(y, snap=snap, valid=ok), y.shape[:-2], ALONE, related, context)


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_of_a_small_chunk_auto_is_never_larger_than_any_way_one_may_ask_for(name, bound):
    x = SMALL[name]
    field, block, auto = (encode_chunk(x, bound, context=c) for c in ("field", "block", "auto"))
    assert field.method != Method.BLOCK
    assert auto.nbytes <= min(field.nbytes, block.nbytes)
    if not any(n > 1 for n in x.shape[:-2]):
        assert block == auto == field


@pytest.mark.parametrize("name", ["sequence", "time and level", "repeated", "lattice"])
def test_a_smooth_sequence_becomes_a_block_and_thereby_smaller(name):
    x = SMALL[name]
    field, auto = (encode_chunk(x, Bound("abs", 0.02), context=c) for c in ("field", "auto"))
    assert auto.method == Method.BLOCK
    assert auto.nbytes < field.nbytes


def test_weights_that_take_no_references_code_field_by_field():
    assert choose(SEQUENCE.astype("f8") * 30, related=OLD) == Choice(alone=True)
    encoded = encode_chunk(SEQUENCE, Bound("abs", 0.02), model=NamedModel("field-0.9"))
    assert encoded.method == Method.PYRAMID
    assert encoded == encode_chunk(SEQUENCE, Bound("abs", 0.02), model=NamedModel("field-0.9"), context="field")


def test_weights_that_take_no_references_are_refused_where_a_block_is_asked_for():
    with pytest.raises(ArgumentError, match="take no references"):
        encode_chunk(SEQUENCE, Bound("abs", 0.02), model=NamedModel("field-0.9"), context="block")


def test_fields_of_few_values_refer_to_each_other_only_if_asked_to():
    y = np.repeat(spectral_field(11, 11)[None], 5, 0) * 30
    assert choose(y) == Choice(alone=True)
    assert choose(y, "block").axes == Axes(0)


@pytest.mark.parametrize("context", ["auto", "block", "field"])
@pytest.mark.parametrize("leading", [(), (1,), (1, 1)])
def test_one_field_alone_is_coded_alone(leading, context):
    assert choose(np.zeros((*leading, 20, 24)), context) == Choice(alone=True)


def test_field_codes_each_field_alone_and_block_never_does():
    y = drifting_fields(3, 20, 24) * 30
    assert choose(y, "field") == Choice(alone=True)
    for fields in (y, RNG.normal(size=y.shape) * 30):
        chosen = choose(fields, "block")
        assert not chosen.alone
        assert chosen.axes is not None


@pytest.mark.parametrize(
    ("leading", "alike"), [((4, 3), 0), ((3, 4), 1), ((1, 3, 1, 3), 1), ((3, 1, 1, 3), 0), ((2, 2, 3), 2)]
)
def test_references_run_along_the_axis_on_which_fields_are_alike(leading, alike):
    shape = tuple(1 if axis == alike else n for axis, n in enumerate(leading))
    fields = np.empty((*shape, 24, 26))
    for i, at in enumerate(np.ndindex(*shape)):
        fields[at] = spectral_field(24, 26, slope=1.5, seed=i)
    y = np.broadcast_to(fields, (*leading, 24, 26)) * 30
    assert choose(y, "block").axes.primary == alike


def test_only_the_last_two_long_axes_carry_references():
    y = drifting_fields(2, 2, 2, 1, 12, 14) * 20
    named = choose(y, "block").axes
    assert {named.primary, named.secondary} <= {1, 2, None}
    assert named.primary is not None


def test_axes_whose_number_has_no_place_in_a_section_carry_no_references():
    y = drifting_fields(*([1] * 14), 3, 6, 7) * 20
    assert choose(y, "block") == Choice(alone=True)


def test_both_ways_of_a_small_chunk_are_tried_but_one_of_a_large_one(monkeypatch):
    y = drifting_fields(4, 24, 30) * 30
    chosen = choose(y)
    assert chosen.alone
    assert chosen.axes is not None
    monkeypatch.setattr(context_choice, "SMALL", y.size - 1)
    chosen = choose(y)
    assert not chosen.alone
    assert chosen.axes is not None


@pytest.mark.parametrize("name", ["sequence", "independent fields", "noise", "time and level", "masked"])
def test_what_a_large_chunk_becomes_is_close_to_the_smallest_way(name, monkeypatch):
    monkeypatch.setattr(context_choice, "SMALL", 0)
    field, block, auto = (encode_chunk(SMALL[name], Bound("abs", 0.02), context=c) for c in ("field", "block", "auto"))
    assert auto.nbytes in (field.nbytes, block.nbytes)
    streams = math.prod(SMALL[name].shape[:-2])
    assert auto.nbytes - min(field.nbytes, block.nbytes) <= context_choice.OVERHEAD * streams


@pytest.mark.parametrize("context", ["auto", "block"])
def test_integers_have_no_taper_and_loose_bounds_have_one(context):
    y = drifting_fields(3, 24, 30)
    assert choose(np.rint(y * 30), context, snap=True).taper == 0
    assert choose(y * 1000, context).taper == 0
    assert choose(y, context).taper > 0


def test_a_chunk_without_a_point_that_matters_has_a_choice():
    y = np.zeros((3, 20, 24))
    chosen = choose(y, valid=np.zeros(y.shape, bool))
    assert chosen.axes is not None
