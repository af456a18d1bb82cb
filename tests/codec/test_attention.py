"""The transformer blocks on token grids: windows, edges, and longitude that closes on itself."""

import numpy as np
import pytest
import torch
from torch import Tensor

from isopress.codec.latent.attention import Axis, DepthwiseConv, TransformerBlock, WindowAttention, window_mask
from tests.vaeformer_models import shaken

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
