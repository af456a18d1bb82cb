"""Lossless coding: every bit of every dtype, never longer than zstd or pcodec plus one byte."""

import numpy as np
import pytest
from hypothesis import given
from numcodecs import zstd
from pcodec import ChunkConfig, standalone

from isopress.codec.errors import ArgumentError, CorruptPayloadError, PayloadError, TruncatedPayloadError
from isopress.codec.values.lossless import Stream, decode_lossless, encode_lossless
from isopress.codec.values.packing import decompress_zstd, pack, unpack
from tests.strategies import QUICK, Array, anything, smooth_field

STREAMS = {
    Stream.STORED: np.random.default_rng(0).integers(0, 2**64, 50, np.uint64),
    Stream.ZSTD: np.tile(np.arange(200, dtype="u1"), 20),
    Stream.SHUFFLED_ZSTD: np.tile(np.random.default_rng(1).integers(0, 2**32, 60, np.uint32), 30) + np.uint32(1),
    Stream.PCODEC: smooth_field(30, 40).astype("f4"),
}


@given(x=anything())
@QUICK
def test_every_bit_comes_back(x: Array) -> None:
    y = decode_lossless(encode_lossless(x), x.dtype, x.size)
    assert (y.dtype, y.tobytes()) == (x.dtype, x.tobytes())


@given(x=anything())
@QUICK
def test_the_cost_is_at_most_that_of_zstd_or_pcodec_plus_one_byte(x: Array) -> None:
    rivals = [x.nbytes, len(zstd.compress(x.tobytes(), 3))]
    if x.size and x.itemsize > 1:
        rivals.append(len(standalone.simple_compress(x.reshape(-1), ChunkConfig())))
    assert len(encode_lossless(x)) <= min(rivals) + 1


@pytest.mark.parametrize("stream", STREAMS)
def test_damaged_streams_raise_payload_errors(stream: Stream) -> None:
    x = STREAMS[stream].reshape(-1)
    section = encode_lossless(x)
    if stream != Stream.SHUFFLED_ZSTD:
        assert section[0] == stream
    for end in range(0, len(section), max(1, len(section) // 50)):
        with pytest.raises(PayloadError):
            decode_lossless(section[:end], x.dtype, x.size)
    for count in (0, x.size - 1, x.size + 1):
        with pytest.raises(PayloadError):
            decode_lossless(section, x.dtype, count)
    for bit in range(0, 8 * len(section), max(1, len(section) // 25)):
        bad = bytearray(section)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            y = decode_lossless(bytes(bad), x.dtype, x.size)
        except PayloadError:
            continue
        assert y.size == x.size


def test_unknown_streams_and_dtypes_are_refused() -> None:
    with pytest.raises(TruncatedPayloadError):
        decode_lossless(b"", np.dtype("f4"), 0)
    with pytest.raises(CorruptPayloadError, match="stream 7"):
        decode_lossless(b"\7", np.dtype("f4"), 0)
    with pytest.raises(CorruptPayloadError, match="cannot hold"):
        decode_lossless(bytes([Stream.PCODEC]), np.dtype("i1"), 1)
    for dtype in ("c8", "M8[s]", "O"):
        with pytest.raises(ArgumentError, match="dtype"):
            encode_lossless(np.zeros(2, dtype))


def test_a_zstd_bomb_is_refused_before_anything_is_allocated() -> None:
    bomb = zstd.compress(bytes(100_000_000), 3)
    with pytest.raises(CorruptPayloadError, match="100000000"):
        decompress_zstd(bomb, 1000)
    forged = bomb[:5] + (1000).to_bytes(4, "little") + bomb[9:]
    with pytest.raises(CorruptPayloadError):
        decompress_zstd(forged, 1000)


def test_packed_blocks_hold_exactly_the_size_that_is_needed() -> None:
    for raw in (b"", b"short", bytes(1000), bytes(range(256)) * 3, np.random.default_rng(0).bytes(500)):
        assert unpack(pack(raw), len(raw)) == raw
        for size in (len(raw) + 1, max(0, len(raw) - 1)):
            if size != len(raw):
                with pytest.raises(PayloadError):
                    unpack(pack(raw), size)
    with pytest.raises(TruncatedPayloadError):
        unpack(b"", 0)
    with pytest.raises(CorruptPayloadError, match="kind 5"):
        unpack(b"\5", 0)
