"""Varints and checksums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.bytes import crc32c, read_varint, varint
from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from tests.strategies import examples


@examples(50)
@given(st.integers(0, 2**35 - 1))
def test_varints_come_back(value):
    data = varint(value)
    assert read_varint(memoryview(data), 0) == (value, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff"])
def test_a_cut_varint_is_truncated(data):
    with pytest.raises(TruncatedPayloadError):
        read_varint(memoryview(data), 0)


@pytest.mark.parametrize("data", [b"\x80\x80\x80\x80\x80\x01", b"\x80\x00"])
def test_a_varint_that_is_longer_than_needed_is_corrupt(data):
    with pytest.raises(CorruptPayloadError):
        read_varint(memoryview(data), 0)


def test_nine_bytes_are_read_where_they_are_allowed():
    data = varint(2**62 + 5)
    assert read_varint(data, 0, most=9) == (2**62 + 5, 9)


def test_checksums_are_those_of_castagnoli_whole_or_in_parts():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(memoryview(bytearray(b"6789")), crc32c(b"12345")) == 0xE3069283
    assert crc32c(np.arange(6, dtype="<i4").data) == crc32c(np.arange(6, dtype="<i4").tobytes())
