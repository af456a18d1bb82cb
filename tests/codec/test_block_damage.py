"""Damaged blocks: cut, flipped, of any bytes, with impossible axes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.bounded.reference_order import Axes
from isopress.codec.errors import ArgumentError, CorruptPayloadError, PayloadError, TruncatedPayloadError
from tests.blocks import OLD, chain_of, cut, decode, decoder, encode
from tests.fields import drifting_fields
from tests.strategies import examples

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
