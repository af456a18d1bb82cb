"""The correctors of analysis and synthesis, both designs: nothing before training, any field, always finite."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from isopress.codec.latent.corrector_v1 import TOKEN, CorrectorConfigV1, CorrectorV1
from isopress.codec.latent.synthesis import Corrector, CorrectorConfig
from isopress.codec.latent.transforms import Transforms, restore, stored
from tests.fields import spectral_field
from tests.latent_models import CONFIG, CONFIG_V1, small_model, transforms
from tests.strategies import Array

AnyConfig = CorrectorConfig | CorrectorConfigV1
AnyCorrector = Corrector | CorrectorV1

SPREAD = torch.tensor([1.0])
DESIGNS = {"new": CONFIG, "first": CONFIG_V1}
SHAPES = [(16, 16), (17, 23), (8, 64), (1, 1), (3, 50), (33, 2), (40, 24), (40, 8)]


@pytest.fixture(scope="module", params=DESIGNS.values(), ids=DESIGNS)
def config(request: pytest.FixtureRequest) -> AnyConfig:
    found: AnyConfig = request.param
    return found


@pytest.fixture(scope="module")
def corrector(config: AnyConfig) -> AnyCorrector:
    return transforms(size=0.3, config=config).synthesis


def corrected(corrector: AnyCorrector, x: Array, periodic: bool = False) -> Array:
    """Return the correction of one field (h, w)."""
    with torch.inference_mode():
        out: Array = corrector(torch.from_numpy(x.astype("f4"))[None, None], SPREAD, periodic)[0, 0].numpy()
    return out


def test_without_training_there_is_no_correction(config: AnyConfig) -> None:
    x = spectral_field(40, 48) * 5
    fresh = Transforms(config)
    for correct in (fresh.analyse, fresh.synthesise):
        np.testing.assert_array_equal(correct(x, True), x)
    with torch.inference_mode():
        assert not fresh.analysis(torch.from_numpy(x.astype("f4"))[None, None], SPREAD, True).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("periodic", [False, True])
def test_fields_of_any_shape_are_corrected(corrector: AnyCorrector, shape: tuple[int, int], periodic: bool) -> None:
    out = corrected(corrector, np.random.default_rng(0).normal(size=shape) * 3, periodic)
    assert out.shape == shape
    assert np.isfinite(out).all()
    assert out.any() or max(shape) == 1


@pytest.mark.parametrize(("cell", "token"), [(4, 16), (4, 8), (2, 16)])
@pytest.mark.parametrize("shape", SHAPES)
def test_cells_and_tokens_of_other_sizes_fit_any_field(cell: int, token: int, shape: tuple[int, int]) -> None:
    made = transforms(size=0.3, config=replace(CONFIG, cell=cell, token=token)).synthesis
    x = np.random.default_rng(0).normal(size=shape) * 3
    for periodic in (False, True):
        out = corrected(made, x, periodic)
        assert out.shape == shape
        assert np.isfinite(out).all()


def test_fields_turned_by_whole_windows_are_corrected_alike(config: AnyConfig, corrector: AnyCorrector) -> None:
    token = config.token if isinstance(config, CorrectorConfig) else TOKEN
    turn = token * 8  # window of 4 tokens; what global attention sees are 4 x 4 tokens
    x = np.random.default_rng(0).normal(size=(24, 2 * turn)) * 4
    here, turned = (corrected(corrector, field, True) for field in (x, np.roll(x, turn, 1)))
    np.testing.assert_allclose(turned, np.roll(here, turn, 1), atol=1e-5 * np.abs(here).max())
    assert np.abs(turned - here).max() > 0.1 * np.abs(here).max()
    bounded = [corrected(corrector, field, False) for field in (x, np.roll(x, turn, 1))]
    assert np.abs(bounded[1] - np.roll(bounded[0], turn, 1)).max() > 1e-3 * np.abs(here).max()


def test_a_constant_added_to_a_field_changes_nothing(corrector: AnyCorrector) -> None:
    x = spectral_field(24, 32) * 6
    np.testing.assert_allclose(corrected(corrector, x), corrected(corrector, x + 64), atol=1e-3)


def test_nothing_coarse_is_added(config: AnyConfig) -> None:
    x = spectral_field(48, 64) * 5
    made = transforms(size=0.3, config=config).synthesis
    before = corrected(made, x)
    made.last.bias += 3  # a constant
    np.testing.assert_allclose(corrected(made, x), before, atol=1e-4)
    assert abs(before.mean()) < 0.1 * before.std()


@pytest.mark.parametrize("size", [1e-30, 1e6, 1e12, 1e30])
def test_corrections_are_finite_whatever_the_field(config: AnyConfig, size: float) -> None:
    x = np.random.default_rng(0).normal(size=(20, 26)) * size
    x[3, 4] *= 100
    model = transforms(size=0.3, config=config)
    for correct in (model.analyse, model.synthesise):
        assert np.isfinite(correct(x, True)).all()


def test_each_field_of_a_batch_is_corrected_by_itself(corrector: AnyCorrector) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 1, 24, 40)).astype("f4")) * 5
    spread = torch.tensor([0.5, 1.0, 2.0])
    with torch.inference_mode():
        together = corrector(x, spread, True)
        alone = torch.cat([corrector(x[i : i + 1], spread[i : i + 1], True) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_stored_transformers_are_those_that_come_back(config: AnyConfig) -> None:
    made = transforms(seed=3, config=config)
    shape, tensors = stored(made)
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("f2")}
    back = restore(shape, tensors)
    assert back.config == config
    assert {type(back.analysis), type(back.synthesis)} == {type(made.synthesis)}
    for name, parameter in back.named_parameters():
        if name != "log_variance":
            torch.testing.assert_close(parameter, made.get_parameter(name), atol=1e-3, rtol=1e-3)
    assert not any(parameter.requires_grad for parameter in back.parameters())
    lacking = {name: tensor for name, tensor in tensors.items() if name != "synthesis.last.weight"}
    with pytest.raises(ValueError, match=r"the weights lack synthesis\.last\.weight"):
        restore(shape, lacking)


@pytest.mark.parametrize(("absent", "there"), [("analysis", "synthesis"), ("synthesis", "analysis")])
def test_a_corrector_that_is_not_stored_corrects_nothing(config: AnyConfig, absent: str, there: str) -> None:
    x = spectral_field(24, 32) * 5
    shape, tensors = stored(transforms(config=config))
    back = restore(shape, {name: tensor for name, tensor in tensors.items() if not name.startswith(absent)})
    assert getattr(back, absent).is_zero
    assert not corrected(getattr(back, absent), x).any()
    correct = {"analysis": back.analyse, "synthesis": back.synthesise}
    np.testing.assert_array_equal(correct[absent](x.copy(), True), x)
    assert (correct[there](x.copy(), True) != x).any()


def test_a_corrector_that_corrects_nothing_is_not_stored(config: AnyConfig) -> None:
    made = transforms(config=config)
    torch.nn.init.zeros_(made.analysis.last.weight)
    _, tensors = stored(made)
    assert {name.split(".")[0] for name in tensors} == {"synthesis"}


def test_small_weights_of_tests_do_correct() -> None:
    x = spectral_field(32, 32) * 5
    model = small_model().transforms
    for correct in (model.analyse, model.synthesise):
        assert 1e-3 < np.abs(correct(x.copy(), False) - x).max() < 5


@pytest.mark.parametrize(("cell", "token"), [(4, 4), (4, 10), (8, 8)])
def test_tokens_that_do_not_hold_whole_cells_are_refused(cell: int, token: int) -> None:
    with pytest.raises(ValueError, match=f"a token of {token} values"):
        CorrectorConfig(cell=cell, token=token)
