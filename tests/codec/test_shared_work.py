"""Parts of one work are done by several threads: no more than are allowed, the same bytes, and all end together."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import isopress
from isopress.codec import native
from isopress.codec.bounded import block, fields_alone
from isopress.codec.bounded.reference_order import Axes
from isopress.codec.errors import CorruptPayloadError
from isopress.codec.threads import set_threads, share, slot
from isopress.format.decode_cache import CACHE
from tests.blocks import decoder as start
from tests.blocks import encode
from tests.crowd import Crowd
from tests.fields import drifting_fields


@pytest.fixture(autouse=True)
def no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the number of threads; no slot is still taken afterwards."""
    monkeypatch.setattr("isopress.codec.threads._SLOTS.set", 0)
    before = threading.active_count()
    yield
    set_threads(1)
    with slot():
        assert threading.active_count() == before


@pytest.mark.parametrize("number", [1, 2, 8])
def test_every_item_is_worked_on_once_and_results_are_in_order(number: int) -> None:
    set_threads(number)
    seen = list[int]()

    def work(item: int) -> int:
        time.sleep(0.001)
        seen.append(item)
        return item * item

    assert share(work, range(50)) == [i * i for i in range(50)]
    assert sorted(seen) == list(range(50))
    assert share(work, []) == []


def test_callers_and_their_helpers_are_together_as_many_as_somebody_says() -> None:
    set_threads(3)
    crowd = Crowd()

    def caller(_: int) -> None:
        with slot():
            share(lambda _: crowd.work(), range(6))

    with ThreadPoolExecutor(5) as callers:
        list(callers.map(caller, range(10)))
    assert crowd.most <= 3
    together = threading.Barrier(3)
    share(lambda _: together.wait(60), range(3))  # of a caller without a slot, too


def test_what_is_set_for_the_caller_holds_for_its_helpers() -> None:
    set_threads(4)

    def level(_: int) -> str:
        time.sleep(0.005)
        return native.level()

    with native.using(native.NUMPY):
        assert set(share(level, range(8))) == {native.NUMPY}


def test_the_error_of_the_first_item_is_raised_and_later_ones_are_not_begun() -> None:
    set_threads(2)
    begun = list[int]()

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.02 if item == 2 else 0.001)
        if item in (2, 3):
            raise KeyError(item)

    with pytest.raises(KeyError, match="2"):
        share(work, range(100))
    assert len(begun) < 10


def test_an_interrupt_ends_every_thread() -> None:
    set_threads(3)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    begun = list[int]()

    def work(item: int) -> None:
        begun.append(item)
        if item == 5:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.005)

    try:
        with pytest.raises(KeyboardInterrupt):
            share(work, range(200))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(begun) < 50


@pytest.mark.parametrize(("context", "shape"), [("block", (9, 2, 40, 60)), ("field", (7, 40, 60))])
def test_blocks_and_fields_are_the_same_bytes_and_values_with_any_number_of_threads(
    context: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "GROUP", 2400)
    monkeypatch.setattr(fields_alone, "GROUP", 4800)
    x = (9 * drifting_fields(*shape)).astype(np.float32)
    payloads, decoded = set(), list[np.ndarray]()
    for number in (1, 2, 8):
        set_threads(number)
        payloads.add(isopress.compress(x, bound=0.01, context=context))
        CACHE.clear()
        decoded.append(np.asarray(isopress.decompress(min(payloads))))
    assert len(payloads) == 1
    for y in decoded:
        np.testing.assert_array_equal(y, decoded[0])
    assert np.abs(decoded[0] - x).max() <= 0.01


def test_damage_in_a_field_that_a_helper_decodes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "GROUP", 1)
    set_threads(4)
    y = drifting_fields(9, 24, 30) * 20
    section, _ = encode(y, Axes(0))
    damaged = bytearray(section)
    damaged[-1] ^= 1  # the checksum of the field that is decoded last
    decoder = start(bytes(damaged), y.shape)
    with pytest.raises(CorruptPayloadError, match="checksum"):
        decoder.decode()
    decoder.decode([0, 8])
    assert {0, 8} <= decoder.done
