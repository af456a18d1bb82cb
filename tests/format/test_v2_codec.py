"""The numcodecs codec: contract, configuration, buffers, `out=`, and Zarr v2 arrays."""

import json
import pickle
from pathlib import Path
from typing import Any

import dask.array
import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr

from isopress import ArgumentError
from isopress.format.zarr.v2_codec import Isopress
from tests.contract import MODES, Array, Contract, assert_kept, bits, smooth

LOSSLESS = Isopress(mode="lossless")


class TestCodec(Contract):
    """encode and decode, called as numcodecs calls them."""

    def roundtrip(self, x: Array, **settings: Any) -> Array:
        codec = Isopress(**settings)
        y: Array = codec.decode(codec.encode(x))
        return y


class TestZarrV2Array(Contract):
    """A Zarr v2 array whose chunks do not divide its shape."""

    def roundtrip(self, x: Array, **settings: Any) -> Array:
        chunks = tuple(max(1, n - n // 3) for n in x.shape)
        fill = np.nan if x.dtype.kind == "f" else 0  # NaN: what pads an edge chunk is no part of its range
        array = create(None, x, Isopress(**settings), chunks=chunks, fill_value=fill)
        array[...] = x
        return np.asarray(array[...])


def create(path: Path | None, x: Array, codec: Isopress, **options: Any) -> zarr.Array[Any]:
    store = zarr.storage.MemoryStore() if path is None else path
    options = {"chunks": x.shape, "fill_value": 0} | options
    return zarr.create_array(
        store, shape=x.shape, dtype=x.dtype, zarr_format=2, compressors=codec, filters=None, **options
    )


@pytest.mark.parametrize("settings", [*MODES.values(), {"bound": 1, "model": "other"}])
def test_a_codec_survives_json_pickle_and_repr(settings: dict[str, Any]) -> None:
    codec = Isopress(**settings)
    assert numcodecs.get_codec(json.loads(json.dumps(codec.get_config()))) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert eval(repr(codec)) == codec
    assert Isopress(mode="abs", bound=0.5) != codec


def test_the_configuration_names_only_what_differs_from_the_default() -> None:
    assert Isopress(bound=np.float32(0.5)).get_config() == {"id": "isopress", "mode": "abs", "bound": 0.5}
    assert LOSSLESS.get_config() == {"id": "isopress", "mode": "lossless"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mode": "best", "bound": 1},
        {"bound": -1},
        {"bound": float("nan")},
        {"bound": "1"},
        {"mode": "lossless", "bound": 1},
        {"bound": 1, "floor": 1},
        {"bound": 1, "model": ""},
    ],
)
def test_a_bad_configuration_is_refused_when_it_is_made(settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        Isopress(**settings)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_the_decoded_array_has_the_memory_order_of_the_encoded(order: Any, dtype: str) -> None:
    x = np.asarray(smooth(3, 6, 7), dtype, order=order)
    y = LOSSLESS.decode(LOSSLESS.encode(x))
    assert y.flags.c_contiguous == (order == "C")
    assert y.flags.f_contiguous == (order == "F")
    assert y.flags.writeable


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, "u1")])
def test_payloads_decode_from_every_kind_of_buffer(wrap: Any) -> None:
    x = smooth(5, 6)
    assert bits(LOSSLESS.decode(wrap(LOSSLESS.encode(x)))) == bits(x)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_lossless_stores_plain_bytes(wrap: Any) -> None:
    raw = bytes(range(200)) * 3
    assert LOSSLESS.decode(LOSSLESS.encode(wrap(raw))).tobytes() == raw


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_out_is_filled_and_returned(order: Any, dtype: str) -> None:
    x = np.asarray(smooth(5, 6), dtype, order=order)
    payload = LOSSLESS.encode(x)
    for out in (np.zeros_like(x), np.zeros(x.shape, dtype, order="F" if order == "C" else "C")):
        assert LOSSLESS.decode(payload, out=out) is out
        assert bits(out) == bits(x)
    flat = bytearray(x.nbytes)
    LOSSLESS.decode(payload, out=flat)
    assert bytes(flat) == x.tobytes(order="A")
    assert (
        bits(LOSSLESS.decode(payload, out=np.zeros(x.size, dtype)))
        == x.reshape(-1, order="A").astype(x.dtype.newbyteorder("<")).tobytes()
    )


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((5, 7), "<f4"),
        np.zeros((5, 6), "<f8"),
        np.zeros((5, 6), ">f4"),
        np.zeros((5, 6), "<i4"),
        bytearray(119),
        bytes(120),
    ],
)
def test_an_out_that_cannot_take_the_array_is_refused(out: Any) -> None:
    with pytest.raises(ArgumentError, match="out "):
        LOSSLESS.decode(LOSSLESS.encode(smooth(5, 6).astype("<f4")), out=out)


@pytest.mark.parametrize("x", [b"1234", np.zeros(8, "u1"), np.zeros((2, 3), "i4"), np.zeros(3, "f2")])
def test_a_bounded_mode_after_a_filter_that_returns_bytes_is_a_clear_error(x: Any) -> None:
    with pytest.raises(ArgumentError, match="filter"):
        Isopress(bound=0.1).encode(x)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(3, complex),
        np.array([None]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "U3"),
        np.zeros(2, "f4,i4"),
        np.ma.masked_all((2, 3), "f4"),
    ],
)
def test_arrays_that_cannot_be_stored_are_refused_in_every_mode(x: Array) -> None:
    for codec in (LOSSLESS, Isopress(bound=1)):
        with pytest.raises(ArgumentError, match="stored"):
            codec.encode(x)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_v2_arrays_of_either_order_keep_values_in_place(order: Any, dtype: str, tmp_path: Path) -> None:
    x = smooth(5, 9, 8).astype(dtype)
    create(tmp_path / "a", x, Isopress(bound=0.01), chunks=(2, 9, 8), order=order)[...] = x
    array = zarr.open_array(tmp_path / "a", mode="r")
    assert array.metadata.order == order
    assert_kept(x, np.asarray(array[...]), mode="abs", bound=0.01)
    assert_kept(x[1:4, 2], np.asarray(array[1:4, 2]), mode="abs", bound=0.01)


def test_edge_chunks_padded_with_nan_keep_their_bound(tmp_path: Path) -> None:
    x = smooth(3, 10, 11).astype("f4")
    array = create(tmp_path / "a", x, Isopress(bound=0.01), chunks=(2, 8, 8), fill_value=np.nan)
    array[...] = x
    assert_kept(x, np.asarray(array[...]), mode="abs", bound=0.01)


def test_empty_chunks_read_as_the_fill_value(tmp_path: Path) -> None:
    x = np.full((4, 6), np.nan, "f4")
    array = create(tmp_path / "a", x, Isopress(bound=0.01), chunks=(2, 6), fill_value=np.nan)
    array[2:] = 1.0
    assert array.nchunks_initialized == 1
    assert np.isnan(array[:2]).all()
    assert (array[2:] == 1.0).all()


def test_a_filter_before_isopress_in_a_v2_array_is_a_clear_error() -> None:
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=(4, 6),
        dtype="f4",
        zarr_format=2,
        filters=[numcodecs.FixedScaleOffset(offset=0, scale=10, dtype="f4", astype="i2")],
        compressors=Isopress(bound=0.01),
    )
    with pytest.raises(ArgumentError, match="filter"):
        array[...] = 1.5


def test_dask_writes_and_reads_v2_through_xarray(tmp_path: Path) -> None:
    x = smooth(4, 9, 10).astype("f4")
    source = xr.Dataset({"t": (("time", "lat", "lon"), dask.array.from_array(x, chunks=(2, 9, 10)))})
    encoding = {"t": {"compressors": [Isopress(bound=0.01)]}}
    source.to_zarr(tmp_path / "a", zarr_format=2, encoding=encoding, consolidated=True)
    with xr.open_zarr(tmp_path / "a") as opened:
        assert opened.t.encoding["compressors"][0] == Isopress(bound=0.01)
        assert_kept(x, opened.t.values, mode="abs", bound=0.01)
