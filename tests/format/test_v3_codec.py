"""The Zarr v3 codec: contract, metadata, shards, partial reads, threads, edges, xarray and dask."""

import asyncio
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr

import isopress
from isopress import ArgumentError
from isopress.codec.errors import CorruptPayloadError
from isopress.format import IsopressCodec, api
from tests.contract import MODES, Array, Contract, assert_kept, bits, smooth


def create(path: Path | None, x: Array, codec: IsopressCodec, **options: Any) -> zarr.Array[Any]:
    store = zarr.storage.MemoryStore() if path is None else path
    options = {"chunks": x.shape, "fill_value": 0} | options
    return zarr.create_array(
        store, shape=x.shape, dtype=x.dtype, zarr_format=3, serializer=codec, compressors=None, **options
    )


class TestArray(Contract):
    """A Zarr v3 array whose chunks do not divide its shape."""

    keeps_byte_order = False  # a v3 array has the byte order of the machine that reads it

    def roundtrip(self, x: Array, **settings: Any) -> Array:
        chunks = tuple(max(1, n - n // 3) for n in x.shape)
        fill = np.nan if x.dtype.kind == "f" else 0  # NaN: what pads an edge chunk is no part of its range
        array = create(None, x, IsopressCodec(**settings), chunks=chunks, fill_value=fill)
        array[...] = x
        return np.asarray(array[...])


class TestShardedArray(Contract):
    """A Zarr v3 array with several chunks in each shard."""

    keeps_byte_order = False

    def roundtrip(self, x: Array, **settings: Any) -> Array:
        chunks = tuple(max(1, n - n // 3) for n in x.shape)
        shards = (*chunks[:-1], 2 * chunks[-1]) if chunks else None  # an array without axes has no shards
        fill = np.nan if x.dtype.kind == "f" else 0
        array = create(None, x, IsopressCodec(**settings), chunks=chunks, shards=shards, fill_value=fill)
        array[...] = x
        return np.asarray(array[...])


@pytest.mark.parametrize("settings", [*MODES.values(), {"bound": 1, "model": "other"}])
def test_a_codec_survives_json_pickle_and_repr(settings: dict[str, Any]) -> None:
    codec = IsopressCodec(**settings)
    assert IsopressCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert eval(repr(codec)) == codec
    assert len({codec, IsopressCodec(**settings)}) == 1


def test_the_metadata_of_an_array_names_the_codec_and_its_settings(tmp_path: Path) -> None:
    create(tmp_path / "a", smooth(4, 5), IsopressCodec(mode="pointwise", bound=0.01, floor=1e-6))
    codecs = json.loads((tmp_path / "a" / "zarr.json").read_text())["codecs"]
    settings = {"mode": "pointwise", "bound": 0.01, "floor": 1e-6}
    assert codecs == [{"name": "isopress", "configuration": settings}]


@pytest.mark.parametrize("shards", [None, (4, 18, 20)])
def test_partial_reads_return_the_values_of_a_full_read(shards: Any, tmp_path: Path) -> None:
    x = smooth(5, 18, 20).astype("f4")
    create(tmp_path / "a", x, IsopressCodec(bound=0.01), chunks=(2, 9, 10), shards=shards)[...] = x
    array = zarr.open_array(tmp_path / "a", mode="r")
    full = np.asarray(array[...])
    assert_kept(x, full, mode="abs", bound=0.01)
    for selection in ((3, 4, 5), (slice(1, 4), 7), (slice(None), slice(8, 11), slice(None, None, 3))):
        np.testing.assert_array_equal(array[selection], full[selection])
    np.testing.assert_array_equal(array.oindex[[0, 4], :, [3, 12]], full[[0, 4]][:, :, [3, 12]])
    np.testing.assert_array_equal(array.vindex[[0, 4], [2, 17], [3, 12]], full[[0, 4], [2, 17], [3, 12]])


@pytest.mark.parametrize("shards", [None, (4, 18, 20)])
def test_partial_writes_keep_the_bound_of_what_is_written(shards: Any, tmp_path: Path) -> None:
    x = smooth(4, 18, 20)
    array = create(tmp_path / "a", x, IsopressCodec(mode="lossless"), chunks=(2, 9, 10), shards=shards)
    array[...] = x
    array[1, 3:15] = x[0, 3:15] = x[1, 3:15] = 7.0
    assert bits(np.asarray(array[1])) == bits(x[1])


def test_a_chunk_never_written_reads_as_the_fill_value(tmp_path: Path) -> None:
    array = create(tmp_path / "a", smooth(4, 6), IsopressCodec(bound=0.1), chunks=(2, 6), fill_value=np.nan)
    array[2:] = 1.0
    assert array.nchunks_initialized == 1
    assert np.isnan(array[:2]).all()
    assert np.isnan(array[0, 1])
    assert (array[2:] == 1.0).all()


@pytest.mark.parametrize("order", "CF")
def test_either_memory_order_of_the_reader_keeps_values_in_place(order: Any, tmp_path: Path) -> None:
    x = np.asarray(smooth(3, 6, 7), order=order)
    create(tmp_path / "a", x, IsopressCodec(mode="lossless"), config={"order": order})[...] = x
    y = zarr.open_array(tmp_path / "a", mode="r", config={"order": order})[...]
    assert bits(np.asarray(y)) == bits(x)


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "U4", "i4", "f2", "?"])
def test_a_dtype_the_mode_cannot_code_is_refused_when_the_array_is_made(dtype: str) -> None:
    with pytest.raises(ArgumentError):
        create(None, np.zeros((4, 5), dtype), IsopressCodec(bound=0.1), fill_value=None)


def test_chunks_larger_than_a_payload_may_hold_are_refused_when_the_array_is_made() -> None:
    x = np.broadcast_to(np.float32(0), (2**16, 2**16))
    with pytest.raises(ArgumentError, match="split it into chunks"):
        create(None, x, IsopressCodec(bound=0.1), chunks=(2**16, 2**15))
    assert create(None, x, IsopressCodec(bound=0.1), chunks=(2**10, 2**10)).shape == x.shape


@pytest.mark.parametrize("other", [smooth(4, 6), smooth(4, 5).astype("f4"), smooth(1, 4, 5)])
def test_a_payload_of_another_shape_or_dtype_is_refused(other: Array, tmp_path: Path) -> None:
    array = create(tmp_path / "a", smooth(4, 5), IsopressCodec(mode="lossless"))
    array[...] = smooth(4, 5)
    (tmp_path / "a" / "c" / "0" / "0").write_bytes(isopress.compress(other, mode="lossless"))
    with pytest.raises(CorruptPayloadError, match="metadata"):
        array[...]


def test_a_damaged_chunk_is_an_error_never_values(tmp_path: Path) -> None:
    array = create(tmp_path / "a", smooth(4, 5), IsopressCodec(bound=0.1))
    array[...] = smooth(4, 5)
    chunk = tmp_path / "a" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptPayloadError):
        array[...]


def test_work_is_done_in_threads_not_in_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def spied(function: Callable[..., Any]) -> Callable[..., Any]:
        def spy(*args: Any, **kwargs: Any) -> Any:
            seen.append(asyncio._get_running_loop() is None)
            return function(*args, **kwargs)

        return spy

    monkeypatch.setattr(api, "encode", spied(api.encode))
    monkeypatch.setattr(api, "decode", spied(api.decode))
    x = smooth(4, 6, 7)
    array = create(None, x, IsopressCodec(mode="lossless"), chunks=(1, 6, 7))
    array[...] = x
    array[...], array[1, 2]
    assert seen == [True] * 9


def test_many_threads_read_one_array() -> None:
    x = smooth(6, 9, 10).astype("f4")
    array = create(None, x, IsopressCodec(bound=0.01), chunks=(1, 9, 10))
    array[...] = x
    results: list[Array] = []
    threads = [threading.Thread(target=lambda: results.append(np.asarray(array[...]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert_kept(x, result, mode="abs", bound=0.01)


def test_the_encoded_size_is_not_known_in_advance() -> None:
    with pytest.raises(NotImplementedError, match="depends on the values"):
        IsopressCodec(mode="lossless").compute_encoded_size(80, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("shards", [None, (2, 18, 20)])
def test_dask_writes_and_reads_v3_through_xarray(shards: Any, tmp_path: Path) -> None:
    x = smooth(4, 18, 20).astype("f4")
    x[1, :5] = np.nan
    source = xr.Dataset({"t": (("time", "lat", "lon"), dask.array.from_array(x, chunks=(2, 18, 20)))})
    codec = IsopressCodec(bound=0.01)
    encoding = {"serializer": codec, "compressors": (), "chunks": (1, 9, 10), "shards": shards}
    source.to_zarr(tmp_path / "a", zarr_format=3, encoding={"t": encoding}, consolidated=False)
    with xr.open_zarr(tmp_path / "a", consolidated=False) as opened:
        assert opened.t.encoding["serializer"] == codec
        assert_kept(x, opened.t.values, mode="abs", bound=0.01)
        assert_kept(x[2, 3:6], opened.t[2, 3:6].values, mode="abs", bound=0.01)
