"""Threads: teams for what torch does, slots for whoever codes, alike from every thread, and after a fork too."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

import isopress
from isopress.codec.errors import ArgumentError
from isopress.codec.threads import LARGEST_TEAM, VARIABLE, in_team, processors, set_threads, slot, threads
from isopress.format.store.pool import _threads_shared_out, run
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
