"""Training of the small model of single fields, and what its kept weights are good for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from isopress.codec.training.field_windows import FieldWindows
from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.vaeformer import ideal_rate, load_patch
from isopress.codec.training.vaeformer_channels import SINGLE_FIELDS, ChannelTask, train
from isopress.codec.vaeformer.config import ModelSpec
from isopress.codec.vaeformer.model import PatchVAEformer
from tests.patch_models import TINY, fields, rough

pytestmark = pytest.mark.usefixtures("seeded")
TRAINING = replace(
    SINGLE_FIELDS, steps=80, batch=2, crop=(32, 32), warm_up=5, round=40, validate_every=2, validation=8,
    step_range=(0.05, 2.0), learning_rate=3e-3, mean=0.02,
)  # fmt: skip
SPEC = ModelSpec(TINY, (("field", None),))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny model after some steps."""
    out = tmp_path_factory.mktemp("trained") / "patch.safetensors"
    progress = train(SPEC, FieldWindows(fields()), FieldWindows(fields()[:1]), out, TRAINING)
    (_, before), (_, after) = progress.validation
    assert after < before - 0.3
    return out


@pytest.fixture(scope="module")
def trained(kept: Path) -> PatchVAEformer:
    return load_patch(kept)


def test_a_little_training_makes_coarser_steps_cheaper_and_worse(trained: PatchVAEformer) -> None:
    x = rough((48, 80), 9)
    rates = [ideal_rate(trained, x, step) for step in (0.05, 0.2, 0.8)]
    bits, errors = zip(*rates, strict=True)
    assert bits[0] > 1.3 * bits[1] > 1.3**2 * bits[2] > 0
    assert 0 < errors[0] < errors[1] < errors[2] < 1
    assert bits[2] < 2 * x.size


def test_the_ideal_rate_knows_units(trained: PatchVAEformer) -> None:
    x = rough((40, 40), 3)
    bits, rmse = ideal_rate(trained, x, 0.2)
    scaled, rmse_scaled = ideal_rate(trained, 250 + 8 * x.astype(np.float64), 0.2)
    assert scaled == pytest.approx(bits, rel=0.01)
    assert rmse_scaled == pytest.approx(8 * rmse, rel=0.01)
    for bad in (np.ones((9, 9), np.float32), np.full((9, 9), np.nan, np.float32)):
        with pytest.raises(ValueError, match="vary"):
            ideal_rate(trained, bad, 0.2)


@pytest.mark.parametrize("stage", ["uniform", "mixed", "hard"])
def test_every_stage_takes_its_steps(tmp_path: Path, stage: str) -> None:
    parts = {"stage_two": "uniform", "stage_three_from": 0.0} if stage == "hard" else {"stage_two": stage}
    training = replace(TRAINING, steps=2, round=2, **parts)  # type: ignore[arg-type]
    task = ChannelTask(SPEC, FieldWindows(fields()), FieldWindows(fields()[:1]), tmp_path / "a", training, "cpu")
    before = {name: parameter.clone() for name, parameter in task.model.named_parameters()}
    assert np.isfinite(task.round(0, 0.0))
    moved = {name for name, parameter in task.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "decoder.tokens.weight" in moved
    assert ("encoder.head.weight" in moved) == (stage != "hard")


def test_fields_that_nothing_can_be_learned_from_are_refused() -> None:
    with pytest.raises(ValueError, match="32 x 32"):
        FieldWindows([Field("flat", np.zeros((1, 1, 64, 64)))])
    with pytest.raises(ValueError, match="no source has 5"):
        FieldWindows(fields(), 5)


def test_windows_are_standardised_and_small_fields_reflected() -> None:
    same = [Field(f"one/{i}", field.values) for i, field in enumerate(fields())]
    for windows, channels in ((FieldWindows(fields()), 1), (FieldWindows(same, 3), 3)):
        x = np.stack([windows.window(np.random.default_rng(i), (64, 64)) for i in range(8)])
        assert x.shape == (8, channels, 64, 64)
        assert x.dtype == np.float32
        assert x.std() == pytest.approx(1, abs=0.5)
