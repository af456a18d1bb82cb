"""Training: the loop, and contexts and synthesis of latents."""

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from isopress.codec.arrays import Scratch
from isopress.codec.errors import ArgumentError
from isopress.codec.float_environment import subnormal_numbers
from isopress.codec.latent.context_features import ALONE, DEPTHS, RELATED
from isopress.codec.latent.context_maps import BANDS
from isopress.codec.latent.decorrelation import identity
from isopress.codec.latent.section import Latent, decode_fields
from isopress.codec.latent.synthesis import Synthesis, SynthesisConfig
from isopress.codec.latent.weights import integer_networks, parse_latent
from isopress.codec.training import contexts as train_contexts
from isopress.codec.training.contexts import QUIET, ContextConfig, Trainable
from isopress.codec.training.latent import CONFIGS, LatentConfig, train, write
from isopress.codec.training.latent_pool import QUIET_SYMBOLS, crops, pool, quiet_tables
from isopress.codec.training.loop import Budget, Progress, descend, falling, load_checkpoint, run, save_checkpoint
from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.synthesis import Example, SynthesisTraining, code, objective, originals
from tests.fields import drifting_fields, spectral_field
from tests.latent_models import encode_fields

# --- the loop of every training: rounds until the time is up, the best is kept, checkpoints are plain data ---------


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


# --- training of the latent codec: what is trained is what is stored, and every stage moves what it should ------------

WIDTHS = (12, 8)
TINY = SynthesisConfig(cell=2, token=8, channels=4, dim=16, heads=2, blocks=2, window=4)
FIELDS = [Field(f"wave/{i}", spectral_field(96, 112, slope=2 + i / 2, seed=i)[None, None]) for i in range(3)]
SEQUENCE = Field("sequence/t", drifting_fields(6, 1, 96, 100))
CONTEXTS = ContextConfig(
    minutes=0.02, widths=WIDTHS, batch=256, pool_points=20_000, crop=9000, validation_points=20_000, threads=1
)
SYNTHESIS = SynthesisTraining(minutes=0.02, synthesis=TINY, crop=(64, 64), batch=2, pool=4, validation=2)


def random_contexts(seed: int = 1) -> Trainable:
    torch.manual_seed(seed)
    what = Trainable.build(WIDTHS)
    for network in what.networks:
        for p in network.parameters():
            p.data = torch.randn_like(p) * 0.2
    return what


def test_the_rounded_network_and_the_integer_networks_are_the_same_function():
    rng = np.random.default_rng(0)
    for trained in random_contexts().networks:
        alone, related = integer_networks(trained.integers())
        x = rng.integers(-127, 128, (200, ALONE + RELATED)).astype(np.int8)
        x[:100, ALONE:] = 0
        for depth in range(DEPTHS):
            with torch.no_grad():
                y = trained(torch.from_numpy(x), torch.full((200,), depth), True)
            expected = (y * torch.tensor([64.0, 8.0, 1.0])).T.numpy()
            inputs = np.vstack([x.T, np.ones((1, 200))]).astype(np.float32)
            np.testing.assert_array_equal(related(inputs, depth, Scratch()), expected)
            without = np.vstack([x[:100, :ALONE].T, np.ones((1, 100))]).astype(np.float32)
            np.testing.assert_array_equal(alone(without, depth, Scratch()), expected[:, :100])


def test_weights_files_hold_what_was_trained_and_can_be_gone_on_with(tmp_path):
    what, synthesis = random_contexts(), Synthesis(TINY)
    torch.nn.init.normal_(synthesis.last.weight, std=0.05)
    path = tmp_path / "own.safetensors"
    write(path, what, synthesis)
    again = Trainable.restore(load_file(path), WIDTHS)
    for a, b in zip(what.networks, again.networks, strict=True):
        for first, second in zip(a.integers(), b.integers(), strict=True):
            for x, y in zip(first, second, strict=True):
                np.testing.assert_array_equal(x, y)
    model = parse_latent("own", path.read_bytes(), vars(TINY))
    field = spectral_field(40, 48, seed=3)
    section, decoded = encode_fields(field, Latent(0.2, 0.0, True), model)
    np.testing.assert_array_equal(decode_fields(section, field.shape, model), decoded)
    plain = encode_fields(field, Latent(0.2, 0.0, True, corrected=False), model)[1]
    assert np.abs(plain - decoded).max() > 0, "the trained synthesis must be heard"


def test_pools_hold_active_points_and_count_quiet_ones():
    model = random_contexts().model()
    source = crops([*FIELDS, SEQUENCE], np.random.default_rng(0), 9000)
    found = pool(source, model, 40_000, threads=1, trade=0.12)
    assert found.quiet.shape == (BANDS, DEPTHS, QUIET, QUIET_SYMBOLS)
    assert found.quiet.sum() > 0
    for examples in found.examples:
        assert len(examples) > 1000
        assert examples.features.shape == (len(examples), ALONE + RELATED)
        assert examples.rough.min() >= QUIET
        assert (examples.weight > 0).all()
    assert any(e.features[:, ALONE:].any() for e in found.examples), "channels of blocks see those before them"


def test_quiet_tables_follow_the_counts():
    rare = np.zeros((BANDS, DEPTHS, QUIET, QUIET_SYMBOLS))
    rare[..., 0] = 1e6
    often = rare.copy()
    often[..., 1] = 3e5
    assert (quiet_tables(rare)[:, :, 0] < quiet_tables(often)[:, :, 0]).all()


def test_contexts_learn_from_their_examples():
    torch.manual_seed(0)
    what = Trainable.build(WIDTHS)
    held = list(islice(crops(FIELDS, np.random.default_rng(1), 9000), 6))
    quick = replace(CONTEXTS, learning_rate=3e-3, epochs_per_pool=0.2)
    before = pool(iter(held), what.model(), 10**9, 1, 0.12)
    for network, examples in zip(what.networks, before.examples, strict=True):
        optimizer, kept = torch.optim.AdamW(network.parameters()), deepcopy(network)
        for rounds in range(6):
            train_contexts._descend(network, kept, optimizer, examples, 0.0, rounds, quick)
    after = pool(iter(held), what.model(), 10**9, 1, 0.12)
    assert after.cost < before.cost - 0.2, "an eighth of the size at least"


def test_training_of_contexts_goes_on_from_a_checkpoint(tmp_path):
    checkpoint = tmp_path / "contexts.ckpt"
    _, progress = train_contexts.train(FIELDS, FIELDS[:1], checkpoint, CONTEXTS)
    longer = replace(CONTEXTS, minutes=progress.seconds / 60 + 0.01)
    _, later = train_contexts.train(FIELDS, FIELDS[:1], checkpoint, longer, resume=True)
    assert later.rounds > progress.rounds
    assert later.validation[: len(progress.validation)] == progress.validation


def examples() -> list[Example]:
    source = originals([*FIELDS, SEQUENCE], np.random.default_rng(0), (64, 64))
    model = random_contexts().model()
    return [code(x, model, 0.12) for x in islice(source, 4)]


def test_an_example_keeps_what_was_coded_and_decoded() -> None:
    for example in examples():
        assert example.bits > 0
        assert example.x.shape == example.decoded.shape == (64, 64)
        assert 0 < np.abs(example.x - example.decoded).mean() < 1


def test_synthesis_learns_from_its_examples() -> None:
    torch.manual_seed(0)
    learned, synthesis = examples(), Synthesis(TINY)
    optimizer = torch.optim.Adam(synthesis.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = objective(synthesis, learned).mean()
        descend(optimizer, synthesis.parameters(), loss, 1e-2)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.01


def test_both_stages_leave_weights_that_code_fields(tmp_path, monkeypatch):
    monkeypatch.setattr("isopress.codec.training.latent.ContextConfig", lambda *_, **__: CONTEXTS)
    monkeypatch.setattr("isopress.codec.training.latent.SynthesisTraining", lambda *_, **__: SYNTHESIS)
    out, seen = tmp_path / "own.safetensors", []
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first of a process takes seconds
    config = LatentConfig(minutes=0.04, synthesis=TINY, widths=WIDTHS, threads=1)
    progress = train(FIELDS, FIELDS[:1], out, config, report=lambda p: seen.append(p.seconds))
    assert seen == sorted(seen)
    assert len(progress.validation) >= 4, "each stage begins and ends with one"
    model = parse_latent("own", out.read_bytes(), vars(TINY))
    assert model.correction.last.bias.any()
    fields = drifting_fields(3, 40, 48)
    section, decoded = encode_fields(fields, Latent(0.1, 0.0, True), model, mixings=(identity(3),))
    np.testing.assert_array_equal(decode_fields(section, fields.shape, model), decoded)
    assert np.abs(decoded - fields).max() < 1
    tuned = train(FIELDS, FIELDS[:1], tmp_path / "tuned.safetensors", config, init=out)
    assert tuned.validation[0][1] != progress.validation[0][1], "fine-tuning begins where the weights are"
    again = train(FIELDS, FIELDS[:1], out, config, resume=True)
    assert again.validation == progress.validation, "the time was up"


def test_the_configs_build_and_small_is_small():
    built = {name: Synthesis(config.synthesis) for name, config in CONFIGS.items()}
    sizes = {name: sum(p.numel() for p in synthesis.parameters()) for name, synthesis in built.items()}
    contexts = sum(p.numel() for n in Trainable.build(CONFIGS["small"].widths).networks for p in n.parameters())
    assert sizes["small"] + contexts <= 10e6
    assert sizes["base"] > 5 * sizes["small"]
