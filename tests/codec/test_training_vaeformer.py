"""Training of the plain patch VAEformer, and what its checkpoints and kept weights are good for."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from isopress.codec.errors import ArgumentError
from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.vaeformer import PatchTask, PatchTraining, batches, ideal_rate, load_patch, train
from isopress.codec.vaeformer.model import PatchVAEformer, stage_two_objective
from tests.patch_models import TINY, fields, rough

pytestmark = pytest.mark.usefixtures("seeded")
TRAINING = PatchTraining(minutes=0.005, config=TINY, crop=32, batch=4, warm_up=5, round=2, validation=2)


@pytest.fixture(scope="module")
def trained() -> PatchVAEformer:
    """The tiny model after some steps of the second stage."""
    torch.manual_seed(0)
    model = PatchVAEformer(TINY)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for x, step in islice(batches(fields(), TRAINING, np.random.default_rng(0)), 150):
        objective = stage_two_objective(model(x, step, noise="uniform"), x, TRAINING.lmbda, step)
        optimizer.zero_grad()
        torch.log(objective + TRAINING.floor).mean().backward()
        optimizer.step()
    return model.eval()


def test_a_little_training_makes_coarser_steps_cheaper_and_worse(trained: PatchVAEformer) -> None:
    x = rough((48, 80), 9)
    rates = [ideal_rate(trained, x, step) for step in (0.05, 0.2, 0.8)]
    bits, errors = zip(*rates, strict=True)
    assert bits[0] > 1.3 * bits[1] > 1.3**2 * bits[2] > 0
    assert 0 < errors[0] < errors[1] < errors[2] < 1
    assert bits[2] < 2 * x.size


def test_training_lowers_the_loss(trained: PatchVAEformer) -> None:
    def loss(model: PatchVAEformer) -> float:
        source = islice(batches(fields(), TRAINING, np.random.default_rng(1)), 5)
        with torch.inference_mode():
            pairs = [stage_two_objective(model(x, s), x, TRAINING.lmbda, s).log().mean() for x, s in source]
        return float(torch.stack(pairs).mean())

    assert loss(trained) < loss(PatchVAEformer(TINY)) - 0.3


def test_the_ideal_rate_knows_units(trained: PatchVAEformer) -> None:
    x = rough((40, 40), 3)
    bits, rmse = ideal_rate(trained, x, 0.2)
    scaled, rmse_scaled = ideal_rate(trained, 250 + 8 * x.astype(np.float64), 0.2)
    assert scaled == pytest.approx(bits, rel=0.01)
    assert rmse_scaled == pytest.approx(8 * rmse, rel=0.01)
    for bad in (np.ones((9, 9), np.float32), np.full((9, 9), np.nan, np.float32)):
        with pytest.raises(ValueError, match="vary"):
            ideal_rate(trained, bad, 0.2)


def test_a_run_resumes_where_it_stopped_and_its_best_weights_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "patch.safetensors"
    first = train(fields(), fields()[:1], out, TRAINING)
    assert first.seconds >= 0.3
    longer = replace(TRAINING, minutes=first.seconds / 60 + 0.005)
    second = train(fields(), fields()[:1], out, longer, resume=True)
    assert second.rounds > first.rounds
    assert second.validation[: len(first.validation)] == first.validation
    kept = load_patch(out)
    assert kept.config == TINY
    bits, rmse = ideal_rate(kept, rough((40, 40)), 0.2)
    assert bits > 0
    assert 0 < rmse < 2


def test_every_stage_takes_its_steps(tmp_path: Path) -> None:
    task = PatchTask(fields(), fields()[:1], tmp_path / "patch.safetensors", TRAINING)
    before = task.validate()
    for done in (0.0, 0.5, 0.9):
        assert np.isfinite(task.round(0, done))
    assert task.validate() != before
    task.keep()
    kept = dict(load_patch(tmp_path / "patch.safetensors").named_parameters())
    for name, parameter in task.model.named_parameters():
        torch.testing.assert_close(kept[name], parameter, atol=1e-3, rtol=1e-3)


def test_what_cannot_be_resumed_or_trained_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "patch.safetensors"
    with pytest.raises(FileNotFoundError):
        train(fields(), fields()[:1], out, TRAINING, resume=True)
    with pytest.raises(ValueError, match="32 x 32"):
        train([Field("flat", np.zeros((1, 1, 64, 64)))], fields(), out, TRAINING)
    train(fields(), fields()[:1], out, replace(TRAINING, minutes=0.001))
    other = replace(TRAINING, config=replace(TINY, dim=32))
    with pytest.raises(ArgumentError, match="configuration"):
        train(fields(), fields()[:1], out, other, resume=True)


def test_crops_are_standardised_and_small_fields_reflected() -> None:
    source: Iterator[tuple[Tensor, Tensor]] = batches(fields(), replace(TRAINING, crop=64), np.random.default_rng(0))
    x, steps = next(source)
    assert x.shape == (4, 1, 64, 64)
    assert x.dtype == steps.dtype == torch.float32
    assert x.std() == pytest.approx(1, abs=0.5)
    low, high = TRAINING.steps
    assert ((steps >= low * 0.999) & (steps <= high * 1.001)).all()
