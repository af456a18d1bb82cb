"""Training of the plain patch VAEformer, and what its checkpoints and kept weights are good for."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.vaeformer import (
    PatchProgress,
    PatchTraining,
    batches,
    ideal_rate,
    keep_patch,
    load_patch,
    train_patch,
)
from isopress.codec.vaeformer.model import (
    PatchVAEformer,
    stage_two_objective,
)
from tests.patch_models import TINY, fields, rough

pytestmark = pytest.mark.usefixtures("seeded")
TRAINING = PatchTraining(config=TINY, crop=32, batch=4, warm_up=5, report_every=1)


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


def test_a_run_resumes_where_it_stopped_and_its_checkpoint_is_the_model(tmp_path: Path) -> None:
    seen: list[PatchProgress] = []
    out = tmp_path / "patch.ckpt"
    train_patch(fields(), 0.005, out, TRAINING, report=lambda p: seen.append(replace(p)))
    first = seen[-1]
    assert first.seconds >= 0.3
    model = train_patch(fields(), first.seconds / 60 + 0.005, out, TRAINING, resume=True, report=seen.append)
    assert seen[-1].batches > first.batches
    assert seen[-1].seconds > first.seconds
    assert len(seen[-1].history) == seen[-1].batches
    x = rough((40, 40))
    assert ideal_rate(load_patch(out), x, 0.2) == ideal_rate(model, x, 0.2)
    keep_patch(model, tmp_path / "kept.safetensors")
    kept = load_patch(tmp_path / "kept.safetensors")
    assert kept.config == model.config
    assert ideal_rate(kept, x, 0.2) == pytest.approx(ideal_rate(model, x, 0.2), rel=0.02)


def test_what_cannot_be_resumed_or_trained_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "patch.ckpt"
    with pytest.raises(FileNotFoundError):
        train_patch(fields(), 0.001, out, TRAINING, resume=True)
    with pytest.raises(ValueError, match="32 x 32"):
        train_patch([Field("flat", np.zeros((1, 1, 64, 64)))], 0.001, out, TRAINING)
    train_patch(fields(), 0.001, out, TRAINING)
    with pytest.raises(ValueError, match="another configuration"):
        train_patch(fields(), 0.002, out, replace(TRAINING, config=replace(TINY, dim=32)), resume=True)


def test_crops_are_standardised_and_small_fields_reflected() -> None:
    source: Iterator[tuple[Tensor, Tensor]] = batches(fields(), replace(TRAINING, crop=64), np.random.default_rng(0))
    x, steps = next(source)
    assert x.shape == (4, 1, 64, 64)
    assert x.dtype == steps.dtype == torch.float32
    assert x.std() == pytest.approx(1, abs=0.5)
    low, high = TRAINING.steps
    assert ((steps >= low * 0.999) & (steps <= high * 1.001)).all()
