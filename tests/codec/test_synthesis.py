"""The synthesis transformer, in floats and in whole numbers: nothing before training, any field, always finite."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from isopress.codec.latent.correction import Correction, SynthesisConfig
from isopress.codec.latent.synthesis import Synthesis
from tests.fields import spectral_field
from tests.latent_models import CONFIG, small_model, synthesis
from tests.strategies import Array

SPREAD = torch.tensor([1.0])
SHAPES = [(16, 16), (17, 23), (8, 64), (1, 1), (3, 50), (33, 2), (40, 24), (40, 8)]
MADE = synthesis(size=0.3)


def in_integers(made: Synthesis) -> Correction:
    """Return what codes with such weights."""
    config, tensors = made.stored()
    return Correction.restore(SynthesisConfig(**config), tensors)


def correction(made: Synthesis, x: Array, periodic: bool = False) -> Array:
    """Return the correction of one field (h, w)."""
    with torch.inference_mode():
        out: Array = made(torch.from_numpy(x.astype("f4"))[None, None], SPREAD, periodic)[0, 0].numpy()
    return out


def test_without_training_there_is_no_correction() -> None:
    x = spectral_field(40, 48) * 5
    corrected = x.copy()
    in_integers(Synthesis(CONFIG)).correct(corrected, True)
    np.testing.assert_array_equal(corrected, x)


@pytest.mark.parametrize(("cell", "token"), [(2, 8), (4, 16), (4, 8), (2, 16)])
@pytest.mark.parametrize("shape", SHAPES)
def test_fields_of_any_shape_are_corrected(cell: int, token: int, shape: tuple[int, int]) -> None:
    made = synthesis(size=0.3, config=replace(CONFIG, cell=cell, token=token))
    x = np.random.default_rng(0).normal(size=shape) * 3
    for periodic in (False, True):
        out = correction(made, x, periodic)
        assert out.shape == shape
        assert np.isfinite(out).all()
        assert out.any() or max(shape) == 1


def test_fields_turned_by_whole_windows_are_corrected_alike() -> None:
    turn = CONFIG.token * 8  # window of 4 tokens; what global attention sees are 4 x 4 tokens
    x = np.random.default_rng(0).normal(size=(24, 2 * turn)) * 4
    here, turned = (correction(MADE, field, True) for field in (x, np.roll(x, turn, 1)))
    np.testing.assert_allclose(turned, np.roll(here, turn, 1), atol=1e-5 * np.abs(here).max())
    assert np.abs(turned - here).max() > 0.1 * np.abs(here).max()
    bounded = [correction(MADE, field, False) for field in (x, np.roll(x, turn, 1))]
    assert np.abs(bounded[1] - np.roll(bounded[0], turn, 1)).max() > 1e-3 * np.abs(here).max()


def test_a_constant_added_to_a_field_changes_nothing() -> None:
    x = spectral_field(24, 32) * 6
    np.testing.assert_allclose(correction(MADE, x), correction(MADE, x + 64), atol=1e-3)


def test_nothing_coarse_is_added() -> None:
    x = spectral_field(48, 64) * 5
    made = synthesis(size=0.3)
    before = correction(made, x)
    assert made.last.bias is not None
    made.last.bias += 3  # a constant
    np.testing.assert_allclose(correction(made, x), before, atol=1e-4)
    assert abs(before.mean()) < 0.1 * before.std()


@pytest.mark.parametrize("size", [0, 1e6, 1e12, 1e30])
def test_corrections_are_finite_whatever_the_field(size: float) -> None:
    x = np.rint(np.random.default_rng(0).normal(size=(20, 26)) * size)
    x[3, 4] *= 100
    corrected = x.copy()
    in_integers(MADE).correct(corrected, True)
    assert np.isfinite(corrected).all()
    np.testing.assert_allclose(corrected, x, atol=50)


@pytest.mark.parametrize("shape", [(16, 16), (17, 23), (40, 24), (64, 96), (150, 33)])
def test_corrections_in_whole_numbers_are_those_in_floats(shape: tuple[int, int]) -> None:
    x = np.rint(spectral_field(*shape, slope=1.5) * 6 * 64) / 64
    for periodic in (False, True):
        corrected = x.copy()
        in_integers(MADE).correct(corrected, periodic)
        spread = torch.tensor([np.log(x.std() + 1e-3)], dtype=torch.float32)
        with torch.inference_mode():
            floats = MADE(torch.from_numpy((x - x.mean()).astype("f4"))[None, None], spread, periodic)[0, 0].numpy()
        assert np.abs(corrected - x - floats).max() < 0.02 * np.abs(floats).max()


def test_tensors_that_are_no_numbers_are_refused() -> None:
    config, tensors = synthesis().stored()
    tensors["synthesis.widen.weight"][3, 2] = np.nan
    with pytest.raises(ValueError, match=r"widen\.weight"):
        Correction.restore(SynthesisConfig(**config), tensors)


def test_each_field_of_a_batch_is_corrected_by_itself() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 1, 24, 40)).astype("f4")) * 5
    spread = torch.tensor([0.5, 1.0, 2.0])
    with torch.inference_mode():
        together = MADE(x, spread, True)
        alone = torch.cat([MADE(x[i : i + 1], spread[i : i + 1], True) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_stored_synthesis_is_the_one_that_comes_back() -> None:
    made = synthesis(seed=3)
    shape, tensors = made.stored()
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("f2")}
    back = Synthesis.restore(shape, tensors)
    assert back.config == CONFIG
    for name, parameter in back.named_parameters():
        torch.testing.assert_close(parameter, made.get_parameter(name), atol=1e-3, rtol=1e-3)
    assert not any(parameter.requires_grad for parameter in back.parameters())
    lacking = {name: tensor for name, tensor in tensors.items() if name != "synthesis.last.weight"}
    for restored in (Synthesis.restore, lambda config, tensors: Correction.restore(SynthesisConfig(**config), tensors)):
        with pytest.raises(ValueError, match=r"last\.weight"):
            restored(shape, lacking)


def test_small_weights_of_tests_do_correct() -> None:
    x = spectral_field(32, 32) * 5
    corrected = x.copy()
    small_model().correction.correct(corrected, False)
    assert 1e-3 < np.abs(corrected - x).max() < 5


@pytest.mark.parametrize(("cell", "token"), [(4, 4), (4, 10), (8, 8)])
def test_tokens_that_do_not_hold_whole_cells_are_refused(cell: int, token: int) -> None:
    with pytest.raises(ValueError, match=f"a token of {token} values"):
        SynthesisConfig(cell=cell, token=token)


@pytest.mark.parametrize("number", [{"channels": 5}, {"dim": 18}, {"heads": 16}, {"dim": 2048}, {"mlp_ratio": 1.1}])
def test_numbers_that_whole_sums_do_not_allow_are_refused(number: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cannot have"):
        replace(CONFIG, **number)
