"""Synthesis by transformers, and the attention in them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from isopress.codec.latent.attention import Axis, DepthwiseConv, TransformerBlock, WindowAttention, window_mask
from isopress.codec.latent.correction import Correction, SynthesisConfig
from isopress.codec.latent.synthesis import Synthesis
from tests.fields import spectral_field
from tests.latent_models import CONFIG, small_model, synthesis
from tests.strategies import Array
from tests.vaeformer_models import shaken

# --- the transformer blocks on token grids: windows, edges, and longitude that closes on itself -----------------------

pytestmark = pytest.mark.usefixtures("seeded")
GRIDS = [(8, 16), (9, 13), (3, 7), (17, 9), (1, 1), (5, 1), (1, 6), (23, 11)]


def seen_by(attention: WindowAttention, grid: tuple[int, int], periodic: bool) -> Tensor:
    """Return which tokens each token's output depends on, (h, w, h, w)."""
    x = torch.randn(1, *grid, attention.qkv.in_features, requires_grad=True)
    y = attention(x, periodic)
    seen = [torch.autograd.grad(y[0, i, j].sum(), x, retain_graph=True)[0] for i, j in np.ndindex(*grid)]
    return (torch.stack(seen).abs().amax((1, 4)) > 0).reshape(*grid, *grid)


def is_run(flags: Tensor, wraps: bool) -> bool:
    """Whether the true flags are one stretch, which may go round the end if `wraps`."""
    before = flags.roll(1)
    if not wraps:
        before[0] = False
    starts = int((flags & ~before).sum())
    return starts == 1 or (wraps and bool(flags.all()))


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_token_attends_to_one_window_that_crosses_no_edge(
    grid: tuple[int, int], shift: bool, periodic: bool
) -> None:
    window = (4, 5)
    seen = seen_by(WindowAttention(8, 2, window, shift=shift), grid, periodic)
    for i, j in np.ndindex(*grid):
        rows, columns = seen[i, j].any(1), seen[i, j].any(0)
        assert torch.equal(seen[i, j], rows[:, None] & columns)
        assert rows[i]
        assert columns[j]
        assert rows.sum() <= window[0]
        assert columns.sum() <= window[1]
        assert is_run(rows, wraps=False)
        assert is_run(columns, wraps=periodic)


def test_shifted_windows_wrap_around_in_longitude_only_if_it_is_periodic() -> None:
    attention = WindowAttention(8, 2, (4, 4), shift=True)
    assert seen_by(attention, (8, 16), True)[0, 0, :, -1].any()
    assert not seen_by(attention, (8, 16), False)[0, 0, :, -1].any()
    assert not seen_by(attention, (8, 16), True)[0, 0, -1].any()


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_padding_takes_no_part_in_attention(grid: tuple[int, int], shift: bool, periodic: bool) -> None:
    attention = WindowAttention(8, 2, (4, 5), shift=shift)
    x = torch.randn(8).expand(2, *grid, 8)
    y = attention(x, periodic)
    assert y.shape == x.shape
    torch.testing.assert_close(y, y[:1, :1, :1].expand_as(y))


def test_attention_within_a_window_is_that_of_the_window_alone() -> None:
    windowed, x = WindowAttention(8, 2, (4, 4)), torch.randn(2, 8, 12, 8)
    everywhere = WindowAttention(8, 2)
    everywhere.load_state_dict(windowed.state_dict())
    y = windowed(x, False)
    torch.testing.assert_close(y[:, 4:, 4:8], everywhere(x[:, 4:, 4:8], False))
    batch = [windowed(x[i : i + 1], False) for i in range(2)]
    torch.testing.assert_close(y, torch.cat(batch))


def test_windows_even_out_and_need_no_mask_where_they_fit_or_wrap() -> None:
    assert Axis.divide(72, 48, shift=False, periodic=False).size == 36
    assert Axis.divide(13, 8, shift=True, periodic=False).padding == 1
    fits = Axis.divide(16, 4, shift=False, periodic=False)
    assert window_mask(fits, Axis.divide(16, 4, shift=True, periodic=True)) is None
    assert window_mask(fits, Axis.divide(13, 4, shift=True, periodic=True)) is None
    assert window_mask(fits, Axis.divide(16, 4, shift=True, periodic=False)) is not None
    assert window_mask(fits, Axis.divide(13, 4, shift=False, periodic=False)) is not None


def test_a_block_is_equivariant_to_rolls_by_whole_windows_on_a_periodic_grid() -> None:
    block = shaken(TransformerBlock(8, 2, (4, 4), shift=True, depthwise=True))
    x = torch.randn(1, 9, 16, 8)
    rolled = block(x.roll(4, 2), True)
    torch.testing.assert_close(rolled, block(x, True).roll(4, 2))
    assert not torch.allclose(block(x.roll(4, 2), False), block(x, False).roll(4, 2), atol=1e-3)


def test_the_depthwise_convolution_closes_in_longitude_only_if_periodic() -> None:
    conv, x = shaken(DepthwiseConv(4)), torch.randn(1, 5, 6, 4)
    torch.testing.assert_close(conv(x.roll(1, 2), True), conv(x, True).roll(1, 2))
    torch.testing.assert_close(conv(x, True)[:, :, 1:-1], conv(x, False)[:, :, 1:-1])
    changed = torch.cat([x[:, :, :-1], x[:, :, -1:] + 1], 2)
    assert torch.equal(conv(x, False)[:, :, 0], conv(changed, False)[:, :, 0])
    assert not torch.equal(conv(x, True)[:, :, 0], conv(changed, True)[:, :, 0])


def test_a_mask_made_while_inferring_serves_a_training_step() -> None:
    block, x = TransformerBlock(8, 2, (4, 4), shift=True), torch.randn(1, 11, 19, 8)
    window_mask.cache_clear()
    with torch.inference_mode():
        expected = block(x, False)
    y = block(x, False)
    y.sum().backward()
    torch.testing.assert_close(y, expected)


def test_a_block_runs_in_bfloat16() -> None:
    block, x = shaken(TransformerBlock(16, 2, (4, 4), shift=True, depthwise=True)), torch.randn(1, 9, 13, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        y = block(x, False)
    torch.testing.assert_close(y, block(x, False), atol=0.1, rtol=0.05)


def test_impossible_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        WindowAttention(8, 3)
    with pytest.raises(ValueError, match="window"):
        WindowAttention(8, 2, (0, 4))


# --- the synthesis transformer, in floats and in whole numbers: nothing before training, any field, always finite -----

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
