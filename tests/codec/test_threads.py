"""Threads: teams for what torch does, slots for whoever codes, parts of one work shared out; after a fork too."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

import isopress
from isopress.codec.bounded import block, fields_alone
from isopress.codec.bounded.reference_order import Axes
from isopress.codec.errors import ArgumentError, CorruptPayloadError
from isopress.codec.native import dispatch
from isopress.codec.threads import LARGEST_TEAM, VARIABLE, in_team, processors, set_threads, share, slot, threads
from isopress.format.decode_cache import CACHE
from isopress.format.store.pool import _threads_shared_out, run
from tests.codec.test_block import decoder as start
from tests.codec.test_block import encode
from tests.crowd import Crowd, Told
from tests.fields import drifting_fields

ROOT = Path(__file__).parents[2]


@in_team
def name_in_team() -> str:
    return threading.current_thread().name


@in_team
def names_of_nested() -> tuple[str, str]:
    return threading.current_thread().name, name_in_team()


def test_teams_have_threads_of_their_own() -> None:
    assert "team" in name_in_team() != threading.current_thread().name
    assert len(set(names_of_nested())) == 1  # who is in a team need not wait for it


def test_teams_have_several_threads_of_torch_and_those_of_the_program_stay() -> None:
    before = torch.get_num_threads()
    assert in_team(torch.get_num_threads)() <= min(LARGEST_TEAM, processors())
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as new:
        assert new.submit(torch.get_num_threads).result() == before


def test_no_more_run_at_once_than_there_are_processors() -> None:
    crowd = Crowd()
    work = in_team(lambda _: crowd.work())
    with ThreadPoolExecutor(4 * processors()) as callers:
        list(callers.map(work, range(8 * processors())))
    assert 1 <= crowd.most <= processors()


def test_as_many_encode_or_decode_at_once_as_somebody_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert threads() == processors()
    monkeypatch.setenv(VARIABLE, "3")
    assert threads() == 3
    crowd = Crowd()

    def work(_: int) -> None:
        with slot():
            crowd.work()

    with ThreadPoolExecutor(12) as callers:
        list(callers.map(work, range(36)))
    assert 1 <= crowd.most <= 3
    for wrong in ("0", "many", "1.5"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(ArgumentError, match=f"{VARIABLE} is a number >= 1, got '{wrong}'"):
            threads()


def test_a_program_may_say_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="a number >= 1, got 0"):
        set_threads(0)
    monkeypatch.setattr("isopress.codec.threads._SLOTS.set", 0)
    set_threads(1)
    assert threads() == 1
    fields = drifting_fields(4, 32, 48).astype(np.float32)
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=fields.shape,
        chunks=(1, 32, 48),
        dtype="f4",
        serializer=isopress.IsopressCodec(mode="abs", bound=0.01),
        compressors=(),
    )
    array[:] = fields  # from several threads of Zarr: none waits for ever
    assert np.abs(array[:] - fields).max() <= 0.01


def test_errors_come_through_and_work_goes_on() -> None:
    @in_team
    def fail() -> None:
        raise KeyError("of the work")

    for _ in range(3):
        with pytest.raises(KeyError, match="of the work"):
            fail()
    assert name_in_team()


def test_many_threads_decode_at_once() -> None:
    payloads = [isopress.compress(9 * x, mode="latent", ratio=20) for x in drifting_fields(6, 40, 48).astype("f4")]
    alone = [np.asarray(isopress.decompress(payload)) for payload in payloads]
    with ThreadPoolExecutor(6) as threads:
        for x, y in zip(threads.map(isopress.decompress, payloads), alone, strict=True):
            np.testing.assert_array_equal(x, y)


FORK = """
import os, signal, sys, threading, time
import numpy as np
import isopress

compress, decompress = isopress.compress, isopress.decompress  # imported; everything else may be under way
x = 280 + 5 * np.cumsum(np.random.default_rng(0).normal(size=(4, 48, 64)), 1).astype("f4")
t, r, c = np.indices((12, 24, 30))
based = np.sin(0.4 * c - 0.2 * t) + np.cos(0.3 * r + 0.1 * t)
jobs = [
    ({"mode": "lossless"}, x),
    ({"mode": "abs", "bound": 0.1, "context": "field"}, x),
    ({"mode": "abs", "bound": 0.1, "context": "block"}, x),
    ({"mode": "latent", "ratio": 20}, x[0]),
    ({"mode": "abs", "bound": 0.6}, (5 * based).astype("f4")),
]
stop = threading.Event()

def work():
    while not stop.is_set():
        for settings, array in jobs:
            decompress(compress(array, **settings))

def child(settings, array):
    signal.alarm(60)  # a lock that is never released
    decompress(compress(array, **settings))
    os._exit(0)

thread = threading.Thread(target=work)
thread.start()
failed = []
for number in range(FORKS):
    time.sleep(0.3 * (number % 7) / 7)
    settings, array = jobs[number % len(jobs)]
    process = os.fork()
    if process == 0:
        child(settings, array)
    status = os.waitpid(process, 0)[1]
    if status:
        failed.append((number, settings, status))
stop.set()
thread.join()
assert not failed, failed
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_process_forked_while_a_thread_codes_is_not_locked() -> None:
    """In every mode, from the first moment on: weights are loaded and torch is imported while others fork."""
    script = FORK.replace("FORKS", "10")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_threads_and_processes_of_every_kind_code_every_mode_at_once() -> None:
    """Eight threads, processes by fork, spawn and forkserver before, during and after use: all find the same."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.together"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "0 unlike the others" in done.stdout


# --- processes of a conversion ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [None, "7"])
def test_processes_share_the_processors_unless_somebody_says_otherwise(
    said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    with _threads_shared_out(2):
        assert os.environ["OMP_NUM_THREADS"] == (said or str(max(1, processors() // 2)))
    assert os.environ.get("OMP_NUM_THREADS") == said


def test_a_process_is_told_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    outcomes = list(run(partial(Told), ["a", "b", "c"], jobs=2))  # type: ignore[list-item]
    assert {outcome.nbytes for outcome in outcomes} == {max(1, processors() // 2)}


@pytest.fixture
def no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the number of threads; no slot is still taken afterwards."""
    monkeypatch.setattr("isopress.codec.threads._SLOTS.set", 0)
    before = threading.active_count()
    yield
    set_threads(1)
    with slot():
        assert threading.active_count() == before


leaves_no_trace = pytest.mark.usefixtures("no_trace")


@leaves_no_trace
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


@leaves_no_trace
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


@leaves_no_trace
def test_what_is_set_for_the_caller_holds_for_its_helpers() -> None:
    set_threads(4)

    def level(_: int) -> str:
        time.sleep(0.005)
        return dispatch.level()

    with dispatch.using(dispatch.NUMPY):
        assert set(share(level, range(8))) == {dispatch.NUMPY}


@leaves_no_trace
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


@leaves_no_trace
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


@leaves_no_trace
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


@leaves_no_trace
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
