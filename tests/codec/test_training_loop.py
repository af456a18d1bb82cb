"""The loop of every training: rounds until the time is up, the best is kept, checkpoints are plain data and go on."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isopress.codec.errors import ArgumentError
from isopress.codec.float_environment import subnormal_numbers
from isopress.codec.training.loop import Budget, Progress, falling, load_checkpoint, run, save_checkpoint


class Counting:
    """A training whose score is what it is told."""

    def __init__(self, scores: list[float]) -> None:
        self.scores, self.rounds, self.kept = scores, 0, list[int]()
        self.done = list[float]()

    def round(self, number: int, done: float) -> float:
        assert number == self.rounds
        self.rounds += 1
        self.done.append(done)
        return 1 / self.rounds

    def validate(self) -> float:
        return self.scores[min(self.rounds, len(self.scores) - 1)]

    def keep(self) -> None:
        self.kept.append(self.rounds)

    def state(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "weights": torch.arange(3.0)}

    def load(self, state: Mapping[str, Any]) -> None:
        self.rounds = state["rounds"]


ALWAYS = Budget(minutes=1e-4, validate_every=0.0)


def test_what_is_best_so_far_is_kept_and_reported(tmp_path: Path) -> None:
    task, seen = Counting([3.0, 2.0, 2.5, 1.0, 1.5]), list[int]()
    progress = run(task, tmp_path / "a.ckpt", ALWAYS, report=lambda p: seen.append(p.rounds))
    assert progress.seconds >= 60 * ALWAYS.minutes
    assert seen == list(range(1, progress.rounds + 1))
    assert task.kept[:3] == [n for n in (0, 1, 3) if n <= progress.rounds]
    assert progress.best == min(score for _, score in progress.validation)
    assert task.done == sorted(task.done)
    assert 0 <= task.done[0] <= task.done[-1] < 1


def test_subnormal_numbers_are_zero_while_training_and_then_as_before(tmp_path: Path) -> None:
    class Looking(Counting):
        def round(self, number: int, done: float) -> float:
            assert _smallest() == 0
            return super().round(number, done)

    with subnormal_numbers():
        run(Looking([1.0]), tmp_path / "a.ckpt", ALWAYS)
        assert _smallest() > 0
        torch.set_flush_denormal(True)
        run(Looking([1.0]), tmp_path / "a.ckpt", ALWAYS)
        assert _smallest() == 0


def _smallest() -> np.float32:
    return np.float32(2**-148) * np.float32(0.5)


def test_a_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = run(Counting([1.0]), tmp_path / "a.ckpt", ALWAYS)
    task = Counting([1.0])
    longer = Budget(first.seconds / 60 + 1e-4, 0.0)
    second = run(task, tmp_path / "a.ckpt", longer, resume=True)
    assert task.rounds == second.rounds > first.rounds
    assert second.validation[: len(first.validation)] == first.validation
    assert run(Counting([1.0]), tmp_path / "a.ckpt", ALWAYS, resume=True).rounds == second.rounds, "the time is up"


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, {"task": 1, "progress": 2})
    before = path.read_bytes()

    def full(state: object, to: Path) -> None:
        to.write_bytes(before[:50])
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, {"task": 3, "progress": 4})
    assert path.read_bytes() == before


class Crafted:
    """What runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["alone", "in a state"])
def test_a_crafted_checkpoint_runs_no_code(place: str, tmp_path: Path) -> None:
    crafted = Crafted(tmp_path / "ran")
    state = crafted if place == "alone" else {"task": {"rounds": crafted}, "progress": vars(Progress())}
    torch.save(state, tmp_path / "a.ckpt")
    with pytest.raises(ArgumentError, match="no checkpoint of a training"):
        run(Counting([1.0]), tmp_path / "a.ckpt", ALWAYS, resume=True)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert (tmp_path / "ran").exists(), "it would have run"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint", b"\x80\x02]q\x00."])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(ArgumentError, match="no checkpoint of a training"):
        load_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(FileNotFoundError, match="resume"):
        load_checkpoint(tmp_path / "b.ckpt")


def test_rates_stay_and_then_fall_to_a_fiftieth() -> None:
    assert [falling(done, 0.4) for done in (0.0, 0.39, 0.7, 1.0)] == pytest.approx([1, 1, 0.5, 0.02])
