"""Payloads, and the front door that makes and reads them."""

import dataclasses
import json
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zarr

import isopress
from isopress import ArgumentError, IsopressCodec
from isopress.codec.bytes import crc32c
from isopress.codec.encoded import Method
from isopress.codec.errors import (
    CorruptPayloadError,
    ForeignPayloadError,
    TruncatedPayloadError,
    UnsupportedVersionError,
)
from isopress.format.payload import DTYPES, MAGIC, METHODS, VERSION, PayloadInfo, Section, inspect, pack, parse
from tests.contract import ARRAYS, MODES, Array, Whole, assert_kept, bits, smooth
from tests.fields import blocky
from tests.make_golden import SMALL

# --- the payload: every field comes back, every reader rule holds, and a header stays small ---------------------------

INFO = PayloadInfo(
    dtype=np.dtype(">f8"),
    shape=(3, 721, 1440),
    order="F",
    mode="pointwise",
    method=2,
    bound=0.01,
    floor=1e-9,
    resolved_bound=0.02,
    max_error=0.5,
    rmse=0.25,
    models=("00112233445566778899aabbccddeeff", "ff" * 16),
)
LATENT = dataclasses.replace(INFO, mode="latent", bound=None, floor=None, resolved_bound=0.0, ratio=300.0)
SECTIONS = ((1, b"parameters"), (4, b""), (9, bytes(300)))


def unpack(data: bytes | bytearray) -> tuple[PayloadInfo, tuple[Section, ...]]:
    """Return header and sections of a payload, every byte of it checked."""
    parsed = parse(data)
    return parsed.info, parsed.sections()


def repaired(payload: bytes | bytearray) -> bytes:
    """Return `payload` with both checksums made right."""
    data = bytearray(payload)
    length = struct.unpack_from("<H", data, 6)[0]
    struct.pack_into("<I", data, 12, crc32c(bytes(data[length:])))
    struct.pack_into("<I", data, 8, crc32c(bytes(data[:8] + data[12:length])))
    return bytes(data)


def changed(offset: int, value: bytes, *, info: PayloadInfo = INFO) -> bytes:
    """Return a payload with other bytes at `offset` and checksums that do not tell."""
    data = bytearray(pack(info, SECTIONS))
    data[offset : offset + len(value)] = value
    return repaired(data)


@pytest.mark.parametrize("given", [INFO, LATENT, dataclasses.replace(LATENT, ratio=None, target_rmse=0.5)])
def test_every_field_and_section_comes_back(given: PayloadInfo) -> None:
    info, sections = unpack(pack(given, SECTIONS))
    assert sections == SECTIONS
    table = tuple((section, len(data)) for section, data in SECTIONS)
    nbytes = len(pack(given, SECTIONS))
    assert info == dataclasses.replace(given, sections=table, nbytes=nbytes, version=VERSION)
    assert inspect(pack(given, SECTIONS)) == info


@pytest.mark.parametrize("dtype", [order + d.str[1:] for d in DTYPES for order in "<>"])
@pytest.mark.parametrize("shape", [(), (0,), (1, 2**20), (2,) * 20, (1,) * 32])
def test_every_dtype_byte_order_and_shape_comes_back(dtype: str, shape: tuple[int, ...]) -> None:
    info = PayloadInfo(dtype=np.dtype(dtype), shape=shape, order="C", mode="lossless", method=1)
    read, sections = unpack(pack(info, ()))
    assert (read.dtype, read.shape, read.order, sections) == (np.dtype(dtype), shape, "C", ())
    assert (read.bound, read.floor, read.resolved_bound, read.max_error, read.rmse) == (None, None, 0, 0, 0)


def test_the_fixed_cost_of_a_payload_is_small() -> None:
    field = {"dtype": np.dtype("f4"), "shape": (721, 1440), "order": "C"}
    constant = PayloadInfo(mode="lossless", method=0, **field)  # type: ignore[arg-type]
    bounded = dataclasses.replace(
        INFO, models=INFO.models[:1], floor=None, resolved_bound=0.01, mode="abs", shape=(1, 721, 1440)
    )
    assert len(pack(constant, ((1, b"1234"),))) == 34
    assert len(pack(bounded, ((1, b""), (4, b"")))) == 73


def test_no_bytes_and_a_part_of_the_magic_are_truncated() -> None:
    for length in range(len(MAGIC) + 1):
        with pytest.raises(TruncatedPayloadError):
            unpack(MAGIC[:length])


@pytest.mark.parametrize("data", [b"CDF\x01", b"\x89HDF\r\n\x1a\n", b"GRIB" + bytes(99), b"\x89IST", b"\0"])
def test_foreign_bytes_are_told_apart(data: bytes) -> None:
    with pytest.raises(ForeignPayloadError):
        unpack(data)


def test_a_payload_cut_anywhere_is_truncated() -> None:
    payload = pack(INFO, SECTIONS)
    for length in range(len(payload)):
        with pytest.raises(TruncatedPayloadError):
            unpack(payload[:length])


def test_bytes_after_the_payload_are_corrupt() -> None:
    with pytest.raises(CorruptPayloadError, match="follow"):
        unpack(pack(INFO, SECTIONS) + b"\0")


def test_every_flipped_bit_is_an_error() -> None:
    payload = pack(INFO, SECTIONS)
    for bit in range(8 * len(payload)):
        data = bytearray(payload)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises((CorruptPayloadError, ForeignPayloadError, TruncatedPayloadError, UnsupportedVersionError)):
            unpack(data)


@pytest.mark.parametrize("major", [1, 2, 255])
def test_another_major_version_is_refused_whatever_follows(major: int) -> None:
    data = bytearray(pack(INFO, SECTIONS))
    data[4] = major
    for payload in (data, data[:16], data + b"more"):
        with pytest.raises(UnsupportedVersionError, match=rf"{major}\.{VERSION[1]}"):
            unpack(payload)


@pytest.mark.parametrize("minor", [minor for minor in (0, 1, 7, 10, 255) if minor != VERSION[1]])
def test_every_other_version_is_refused_and_says_which_isopress_reads_it(minor: int) -> None:
    with pytest.raises(UnsupportedVersionError, match=rf"install isopress 0\.{minor}"):
        unpack(changed(5, bytes([minor])))


@pytest.mark.parametrize(("offset", "value"), [(17, b"\x02"), (17, b"\x80"), (18, b"\x0c"), (19, b"\x06")])
def test_an_unknown_flag_dtype_or_mode_needs_a_newer_reader(offset: int, value: bytes) -> None:
    with pytest.raises(UnsupportedVersionError, match="newer"):
        unpack(changed(offset, value))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2**31,), "f4"), ((2**62,) * 32, "f8"), ((0, 2**62), "u1"), ((2**16, 2**16, 2), "u1")],
)
def test_absurd_shapes_are_refused_by_writer_and_reader_alike(
    shape: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = PayloadInfo(dtype=np.dtype(dtype), shape=shape, order="C", mode="lossless", method=0)
    with pytest.raises(ArgumentError, match="split it"):
        pack(info, ())
    monkeypatch.setattr("isopress.format.payload.check_decodable", lambda dtype, shape: None)
    with pytest.raises(CorruptPayloadError, match="at most"):
        unpack(pack(info, ()))


def _numbers(**numbers: float | None) -> Callable[[], bytes]:
    return lambda: pack(dataclasses.replace(INFO, **numbers), SECTIONS)  # type: ignore[arg-type]


def _one_axis(varint: bytes) -> Callable[[], bytes]:
    info = PayloadInfo(np.dtype("f4"), (2 ** (7 * len(varint) - 7),), "C", "lossless", 1)
    return lambda: changed(22, varint, info=info)


@pytest.mark.parametrize(
    "make",
    {
        "bound NaN": _numbers(bound=float("nan")),
        "bound 0": _numbers(bound=0.0),
        "bound missing": _numbers(bound=None),
        "floor inf": _numbers(floor=float("inf")),
        "rmse negative": _numbers(rmse=-1.0),
        "bound of lossless": lambda: changed(19, b"\0"),
        "bound of latent": lambda: changed(19, b"\x05"),
        "target of abs": lambda: pack(dataclasses.replace(LATENT, mode="abs", bound=0.1), SECTIONS),
        "target of lossless": lambda: pack(dataclasses.replace(LATENT, mode="lossless"), SECTIONS),
        "latent without a target": lambda: pack(dataclasses.replace(LATENT, ratio=None), SECTIONS),
        "latent with two targets": lambda: pack(dataclasses.replace(LATENT, target_rmse=0.5), SECTIONS),
        "ratio 0": lambda: pack(dataclasses.replace(LATENT, ratio=0.0), SECTIONS),
        "target rmse NaN": lambda: pack(dataclasses.replace(LATENT, ratio=None, target_rmse=math.nan), SECTIONS),
        "floor of abs": lambda: changed(19, b"\x01"),
        "bound of joint": lambda: changed(19, b"\x04", info=dataclasses.replace(INFO, floor=None)),
        "33 axes": lambda: changed(21, b"\x21"),
        "axes beyond the header": lambda: changed(21, b"\x20"),
        "an axis less": lambda: changed(21, b"\x02"),
        "a varint of spare bytes": _one_axis(b"\x81\x00"),
        "a varint without an end": lambda: changed(22, b"\xff" * 12),
        "byte order of bytes": lambda: changed(18, b"\x07"),
        "header length 0": lambda: changed(6, b"\0\0")[:8] + bytes(99),
        "a section twice": lambda: pack(INFO, ((1, b""), (1, b""))),
    }.items(),
    ids=lambda item: item[0],
)
def test_contradictions_behind_good_checksums_are_corrupt(make: tuple[str, Callable[[], bytes]]) -> None:
    payload: Any = make[1]()
    with pytest.raises(CorruptPayloadError):
        unpack(payload)


def test_what_a_header_says_is_readable() -> None:
    info = PayloadInfo(
        np.dtype("f4"), (3, 4), "C", "abs", Method.PYRAMID, bound=0.1, max_error=0.09, rmse=0.05, models=("ab" * 16,)
    )
    text = repr(info)
    for part in ("payload ", "(3, 4)", "abs bound 0.1", "largest 0.09, RMSE 0.05", "pyramid", "ab" * 16):
        assert part in text
        assert part in info._repr_html_()
    assert [name.lower() for name in Method.__members__] == list(METHODS)


# --- compress, decompress, inspect: the contract, and what the header says of an array --------------------------------


class TestApi(Whole):
    """compress and decompress."""

    def roundtrip(self, x: Array, **settings: Any) -> Array:
        y: Array = isopress.decompress(isopress.compress(x, **settings))
        return y


@pytest.mark.parametrize("mode", MODES)
def test_inspect_tells_settings_errors_and_sizes_without_the_sections(mode: str) -> None:
    x = smooth(2, 9, 10).astype(">f4")
    payload = isopress.compress(x, **MODES[mode])
    info = isopress.inspect(payload)
    y = isopress.decompress(payload)
    assert (info.dtype, info.shape, info.order, info.version) == (x.dtype, x.shape, "C", VERSION)
    asked = {"mode": info.mode, "bound": info.bound, "floor": info.floor, "ratio": info.ratio, "rmse": info.target_rmse}
    assert {name: value for name, value in asked.items() if value is not None} == MODES[mode]
    assert (info.nbytes, info.original_nbytes) == (len(payload), x.nbytes)
    errors = x.astype("f8") - y.astype("f8")
    assert info.max_error == abs(errors).max()
    assert info.rmse == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
    header = payload[: info.nbytes - sum(length for _, length in info.sections)]
    assert isopress.inspect(header) == info


def test_the_resolved_bound_of_a_range_is_in_the_unit_of_the_data() -> None:
    x = np.array([[1.0, 3.0], [np.nan, 2.0]], "f4")
    assert isopress.inspect(isopress.compress(x, mode="range", bound=0.25)).resolved_bound == 0.5


@pytest.mark.parametrize("mode", MODES)
def test_errors_stay_finite_for_the_largest_floats(mode: str) -> None:
    x = smooth(6, 7) * 3e305
    x[0, 0] = -np.finfo("f8").max
    payload = isopress.compress(x, **MODES[mode])
    assert np.isfinite(isopress.inspect(payload).rmse)
    assert_kept(x, isopress.decompress(payload), **MODES[mode])


def test_signalling_nan_keeps_its_bits_in_either_byte_order() -> None:
    x = np.array([0x7FF0000000000001, 0xFFF8000000000ABC, 0x3FF0000000000000], "<u8").view("<f8")
    for dtype in ("<f8", ">f8"):
        y = x if dtype == "<f8" else x.view("u8").byteswap().view(">f8")
        for settings in MODES.values():
            assert isopress.decompress(isopress.compress(y, **settings)).tobytes() == y.tobytes()


@pytest.mark.parametrize("model", ["default", SMALL])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_signalling_nan_keeps_its_bits_beside_latents(dtype: str, model: str) -> None:
    x = blocky(shape=(12, 14)).astype(dtype)
    x.view(f"u{x.itemsize}")[..., 0, :3] = 0x7F800001 if dtype == "f4" else 0x7FF0000000000001
    y = isopress.decompress(isopress.compress(x, mode="latent", rmse=0.5, model=model))
    assert bits(y[..., 0, :3]) == bits(x[..., 0, :3])


def test_compressing_does_not_alter_the_array() -> None:
    x = ARRAYS["special values"]()
    before = bits(x)
    for settings in MODES.values():
        isopress.compress(x, **settings)
    assert bits(x) == before


def test_lists_and_scalars_are_arrays_too() -> None:
    assert isopress.decompress(isopress.compress([1.0, 2.0], mode="lossless")).tolist() == [1.0, 2.0]
    assert isopress.decompress(isopress.compress(1.5, mode="lossless")).shape == ()


def test_a_constant_field_costs_a_header() -> None:
    x = np.full((721, 1440), 273.15, "f4")
    assert all(len(isopress.compress(x, **settings)) <= 100 for settings in MODES.values())


def test_noise_costs_at_most_64_bytes_more_than_its_raw_bytes() -> None:
    x = np.random.default_rng(0).integers(0, 2**32, (16, 17), "u4").view("f4")
    for settings in MODES.values():
        assert len(isopress.compress(x, **settings)) <= x.nbytes + 64


@pytest.mark.parametrize("buf", ["text", 3, None, [1, 2], np.zeros(8, "u1")[::2]])
def test_what_is_no_buffer_of_bytes_is_refused(buf: Any) -> None:
    with pytest.raises(ArgumentError, match="contiguous"):
        isopress.decompress(buf)


def test_an_array_larger_than_a_payload_may_hold_is_refused_before_it_is_touched() -> None:
    x = np.broadcast_to(np.float32(0), (2**20, 2**11))
    with pytest.raises(ArgumentError, match="split it into chunks"):
        isopress.compress(x, mode="lossless")


@pytest.mark.parametrize(
    "settings",
    [
        {"bound": 0.1, "context": np.zeros(3)},
        {"bound": 0.1, "context": ["auto"]},
        {"bound": 0.1, "mode": np.zeros(2)},
        {"bound": 0.1, "mode": ["abs"]},
        {"bound": 0.1, "exact": "x"},
        {"bound": 0.1, "exact": [10**400]},
        {"bound": 0.1, "exact": [[1, 2]]},
        {"bound": 0.1, "exact": 5},
        {"bound": 10**400},
        {"bound": np.zeros((2, 2))},
        {"bound": 0.1, "model": np.zeros(2)},
        {"mode": "latent", "ratio": np.zeros(2)},
        {"mode": "latent", "rmse": 1.0, "effort": np.zeros(2)},
    ],
    ids=str,
)
def test_settings_of_any_kind_are_refused_as_arguments(settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        isopress.compress(smooth(2, 5, 6), **settings)


# --- lists of bounds --------------------------------------------------------------------------------------------------


def test_several_bounds_need_a_first_axis_of_that_length() -> None:
    x = smooth(2, 6, 7)
    for bound in ([0.1, 0.2], (0.1, 0.2), np.array([0.1, 0.2], "f4")):
        payload = isopress.compress(x, bound=bound)
        error = np.abs(isopress.decompress(payload) - x).max((1, 2))
        assert (error <= np.array(bound, "f8")).all()
    with pytest.raises(ArgumentError, match=r"3 bounds need chunks of shape \(3, ..., lat, lon\).*got \(2, 6, 7\)"):
        isopress.compress(x, bound=[1, 2, 3])
    for settings in ({"bound": []}, {"bound": [1, -1]}, {"bound": [1, "2"]}, {"bound": [1, 2], "mode": "range"}):
        with pytest.raises(ArgumentError):
            isopress.compress(x, **settings)


def test_a_codec_takes_one_bound_for_each_entry_of_the_first_axis() -> None:
    codec = IsopressCodec(bound=[0.1, 0.2])
    assert codec.to_dict()["configuration"] == {"mode": "abs", "bound": [0.1, 0.2]}
    assert IsopressCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    assert hash(codec) == hash(IsopressCodec(bound=(0.1, 0.2)))
    x = smooth(2, 6, 7)
    options: dict[str, Any] = {"shape": x.shape, "dtype": "f8", "serializer": codec, "compressors": None}
    array = zarr.create_array({}, chunks=x.shape, **options)
    array[...] = x
    assert (np.abs(np.asarray(array[...]) - x).max((1, 2)) <= [0.1, 0.2]).all()
    with pytest.raises(ArgumentError, match="2 bounds need chunks"):
        zarr.create_array({}, chunks=(1, 6, 7), **options)
