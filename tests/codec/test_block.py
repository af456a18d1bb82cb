"""Blocks: half a step everywhere, one field for the price of its chain, damage found, the same bytes everywhere."""

import math
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.bounded import block, fields_alone, predictor
from isopress.codec.bounded.block import BlockDecoder
from isopress.codec.bounded.pyramid import Quantisation
from isopress.codec.bounded.reference_order import GAPS, KINDS, Axes, Node, chain, order
from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.bytes import read_varint
from isopress.codec.entropy.integer_mlp import IntegerNetwork
from isopress.codec.errors import ArgumentError, CorruptPayloadError, PayloadError, TruncatedPayloadError
from isopress.codec.native import dispatch
from tests.fields import drifting_fields, spectral_field
from tests.strategies import examples

MODEL = load_pyramid(references=True)
OLD = load_pyramid("field-0.9")  # takes no references
PLAIN, SNAP = Quantisation(), Quantisation(snap=True)


def encode(y, axes, *, valid=None, model=MODEL, quantisation=PLAIN, periodic=None):
    """Code (..., H, W) as a block; return the section and v of the same shape."""
    fields = y.reshape(-1, *y.shape[-2:])
    ok = None if valid is None else valid.reshape(fields.shape)
    section, v = block.encode(
        fields, ok, leading=y.shape[:-2], axes=axes, model=model, quantisation=quantisation, periodic=periodic
    )
    return section, v.reshape(y.shape)


def decoder(section, shape, model=MODEL):
    return BlockDecoder(memoryview(bytes(section)), shape, model)


def decode(section, shape, model=MODEL):
    return decoder(section, shape, model).decode().reshape(shape)


def chain_of(leading, axes, wanted):
    return [node.field for batch in chain(order(leading, axes), set(wanted)) for node in batch]


def cut(section, shape, axes) -> list[tuple[Node, bytes]]:
    """Return every node of a block with its stream, in the order of the section."""
    nodes = [node for batch in order(shape[:-2], axes) for node in batch]
    sizes, position = [], 2
    for _ in nodes:
        size, position = read_varint(memoryview(section), position)
        sizes.append(size)
    starts = np.cumsum([position, *sizes]).tolist()
    assert starts[-1] == len(section)
    return [(node, section[start : start + size]) for node, start, size in zip(nodes, starts, sizes, strict=False)]


# --- values ---------------------------------------------------------------------------------------------------


@st.composite
def blocks(draw):
    """Leading axes, axes of references, values in steps, valid points and quantisation."""
    leading = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    named = draw(st.sampled_from([Axes(*a) for n in range(3) for a in permutations(range(len(leading)), n)]))
    shape = (*leading, draw(st.integers(1, 13)), draw(st.integers(1, 13)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = 10 ** draw(st.floats(-3, 6))
    quantisation = draw(st.sampled_from([*map(Quantisation, range(4)), SNAP, SNAP]))
    y = drifting_fields(*shape, seed=int(rng.integers(1000))) + draw(st.sampled_from([0, 0.1, 3])) * rng.normal(
        size=shape
    )
    y = (size * y).clip(-(2.0**21), 2.0**21)
    valid = None
    if draw(st.booleans()):
        valid = rng.random(shape) < draw(st.sampled_from([0, 0.1, 0.9]))
        valid[rng.random(leading) < 0.3] = False
        valid[rng.random(leading) < 0.3] = True
    return (
        np.rint(y) if quantisation.snap else y,
        named,
        valid,
        quantisation,
        draw(st.sampled_from([None, False, True])),
    )


@examples(25)
@given(blocks())
def test_every_valid_point_of_any_block_is_within_half_a_step(case):
    y, axes, valid, quantisation, periodic = case
    section, v = encode(y, axes, valid=valid, quantisation=quantisation, periodic=periodic)
    np.testing.assert_array_equal(decode(section, y.shape), v)
    error = np.abs(y - v / 64)[... if valid is None else valid]
    assert error.max(initial=0) <= (0 if quantisation.snap else 0.5)


@pytest.mark.parametrize("quantisation", [PLAIN, Quantisation(taper=3), SNAP])
def test_huge_steps_at_the_edge_of_the_range_stay_exact(quantisation):
    y = np.where(np.indices((5, 2, 17, 23)).sum(0) % 2, 2.0**21, -(2.0**21))
    y[1, 0] *= -1
    y[2] = 2.0**21
    section, v = encode(y, Axes(0, 1), quantisation=quantisation)
    assert np.abs(y - v / 64).max() <= 0.5
    np.testing.assert_array_equal(decode(section, y.shape), v)


def test_values_beyond_the_range_are_refused_with_the_remedy():
    for value in (3e6, -3e6, math.nan):
        with pytest.raises(ArgumentError, match="larger bound"):
            encode(np.full((2, 2, 2), value), Axes(0))


def test_fields_that_do_not_matter_cost_little_and_are_of_use_to_others():
    y = drifting_fields(5, 30, 40) * 20
    whole, _ = encode(y, Axes(0))
    valid = np.ones(y.shape, bool)
    valid[2] = False
    y[2] = -1000
    section, _ = encode(y, Axes(0), valid=valid)
    streams = {node.field: stream for node, stream in cut(section, y.shape, Axes(0))}
    assert len(streams[2]) <= 40
    assert len(section) < len(whole)


def test_of_points_that_do_not_matter_only_the_anchors_are_looked_at():
    y = drifting_fields(4, 20, 30) * 10
    valid = np.random.default_rng(1).random(y.shape) < 0.5
    valid[:, ::16, ::16] = True
    options = {"valid": valid, "periodic": False}
    sections = [encode(x, Axes(0), **options)[0] for x in (y, np.where(valid, y, y + 0.2))]
    values = [decode(section, y.shape) for section in sections]
    assert np.abs(values[0] - values[1])[valid].max() <= 64
    assert abs(len(sections[0]) - len(sections[1])) < 0.1 * len(sections[0])


# --- sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axes"), [((9, 40, 50), Axes(0)), ((4, 3, 40, 50), Axes(0, 1))])
def test_a_smooth_sequence_is_smaller_as_a_block_than_field_by_field(shape, axes):
    y = drifting_fields(*shape) * 30
    alone, _ = fields_alone.encode(y.reshape(-1, *shape[-2:]), None, model=MODEL)
    assert len(encode(y, axes)[0]) < len(alone)


def test_a_field_that_was_there_before_costs_next_to_nothing():
    y = np.broadcast_to(spectral_field(40, 50) * 20, (5, 40, 50))
    section, _ = encode(y, Axes(0))
    first, *others = (len(stream) for _, stream in cut(section, y.shape, Axes(0)))
    assert max(others) < first / 3


def test_a_variable_of_another_scale_serves_as_a_reference():
    wave = spectral_field(40, 50, slope=1.5)
    y = np.stack([wave * 30, wave * 30 * 2**9])
    together, apart = (len(encode(y, axes)[0]) for axes in (Axes(0), Axes()))
    assert together < 0.8 * apart


# --- some fields only -----------------------------------------------------------------------------------------


@dataclass
class Counting:
    """Evaluates as a network does and counts the points."""

    network: IntegerNetwork
    points: int = field(default=0)

    def __call__(self, x, level, scratch, kind=0, gap=0):
        self.points += x.shape[1]
        return self.network(x, level, scratch, kind, gap)


def counting():
    """Return the model with networks that count, and those."""
    networks = tuple({name: Counting(network) for name, network in level.items()} for level in MODEL.networks)
    return replace(MODEL, networks=networks), networks


PARTS = [((17, 6, 7), Axes(0)), ((5, 3, 6, 7), Axes(0, 1)), ((2, 3, 3, 6, 7), Axes(2, 1))]


@pytest.mark.parametrize(("shape", "axes"), PARTS)
def test_one_field_decodes_to_the_same_values_for_no_more_than_its_chain(shape, axes):
    section, v = encode(drifting_fields(*shape) * 20, axes)
    v = v.reshape(-1, *shape[-2:])
    for wanted in range(len(v)):
        one = decoder(section, shape)
        np.testing.assert_array_equal(one.decode([wanted])[wanted], v[wanted])
        assert sorted(one.done) == sorted(chain_of(shape[:-2], axes, [wanted]))


@pytest.mark.parametrize(("shape", "axes"), PARTS)
def test_fields_decode_once_in_whatever_order_they_are_asked_for(shape, axes):
    section, v = encode(drifting_fields(*shape) * 20, axes)
    v = v.reshape(-1, *shape[-2:])
    (whole, everything), (partial, pieces) = counting(), counting()
    with dispatch.using(dispatch.NUMPY):  # kernels do not call what stands in for a network
        decode(section, shape, whole)
    one = decoder(section, shape, partial)
    rng = np.random.default_rng(0)
    asked: set[int] = set()
    for wanted in [*rng.integers(0, len(v), (6, 3)).tolist(), range(len(v)), [0]]:
        with dispatch.using(dispatch.NUMPY):
            values = one.decode(wanted)
        asked.update(wanted)
        assert one.done == set(chain_of(shape[:-2], axes, asked))
        for f in one.done:
            np.testing.assert_array_equal(values[f], v[f])
    assert pieces == everything
    assert all(sum(level[name].points for level in pieces) for name in "DHV")


def test_asking_for_no_field_decodes_none():
    section, _ = encode(drifting_fields(3, 5, 6), Axes(0))
    one = decoder(section, (3, 5, 6))
    one.decode([])
    assert not one.done


# --- the same bytes everywhere --------------------------------------------------------------------------------


def test_how_many_fields_and_points_are_coded_together_does_not_change_a_byte(monkeypatch):
    y = drifting_fields(3, 5, 20, 24) * 20
    whole, v = encode(y, Axes(1))
    monkeypatch.setattr(block, "GROUP", 1000)
    monkeypatch.setattr(predictor.blocks, "__defaults__", (300,))
    assert encode(y, Axes(1))[0] == whole
    np.testing.assert_array_equal(decode(whole, y.shape), v)


def test_a_stream_does_not_depend_on_fields_that_its_field_does_not_need():
    y = drifting_fields(6, 12, 14) * 20
    section, _ = encode(y, Axes(0), periodic=False)
    y[1] += 3  # position 1 is nobody's reference
    again, _ = encode(y, Axes(0), periodic=False)
    streams = zip(cut(section, y.shape, Axes(0)), cut(again, y.shape, Axes(0)), strict=True)
    assert [node.field for (node, one), (_, other) in streams if one != other] == [1]


# --- weights --------------------------------------------------------------------------------------------------


def test_the_networks_of_the_default_weights_are_exact_and_look_at_kind_and_gap():
    for level, networks in enumerate(MODEL.networks):
        for name, network in networks.items():
            first = {network.first(level, kind, gap).tobytes() for kind in range(KINDS) for gap in range(GAPS)}
            assert len(first) == KINDS * GAPS, (level, name)


def test_weights_that_take_no_references_refuse_them():
    assert not OLD.takes_references
    with pytest.raises(ValueError, match="references"):
        encode(drifting_fields(3, 9, 11), Axes(0), model=OLD)


DAMAGED = (3, 2, 6, 7)


def damaged_sample():
    section, v = encode(drifting_fields(*DAMAGED) * 5, Axes(0, 1))
    return section, v


def test_a_block_cut_anywhere_is_truncated():
    section, _ = damaged_sample()
    for end in range(len(section)):
        with pytest.raises(TruncatedPayloadError):
            decode(section[:end], DAMAGED)


def test_bytes_after_a_block_are_corrupt():
    section, _ = damaged_sample()
    for more in (b"\0", b"\xff", section):
        with pytest.raises(CorruptPayloadError, match="follow"):
            decode(section + more, DAMAGED)


def test_a_flipped_bit_raises_a_payload_error_or_changes_no_value():
    section, v = damaged_sample()
    silent = 0
    for i in range(len(section)):
        damaged = bytearray(section)
        damaged[i] ^= 1 << (i % 8)
        try:
            np.testing.assert_array_equal(decode(damaged, DAMAGED), v)
            silent += 1
        except PayloadError:
            continue
    assert silent <= math.prod(DAMAGED[:2])  # the last word of every range coder has bits that nobody reads


@examples(20)
@given(st.binary(max_size=60), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
def test_streams_of_any_bytes_raise_payload_errors(content, fields, height, width):
    one, rest = divmod(len(content), fields)
    sizes = [one] * (fields - 1) + [one + rest]
    with pytest.raises(PayloadError):
        decode(bytes([0, 1, *sizes]) + content, (fields, height, width))


def test_a_field_with_a_wrong_checksum_is_corrupt_and_spoils_only_those_that_need_it():
    shape, axes = (9, 12, 14), Axes(0)
    section, v = encode(drifting_fields(*shape) * 20, axes)
    damaged, position = bytearray(section), 0
    for node, stream in cut(section, shape, axes):
        position = section.index(stream, position) + len(stream)
        if node.field == 2:
            damaged[position - 1] ^= 1
    for wanted in range(len(v)):
        one = decoder(damaged, shape)
        if 2 in chain_of(shape[:-2], axes, [wanted]):
            with pytest.raises(CorruptPayloadError, match=r"field 2 .*checksum"):
                one.decode([wanted])
        else:
            np.testing.assert_array_equal(one.decode([wanted])[wanted], v[wanted])
    assert 2 in chain_of(shape[:-2], axes, [1])
    assert 2 not in chain_of(shape[:-2], axes, [6])


@pytest.mark.parametrize(
    ("flags", "axes"),
    [(0x10, 0x01), (0x80, 0x01), (0, 0x03), (0, 0x11), (0, 0x22), (0, 0x10), (0, 0x20), (0, 0x31), (0, 0xF1)],
)
def test_reserved_flags_and_impossible_axes_are_corrupt(flags, axes):
    section, _ = encode(drifting_fields(3, 2, 5, 6), Axes(0))
    with pytest.raises(CorruptPayloadError):
        decoder(bytes([flags, axes]) + section[2:], (3, 2, 5, 6))


def test_weights_without_references_neither_write_nor_read_blocks():
    y = drifting_fields(3, 9, 11) * 9
    section, _ = encode(y, Axes())
    with pytest.raises(PayloadError):
        decode(section, y.shape, OLD)
    with pytest.raises(ArgumentError, match="take no references"):
        encode(y, Axes(), model=OLD)
