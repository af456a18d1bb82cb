"""Single fields that are read: of blocks, and through the cache."""

import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

import isopress
from isopress import ArgumentError
from isopress.codec.chunk.decode import ChunkDecoder
from isopress.codec.encoded import EncodedChunk, Method
from isopress.format import Isopress, IsopressCodec, api
from isopress.format.api import compress, decode
from isopress.format.decode_cache import CACHE, VARIABLE, DecodeCache, set_cache_size
from isopress.format.payload import parse
from isopress.format.rewrites import whole_chunks
from tests.contract import Array, assert_kept, smooth

# --- blocks in Zarr: a part of a chunk costs the fields it needs, once, whoever asks for it and however ---------------

TIMES, H, W = 24, 18, 20
X = smooth(TIMES, H, W).astype("f4")
BLOCK = {"bound": 0.05, "context": "block"}


class Counter:
    """Remembers every decoder that is made; `fields` is how many fields all of them have decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoders: list[ChunkDecoder] = []
        monkeypatch.setattr(api, "ChunkDecoder", self._make)

    def _make(self, *arguments: Any) -> ChunkDecoder:
        self.decoders.append(ChunkDecoder(*arguments))
        return self.decoders[-1]

    @property
    def fields(self) -> int:
        return sum(decoder.decoded for decoder in self.decoders)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    CACHE.clear()
    yield Counter(monkeypatch)
    CACHE.clear()


@pytest.fixture(scope="module")
def payload() -> bytes:
    return isopress.compress(X, **BLOCK)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One block in a v3 array `t`, and the same in a shard with another, `s`."""
    path = tmp_path_factory.mktemp("blocks") / "store.zarr"
    group = zarr.create_group(path)
    options: dict[str, Any] = {"dtype": "f4", "serializer": IsopressCodec(**BLOCK), "compressors": None}
    dims = ("time", "lat", "lon")
    group.create_array("t", shape=X.shape, chunks=X.shape, dimension_names=dims, **options)[...] = X
    options |= {"chunks": (1, *X.shape), "shards": (2, *X.shape), "dimension_names": ("number", *dims)}
    group.create_array("s", shape=(2, *X.shape), **options)[...] = np.stack([X, X])
    return path


def array(store: Path, name: str = "t") -> zarr.Array[Any]:
    found: Any = zarr.open_group(store, mode="r")[name]
    return found


def chain(payload: bytes, *fields: int) -> int:
    """Return how many fields the codec decodes for these."""
    parsed = parse(payload)
    info, sections = parsed.info, parsed.sections()
    encoded = EncodedChunk(info.method, sections, tuple(map(bytes.fromhex, info.models)))
    decoder = ChunkDecoder(encoded, info.dtype, info.shape)
    decoder.decode(fields)
    return decoder.decoded


def test_a_smooth_series_is_coded_as_a_block(payload: bytes) -> None:
    assert isopress.inspect(payload).method == Method.BLOCK
    assert_kept(X, isopress.decompress(payload), mode="abs", bound=0.05)
    assert len(payload) < len(isopress.compress(X, bound=0.05, context="field"))


@pytest.mark.parametrize("time", [0, 5, 23])
def test_one_time_of_a_block_costs_its_references_only(
    store: Path, counter: Counter, time: int, payload: bytes
) -> None:
    assert_kept(X[time], np.asarray(array(store)[time]), mode="abs", bound=0.05)
    assert counter.fields == chain(payload, time) <= TIMES // 2


def test_a_shard_reads_the_block_it_needs_and_of_that_one_time(store: Path, counter: Counter, payload: bytes) -> None:
    assert_kept(X[7, 3:5], np.asarray(array(store, "s")[1, 7, 3:5]), mode="abs", bound=0.05)
    assert counter.fields == chain(payload, 7) <= TIMES // 2


def test_times_read_one_after_another_are_decoded_once(store: Path, counter: Counter) -> None:
    for time in [*range(TIMES), *range(TIMES)]:
        assert_kept(X[time], np.asarray(array(store)[time]), mode="abs", bound=0.05)
    assert counter.fields == TIMES
    assert len(counter.decoders) == 1


SELECTIONS: dict[str, Any] = {
    "an integer": lambda a: a[3],
    "a point": lambda a: a[3, 4, 5],
    "a negative integer": lambda a: a[-2, :, 3],
    "slices": lambda a: a[2:9:3, 4:8],
    "an ellipsis": lambda a: a[..., 2],
    "orthogonal": lambda a: a.oindex[[1, 20], :, [3, 7, 9]],
    "orthogonal with an integer": lambda a: a.oindex[4, [1, 5]],
    "a mask": lambda a: a.oindex[np.arange(TIMES) % 9 == 2],
    "points": lambda a: a.vindex[[0, 3, 3], [1, 2, 17], [4, 5, 19]],
    "nothing": lambda a: a[4:4],
    "everything": lambda a: a[...],
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_every_selection_returns_the_values_of_the_whole(store: Path, counter: Counter, name: str) -> None:
    whole = isopress.decompress((store / "t" / "c" / "0" / "0" / "0").read_bytes())
    CACHE.clear()
    counter.decoders.clear()
    plain = zarr.create_array({}, data=whole)
    np.testing.assert_array_equal(SELECTIONS[name](array(store)), SELECTIONS[name](plain))
    assert counter.fields < TIMES or name in ("an ellipsis", "everything")


def test_a_selection_numpy_alone_understands_costs_the_whole_and_is_right(payload: bytes) -> None:
    whole = isopress.decompress(payload)
    for selection in (np.s_[..., 2], (whole[:, 0, 0] > 280,), whole > 280, (None, 3), 5, np.s_[:, [1, 2], [3, 4]]):
        np.testing.assert_array_equal(api.decode(parse(payload), selection), whole[selection])
    with pytest.raises(IndexError):
        api.decode(parse(payload), (TIMES,))


@pytest.mark.parametrize("dtype", [">f4", "<f8"])
def test_parts_have_the_dtype_of_the_whole(dtype: str) -> None:
    for x in (X[:4].astype(dtype), np.asfortranarray(X[:4], dtype)):
        whole = isopress.decompress(isopress.compress(x, **BLOCK))  # type: ignore[arg-type]
        part = api.decode(parse(isopress.compress(x, **BLOCK)), (1, slice(2, 5)))  # type: ignore[arg-type]
        assert part.dtype == whole.dtype == dtype
        assert whole.flags.f_contiguous == x.flags.f_contiguous
        np.testing.assert_array_equal(part, whole[1, 2:5])


def test_arrays_do_not_change_when_another_is_written_to(payload: bytes) -> None:
    first, part = isopress.decompress(payload), api.decode(parse(payload), (3,))
    expected = first.copy()
    first[...] = part[...] = -1
    np.testing.assert_array_equal(isopress.decompress(payload), expected)


def test_fields_that_know_nothing_of_each_other_fill_no_cache(counter: Counter) -> None:
    isopress.decompress(isopress.compress(X, bound=0.05, context="field"))
    assert CACHE.nbytes == 0
    assert len(counter.decoders) == 1


def test_a_damaged_block_is_an_error_every_time(store: Path, payload: bytes) -> None:
    damaged = payload[:-1] + bytes([payload[-1] ^ 1])
    for _ in range(2):
        with pytest.raises(isopress.PayloadError):
            isopress.decompress(damaged)
    assert_kept(X, isopress.decompress(payload), mode="abs", bound=0.05)


def test_many_threads_decode_each_field_once(store: Path, counter: Counter) -> None:
    results: dict[int, Array] = {}

    def read(number: int) -> None:
        opened = array(store)
        for time in range(number, TIMES, 3):
            results[time] = np.asarray(opened[time])

    threads = [threading.Thread(target=read, args=(number % 3,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_kept(X, np.stack([results[time] for time in range(TIMES)]), mode="abs", bound=0.05)
    assert counter.fields == TIMES


@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
def test_dask_reads_times_of_a_block_in_parallel(store: Path, counter: Counter) -> None:
    with xr.open_zarr(store, chunks={"time": 1}, consolidated=False) as opened, dask.config.set(scheduler="threads"):
        assert_kept(X, opened.t.compute().values, mode="abs", bound=0.05)
    assert counter.fields == TIMES


READER = """
import numpy as np
import xarray as xr
for path in ("2", "3"):
    with xr.open_zarr(path, consolidated=False) as opened:
        np.save(f"{path}.npy", opened["t"].isel(time=[1, 5]).values)
"""


def test_a_fresh_process_reads_blocks_with_plain_xarray(tmp_path: Path) -> None:
    codecs = {2: {"compressors": [Isopress(**BLOCK)]}, 3: {"serializer": IsopressCodec(**BLOCK), "compressors": ()}}
    dataset = xr.Dataset({"t": (("time", "lat", "lon"), X[:7])})
    for zarr_format, codec in codecs.items():
        encoding = {"t": codec | {"chunks": (4, H, W)}}
        dataset.to_zarr(tmp_path / f"{zarr_format}", zarr_format=zarr_format, encoding=encoding, consolidated=False)  # type: ignore[call-overload]
    command = [sys.executable, "-W", "error", "-c", READER]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for zarr_format in codecs:
        assert_kept(X[[1, 5]], np.load(tmp_path / f"{zarr_format}.npy"), mode="abs", bound=0.05)


def test_zarr_v2_decodes_a_block_once_for_all_its_times(counter: Counter) -> None:
    opened = zarr.create_array(
        {}, shape=X.shape, chunks=X.shape, dtype="f4", zarr_format=2, compressors=Isopress(**BLOCK), filters=None
    )
    opened[...] = X
    for time in range(TIMES):
        assert_kept(X[time], np.asarray(opened[time]), mode="abs", bound=0.05)
    assert counter.fields == TIMES


def test_times_beyond_the_end_of_an_array_cost_next_to_nothing() -> None:
    padded = np.concatenate([X[:5], np.full((TIMES - 5, H, W), np.nan, "f4")])
    whole = isopress.compress(X[:5], bound=0.05)
    assert len(isopress.compress(padded, bound=0.05)) < 1.1 * len(whole) + 20 * (TIMES - 5)


def test_a_context_that_is_none_is_refused() -> None:
    with pytest.raises(isopress.ArgumentError, match="auto, field, block"):
        IsopressCodec(bound=0.1, context="both")
    assert IsopressCodec(**BLOCK).to_dict()["configuration"] == {"mode": "abs"} | BLOCK


def test_every_leading_axis_counts(counter: Counter) -> None:
    x = np.stack([X[:6], 2 * X[:6]], 1)
    y = api.decode(parse(isopress.compress(x, **BLOCK)), (slice(2, 3), 1))  # type: ignore[arg-type]
    assert_kept(x[2:3, 1], y, mode="abs", bound=0.05)
    assert counter.fields < math.prod(x.shape[:2])


# --- the decode cache: bounded, forgetful in the right order, and one decode for any number of threads ----------------


def use(cache: DecodeCache, name: str, nbytes: int = 10) -> Any:
    """Return the decoder of a payload, made anew if the cache has none."""
    with cache.decoder(memoryview(name.encode()), nbytes, object) as decoder:  # type: ignore[arg-type]
        return decoder


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cache of this process as if nobody had set its size."""
    monkeypatch.setattr(CACHE, "_limit", None)
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    CACHE.clear()


def test_a_chunk_is_decoded_once() -> None:
    cache = DecodeCache(100)
    assert use(cache, "a") is use(cache, "a")
    assert use(cache, "a") is not use(cache, "b")
    assert cache.nbytes == 20


def test_what_was_not_used_for_the_longest_time_is_forgotten_first() -> None:
    cache = DecodeCache(30)
    a, b = use(cache, "a"), use(cache, "b")
    use(cache, "c")
    assert use(cache, "a") is a
    use(cache, "d")
    assert cache.nbytes == 30
    assert use(cache, "a") is a
    assert use(cache, "b") is not b


def test_a_chunk_larger_than_the_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache = DecodeCache(30)
    a, large = use(cache, "a"), use(cache, "large", 31)
    assert use(cache, "large", 31) is not large
    assert use(cache, "a") is a
    assert cache.nbytes == 10


def test_a_limit_of_0_switches_the_cache_off_and_forgets_everything() -> None:
    cache = DecodeCache(30)
    a = use(cache, "a")
    cache.limit = 0
    assert cache.nbytes == 0
    assert use(cache, "a") is not a


def test_a_decoder_that_fails_is_not_kept() -> None:
    cache = DecodeCache(30)
    with pytest.raises(ZeroDivisionError), cache.decoder(memoryview(b"a"), 10, lambda: 1 // 0):  # type: ignore[arg-type, return-value]
        pass
    a = use(cache, "b")
    with pytest.raises(ZeroDivisionError), cache.decoder(memoryview(b"b"), 10, object):  # type: ignore[arg-type]
        raise ZeroDivisionError
    assert use(cache, "b") is not a
    assert cache.nbytes == 10


def test_who_reads_whole_chunks_keeps_none(unset: None) -> None:
    x = smooth(4, 24, 30).astype("f4")
    data = parse(compress(x, bound=0.01, context="block"))
    CACHE.clear()
    with whole_chunks():
        values, part = decode(data), decode(data, (slice(1, 3), 5))
        assert CACHE.nbytes == 0
    assert values.tobytes() == decode(data).tobytes()
    assert part.tobytes() == values[1:3, 5].tobytes()
    assert CACHE.nbytes == 2 * x.nbytes


def test_threads_that_want_the_same_chunk_share_one_decoder() -> None:
    cache, made = DecodeCache(100), []
    barrier = threading.Barrier(8)

    def start() -> Any:
        made.append(object())
        return made[-1]

    def read() -> None:
        barrier.wait()
        for _ in range(50):
            with cache.decoder(memoryview(b"a"), 10, start) as decoder:
                assert decoder is made[0]

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_different_chunks_are_decoded_at_the_same_time() -> None:
    cache, meeting = DecodeCache(100), threading.Barrier(2, timeout=30)

    def read(name: bytes) -> None:
        with cache.decoder(memoryview(name), 10, object):  # type: ignore[arg-type]
            meeting.wait()  # breaks unless the other thread is inside too

    threads = [threading.Thread(target=read, args=(name,)) for name in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not meeting.broken


def test_threads_keep_the_account_right() -> None:
    cache = DecodeCache(50)
    threads = [threading.Thread(target=lambda: [use(cache, str(i % 13)) for i in range(300)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.nbytes == 50


@pytest.mark.usefixtures("unset")
def test_the_size_is_set_by_the_environment_or_by_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CACHE.limit == 2**28
    monkeypatch.setenv(VARIABLE, "0.5")
    assert CACHE.limit == 2**19
    set_cache_size(2)
    assert CACHE.limit == 2**21
    for wrong in (-1, "many", float("nan"), float("inf"), None):
        with pytest.raises(ArgumentError, match="megabytes"):
            set_cache_size(wrong)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unset")
def test_an_environment_that_states_no_size_is_told_when_the_cache_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "256 MB")
    with pytest.raises(ArgumentError, match=VARIABLE):
        use(CACHE, "a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_the_locks_of_a_forked_process_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    use(CACHE, "a")
    with CACHE.decoder(memoryview(b"a"), 10, object):  # type: ignore[arg-type]
        child = os.fork()
        if not child:
            thread = threading.Thread(target=use, args=(CACHE, "a"), daemon=True)
            thread.start()
            thread.join(30)
            os._exit(int(thread.is_alive()))
        assert os.waitpid(child, 0)[1] == 0
    CACHE.clear()
