"""The decode cache: bounded, forgetful in the right order, and one decode for any number of threads."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from isopress import ArgumentError
from isopress.format.api import compress, decode
from isopress.format.decode_cache import CACHE, VARIABLE, DecodeCache, set_cache_size
from isopress.format.payload import parse
from isopress.format.rewrites import whole_chunks
from tests.contract import smooth


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
